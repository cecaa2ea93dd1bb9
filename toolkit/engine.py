"""One epoch of training, and one pass of prediction."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from toolkit import augment
from toolkit.device import Machine
from toolkit.errors import InputError
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
    """Cut into as few batches as go, equal but for one photograph: no short last batch, which upsets batch norm."""
    return np.array_split(photographs, math.ceil(len(photographs) / batch_size))


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
    total = torch.zeros((), device=faces.machine.device)
    for number, part in enumerate(tqdm(parts, f"epoch {epoch + 1}", leave=False, disable=None)):
        step = epoch * len(parts) + number
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout, too, is a function of (seed, step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step)
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
        total += loss.detach() * len(part)  # stays on the device: reading it here would wait for every step
    mean = total.item() / len(photographs)
    if not math.isfinite(mean):
        raise InputError(
            f"epoch {epoch + 1}: the loss is {mean}, not a finite number; the weights of the best epoch before it are "
            f"kept; lower LR (now {recipe.learning_rate(step):.3g}), or set PRECISION=fp32"
        )
    return mean


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
        pixels = self.store.gather(index).to(self.machine.device, non_blocking=True)
        rows = None if draws is None else draws[index].to(self.machine.device, non_blocking=True)
        return augment.prepare(pixels, self.mean, self.std, policy, rows)
