"""All that changes while a model learns: its weights, the optimizer's moments, and their moving average."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.runs.weights import load_into
from toolkit.training.optimizer import load_state_tensors, state_tensors


class EMA:
    """An exponential moving average of a model's weights and buffers.

    Its decay warms up as TensorFlow's: min(decay, (1 + step) / (10 + step)). So the average spans at most a tenth of
    the steps so far; else, after a short run, it would be little but the first weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = copy.deepcopy(model), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after this step, counted from 0."""
        new = 1 - min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # of batch norms, say
        torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), new)  # one kernel for all tensors
        if counts:
            torch._foreach_copy_(*map(list, zip(*counts, strict=True)))


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """What is saved of the model, each tensor once: one with two names would be averaged twice."""
    return list({id(one): one for one in model.state_dict(keep_vars=True).values()}.values())


@dataclass
class TrainState:
    """A model in training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMA | None = None

    @property
    def eval_model(self) -> nn.Module:
        """The model that is validated and kept: the moving average, if there is one."""
        return self.ema.model if self.ema else self.model

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it as {"model.*" | "ema.*" | "optimizer.*": tensor}; not copies."""
        parts = {"model": self.model.state_dict(), "optimizer": state_tensors(self.optimizer)}
        if self.ema:
            parts["ema"] = self.ema.model.state_dict()
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def load(self, part: Callable[[str], dict[str, torch.Tensor]]) -> None:
        """The inverse of `tensors`; `part` gives the tensors of one part, by the rest of their names."""
        load_into(self.model, part("model"))
        if self.ema:
            load_into(self.ema.model, part("ema"))
        load_state_tensors(self.optimizer, part("optimizer"))
