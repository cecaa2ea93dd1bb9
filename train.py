"""Train a backbone on photographs of faces.

SM_CHANNEL_TRAIN=<image folder> SM_MODEL_DIR=<folder for runs> NAME=resnet18 epochs=3 python train.py
"""

import datetime
import os
import pathlib

import dataset
import loss
import model
from toolkit import console, environment, files, processes, runs, settings
from toolkit.console import InputError, listed, say

MEAN, STD = (0.548, 0.504, 0.479), (0.237, 0.247, 0.246)  # of the contest's photographs, from its baseline
SCORES = ("macro_f1", "accuracy", "mask", "gender", "age", "val_loss")  # of the leaderboard
CHOICES = {"name": model.names(), "loss": loss.LOSSES}


def main(argv: list[str]) -> None:
    config, origin = environment.read(settings.TrainSettings, argv, CHOICES)
    if processes.idle_host():
        return
    config, origin = with_own_defaults(config, origin)
    say(environment.describe(config, origin))
    for name in ("sm_model_dir", "sm_checkpoint_dir", "cache_dir"):
        if folder := getattr(config, name):
            files.make_folder(folder, name.upper())
    # What takes seconds to import comes where it is needed: wrong settings are answered before any of it, and
    # torchvision, which wants as long as torch itself, is imported while photographs are being decoded.
    table, sides, corrected = read_faces(config)
    with processes.joined(config.device):
        train(config, origin, table, sides, corrected)


def train(config: settings.TrainSettings, origin: dict, table, sides: dataset.Split, corrected) -> None:
    """One run, from the photographs to its line of the leaderboard."""
    from toolkit.cache import open_store

    paths = dataset.paths(table, config.sm_channel_train)
    with processes.shared_folder() as shared:
        store = open_store(paths, config.size, config.cache_gib, config.cache_dir or shared)
        with store:
            net, weights, machine = build_net(config)
            refuse_bad_photographs(config, table, store.wait())
    say(str(store))
    from toolkit import training

    data, criterion = on_machine(config, table, sides, store, machine)
    identity = runs.identity(config.deciding(), data.digest())
    with runs.opened(config.sm_model_dir, config.sm_checkpoint_dir, config.name, identity, config.resume) as run:
        state = training.begin(run, identity)
        if run:
            run.header = describe_run(config, run.folder, weights, corrected, machine)
            values = {"settings": config.model_dump(mode="json"), "origin": origin, "run": run.header}
            files.write_json(run.folder / runs.SETTINGS, {**values, "started": state.started})
        best = training.fit(config, net, criterion, data, state, run)
        if run:
            runs.finish(run.folder, summary(config, run.header, best, state))
            run.states.remove()
            say(f"best epoch {best['epoch']}: macro F1 {best['macro_f1']:.4f}; written: {run.folder.absolute()}")


def with_own_defaults(config: settings.TrainSettings, origin: dict) -> tuple[settings.TrainSettings, dict]:
    """The settings, with the optimizer's learning rate and weight decay and SageMaker's checkpoints where unset."""
    own = settings.OPTIMIZERS_OWN[config.optimizer]
    unset = {name: value for name, value in own.items() if getattr(config, name) is None}
    origin = origin | dict.fromkeys(unset, config.optimizer)
    if config.sm_checkpoint_dir is None and (folder := environment.sagemaker_checkpoints()):
        unset["sm_checkpoint_dir"], origin["sm_checkpoint_dir"] = folder, "SageMaker"
    return config.model_copy(update=unset), origin


def read_faces(config: settings.TrainSettings):
    """The table of photographs, corrected; its two sides; and what was corrected. Prints what it found."""
    from toolkit import corrections

    if config.demo:
        from toolkit import sample

        sample.ensure(settings.DEMO_DATA)
    as_found, passed_over = dataset.read_faces(config.sm_channel_train)
    if passed_over:
        say(f"passed over {len(passed_over)} files and folders that are no photographs: {listed(passed_over)}")
    held_out = dataset.hold_out(as_found, config.val_ratio, config.folds, config.fold, config.seed)
    table, corrected = corrections.apply(as_found, config.relabel)
    sides = dataset.split(table, held_out)
    say(f"{corrected}\n{dataset.counts(table, sides)}")
    return table, sides, corrected


def build_net(config: settings.TrainSettings):
    """The net on its machine, which weights it starts from, and the machine. Prints them."""
    import torch

    from toolkit import device

    machine = device.choose(config.device, config.precision)
    torch.manual_seed(config.seed)
    net, weights = model.build(config.name, config.size, config.pretrained)
    size = sum(parameter.numel() for parameter in net.parameters())
    say(f"{config.name} of {size:,} weights, pretrained: {weights}\nrunning on {machine}")
    return machine.place(net), weights, machine


def refuse_bad_photographs(config: settings.TrainSettings, table, bad: dict[int, str]) -> None:
    """Raises InputError that names those that could not be read."""
    if bad:
        paths = dataset.paths(table.iloc[list(bad)])
        named = listed(
            (f"{os.fsdecode(path)} ({reason})" for path, reason in zip(paths, bad.values(), strict=True)), most=len(bad)
        )
        raise InputError(
            f"SM_CHANNEL_TRAIN={config.sm_channel_train}: {len(bad)} of {len(table)} photographs cannot be read; "
            f"mend or remove them: {named}"
        )


def on_machine(config: settings.TrainSettings, table, sides: dataset.Split, store, machine):
    """The data for the net, and the loss, whose class weights come from the labels of training."""
    import torch

    from toolkit import engine, training
    from toolkit.labels import CLASSES

    faces = engine.Faces(store, machine, MEAN, STD, dataset.labels(table))
    faces.move()
    counts = torch.bincount(faces.labels[sides.train], minlength=CLASSES)
    weight = loss.class_weights(counts, config.class_weights)
    options = {"label_smoothing": {"smoothing": config.smoothing}, "focal": {"gamma": config.gamma}}
    criterion = loss.build(config.loss, weight, **options.get(config.loss, {}))
    return training.Data(dataset.paths(table), table["person"], sides.train, sides.validation, faces), criterion


def describe_run(config: settings.TrainSettings, folder: pathlib.Path, weights: str, corrected, machine) -> dict:
    """The header of the run's weights, but for their scores: all that inference needs. Prints where the run is."""
    import torchvision

    say(f"run folder: {folder.absolute()}")
    return {
        "run": folder.name,
        "backbone": config.name,
        "pretrained": weights,
        "size": config.size,
        "mean": MEAN,
        "std": STD,
        "corrections": corrected.sha256,
        "machine": f"{machine}, torchvision {torchvision.__version__}",
    }


def summary(config: settings.TrainSettings, header: dict, best: dict, state) -> dict:
    """The run's result.json, and its line of the leaderboard."""
    return {
        "run": header["run"],
        "backbone": config.name,
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
