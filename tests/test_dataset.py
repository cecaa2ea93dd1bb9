import os

import pandas as pd
import pytest
from PIL import Image

import dataset
from toolkit.data.split import held_out_people, split_by_person
from toolkit.system.console import InputError

PHOTOGRAPHS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")


@pytest.fixture
def images(tmp_path):
    """An image folder, and a function that puts files into it."""
    root = tmp_path / "train" / "images"
    root.mkdir(parents=True)

    def put(folder: str, *files: str):
        (root / folder).mkdir(exist_ok=True)
        for file in files:
            Image.new("RGB", (6, 8)).save(root / folder / file, "PNG")

    return root, put


def make_folder(path: bytes) -> None:
    """Of a name that is no UTF-8."""
    try:
        os.mkdir(path)
    except OSError:
        pytest.skip("this disk has names in UTF-8 only, as those of a Mac")


def test_the_table_is_sorted_and_takes_every_extension_of_every_file(images):
    root, put = images
    put("000002_male_Asian_59", "Normal.JPG", "mask1.jpeg", "mask2.png", "incorrect_mask.jpg")
    put("000001-1_female_Asian_60", "mask3.jpg")
    faces, passed_over = dataset.read_faces(root)
    assert passed_over == []
    assert dataset.paths(faces).astype(str).tolist() == [
        "000001-1_female_Asian_60/mask3.jpg",
        "000002_male_Asian_59/Normal.JPG",
        "000002_male_Asian_59/incorrect_mask.jpg",
        "000002_male_Asian_59/mask1.jpeg",
        "000002_male_Asian_59/mask2.png",
    ]
    assert faces["person"].tolist() == ["000001-1"] + ["000002"] * 4
    assert faces["photograph"].tolist() == ["mask3", "normal", "incorrect_mask", "mask1", "mask2"]
    assert dataset.labels(faces).tolist() == [5, 13, 7, 1, 1]
    parent, _ = dataset.read_faces(root.parent)
    pd.testing.assert_frame_equal(parent, faces)


def test_junk_is_passed_over_and_named(images):
    root, put = images
    put("000001_male_Asian_20", "mask1.jpg", "._mask1.jpg", "mask6.jpg", "mask1.bak")
    (root / "000001_male_Asian_20" / "normal.txt").write_text("a note")
    put(".ipynb_checkpoints", "mask1.jpg")
    put("._000001_male_Asian_20x", "mask1.jpg")
    put("000002_other_Asian_20", "mask1.jpg")
    put("000001_male_Asian_20/normal.jpg")
    (root / "000003_male_Asian_30").touch()
    faces, passed_over = dataset.read_faces(root)
    assert dataset.paths(faces, root).tolist() == [f"{root}/000001_male_Asian_20/mask1.jpg".encode()]
    assert sorted(passed_over) == [
        "._000001_male_Asian_20x", ".ipynb_checkpoints", "000001_male_Asian_20/._mask1.jpg",
        "000001_male_Asian_20/mask1.bak", "000001_male_Asian_20/mask6.jpg", "000001_male_Asian_20/normal.jpg",
        "000001_male_Asian_20/normal.txt",
        "000002_other_Asian_20", "000003_male_Asian_30",
    ]  # fmt: skip


def test_what_looks_like_people_or_photographs_is_a_warning_apart_from_junk(images, capsys):
    root, put = images
    put("000001_male_Asian_20", "mask1.jpg", "mask1 (1).jpg", ".DS_Store")
    put("000002_woman_Asian_20", "mask1.jpg")
    put("__MACOSX", "mask1.jpg")
    (root / "000001_male_Asian_20" / "normal").mkdir()
    (root / "train.csv").write_text("id,gender\n")
    (root / "Thumbs.db").write_bytes(b"")
    make_folder(os.fsencode(root) + b"/000003_male_\xe9_20")
    _, passed_over = dataset.read_faces(root)
    dataset.report_passed_over(root, passed_over)
    junk, warning = capsys.readouterr()
    assert junk.startswith("passed over 4 files and folders that are no photographs: ")
    assert all(name in junk for name in (".DS_Store", "__MACOSX", "train.csv", "Thumbs.db"))
    assert warning.startswith("warning: 4 files and folders look like people or photographs, and are NOT read: ")
    for name in ("000002_woman_Asian_20", "20/mask1 (1).jpg", "20/normal", "000003_male_\\udce9_20"):
        assert name in warning


