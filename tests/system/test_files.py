"""Files that outlive a run: whole or not there, and never another run's."""

import errno
import fcntl
import json
import os
import pathlib

import pandas as pd
import pytest

from toolkit.pages.parts import render
from toolkit.system import csv_files, files
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
    csv_files.write(tmp_path / "a.csv", pd.DataFrame({"a": [1]}))
    (tmp_path / "b.csv").touch()
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "b.csv").stat().st_mode


def test_a_folder_that_cannot_be_written_to_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        files.write_json(tmp_path / "nowhere" / "a.json", {})
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "/proc/nowhere"):
        with pytest.raises(InputError, match=r"SM_MODEL_DIR=.*expected a folder to write to"):
            files.make_folder(pathlib.Path(folder), "SM_MODEL_DIR")


@pytest.fixture(autouse=True)
def no_mac(monkeypatch):
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)


@pytest.mark.parametrize("can", [True, False], ids=["APFS", "a disk that cannot"])
def test_on_a_mac_the_drive_is_told_to_write(tmp_path, monkeypatch, can):
    """There fsync returns once the drive's own cache has the content."""
    calls = []

    def told(_, command):
        calls.append(command)
        if not can:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", told)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    files.flush(tmp_path)
    assert calls == ([51] if can else [51, "fsync"])


def refusing(*numbers: int):
    """Stands in for a function of `os` and fails with these error numbers: the tests' own disk lacks neither."""
    answers = iter(numbers)

    def refuse(*_, **__):
        number = next(answers)
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_file_system_that_lacks_rights_and_flushing_gets_its_files_and_that_is_said_once(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(files, "_LACKED", set())
    monkeypatch.setattr(os, "chmod", refusing(errno.EPERM, errno.EPERM))
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP))
    for name in ("a.json", "b.json"):
        files.write_json(tmp_path / name, {"written": name})
        assert json.loads((tmp_path / name).read_text()) == {"written": name}
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"note: the file system of {tmp_path} cannot {what}, and does without"
        for what in (
            "set the rights of files (Operation not permitted)",
            "wait until a disk holds what was written (Invalid argument)",
        )
    ]


def test_a_pipe_that_cannot_be_flushed_is_what_such_file_systems_answer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    files.flush(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, "cannot be written: Input/output error; what was there before is untouched"),
        (
            errno.ENOSPC,
            r"cannot be written: No space left on device; expected room for 5 bytes, found [\d,.]+ \w+ free",
        ),
    ],
)
def test_where_writing_fails_the_true_cause_is_named(tmp_path, monkeypatch, number, expected):
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(InputError, match=expected):
        files.write(tmp_path / "a.txt", "12345")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_where_the_system_does_not_tell_its_room(tmp_path, monkeypatch):
    """Windows has no statvfs."""
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    monkeypatch.delattr(os, "statvfs")
    with pytest.raises(files.WriteError, match="No space left on device; what was there before is untouched"):
        files.write(tmp_path / "a.txt", "12345")


def test_a_file_that_is_being_written_is_no_leftover_and_a_lock_is_no_link(tmp_path):
    """Some files are written without the folder's lock; their writer is still at work."""
    (tmp_path / ".dead.json.abcd1234.part").touch()
    with files.replacing(tmp_path / "a.json", 1) as temporary:
        with files.locked(tmp_path):
            assert temporary.exists() and not (tmp_path / ".dead.json.abcd1234.part").exists()
        temporary.write_text("1")
    assert (tmp_path / "a.json").read_text() == "1" and [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / files.LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), files.locked(tmp_path / "runs"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_report_that_cannot_be_written_stops_the_run_and_one_that_fails_does_not(capsys):
    with pytest.raises(files.WriteError), render.unless_it_fails(files.WriteError):
        raise files.WriteError("no room")
    with render.unless_it_fails(files.WriteError):
        raise ValueError("a model of one's own")
    assert "no report is written: ValueError" in capsys.readouterr().out


def test_a_disk_that_fails_while_a_report_is_made_stops_the_run_and_a_missing_file_does_not(capsys):
    with pytest.raises(OSError, match="Input/output"), render.unless_it_fails(files.WriteError):
        raise OSError(errno.EIO, "Input/output error", "photograph.jpg")
    with render.unless_it_fails(files.WriteError):
        raise FileNotFoundError(errno.ENOENT, "No such file", "of a model of one's own")
    with render.unless_it_fails():  # the page of a leaderboard, whose runs are finished
        raise OSError(errno.EIO, "Input/output error", "leaderboard.csv")
    assert capsys.readouterr().out.count("no report is written") == 2
