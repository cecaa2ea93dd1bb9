"""Predictions against true classes: all that predictions.html shows of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES, readable, to_attributes
from toolkit.pages.parts import charts, pictures
from toolkit.scoring import calibration, groups, metrics

READABLE_CLASSES = tuple(map(readable, CLASS_NAMES))  # as pages show them: "worn male under 30"
NUMBERED_CLASSES = tuple(f"{number} {name}" for number, name in enumerate(READABLE_CLASSES))
MAX_MISTAKES, MAX_PAIRS = 60, 12
MISTAKES_PER_CELL = 3  # mistakes of each cell of a confusion matrix come before others, so that each cell has some
MAX_SALIENCY = 24  # the most confident mistakes: gradients of more would take gigabytes
CLASS_MATRIX = "class"
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
    uncalibrated: np.ndarray | None = None  # the same with temperature 1; None if that is the temperature
    paths: Sequence | None = None  # photograph files, or None where one is not shown; None keeps all out of the page
    why_no_photographs: str = NO_PHOTOGRAPHS  # shown if `paths` is None
    corrected: Sequence[str] | None = None  # what was corrected in each label: "male to female", or ""
    columns: Mapping[str, Sequence] = field(default_factory=dict)  # further ones, by which photographs are grouped

    @cached_property
    def scores(self) -> dict:
        """All that evaluation.json has: `metrics.scores`, its intervals, scores by group, and the confusion matrix."""
        true, predicted, people = self.true, self.predicted, self.people
        matrix = metrics.confusion(true, predicted)
        return metrics.scores(matrix) | {
            "intervals": metrics.intervals(true, predicted, people),
            "groups": groups.by_columns(true, predicted, people, self.columns),
            "confusion": matrix.tolist(),
        }


def template_context(predictions: Predictions, saliency: Saliency | None = None) -> dict:
    """The variables of predictions.html, except for `title` and `facts`."""
    scores, people = predictions.scores, predictions.people
    matrix = np.array(scores["confusion"])
    unit = "photographs: people are not known, and these intervals are too narrow" if people is None else "people"
    mistakes = _mistakes(predictions, saliency)
    return {
        "scores": scores,
        "widest": groups.widest(scores["groups"]),
        "min_people": groups.MIN_PEOPLE,
        "bootstrap": f"95 % intervals over {metrics.BOOTSTRAP_DRAWS:,} bootstrap samples of {unit}; "
        "of classes with few people, or with no mistake, Wilson's interval.",
        "people": None if people is None else len(set(people)),
        "matrices": _matrices(matrix, Counter(cell for one in mistakes for cell in one["cells"])),
        "pairs": _confused_pairs(matrix),
        "calibration": _calibration(predictions),
        "wrong": int(matrix.sum() - np.trace(matrix)),
        "mistakes": _by_person(predictions, mistakes),
        "with_saliency": any(one["saliency"] for one in mistakes),
        "with_photographs": predictions.paths is not None,
        "why_no_photographs": predictions.why_no_photographs if predictions.paths is None else "",
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
    of, first = next(iter(bins.items()))
    return {"chart": drawing, "of": of, "bins": list(zip(*first, strict=True)), "numbers": numbers}


def _matrices(matrix: np.ndarray, shown: Counter[str]) -> list[dict]:
    """The confusion matrices of the classes and of each attribute. `shown`: mistakes on the page, by cell."""
    matrices = [_matrix(f"{CLASSES} classes", CLASS_MATRIX, NUMBERED_CLASSES, matrix, shown)]
    for attribute, values in ATTRIBUTES.items():
        of_attribute = metrics.attribute_confusion(matrix, attribute)
        matrices.append(_matrix(attribute, attribute, list(map(readable, values)), of_attribute, shown))
    return matrices


def _matrix(title: str, kind: str, names: Sequence[str], matrix: np.ndarray, shown: Counter[str]) -> dict:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    rows = [
        {
            "name": name,
            "number": true,
            "cells": [
                {"count": int(count), "share": float(share), "id": _cell(kind, true, column)}
                for column, (count, share) in enumerate(zip(matrix[true], shares[true], strict=True))
            ],
        }
        for true, name in enumerate(names)
    ]
    return {"title": title, "kind": kind, "columns": names, "rows": rows, "shown": shown}


def _cell(kind: str, true: int, predicted: int) -> str:
    """The name of a cell of a confusion matrix, by which its photographs are found: "gender-0-1"."""
    return f"{kind}-{true}-{predicted}"


def _cells(true: int, predicted: int) -> list[str]:
    """The cells in which a mistake is counted, in the matrix of classes and in those of attributes."""
    attributes = zip(to_attributes(true).items(), to_attributes(predicted).values(), strict=True)
    own = [_cell(name, one, other) for (name, one), other in attributes if one != other]
    return [_cell(CLASS_MATRIX, true, predicted), *own]


def _confused_pairs(matrix: np.ndarray) -> list[dict]:
    """The most frequent pairs of a true class and a wrong prediction."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    return [
        {
            "true": READABLE_CLASSES[true],
            "predicted": READABLE_CLASSES[predicted],
            "count": int(wrong[true, predicted]),
            "share": wrong[true, predicted] / matrix[true].sum(),
            "id": _cell(CLASS_MATRIX, true, predicted),
        }
        for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, predicted]
    ]


