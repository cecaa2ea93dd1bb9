"""report.html of a run: its curves, its predictions for validation people, its data, cost and settings; its card."""

import contextlib
import json
import os
import pathlib
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from toolkit.config import sources
from toolkit.config.settings import TrainSettings
from toolkit.data import augment
from toolkit.labels import ATTRIBUTES, CLASSES, PROBABILITY_COLUMNS
from toolkit.pages import model_card
from toolkit.pages.parts import charts, grad_cam, pictures, render
from toolkit.pages.parts.predictions import NUMBERED_CLASSES, Predictions, template_context
from toolkit.runs import folders
from toolkit.runs.artefacts import read_predictions
from toolkit.runs.cross_validation import OUT_OF_FOLD
from toolkit.runs.weights import Header, load_into
from toolkit.system import files
from toolkit.system.console import say
from toolkit.training.checkpointer import Result
from toolkit.training.step import EpochInputs
from toolkit.training.task import Task

PAGE = "report.html"
MAX_AUGMENTED = 12  # photographs
# Columns of the table of photographs that are no groups of people; scores by attribute are there anyway.
NO_GROUPS = ("folder", "file", "person", "photograph", "corrected", *ATTRIBUTES)
CURVES = {
    "Loss": ("train_loss", "val_loss"),
    "F1 and accuracy of validation": ("macro_f1", "accuracy", *ATTRIBUTES),
    "Learning rate": ("lr",),
}


@dataclass(frozen=True)
class Run:
    """The run that a page is about."""

    folder: pathlib.Path
    config: TrainSettings
    header: Header
    table: pd.DataFrame  # all photographs with labels, corrected; they come first in the task


@render.unless_it_fails(files.WriteError)  # the same command goes on once there is room
def write(run: Run, model: nn.Module, task: Task, result: Result) -> dict[str, Image.Image] | None:
    """Write report.html and model_card.md of a finished or stopped run. Returns {title: picture}; None if it failed.

    Prints where the page is, or why there is none. `model` gets the weights of the kept epoch.
    """
    folder, config, header = run.folder, run.config, run.header
    load_into(model, result.weights)
    context = {"scores": None, "mistakes": []}
    if len(task.validation):
        predictions = validation_predictions(run, task, result)
        context = template_context(predictions, lambda rows, classes: _saliency(model, task, rows, classes))
    augmented = augmented_photographs(config, task) if config.report_photos else []
    history = result.history
    stopped = f", stopped before EPOCHS={config.epochs}" if len(history) < config.epochs else ""
    render.write(
        folder / PAGE,
        "report.html",
        title=f"Run {folder.name}",
        facts=f"{header.backbone} at {header.framing}, pretrained: {header.pretrained}; "
        f"kept epoch {result.kept['epoch']} of {len(history)}{stopped}; "
        f"decision by {header.decided_by}; started {result.started[:16].replace('T', ' ')} UTC",
        curves=_charts(history),
        history=history,
        counts=class_counts(task),
        augmented=augmented,
        cost=_cost(len(task.train) * len(history), result.seconds, task.loader.machine.device),
        machine=f"On {header.machine}. Photographs are those of training; the time includes validation and saving; "
        "memory is the peak.",
        settings=_settings(config, folder / folders.SETTINGS),
        pixelate=config.pixelate,
        **context,
    )
    labelled = task.train[task.train < task.labelled]
    held_out = f"{task.people.iloc[task.validation].nunique():,} people who were held out"
    pseudo = len(task.train) - len(labelled)
    card = model_card.Facts(folder, header, run.table.iloc[labelled], pseudo, held_out)
    model_card.write(card, context["scores"])
    say(f"report: {(folder / PAGE).absolute()}")
    shown = _pictures(augmented, context["mistakes"])
    return {title: pictures.pixelated(photo) if config.pixelate else photo for title, photo in shown.items()}


@render.unless_it_fails(files.WriteError)  # the same command goes on once there is room
def write_out_of_fold(run: Run, task: Task) -> None:
    """Write page and card of a run of folds: each photograph as predicted by the net that never saw its person.

    `task`: that of any of its nets.
    """
    table = read_predictions(run.folder / OUT_OF_FOLD)
    row_of = {os.fsdecode(name): row for row, name in enumerate(task.names)}
    rows = np.array([row_of[name] for name in table["path"]])
    predictions = Predictions(
        names=table["path"].tolist(),
        true=table["label"].to_numpy(),
        predicted=table["predicted"].to_numpy(),
        people=table["person"].tolist(),
        probabilities=table[list(PROBABILITY_COLUMNS)].to_numpy(),
        **_known_of(run, task, rows),
    )
    facts = f"{table['fold'].nunique()} folds: each photograph is predicted by the net that never saw its person"
    everybody = f"{run.table['person'].nunique():,} people, each by the net of the fold that held them out"
    card = model_card.Facts(run.folder, run.header, run.table, len(task.labels) - task.labelled, everybody)
    context = template_context(predictions)
    model_card.write(card, context["scores"])
    render.write(
        run.folder / PAGE,
        "predictions.html",
        title=f"Run {run.folder.name}",
        facts=facts,
        pixelate=run.config.pixelate,
        **context,
    )