def test_a_photograph_of_any_extension_is_read_as_inference_reads_it(images, capsys):
    root, put = images
    put("000001_male_Asian_20", "mask1", "normal.jfif_large", "incorrect_mask.HEIC", "mask2.jpg", "mask2.orig")
    (root / "000001_male_Asian_20" / "mask3.json").write_text("{}")
    table, passed_over = dataset.read_faces(root)
    assert table["file"].tolist() == ["incorrect_mask.HEIC", "mask1", "mask2.jpg", "normal.jfif_large"]
    assert table["photograph"].tolist() == ["incorrect_mask", "mask1", "mask2", "normal"]
    assert passed_over == ["000001_male_Asian_20/mask2.orig", "000001_male_Asian_20/mask3.json"]
    (root / "notes").write_text("")
    Image.new("RGB", (6, 8)).save(root / "photo", "JPEG")
    info, _ = dataset.read_eval(root.parent)
    assert info == {"ImageID": ["photo"]}
    assert "no photographs: notes; folders in it are NOT read: 000001_male_Asian_20" in capsys.readouterr().out


def test_names_that_are_no_utf_8_are_passed_over_under_names_that_can_be_printed(images):
    root, put = images
    put("000001_male_Asian_20", "mask1.jpg")
    make_folder(os.fsencode(root) + b"/000002_male_Asian\xe9_20")
    faces, passed_over = dataset.read_faces(root)
    assert len(faces) == 1 and passed_over == ["000002_male_Asian\\udce9_20"]


def test_a_folder_copied_by_a_mac_is_not_a_second_person(images):
    root, put = images
    put("000001_male_Asian_20", "mask1.jpg")
    put("._000001_male_Asian_20", "mask1.jpg")
    assert len(dataset.read_faces(root)[0]) == 1


def test_a_folder_without_photographs_is_refused(images):
    root, put = images
    with pytest.raises(InputError, match="found nothing"):
        dataset.read_faces(root)
    put("holiday", "mask1.jpg")
    with pytest.raises(InputError, match="expected folders <id>_<gender>_<race>_<age>.*found holiday"):
        dataset.read_faces(root)


def test_an_id_with_two_folders_falls_on_one_side(images):
    root, put = images
    for folder in ("003397_female_x_19", "003397_female_x_20", "000001_female_x_20", "000002_male_x_20"):
        put(folder, "mask1.jpg", "normal.jpg")
    faces, _ = dataset.read_faces(root)
    for seed in range(20):
        sides = split_by_person(faces, held_out_people(faces, 0.4, 0, 0, seed))
        assert faces["person"].iloc[sides.train].eq("003397").sum() in (0, 4)


def test_info_csv_names_every_photograph_once_and_its_rows_fit_its_header(tmp_path):
    (tmp_path / "images").mkdir()
    for content, expected in (
        ("ImageID,ans\n", "expected a row for each photograph"),
        ("ImageID,ans\na.jpg,0\nb.jpg,0\na.jpg,0\n", "expected every ImageID once, found 1 repeated: a.jpg"),
        ("ImageID,ans\na.jpg,0\nb.jpg,0,1\n", "line 3: expected 2 cells, as in the header, found 3: b.jpg, 0, 1"),
        ("ImageID,ans\na.jpg\n", "line 2: expected 2 cells, as in the header, found 1"),
        ('ImageID,ans\n"a.jpg,0\n', "cannot be read as CSV"),
        ("", "expected the columns ImageID; found nothing"),
    ):
        (tmp_path / "info.csv").write_text(content)
        with pytest.raises(InputError, match=expected):
            dataset.read_eval(tmp_path)


def test_info_csv_with_a_mark_of_byte_order_windows_line_ends_and_more_columns_keeps_its_text(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "info.csv").write_bytes("\ufeffImageID,ans,note\r\n001.jpg,0,NA\r\n1e5,0,\r\n".encode())
    info, paths = dataset.read_eval(tmp_path)
    assert info == {"ImageID": ["001.jpg", "1e5"], "ans": ["0", "0"], "note": ["NA", ""]}
    assert paths == [f"{tmp_path}/images/001.jpg", f"{tmp_path}/images/1e5"]


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg"])
def test_info_csv_cannot_lead_out_of_the_image_folder(tmp_path, name):
    (tmp_path / "images").mkdir()
    (tmp_path / "info.csv").write_text(f"ImageID,ans\n{name},0\n")
    with pytest.raises(InputError, match="1 that lead out of it"):
        dataset.read_eval(tmp_path)
