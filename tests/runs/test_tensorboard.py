"""What TensorBoard reads of a run, by its own reader."""

import json
import sys

import pandas as pd
import pytest
from conftest import QUICK, refused, run_here, succeeded
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from toolkit.runs import folders, tensorboard


def read(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_a_run_can_be_seen_in_tensorboard(drawn, tmp_path):
    settings = {**QUICK, "epochs": "2", "NAME": "shufflenet_v2_x0_5", "TENSORBOARD": "true", "MIX": "mixup"}
    succeeded(run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=tmp_path, **settings))
    run = tmp_path / "shufflenet_v2_x0_5"
    found, history = read(run / "tensorboard"), pd.read_csv(run / "history.csv")
    for name, side in (("train_loss", "training"), ("lr", "training"), ("macro_f1", "validation")):
        scalars = found.Scalars(f"{side}/{name}")
        assert [scalar.step for scalar in scalars] == [1, 2]
        assert [scalar.value for scalar in scalars] == pytest.approx(history[name].tolist(), rel=1e-6)
    images = found.Tags()["images"]
    assert "augmentation/1" in images and any(" predicted " in name for name in images)
    kept = json.loads((run / "result.json").read_text())
    assert found.Scalars("kept/macro_f1")[0].value == pytest.approx(kept["macro_f1"])
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_a_run_that_goes_on_shows_no_epoch_twice(tmp_path):
    tmp_path = tmp_path / folders.BOARD
    rows = [{"epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    with tensorboard.opened(tmp_path, []) as killed:
        for row in rows[:2]:
            tensorboard.add_epoch(killed, row)
    with tensorboard.opened(tmp_path, rows[:1]) as again:
        for row in rows[1:]:
            tensorboard.add_epoch(again, row)
    assert folders.is_empty(tmp_path.parent)  # killed before there was a state, it does not keep its name taken
    assert [scalar.step for scalar in read(tmp_path).Scalars("training/train_loss")] == [1, 2, 3]


def test_where_tensorboard_is_not_installed_the_run_says_what_to_install(drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as an import finds it that finds none
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=tmp_path, TENSORBOARD="true", **QUICK)
    refused(done, "TENSORBOARD=true: expected the package tensorboard", "pip install -r requirements-extras.txt")
    assert list(tmp_path.iterdir()) == []
