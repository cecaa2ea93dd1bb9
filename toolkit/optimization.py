"""Optimizers by name, and the learning rate as a function of the step."""

import math
from functools import partial

import torch
from torch import nn

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def build(name: str, model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of that name over all weights. Biases and the scales of norms (of one dimension) do not decay."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name](groups, lr=lr, fused=True)


def learning_rate(step: int, steps: int, highest: float, warmup: float, schedule: str) -> float:
    """The learning rate of a step, counted from 0, of a run of `steps` in all.

    It rises in a line over the first `warmup` share of the steps, then falls as half a cosine to nearly 0
    (Loshchilov and Hutter, SGDR, 2017, without restarts), or stays ("constant").
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    if schedule == "constant":
        return highest
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer remembers of each weight, as {"number.name": tensor}."""
    return {
        f"{number}.{name}": value
        for number, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
    }


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """Have it remember what `state` gave. The learning rate and the like stay as they are."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    memories = {}
    for key, value in state.items():
        number, _, name = key.partition(".")
        weight = weights[int(number)]
        if value.shape == weight.shape:  # in the weight's layout, as fused optimizers go through both side by side
            value = torch.empty_like(weight).copy_(value)
        memories.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": memories, "param_groups": optimizer.state_dict()["param_groups"]})
