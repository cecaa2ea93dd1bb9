"""Train a backbone on photographs of faces.

SM_CHANNEL_TRAIN=<image folder> SM_MODEL_DIR=<folder for runs> NAME=resnet18 epochs=3 python train.py

torch, torchvision and pandas take seconds to import. The functions that need them import them: so wrong settings are
reported at once, and torchvision is imported while photographs are being decoded.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import dataset
import loss
import model
from toolkit.backbones import pretrained
from toolkit.config import defaults, extras, settings, sources
from toolkit.data import split
from toolkit.data.framing import Framing
from toolkit.data.split import Split
from toolkit.demo import synthetic
from toolkit.scoring import pseudo_labels
from toolkit.system import console, distributed, files, world
from toolkit.system.console import InputError, say

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from toolkit.data.loader import Loader
    from toolkit.data.store import Store
    from toolkit.runs.artefacts import Outcome
    from toolkit.runs.weights import Header
    from toolkit.scoring.pseudo_labels import PseudoLabels
    from toolkit.system.device import Machine
    from toolkit.training.task import Task

CHOICES = {"name": model.names, "loss": loss.LOSSES}


def on_epoch(row: dict[str, float]) -> None:
    """Called on rank 0 after each epoch, with its row of history.csv: for MLflow, W&B and the like (docs/python.md)."""


def main(argv: list[str], on_epoch: Callable[[dict[str, float]], None] = on_epoch) -> Outcome | None:
    """Train with the settings of flags and environment. Returns None with FIND_LR, and on ranks other than 0.

    A finished run of the same settings, photographs and code is not trained again unless RESUME=never.
    """
    config, origin = sources.read(settings.TrainSettings, argv, CHOICES)
    if distributed.is_idle_host():
        return None
    head = pretrained.head_of(config.weights)
    config, origin = defaults.resolve(config, origin, loss.takes_weight(config.loss), head)
    refuse_what_does_not_fit(config)
    say(*sources.describe(config, origin))
    files.make_folders(config, "sm_model_dir", "sm_checkpoint_dir", "cache_dir")
    synthetic.ensure_for(config)
    data = read_data(config)
    import torch

    with torch.random.fork_rng([]), distributed.joined(config.device):  # a caller may draw its next settings with torch
        return train(config, origin, data, on_epoch)


def train(config: settings.TrainSettings, origin: dict, data: Data, on_epoch: Callable) -> Outcome | None:
    """Find the crop, decode the store, build the model; then train and report one run for each split."""
    config, origin = crop_to_faces(config, origin, data.table)
    with decoded(config, data) as store:
        backbone = build_model(config)  # which takes seconds, while photographs are being decoded
        data, store = without_bad_photographs(config, data, store)
    say(str(store))
    loader = make_loader(store, backbone)
    tasks = [make_task(config, data, sides, loader) for sides in data.splits]
    setup = Setup(config, origin, backbone, data, on_epoch)
    if config.find_lr:
        from toolkit.training import lr_finder

        return lr_finder.find_lr(config, backbone.model, tasks[0])
    outcome = train_run(setup, backbone.model, tasks[0]) if len(tasks) == 1 else train_folds(setup, tasks)
    if world.rank() == 0:
        from toolkit.pages import run_table as run_table_page

        run_table_page.write(config.sm_model_dir)
    return outcome


def refuse_what_does_not_fit(config: settings.TrainSettings) -> None:
    """Raises InputError on settings that do not fit each other, or this machine."""
    loss.refuse_soft_targets(config)
    loss.refuse_class_weights(config)
    model.refuse_lacking_weights(config.name, config.weights)
    if config.find_lr and world.size() > 1:
        raise InputError(f"FIND_LR=true: expected one process, found {world.size()}; start train.py without torchrun")
    if config.tensorboard:
        extras.need("TENSORBOARD=true", "tensorboard")
    if config.decide_by and world.rank() == 0:
        from toolkit.training import decide_by

        decide_by.refuse_unlike_folds(config)


class Data(NamedTuple):
    """What is read before photographs are decoded."""

    table: pd.DataFrame  # of all photographs with labels, corrected
    splits: Sequence[Split] = ()  # of the table, one for each net
    corrections: Mapping[str, str] = {}  # checksums of the files of label corrections
    pseudo_labels: PseudoLabels | None = None  # of photographs that follow those of the table
    bad_images: Mapping[str, list] = {}  # columns of bad_images.csv


def read_data(config: settings.TrainSettings) -> Data:
    """The table, its splits and the pseudo-labels. Prints how many photographs there are of each class."""
    table, as_found, report, passed_over = dataset.read_corrected(config.sm_channel_train, config.relabel)
    if config.border_ages != "keep" and table["years"].isna().all():
        say(f"note: BORDER_AGES={config.border_ages} has no effect: no years of age are known")
    splits = split.make_splits(config, as_found, table)
    say(*str(report).split("\n"), *split.describe(dataset.labels(table), table["person"], splits))
    dataset.report_passed_over(dataset.image_folder(config.sm_channel_train), passed_over)
    held_out = {person for sides in splits for person in table["person"].iloc[sides.validation]}
    pretrained.note_people_seen(config.weights, dataset.image_folder(config.sm_channel_train), held_out)
    found = None
    if folder := config.sm_channel_pseudo:
        probabilities = config.pseudo_probabilities or folder / pseudo_labels.TABLE
        found = pseudo_labels.read(dataset.image_folder(folder), probabilities, config.pseudo_from)
        say(*str(found).split("\n"))
    return Data(table, splits, report.files, found)


def crop_to_faces(
    config: settings.TrainSettings, origin: dict[str, str], table: pd.DataFrame
) -> tuple[settings.TrainSettings, dict[str, str]]:
    """Settings and origin, with CROP=auto replaced by the box of the faces or, with DECIDE_BY, by that of its folds."""
    if config.crop != "auto":
        return config, origin
    crop, source = None, "DECIDE_BY" if config.decide_by else "photographs"
    if world.rank() == 0 and config.decide_by:
        from toolkit.training import decide_by

        crop = decide_by.crop(config)
    elif world.rank() == 0:
        from toolkit.data import face_box
        from toolkit.data.photo_file import Reading

        faces = face_box.find(table, dataset.paths(table, config.sm_channel_train), Reading.of(config))
        say(str(faces))
        crop = faces.crop
    return config.model_copy(update={"crop": distributed.broadcast(crop)}), origin | {"crop": source}


@contextlib.contextmanager
def decoded(config: settings.TrainSettings, data: Data) -> Iterator[Store]:
    """The store, which decodes in the background. It lies in CACHE_DIR, or is shared by the processes of a machine."""
    from toolkit.data.disk_cache import open_store
    from toolkit.data.photo_file import Reading

    paths, framing, reading = dataset.paths(data.table, config.sm_channel_train), Framing.of(config), Reading.of(config)
    if data.pseudo_labels:
        paths = np.concatenate([paths, data.pseudo_labels.paths])
    with (
        distributed.shared_folder() as shared,
        open_store(paths, framing, config.cache_gib, config.cache_dir or shared, reading) as store,
    ):
        yield store


def without_bad_photographs(config: settings.TrainSettings, data: Data, store: Store) -> tuple[Data, Store]:
    """Data and store without bad photographs that ON_BAD_IMAGE leaves out. Raises InputError on one if it is stop."""
    table, bad = data.table, dataset.find_bad(data.table, store, config.sm_channel_train, config.on_bad_image)
    if data.pseudo_labels:
        data.pseudo_labels.refuse_bad(store.bad, len(table))
    data = data._replace(bad_images=bad.as_columns(table))
    if not bad.left_out:
        return data, store
    rows = list(bad.left_out)
    splits = [split.without_rows(sides, rows, len(table)) for sides in data.splits]
    table, store = dataset.without_rows(table, store, rows)
    return data._replace(table=table, splits=splits), store


class Backbone(NamedTuple):
    model: nn.Module  # on the device of `machine`
    start: model.Start  # what it starts from
    machine: Machine
    parameters: int  # how many numbers can be trained


def build_model(config: settings.TrainSettings) -> Backbone:
    """Build the model and move it to its device. Prints both."""
    import torch

    from toolkit.models import placement
    from toolkit.system import device

    machine = device.choose(config.device, config.precision)
    torch.manual_seed(config.seed)
    net, start = model.build(config.name, config.size, config.weights, config.head)
    parameters = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    say(f"{config.name} of {parameters:,} weights, pretrained: {start}", f"running on {machine}")
    return Backbone(placement.to_device(net, machine), start, machine, parameters)


def make_loader(store: Store, backbone: Backbone) -> Loader:
    from toolkit.data.loader import Loader

    loader = Loader(store, backbone.machine, backbone.start.mean, backbone.start.std)
    loader.move_to_gpu()
    return loader


def make_task(config: settings.TrainSettings, data: Data, sides: Split, loader: Loader) -> Task:
    """The task of one run: its split, its targets, and a loss weighted by the classes of its training photographs."""
    from toolkit.training.task import Labelled, Task

    table = data.table
    labelled = Labelled(dataset.paths(table), table["person"], dataset.labels(table), table["years"])
    return Task.of(config, loader, labelled, data.pseudo_labels, sides, partial(loss.for_training, config))


class Setup(NamedTuple):
    """What all runs of this call have in common."""

    config: settings.TrainSettings
    origin: dict[str, str]  # where each setting's value comes from
    backbone: Backbone
    data: Data
    on_epoch: Callable[[dict[str, float]], None]


def train_run(setup: Setup, net: nn.Module, task: Task) -> Outcome | None:
    """Train one run in its folder; then write its report and its row of leaderboard.csv. None on ranks other than 0."""
    from toolkit.pages import report
    from toolkit.runs import artefacts, folders, run_table, tensorboard
    from toolkit.runs.fingerprint import make_fingerprint
    from toolkit.training import decide_by, loop
    from toolkit.training.checkpointer import Checkpointer

    config, rows = setup.config, task.validation
    if not len(rows):
        task = decide_by.with_decision(config, task)
    fingerprint = make_fingerprint(config.deciding(), task.digest(), setup.backbone.start.sha256)
    validation = artefacts.Validation(task.names[rows], task.people.iloc[rows], task.labels[rows].cpu().numpy())
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(
            folders.open_run(config.sm_model_dir, config.sm_checkpoint_dir, config.run, fingerprint, config.resume)
        )
        if distributed.broadcast(run is not None and run.is_finished):
            return run and artefacts.finished_before(run.folder)
        header = make_header(setup, run.folder.name if run else "", task.decided_by)
        checkpointer = Checkpointer(run, fingerprint, header, validation, config.checkpoint_seconds)
        so_far, log = checkpointer.checkpoint, None
        if run:
            say(f"run folder: {run.folder.absolute()}")
            record = task.record(fingerprint, so_far.started)
            artefacts.write_settings(run.folder, config, setup.origin, header, record)
            artefacts.write_bad_images(run.folder, setup.data.bad_images)
            if config.tensorboard:
                log = stack.enter_context(tensorboard.opened(run.folder / folders.BOARD, so_far.history))
        page = report.Run(run.folder, config, header, setup.data.table) if run else None

        def after_epoch(row: dict) -> None:
            if log:
                tensorboard.add_epoch(log, row)
            setup.on_epoch(row)

        try:
            result = loop.train(config, net, task, checkpointer, after_epoch)
        except KeyboardInterrupt:  # a second Ctrl-C also stops the report
            if run and so_far.kept_epoch:
                report.write(page, net, task, checkpointer.result())
            raise
        if not run:
            return None
        pictures = report.write(page, net, task, result)
        kept = result.kept | artefacts.interval(validation, result.decision.classes(result.logits))
        if log and pictures:
            tensorboard.add_summary(log, pictures, config.deciding(), kept)
        per_second = round(len(task.train) * len(result.history) / max(result.seconds, 1e-9))
        cost = {"parameters": setup.backbone.parameters, "photographs_per_second": per_second}
        run_table.finish(run.folder, artefacts.summary(config, header, kept, result.started, result.seconds, cost))
        run.finish()
        score = f"macro F1 {kept['macro_f1']:.4f}" if len(rows) else "the last, trained on everybody"
        say(f"kept: epoch {kept['epoch']}, {score}; written: {run.folder.absolute()}")
        return artefacts.outcome(run.folder)


def train_folds(setup: Setup, tasks: list[Task]) -> Outcome | None:
    """Train a run for each fold and, with FINAL, the final net, in one folder; join the out-of-fold predictions."""
    from toolkit.pages import report
    from toolkit.runs import artefacts, cross_validation, folders, run_table
    from toolkit.runs.fingerprint import make_fingerprint

    config = setup.config
    digest = "/".join(task.digest() for task in tasks)
    fingerprint = make_fingerprint(config.deciding(), digest, setup.backbone.start.sha256)
    with cross_validation.open_folds(config, fingerprint) as (folder, done):
        if distributed.broadcast((folder / folders.RESULT).exists()):
            return artefacts.finished_before(folder)
        for number, of_net in cross_validation.untrained(config, folder, done):
            # Every net starts from the same weights, so each gets a copy of its own.
            origin = setup.origin if of_net.epochs == config.epochs else defaults.origin_in_folds(setup.origin)
            train_run(setup._replace(config=of_net, origin=origin), copy.deepcopy(setup.backbone.model), tasks[number])
        if world.rank():
            return None
        scores, (started, seconds) = cross_validation.join(folder, config), cross_validation.times(folder, config)
        header = make_header(setup, folder.name, tasks[0].decided_by)
        artefacts.write_settings(folder, config, setup.origin, header, tasks[0].record(fingerprint, started))
        artefacts.write_bad_images(folder, setup.data.bad_images)
        report.write_out_of_fold(report.Run(folder, config, header, setup.data.table), tasks[0])
        run_table.finish(folder, artefacts.summary(config, header, scores, started, seconds, {}))
        cross_validation.finish(config, folder)
        written = (folder / cross_validation.OUT_OF_FOLD).absolute()
        say(f"out-of-fold macro F1 of {config.folds} folds: {scores['macro_f1']:.4f}; written: {written}")
        return artefacts.outcome(folder)


def make_header(setup: Setup, run: str, decided_by: str) -> Header:
    """The header of the run's weights without decision and scores: each kept epoch adds its own."""
    import torchvision

    from toolkit.runs.weights import Header

    config = setup.config
    return Header(
        run=run,
        backbone=config.name,
        head=config.head,
        framing=Framing.of(config),
        decided_by=decided_by,
        corrections=setup.data.corrections,
        machine=f"{setup.backbone.machine}, torchvision {torchvision.__version__}",
        **vars(setup.backbone.start),  # pretrained, mean, std, taken
    )


if __name__ == "__main__":
    console.run(main)
