"""All epochs of a run: train, evaluate, keep one."""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from toolkit.config.settings import TrainSettings
from toolkit.data import augment
from toolkit.data.loader import split_into_batches
from toolkit.labels import ATTRIBUTES, CLASSES
from toolkit.models import placement
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.models.predict import predict_quickly, recompute_close_calls
from toolkit.scoring import metrics
from toolkit.scoring.decision import Decision, fit_decision
from toolkit.system import device, distributed, world
from toolkit.system.console import InputError, say
from toolkit.training.checkpointer import Checkpointer, Result, best_epoch
from toolkit.training.optimizer import learning_rate, make_optimizer
from toolkit.training.sampler import epoch_order, split_into_microbatches
from toolkit.training.step import Recipe, train_one_epoch
from toolkit.training.task import Task
from toolkit.training.train_state import EMA, TrainState

EMA_DECAY = 0.999  # at most: it warms up
BATCHES_FOR_STATISTICS = 16  # of batch norm: a forward pass of so many is enough for means and variances


def train(
    config: TrainSettings,
    model: nn.Module,
    task: Task,
    checkpointer: Checkpointer,
    on_epoch: Callable[[dict], None] = lambda row: None,
) -> Result | None:
    """Train the model and evaluate it until all epochs are done or patience ends.

    Returns the result on rank 0, None on others. `on_epoch` gets each new row of history.csv, on rank 0. A signal stops
    it after it has saved. Raises InputError if a loss or gradient is not finite, or if memory does not suffice.
    """
    batches = split_into_batches(task.train, config.batch_size)
    _refuse_small_batches(config.batch_size, batches)
    so_far = checkpointer.checkpoint
    recipe = make_recipe(config, len(batches), so_far.micro_batch_size)
    state = make_train_state(config, model)
    checkpointer.restore(state)
    with (
        checkpointer.saving_on_stop(),
        device.out_of_memory_advice("MICRO_BATCH_SIZE, BATCH_SIZE or SIZE, with which a new run begins"),
    ):
        train_model = distributed.data_parallel(state.model)
        train_model = placement.compiled(train_model, task.loader.machine, config.compile, config.epochs * len(batches))
        while not _is_over(config, so_far.history):
            epoch, started, done = so_far.epoch, time.monotonic(), len(so_far.losses)
            train_loss, recipe = _train_within_memory(train_model, state, task, recipe, checkpointer)
            trained = time.monotonic()
            evaluation = evaluate(state.eval_model, task, recipe, epoch, config.logit_adjustment)
            last_rate = recipe.learning_rate((epoch + 1) * len(batches) - 1)
            row = {"epoch": epoch + 1, "lr": last_rate, "train_loss": train_loss, **evaluation.scores}
            is_last = _is_over(config, [*so_far.history, row])
            checkpointer.end_epoch(row, evaluation.outputs, evaluation.decision, is_last)
            per_second = sum(map(len, batches[done:])) / (trained - started)
            say(_epoch_line(row, config.epochs, per_second, time.monotonic() - started, so_far.kept_epoch))
            if world.rank() == 0:
                on_epoch(dict(row))
    if so_far.epoch < config.epochs:
        say(f"stopped: no better macro F1 in {config.patience} epochs")
    return checkpointer.result() if world.rank() == 0 else None


def make_train_state(config: TrainSettings, model: nn.Module) -> TrainState:
    optimizer = make_optimizer(config.optimizer, model, config.lr, config.weight_decay)
    return TrainState(model, optimizer, EMA(model, EMA_DECAY) if config.ema else None)


def make_recipe(config: TrainSettings, steps_per_epoch: int, micro_batch_size: int | None = None) -> Recipe:
    """How a run with these settings trains. `micro_batch_size` overrides them after a run has run out of memory."""
    return Recipe(
        learning_rate=partial(
            learning_rate,
            steps=config.epochs * steps_per_epoch,
            highest=config.lr,
            warmup=config.warmup,
            schedule=config.schedule,
        ),
        batch_size=config.batch_size,
        clip_grad=config.clip_grad,
        seed=config.seed,
        policy=augment.POLICIES[config.augment],
        mix=config.mix,
        micro_batch_size=micro_batch_size or config.micro_batch_size,
    )


def _refuse_small_batches(batch_size: int, batches: list) -> None:
    smallest = min(map(len, batches))
    if smallest < 2 * world.size():
        raise InputError(
            f"BATCH_SIZE={batch_size}: expected 2 photographs a step for each of {world.size()} processes, "
            f"found {smallest} in all; raise it, or start fewer processes"
        )


def _is_over(config: TrainSettings, history: list[dict]) -> bool:
    """Whether all epochs are done, or PATIENCE epochs brought no better macro F1."""
    without_better = len(history) - best_epoch(history)
    return len(history) >= config.epochs or bool(history and config.patience and without_better >= config.patience)


