"""Names that differ only in zeros in front, blanks, letter case or Unicode form, in real tables and on a real disk."""

import os
import unicodedata

import pytest
from PIL import Image

import dataset
from toolkit.scoring import submission
from toolkit.system import spelling
from toolkit.system.console import InputError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "가나.jpg") for form in ("NFC", "NFD"))


def test_a_name_is_found_in_another_spelling_where_no_third_name_fits():
    assert spelling.match(["000020", " Kim ", "b", "c"], ["20", "kim", "b", "d"]) == {
        "000020": "20", " Kim ": "kim", "b": "b",
    }  # fmt: skip
    assert spelling.match([COMPOSED], [DECOMPOSED]) == {COMPOSED: DECOMPOSED} and COMPOSED != DECOMPOSED
    assert spelling.match(["A", "a"], ["a"]) == {"a": "a"}  # the other one is not there
    assert spelling.match(["A", "a"], [" a"]) == spelling.match(["a"], ["A", " a"]) == {}
    assert spelling.match(["1-0", "a1"], ["1-00", "a01"]) == {}  # a spreadsheet keeps their zeros
    assert spelling.describe({"a": "a"}) == "" and "'20' is '020'" in spelling.describe({"20": "020", "a": "a"})
    assert "1 names" in (form := spelling.describe({COMPOSED: DECOMPOSED})) and "in its other Unicode form" in form


def test_photographs_of_info_csv_are_found_under_the_names_that_the_disk_has(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    if (tmp_path / "IMAGES").exists():
        pytest.skip("this disk finds names in any spelling, as that of a Mac")
    for name in (DECOMPOSED, "a.jpg", "B.JPG", "7"):
        Image.new("RGB", (6, 8)).save(tmp_path / "images" / name, "JPEG")
    (tmp_path / "info.csv").write_text(f"ImageID,ans\n{COMPOSED},0\na.jpg ,0\nb.jpg,0\n007,0\nnone.jpg,0\n")
    info, paths = dataset.read_eval(tmp_path)
    assert info["ImageID"] == [COMPOSED, "a.jpg ", "b.jpg", "007", "none.jpg"]  # as the submission must have them
    expected = [DECOMPOSED, "a.jpg", "B.JPG", "7", "none.jpg"]
    assert paths == [os.path.join(tmp_path, "images", name) for name in expected]
    assert f"info.csv: 4 names differ only in {spelling.ONLY_IN}" in capsys.readouterr().out
    (tmp_path / "images" / "b.JPG").touch()
    with pytest.raises(InputError, match=r"'b.jpg' may be '[bB].JPG' or '[bB].JPG'.*write them exactly as they"):
        dataset.read_eval(tmp_path)


def test_a_submission_in_another_spelling_is_scored_and_one_that_fits_several_is_refused_with_that_reason(capsys):
    truth = {COMPOSED: 1, "b.jpg": 2}
    assert submission.answers_to(truth, {"B.jpg": 5, DECOMPOSED: 4}) == {COMPOSED: 4, "b.jpg": 5}
    assert f"note: gt.csv and output.csv: 2 names differ only in {spelling.ONLY_IN}" in capsys.readouterr().out
    with pytest.raises(InputError, match="'b.jpg' may be 'B.JPG' or 'B.jpg'"):
        submission.answers_to({"b.jpg": 2}, {"B.jpg": 5, "B.JPG": 4})
    with pytest.raises(InputError, match="expected the ImageIDs of gt.csv, found 1 missing: c.jpg; 1 extra: d.jpg"):
        submission.answers_to({"c.jpg": 2}, {"d.jpg": 5})
