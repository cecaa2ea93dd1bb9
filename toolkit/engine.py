"""One epoch of training, and one pass of prediction."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from toolkit import augment
from toolkit.console import InputError, listed
from toolkit.device import Machine
from toolkit.images import Store


@dataclass(frozen=True)
class Recipe:
    """What one step of training does."""

    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits (b, 18) and labels (b,) -> loss
    learning_rate: Callable[[int], float]  # of a step, counted from 0 over the whole run
    policy: augment.Policy
    batch_size: int
    clip_grad: float
    seed: int


def batches(photographs: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut into equal batches, but for one photograph; never a batch of one, from which batch norm cannot learn.

    There are as few batches as go; they hold `batch_size` at the most, or 3 with a `batch_size` of 2 and an odd number.
    """
    count = min(math.ceil(len(photographs) / batch_size), len(photographs) // 2)
    return np.array_split(photographs, max(count, 1))


def order(photographs: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The photographs of an epoch in their order: a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch, 0]).permutation(photographs)


def train_one_epoch(model, optimizer, recipe: Recipe, faces: "Faces", photographs: np.ndarray, epoch: int) -> float:
    """Train on `photographs` (indices into the store) once; the mean loss over them.

    Epochs count from 0. Raises InputError where the loss is no longer a finite number.
    """
    model.train()
    parts = batches(order(photographs, recipe.seed, epoch), recipe.batch_size)
    draws = augment.draw(recipe.seed, epoch, len(faces.store))
    losses = torch.zeros(len(parts), device=faces.machine.device)  # reading them would wait for every step
    for number, part in enumerate(tqdm(parts, f"epoch {epoch + 1}", leave=False, disable=None)):
        step = epoch * len(parts) + number
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout, too, is a function of (seed, step)
        rate = recipe.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = torch.from_numpy(part)
        inputs = faces.inputs(index, recipe.policy, draws)
        labels = faces.labels[index.to(faces.labels.device)]
        with faces.machine.autocast():
            logits = model(inputs)
        loss = recipe.criterion(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
        optimizer.step()
        losses[number] = loss.detach()
    losses = losses.cpu().double().numpy()
    if not np.isfinite(losses).all():
        _stop(losses, parts, recipe, faces, epoch)
    return float(losses @ [len(part) for part in parts]) / len(photographs)


def _stop(losses: np.ndarray, parts: list[np.ndarray], recipe: Recipe, faces: "Faces", epoch: int) -> None:
    first = int(np.argmax(~np.isfinite(losses)))
    rate = recipe.learning_rate(epoch * len(parts) + first)
    raise InputError(
        f"epoch {epoch + 1}, step {first + 1} of {len(parts)}, learning rate {rate:.3g}: the loss is {losses[first]}, "
        f"not a finite number; lower LR, or set PRECISION=fp32; the photographs of this step are "
        f"{listed(faces.store.paths[photograph] for photograph in parts[first])}"
    )


@torch.no_grad()
def settle_batch_norm(model, faces: "Faces", parts: list[np.ndarray]) -> None:
    """Set the running statistics of batch norm to those of the net as it is now, over these batches of photographs.

    The moving averages that training keeps lag behind weights that still move fast: after some dozens of steps they
    belong to a net long gone, and validation sees noise where training has learned much (Wu and Johnson, Rethinking
    "Batch" in BatchNorm, 2021, call this PreciseBN). Nothing else changes; a net without batch norm stays as it is.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean over all batches
    for part in parts if norms else ():
        with faces.machine.autocast():
            model(faces.inputs(torch.from_numpy(part)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.inference_mode()
def predict(model, faces: "Faces", photographs: np.ndarray, batch_size: int) -> torch.Tensor:
    """Logits of the photographs, in their order: float32, shape (n, classes), on the CPU."""
    model.eval()
    logits = []
    for part in tqdm(batches(photographs, batch_size), "predicting", leave=False, disable=None):
        with faces.machine.autocast():
            logits.append(model(faces.inputs(torch.from_numpy(part))).float().cpu())
    result = torch.cat(logits)
    assert len(result) == len(photographs)
    return result


class Faces:
    """A store of photographs and their labels, made ready for a net on a machine."""

    def __init__(self, store: Store, machine: Machine, mean, std, labels: np.ndarray | None = None):
        self.store, self.machine = store, machine
        self.mean, self.std = torch.tensor([mean, std], device=machine.device)
        self.labels = None if labels is None else torch.from_numpy(labels).to(machine.device)
        store.move(machine.device)

    def inputs(self, index: torch.Tensor, policy: augment.Policy | None = None, draws: torch.Tensor | None = None):
        """Photographs of these indices as the net's input: float32, shape (b, 3, height, width), on its device.

        With a policy they are augmented by their rows of `draws`.
        """
        pixels = self.store.gather(index).to(self.machine.device)
        rows = None if draws is None else draws[index].to(self.machine.device)
        return augment.prepare(pixels, self.mean, self.std, policy, rows)
