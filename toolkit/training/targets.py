"""What a net is to learn of each photograph: its class, or shares of several classes and of the years of its age."""

import math

import torch

from toolkit.labels import AGE_FROM_YEARS, BORDER_YEARS, CLASSES, age_band, to_attributes
from toolkit.models import factored_head


def build(labels: torch.Tensor, years: torch.Tensor, shares: bool, soften: bool, with_years: bool) -> torch.Tensor:
    """The targets of photographs of these classes (int64) and ages in years (float; NaN is not known), shape (n,).

    The classes themselves; or, where `shares` are wanted, float32 of shape (n, 18), or (n, 18 + factored.YEARS) with
    years. `soften` gives BORDER_YEARS a share of the class of 60 and over: that of a Gaussian around their age.
    """
    if not (shares or soften or with_years):
        return labels
    table = torch.nn.functional.one_hot(labels, CLASSES).float()
    if soften:
        for border in BORDER_YEARS:
            distance = AGE_FROM_YEARS[1] - 0.5 - border
            old = 0.5 * math.erfc(distance / factored_head.SPREAD / math.sqrt(2))
            rows = (years == border) & (to_attributes(labels)["age"] == age_band(border))
            table[rows] = (1 - old) * table[rows] + old * table[rows].roll(1, 1)  # the next class is the next age band
    return torch.cat([table, factored_head.soft_years(years)], 1) if with_years else table
