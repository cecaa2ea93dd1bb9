"""JSON files of runs with wrong values, or nested too deeply: passed over, or refused in one line that names them."""

import contextlib
import itertools
import json
import pathlib

import numpy as np
import pytest
from conftest import from_scratch
from test_headers import crafted

import export
import leaderboard
from toolkit.backbones import pretrained
from toolkit.config import presets
from toolkit.runs import artefacts, cross_validation, folders, lookup, run_table
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.weights import WEIGHTS
from toolkit.system.console import InputError
from toolkit.training import decide_by

DEEP = '{"settings": ' + "[" * 100_000 + "]" * 100_000 + "}"
FINGERPRINT = {"settings": {"lr": 0.1}, "photographs": "a", "weights": "", "code": {"dataset.py": "0"}}
SETTINGS = FINGERPRINT | {
    "settings": {
        "lr": 0.1, "crop": [0, 0, 1, 1], "sm_channel_train": "images", "sm_checkpoint_dir": "states", "val_ratio": 0.2,
        "folds": 0,
    },
    "origin": {"lr": "flag", "crop": "default", "val_ratio": "flag", "folds": "flag"}, "started": "now",
    "code": dict.fromkeys(run_table.EDITED, "0"), "data": "b",
    "run": {"decided_by": "defaults"}, "pseudo_labels": {"photographs": [1, 2]},
}  # fmt: skip
RESULT = {"run": "r", "kept_epoch": 2, "macro_f1": 0.5, "accuracy": 0.5, "val_loss": 1.0, "seconds": 3.5, "started": ""}
ROW = dict.fromkeys(leaderboard.COLUMNS, "")
PROGRESS = {"fingerprint": FINGERPRINT | {"scoring": {"data": "c"}}, "run": "r", "row": ROW, "log": "train.log"}


def texts(whole: dict):
    """Every third of the values: it is the kinds that matter, and each comes often."""
    return [DEEP, "[1", *map(json.dumps, itertools.islice(crafted(whole), 0, None, 3))]


def told(error: Exception, path: pathlib.Path) -> None:
    """Assert that it is one line that names the file."""
    assert str(path) in str(error) and len(str(error)) < 1500
    assert "\n" not in str(error) and ": :" not in str(error)


@pytest.fixture
def run(tmp_path, monkeypatch) -> pathlib.Path:
    """The folder of a finished run, beside which this process works."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "r"
    run.mkdir()
    (run / folders.SETTINGS).write_text(json.dumps(SETTINGS))
    (run / folders.RESULT).write_text(json.dumps(RESULT))
    (run / WEIGHTS).touch()
    (run / "validation.csv").write_text("path,person\na,b\n")
    return run


def test_settings_of_a_run_with_wrong_values_are_passed_over(run, capsys):
    assert folders.find_finished(run.parent, "r", SETTINGS) == run and run_table.settings_of(run)["data"] == "b"
    path, known, config = run / folders.SETTINGS, 0, from_scratch()
    (run.parent / "all" / "fold-0").mkdir(parents=True)
    for text in texts(SETTINGS):
        path.write_text(text)
        (run.parent / "all" / "fold-0" / folders.SETTINGS).write_text(text)
        found = [run_table.settings_of(run), run_table.settings_of(run)]
        known += bool(run_table.differing(found) == [] and found[0])
        folders.find_finished(run.parent, "r", FINGERPRINT)
        folders.state_places(run.parent, run.parent, "r")
        folders.is_same_run(run, run.parent, Checkpoint(FINGERPRINT, "now"))
        pretrained.note_people_seen(str(run / WEIGHTS), run, {"b"})
        decide_by.note_other_settings(config, run.parent / "all")
        with contextlib.suppress(InputError):  # its folder is not here
            export.training_photographs(run, None)
        try:
            presets.read_record(path)
        except InputError as error:
            told(error, path)
    assert known > 50


def test_a_result_with_wrong_values_is_refused_or_passed_over(run, capsys):
    path, refused = run / folders.RESULT, 0
    for number, text in enumerate(texts(RESULT)):
        path.write_text(text)
        (run.parent / f"other-{number}").mkdir()
        (run.parent / f"other-{number}" / folders.RESULT).write_text(text)
        assert lookup._validation_score(run) != 2
        found = folders.find_finished(run.parent, "r", SETTINGS)
        try:
            assert artefacts.outcome(run).folder == found == run
            with np.errstate(over="ignore"):
                result = cross_validation._result(run, "kept_epoch", "val_loss", "started", "seconds")
            assert np.isfinite([result["kept_epoch"], result["val_loss"], result["seconds"]]).all()
        except InputError as error:
            told(error, path)
            refused += 1
    run_table.update(run.parent, RESULT | {"run": "last"})
    names = (run.parent / run_table.TABLE).read_text().splitlines()
    assert names[0].startswith("run,") and names[-1].startswith("last,")
    assert refused > 20 and "that run is passed over" in capsys.readouterr().out


def test_a_fingerprint_of_folds_or_a_progress_with_wrong_values_is_passed_over(run, capsys):
    crafted_fingerprints, taken = texts(FINGERPRINT), 0
    for text in crafted_fingerprints:
        (run / folders.FOLDS).write_text(text)
        if found := cross_validation._read(run):
            cross_validation.differences(found, FINGERPRINT)
            taken += 1
    assert 0 < taken < len(crafted_fingerprints)
    assert f"note: {run / folders.FOLDS}: expected a whole file" in capsys.readouterr().out
    crafted_rows = texts(PROGRESS)
    for number, text in enumerate(crafted_rows):
        (run / str(number)).mkdir()
        (run / str(number) / leaderboard.PROGRESS).write_text(text)
    made = leaderboard.comparable(run, PROGRESS["fingerprint"])
    rows, _ = leaderboard.with_settings(made)
    assert all(row.keys() >= ROW.keys() for row in rows) and 20 < len(rows) < len(crafted_rows) - 20
