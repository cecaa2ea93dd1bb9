"""All epochs of a run: train, validate, keep the best, and save how far it has come."""

import contextlib
import dataclasses
import datetime
import hashlib
import os
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from toolkit import augment, device, engine, files, metrics, optimization, processes, runs
from toolkit.checkpoint import State, save_weights
from toolkit.console import InputError, held, listed, say
from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.settings import TrainSettings

SAVING_IS_CHEAP = 20  # times as long as it takes: epochs that are shorter do not each save
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

    def digest(self) -> str:
        """A checksum over all of it but the pixels. Raises InputError where another process has another one."""
        digest = hashlib.sha256()
        for array in (self.paths, self.faces.labels.cpu().numpy(), self.train, self.validation):
            digest.update(repr(array.dtype).encode() + array.tobytes())
        found = processes.of_all(digest.hexdigest()[:16])
        if len(set(found)) > 1:
            raise InputError(f"expected the same photographs and labels in all processes, found {listed(set(found))}")
        return found[0]


def begin(run: runs.Run | None, identity: dict) -> State:
    """The state from which the run goes on, or a fresh one; the same in all processes. Says where it goes on."""
    state = run.state if run else None
    if state:
        say(f"run {run.folder.name} goes on from {where(state)}")
    elif run:
        state = State(identity, datetime.datetime.now(datetime.UTC).isoformat())
    others = processes.from_first(run and dataclasses.replace(state, tensors=state.without_best()))
    return state or others


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
        micro_batch_size=config.micro_batch_size,
        clip_grad=config.clip_grad,
        seed=config.seed,
    )


def fit(config: TrainSettings, net, criterion, data: Data, state: State, run: runs.Run | None, header: dict) -> dict:
    """Train from `state` on, validate after every epoch, and keep the best by macro F1: its row of history.csv.

    The files of the run are written by the process that has it; the other ones have None. Told to stop, it saves first.
    Raises InputError where loss or gradient are no longer finite, or where the memory does not do.
    """
    parts = engine.batches(data.train, config.batch_size)
    steps = config.epochs * len(parts)
    if min(map(len, parts)) < 2 * processes.count():
        raise InputError(
            f"BATCH_SIZE={config.batch_size}: expected 2 photographs a step for each of {processes.count()} processes, "
            f"found {min(map(len, parts))} in all; raise it, or start fewer"
        )
    recipe = make_recipe(config, criterion, steps)
    optimizer = optimization.build(config.optimizer, net, config.lr, config.weight_decay)
    keeper = Keeper(config, net, optimizer, data, state, run, header)
    keeper.restore()
    stepping = data.faces.machine.compiled(processes.parallel(net), config.compile, steps)
    labels = data.faces.labels[data.validation]
    # Without gradients four times as many fit; who lowers the batch for want of memory lowers this too.
    prediction_batch = min(
        4 * (recipe.micro_batch_size or recipe.batch_size), data.faces.machine.batch_for_prediction(config.size)
    )
    with keeper.saving_when_told_to_stop(), device.naming_what_saves_memory("MICRO_BATCH_SIZE, BATCH_SIZE or SIZE"):
        while not is_over(config, state):
            started = time.time()
            before = len(state.losses)
            train_loss, recipe = train_one_epoch(stepping, optimizer, recipe, data, keeper)
            trained = time.time()
            seen = engine.order(data.train, config.seed, state.epoch)
            engine.settle_batch_norm(net, data.faces, engine.batches(seen, config.batch_size)[:SETTLING_BATCHES])
            own = engine.predict(net, data.faces, processes.own(data.validation), prediction_batch)
            logits = processes.whole(own, len(data.validation))
            row = {
                "epoch": state.epoch + 1,
                "lr": recipe.learning_rate((state.epoch + 1) * len(parts) - 1),
                "train_loss": train_loss,
                **validation_scores(criterion, logits.to(labels.device), labels),
            }
            photographs = sum(map(len, parts[before:]))
            keeper.end_epoch(row, logits)
            say(epoch_line(row, config.epochs, photographs / (trained - started), time.time() - started, state.best))
    if state.epoch < config.epochs:
        say(f"stopped: no better macro F1 in {config.patience} epochs")
    return state.history[state.best - 1]


def is_over(config: TrainSettings, state: State) -> bool:
    patience_is_over = config.patience and state.epoch - state.best >= config.patience
    return state.epoch >= config.epochs or bool(state.epoch and patience_is_over)


