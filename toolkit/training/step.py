"""One epoch of training, step by step.

Python waits for the device as rarely as possible: losses, gradient norms and the check for finite numbers stay on the
device, and the pixels of the next batch are gathered while it works.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from toolkit.data import augment
from toolkit.data.loader import split_into_batches
from toolkit.models.batch_norm import train_mode
from toolkit.system import distributed, world
from toolkit.system.console import InputError, bar, listed
from toolkit.system.device import Machine
from toolkit.system.signals import defer_signals
from toolkit.training.sampler import epoch_order, split_into_microbatches
from toolkit.training.task import Task


@dataclass(frozen=True)
class Recipe:
    """How a run trains."""

    learning_rate: Callable[[int], float]  # of a step, counted from 0 over the whole run
    batch_size: int  # of all processes together
    clip_grad: float  # longest gradient, by its 2-norm; 0 is off
    seed: int
    policy: augment.Policy = augment.POLICIES["none"]
    mix: str = "none"  # "mixup" and "cutmix" need targets that are shares of classes
    micro_batch_size: int | None = None  # photographs that a process takes at once; None is its whole shard


class EpochInputs:
    """The photographs of an epoch in their order, augmented and mixed, with their targets."""

    def __init__(self, task: Task, seed: int, epoch: int, policy: augment.Policy, mix: str):
        count, device = len(task.train), task.loader.machine.device
        self.loader, self.policy, self.mix = task.loader, policy, mix
        self.order = epoch_order(task.train, seed, epoch, task.sampling_weights)
        self.draws = augment.draw(seed, epoch, count)
        self.targets = task.targets.index_select(0, torch.from_numpy(self.order).to(device))
        self.permutation, self.lam = None, None
        if mix != "none":  # each photograph is mixed with the one at its position in a permutation of the epoch
            self.permutation = np.random.default_rng([seed, epoch, augment.PERMUTATION_STREAM]).permutation(count)
            self.lam = augment.draw_lam(mix, seed, epoch, count).to(device)
            others = self.targets[torch.from_numpy(self.permutation).to(device)]
            self.targets = torch.lerp(others, self.targets, self.lam[:, None])

    def load(self, batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """The model's input for each batch of positions in `order`: float32, shape (b, 3, height, width)."""
        if self.permutation is None:
            yield from self._load(batches)
            return
        pairs = self._load([np.concatenate([batch, self.permutation[batch]]) for batch in batches])
        positions = torch.from_numpy(np.concatenate(batches)).to(self.lam.device)
        lam = self.lam[positions].split([len(batch) for batch in batches])
        for pixels, lam_of_batch in zip(pairs, lam, strict=True):
            yield augment.mix(self.mix, *pixels.chunk(2), lam_of_batch)

    def _load(self, batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        draws = self.draws[np.concatenate(batches)]
        return self.loader.load([self.order[batch] for batch in batches], self.policy, draws)


def train_one_epoch(
    train_model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    recipe: Recipe,
    epoch: int,
    losses: Sequence[float] = (),
    after_step: Callable[[torch.Tensor], None] = lambda losses: None,
) -> float:
    """Train on the task's photographs once. Returns the mean loss over them.

    Epochs count from 0. `losses` are those of the steps that are done, if training goes on within an epoch;
    `after_step` gets those of all steps so far: float32, shape (steps,), on the device. Each process takes its shard of
    every batch. Raises InputError if a loss or gradient is not finite, before the weights have taken that step.
    """
    train_mode(train_model)
    machine = task.loader.machine
    inputs_of_epoch = EpochInputs(task, recipe.seed, epoch, recipe.policy, recipe.mix)
    batches = split_into_batches(np.arange(len(task.train)), recipe.batch_size)  # of positions in the epoch's order
    first = len(losses)
    losses = torch.tensor([*losses, *[0.0] * (len(batches) - first)], device=machine.device)
    gradient_norms, weights = torch.zeros_like(losses), list(train_model.parameters())
    microbatches = [split_into_microbatches(batch, recipe.micro_batch_size) for batch in batches[first:]]
    inputs = inputs_of_epoch.load([microbatch for batch in microbatches for microbatch in batch])
    targets = inputs_of_epoch.targets.split([len(batch) for batch in batches])
    # To read `found_inf` at every step, Python would have to wait for the GPU. Instead the fused optimizer reads it
    # there (as for GradScaler), and skips this step and all later ones. Python reads it at the end of the epoch.
    found_inf = torch.zeros((), device=machine.device)
    skips_alone = machine.is_async and bool(optimizer.defaults.get("fused"))
    optimizer.found_inf = found_inf if skips_alone else None
    steps = range(first, len(batches))
    for number, own in bar(zip(steps, microbatches, strict=True), f"epoch {epoch + 1}", len(steps)):
        with defer_signals():  # a checkpoint holds whole steps only
            step = epoch * len(batches) + number
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step)
            optimizer.zero_grad(set_to_none=True)
            batch = [next(inputs) for _ in own]
            loss = _backward(train_model, task, machine, batch, targets[number], (recipe.seed, step))
            norm = nn.utils.clip_grad_norm_(weights, recipe.clip_grad or math.inf)
            losses[number], gradient_norms[number], both = loss, norm, loss + norm
            found_inf.logical_or_(both - both != 0)  # both - both is 0 or NaN; isfinite() takes four kernels
            if not skips_alone and found_inf:
                break
            optimizer.step()
            after_step(losses[: number + 1])
    if found_inf:
        photographs = [inputs_of_epoch.order[batch] for batch in batches]
        _refuse_step(losses, gradient_norms, photographs, recipe, task, epoch)
    # In float64, and weighted by batch size: sizes differ by one.
    return float(losses.cpu().double().numpy() @ [len(batch) for batch in batches]) / len(task.train)


