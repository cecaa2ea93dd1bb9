"""Train a backbone on photographs of faces.

SM_CHANNEL_TRAIN=<image folder> SM_MODEL_DIR=<folder for runs> NAME=resnet18 epochs=3 python train.py
"""

import contextlib
import copy
import datetime
import os

import dataset
import loss
import model
from toolkit.config import extras, settings, sources
from toolkit.labels import ATTRIBUTES
from toolkit.runs import folders
from toolkit.system import console, distributed, files, world
from toolkit.system.console import InputError, listed, say

MEAN, STD = (0.548, 0.504, 0.479), (0.237, 0.247, 0.246)  # of the contest's photographs, from its baseline
SCORES = ("macro_f1", "accuracy", *ATTRIBUTES, "val_loss")  # of the leaderboard
CHOICES = {"name": model.names(), "loss": loss.LOSSES}


def main(argv: list[str]) -> None:
    config, origin = sources.read(settings.TrainSettings, argv, CHOICES)
    if distributed.is_idle_host():
        return
    loss.refuse_shares_for(config)
    if config.find_lr and world.size() > 1:
        raise InputError(f"FIND_LR=true: expected one process, found {world.size()}; start train.py without torchrun")
    if config.tensorboard:
        extras.need("TENSORBOARD=true", "tensorboard")
    config, origin = with_own_defaults(config, origin)
    say(sources.describe(config, origin))
    for name in ("sm_model_dir", "sm_checkpoint_dir", "cache_dir"):
        if folder := getattr(config, name):
            files.make_folder(folder, name.upper())
    # What takes seconds to import comes where it is needed: wrong settings are answered before any of it, and
    # torchvision, which wants as long as torch itself, is imported while photographs are being decoded.
    table, splits, corrected = read_faces(config)
    with distributed.joined(config.device):
        train(config, origin, table, splits, corrected)


def train(config: settings.TrainSettings, origin: dict, table, splits: list[dataset.Split], corrected) -> None:
    """From the photographs to a run for each split of them, and the leaderboard."""
    from toolkit.data.disk_cache import open_store

    paths = dataset.paths(table, config.sm_channel_train)
    with distributed.shared_folder() as shared:
        store = open_store(paths, config.size, config.cache_gib, config.cache_dir or shared)
        with store:
            net, weights, machine = build_net(config)
            dataset.refuse_bad_photographs(table, config.sm_channel_train, store.wait())
    say(str(store))
    header = describe_run(config, weights, corrected, machine)
    faces = on_machine(config, table, store, machine)
    if config.find_lr:
        find_lr(config, net, *data_and_loss(config, table, splits[0], faces))
    elif len(splits) > 1:
        train_folds(config, origin, header, net, table, splits, faces)
    else:
        train_run(config, origin, header, net, *data_and_loss(config, table, splits[0], faces))


def train_run(config: settings.TrainSettings, origin: dict, header: dict, net, data, criterion) -> None:
    """One run, and its line of the leaderboard."""
    from toolkit.pages import report
    from toolkit.training import loop

    identity = folders.identity(config.deciding(), data.digest())
    with folders.opened(config.sm_model_dir, config.sm_checkpoint_dir, config.name, identity, config.resume) as run:
        state = loop.begin(run, identity)
        if run:
            say(f"run folder: {run.folder.absolute()}")
            run.header = {"run": run.folder.name, **header}
            values = {"settings": config.model_dump(mode="json"), "origin": origin, "run": run.header}
            files.write_json(run.folder / folders.SETTINGS, {**values, "started": state.started})
        learner = loop.make_learner(config, net, model.head_weights(net))
        best = loop.fit(config, learner, criterion, data, state, run)
        if run:
            with unless_it_fails():
                report.write(run, config, learner.net, data, state)
                say(f"report: {(run.folder / report.PAGE).absolute()}")
            folders.finish(run.folder, summary(config, run.header, best, state))
            run.states.remove()
            say(f"best epoch {best['epoch']}: macro F1 {best['macro_f1']:.4f}; written: {run.folder.absolute()}")


@contextlib.contextmanager
def unless_it_fails():
    """A net of your own may do what its makers did not foresee: a run is not lost over its page."""
    try:
        yield
    except Exception as error:
        say(f"note: no report is written: {type(error).__name__}: {error}")


def train_folds(config: settings.TrainSettings, origin: dict, header: dict, net, table, splits, faces) -> None:
    """A run for each fold, in one folder, with the probabilities of every photograph by the run that never saw it."""
    from toolkit.pages import report
    from toolkit.runs import cross_validation

    tasks = [data_and_loss(config, table, sides, faces) for sides in splits]
    identity = folders.identity(config.deciding(), "/".join(data.digest() for data, _ in tasks))
    with cross_validation.opened(config, identity) as (folder, done):
        for fold, task in enumerate(tasks):
            say(f"fold {fold} of {config.folds}{': done before' if fold in done else ''}")
            own = cross_validation.settings_of(config, folder, fold)
            cross_validation.prepare(own, fold in done)
            if fold not in done:
                train_run(own, origin, header, copy.deepcopy(net), *task)
            cross_validation.keep(config, folder, fold)
        if world.rank() == 0:
            best, state = cross_validation.join(folder, config.folds)
            paths = dict(zip(map(os.fsdecode, dataset.paths(table)), faces.store.paths, strict=True))
            with unless_it_fails():
                report.write_out_of_fold(folder, paths if config.report_photos else None)
            folders.finish(folder, summary(config, {"run": folder.name, **header}, best, state))
            cross_validation.forget(config, folder)
            say(
                f"out of {config.folds} folds: macro F1 {best['macro_f1']:.4f}; "
                f"written: {(folder / cross_validation.OUT_OF_FOLD).absolute()}"
            )


