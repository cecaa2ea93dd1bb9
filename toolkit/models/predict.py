"""Prediction: logits of many photographs, in the fastest form of the model that gives the same classes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from toolkit.data.loader import Loader, split_into_batches
from toolkit.labels import CLASSES
from toolkit.models import fuse_batch_norm
from toolkit.system import device
from toolkit.system.console import bar

PROBE = 4  # photographs on which the fused model must agree with the plain one
SAMPLE = 32  # photographs on which the error of a lower precision is measured
MARGIN = 1.5  # times that error: a closer call is predicted again


class Mirrored(nn.Module):
    """A model that sees every photograph flipped left to right."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.is_fused = model, getattr(model, "is_fused", False)

    def forward(self, photographs: torch.Tensor) -> torch.Tensor:
        return self.model(photographs.flip(3))


def predict(
    model: nn.Module,
    loader: Loader,
    photographs: np.ndarray,
    batch_size: int | None = None,
    adjusted: Callable[[np.ndarray], np.ndarray] = lambda logits: logits,
) -> torch.Tensor:
    """The model's outputs for these photographs, in their order: float32, shape (n, 18 or more), on the CPU.

    Batch norm is fused into the convolutions. If the machine's precision is below float32, weights are cast to it, and
    close calls of argmax(adjusted(logits)) are recomputed in float32. `adjusted`: (n, 18) -> (n, 18).
    """
    exact, outputs = predict_quickly(model, loader, photographs, batch_size)
    return recompute_close_calls(exact, loader, photographs, batch_size, outputs, adjusted)


@torch.inference_mode()
def predict_quickly(
    model: nn.Module, loader: Loader, photographs: np.ndarray, batch_size: int | None = None
) -> tuple[nn.Module, torch.Tensor]:
    """The fused model in float32, and outputs as `predict` gives them, but without recomputing close calls.

    Use it to fit a decision on these outputs: which calls are close is known only after that.
    """
    model.eval()
    if not len(photographs):
        one = torch.zeros(1, 3, *loader.store.size, device=loader.machine.device)
        return model, model(one)[:0].float().cpu()
    exact = fuse_batch_norm.fuse(model, next(loader.load([photographs[:PROBE]])))
    quick = exact if _all_exact(loader, photographs) else fuse_batch_norm.cast(exact, loader.machine.precision)
    return exact, _forward(quick, loader, photographs, batch_size)


@torch.inference_mode()
def recompute_close_calls(
    exact: nn.Module,
    loader: Loader,
    photographs: np.ndarray,
    batch_size: int | None,
    outputs: torch.Tensor,
    adjusted: Callable[[np.ndarray], np.ndarray],
) -> torch.Tensor:
    """`outputs` of a lower precision, with those replaced whose class that precision may have changed.

    On a sample, `exact` shows by how much the lower precision moves the gap between the two best classes. Photographs
    with a gap below MARGIN times the largest such move are predicted again in float32. Usually they are few. If a model
    has learned little, all gaps are small, and all photographs are predicted again.
    """
    if _all_exact(loader, photographs):
        return outputs

    def adjust(outputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(adjusted(outputs[:, :CLASSES].double().numpy()))

    values = adjust(outputs)
    best_two = values.topk(2).indices
    sample = np.arange(0, len(photographs), max(len(photographs) // SAMPLE, 1))[:SAMPLE]
    known = _forward(exact, loader, photographs[sample], batch_size)
    gap = _gap(values, best_two)
    moved = (gap[sample] - _gap(adjust(known), best_two[sample])).abs().max()
    # Not `gap <= ...`: this is also true for NaN, which float32 may not give.
    close = ~(gap > MARGIN * moved)
    outputs[sample], close[sample] = known, False
    if close.any():
        outputs[close] = _forward(exact, loader, photographs[close.numpy()], batch_size)
    return outputs


def _all_exact(loader: Loader, photographs: np.ndarray) -> bool:
    """Whether all photographs are predicted in float32 at once: the machine does so, or they are too few to sample."""
    return loader.machine.precision == torch.float32 or len(photographs) <= SAMPLE


def _gap(values: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """The first minus the second of two classes' values: shape (n,); `two` is int64, shape (n, 2)."""
    first, second = values.gather(1, two).unbind(1)
    return first - second


def _forward(model: nn.Module, loader: Loader, photographs: np.ndarray, batch_size: int | None) -> torch.Tensor:
    batch_size = batch_size or loader.machine.prediction_batch_size(loader.store.size)
    batches = split_into_batches(photographs, batch_size)
    dtype = next(model.parameters()).dtype
    # Weights are cast already; autocast is for tensors that the model makes itself.
    is_exact = dtype == torch.float32 and loader.machine.precision != torch.float32
    with device.exact_float32() if is_exact else loader.machine.autocast():
        inputs = bar(loader.load(batches), "predicting", len(batches))
        outputs = torch.cat([model(batch.to(dtype)) for batch in inputs]).float().cpu()
    assert len(outputs) == len(photographs)
    return outputs
