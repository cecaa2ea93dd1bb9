"""What was said of photographs, held against what is true: all that a page tells of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES
from toolkit.pages import charts, pictures
from toolkit.scoring import calibration, metrics

MISTAKES, PAIRS = 24, 12  # the most that a page shows
DRAWS = 1000  # of the bootstrap
NO_PHOTOGRAPHS = "REPORT_PHOTOS=false: no photographs are shown."

# (rows of the mistakes, their answers) -> where the net looked, as toolkit/pages/gradcam.py gives it
Looks = Callable[[np.ndarray, np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class Answers:
    """A row for each photograph: its name as a page shows it, its class and the answer, int64; and what else is known.

    `people`, shape (n,), says whose it is; `probabilities` are float, shape (n, 18), NaN where unknown, and
    `uncalibrated` those without a temperature, where there was one; `files` are where photographs lie, and None keeps
    them out of the page.
    """

    names: Sequence[str]
    true: np.ndarray
    said: np.ndarray
    people: Sequence | None = None
    probabilities: np.ndarray | None = None
    uncalibrated: np.ndarray | None = None
    files: Sequence | None = None


def tell(answers: Answers, looks: Looks | None = None) -> dict:
    """What parts.html shows."""
    matrix = metrics.confusion(answers.true, answers.said)
    people = None if answers.people is None else len(set(answers.people))
    unit = "photographs, as nobody says whose they are: narrower than they should be" if people is None else "people"
    return {
        "scores": metrics.scores(matrix),
        "intervals": metrics.intervals(metrics.resampled(answers.true, answers.said, answers.people, DRAWS)),
        "bootstrap": f"Ranges hold 95 % of {DRAWS:,} draws of other {unit} (bootstrap).",
        "people": people,
        "matrices": _matrices(matrix),
        "pairs": _pairs(matrix),
        "calibration": _calibration(answers),
        "wrong": int(matrix.sum() - np.trace(matrix)),
        "mistakes": _mistakes(answers, looks),
        "looks": looks is not None and answers.files is not None,
        "with_photographs": answers.files is not None,
        "why_no_photographs": NO_PHOTOGRAPHS if answers.files is None else "",
    }


def _calibration(answers: Answers) -> dict | None:
    """How sure the net was and how often that was right; with the temperature and without, where there was one."""
    known = None if answers.probabilities is None else np.isfinite(answers.probabilities).all(1)
    if known is None or not known.any():
        return None
    true, sides = answers.true[known], {"as they are": answers.probabilities[known]}
    if answers.uncalibrated is not None:
        sides = {"with the temperature": answers.probabilities[known], "without it": answers.uncalibrated[known]}
    curves, numbers, bins = {}, {}, {}
    for side, p in sides.items():
        bins[side] = [column.tolist() for column in calibration.in_bins(p, true)]
        curves[side] = list(zip(*bins[side][1:], strict=True))
        of_side = "" if len(sides) == 1 else f" {side}"
        numbers[f"calibration error{of_side}"] = calibration.calibration_error(p, true)
        numbers[f"likelihood loss{of_side}"] = calibration.likelihood_loss(p, true)
    curves["perfect"] = [(0.0, 0.0), (1.0, 1.0)]
    drawing = charts.chart(curves, "Share of likeliest classes that are right", "confidence")
    return {"chart": drawing, "bins": list(zip(*next(iter(bins.values())), strict=True)), "numbers": numbers}


def _matrices(matrix: np.ndarray) -> list[dict]:
    """The confusion matrices of the classes and of each attribute, row by row."""
    numbers = [str(number) for number in range(CLASSES)]
    names = [f"{number} {class_name(number)}" for number in range(CLASSES)]
    found = [_matrix("18 classes", names, numbers, matrix)]
    for attribute, values in ATTRIBUTES.items():
        words = [value.replace("_", " ") for value in values]
        found.append(_matrix(attribute, words, words, metrics.of_attribute(matrix, attribute)))
    return found


def _matrix(title: str, names: Sequence[str], columns: Sequence[str], matrix: np.ndarray) -> dict:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    rows = [
        {
            "name": name,
            "number": number,
            "cells": [
                {"count": int(count), "share": float(share)}
                for count, share in zip(matrix[number], shares[number], strict=True)
            ],
        }
        for number, name in enumerate(names)
    ]
    return {"title": title, "columns": columns, "rows": rows}


def _pairs(matrix: np.ndarray) -> list[dict]:
    """Which class is most often taken for which other."""
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    return [
        {
            "true": class_name(true),
            "said": class_name(said),
            "count": int(wrong[true, said]),
            "share": wrong[true, said] / matrix[true].sum(),
        }
        for true, said in zip(*np.unravel_index(most, wrong.shape), strict=True)
        if wrong[true, said]
    ]


def _mistakes(answers: Answers, looks: Looks | None) -> list[dict]:
    """The wrong answers of which the net was surest; without probabilities, the first ones."""
    rows, p = np.flatnonzero(answers.true != answers.said), answers.probabilities
    if p is not None:
        rows = rows[np.argsort(-p[rows, answers.said[rows]], kind="stable")]
    rows = rows[:MISTAKES]
    photos = [answers.files and pictures.thumbnail(answers.files[row]) for row in rows]
    heat = looks(rows, answers.said[rows]) if looks and answers.files is not None and len(rows) else None

    def chance(row: int, number: int) -> float | None:
        return None if p is None or np.isnan(p[row, number]) else float(p[row, number])

    return [
        {
            "name": answers.names[row],
            "said": class_name(answers.said[row]),
            "true": class_name(answers.true[row]),
            "p_said": chance(row, answers.said[row]),
            "p_true": chance(row, answers.true[row]),
            "photo": photo,
            "heat": photo and heat is not None and pictures.heated(photo, heat[number]),
        }
        for number, (row, photo) in enumerate(zip(rows, photos, strict=True))
    ]


def class_name(number: int) -> str:
    """As a page writes it."""
    return CLASS_NAMES[number].replace("_", " ")
