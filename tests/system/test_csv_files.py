"""Tables as people's programs save them, and as ours are written and read again."""

import csv
import os
import random
import time

import pytest
from conftest import refused, run_here

from toolkit.config.settings import TrainSettings
from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.runs import cross_validation, folders
from toolkit.scoring import submission
from toolkit.system import csv_files, files
from toolkit.system.console import InputError

HARD = ["NA", "nan", "None", "null", "0012", "1e5", " a ", "\ufeffa", 'a"b', '"', "a,b", "a;b", "a\nb", "a\r\nb", "\r",
        "\n", "a\x00b", "\u2028", "=1+1", "-1", "@a", "+a", "'a", "가", "가", "é", "é", "sep=;", "\t"]  # fmt: skip


def test_what_is_written_is_read_again_whatever_characters_are_in_it(tmp_path):
    rng = random.Random(1)
    # No halves of characters, which UTF-8 does not have.
    alphabet = [chr(code) for code in [*range(256), *range(0x2000, 0x2070), *range(0xAC00, 0xAC20), 0x1F642]]
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(1, 9))) for _ in range(3000)] + HARD * 2
    table = {"ImageID": texts, "person": rng.sample(texts, len(texts)), "ans": ["0"] * len(texts)}
    csv_files.write(tmp_path / "a.csv", table)
    assert csv_files.read(tmp_path / "a.csv", ("ImageID", "ans"), "X") == table
    assert csv.field_size_limit() < 2**31  # a C long of Windows, else OverflowError there
    assert csv_files.rows_as_text([["a", None], [0.5, float("nan")]]) == "a,\n0.5,\n"


PLAIN = "ImageID,ans,note\n가.jpg,0,\nb.jpg,17,x\n"
SAVED = {
    "a mark of UTF-8": PLAIN.encode("utf-8-sig"),
    "Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "Excel in Korea": PLAIN.encode("cp949"),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "semicolons, named": ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
    "commas, named": ("sep=,\n" + PLAIN).encode(),
    "bars, named": ("sep=|\n" + PLAIN.replace(",", "|")).encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "line ends of Windows": PLAIN.replace("\n", "\r\n").encode(),
    "line ends of old Macs": PLAIN.replace("\n", "\r").encode(),
    "blank lines": ("\n" + PLAIN.replace("\n", "\n\n,,\n") + "\n").encode(),
    "empty columns at the end": PLAIN.replace("\n", ",,\n").encode(),
    "empty columns in some lines": PLAIN.replace("\n", ",,\n", 2).encode(),
    "all quoted": '"ImageID","ans","note"\n"가.jpg","0",""\n"b.jpg","17","x"'.encode(),
}


@pytest.mark.parametrize("content", SAVED.values(), ids=SAVED)
def test_tables_as_spreadsheets_save_them(tmp_path, content):
    (tmp_path / "gt.csv").write_bytes(content)
    table = csv_files.read(tmp_path / "gt.csv", ("ImageID", "ans"), "SM_GROUND_TRUTH_DIR")
    assert table == {"ImageID": ["가.jpg", "b.jpg"], "ans": ["0", "17"], "note": ["", "x"]}
    assert submission.read(tmp_path / "gt.csv", "SM_GROUND_TRUTH_DIR") == {"가.jpg": 0, "b.jpg": 17}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("ImageID,ans\ncafé.jpg,0\n".encode("latin-1"), "line 2 is no UTF-8; save it as UTF-8 with commas"),
        ("ImageID,ans\n写真.jpg,0\n".encode("cp932"), "line 2 is no UTF-8; save it as UTF-8 with commas"),
        ("ImageID,ans\n漢字.jpg,0\n".encode("cp949"), "line 2 is no UTF-8; save it as UTF-8 with commas"),
        ("ImageID,ans\n가".encode()[:-1], "line 2 is no UTF-8; save it as UTF-8 with commas"),
        (b"ImageID|ans\na.jpg|0\n", "missing ImageID, ans; save it as UTF-8 with commas"),
        (b"ImageID,ans\n\n,\na.jpg,0,x\n", "line 4: expected 2 cells, as in the header, found 3: a.jpg, 0, x"),
        (b'ImageID,ans\n"a\nb.jpg",0\nc.jpg\n', "line 4: expected 2 cells, as in the header, found 1: c.jpg"),
        (b"ImageID,,,ans\na.jpg,,,0\n", "expected every column once, and a name for each"),
        (b"\xff\xfeI", "save it as UTF-8 with commas"),
    ],
)
def test_what_is_uncertain_is_refused_in_one_line_that_says_where(tmp_path, content, expected):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        csv_files.read(tmp_path / "a.csv", ("ImageID", "ans"), "SM_GROUND_TRUTH_DIR")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_table_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "gt.csv")
    (tmp_path / "output.csv").symlink_to("/dev/zero")
    settings = {"SM_GROUND_TRUTH_DIR": tmp_path, "SM_OUTPUT_DATA_DIR": tmp_path}
    refused(run_here("evaluation.py", **settings), "gt.csv: cannot be read: expected a file, found a pipe or a device")
    for path in (tmp_path / "gt.csv", tmp_path / "output.csv"):
        with pytest.raises(OSError, match="found a pipe or a device"):
            files.sha256(path)


def test_people_who_are_called_na_nan_and_none_stay_who_they_are(tmp_path):
    """In out_of_fold.csv, from which suspects.py takes them."""
    people = ["NA", "nan", "None", "0012", "12"]
    for fold in range(2):
        (tmp_path / f"fold-{fold}").mkdir()
        p = dict.fromkeys(PROBABILITY_COLUMNS, [1 / 18] * len(people))
        paths = [f"{person}_male_Asian_20/mask{fold + 1}.jpg" for person in people]
        numbers = dict.fromkeys(("label", "predicted"), [0, 1, 2, 3, 17])
        csv_files.write(tmp_path / f"fold-{fold}" / "validation.csv", {"path": paths, "person": people, **numbers, **p})
        files.write_json(tmp_path / f"fold-{fold}" / folders.RESULT, {"kept_epoch": 1, "val_loss": 1.0})
    cross_validation.join(tmp_path, TrainSettings(folds=2))
    found = csv_files.read(tmp_path / cross_validation.OUT_OF_FOLD, ("person", "fold", "p3"), "X")
    assert sorted(found["person"]) == sorted(people * 2) and set(found["fold"]) == {"0", "1"}
    assert set(found["label"]) == {"0", "1", "2", "3", "17"} and set(found["p3"]) == {repr(1 / 18)}


def test_an_error_about_a_million_columns_names_a_few(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(map(str, range(10**5))) + "\n")
    with pytest.raises(InputError) as error:
        csv_files.read(tmp_path / "a.csv", ("ImageID",), "SM_CHANNEL_EVAL")
    assert len(str(error.value)) < 1000 and "99970 more" in str(error.value)


def test_rows_that_end_in_thousands_of_empty_cells_are_read_in_time(tmp_path):
    """A spreadsheet writes them if one of its last columns, up to 16,384, was ever formatted."""
    rows = ["ImageID,ans", *(f"{number}.jpg,0" for number in range(100))]
    (tmp_path / "a.csv").write_text("".join(f"{row}{',' * 16_000}\n" for row in rows))
    began = time.process_time()
    table = csv_files.read(tmp_path / "a.csv", ("ImageID", "ans"), "X")
    assert list(table) == ["ImageID", "ans"] and table["ans"] == ["0"] * 100
    assert time.process_time() - began < 10