def find_lr(config: settings.TrainSettings, net, data, criterion) -> None:
    """Try learning rates from low to high, and say which one to take. Nothing is trained or kept."""
    from toolkit.training import loop, lr_finder

    learner = loop.make_learner(config, net, model.head_weights(net))
    say(lr_finder.report(lr_finder.sweep(config, learner, criterion, data)))


def with_own_defaults(config: settings.TrainSettings, origin: dict) -> tuple[settings.TrainSettings, dict]:
    """The settings, with what suits the others where one is unset or `auto`; and where each value comes from."""
    own = dict(settings.OPTIMIZERS_OWN[config.optimizer])
    if config.name in model.WIDE_AT_THE_END:
        own["lr"] /= 5
    if config.pretrained:
        own["lr"] /= 2
    unset = {name: value for name, value in own.items() if getattr(config, name) is None}
    origin = origin | dict.fromkeys(unset, config.optimizer)
    if config.class_weights == "auto":
        plain = config.head == "flat" and config.sampler == "shuffle" and config.loss in loss.ENTROPIES
        unset["class_weights"], origin["class_weights"] = "sqrt" if plain else "none", "default"
    if config.sm_checkpoint_dir is None and (folder := sources.sagemaker_checkpoints()):
        unset["sm_checkpoint_dir"], origin["sm_checkpoint_dir"] = folder, "SageMaker"
    return config.model_copy(update=unset), origin


def read_faces(config: settings.TrainSettings):
    """The table of photographs, corrected; its split, or each fold's; what was corrected. Prints what it found."""
    from toolkit.label_errors import corrections

    sources.ensure_drawn_faces(config)
    as_found, passed_over = dataset.read_faces(config.sm_channel_train)
    if passed_over:
        say(f"passed over {len(passed_over)} files and folders that are no photographs: {listed(passed_over)}")
    table, corrected = corrections.apply(as_found, config.relabel, dataset.image_folder(config.sm_channel_train))
    folds = range(config.folds) if config.folds and config.fold is None else [config.fold or 0]
    splits = []
    for fold in folds:
        held_out = dataset.hold_out(as_found, config.val_ratio, config.folds, fold, config.seed)
        sides = dataset.split(table, held_out)
        splits.append(dataset.without_border_ages(table, sides) if config.border_ages == "leave_out" else sides)
    say(f"{corrected}\n{dataset.counts(table, splits[0])}")
    return table, splits, corrected


def build_net(config: settings.TrainSettings):
    """The net on its machine, which weights it starts from, and the machine. Prints them."""
    import torch

    from toolkit.system import device

    machine = device.choose(config.device, config.precision)
    torch.manual_seed(config.seed)
    net, weights = model.build(config.name, config.size, config.pretrained, config.head)
    size = sum(parameter.numel() for parameter in net.parameters())
    say(f"{config.name} of {size:,} weights, pretrained: {weights}\nrunning on {machine}")
    return machine.place(net), weights, machine


def on_machine(config: settings.TrainSettings, table, store, machine):
    """The faces, ready for the net, with what it is to learn of each."""
    import torch

    from toolkit.training import step, targets

    faces = step.Faces(store, machine, MEAN, STD, dataset.labels(table))
    faces.move()
    factored, soften = config.head == "factored", config.border_ages == "soften"
    years = torch.from_numpy(table["years"].to_numpy("float32", copy=True)).to(machine.device)
    faces.targets = targets.build(faces.labels, years, config.mix != "none", soften, factored)
    return faces


def data_and_loss(config: settings.TrainSettings, table, sides: dataset.Split, faces):
    """The data of one run, and its loss, whose class weights come from the labels of training."""
    import torch

    from toolkit.labels import CLASSES
    from toolkit.training.task import Data

    labels, people = faces.labels[sides.train], table["person"].iloc[sides.train]
    counts = torch.bincount(labels, minlength=CLASSES)
    shares = counts.clamp(min=1) / counts.sum()
    weight = loss.class_weights(counts, config.class_weights)
    options = {
        "label_smoothing": {"smoothing": config.smoothing},
        "focal": {"gamma": config.gamma},
        "logit_adjusted": {"shares": shares, "strength": config.tau},
    }
    emphasis = loss.emphasis(config.loss, torch.ones_like(shares) if weight is None else weight, shares, config.tau)
    chances = dataset.balanced(labels.cpu().numpy(), people) if config.sampler == "balanced" else None
    data = Data(
        dataset.paths(table), table["person"], sides.train, sides.validation, faces, chances, emphasis.cpu().numpy()
    )
    return data, loss.build(config.loss, weight, **options.get(config.loss, {}))


def describe_run(config: settings.TrainSettings, weights: str, corrected, machine) -> dict:
    """The header of a run's weights, but for its name, decision and scores: all that inference needs."""
    import torchvision

    return {
        "backbone": config.name,
        "head": config.head,
        "pretrained": weights,
        "size": config.size,
        "mean": MEAN,
        "std": STD,
        "corrections": corrected.files,
        "machine": f"{machine}, torchvision {torchvision.__version__}",
    }


def summary(config: settings.TrainSettings, header: dict, best: dict, state) -> dict:
    """The run's result.json, and its line of the leaderboard."""
    return {
        "run": header["run"],
        "backbone": header["backbone"],
        "pretrained": header["pretrained"],
        "size": "x".join(map(str, config.size)),
        "epochs": config.epochs,
        "best_epoch": best["epoch"],
        **{score: best[score] for score in SCORES},
        "seconds": round(state.seconds, 1),
        "started": state.started,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    console.run(main)