def _train_within_memory(
    train_model: nn.Module, state: TrainState, task: Task, recipe: Recipe, checkpointer: Checkpointer
) -> tuple[float, Recipe]:
    """The mean loss of the epoch, and the recipe, with a smaller microbatch if memory ran out.

    Microbatches get smaller only before the first step: batch norm sees each microbatch alone, so a run that has begun
    must end as it began.
    """
    so_far, optimizer = checkpointer.checkpoint, state.optimizer
    epoch = so_far.epoch
    steps_per_epoch = len(split_into_batches(task.train, recipe.batch_size))

    def after_step(losses: torch.Tensor) -> None:
        if state.ema:
            state.ema.update(state.model, epoch * steps_per_epoch + len(losses) - 1)
        checkpointer.after_step(losses)

    while True:
        try:
            loss = train_one_epoch(train_model, optimizer, task, recipe, epoch, so_far.losses, after_step)
            return loss, recipe
        except RuntimeError as error:
            smaller = math.ceil((recipe.micro_batch_size or recipe.batch_size) / 2)
            # It may have been the optimizer itself that ran out of memory, half way through the first step.
            begun = epoch or len(so_far.losses) or len(optimizer.state)
            if not device.is_out_of_memory(error) or begun or world.size() > 1 or smaller < 2:
                raise
        so_far.micro_batch_size = smaller
        recipe = dataclasses.replace(recipe, micro_batch_size=smaller)
        say(
            f"note: out of memory; a step now takes its {recipe.batch_size} photographs {smaller} at a time: the loss "
            f"and its gradients stay those of the whole batch, batch norm sees {smaller}, and each step takes a third "
            f"longer; MICRO_BATCH_SIZE={smaller} does so from the start"
        )


class Evaluation(NamedTuple):
    outputs: torch.Tensor  # of the validation photographs: float32, shape (n, 18 or more), on the CPU
    scores: dict  # the columns of history.csv that are of validation; empty without such photographs
    decision: Decision


def evaluate(model: nn.Module, task: Task, recipe: Recipe, epoch: int, tau: float) -> Evaluation:
    """Outputs, scores and decision on all validation photographs, of which each process predicts a shard.

    First the statistics of batch norm are recomputed on the first batches of the epoch, in microbatches as in training.
    """
    order = epoch_order(task.train, recipe.seed, epoch, task.sampling_weights)
    batches = split_into_batches(order, recipe.batch_size)[:BATCHES_FOR_STATISTICS]
    microbatches = [one for batch in batches for one in split_into_microbatches(batch, recipe.micro_batch_size)]
    recompute_batch_norm_statistics(model, task.loader, microbatches)
    if task.decision:  # there are no validation photographs
        return Evaluation(torch.empty(0, CLASSES), {}, task.decision)
    # Prediction keeps no activations for gradients, so four times a training microbatch fits into memory.
    loader, rows, count = task.loader, distributed.shard(task.validation), len(task.validation)
    batch_size = min(4 * max(map(len, microbatches)), loader.machine.prediction_batch_size(loader.store.size))
    exact, own = predict_quickly(model, loader, rows, batch_size)
    outputs = distributed.all_gather_rows(own, count)
    _refuse_diverged(outputs.isfinite().all(1), "logits", recipe, epoch)
    decision = fit(outputs, task, tau)
    # With this decision, as in inference.py: which calls are close depends on it.
    own = recompute_close_calls(exact, loader, rows, batch_size, own, decision.adjusted)
    evaluation = score(distributed.all_gather_rows(own, count), task, decision)
    _refuse_diverged(torch.tensor([math.isfinite(evaluation.scores["val_loss"])]), "losses", recipe, epoch)
    return evaluation


def _refuse_diverged(is_finite: torch.Tensor, what: str, recipe: Recipe, epoch: int) -> None:
    """Raises InputError unless is_finite (bool, shape (n,)) is all true. The steps of training were finite."""
    if not is_finite.all():
        raise InputError(
            f"epoch {epoch + 1}: expected finite {what} of the validation photographs, found others in "
            f"{int((~is_finite).sum())} of {len(is_finite)}: training has diverged; the same command ends here again; "
            f"lower LR (the highest was {recipe.learning_rate.keywords['highest']:.3g}), or leave CLIP_GRAD at 1"
        )


def fit(outputs: torch.Tensor, task: Task, tau: float) -> Decision:
    """The decision, fitted on the outputs of all validation photographs."""
    labels, people = task.labels[task.validation].cpu().numpy(), pd.factorize(task.people.iloc[task.validation])[0]
    decision = fit_decision(outputs[:, :CLASSES].double().numpy(), labels, people, task.prior_correction, tau)
    return dataclasses.replace(decision, year_priors=task.year_priors)


def score(outputs: torch.Tensor, task: Task, decision: Decision) -> Evaluation:
    """Outputs of all validation photographs, with their scores by this decision."""
    labels, logits = task.labels[task.validation], outputs[:, :CLASSES].double().numpy()
    with torch.no_grad():  # a copy: a loss may write into its logits, which inference mode forbids
        val_loss = task.criterion(outputs.to(labels.device).clone(), labels).item()
    scores = metrics.headline_scores(labels.cpu(), decision.classes(logits))
    return Evaluation(outputs, {"val_loss": val_loss, **scores}, decision)


def _epoch_line(row: dict, epochs: int, per_second: float, seconds: float, kept_epoch: int) -> str:
    scores = ""
    if "macro_f1" in row:
        attributes = "  ".join(f"{name} {row[name]:7.2%}" for name in ATTRIBUTES)
        scores = (
            f"val_loss {row['val_loss']:.4f}  accuracy {row['accuracy']:8.4%}  macro_f1 {row['macro_f1']:.4f}  "
            f"{attributes}  "
        )
    left = tqdm.format_interval(seconds * (epochs - row["epoch"]))
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.4f}  {scores}lr {row['lr']:.2e}  "
        f"{per_second:5.0f} photographs/s  {seconds:6.1f} s, {left} left"
        f"{'  kept' if scores and kept_epoch == row['epoch'] else ''}"
    )