def validation_predictions(run: Run, task: Task, result: Result) -> Predictions:
    """The predictions for the validation photographs."""
    rows, decision, logits = task.validation, result.decision, result.logits
    uncalibrated = replace(decision, temperature=1.0)
    return Predictions(
        names=[os.fsdecode(name) for name in task.names[rows]],
        true=task.labels[rows].cpu().numpy(),
        predicted=decision.classes(logits),
        people=task.people.iloc[rows].tolist(),
        probabilities=decision.probabilities(logits),
        uncalibrated=uncalibrated.probabilities(logits) if decision.temperature != 1.0 else None,
        **_known_of(run, task, rows),
    )


def _known_of(run: Run, task: Task, rows: np.ndarray) -> dict:
    """Further fields of `Predictions` for photographs with labels: paths, corrections and columns of these rows."""
    return {
        "paths": [task.loader.store.paths[row] for row in rows] if run.config.report_photos else None,
        "corrected": run.table["corrected"].iloc[rows].tolist(),
        "columns": {name: run.table[name].iloc[rows].tolist() for name in run.table if name not in NO_GROUPS},
    }


def class_counts(task: Task) -> dict:
    """Photographs of each class, and people, on the sides of the split that are not empty; and the pseudo-labels."""
    labels, is_labelled = task.labels.cpu().numpy(), task.train < task.labelled
    own, guessed = task.train[is_labelled], task.train[~is_labelled]
    sides = {"training": own, "pseudo-labels": guessed, "validation": task.validation}
    sides = {name: rows for name, rows in sides.items() if len(rows)}
    counts = [np.bincount(labels[rows], minlength=CLASSES) for rows in sides.values()]
    rows = [(name, [int(side[number]) for side in counts]) for number, name in enumerate(NUMBERED_CLASSES)]
    rows.append(("all photographs", [int(side.sum()) for side in counts]))
    people = [task.people.iloc[side].nunique() if side is not guessed else "-" for side in sides.values()]
    rows.append(("people", people))
    return {"sides": list(sides), "rows": rows}


def augmented_photographs(config: TrainSettings, task: Task) -> list[tuple[Image.Image, Image.Image]]:
    """The first photographs of the first epoch: (as stored, as the model saw it)."""
    loader = task.loader
    inputs = EpochInputs(task, config.seed, 0, augment.POLICIES[config.augment], config.mix)
    positions = np.arange(min(MAX_AUGMENTED, len(task.train)))
    before = loader.store.gather(torch.from_numpy(inputs.order[positions])).numpy()
    after = augment.to_pixels(next(inputs.load([positions])), loader.mean, loader.std)
    return [tuple(map(pictures.from_pixels, pair)) for pair in zip(before, after, strict=True)]


def _saliency(model: nn.Module, task: Task, rows: np.ndarray, classes: np.ndarray) -> list[Image.Image] | None:
    """Validation photographs as the model sees them, with Grad-CAM. `rows` count from the first of validation."""
    photographs = task.validation[rows]
    inputs = next(task.loader.load([photographs]))
    maps = grad_cam.saliency(model, inputs, torch.from_numpy(classes).to(inputs.device))
    if maps is None:
        return None
    pixels = task.loader.store.gather(torch.from_numpy(photographs)).numpy()
    return [pictures.with_saliency(pictures.from_pixels(photo), one) for photo, one in zip(pixels, maps, strict=True)]


def _charts(history: list[dict]) -> list:
    """The charts of CURVES, with the columns that the history has."""
    of_charts = {
        title: {column: [(row["epoch"], row[column]) for row in history] for column in columns if column in history[0]}
        for title, columns in CURVES.items()
    }
    return [charts.chart(curves, title, "epoch") for title, curves in of_charts.items() if curves]


def _cost(photographs: int, seconds: float, device: torch.device) -> dict[str, str]:
    """Time, speed and memory of the run, for photographs of all epochs together."""
    cost = {"Seconds": f"{seconds:,.1f}", "Photographs/s": f"{photographs / max(seconds, 1e-9):,.0f}"}
    with contextlib.suppress(ImportError):  # Windows has no module resource
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        cost["Memory of the process"] = f"{peak / 2**20:,.0f} MiB"
    if device.type == "cuda":
        cost["Memory of the GPU"] = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"
    return cost


def _settings(config: TrainSettings, path: pathlib.Path) -> list[tuple[str, str, str]]:
    """(name, value, where it comes from) of each setting; `path` is settings.json of the run."""
    origin = json.loads(path.read_text())["origin"]
    return [(name.upper(), sources.as_text(value), origin[name]) for name, value in config]


def _pictures(augmented: list[tuple], mistakes: list[dict]) -> dict[str, Image.Image]:
    """{title: picture}, for TensorBoard."""
    shown = {f"augmentation/{number}": pictures.side_by_side(*pair) for number, pair in enumerate(augmented, 1)}
    return shown | {
        f"mistakes/{one['name']} predicted {one['predicted']}, true {one['true']}": one["photo"]
        for person in mistakes
        for one in person["mistakes"]
        if one["photo"]
    }
