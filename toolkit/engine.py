"""One epoch of training, and one pass of prediction."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from toolkit import augment, folding, processes
from toolkit.console import InputError, bar, held, listed, rank
from toolkit.device import Machine
from toolkit.labels import CLASSES
from toolkit.store import Store

FEW = 4  # photographs on which the folded net must say what the plain one says
SAMPLE = 32  # photographs on which is measured what a lower precision changes


@dataclass(frozen=True)
class Recipe:
    """What one step of training does."""

    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits (b, 18) and labels (b,) -> loss
    learning_rate: Callable[[int], float]  # of a step, counted from 0 over the whole run
    policy: augment.Policy
    batch_size: int  # of all processes together
    clip_grad: float
    seed: int
    micro_batch_size: int | None = None  # photographs that one process takes at once; None takes its whole share


def batches(photographs: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut into equal batches, but for one photograph; never a batch of one, from which batch norm cannot learn.

    There are as few batches as go; they hold `batch_size` at the most, or 3 with a `batch_size` of 2 and an odd number.
    """
    count = min(math.ceil(len(photographs) / batch_size), len(photographs) // 2)
    return np.array_split(photographs, max(count, 1))


def pieces(part: np.ndarray, micro_batch_size: int | None) -> list[np.ndarray]:
    """This process's share of a batch, in pieces as `batches` cuts; as many of them in every process."""
    smallest, largest = len(part) // processes.count(), math.ceil(len(part) / processes.count())
    count = min(math.ceil(largest / (micro_batch_size or largest)), smallest // 2)
    return np.array_split(processes.own(part), max(count, 1))


def order(photographs: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The photographs of an epoch in their order: a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch, 0]).permutation(photographs)


def train_one_epoch(
    model,
    optimizer,
    recipe: Recipe,
    faces: "Faces",
    photographs: np.ndarray,
    epoch: int,
    losses: Sequence[float] = (),
    after_step: Callable[[torch.Tensor], None] = lambda losses: None,
) -> float:
    """Train on `photographs` (indices into the store) once; the mean loss over them.

    Epochs count from 0. `losses` are of the steps that were done before, where training goes on within an epoch;
    `after_step` gets those of all steps that are done, float32, shape (steps,), on the device. Of several processes
    each takes its part of every batch. Raises InputError where loss or gradient are no longer finite: before the
    weights have taken it.
    """
    model.train()
    parts = batches(order(photographs, recipe.seed, epoch), recipe.batch_size)
    draws = augment.draw(recipe.seed, epoch, len(faces.store))
    first = len(losses)
    losses = torch.tensor([*losses, *[0.0] * (len(parts) - first)], device=faces.machine.device)
    lengths = torch.zeros_like(losses)  # of the gradients
    micro = [pieces(part, recipe.micro_batch_size) for part in parts[first:]]
    inputs = (pixels for pixels, _ in faces.batches([piece for some in micro for piece in some], recipe.policy, draws))
    labels = faces.labels_of(parts)
    # Whether loss or gradient were no numbers. A GPU would have to wait if Python looked at every step; there the
    # optimizer keeps itself from that step and from all that follow (torch's own means, made for GradScaler).
    broken = torch.zeros((), device=faces.machine.device)
    optimizer.found_inf = broken if faces.machine.runs_ahead else None
    steps = range(first, len(parts))
    for number, own in bar(zip(steps, micro, strict=True), f"epoch {epoch + 1}", len(steps)):
        with held():
            step = epoch * len(parts) + number
            rate = recipe.learning_rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            batch = [next(inputs) for _ in own]
            losses[number] = _backward(model, recipe, faces.machine, batch, labels[number], step)
            lengths[number] = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad or math.inf)
            broken.logical_or_(~(losses[number] + lengths[number]).isfinite())
            if not faces.machine.runs_ahead and broken:
                break
            optimizer.step()
            after_step(losses[: number + 1])
    if broken:
        _stop(losses, lengths, parts, recipe, faces, epoch)
    return float(losses.cpu().double().numpy() @ [len(part) for part in parts]) / len(photographs)


