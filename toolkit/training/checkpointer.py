"""Saves a run while it trains: the checkpoint that it goes on from, and the files in its folder."""

import contextlib
import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from toolkit.labels import CLASSES
from toolkit.runs import artefacts
from toolkit.runs.artefacts import Validation
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.folders import Run
from toolkit.runs.weights import Header
from toolkit.scoring import metrics
from toolkit.scoring.decision import Decision
from toolkit.system import distributed
from toolkit.system.console import InputError, listed, say
from toolkit.system.signals import defer_signals
from toolkit.training.train_state import TrainState

SAVE_IS_CHEAP = 20  # a save at an epoch's end waits 20 times as long as a save takes: 5 % of the time at most


@dataclass(frozen=True)
class Result:
    """The result of a run."""

    history: list[dict]  # a row an epoch
    kept: dict  # the kept epoch's row
    decision: Decision  # of the kept epoch
    logits: np.ndarray  # of the kept epoch, of the validation photographs: float64, shape (n, 18); n may be 0
    weights: dict[str, torch.Tensor]  # of the kept epoch
    started: str  # ISO 8601, UTC
    seconds: float


def best_epoch(history: list[dict]) -> int:
    """The first epoch with the highest macro F1, or the last one of a run without validation people; 0 for []."""
    return max(history, key=lambda row: row.get("macro_f1", row["epoch"]), default={"epoch": 0})["epoch"]


