"""The page of a run: how it learned, what it gets right and wrong on validation people, and what it cost."""

import contextlib
import json
import os
import pathlib
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from PIL import Image

from toolkit.config import sources
from toolkit.config.settings import TrainSettings
from toolkit.data import augment
from toolkit.labels import ATTRIBUTES, CLASSES, PROBABILITY_COLUMNS
from toolkit.pages import answers, charts, gradcam, page, pictures
from toolkit.pages.answers import Answers
from toolkit.runs import checkpoint, folders, tensorboard
from toolkit.runs.checkpoint import State
from toolkit.runs.cross_validation import OUT_OF_FOLD
from toolkit.scoring.decision import Decision
from toolkit.training import loop, step
from toolkit.training.task import Data

PAGE = "report.html"
AUGMENTED = 12  # photographs, as the net sees them in training
SCORES = ("macro_f1", "accuracy", "val_loss")  # of TensorBoard's table of runs
CURVES = {
    "Loss": ("train_loss", "val_loss"),
    "F1 and accuracy of validation": ("macro_f1", "accuracy", *ATTRIBUTES),
    "Learning rate": ("lr",),
}


def write(run: folders.Run, config: TrainSettings, net, data: Data, state: State) -> None:
    """Write report.html into the folder of a run whose epochs are done, and what TensorBoard shows of all of it.

    `net` takes on the best weights.
    """
    checkpoint.restore(net, state.part("best"))
    decision = Decision.of_header(state.decision)
    logits = state.tensors["validation"].double().numpy()
    of_validation = validation_answers(data, logits, decision, config.report_photos)
    told = answers.tell(of_validation, lambda rows, said: _looks(net, data, data.validation[rows], said))
    augmentation = augmented(config, data, state) if config.report_photos else []
    best, kept = state.history[state.best - 1], json.loads((run.folder / folders.SETTINGS).read_text())
    page.write(
        run.folder / PAGE,
        "run.html",
        title=f"Run {run.folder.name}",
        facts=f"{run.header['backbone']} at {sources.as_text(config.size)}, pretrained: "
        f"{run.header['pretrained']}; best epoch {best['epoch']} of {len(state.history)}, on validation people; "
        f"begun {state.started[:16].replace('T', ' ')} UTC",
        told=told,
        curves=[_curves(title, names, state.history) for title, names in CURVES.items()],
        history=state.history,
        counts=counts(data),
        augmented=augmentation,
        cost=_cost(data, state),
        machine=f"On {run.header['machine']}. Photographs are those of training; the time is that of validation and "
        "saving too, and memory is the most that was taken at once.",
        settings=[(name.upper(), sources.as_text(value), kept["origin"][name]) for name, value in config],
    )
    if config.tensorboard:
        shown = {f"augmentation/{number}": pictures.beside(*pair) for number, pair in enumerate(augmentation, 1)}
        shown |= {
            f"mistakes/{one['name']} said {one['said']}, is {one['true']}": one["photo"]
            for one in told["mistakes"]
            if one["photo"]
        }
        tensorboard.finish(run.folder / folders.BOARD, shown, config.deciding(), {name: best[name] for name in SCORES})


def write_out_of_fold(folder: pathlib.Path, paths: dict[str, bytes] | None) -> None:
    """Write report.html of a run of folds: what each photograph got from the net that never saw its person.

    `paths` says where each photograph lies; None keeps them out of the page.
    """
    table = pd.read_csv(folder / OUT_OF_FOLD, dtype={"person": str})
    given = Answers(
        names=table["path"].tolist(),
        true=table["label"].to_numpy(),
        said=table["predicted"].to_numpy(),
        people=table["person"].tolist(),
        probabilities=table[list(PROBABILITY_COLUMNS)].to_numpy(),
        files=paths and [paths[name] for name in table["path"]],
    )
    facts = f"{table['fold'].nunique()} folds: what each photograph got from the net that never saw its person"
    page.write(folder / PAGE, "answers.html", title=f"Run {folder.name}", facts=facts, told=answers.tell(given))


def validation_answers(data: Data, logits: np.ndarray, decision: Decision, photographs: bool) -> Answers:
    """What the run says of its validation photographs."""
    rows = data.validation
    return Answers(
        names=[os.fsdecode(path) for path in data.paths[rows]],
        true=data.faces.labels[rows].cpu().numpy(),
        said=decision.classes(logits),
        people=data.people.iloc[rows].tolist(),
        probabilities=decision.probabilities(logits),
        uncalibrated=replace(decision, temperature=1.0).probabilities(logits) if decision.temperature != 1.0 else None,
        files=[data.faces.store.paths[row] for row in rows] if photographs else None,
    )


def counts(data: Data) -> dict:
    """Photographs of each class on both sides, and people."""
    labels = data.faces.labels.cpu().numpy()
    sides = {"training": data.train, "validation": data.validation}
    numbers = [np.bincount(labels[rows], minlength=CLASSES) for rows in sides.values()]
    rows = [(f"{k} {answers.class_name(k)}", [int(side[k]) for side in numbers]) for k in range(CLASSES)]
    rows.append(("all photographs", [int(side.sum()) for side in numbers]))
    rows.append(("people", [data.people.iloc[side].nunique() for side in sides.values()]))
    return {"sides": list(sides), "rows": rows}


def _curves(title: str, names: tuple[str, ...], history: list[dict]):
    curves = {name: [(row["epoch"], row[name]) for row in history] for name in names}
    return charts.chart(curves, title, "epoch")


def _looks(net, data: Data, rows: np.ndarray, said: np.ndarray) -> np.ndarray | None:
    inputs = next(data.faces.batches([rows]))
    return gradcam.heat(net, inputs, torch.from_numpy(said).to(inputs.device))


def augmented(config: TrainSettings, data: Data, state: State) -> list[tuple[Image.Image, Image.Image]]:
    """The first photographs of the first epoch: as they are stored, and as the net saw them."""
    recipe = loop.make_recipe(config, None, data, 1, state)
    epoch = step.Epoch(recipe, data.faces, data.train, 0)
    places = np.arange(min(AUGMENTED, len(data.train)))
    before = data.faces.store.gather(torch.from_numpy(epoch.order[places])).numpy()
    after = augment.to_pixels(next(epoch.inputs([places])), data.faces.mean, data.faces.std)
    return [tuple(map(pictures.of_pixels, pair)) for pair in zip(before, after, strict=True)]


def _cost(data: Data, state: State) -> dict[str, str]:
    """What the run took, as a person reads it."""
    photographs = len(data.train) * len(state.history)
    cost = {"Seconds": f"{state.seconds:,.1f}", "Photographs/s": f"{photographs / max(state.seconds, 1e-9):,.0f}"}
    with contextlib.suppress(ImportError):  # Windows has no such numbers
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cost["Memory of the process"] = f"{peak / 2**20:,.0f} MiB"
    if data.faces.machine.device.type == "cuda":
        cost["Memory of the GPU"] = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"
    return cost
