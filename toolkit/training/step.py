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

from toolkit.data import augment
from toolkit.data.store import Store
from toolkit.labels import CLASSES
from toolkit.models import fuse_batch_norm
from toolkit.system import distributed, world
from toolkit.system.console import InputError, bar, listed
from toolkit.system.device import Machine
from toolkit.system.signals import defer_signals

FEW = 4  # photographs on which the folded net must say what the plain one says
SAMPLE = 32  # photographs on which is measured what a lower precision changes


@dataclass(frozen=True)
class Recipe:
    """What one step of training does."""

    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # the net's outputs and targets (b, ...) -> loss
    learning_rate: Callable[[int], float]  # of a step, counted from 0 over the whole run
    policy: augment.Policy
    batch_size: int  # of all processes together
    clip_grad: float
    seed: int
    micro_batch_size: int | None = None  # photographs that one process takes at once; None takes its whole share
    mix: str = "none"  # one of augment.MIXES
    chances: np.ndarray | None = None  # of each photograph to be drawn, the next time and again; None takes each once


def batches(photographs: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut into equal batches, but for one photograph; never a batch of one, from which batch norm cannot learn.

    There are as few batches as go; they hold `batch_size` at the most, or 3 with a `batch_size` of 2 and an odd number.
    """
    count = min(math.ceil(len(photographs) / batch_size), len(photographs) // 2)
    return np.array_split(photographs, max(count, 1))


def pieces(part: np.ndarray, micro_batch_size: int | None) -> list[np.ndarray]:
    """This process's share of a batch, in pieces as `batches` cuts; as many of them in every process."""
    smallest, largest = len(part) // world.size(), math.ceil(len(part) / world.size())
    count = min(math.ceil(largest / (micro_batch_size or largest)), smallest // 2)
    return np.array_split(distributed.shard(part), max(count, 1))


def order(photographs: np.ndarray, seed: int, epoch: int, chances: np.ndarray | None = None) -> np.ndarray:
    """The photographs of an epoch in their order: a function of (seed, epoch), of as many as there are.

    Each of them once, or, with `chances` (shape (n,), their sum is 1), as often as it is drawn.
    """
    rng = np.random.default_rng([seed, epoch, 0])
    if chances is None:
        return rng.permutation(photographs)
    return rng.choice(photographs, len(photographs), p=chances)


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
    _train_mode(model)
    epoch_of = Epoch(recipe, faces, photographs, epoch)
    parts = batches(np.arange(len(photographs)), recipe.batch_size)  # of places in the epoch's order
    first = len(losses)
    losses = torch.tensor([*losses, *[0.0] * (len(parts) - first)], device=faces.machine.device)
    lengths = torch.zeros_like(losses)  # of the gradients
    micro = [pieces(part, recipe.micro_batch_size) for part in parts[first:]]
    inputs = epoch_of.inputs([piece for some in micro for piece in some])
    targets = epoch_of.targets.split([len(part) for part in parts])
    # Whether loss or gradient were no numbers. A GPU would have to wait if Python looked at every step; there the
    # optimizer keeps itself from that step and from all that follow (torch's own means, made for GradScaler).
    broken = torch.zeros((), device=faces.machine.device)
    optimizer.found_inf = broken if faces.machine.runs_ahead else None
    steps = range(first, len(parts))
    for number, own in bar(zip(steps, micro, strict=True), f"epoch {epoch + 1}", len(steps)):
        with defer_signals():
            step = epoch * len(parts) + number
            rate = recipe.learning_rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_share", 1.0)
            optimizer.zero_grad(set_to_none=True)
            batch = [next(inputs) for _ in own]
            losses[number] = _backward(model, recipe, faces.machine, batch, targets[number], step)
            lengths[number] = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad or math.inf)
            broken.logical_or_(~(losses[number] + lengths[number]).isfinite())
            if not faces.machine.runs_ahead and broken:
                break
            optimizer.step()
            after_step(losses[: number + 1])
    if broken:
        _stop(losses, lengths, [epoch_of.order[part] for part in parts], recipe, faces, epoch)
    return float(losses.cpu().double().numpy() @ [len(part) for part in parts]) / len(photographs)


class Epoch:
    """The photographs of an epoch in their order, and what each of them is mixed with."""

    def __init__(self, recipe: Recipe, faces: "Faces", photographs: np.ndarray, epoch: int):
        count, device = len(photographs), faces.machine.device
        self.recipe, self.faces = recipe, faces
        self.order = order(photographs, recipe.seed, epoch, recipe.chances)
        self.draws = augment.draw(recipe.seed, epoch, count)
        rows = torch.from_numpy(self.order).to(device)
        self.targets = faces.targets.index_select(0, rows)
        self.others, self.kept = None, None
        if recipe.mix != "none":  # whatever comes at that place in another shuffle of the epoch
            self.others = np.random.default_rng([recipe.seed, epoch, 3]).permutation(count)
            self.kept = augment.mix_shares(recipe.mix, recipe.seed, epoch, count).to(device)
            theirs = self.targets[torch.from_numpy(self.others).to(device)]
            self.targets = torch.lerp(theirs, self.targets, self.kept[:, None])

    def inputs(self, parts: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """The net's input for each part, an array of places in the order."""
        if self.others is None:
            yield from self._batches(parts)
            return
        both = self._batches([np.concatenate([part, self.others[part]]) for part in parts])
        kept = self.kept[torch.from_numpy(np.concatenate(parts)).to(self.kept.device)].split([len(p) for p in parts])
        for pixels, share in zip(both, kept, strict=True):
            yield augment.mix(self.recipe.mix, *pixels.chunk(2), share)

    def _batches(self, parts: list[np.ndarray]) -> Iterator[torch.Tensor]:
        draws = self.draws[np.concatenate(parts)]
        return self.faces.batches([self.order[part] for part in parts], self.recipe.policy, draws)


def _train_mode(model) -> None:
    """But for batch norms whose weights are frozen: their statistics are frozen with them."""
    model.train()
    for norm in _norms(model):
        norm.train(_learns(norm))


def _norms(model) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _learns(norm) -> bool:
    return norm.weight is None or norm.weight.requires_grad


def _backward(model, recipe: Recipe, machine: Machine, batch: list[torch.Tensor], targets: torch.Tensor, step: int):
    """The loss of a whole batch, and its gradients.

    `targets` are those of all its photographs, `batch` the inputs of this process's share of them, in one piece or
    more; the loss is of all of them at once all the same, whatever loss it is. With more pieces than one each goes
    through the net twice: for the loss, and when it is known what the loss wants of its logits (Gao et al., Scaling
    Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021). Dropout is a function of seed, step, process
    and piece.
    """

    def logits_of(piece: int) -> torch.Tensor:
        torch.manual_seed((((recipe.seed * 1_000_003 + step) * 4099 + world.rank()) * 257 + piece) % 2**63)
        with machine.autocast():
            return model(batch[piece]).float()

    with torch.set_grad_enabled(len(batch) == 1):
        logits = torch.cat([logits_of(piece) for piece in range(len(batch))])
    own = logits if len(batch) == 1 else logits.requires_grad_()
    loss = recipe.criterion(distributed.all_gather_rows(own, len(targets)), targets)
    # Gradients of the processes are averaged, not summed.
    (loss * world.size()).backward()
    if len(batch) > 1:
        for piece, wanted in enumerate(logits.grad.split([len(inputs) for inputs in batch])):
            last = piece == len(batch) - 1
            with model.no_sync() if world.size() > 1 and not last else contextlib.nullcontext():
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
    "Batch" in BatchNorm, 2021, call this PreciseBN). Nothing else changes; norms that are frozen stay as they are.
    Each of several processes gets its own batches, as many as the others.
    """
    norms = [norm for norm in _norms(model) if _learns(norm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean over all batches
    for inputs in faces.batches(parts) if norms else ():
        with faces.machine.autocast():
            model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistics in (norm.running_mean, norm.running_var) if norm.track_running_stats else ():
            distributed.all_reduce(statistics.div_(world.size()))


@torch.inference_mode()
def predict(
    model, faces: "Faces", photographs: np.ndarray, batch_size: int | None = None, offset: torch.Tensor | None = None
) -> torch.Tensor:
    """What the net gives for the photographs, in their order: float32, shape (n, 18 or more), on the CPU.

    With batch norm folded into the convolutions and, where the machine's precision is less than float32, weights of
    that precision. What that changes is measured on a sample: how far the gap moves between the two best classes, by
    their logits plus `offset`, shape (18,). Photographs with no larger gap than that and half as much again, whose
    class may have changed, are predicted anew in float32. They are few, but with a net that has learned little, which
    so gets what it would have got in float32. So does a sample's worth of photographs.
    """
    if not len(photographs):
        one = torch.zeros(1, 3, *faces.store.size, device=faces.machine.device)
        return model.eval()(one)[:0].float().cpu()
    model.eval()
    exact = fuse_batch_norm.fold(model, next(faces.batches([photographs[:FEW]])))
    if faces.machine.precision == torch.float32 or len(photographs) <= SAMPLE:
        return _logits(exact, faces, photographs, batch_size)
    logits = _logits(fuse_batch_norm.cast(exact, faces.machine.precision), faces, photographs, batch_size)
    offset = torch.zeros(CLASSES) if offset is None else offset
    two = (logits[:, :CLASSES] + offset).topk(2).indices
    sample = np.arange(0, len(photographs), max(len(photographs) // SAMPLE, 1))[:SAMPLE]
    known = _logits(exact, faces, photographs[sample], batch_size)
    moved = (_gap(logits, two)[sample] - _gap(known, two[sample])).abs().max()
    first, second = offset[two].unbind(1)
    unsure = ~(_gap(logits, two) + first - second > 1.5 * moved)  # also where they are no numbers
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
            torch.cat([net(inputs.to(dtype)) for inputs in bar(faces.batches(parts), "predicting", len(parts))])
            .float()
            .cpu()
        )
    assert len(logits) == len(photographs)
    return logits


class Mirrored(torch.nn.Module):
    """A net that sees every photograph from left to right."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, photographs: torch.Tensor) -> torch.Tensor:
        return self.net(photographs.flip(3))


class Faces:
    """A store of photographs and their labels, made ready for a net on a machine.

    `targets` are what the loss is told of each photograph (toolkit/targets.py); at first the labels themselves.
    """

    def __init__(self, store: Store, machine: Machine, mean, std, labels: np.ndarray | None = None):
        self.store, self.machine = store, machine
        self.mean, self.std = torch.tensor([mean, std], device=machine.device)
        self.labels = None if labels is None else torch.from_numpy(labels).to(machine.device)
        self.targets = self.labels
        self.resident: torch.Tensor | None = None  # all pixels, on a GPU

    def move(self) -> None:
        """Keep all pixels on a GPU where they take less than half of its free memory. Waits for the store."""
        if self.machine.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.machine.device)
            if self.store.bytes < free / 2:
                self.resident = torch.empty(self.store.shape, dtype=torch.uint8, device=self.machine.device)
                for index in torch.arange(len(self.store)).split(1024):
                    self.resident[index[0] : index[-1] + 1] = self.store.gather(index)

    def batches(
        self, parts: list[np.ndarray], policy: augment.Policy | None = None, draws: torch.Tensor | None = None
    ) -> Iterator[torch.Tensor]:
        """The net's input for each part, an array of indices into the store.

        Inputs are float32, shape (b, 3, height, width), on the device. With a policy photographs are augmented by
        `draws`, shape (n, len(augment.DRAWS)): a row for each photograph of all parts together.
        """
        # The order and the draws of all parts go to the device at once, so that no step waits for a copy.
        indices = torch.from_numpy(np.concatenate(parts)).to(self.machine.device)
        lengths = [len(part) for part in parts]
        rows = [None] * len(parts) if draws is None else draws.to(self.machine.device).split(lengths)
        for pixels, some in zip(self._pixels(parts, indices), rows, strict=True):
            yield augment.prepare(pixels, self.mean, self.std, policy, some)

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
