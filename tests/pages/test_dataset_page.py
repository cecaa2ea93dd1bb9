"""dataset.py and its page: every problem that was put into a data set is printed and shown."""

import shutil

from browser import PHONE, opened, reads_well
from conftest import run_here
from PIL import Image


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
    done = run_here("dataset.py", **folders, RELABEL=tmp_path / "own.csv", SIZE="64x48")
    assert done.returncode == 0, done.stderr
    for words in (
        "passed over, as they are no photographs (1): notes.txt",
        f"unreadable photographs (1): {third.name}/mask2.jpg",
        f"photographs smaller than 64x48 (1): {fourth.name}/mask1.jpg (40x30)",
        f"folders without all photographs (1): {third.name} (mask3)",
        f"photographs with several extensions (1): {third.name}/mask4",
        f"people with several folders (1): {second.name.partition('_')[0]} (",
        "identical files (2): ",
        f"folders of no age from 1 to 100 (1): {old.name}",
    ):
        assert words in done.stdout, words
    with opened(browser, tmp_path / "dataset.html", viewport=PHONE, color_scheme="dark") as shown:
        reads_well(shown)
        assert shown.get_by_text(f"mask1.jpg: {gender} to {other}", exact=True).is_visible()
        assert shown.get_by_text("mask5.jpg: left out", exact=True).is_visible()
