"""A run goes on under code that cannot change its result, and under no other."""

import fnmatch
import importlib.util
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, repaint, task_of
from imports import closure

import dataset
import leaderboard
from toolkit.runs import fingerprint
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.fingerprint import differences, make_fingerprint, matching
from toolkit.runs.folders import open_run

# What train.py imports, and what cannot change a result of it. A module that is neither here nor in the fingerprint
# fails the test below: decide where it belongs.
CANNOT_CHANGE_A_RESULT = (
    "toolkit/config/conflicts.py",  # refuses settings, and changes none
    "toolkit/config/defaults.py",  # the values of settings are in the fingerprint themselves
    "toolkit/config/extras.py",  # is an optional package there?
    "toolkit/config/presets.py",
    "toolkit/config/settings.py",
    "toolkit/config/shared.py",
    "toolkit/config/sources.py",
    "toolkit/config/synonyms.py",
    "toolkit/config/types.py",
    "toolkit/data/checks.py",  # the labels that it passes on are in the task's digest
    "toolkit/demo/*.py",  # a folder of drawn faces is never drawn anew
    "toolkit/pages/*.py",
    "toolkit/runs/fingerprint.py",  # decides whether a run goes on, as does the next one
    "toolkit/runs/folders.py",
    "toolkit/runs/run_table.py",
    "toolkit/runs/tensorboard.py",
    "toolkit/system/console.py",
    "toolkit/system/csv_files.py",  # the digest of photographs has the labels that were read with it, and the next two
    "toolkit/system/spelling.py",
    "toolkit/system/files.py",
    "toolkit/system/signals.py",
    "toolkit/system/subprocesses.py",
    "toolkit/training/lr_finder.py",  # nothing of what it trains is kept
)
# The same for inference.py and evaluation.py, as leaderboard.py runs them.
CANNOT_CHANGE_A_SCORE = (
    "toolkit/models/onnx_file.py",  # for RUNTIME=onnx, which leaderboard.py does not use
    "toolkit/runs/lookup.py",  # leaderboard.py names the run
    "toolkit/serving/endpoint.py",  # for an endpoint, as are the next ones
    "toolkit/serving/handlers.py",
    "toolkit/serving/model_archive.py",  # for a run in model.tar.gz
    "toolkit/serving/requests.py",
)


def without(paths: set[str], patterns: tuple[str, ...]) -> set[str]:
    return {path for path in paths if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)}


def test_other_photographs_under_the_same_names_are_another_task(drawn, tmp_path):
    """People overwrite photographs, and copying tools keep size and time of change."""
    shutil.copytree(drawn.train, tmp_path / "images")
    table = dataset.read_faces(tmp_path / "images")[0][:8]

    def task():
        return task_of(table, tmp_path / "images", (32, 32), np.arange(6), np.arange(6, 8))

    before = task()
    assert task().digest() == before.digest()
    repaint(os.fsdecode(dataset.paths(table, tmp_path / "images")[7]))
    assert task().digest() != before.digest()
    of_data = [one.record({"photographs": "", "weights": "", "code": {}}, "")["data"] for one in (before, task())]
    assert of_data[0] != of_data[1]


def test_it_covers_exactly_the_code_that_can_change_a_result():
    code, imports = set(make_fingerprint({}, "")["code"]), closure("train.py")
    assert without(imports - code, CANNOT_CHANGE_A_RESULT) == set(), "in neither list"
    assert code - imports == set(), "train.py does not import them"
    assert without(code, CANNOT_CHANGE_A_RESULT) == code, "in both lists"
    for pattern in CANNOT_CHANGE_A_RESULT:
        assert fnmatch.filter(imports, pattern), f"{pattern}: train.py imports no such file"


def test_the_leaderboard_covers_exactly_the_code_that_can_change_a_score():
    scripts = "train.py", "inference.py", "evaluation.py"
    code = set(make_fingerprint({}, "")["code"]) | set(matching(leaderboard.SCORING))
    both = without(closure(*scripts) - code, CANNOT_CHANGE_A_RESULT)
    assert without(both, CANNOT_CHANGE_A_SCORE) == set(), "in no list"
    for pattern in CANNOT_CHANGE_A_SCORE:
        assert fnmatch.filter(both, pattern), f"{pattern}: these scripts import no such file"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code, to be edited."""
    folder = tmp_path_factory.mktemp("copy")
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    shutil.copytree(ROOT / "toolkit", folder / "toolkit", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("edited", "goes_on"),
    [
        ("train.py", False), ("model.py", False), ("toolkit/data/augment.py", False),
        ("toolkit/training/step.py", False), ("toolkit/runs/cross_validation.py", False),
        ("toolkit/training/a_new_module.py", False),
        ("inference.py", True), ("toolkit/demo/portrait.py", True), ("toolkit/serving/requests.py", True),
        ("toolkit/pages/report.py", True), ("toolkit/pages/templates/report.html", True),
        ("toolkit/training/lr_finder.py", True), ("toolkit/runs/lookup.py", True),
        ("toolkit/config/a_new_module.py", True),
    ],
)  # fmt: skip
def test_an_edit_begins_a_new_run_exactly_where_it_can_change_the_result(
    copy, tmp_path, capsys, monkeypatch, edited, goes_on
):
    monkeypatch.setattr(fingerprint, "ROOT", copy)
    assert edited.endswith("a_new_module.py") or (copy / edited).exists()
    before = make_fingerprint({}, "p")
    with open_run(tmp_path, None, "a", before, "auto") as run:
        run.checkpoints.save(Checkpoint(before, "now", epoch=1, tensors={"model.a": torch.zeros(1)}))
    with (copy / edited).open("a") as file:
        file.write("\n# edited\n")
    after = make_fingerprint({}, "p")
    with open_run(tmp_path, None, "a", after, "auto") as run:
        assert (run.folder.name, run.checkpoint is not None) == (("a", True) if goes_on else ("a-2", False))
    assert differences(before, after) == ([] if goes_on else [f"{edited} has changed"])
    assert goes_on or f"does not go on: {edited} has changed" in capsys.readouterr().out


def test_a_module_of_ones_own_that_is_imported_counts(copy, monkeypatch):
    monkeypatch.setattr(fingerprint, "ROOT", copy)
    (copy / "mynet.py").write_text("WIDTH = 8\n")
    before = make_fingerprint({}, "p")
    spec = importlib.util.spec_from_file_location("mynet", copy / "mynet.py")
    monkeypatch.setitem(sys.modules, "mynet", importlib.util.module_from_spec(spec))
    with_it = make_fingerprint({}, "p")
    assert with_it["code"].keys() - before["code"].keys() == {"mynet.py"}
    (copy / "mynet.py").write_text("WIDTH = 16\n")
    assert differences(with_it, make_fingerprint({}, "p")) == ["mynet.py has changed"]
