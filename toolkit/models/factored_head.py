"""The factored head: mask, gender and age are predicted apart, and age as a distribution over single years.

    log p(class) = log p(mask) + log p(gender) + log (sum of p(year) over the years of the age band)

Its outputs look like those of any model: the first 18 columns are the log-probabilities of the classes. Those of the
years 0 to 100 follow.
"""

import itertools
from collections.abc import Callable

import torch
from torch import nn

from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASSES

YEARS = 101
PARTS = (len(ATTRIBUTES["mask"]), len(ATTRIBUTES["gender"]), YEARS)  # outputs of the model below
SPREAD_YEARS = 6.0  # standard deviation of soft ages: nets are off by as much on people whom they have not seen


class FactoredHead(nn.Module):
    """Joins the sum(PARTS) outputs of a model to log-probabilities: float32, shape (b, 18 + YEARS)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.net = model  # "net" is part of the weights' names in files

    def forward(self, photographs: torch.Tensor) -> torch.Tensor:
        # One by one, as torch.fx, which fuses batch norm, cannot trace a loop over a split.
        mask, gender, years = self.net(photographs).float().split(PARTS, 1)
        return join(mask.log_softmax(1), gender.log_softmax(1), years.log_softmax(1))


def join(mask: torch.Tensor, gender: torch.Tensor, years: torch.Tensor, old_from: int = AGE_FROM_YEARS[1]):
    """Log-probabilities of classes and years, shape (b, 18 + YEARS), from those of the three parts.

    The third age band begins at the year `old_from`.
    """
    bands = in_bands(years, torch.logsumexp, old_from)
    classes = mask[:, :, None, None] + gender[:, None, :, None] + bands[:, None, None, :]
    return torch.cat([classes.flatten(1), years], 1)


def in_bands(years: torch.Tensor, combine: Callable, old_from: int = AGE_FROM_YEARS[1]) -> torch.Tensor:
    """Shape (n, 3): the years of each age band, of shape (n, YEARS), combined by torch.sum or torch.logsumexp."""
    edges = (0, AGE_FROM_YEARS[0], old_from, YEARS)
    return torch.stack([combine(years[:, first:end], 1) for first, end in itertools.pairwise(edges)], 1)


def with_old_from(outputs: torch.Tensor, year: int) -> torch.Tensor:
    """The same outputs with a third age band that begins at another year."""
    classes, years = outputs.split((CLASSES, YEARS), 1)
    mask_and_gender = classes.view(-1, PARTS[0], PARTS[1], 3).logsumexp(3)
    return join(mask_and_gender.logsumexp(2), mask_and_gender.logsumexp(1), years, year)


def soft_years(years: torch.Tensor, bands: torch.Tensor) -> torch.Tensor:
    """Each age as a Gaussian over the years around it: float32, shape (n, YEARS); zeros where the age is NaN.

    Neighbouring ages look alike, so one photograph teaches them all (Geng, Label Distribution Learning, 2016). `bands`,
    shape (n, 3), is the share of each age band, to which the Gaussian is scaled: else somebody who is certainly 60
    would be under 60 with a probability of 0.4.
    """
    distance = torch.arange(YEARS, device=years.device) - years.float()[:, None]
    log_p = -0.5 * (distance / SPREAD_YEARS) ** 2
    parts = [
        log_p[:, first:end].softmax(1) * bands[:, [band]]
        for band, (first, end) in enumerate(itertools.pairwise((0, *AGE_FROM_YEARS, YEARS)))
    ]
    return torch.cat(parts, 1).nan_to_num(0.0)
