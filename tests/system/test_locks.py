"""What a lock promises: one holder, none after a crash, nothing left behind, no waiting where there are no locks."""

import errno
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import ROOT

from toolkit.system import files
from toolkit.system.files import LOCK, locked

HOLD = """
import pathlib, sys, time
from toolkit.system.files import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""
COUNT = """
import pathlib, sys
from toolkit.system.files import locked
folder = pathlib.Path(sys.argv[1])
for _ in range(200):
    with locked(folder):
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""


def at_once(folder, **given):
    return locked(folder, give_up=lambda: True, **given)


def test_a_killed_holder_frees_the_lock_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(InterruptedError), at_once(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    began = time.monotonic()
    with locked(tmp_path) as alone:
        assert alone and time.monotonic() - began < 1
    assert list(tmp_path.iterdir()) == []


def test_processes_take_turns_and_leave_nothing_behind(tmp_path):
    """Processes take and release the lock as fast as they can; no two hold it at once."""
    (tmp_path / "number").write_text("0")
    processes = [
        subprocess.Popen([sys.executable, "-c", COUNT, tmp_path], cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "800"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


@pytest.mark.parametrize("removed", ["unlinked", "renamed, as NFS does while it is open"])
def test_who_has_opened_a_lock_file_that_is_then_removed_takes_the_new_one(tmp_path, monkeypatch, removed):
    path, flock, opened = tmp_path / LOCK, fcntl.flock, []

    def flock_late(descriptor, how):
        if not opened:  # in this moment its holder ends, and another process begins
            opened.append(os.fstat(descriptor))
            path.unlink() if removed == "unlinked" else path.rename(tmp_path / ".nfs0001")
            path.touch()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with locked(tmp_path):
        assert not os.path.samestat(opened[0], path.stat())
        with pytest.raises(InterruptedError), at_once(tmp_path):
            pass
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_the_disk_has_no_locks_nobody_waits_and_nobody_is_alone(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".output.csv.abcd1234.part").touch()
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert not first and not second
    assert (tmp_path / ".output.csv.abcd1234.part").exists()  # somebody may be writing it


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "gone"):
        pass
    assert not (tmp_path / "gone").exists()


def test_a_folder_may_go_while_it_is_locked(tmp_path):
    (tmp_path / "a").mkdir()
    with locked(tmp_path / "a"):
        (tmp_path / "a" / LOCK).unlink()
        (tmp_path / "a").rmdir()
    assert list(tmp_path.iterdir()) == []


def test_locks_of_two_names_are_independent(tmp_path):
    with locked(tmp_path), at_once(tmp_path, name=".other.lock") as alone:
        assert alone
        for name in (LOCK, ".other.lock"):
            with pytest.raises(InterruptedError), at_once(tmp_path, name=name):
                pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_another_person_made_is_named_and_stays():
    with tempfile.TemporaryDirectory() as folder:  # in one that others may look into
        path = pathlib.Path(folder, LOCK)
        path.touch(mode=0)
        os.chmod(folder, 0o777)
        person = os.geteuid()
        if person == 0:  # who may open everything
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=str(path)), locked(path.parent):
                pass
        finally:
            os.seteuid(person)
        assert path.exists()


def test_who_waits_says_so_once_and_gives_up_when_asked_to(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "POLL_SECONDS", 0.001)
    asked = iter([False] * 5 + [True])
    with locked(tmp_path), pytest.raises(InterruptedError), locked(tmp_path, give_up=lambda: next(asked)):
        pass
    assert capsys.readouterr().out == f"waiting for another run that writes to {tmp_path}\n"
    assert list(asked) == []
