"""leaderboard.html: runs side by side, their curves in one chart, and any two of them photograph by photograph."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.labels import CLASSES
from toolkit.pages.parts import charts, pictures, render
from toolkit.pages.parts.predictions import NO_PHOTOGRAPHS, class_name
from toolkit.system import files, spelling

MAX_PHOTOGRAPHS, HEIGHT_PX = 150, 96
CURVES = {"macro_f1": "Macro F1 of validation", "val_loss": "Loss of validation", "train_loss": "Loss of training"}


@dataclass(frozen=True)
class ComparedRun:
    """A run, the columns of its history.csv, and its predicted class of each photograph: int64, shape (n,)."""

    name: str
    history: Mapping[str, Sequence[str]]
    predicted: np.ndarray


def write(
    path: pathlib.Path,
    rows: Sequence[dict],
    seeds: Sequence[dict],
    runs: Sequence[ComparedRun],
    truth: Mapping[str, int],
    images: pathlib.Path | None,
) -> None:
    """Write the page.

    `rows`: of the leaderboard, also those of runs that failed; `seeds`: means over several seeds; `truth`: ImageID ->
    class of n photographs; `images`: their folder, None keeps photographs out of the page.
    """
    true, names = np.array(list(truth.values())), list(truth)
    photos = {}
    if images is not None:
        shown = most_disputed(np.array([run.predicted == true for run in runs]).reshape(len(runs), len(true)))
        paths = spelling.paths(images, [names[number] for number in shown], "gt.csv")
        photos = {int(row): pictures.thumbnail(path, HEIGHT_PX) for row, path in zip(shown, paths, strict=True)}
    render.write(
        path,
        "leaderboard.html",
        title="Comparison of runs",
        rows=rows,
        seeds=seeds,
        runs=runs,
        curves=[_chart(title, column, runs) for column, title in CURVES.items()],
        data={
            "classes": [class_name(number) for number in range(CLASSES)],
            "images": names,
            "truth": _letters(true),
            "runs": {run.name: _letters(run.predicted) for run in runs},
            "photos": {number: pictures.data_uri(photo) for number, photo in photos.items() if photo},
        },
        why_no_photographs=NO_PHOTOGRAPHS if images is None else "",
    )


def most_disputed(is_right: np.ndarray) -> np.ndarray:
    """At most MAX_PHOTOGRAPHS photographs on which the runs disagree, the evenest split first; from (runs, n) bool."""
    right = is_right.sum(0)
    minority = np.minimum(right, len(is_right) - right)
    return np.argsort(-minority, kind="stable")[: min(MAX_PHOTOGRAPHS, int((minority > 0).sum()))]


def read_history(folder: pathlib.Path) -> dict[str, list[str]]:
    """The columns of a run's history.csv; without validation people it has none of validation."""
    return files.read_csv(folder / "history.csv", ("epoch", "train_loss"), "SM_MODEL_DIR")


def _chart(title: str, column: str, runs: Sequence[ComparedRun]):
    curves = {
        run.name: [
            (float(x or "nan"), float(y or "nan"))
            for x, y in zip(run.history["epoch"], run.history[column], strict=True)
        ]
        for run in runs
        if column in run.history
    }
    return charts.chart(curves, title, "epoch")


def _letters(classes: np.ndarray) -> str:
    """One letter for each photograph, "a" for class 0: 18 runs of 12,600 photographs take a quarter of a megabyte."""
    return "".join(chr(ord("a") + number) for number in classes.tolist())
