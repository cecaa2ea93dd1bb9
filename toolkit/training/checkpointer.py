"""Keeps a run: its state, so that it can go on whenever it ends, and the files that people read, made of the state."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from toolkit.labels import CLASSES, PROBABILITY_COLUMNS
from toolkit.runs import folders
from toolkit.runs.checkpoint import State, save_weights
from toolkit.runs.tensorboard import Board
from toolkit.scoring import calibration
from toolkit.scoring.decision import Decision
from toolkit.system import files
from toolkit.system.console import say
from toolkit.system.signals import defer_signals

if TYPE_CHECKING:
    from toolkit.config.settings import TrainSettings
    from toolkit.training.optimizer import Learner
    from toolkit.training.task import Data

SAVING_IS_CHEAP = 20  # times as long as it takes: epochs that are shorter do not each save


class Keeper:
    """Of the process that has the run; without a run it keeps count and writes nothing."""

    def __init__(self, config: TrainSettings, learner: Learner, data: Data, state: State, run: folders.Run | None):
        self.config, self.learner, self.data, self.state, self.run = config, learner, data, state, run
        self.board = Board(run.folder / folders.BOARD) if run and config.tensorboard else None
        self.losses: torch.Tensor | None = None  # of the steps of this epoch: read only when they are saved
        self.before, self.began = state.seconds, time.monotonic()
        self.saved, self.saved_at, self.cost = state.steps, self.began, 0.0  # the last save: what, when, for how long

    def restore(self) -> None:
        """Set the learner to the state, and make the files anew: the process that was killed may not have."""
        state = self.state
        if not state.tensors:
            return
        self.learner.load(state.part)
        state.tensors = state.only("best", "validation")
        if self.run and state.best:
            self.publish(improved=True)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or patience is over."""
        epoch, patience = self.state.epoch, self.config.patience
        return epoch >= self.config.epochs or bool(epoch and patience and epoch - self.state.best >= patience)

    def close(self) -> None:
        """All epochs are done."""
        if self.board:
            self.board.close()

    def after_step(self, losses: torch.Tensor) -> None:
        """Note the losses of this epoch's steps so far; save, when it is time."""
        self.losses = losses
        if time.monotonic() - self.saved_at >= self.config.checkpoint_seconds:
            self.save()

    def end_epoch(self, row: dict, outputs: torch.Tensor, decision: Decision) -> None:
        """Take the row of history.csv, what the net says of the validation photographs and what is decided from it.

        Saves, and writes the run's files.
        """
        state = self.state
        with defer_signals():
            state.history.append(row)
            improved = not state.best or row["macro_f1"] > state.history[state.best - 1]["macro_f1"]
            if improved:
                state.best, state.decision = row["epoch"], decision.as_header()
                weights = self.learner.best.state_dict()
                best = {f"best.{name}": value.detach().cpu().clone() for name, value in weights.items()}
                state.tensors |= {**best, "validation": outputs[:, :CLASSES].contiguous()}
            state.epoch, state.losses, self.losses = state.epoch + 1, [], None
            state.seconds = self.before + time.monotonic() - self.began
        worth = min(SAVING_IS_CHEAP * self.cost, self.config.checkpoint_seconds)
        if not self.over and time.monotonic() - self.saved_at >= worth:
            self.save()
        if self.run:
            self.publish(improved)

    def save(self) -> bool:
        """Write the state, if this process has the run and the weights still move; whether the disk has it."""
        state, began = self.state, time.monotonic()
        # On a GPU: the end of the epoch says which step was no number.
        if getattr(self.learner.optimizer, "found_inf", None):
            return False
        if self.losses is not None:
            state.losses = self.losses.tolist()
        if self.run and state.steps != self.saved:
            state.seconds = self.before + began - self.began
            state.tensors |= self.learner.tensors()
            self.run.states.save(state)
        self.saved, self.saved_at = state.steps, time.monotonic()
        self.cost = self.saved_at - began
        return True

    @contextlib.contextmanager
    def saving_when_told_to_stop(self):
        try:
            yield
        except KeyboardInterrupt:
            if self.save() and self.state.steps != (0, 0):
                say(f"saved at {self.state.where()}; the same command goes on from there")
            raise

    def publish(self, improved: bool) -> None:
        """Write the files that people read."""
        folder, state = self.run.folder, self.state
        history = state.history
        if improved:
            decision, logits = Decision.of_header(state.decision), state.tensors["validation"].double().numpy()
            header = {**self.run.header, "scores": history[state.best - 1], "decision": state.decision}
            save_weights(folder / folders.WEIGHTS, state.part("best"), header)
            files.write_csv(folder / "validation.csv", predictions(self.data, logits, decision))
            labels = self.data.faces.labels[self.data.validation].cpu().numpy()
            files.write_json(folder / "calibration.json", calibration_report(decision, logits, labels))
        files.write_csv(folder / "history.csv", {name: [row[name] for row in history] for name in history[0]})
        if self.board:
            self.board.show(history)


def predictions(data: Data, logits: np.ndarray, decision: Decision) -> dict:
    """The columns of validation.csv: path, person, label, prediction and the probability of each class."""
    rows = data.validation
    return {
        "path": [os.fsdecode(path) for path in data.paths[rows]],
        "person": data.people.iloc[rows],
        "label": data.faces.labels[rows].cpu(),
        "predicted": decision.classes(logits),
        **dict(zip(PROBABILITY_COLUMNS, decision.probabilities(logits).T.round(6), strict=True)),
    }


def calibration_report(decision: Decision, logits: np.ndarray, labels: np.ndarray) -> dict:
    """Likelihood loss and calibration error on the validation photographs, without the temperature and with it."""
    sides = {
        "before": replace(decision, temperature=1.0).probabilities(logits),
        "after": decision.probabilities(logits),
    }
    return {
        **decision.as_header(),
        **{
            side: {
                "likelihood_loss": calibration.likelihood_loss(p, labels),
                "calibration_error": calibration.calibration_error(p, labels),
            }
            for side, p in sides.items()
        },
    }
