"""All epochs of a run: train, validate, keep the best."""

import dataclasses
import datetime
import time
from functools import partial

import pandas as pd
import torch

from toolkit.config.settings import TrainSettings
from toolkit.data import augment
from toolkit.labels import ATTRIBUTES, CLASSES
from toolkit.runs import folders
from toolkit.runs.checkpoint import State
from toolkit.scoring import decision, metrics
from toolkit.scoring.decision import Decision
from toolkit.system import device, distributed, world
from toolkit.system.console import InputError, say
from toolkit.training import optimizer, step
from toolkit.training.checkpointer import Keeper
from toolkit.training.optimizer import Average, Learner, make_optimizer
from toolkit.training.task import Data

EMA_DECAY = 0.999  # at the most: it warms up
SETTLING_BATCHES = 16  # a forward pass of so many an epoch: enough for means and variances


def begin(run: folders.Run | None, identity: dict) -> State:
    """The state from which the run goes on, or a fresh one; the same in all processes. Says where it goes on."""
    state = run.state if run else None
    if state:
        say(f"run {run.folder.name} goes on from {state.where()}")
    elif run:
        state = State(identity, datetime.datetime.now(datetime.UTC).isoformat())
    others = distributed.broadcast(
        run and dataclasses.replace(state, tensors=state.only("net", "average", "optimizer"))
    )
    return state or others


def fit(config: TrainSettings, learner: Learner, criterion, data: Data, state: State, run: folders.Run | None) -> dict:
    """Train from `state` on, validate after every epoch, and keep the best by macro F1: its row of history.csv.

    The files of the run are written by the process that has it; the other ones have None. Told to stop, it saves first.
    Raises InputError where loss or gradient are no longer finite, or where the memory does not do.
    """
    parts = step.batches(data.train, config.batch_size)
    if min(map(len, parts)) < 2 * world.size():
        raise InputError(
            f"BATCH_SIZE={config.batch_size}: expected 2 photographs a step for each of {world.size()} "
            f"processes, "
            f"found {min(map(len, parts))} in all; raise it, or start fewer"
        )
    recipe = make_recipe(config, criterion, data, config.epochs * len(parts), state)
    keeper = Keeper(config, learner, data, state, run)
    keeper.restore()
    stepping = None
    with (
        keeper.saving_when_told_to_stop(),
        device.naming_what_saves_memory("MICRO_BATCH_SIZE, BATCH_SIZE or SIZE, with which a new run begins"),
    ):
        while not keeper.over:
            started, before = time.monotonic(), len(state.losses)
            if stepping is None or state.epoch == config.freeze_epochs:
                learner.freeze(state.epoch < config.freeze_epochs)
                machine, net = data.faces.machine, distributed.data_parallel(learner.net)
                stepping = machine.compiled(net, config.compile, config.epochs * len(parts))
            train_loss, recipe = train_one_epoch(stepping, learner, recipe, data, keeper)
            trained = time.monotonic()
            outputs = validate(learner.best, recipe, data, state.epoch)
            scores, decided = judge(config, criterion, outputs, data)
            rate = recipe.learning_rate((state.epoch + 1) * len(parts) - 1)
            row = {"epoch": state.epoch + 1, "lr": rate, "train_loss": train_loss, **scores}
            keeper.end_epoch(row, outputs, decided)
            per_second = sum(map(len, parts[before:])) / (trained - started)
            say(epoch_line(row, config.epochs, per_second, time.monotonic() - started, state.best))
    keeper.close()
    if state.epoch < config.epochs:
        say(f"stopped: no better macro F1 in {config.patience} epochs")
    return state.history[state.best - 1]


def make_learner(config: TrainSettings, net, head: list) -> Learner:
    optimizer = make_optimizer(config.optimizer, net, config.lr, config.weight_decay, head, config.backbone_lr)
    return Learner(net, head, optimizer, Average(net, EMA_DECAY) if config.ema else None)


def make_recipe(config: TrainSettings, criterion, data: Data, steps: int, state: State) -> step.Recipe:
    """What a step does in a run of so many `steps`."""
    return step.Recipe(
        criterion=criterion,
        learning_rate=partial(
            optimizer.learning_rate,
            steps=steps,
            highest=config.lr,
            warmup=config.warmup,
            schedule=config.schedule,
            frozen=config.freeze_epochs * steps // config.epochs,
        ),
        policy=augment.POLICIES[config.augment],
        batch_size=config.batch_size,
        clip_grad=config.clip_grad,
        seed=config.seed,
        micro_batch_size=state.micro_batch_size or config.micro_batch_size,
        mix=config.mix,
        chances=data.chances,
    )


