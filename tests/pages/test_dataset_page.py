"""dataset.py and its page: every problem that was put into a data set is printed and shown."""

import base64
import io
import re
import shutil

import numpy as np
from browser import PHONE, opened, reads_well
from conftest import run_here, succeeded
from data.test_face_box import photographs, save
from PIL import Image

import dataset
from toolkit.data.face_box import Faces
from toolkit.data.split import Split
from toolkit.pages import dataset as dataset_page
from toolkit.pages.dataset import FOUND_COLOUR, USED_COLOUR
from toolkit.pages.parts.predictions import READABLE_CLASSES


def test_every_problem_of_a_data_set_is_found(browser, drawn, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(drawn.train, images)
    first, second, third, fourth, fifth = sorted(path for path in images.iterdir())[:5]
    old = first.with_name(first.name.rpartition("_")[0] + "_0")
    first.rename(old)
    shutil.copy(second / "normal.jpg", third / "mask1.jpg")
    (third / "mask2.jpg").write_bytes((third / "mask2.jpg").read_bytes()[:500])
    (third / "mask3.jpg").unlink()
    shutil.copy(third / "mask4.jpg", third / "mask4.jpeg")
    with Image.open(fourth / "mask1.jpg") as photo:
        photo.resize((30, 40)).save(fourth / "mask1.jpg")
    fifth.rename(images / f"{second.name.partition('_')[0]}_male_Drawn_33")
    (images / "notes.txt").write_text("")
    person, gender, *_ = old.name.split("_")
    other = {"male": "female", "female": "male"}[gender]
    rows = f"{person},all,gender,{gender},{other},sure\n{person},mask5,leave_out,,,sure\n"
    (tmp_path / "own.csv").write_text("person,photograph,field,given,correct,certainty\n" + rows)
    folders = {"SM_CHANNEL_TRAIN": images, "SM_OUTPUT_DATA_DIR": tmp_path}
    succeeded(
        run_here("dataset.py", **folders, RELABEL=tmp_path / "own.csv", SIZE="64x48"),
        "passed over, as they are no photographs (1): notes.txt",
        f"unreadable photographs (1): {third.name}/mask2.jpg",
        f"photographs smaller than 64x48 (1): {fourth.name}/mask1.jpg (40x30)",
        f"folders without all photographs (1): {third.name} (mask3)",
        f"photographs with several extensions (1): {third.name}/mask4",
        f"people with several folders (1): {second.name.partition('_')[0]} (",
        "identical files (2): ",
        f"folders of no age from 1 to 100 (1): {old.name}",
        "CROP=1: faces fill the photographs, or are not in one place, or fewer than 50 people",
    )
    with opened(browser, tmp_path / "dataset.html", viewport=PHONE, color_scheme="dark") as shown:
        reads_well(shown)
        table, _ = dataset.read_faces(images)
        train, validation = shown.locator(".bars").first.locator("tbody tr").nth(17).locator("td").all_inner_texts()
        assert int(train) + int(validation) == (dataset.labels(table) == 17).sum() > 0
        assert shown.get_by_role("img", name="People by age in years").is_visible()
        assert shown.get_by_text(f"mask1.jpg: {gender} to {other}", exact=True).is_visible()
        assert shown.get_by_text("mask5.jpg: left out", exact=True).is_visible()


def test_the_faces_are_found_and_shown_with_the_crop_that_is_set(browser, tmp_path):
    save(tmp_path / "images", *photographs(60, (30, 24), 9))
    folders = {"SM_CHANNEL_TRAIN": tmp_path / "images", "SM_OUTPUT_DATA_DIR": tmp_path}
    done = succeeded(run_here("dataset.py", **folders, SIZE="64x48", CROP="0.5"))
    assert re.search(r"^CROP=0\.\d+,0\.\d+,0\.\d+,0\.\d+ holds the faces", done.stdout, re.M)
    assert "photographs smaller than 64x48 CROP=0.5 (120): " in done.stdout
    with_phone = tmp_path / "images" / "7_female_x_27" / "mask1.png"
    Image.new("L", (12000, 9000)).save(with_phone)
    succeeded(run_here("dataset.py", **folders, SIZE="64x48", CROP="0.5", MAX_MEGAPIXELS="200"), "(119): ")
    with opened(browser, tmp_path / "dataset.html", viewport=PHONE) as shown:
        reads_well(shown)
        mean = shown.get_by_alt_text("Mean photograph with the box of the crop")
        with Image.open(io.BytesIO(base64.b64decode(mean.get_attribute("src").partition(",")[2]))) as photo:
            seen = np.asarray(photo.convert("RGB")).astype(int)
    orange, blue = (np.abs(seen - colour).sum(-1) < 150 for colour in (FOUND_COLOUR, USED_COLOUR))
    assert orange.any() and blue.any()
    assert np.abs(np.flatnonzero(blue.any(1))[[0, -1]] / len(seen) - (0.25, 0.75)).max() < 0.03


def test_classes_that_nobody_is_of_and_those_that_validation_lacks_are_told_apart():
    labels = np.repeat(np.arange(16), 2)
    faces = Faces(np.zeros((4, 3, 3), np.uint8), 1.0, None)
    sides = Split(np.arange(0, 32, 2), np.arange(1, 31, 2))
    findings = dataset_page.Findings("", labels, sides, "", {}, faces)
    lacking = dataset_page._lacking(findings)
    assert lacking == {"the data set": list(READABLE_CLASSES[16:]), "validation": [READABLE_CLASSES[15]]}


def test_where_nobody_is_validated_nobody_is_missed(drawn, tmp_path):
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_OUTPUT_DATA_DIR": tmp_path}
    succeeded(run_here("dataset.py", **folders, VAL_RATIO=0, SIZE="64x48"))
    page = (tmp_path / "dataset.html").read_text()
    assert '<th scope="col">training</th></tr>' in page and "macro F1 of validation" not in page
    assert "with the box of the crop" not in page and "Orange" not in page  # CROP=1 here: no box is drawn
