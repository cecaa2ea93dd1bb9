"""All epochs of a run: train, validate, keep the best."""

import os
import pathlib
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from toolkit import augment, engine, files, metrics, optimization, runs
from toolkit.checkpoint import save_weights
from toolkit.console import say
from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.settings import TrainSettings

SETTLING_BATCHES = 16  # a forward pass of so many an epoch: enough for means and variances of batches of 64


@dataclass(frozen=True)
class Data:
    """The faces: path (bytes) and person of each photograph, the rows of both sides, and all that the net needs.

    Rows are indices of photographs: int64, sorted.
    """

    paths: np.ndarray
    people: pd.Series
    train: np.ndarray
    validation: np.ndarray
    faces: engine.Faces


def make_recipe(config: TrainSettings, criterion, steps: int) -> engine.Recipe:
    """What a step does in a run of so many `steps`."""
    return engine.Recipe(
        criterion=criterion,
        learning_rate=partial(
            optimization.learning_rate,
            steps=steps,
            highest=config.lr,
            warmup=config.warmup,
            schedule=config.schedule,
        ),
        policy=augment.POLICIES[config.augment],
        batch_size=config.batch_size,
        clip_grad=config.clip_grad,
        seed=config.seed,
    )


def fit(config: TrainSettings, net, criterion, data: Data, folder: pathlib.Path, header: dict) -> dict:
    """Train, validate after every epoch, and keep the best by macro F1: its row of history.csv is returned."""
    steps = config.epochs * len(engine.batches(data.train, config.batch_size))
    recipe = make_recipe(config, criterion, steps)
    optimizer = optimization.build(config.optimizer, net, config.lr, config.weight_decay)
    stepping = data.faces.machine.compiled(net, config.compile, steps)
    labels = data.faces.labels[data.validation]
    # Without gradients four times as many fit; who lowers BATCH_SIZE for want of memory lowers this too.
    prediction_batch = min(4 * config.batch_size, data.faces.machine.batch_for_prediction(config.size))
    history, best = [], None
    for epoch in range(config.epochs):
        started = time.time()
        train_loss = engine.train_one_epoch(stepping, optimizer, recipe, data.faces, data.train, epoch)
        trained = time.time()
        seen = engine.order(data.train, config.seed, epoch)
        engine.settle_batch_norm(net, data.faces, engine.batches(seen, config.batch_size)[:SETTLING_BATCHES])
        logits = engine.predict(net, data.faces, data.validation, prediction_batch)
        row = {
            "epoch": epoch + 1,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            **validation_scores(criterion, logits.to(labels.device), labels),
            "photographs_per_second": round(len(data.train) / (trained - started), 1),
            "seconds": round(time.time() - started, 2),
        }
        history.append(row)
        improved = best is None or row["macro_f1"] > best["macro_f1"]
        if improved:
            best = row
            save_weights(folder / runs.WEIGHTS, net.state_dict(), {**header, "scores": row})
            files.write_csv(folder / "validation.csv", predictions(data, logits))
        files.write_csv(folder / "history.csv", {name: [row[name] for row in history] for name in row})
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


def predictions(data: Data, logits: torch.Tensor) -> dict:
    """The columns of validation.csv: path, person, label, prediction and the probability of each class."""
    rows = data.validation
    chances = logits.double().softmax(1).numpy().round(6)
    return {
        "path": [os.fsdecode(path) for path in data.paths[rows]],
        "person": data.people.iloc[rows],
        "label": data.faces.labels[rows].cpu(),
        "predicted": logits.argmax(1),
        **dict(zip(PROBABILITY_COLUMNS, chances.T, strict=True)),
    }


def epoch_line(row: dict, epochs: int, improved: bool) -> str:
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.4f}  val_loss {row['val_loss']:.4f}  "
        f"accuracy {row['accuracy']:8.4%}  macro_f1 {row['macro_f1']:.4f}  mask {row['mask']:7.2%}  "
        f"gender {row['gender']:7.2%}  age {row['age']:7.2%}  lr {row['lr']:.2e}  "
        f"{row['photographs_per_second']:5.0f} photographs/s  {row['seconds']:6.1f} s{'  best' if improved else ''}"
    )