def train_one_epoch(stepping, learner: Learner, recipe: step.Recipe, data: Data, keeper: Keeper):
    """The mean loss of the epoch, and the recipe, with a smaller micro batch where the memory asked for it.

    That is before the first step only, or before the first with all weights: a run that has begun ends as it began.
    """
    state, optimizer = keeper.state, learner.optimizer
    may_begin = state.steps in ((0, 0), (keeper.config.freeze_epochs, 0))
    known = len(optimizer.state)
    steps = len(step.batches(data.train, recipe.batch_size))

    def after_step(losses: torch.Tensor) -> None:
        if learner.average:
            learner.average.update(learner.net, state.epoch * steps + len(losses) - 1)
        keeper.after_step(losses)

    while True:
        try:
            loss = step.train_one_epoch(
                stepping, optimizer, recipe, data.faces, data.train, state.epoch, state.losses, after_step
            )
            return loss, recipe
        except RuntimeError as error:
            smaller = -(-(recipe.micro_batch_size or recipe.batch_size) // 2)
            begun = len(optimizer.state) > known  # it may be the optimizer itself, half way through a step
            if not device.is_out_of_memory(error) or not may_begin or begun or world.size() > 1 or smaller < 2:
                raise
        state.micro_batch_size = smaller
        recipe = dataclasses.replace(recipe, micro_batch_size=smaller)
        say(
            f"note: out of memory; a step now takes its {recipe.batch_size} photographs {smaller} at a time: the loss "
            f"and its gradients stay those of the whole batch, batch norm sees {smaller}, and each step takes a third "
            f"longer; MICRO_BATCH_SIZE={smaller} says so from the start"
        )


def validate(net, recipe: step.Recipe, data: Data, epoch: int) -> torch.Tensor:
    """Logits of the validation photographs, of all processes: float32, shape (n, classes), on the CPU.

    Before it, batch norm is settled on the first batches of the epoch, in the pieces in which the net trains.
    """
    order = step.order(data.train, recipe.seed, epoch, recipe.chances)
    seen = step.batches(order, recipe.batch_size)[:SETTLING_BATCHES]
    pieces = [piece for part in seen for piece in step.pieces(part, recipe.micro_batch_size)]
    step.settle_batch_norm(net, data.faces, pieces)
    # Without gradients four times as many fit; who lowers the batch for want of memory lowers this too.
    most = min(4 * max(map(len, pieces)), data.faces.machine.batch_for_prediction(data.faces.store.size))
    # Which calls are close is told by the decision that is likely: the one that will be taken comes of these logits.
    offset = torch.from_numpy(Decision(1.0, decision.USUAL, data.prior).offset()).float()
    own = step.predict(net, data.faces, distributed.shard(data.validation), most, offset)
    return distributed.all_gather_rows(own, len(data.validation))


def judge(config: TrainSettings, criterion, outputs: torch.Tensor, data: Data) -> tuple[dict, Decision]:
    """The scores of all validation photographs at once, and the decision that is best for them."""
    labels, logits = data.faces.labels[data.validation], outputs[:, :CLASSES].double().numpy()
    people = pd.factorize(data.people.iloc[data.validation])[0]
    decided = decision.fit(logits, labels.cpu().numpy(), people, data.prior, config.logit_adjustment)
    if config.head == "factored":
        decided = dataclasses.replace(decided, years=data.year_shares)
    val_loss = criterion(outputs.to(labels.device), labels).item()
    return {"val_loss": val_loss, **metrics.headline(labels.cpu(), decided.classes(logits))}, decided


def epoch_line(row: dict, epochs: int, rate: float, seconds: float, best: int) -> str:
    attributes = "  ".join(f"{name} {row[name]:7.2%}" for name in ATTRIBUTES)
    return (
        f"epoch {row['epoch']:3}/{epochs}  loss {row['train_loss']:.4f}  val_loss {row['val_loss']:.4f}  "
        f"accuracy {row['accuracy']:8.4%}  macro_f1 {row['macro_f1']:.4f}  {attributes}  lr {row['lr']:.2e}  "
        f"{rate:5.0f} photographs/s  {seconds:6.1f} s{'  best' if best == row['epoch'] else ''}"
    )
