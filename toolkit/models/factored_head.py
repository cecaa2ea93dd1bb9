"""The factored head: mask, gender and age are predicted apart, and age over single years.

What it gives looks like any other net's: the first 18 columns are the log-probabilities of the classes. Those of the
years 0 to 100 stand behind them.
"""

import torch
from torch import nn

from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASSES

YEARS = 101
PARTS = (len(ATTRIBUTES["mask"]), len(ATTRIBUTES["gender"]), YEARS)
SPREAD = 2.0  # years: the standard deviation of soft ages


class Factored(nn.Module):
    """A net of sum(PARTS) outputs, joined: float32, shape (b, 18 + YEARS)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, photographs: torch.Tensor) -> torch.Tensor:
        mask, gender, years = self.net(photographs).float().split(PARTS, 1)  # by name: torch.fx follows no loop
        return join(mask.log_softmax(1), gender.log_softmax(1), years.log_softmax(1))


def join(mask: torch.Tensor, gender: torch.Tensor, years: torch.Tensor, old_from: int = AGE_FROM_YEARS[1]):
    """Log-probabilities of the classes and of the years, shape (b, 18 + YEARS), from those of each part."""
    edges = (0, AGE_FROM_YEARS[0], old_from, YEARS)
    bands = torch.stack([years[:, edges[i] : edges[i + 1]].logsumexp(1) for i in range(3)], 1)
    classes = mask[:, :, None, None] + gender[:, None, :, None] + bands[:, None, None, :]
    return torch.cat([classes.flatten(1), years], 1)


def move_old(outputs: torch.Tensor, old_from: int) -> torch.Tensor:
    """The same log-probabilities with the third age band beginning at another year."""
    classes, years = outputs.split((CLASSES, YEARS), 1)
    pairs = classes.view(-1, PARTS[0], PARTS[1], 3).logsumexp(3)
    return join(pairs.logsumexp(2), pairs.logsumexp(1), years, old_from)


def soft_years(years: torch.Tensor) -> torch.Tensor:
    """Ages as shares of the years around them, a Gaussian's: float32, shape (n, YEARS); 0 where the age is not known.

    Neighbouring ages look alike, and a photograph of one teaches them all (Geng, Label Distribution Learning, 2016).
    """
    distance = torch.arange(YEARS, device=years.device) - years.float()[:, None]
    return (-0.5 * (distance / SPREAD) ** 2).softmax(1).nan_to_num(0.0)
