"""Targets of the loss: the class of each photograph or, where it is soft, shares of classes and of years."""

import math

import torch

from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, BORDER_YEARS, CLASSES, age_band, to_attributes, to_class
from toolkit.models import factored_head

BORDER_SPREAD = 2.0  # years: standard deviation of the apparent ages of people of one border age


def make_targets(
    labels: torch.Tensor, years: torch.Tensor, *, soft: bool = False, soften: bool = False, with_years: bool = False
) -> torch.Tensor:
    """The targets of photographs with these classes (int64) and ages (float years, NaN if unknown), shape (n,) each.

    `labels` itself if nothing is soft; else float32 of shape (n, 18) or, `with_years`, (n, 18 + factored_head.YEARS).
    `soft`: give shares in any case, for mixed photographs or pseudo-labels. `soften`: for each age of BORDER_YEARS
    below 60, P(Normal(age, BORDER_SPREAD) > 59.5) moves to the class of 60 and over. The shares of years agree with
    those of the classes.
    """
    if not (soft or soften or with_years):
        return labels
    table = torch.nn.functional.one_hot(labels, CLASSES).float()
    if soften:
        next_band = to_class(*(name == "age" for name in ATTRIBUTES))  # how many classes further the next age band is
        for border in (year for year in BORDER_YEARS if year < AGE_FROM_YEARS[1]):
            distance = AGE_FROM_YEARS[1] - 0.5 - border
            old = 0.5 * math.erfc(distance / BORDER_SPREAD / math.sqrt(2))
            rows = (years == border) & (to_attributes(labels)["age"] == age_band(border))
            table[rows] = (1 - old) * table[rows] + old * table[rows].roll(next_band, 1)
    if not with_years:
        return table
    bands = table.view(len(table), -1, len(ATTRIBUTES["age"])).sum(1)
    return torch.cat([table, factored_head.soft_years(years, bands)], 1)