class Checkpointer:
    """Rank 0 has the run and writes files; other ranks have no run, and only track progress.

    `checkpoint` says how far the run has come.
    """

    def __init__(
        self, run: Run | None, fingerprint: dict, header: Header, validation: Validation, every_seconds: float
    ):
        """Begins with the checkpoint of the run or a fresh one, the same in all processes. Prints where it goes on."""
        self.run, self.header, self.validation, self.every_seconds = run, header, validation, every_seconds
        self.checkpoint = self._begin(fingerprint)
        self._train_state: TrainState | None = None
        self._losses: torch.Tensor | None = None  # of this epoch's steps: read from the device only to be saved
        self._seconds_before, self._began = self.checkpoint.seconds, time.monotonic()
        self._saved, self._saved_at, self._save_seconds = self.checkpoint.steps, self._began, 0.0

    def _begin(self, fingerprint: dict) -> Checkpoint:
        checkpoint = self.run.checkpoint if self.run else None
        if checkpoint:
            say(f"run {self.run.folder.name} goes on from {checkpoint.where()}")
        elif self.run:
            checkpoint = Checkpoint(fingerprint, datetime.datetime.now(datetime.UTC).isoformat())
        # Other ranks write no files, so they need neither kept.* nor validation.
        sent = distributed.broadcast(
            checkpoint and replace(checkpoint, tensors=checkpoint.parts("model", "ema", "optimizer", "best_classes"))
        )
        return checkpoint or sent

    def restore(self, train_state: TrainState) -> None:
        """Load the checkpoint into `train_state`, and write the run's files: a killed process may not have."""
        self._train_state, checkpoint = train_state, self.checkpoint
        if checkpoint.tensors:
            self._refuse_other_tensors()
            try:
                train_state.load(checkpoint.part)
            except (ValueError, IndexError) as error:
                self._refuse_state(f"others of the optimizer: {error}")
            checkpoint.tensors = checkpoint.parts("kept", "validation", "best_classes")
            if self.run and checkpoint.kept_epoch:
                self._write_files(is_kept=True)

    def _refuse_other_tensors(self) -> None:
        """Raises InputError unless the checkpoint has the tensors and predictions of this net, in their shapes."""
        found, own = self.checkpoint, self._train_state
        rows = len(self.validation.labels)
        expected = {name: value.shape for name, value in own.tensors().items() if not name.startswith("optimizer.")}
        if self.run and found.kept_epoch:
            expected |= {f"kept.{name}": value.shape for name, value in own.eval_model.state_dict().items()}
            expected |= {"validation": (rows, CLASSES), "best_classes": (rows,)}
        tensors = {name: found.tensors[name].shape for name in expected if name in found.tensors}
        if wrong := [name for name in expected if tensors.get(name) != expected[name]]:
            self._refuse_state(f"others: {listed(wrong)}")

    def _refuse_state(self, found: str) -> None:
        raise InputError(
            f"the saved state of run {self.header.run}, {self.checkpoint.where()}: expected the tensors of this net, "
            f"found {found}; RESUME=never begins a new run"
        )

    def after_step(self, losses: torch.Tensor) -> None:
        """Take the losses of this epoch's steps so far; save if it is time."""
        self._losses = losses
        if time.monotonic() - self._saved_at >= self.every_seconds:
            self.save()

    def end_epoch(self, row: dict, outputs: torch.Tensor, decision: Decision, is_last: bool) -> None:
        """Take the epoch's row of history.csv, outputs of the validation photographs and decision; write the files.

        The latest epoch that is as good as the best (metrics.is_as_good) is kept: on few people, the highest macro F1
        is partly luck, and of equal epochs the later weights are better. Saves if the last save is long enough ago.
        """
        checkpoint, validation = self.checkpoint, self.validation
        classes = decision.classes(outputs[:, :CLASSES].double().numpy())
        is_best = best_epoch([*checkpoint.history, row]) == row["epoch"]
        best_classes = classes if is_best else checkpoint.tensors["best_classes"].numpy()
        is_kept = is_best or metrics.is_as_good(validation.labels, classes, best_classes, validation.people)
        with defer_signals():  # a checkpoint never holds half an epoch's end
            checkpoint.history.append(row)
            checkpoint.tensors["best_classes"] = torch.from_numpy(best_classes)
            if is_kept:
                checkpoint.kept_epoch, checkpoint.decision = row["epoch"], decision.as_plain()
                weights = self._train_state.eval_model.state_dict()
                kept = {f"kept.{name}": value.detach().cpu().clone() for name, value in weights.items()}
                checkpoint.tensors |= {**kept, "validation": outputs[:, :CLASSES].contiguous()}
            checkpoint.epoch, checkpoint.losses, self._losses = checkpoint.epoch + 1, [], None
            checkpoint.seconds = self._seconds_before + time.monotonic() - self._began
        worth_it = min(SAVE_IS_CHEAP * self._save_seconds, self.every_seconds)
        # Once the last epoch is done only the report is to come. But without any state, the run would not be continued.
        may_end_here = is_last and self._saved != (0, 0)
        if not may_end_here and time.monotonic() - self._saved_at >= worth_it:
            self.save()
        if self.run:
            self._write_files(is_kept)

    def save(self) -> bool:
        """Write the checkpoint if anything has changed. Returns whether the disk has all steps that are done."""
        checkpoint, began = self.checkpoint, time.monotonic()
        # On a GPU, a step that is not finite is found only at the end of the epoch: nothing after it may be saved.
        if getattr(self._train_state.optimizer, "found_inf", None):
            return False
        if self._losses is not None:
            checkpoint.losses = self._losses.tolist()
        if self.run and checkpoint.steps != self._saved:
            checkpoint.seconds = self._seconds_before + began - self._began
            checkpoint.tensors |= self._train_state.tensors()
            self.run.checkpoints.save(checkpoint)
        self._saved, self._saved_at = checkpoint.steps, time.monotonic()
        self._save_seconds = self._saved_at - began
        return True

    @contextlib.contextmanager
    def saving_on_stop(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM in the block: save, say so, and stop."""
        try:
            yield
        except KeyboardInterrupt:
            if self.save() and self.checkpoint.steps != (0, 0):
                say(f"saved at {self.checkpoint.where()}; the same command goes on from there")
            raise

    def result(self) -> Result:
        """The result so far. Only for rank 0, after one epoch or more."""
        checkpoint = self.checkpoint
        return Result(
            history=checkpoint.history,
            kept=self._kept,
            decision=Decision.from_plain(checkpoint.decision),
            logits=self._logits,
            weights=checkpoint.part("kept"),
            started=checkpoint.started,
            seconds=checkpoint.seconds,
        )

    @property
    def _kept(self) -> dict:
        return self.checkpoint.history[self.checkpoint.kept_epoch - 1]

    @property
    def _logits(self) -> np.ndarray:
        return self.checkpoint.tensors["validation"].double().numpy()

    def _write_files(self, is_kept: bool) -> None:
        checkpoint, folder = self.checkpoint, self.run.folder
        if is_kept:
            header = replace(self.header, scores=self._kept, decision=Decision.from_plain(checkpoint.decision))
            artefacts.write_kept_epoch(folder, header, checkpoint.part("kept"), self.validation, self._logits)
        artefacts.write_history(folder, checkpoint.history)
