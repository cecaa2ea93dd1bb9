"""The files that people read in a run's folder: weights, validation.csv, calibration.json and history.csv."""

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.runs.weights import WEIGHTS, Header, save_weights
from toolkit.scoring import calibration
from toolkit.scoring.decision import Decision
from toolkit.system import files


@dataclass(frozen=True)
class Validation:
    """The validation photographs: names below the image folder (bytes), people, and labels (int64), shape (n,) each."""

    names: Sequence[bytes]
    people: Sequence
    labels: np.ndarray


def write_history(folder: pathlib.Path, history: list[dict]) -> None:
    """history.csv: a row an epoch."""
    files.write_csv(folder / "history.csv", {name: [row[name] for row in history] for name in history[0]})


def write_kept_epoch(
    folder: pathlib.Path, header: Header, weights: dict, validation: Validation, logits: np.ndarray
) -> None:
    """The kept epoch's weights and header, and what it says of the validation photographs: logits of shape (n, 18)."""
    save_weights(folder / WEIGHTS, weights, header)
    files.write_csv(folder / "validation.csv", _predictions(validation, logits, header.decision))
    files.write_json(folder / "calibration.json", _calibration(header.decision, logits, validation.labels))


def _predictions(validation: Validation, logits: np.ndarray, decision: Decision) -> dict:
    return {
        "path": [os.fsdecode(name) for name in validation.names],
        "person": validation.people,
        "label": validation.labels,
        "predicted": decision.classes(logits),
        **dict(zip(PROBABILITY_COLUMNS, decision.probabilities(logits).T.round(6), strict=True)),
    }


def _calibration(decision: Decision, logits: np.ndarray, labels: np.ndarray) -> dict:
    """The decision, with NLL and ECE on the validation photographs, before its temperature and after."""
    sides = {
        "before": replace(decision, temperature=1.0).probabilities(logits),
        "after": decision.probabilities(logits),
    }
    scores = {side: {"nll": calibration.nll(p, labels), "ece": calibration.ece(p, labels)} for side, p in sides.items()}
    return {**decision.as_plain(), **scores}
