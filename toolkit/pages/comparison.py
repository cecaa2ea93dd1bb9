"""leaderboard.html of leaderboard.py: runs side by side, their curves, and two runs photograph by photograph."""

import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from toolkit.pages.parts import charts, pictures, render
from toolkit.pages.parts.predictions import NO_PHOTOGRAPHS, READABLE_CLASSES
from toolkit.scoring import submission
from toolkit.system import csv_files, spelling

MAX_PHOTOGRAPHS, HEIGHT_PX = 150, 96
CURVES = {"macro_f1": "Macro F1 of validation", "val_loss": "Loss of validation", "train_loss": "Loss of training"}


@dataclass(frozen=True)
class ComparedRun:
    """A run, the columns of its history.csv, and its predicted class of each photograph: int64, shape (n,)."""

    name: str
    history: Mapping[str, Sequence[str]]
    predicted: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """What is compared."""

    rows: Sequence[dict]  # of the leaderboard, also those of runs that failed
    seeds: Sequence[dict]  # means over several seeds
    links: Sequence[Mapping[str, str]]  # of each row: {name: address} of its pages
    runs: Sequence[ComparedRun]


def write(
    path: pathlib.Path,
    comparison: Comparison,
    truth: Mapping[str, int],
    images: pathlib.Path | None,
    pixelate: bool = False,
) -> None:
    """Write the page.

    `truth`: ImageID -> class of n photographs; `images`: their folder, None keeps photographs out of the page.
    """
    true, names, runs = np.array(list(truth.values())), list(truth), comparison.runs
    photos = {}
    if images is not None:
        shown = most_disputed(true, np.array([run.predicted for run in runs]).reshape(len(runs), len(true)))
        paths = spelling.paths(images, [names[number] for number in shown], "gt.csv")
        photos = {int(row): pictures.thumbnail(path, HEIGHT_PX) for row, path in zip(shown, paths, strict=True)}
    render.write(
        path,
        "comparison.html",
        title="Comparison of runs",
        rows=comparison.rows,
        seeds=comparison.seeds,
        links=comparison.links,
        runs=runs,
        curves=[_chart(title, column, runs) for column, title in CURVES.items()],
        data={
            "classes": READABLE_CLASSES,
            "images": names,
            "truth": _letters(true),
            "runs": {run.name: _letters(run.predicted) for run in runs},
            "photos": {number: _uri(photo, pixelate) for number, photo in photos.items()},  # "": cannot be read
            "missing": ""
            if images is None
            else f"no photograph: only the {len(photos)} that runs dispute most are here",
        },
        why_no_photographs=NO_PHOTOGRAPHS if images is None else "",
    )


def most_disputed(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Numbers of at most MAX_PHOTOGRAPHS photographs on which runs disagree, from classes, shapes (n,) and (runs, n).

    First come photographs that half of the runs get right, last those that all get wrong, but differently.
    """
    right = (predicted == true).sum(0)
    minority = np.minimum(right, len(predicted) - right)
    disputed = np.flatnonzero((predicted != predicted[:1]).any(0))
    return disputed[np.argsort(-minority[disputed], kind="stable")][:MAX_PHOTOGRAPHS]


def read_run(folder: pathlib.Path, run: pathlib.Path, truth: Mapping[str, int]) -> ComparedRun:
    """The run of a backbone, whose output.csv is in `folder`. Raises InputError where its files are not there."""
    answers = submission.answers_to(truth, submission.read(folder / "output.csv", "SM_OUTPUT_DATA_DIR"))
    return ComparedRun(folder.name, read_history(run), np.array(list(answers.values())))


def read_history(folder: pathlib.Path) -> dict[str, list[str]]:
    """The columns of a run's history.csv; a run without validation people has no columns of validation."""
    return csv_files.read(folder / "history.csv", ("epoch", "train_loss"), "SM_MODEL_DIR")


def links_of(folder: pathlib.Path, run: str | None, start: pathlib.Path) -> dict[str, str]:
    """{name: address} of the pages of a backbone that are there, as seen from the folder `start`."""
    pages = {"report": pathlib.Path(run or folder, "report.html"), "evaluation": folder / "evaluation.html"}
    found = {name: os.path.relpath(path, start) for name, path in pages.items() if path.exists()}
    return {name: urllib.parse.quote(path.replace(os.sep, "/")) for name, path in found.items()}


def _uri(photo: Image.Image | None, pixelate: bool) -> str:
    return pictures.data_uri(pictures.pixelated(photo) if pixelate else photo) if photo else ""


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
