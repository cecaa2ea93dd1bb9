"""The page that compares runs: their scores side by side, their curves over each other, and any two by photograph."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.labels import CLASSES
from toolkit.pages import charts, page, pictures
from toolkit.pages.answers import NO_PHOTOGRAPHS, class_name
from toolkit.system import files

PHOTOGRAPHS, HEIGHT_PX = 150, 96  # the most that the page holds, and how high
CURVES = {"macro_f1": "Macro F1 of validation", "val_loss": "Loss of validation", "train_loss": "Loss of training"}


@dataclass(frozen=True)
class Compared:
    """A run: its name, the rows of its history.csv, and the class that it gave each photograph, int64, shape (n,)."""

    name: str
    history: dict[str, list[str]]
    said: np.ndarray


def write(
    path: pathlib.Path, rows: list[dict], runs: Sequence[Compared], truth: dict[str, int], images: pathlib.Path | None
) -> None:
    """Write the page of runs and their rows of the leaderboard; `truth` is the class of each photograph.

    Photographs lie in the folder `images`; None keeps them out of the page.
    """
    true = np.array(list(truth.values()))
    right = np.array([run.said == true for run in runs]).reshape(len(runs), len(true)).sum(0)
    split = np.minimum(right, len(runs) - right)  # how much the runs are at odds over a photograph
    shown = [] if images is None else np.argsort(-split, kind="stable")[: min(PHOTOGRAPHS, int((split > 0).sum()))]
    names = list(truth)
    photos = {int(number): pictures.thumbnail(images / names[number], HEIGHT_PX) for number in shown}
    page.write(
        path,
        "comparison.html",
        title="Comparison of runs",
        rows=rows,
        runs=runs,
        curves=[_curves(title, column, runs) for column, title in CURVES.items()],
        data={
            "classes": [class_name(number) for number in range(CLASSES)],
            "images": names,
            "truth": _letters(true),
            "runs": {run.name: _letters(run.said) for run in runs},
            "photos": {number: pictures.data_uri(photo) for number, photo in photos.items() if photo},
        },
        why_no_photographs=NO_PHOTOGRAPHS if images is None else "",
    )


def read_history(folder: pathlib.Path) -> dict[str, list[str]]:
    """The columns of a run's history.csv."""
    return files.read_csv(folder / "history.csv", ("epoch", *CURVES), "SM_MODEL_DIR")


def _curves(title: str, column: str, runs: Sequence[Compared]):
    curves = {
        run.name: [
            (float(x or "nan"), float(y or "nan"))
            for x, y in zip(run.history["epoch"], run.history[column], strict=True)
        ]
        for run in runs
    }
    return charts.chart(curves, title, "epoch")


def _letters(classes: np.ndarray) -> str:
    """A letter a photograph, "a" for class 0: a page holds 18 runs of 12,600 photographs in a quarter of a megabyte."""
    return "".join(chr(ord("a") + number) for number in classes.tolist())