def train_one_epoch(stepping, optimizer, recipe: engine.Recipe, data: Data, keeper: "Keeper"):
    """The mean loss of the epoch, and the recipe, with a smaller micro batch where the memory asked for it.

    Only before the first update: a run that has begun ends as it began.
    """
    while True:
        state = keeper.state
        try:
            losses = state.losses
            loss = engine.train_one_epoch(
                stepping, optimizer, recipe, data.faces, data.train, state.epoch, losses, keeper.after_step
            )
            return loss, recipe
        except RuntimeError as error:
            share = -(-recipe.batch_size // processes.count())
            smaller = -(-min(recipe.micro_batch_size or share, share) // 2)
            if not device.is_out_of_memory(error) or keeper.updated or processes.count() > 1 or smaller < 2:
                raise
        recipe = dataclasses.replace(recipe, micro_batch_size=smaller)
        say(
            f"note: out of memory; a step now takes its {recipe.batch_size} photographs {smaller} at a time: the loss "
            f"and its gradients stay those of the whole batch, batch norm sees {smaller}, and each step takes a third "
            f"longer; MICRO_BATCH_SIZE={smaller} says so from the start"
        )


class Keeper:
    """Keeps the state of a run, and its files, which are made of it."""

    def __init__(self, config: TrainSettings, net, optimizer, data: Data, state: State, run, header: dict):
        self.config, self.net, self.optimizer, self.data = config, net, optimizer, data
        self.state, self.run, self.header = state, run, header
        self.updated = False  # whether this process has changed the weights
        self.began, self.before = time.time(), state.seconds
        self.saved, self.cost = time.time(), 0.0  # when it was saved last, and how many seconds that took
        self.losses: torch.Tensor | None = None  # of this epoch's steps: read only when it is saved

    def restore(self) -> None:
        """Set net and optimizer to the state, and make the files anew: the process that was killed may not have."""
        state = self.state
        if not state.tensors:
            return
        self.net.load_state_dict(state.part("net"))
        optimization.load_state(self.optimizer, state.part("optimizer"))
        state.tensors = {
            name: value for name, value in state.tensors.items() if name.startswith(("best.", "validation"))
        }
        if self.run and state.best:
            self.publish(improved=True)

    def after_step(self, losses: torch.Tensor) -> None:
        """Note the losses of this epoch's steps so far; save, when it is time."""
        self.losses, self.updated = losses, True
        if time.time() - self.saved >= self.config.checkpoint_seconds:
            self.save()

    def end_epoch(self, row: dict, logits: torch.Tensor) -> None:
        """Take the row of history.csv and the logits of the validation photographs, save, and write the run's files."""
        state = self.state
        with held():
            state.history.append(row)
            improved = not state.best or row["macro_f1"] > state.history[state.best - 1]["macro_f1"]
            if improved:
                state.best = row["epoch"]
                best = {f"best.{name}": value.detach().cpu().clone() for name, value in self.net.state_dict().items()}
                state.tensors |= {**best, "validation": logits}
            state.epoch, state.losses, self.losses = state.epoch + 1, [], None
        since = time.time() - self.saved
        if since >= min(SAVING_IS_CHEAP * self.cost, self.config.checkpoint_seconds):
            self.save()
        if self.run:
            self.publish(improved)

    def save(self) -> None:
        """Write the state, if this process has the run and the weights still move."""
        state, began = self.state, time.time()
        if getattr(self.optimizer, "found_inf", None):  # on a GPU: the end of the epoch says which step was no number
            return
        if self.losses is not None:
            state.losses = self.losses.tolist()
        state.seconds = self.before + time.time() - self.began
        if self.run:
            state.tensors |= {f"net.{name}": value for name, value in self.net.state_dict().items()}
            state.tensors |= {f"optimizer.{name}": value for name, value in optimization.state(self.optimizer).items()}
            self.run.states.save(state)
        self.saved = time.time()
        self.cost = self.saved - began

    def publish(self, improved: bool) -> None:
        """Write the files that people read."""
        folder, history = self.run.folder, self.state.history
        if improved:
            header = {**self.header, "scores": history[self.state.best - 1]}
            save_weights(folder / runs.WEIGHTS, self.state.part("best"), header)
            files.write_csv(folder / "validation.csv", predictions(self.data, self.state.tensors["validation"]))
        files.write_csv(folder / "history.csv", {name: [row[name] for row in history] for name in history[0]})

    @contextlib.contextmanager
    def saving_when_told_to_stop(self):
        try:
            yield
        except KeyboardInterrupt:
            if self.updated:
                self.save()
                say(f"saved at {where(self.state)}; the same command goes on from there")
            raise


def where(state: State) -> str:
    return f"epoch {state.epoch + 1}, after {len(state.losses)} of its steps"


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


def epoch_line(row: dict, epochs: int, rate: float, seconds: float, best: int) -> str:
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.4f}  val_loss {row['val_loss']:.4f}  "
        f"accuracy {row['accuracy']:8.4%}  macro_f1 {row['macro_f1']:.4f}  mask {row['mask']:7.2%}  "
        f"gender {row['gender']:7.2%}  age {row['age']:7.2%}  lr {row['lr']:.2e}  "
        f"{rate:5.0f} photographs/s  {seconds:6.1f} s{'  best' if best == row['epoch'] else ''}"
    )