def _mistakes(predictions: Predictions, saliency: Saliency | None) -> list[dict]:
    """Wrong predictions, the highest probability first; without probabilities, in the order of photographs.

    At most MAX_MISTAKES: MISTAKES_PER_CELL of each cell of the confusion matrix, then the most confident others.
    """
    true, predicted, p = predictions.true, predictions.predicted, predictions.probabilities
    rows = np.flatnonzero(true != predicted)
    if p is not None:
        rows = rows[np.argsort(-p[rows, predicted[rows]], kind="stable")]
    seen, before = Counter(), []  # how many mistakes of its cell are more confident
    for pair in zip(true[rows].tolist(), predicted[rows].tolist(), strict=True):
        before.append(min(seen[pair], MISTAKES_PER_CELL))
        seen[pair] += 1
    rows = rows[np.sort(np.argsort(before, kind="stable")[:MAX_MISTAKES])]
    photos = [predictions.paths and pictures.thumbnail(predictions.paths[row]) for row in rows]
    first, supported = rows[:MAX_SALIENCY], None
    if saliency and predictions.paths is not None and len(rows):
        supported = saliency(first, predicted[first])

    def probability(row: int, number: int) -> float | None:
        return None if p is None or np.isnan(p[row, number]) else float(p[row, number])

    return [
        {
            "row": row,
            "name": predictions.names[row],
            "predicted": READABLE_CLASSES[predicted[row]],
            "true": READABLE_CLASSES[true[row]],
            "p_predicted": probability(row, predicted[row]),
            "p_true": probability(row, true[row]),
            "photo": photo,
            "saliency": supported[number] if supported and number < len(supported) else None,
            "corrected": predictions.corrected[row] if predictions.corrected is not None else "",
            "cells": _cells(int(true[row]), int(predicted[row])),
        }
        for number, (row, photo) in enumerate(zip(rows.tolist(), photos, strict=True))
    ]


def _by_person(predictions: Predictions, mistakes: Sequence[dict]) -> list[dict]:
    """The mistakes by person, in the order of each person's first mistake: {person, wrong, count, mistakes}.

    If people are not known, each mistake stands alone.
    """
    known = predictions.people is not None
    keys = list(predictions.people) if known else list(range(len(predictions.true)))
    is_wrong = predictions.true != predictions.predicted
    count, wrong = Counter(keys), Counter(keys[row] for row in np.flatnonzero(is_wrong))
    groups = {}
    for one in mistakes:
        groups.setdefault(keys[one["row"]], []).append(one)
    return [
        {"person": str(key) if known else "", "wrong": wrong[key], "count": count[key], "mistakes": group}
        for key, group in groups.items()
    ]
