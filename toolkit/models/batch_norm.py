"""Batch norm in training: frozen norms stay frozen, and statistics are recomputed for the present weights."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from toolkit.data.loader import Loader
from toolkit.system import distributed, world


def train_mode(model: nn.Module) -> None:
    """`model.train()`, except for batch norms whose weights are frozen: their statistics are frozen too."""
    model.train()
    for norm in _batch_norms(model):
        norm.train(_learns(norm))


@torch.no_grad()
def recompute_batch_norm_statistics(model: nn.Module, loader: Loader, batches: Sequence[np.ndarray]) -> None:
    """Set the running statistics to the mean over these batches, with the weights as they are now.

    The moving averages of training lag behind weights that change fast: after some dozens of steps they belong to an
    older model, and validation scores are noise. This is PreciseBN (Wu and Johnson, Rethinking "Batch" in BatchNorm,
    2021). Frozen norms keep their statistics. Every process passes its own batches, all the same number.
    """
    norms = [norm for norm in _batch_norms(model) if _learns(norm)]
    momenta, calls = [norm.momentum for norm in norms], Counter()

    def take_the_mean(norm: nn.Module, _inputs) -> None:
        # Momentum None gives the mean as well, but torch would read its count from the device, and wait for that.
        calls[norm] += 1
        norm.momentum = 1 / calls[norm]

    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
    hooks = [norm.register_forward_pre_hook(take_the_mean) for norm in norms]
    for inputs in loader.load(batches) if norms else ():
        with loader.machine.autocast():
            model(inputs)
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        hook.remove()
        norm.momentum = momentum
        for statistics in (norm.running_mean, norm.running_var) if norm.track_running_stats else ():
            distributed.all_reduce(statistics.div_(world.size()))


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _learns(norm: nn.Module) -> bool:
    return norm.weight is None or norm.weight.requires_grad