def _backward(model, recipe: Recipe, machine: Machine, batch: list[torch.Tensor], labels: torch.Tensor, step: int):
    """The loss of a whole batch, and its gradients.

    `labels` are those of all its photographs, `batch` the inputs of this process's share of them, in one piece or more;
    the loss is of all of them at once all the same, whatever loss it is. With more pieces than one each goes through
    the net twice: for the loss, and when it is known what the loss wants of its logits (Gao et al., Scaling Deep
    Contrastive Learning Batch Size under Memory Limited Setup, 2021). Dropout is a function of seed, step, process and
    piece.
    """

    def logits_of(piece: int) -> torch.Tensor:
        torch.manual_seed((((recipe.seed * 1_000_003 + step) * 4099 + rank()) * 257 + piece) % 2**63)
        with machine.autocast():
            return model(batch[piece]).float()

    with torch.set_grad_enabled(len(batch) == 1):
        logits = torch.cat([logits_of(piece) for piece in range(len(batch))])
    own = logits if len(batch) == 1 else logits.requires_grad_()
    loss = recipe.criterion(processes.whole(own, len(labels)), labels)
    # Gradients of the processes are averaged, not summed.
    (loss * processes.count()).backward()
    if len(batch) > 1:
        for piece, wanted in enumerate(logits.grad.split([len(inputs) for inputs in batch])):
            last = piece == len(batch) - 1
            with model.no_sync() if processes.count() > 1 and not last else contextlib.nullcontext():
                logits_of(piece).backward(wanted)
    return loss.detach()


def _stop(losses, lengths, parts: list[np.ndarray], recipe: Recipe, faces: "Faces", epoch: int) -> None:
    first = int((losses + lengths).isfinite().cpu().numpy().argmin())
    raise InputError(
        f"epoch {epoch + 1}, step {first + 1} of {len(parts)}, learning rate "
        f"{recipe.learning_rate(epoch * len(parts) + first):.3g}: expected finite numbers, found a loss of "
        f"{losses[first]:.3g} and a gradient of length {lengths[first]:.3g}; that step was not taken; lower LR, or set "
        f"PRECISION=fp32; its photographs are "
        f"{listed((os.fsdecode(faces.store.paths[photograph]) for photograph in parts[first]), most=len(parts[first]))}"
    )


