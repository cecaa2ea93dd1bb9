"""Predictions against true classes: all that predictions.html shows of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES
from toolkit.pages.parts import charts, pictures
from toolkit.scoring import calibration, metrics

MAX_MISTAKES, MAX_PAIRS = 24, 12
BOOTSTRAP_DRAWS = 1000
NO_PHOTOGRAPHS = "REPORT_PHOTOS=false: no photographs are shown."

# (rows of mistakes, their predicted classes) -> pictures of what supported these, or None
Saliency = Callable[[np.ndarray, np.ndarray], Sequence[Image.Image] | None]


@dataclass(frozen=True)
class Predictions:
    """One row for each of n photographs; None for what is not known."""

    names: Sequence[str]  # as a page shows them
    true: np.ndarray  # class: int64, shape (n,)
    predicted: np.ndarray  # class: int64, shape (n,)
    people: Sequence | None = None  # person of each photograph
    probabilities: np.ndarray | None = None  # float, shape (n, 18); NaN where not known
    uncalibrated: np.ndarray | None = None  # the same with temperature 1, where the temperature is another
    paths: Sequence | None = None  # photograph files; None keeps photographs out of the page


def template_context(predictions: Predictions, saliency: Saliency | None = None) -> dict:
    """The variables of predictions.html, except for `title` and `facts`."""
    matrix = metrics.confusion(predictions.true, predictions.predicted)
    people = None if predictions.people is None else len(set(predictions.people))
    unit = "photographs: people are not known, and these intervals are too narrow" if people is None else "people"
    resampled = metrics.bootstrap(predictions.true, predictions.predicted, predictions.people, BOOTSTRAP_DRAWS)
    return {
        "scores": metrics.scores(matrix),
        "intervals": metrics.intervals(resampled),
        "bootstrap": f"95 % intervals over {BOOTSTRAP_DRAWS:,} bootstrap samples of {unit}.",
        "people": people,
        "matrices": _matrices(matrix),
        "pairs": _confused_pairs(matrix),
        "calibration": _calibration(predictions),
        "wrong": int(matrix.sum() - np.trace(matrix)),
        "mistakes": _mistakes(predictions, saliency),
        "with_saliency": saliency is not None and predictions.paths is not None,
        "with_photographs": predictions.paths is not None,
        "why_no_photographs": NO_PHOTOGRAPHS if predictions.paths is None else "",
    }


def _calibration(predictions: Predictions) -> dict | None:
    """Reliability diagram, its bins, ECE and NLL; both with and without the temperature, where there is one."""
    probabilities, uncalibrated = predictions.probabilities, predictions.uncalibrated
    is_known = None if probabilities is None else np.isfinite(probabilities).all(1)
    if is_known is None or not is_known.any():
        return None
    true, variants = predictions.true[is_known], {"": probabilities[is_known]}
    if uncalibrated is not None:
        variants = {"with the temperature": probabilities[is_known], "without it": uncalibrated[is_known]}
    curves, numbers, bins = {}, {}, {}
    for variant, p in variants.items():
        bins[variant] = [column.tolist() for column in calibration.reliability(p, true)]
        curves[variant or "measured"] = list(zip(*bins[variant][1:], strict=True))
        numbers[f"calibration error (ECE) {variant}".rstrip()] = calibration.ece(p, true)
        numbers[f"negative log-likelihood {variant}".rstrip()] = calibration.nll(p, true)
    curves["perfect"] = [(0.0, 0.0), (1.0, 1.0)]
    drawing = charts.chart(curves, "Accuracy of the most probable class", "confidence")
    return {"chart": drawing, "bins": list(zip(*next(iter(bins.values())), strict=True)), "numbers": numbers}


def _matrices(matrix: np.ndarray) -> list[dict]:
    """The confusion matrix of the classes, and of each attribute, for the macro `matrix`."""
    numbers = [str(number) for number in range(CLASSES)]
    names = [f"{number} {class_name(number)}" for number in range(CLASSES)]
    matrices = [_matrix("18 classes", names, numbers, matrix)]
    for attribute, values in ATTRIBUTES.items():
        values = [value.replace("_", " ") for value in values]
        matrices.append(_matrix(attribute, values, values, metrics.attribute_confusion(matrix, attribute)))
    return matrices


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


def _confused_pairs(matrix: np.ndarray) -> list[dict]:
    """The most frequent pairs of a true class and a wrong prediction."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    return [
        {
            "true": class_name(true),
            "predicted": class_name(predicted),
            "count": int(wrong[true, predicted]),
            "share": wrong[true, predicted] / matrix[true].sum(),
        }
        for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, predicted]
    ]


def _mistakes(predictions: Predictions, saliency: Saliency | None) -> list[dict]:
    """The wrong predictions with the highest probability; without probabilities, the first ones."""
    true, predicted, p = predictions.true, predictions.predicted, predictions.probabilities
    rows = np.flatnonzero(true != predicted)
    if p is not None:
        rows = rows[np.argsort(-p[rows, predicted[rows]], kind="stable")]
    rows = rows[:MAX_MISTAKES]
    photos = [predictions.paths and pictures.thumbnail(predictions.paths[row]) for row in rows]
    supported = saliency(rows, predicted[rows]) if saliency and predictions.paths is not None and len(rows) else None

    def probability(row: int, number: int) -> float | None:
        return None if p is None or np.isnan(p[row, number]) else float(p[row, number])

    return [
        {
            "name": predictions.names[row],
            "predicted": class_name(predicted[row]),
            "true": class_name(true[row]),
            "p_predicted": probability(row, predicted[row]),
            "p_true": probability(row, true[row]),
            "photo": photo,
            "saliency": supported and supported[number],
        }
        for number, (row, photo) in enumerate(zip(rows, photos, strict=True))
    ]


def class_name(number: int) -> str:
    """A class as a page shows it: "worn male under 30"."""
    return CLASS_NAMES[number].replace("_", " ")
