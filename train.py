"""Train a backbone on photographs of faces.

SM_CHANNEL_TRAIN=<image folder> SM_MODEL_DIR=<folder for runs> NAME=resnet18 epochs=3 python train.py
"""

import datetime
import pathlib
import time
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
import torchvision

import dataset
import loss
import model
from toolkit import (
    augment,
    console,
    corrections,
    engine,
    environment,
    files,
    metrics,
    optimization,
    runs,
    sample,
    settings,
)
from toolkit.checkpoint import save_weights
from toolkit.console import InputError, listed, say
from toolkit.device import Machine, choose
from toolkit.images import Store
from toolkit.labels import CLASSES, PROBABILITY_COLUMNS

MEAN, STD = (0.548, 0.504, 0.479), (0.237, 0.247, 0.246)  # of the contest's photographs, from its baseline
SCORES = ("macro_f1", "accuracy", "mask", "gender", "age", "val_loss")  # of the leaderboard
SETTLING_BATCHES = 16  # a forward pass of so many an epoch: enough for means and variances of batches of 64
CHOICES = {
    "name": model.names(),
    "loss": loss.LOSSES,
    "optimizer": optimization.OPTIMIZERS,
    "augment": augment.POLICIES,
}


def main(argv: list[str]) -> None:
    started = time.time()
    config, origin = environment.read(settings.TrainSettings, argv, CHOICES)
    config, origin = with_optimizers_own(config, origin)
    machine = choose(config.device, config.precision)
    say(f"{environment.describe(config, origin)}\nrunning on {machine}")
    files.make_folder(config.sm_model_dir, "SM_MODEL_DIR")

    torch.manual_seed(config.seed)
    net, weights = model.build(config.name, config.size, config.pretrained)
    say(f"{config.name} of {sum(p.numel() for p in net.parameters()):,} weights, pretrained: {weights}")
    data = load_data(config, machine)
    net = net.to(machine.device, memory_format=torch.channels_last)

    with runs.new_folder(config.sm_model_dir, config.name) as folder:
        say(f"run folder: {folder.absolute()}")
        header = {
            "run": folder.name,
            "backbone": config.name,
            "pretrained": weights,
            "size": config.size,
            "mean": MEAN,
            "std": STD,
            "corrections": data.corrected.sha256,
            "machine": f"{machine}, torchvision {torchvision.__version__}",
        }
        values = config.model_dump(mode="json")
        files.write_json(folder / "settings.json", {"settings": values, "origin": origin, "run": header})
        best = fit(config, net, data, folder, header)
        result = {
            "run": folder.name,
            "backbone": config.name,
            "pretrained": weights,
            "size": "x".join(map(str, config.size)),
            "epochs": config.epochs,
            "best_epoch": best["epoch"],
            **{score: best[score] for score in SCORES},
            "seconds": round(time.time() - started, 1),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        runs.finish(folder, result)
    say(f"best epoch {best['epoch']}: macro F1 {best['macro_f1']:.4f}; written: {folder.absolute()}")


def with_optimizers_own(config: settings.TrainSettings, origin: dict) -> tuple[settings.TrainSettings, dict]:
    """The settings with the optimizer's own learning rate and weight decay where none are given."""
    _, own = optimization.OPTIMIZERS[config.optimizer]
    unset = {name: value for name, value in own.items() if getattr(config, name) is None}
    return config.model_copy(update=unset), origin | dict.fromkeys(unset, config.optimizer)


@dataclass(frozen=True)
class Data:
    """The faces: their table, its two sides, what was corrected in it, and the photographs for the net."""

    table: pd.DataFrame
    sides: dataset.Split
    corrected: corrections.Report
    faces: engine.Faces


def load_data(config: settings.TrainSettings, machine: Machine) -> Data:
    """Read, correct, split and decode. Prints what it found. Raises InputError that names unreadable files."""
    if config.demo:
        sample.ensure(settings.DEMO_DATA)
    as_found, passed_over = dataset.read_faces(config.sm_channel_train)
    if passed_over:
        say(f"passed over {len(passed_over)} files and folders that are no photographs: {listed(passed_over)}")
    held_out = dataset.hold_out(as_found, config.val_ratio, config.folds, config.fold, config.seed)
    table, corrected = corrections.apply(as_found, config.relabel)
    sides = dataset.split(table, held_out)
    say(f"{corrected}\n{dataset.counts(table, sides)}")

    started = time.time()
    root = dataset.image_folder(config.sm_channel_train)
    store = Store([f"{root}/{path}" for path in table["path"]], config.size, config.cache_gib)
    if bad := store.fill():
        named = listed((f"{table['path'].iloc[index]} ({reason})" for index, reason in bad.items()), most=20)
        raise InputError(f"{root}: {len(bad)} photographs cannot be read; mend or remove them: {named}")
    seconds, mebibytes = time.time() - started, store.bytes / 2**20
    say(f"decoded {len(store)} photographs in {seconds:.1f} s, {mebibytes:.0f} MiB")
    return Data(table, sides, corrected, engine.Faces(store, machine, MEAN, STD, dataset.labels(table)))


def make_recipe(config: settings.TrainSettings, labels: torch.Tensor, learning_rate) -> engine.Recipe:
    """What a step does. The class weights come from the labels of training: int64, shape (n,)."""
    weight = loss.class_weights(torch.bincount(labels.cpu(), minlength=CLASSES), config.class_weights)
    weight = None if weight is None else weight.to(labels.device)
    options = {"label_smoothing": {"smoothing": config.smoothing}, "focal": {"gamma": config.gamma}}
    return engine.Recipe(
        criterion=loss.build(config.loss, weight, **options.get(config.loss, {})),
        learning_rate=learning_rate,
        policy=augment.POLICIES[config.augment],
        batch_size=config.batch_size,
        clip_grad=config.clip_grad,
        seed=config.seed,
    )


def fit(config: settings.TrainSettings, net, data: Data, folder: pathlib.Path, header: dict) -> dict:
    """Train, validate after every epoch, and keep the best by macro F1: its row of history.csv is returned."""
    train, validation = data.sides.train, data.sides.validation
    optimizer = optimization.build(config.optimizer, net, config.lr, config.weight_decay)
    rate = partial(
        optimization.learning_rate,
        steps=config.epochs * len(engine.batches(train, config.batch_size)),
        highest=config.lr,
        warmup=config.warmup,
        schedule=config.schedule,
    )
    recipe = make_recipe(config, data.faces.labels[train], rate)
    history, best = [], None
    for epoch in range(config.epochs):
        started = time.time()
        train_loss = engine.train_one_epoch(net, optimizer, recipe, data.faces, train, epoch)
        trained = time.time()
        seen = engine.order(train, config.seed, epoch)
        engine.settle_batch_norm(net, data.faces, engine.batches(seen, config.batch_size)[:SETTLING_BATCHES])
        logits = engine.predict(net, data.faces, validation, 4 * config.batch_size)
        row = {
            "epoch": epoch + 1,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            **validation_scores(recipe.criterion, logits.to(data.faces.labels.device), data.faces.labels[validation]),
            "photographs_per_second": round(len(train) / (trained - started), 1),
            "seconds": round(time.time() - started, 2),
        }
        history.append(row)
        improved = best is None or row["macro_f1"] > best["macro_f1"]
        if improved:
            best = row
            save_weights(folder / runs.WEIGHTS, net.state_dict(), {**header, "scores": row})
            files.write_csv(folder / "validation.csv", predictions(data.table.iloc[validation], logits))
        files.write_csv(folder / "history.csv", pd.DataFrame(history))
        say(epoch_line(row, config.epochs, improved))
        if config.patience and row["epoch"] - best["epoch"] >= config.patience:
            say(f"stopped: no better macro F1 in {config.patience} epochs")
            break
    return best


def validation_scores(criterion, logits: torch.Tensor, labels: torch.Tensor) -> dict:
    """Loss, accuracy, macro F1 and each attribute's accuracy, over all validation photographs at once."""
    result = metrics.scores(metrics.confusion(labels.cpu(), logits.argmax(1).cpu()))
    return {
        "val_loss": criterion(logits, labels).item(),
        "accuracy": result["accuracy"],
        "macro_f1": result["macro_f1"],
        **{name: attribute["accuracy"] for name, attribute in result["attributes"].items()},
    }


def predictions(faces: pd.DataFrame, logits: torch.Tensor) -> pd.DataFrame:
    """The table of validation.csv: path, person, label, prediction and the probability of each class."""
    answers = {"label": dataset.labels(faces), "predicted": logits.argmax(1).numpy()}
    chances = pd.DataFrame(logits.softmax(1).numpy(), columns=PROBABILITY_COLUMNS, index=faces.index)
    return pd.concat([faces[["path", "person"]].assign(**answers), chances.round(6)], axis=1)


def epoch_line(row: dict, epochs: int, improved: bool) -> str:
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.4f}  val_loss {row['val_loss']:.4f}  "
        f"accuracy {row['accuracy']:8.4%}  macro_f1 {row['macro_f1']:.4f}  mask {row['mask']:7.2%}  "
        f"gender {row['gender']:7.2%}  age {row['age']:7.2%}  lr {row['lr']:.2e}  "
        f"{row['photographs_per_second']:5.0f} photographs/s  {row['seconds']:6.1f} s{'  best' if improved else ''}"
    )


if __name__ == "__main__":
    console.run(main)
