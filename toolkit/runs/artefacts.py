"""The files that people read in a run's folder: settings, weights, history, predictions, calibration, result."""

from __future__ import annotations

import datetime
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toolkit.config.settings import TrainSettings
from toolkit.config.types import as_text
from toolkit.labels import ATTRIBUTES, PROBABILITY_COLUMNS
from toolkit.runs import run_table
from toolkit.runs.folders import SETTINGS, read_result
from toolkit.runs.weights import WEIGHTS, Header, save_weights
from toolkit.scoring import calibration, metrics
from toolkit.scoring.decision import Decision
from toolkit.system import csv_files, files, world
from toolkit.system.console import InputError, say

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("macro_f1", "accuracy", *ATTRIBUTES, "val_loss")  # on validation
INTERVAL = ("macro_f1_low", "macro_f1_high")  # 95 %, over people of validation


@dataclass(frozen=True)
class Validation:
    """The validation photographs: names below the image folder (bytes), people, and labels (int64), shape (n,) each.

    There may be none.
    """

    names: Sequence[bytes]
    people: Sequence
    labels: np.ndarray


def write_history(folder: pathlib.Path, history: list[dict]) -> None:
    """history.csv: a row an epoch."""
    csv_files.write(folder / "history.csv", {name: [row[name] for row in history] for name in history[0]})


def write_kept_epoch(
    folder: pathlib.Path, header: Header, weights: dict, validation: Validation, logits: np.ndarray
) -> None:
    """Write weights and header of the kept epoch, and its predictions and calibration from logits of shape (n, 18)."""
    save_weights(folder / WEIGHTS, weights, header)
    if len(logits):
        csv_files.write(folder / "validation.csv", _predictions(validation, logits, header.decision))
    files.write_json(folder / "calibration.json", _calibration(header.decision, logits, validation.labels))


def _predictions(validation: Validation, logits: np.ndarray, decision: Decision) -> dict:
    return {
        "path": [os.fsdecode(name) for name in validation.names],
        "person": validation.people,
        "label": validation.labels,
        "predicted": decision.classes(logits),
        **dict(zip(PROBABILITY_COLUMNS, decision.probabilities(logits).T.round(6), strict=True)),
    }


def read_predictions(path: pathlib.Path, setting: str = "SM_MODEL_DIR") -> pd.DataFrame:
    """The table of validation.csv or out_of_fold.csv. Raises InputError where it is no such table.

    path and person are texts, exactly as written: pandas' own reader takes an id like NA for a missing one. label,
    predicted and fold are int64, all others float64.
    """
    import pandas as pd

    table = csv_files.read(path, ("path", "person", "label", "predicted", *PROBABILITY_COLUMNS), setting)
    types = {name: np.int64 if name in ("label", "predicted", "fold") else np.float64 for name in table}
    try:
        return pd.DataFrame(table).astype(types | {"path": object, "person": object})
    except ValueError as error:
        raise InputError(f"{path}: expected numbers in all columns but path and person: {error}") from None


def _calibration(decision: Decision, logits: np.ndarray, labels: np.ndarray) -> dict:
    """The decision as plain types; with validation photographs also NLL and ECE before and after the temperature."""
    if not len(logits):
        return decision.as_plain()
    sides = {
        "before": replace(decision, temperature=1.0).probabilities(logits),
        "after": decision.probabilities(logits),
    }
    scores = {side: {"nll": calibration.nll(p, labels), "ece": calibration.ece(p, labels)} for side, p in sides.items()}
    return {**decision.as_plain(), **scores}


class Outcome(NamedTuple):
    """The result of a training."""

    folder: pathlib.Path  # of the run
    scores: dict[str, float | None]  # of the kept epoch, by the names in SCORES; None without validation people


def write_settings(
    folder: pathlib.Path, config: TrainSettings, origin: dict[str, str], header: Header, more: dict
) -> None:
    """Write settings.json: every setting, where its value comes from, the header, and the entries of `more`."""
    ahead = ("decision", "scores", "classes", "format")  # not known yet, or the same in every run
    run = {key: value for key, value in header.as_plain().items() if key not in ahead}
    values = {"settings": config.model_dump(mode="json"), "origin": origin, "run": run}
    files.write_json(folder / SETTINGS, values | more)


def write_bad_images(folder: pathlib.Path, columns: dict[str, list]) -> None:
    """Write bad_images.csv if any photographs were left out or repaired."""
    if any(columns.values()):
        csv_files.write(folder / "bad_images.csv", columns)


def interval(validation: Validation, predicted: np.ndarray) -> dict[str, float | None]:
    """{name in INTERVAL: bound} of macro F1, from predicted classes, int64, shape (n,); None if it is not known."""
    found = len(predicted) and metrics.intervals(validation.labels, predicted, validation.people)["macro_f1"]
    return dict(zip(INTERVAL, found or (None, None), strict=True))


def summary(config: TrainSettings, header: Header, kept: dict, started: str, seconds: float, cost: dict) -> dict:
    """The content of result.json, which is also the run's row of leaderboard.csv.

    `kept`: the kept epoch's row of history.csv; `cost`: further columns.
    """
    return {
        "run": header.run,
        "backbone": header.backbone,
        "pretrained": header.pretrained,
        "size": as_text(config.size),
        "epochs": config.epochs,
        "kept_epoch": kept["epoch"],
        **{score: kept.get(score) for score in (*SCORES, *INTERVAL)},
        "seconds": round(seconds, 1),
        **cost,
        "started": started,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def finished_before(folder: pathlib.Path) -> Outcome | None:
    """Print that the run was finished before. Returns its outcome, and None on ranks other than 0."""
    say(
        f"run folder: {folder.absolute()}",
        "this run was finished before, with the same settings, photographs and code; to train it again, remove its "
        "folder, or set RESUME=never for train.py",
    )
    if world.rank() == 0:
        run_table.update(folder.parent)
    return None if world.rank() else outcome(folder)


def outcome(folder: pathlib.Path) -> Outcome:
    """The outcome of a finished run. Raises OSError or InputError if its result.json is missing or damaged."""
    result = read_result(folder)
    return Outcome(folder, {name: result.get(name) for name in SCORES})
