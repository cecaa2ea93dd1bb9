"""Optimizers by name, and the learning rate as a function of the step."""

import copy
import inspect
import math
from functools import partial

import torch
from torch import nn

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of that name over all weights; biases and the scales of norms (one dimension) do not decay."""
    groups: dict[float, list] = {}
    for weight in model.parameters():
        groups.setdefault(weight_decay if weight.ndim > 1 else 0.0, []).append(weight)
    # Fused: one kernel for all weights, and it takes `found_inf` (training/step.py). Not every optimizer has one.
    fused = {"fused": True} if "fused" in inspect.signature(OPTIMIZERS[name]).parameters else {}
    groups = [{"params": some, "weight_decay": decay} for decay, some in groups.items()]
    return OPTIMIZERS[name](groups, lr=lr, **fused)


def learning_rate(step: int, steps: int, highest: float, warmup: float, schedule: str) -> float:
    """The learning rate of a step, counted from 0, in a run of `steps`.

    It rises linearly over the first `warmup` share of the steps, then falls as half a cosine to nearly 0 (Loshchilov
    and Hutter, SGDR, 2017, without restarts), or stays ("constant").
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    if schedule == "constant":
        return highest
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's moments and counts, as {"number of the weight.name": tensor}."""
    return {
        f"{number}.{name}": torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """The inverse of `state_tensors`. Learning rates and the like stay as they are.

    Raises ValueError or IndexError if the moments do not fit this optimizer and its weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments_of_weight: dict[int, dict] = {}
    expected = _moments_of_a_step(optimizer)
    for key, value in state.items():
        number, _, name = key.partition(".")
        weight = weights[int(number)]
        if value.shape == weight.shape:
            # In the weight's memory layout, which a file does not keep: fused optimizers read both in the same order.
            value = torch.empty_like(weight).copy_(value)
        is_number = not isinstance(expected[int(number)].get(name), tuple)  # a count of steps, say
        moments_of_weight.setdefault(int(number), {})[name] = value.item() if is_number and value.ndim == 0 else value
    for number, moments in moments_of_weight.items():
        if {name: _kind(value) for name, value in moments.items()} != expected[number]:
            raise ValueError(f"moments of weight {number}: {', '.join(moments)}")
    optimizer.load_state_dict({"state": moments_of_weight, "param_groups": optimizer.state_dict()["param_groups"]})


def _kind(value) -> tuple[torch.Size, torch.dtype] | type:
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else type(value)


def _moments_of_a_step(optimizer: torch.optim.Optimizer) -> list[dict]:
    """{name: shape and type} of each weight's moments. Only a step makes them, so a copy takes one."""
    copied = copy.deepcopy(optimizer)
    copied.state.clear()
    weights = [weight for group in copied.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    copied.step()
    return [{name: _kind(value) for name, value in copied.state[weight].items()} for weight in weights]
