"""Files that outlive a run: whole or not there, and never another run's."""

import json
import pathlib

import pandas as pd
import pytest

from toolkit.system import files
from toolkit.system.console import InputError


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"kept": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(path, {"lost": float("nan")})
    with pytest.raises(RuntimeError), files.replacing(path, 4) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"kept": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_written_files_have_the_usual_rights(tmp_path):
    files.write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [1]}))
    (tmp_path / "b.csv").touch()
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "b.csv").stat().st_mode


def test_a_folder_that_cannot_be_written_to_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        files.write_json(tmp_path / "nowhere" / "a.json", {})
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "/proc/nowhere"):
        with pytest.raises(InputError, match=r"SM_MODEL_DIR=.*expected a folder to write to"):
            files.make_folder(pathlib.Path(folder), "SM_MODEL_DIR")