def _backward(
    train_model: nn.Module,
    task: Task,
    machine: Machine,
    batch: list[torch.Tensor],
    targets: torch.Tensor,
    seed_and_step: tuple[int, int],
) -> torch.Tensor:
    """The loss of a whole batch, and its gradients.

    `batch` has the inputs of this process's shard, in one microbatch or more; `targets` are those of the whole batch of
    all processes. The loss sees all logits at once, so that it may be any function of them (soft F1, say). With more
    than one microbatch, each passes through the model twice: first for its logits, then to propagate the gradient of
    the loss by them (Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021).
    """
    seed, step = seed_and_step

    def logits_of(number: int) -> torch.Tensor:
        # Dropout must draw the same in both passes, and in a run that goes on: it is seeded by step, rank, microbatch.
        machine.seed((((seed * 1_000_003 + step) * 4099 + world.rank()) * 257 + number) % 2**63)
        with machine.autocast():
            return train_model(batch[number]).float()

    with torch.set_grad_enabled(len(batch) == 1):
        logits = torch.cat([logits_of(number) for number in range(len(batch))])
    own = logits if len(batch) == 1 else logits.requires_grad_()
    # A loss may write into its logits. Those of microbatches are a leaf of the graph, so it gets a copy.
    given = own if len(batch) == 1 else own.clone()
    loss = task.criterion(distributed.all_gather_rows(given, len(targets)), targets)
    # DistributedDataParallel averages gradients over the processes; we need the sum, as each has its own rows only.
    (loss * world.size() if world.size() > 1 else loss).backward()
    if len(batch) > 1:
        for number, gradient in enumerate(logits.grad.split([len(inputs) for inputs in batch])):
            last = number == len(batch) - 1
            # Only the last backward pass exchanges gradients: the others add up locally until then.
            with train_model.no_sync() if world.size() > 1 and not last else contextlib.nullcontext():
                logits_of(number).backward(gradient)
    return loss.detach()


def _refuse_step(losses, gradient_norms, batches: list[np.ndarray], recipe: Recipe, task: Task, epoch: int):
    first = int((losses + gradient_norms).isfinite().cpu().numpy().argmin())
    paths = (os.fsdecode(task.loader.store.paths[photograph]) for photograph in batches[first])
    raise InputError(
        f"epoch {epoch + 1}, step {first + 1} of {len(batches)}, learning rate "
        f"{recipe.learning_rate(epoch * len(batches) + first):.3g}: expected finite numbers, found a loss of "
        f"{losses[first]:.3g} and a gradient of length {gradient_norms[first]:.3g}; that step was not taken; lower LR, "
        f"or set PRECISION=fp32; its photographs are {listed(paths, most=len(batches[first]))}"
    )
