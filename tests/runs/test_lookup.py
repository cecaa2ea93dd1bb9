"""Which run a name means."""

import json
import os
import pathlib
import tempfile

import pytest

from toolkit.runs import lookup
from toolkit.runs.folders import EXPORTED, RESULT, WEIGHTS
from toolkit.system.console import InputError


def make_run(folder, age):
    folder.mkdir(parents=True)
    (folder / WEIGHTS).touch()
    os.utime(folder / WEIGHTS, (age, age))


def test_the_run_that_is_meant(tmp_path):
    for name, age in (("a", 100), ("a-2", 300), ("a-10", 400), ("b", 200), ("a-b", 500)):
        make_run(tmp_path / name, age)
    (tmp_path / "unfinished").mkdir()
    assert lookup.resolve(tmp_path, "a") == (tmp_path / "a", [tmp_path / "a"])
    assert lookup.resolve(tmp_path, None) == (tmp_path / "a-b", [tmp_path / "a-b"])
    assert lookup.resolve(tmp_path / "b", "anything") == (tmp_path / "b", [tmp_path / "b"])
    for name, age in (("f/fold-10", 600), ("f/fold-2", 700), ("f-2/fold-0", 650), ("f/fold-x", 800)):
        make_run(tmp_path / name, age)
    folds = [tmp_path / "f" / "fold-2", tmp_path / "f" / "fold-10"]
    assert (
        lookup.resolve(tmp_path, "f")
        == lookup.resolve(tmp_path, None)
        == lookup.resolve(tmp_path / "f", None)
        == (tmp_path / "f", folds)
    )
    assert lookup.resolve(tmp_path / "f", "fold-2") == (tmp_path / "f" / "fold-2", folds[:1])
    assert lookup.resolve(tmp_path, "f/fold-10") == (tmp_path / "f" / "fold-10", folds[1:])
    make_run(tmp_path / "f" / "final", 750)
    assert lookup.runs_in(tmp_path / "f") == folds  # it is not finished, and a last epoch is not the best so far
    (tmp_path / "f" / "final" / RESULT).touch()
    assert lookup.runs_in(tmp_path / "f") == [*folds, tmp_path / "f" / "final"]
    for runs, name in ((tmp_path, "f/final"), (tmp_path / "f", "final")):
        assert lookup.resolve(runs, name) == (tmp_path / "f" / "final", [tmp_path / "f" / "final"])
        (tmp_path / "f" / "final" / EXPORTED).touch()  # of that one alone
        assert lookup.resolve(runs, name, EXPORTED) == (tmp_path / "f" / "final", [tmp_path / "f" / "final"])
    assert lookup.newer_runs(tmp_path / "f") == []
    assert lookup.newer_runs(tmp_path / "a") == ["a-2", "a-10"] and lookup.newer_runs(tmp_path / "a-10") == []
    for name in ("c", "unfinished", "../a", "f/", "f/fold-3", "a/a", ""):
        with pytest.raises(InputError, match=r"found the runs|SM_CHANNEL_MODEL"):
            lookup.resolve(tmp_path / "unfinished" if name == "" else tmp_path, name or None)


def test_without_a_name_a_finished_run_is_taken_and_a_newer_one_that_is_not_is_named(tmp_path, capsys):
    for name, age in (("a", 100), ("b", 200), ("c", 300)):
        make_run(tmp_path / name, age)
    assert lookup.resolve(tmp_path, None)[0] == tmp_path / "c"  # none is finished
    for name, score in (("a", 0.7), ("b", 0.6)):
        (tmp_path / name / RESULT).write_text(json.dumps({"run": name, "macro_f1": score}))
    assert lookup.resolve(tmp_path, None)[0] == tmp_path / "b"
    lookup._note_others(tmp_path / "b", WEIGHTS)
    better, newer = capsys.readouterr().out.splitlines()
    assert better.endswith("0.7000; NAME=a takes it") and newer.endswith("NAME=c takes its weights so far")
    lookup._note_others(tmp_path / "c", WEIGHTS)  # a run that is asked for, of which no score is known
    assert capsys.readouterr().out == ""


def test_a_folder_of_another_person_is_passed_over_unless_it_is_named():
    """One such folder made every lookup end with "Permission denied"."""
    with tempfile.TemporaryDirectory() as name:  # tmp_path is below a folder that only its owner may read
        folder = pathlib.Path(name)
        make_run(folder / "a", 100)
        make_run(folder / "b", 200)
        folder.chmod(0o755)
        (folder / "b").chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)  # root may read everything
        try:
            assert lookup.resolve(folder, None) == (folder / "a", [folder / "a"])
            with pytest.raises(PermissionError):
                lookup.resolve(folder, "b")
        finally:
            os.seteuid(user)
            (folder / "b").chmod(0o755)
