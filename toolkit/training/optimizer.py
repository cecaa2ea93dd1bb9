"""Optimizers by name, the learning rate as a function of the step, and the moving average of the weights."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from toolkit.runs import checkpoint

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, head: Sequence = (), backbone_lr: float = 1.0
) -> torch.optim.Optimizer:
    """The optimizer of that name over all weights. Biases and the scales of norms (of one dimension) do not decay.

    Every group has its own share of the learning rate, "lr_share": 1 for the weights of `head`, `backbone_lr` for all
    others.
    """
    of_head = {id(weight) for weight in head}
    groups: dict[tuple[float, float], list] = {}
    for weight in model.parameters():
        key = 1.0 if id(weight) in of_head else backbone_lr, weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault(key, []).append(weight)
    return OPTIMIZERS[name](
        [{"params": some, "lr_share": share, "weight_decay": decay} for (share, decay), some in groups.items()],
        lr=lr,
        fused=True,
    )


def learning_rate(step: int, steps: int, highest: float, warmup: float, schedule: str, frozen: int = 0) -> float:
    """The learning rate of a step, counted from 0, of a run of `steps` in all.

    It rises in a line over the first `warmup` share of the steps, then falls as half a cosine to nearly 0
    (Loshchilov and Hutter, SGDR, 2017, without restarts), or stays ("constant"). The first `frozen` steps, in which
    only the head learns, have a warm-up of their own and stay: the other layers then begin as gently.
    """
    if step < frozen:
        return learning_rate(step, frozen, highest, warmup, "constant")
    step, steps = step - frozen, steps - frozen
    rising = math.ceil(steps * warmup)
    if step < rising:
        return highest * (step + 1) / (rising + 1)
    if schedule == "constant":
        return highest
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer remembers of each weight, as {"number.name": tensor}."""
    return {
        f"{number}.{name}": value
        for number, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """Have it remember what `state_tensors` gave. The learning rate and the like stay as they are."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    memories = {}
    for key, value in state.items():
        number, _, name = key.partition(".")
        weight = weights[int(number)]
        if value.shape == weight.shape:  # in the weight's layout, as fused optimizers go through both side by side
            value = torch.empty_like(weight).copy_(value)
        memories.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": memories, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass
class Learner:
    """A net in training, and all that changes with it: its optimizer, and its moving average where it has one."""

    net: nn.Module
    head: list[nn.Parameter]  # the weights that are not pretrained
    optimizer: torch.optim.Optimizer
    average: "Average | None" = None

    @property
    def best(self) -> nn.Module:
        """The net that is validated and kept: the average, where there is one."""
        return self.average.net if self.average else self.net

    def freeze(self, frozen: bool) -> None:
        """Let only the head learn, or all."""
        of_head = {id(weight) for weight in self.head}
        learns = {name: not frozen or id(weight) in of_head for name, weight in self.net.named_parameters()}
        for net in (self.net, self.best):
            for name, weight in net.named_parameters():
                weight.requires_grad_(learns[name])

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that it is, as {"net.*" | "average.*" | "optimizer.*": tensor}; not copies."""
        parts = {"net": self.net.state_dict(), "optimizer": state_tensors(self.optimizer)}
        if self.average:
            parts["average"] = self.average.net.state_dict()
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def load(self, part: Callable[[str], dict[str, torch.Tensor]]) -> None:
        """Become what `tensors` gave; `part` gives those of one part, by the rest of their names."""
        checkpoint.restore(self.net, part("net"))
        if self.average:
            checkpoint.restore(self.average.net, part("average"))
        load_state_tensors(self.optimizer, part("optimizer"))


class Average:
    """An exponential moving average of a net's weights and buffers, which is steadier than the net itself.

    Its decay warms up with the steps, (1 + t) / (10 + t) up to `decay`: it always averages over the last tenth of the
    steps or less, so that little of the first weights is left in a short run either (as in TensorFlow's).
    """

    def __init__(self, net: nn.Module, decay: float):
        self.net, self.decay = copy.deepcopy(net), decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the net after that step, counted from 0."""
        new = 1 - min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), new)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