@torch.no_grad()
def settle_batch_norm(model, faces: "Faces", parts: list[np.ndarray]) -> None:
    """Set the running statistics of batch norm to those of the net as it is now, over these batches of photographs.

    The moving averages that training keeps lag behind weights that still move fast: after some dozens of steps they
    belong to a net long gone, and validation sees noise where training has learned much (Wu and Johnson, Rethinking
    "Batch" in BatchNorm, 2021, call this PreciseBN). Nothing else changes; a net without batch norm stays as it is.
    Each of several processes gets its own batches, as many as the others.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean over all batches
    for inputs, _ in faces.batches(parts) if norms else ():
        with faces.machine.autocast():
            model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistics in (norm.running_mean, norm.running_var) if norm.track_running_stats else ():
            processes.total(statistics.div_(processes.count()))


@torch.inference_mode()
def predict(model, faces: "Faces", photographs: np.ndarray, batch_size: int | None = None) -> torch.Tensor:
    """Logits of the photographs, in their order: float32, shape (n, classes), on the CPU.

    With batch norm folded into the convolutions and, where the machine's precision is less than float32, weights of
    that precision. What that changes is measured on a sample: how far the gap between the two best classes moves.
    Photographs with no larger gap than that and half as much again, whose class may have changed, are predicted anew in
    float32. They are few, but with a net that has learned little, which so gets what it would have got in float32.
    """
    if not len(photographs):
        return torch.zeros(0, CLASSES)
    model.eval()
    exact = folding.fold(model, next(faces.batches([photographs[:FEW]]))[0])
    if faces.machine.precision == torch.float32:
        return _logits(exact, faces, photographs, batch_size)
    logits = _logits(folding.cast(exact, faces.machine.precision), faces, photographs, batch_size)
    two = logits.topk(2).indices
    sample = np.arange(0, len(photographs), max(len(photographs) // SAMPLE, 1))[:SAMPLE]
    known = _logits(exact, faces, photographs[sample], batch_size)
    moved = (_gap(logits, two)[sample] - _gap(known, two[sample])).abs().max()
    unsure = ~(_gap(logits, two) > 1.5 * moved)  # also where they are no numbers
    logits[sample], unsure[sample] = known, False
    if unsure.any():
        logits[unsure] = _logits(exact, faces, photographs[unsure.numpy()], batch_size)
    return logits


def _gap(logits: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """How much more the first of two classes (int64, shape (n, 2)) has than the second: float32, shape (n,)."""
    first, second = logits.gather(1, two).unbind(1)
    return first - second


def _logits(net, faces: "Faces", photographs: np.ndarray, batch_size: int | None) -> torch.Tensor:
    parts = batches(photographs, batch_size or faces.machine.batch_for_prediction(faces.store.size))
    dtype = next(net.parameters()).dtype
    with faces.machine.autocast() if dtype != torch.float32 else contextlib.nullcontext():  # for what it makes itself
        logits = (
            torch.cat([net(inputs.to(dtype)) for inputs, _ in bar(faces.batches(parts), "predicting", len(parts))])
            .float()
            .cpu()
        )
    assert len(logits) == len(photographs)
    return logits


class Faces:
    """A store of photographs and their labels, made ready for a net on a machine."""

    def __init__(self, store: Store, machine: Machine, mean, std, labels: np.ndarray | None = None):
        self.store, self.machine = store, machine
        self.mean, self.std = torch.tensor([mean, std], device=machine.device)
        self.labels = None if labels is None else torch.from_numpy(labels).to(machine.device)
        self.resident: torch.Tensor | None = None  # all pixels, on a GPU

    def move(self) -> None:
        """Keep all pixels on a GPU where they take less than half of its free memory. Waits for the store."""
        if self.machine.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.machine.device)
            if self.store.bytes < free / 2:
                self.resident = torch.empty(self.store.shape, dtype=torch.uint8, device=self.machine.device)
                for index in torch.arange(len(self.store)).split(1024):
                    self.resident[index[0] : index[-1] + 1] = self.store.gather(index)

    def labels_of(self, parts: list[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """The labels of each part: int64, shape (b,), on the device."""
        indices = torch.from_numpy(np.concatenate(parts)).to(self.machine.device)
        return self.labels.index_select(0, indices).split([len(part) for part in parts])

    def batches(
        self, parts: list[np.ndarray], policy: augment.Policy | None = None, draws: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """The net's input and the labels for each part, an array of indices into the store.

        Inputs are float32, shape (b, 3, height, width), and labels int64, shape (b,), both on the device. With a policy
        photographs are augmented by their rows of `draws`, shape (n, len(augment.DRAWS)).
        """
        # The order and the draws of all parts go to the device at once, so that no step waits for a copy.
        indices = torch.from_numpy(np.concatenate(parts)).to(self.machine.device)
        rows = None if draws is None else draws.to(self.machine.device).index_select(0, indices)
        begin = 0
        for pixels in self._pixels(parts, indices):
            end = begin + len(pixels)
            some = None if rows is None else rows[begin:end]
            labels = None if self.labels is None else self.labels[indices[begin:end]]
            yield augment.prepare(pixels, self.mean, self.std, policy, some), labels
            begin = end

    def _pixels(self, parts: list[np.ndarray], indices: torch.Tensor) -> Iterator[torch.Tensor]:
        """The pixels of each part: uint8, shape (b, height, width, 3), on the device."""
        if self.resident is not None:
            for index in indices.split([len(part) for part in parts]):
                yield self.resident.index_select(0, index)
        elif self.machine.device.type == "cpu":
            for part in parts:
                yield self.store.gather(torch.from_numpy(part))
        else:  # while the device works on a batch, the next one is gathered
            with ThreadPoolExecutor(1) as pool:
                ahead = pool.submit(self._gather_for_copying, parts[0])
                for following in [*parts[1:], None]:
                    pixels = ahead.result()
                    if following is not None:
                        ahead = pool.submit(self._gather_for_copying, following)
                    # Not from memory that is not pinned: MPS may read it when it is gone already.
                    yield pixels.to(self.machine.device, non_blocking=pixels.is_pinned())

    def _gather_for_copying(self, part: np.ndarray) -> torch.Tensor:
        pixels = self.store.gather(torch.from_numpy(part))
        return pixels.pin_memory() if self.machine.device.type == "cuda" else pixels
