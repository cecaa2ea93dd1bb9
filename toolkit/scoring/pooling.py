"""Pooling: the photographs of a person are combined to decide gender and age band.

    p(gender, age) is proportional to exp(mean of log p_i(gender, age)), over the photographs i of the person
    p_i(class) = p_i(mask) p(gender, age)

This is the logarithmic opinion pool (Genest and Zidek, 1986) with equal weights that sum to 1. Weights of 1 each would
be right for independent photographs; but those of one person tend to be right or wrong together, so all of them count
as one.
"""

from collections.abc import Sequence

import numpy as np

from toolkit.labels import ATTRIBUTES
from toolkit.scoring import metrics
from toolkit.scoring.prior_correction import at_least, normalised

POOLED = ("gender", "age")  # the attributes that all photographs of a person have in common


def pool(p: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Probabilities after pooling: float64, shape (n, 18), from those of each photograph alone and its person's name.

    A person's only photograph keeps its probabilities.
    """
    names, person, photographs = np.unique(np.asarray(people, str), return_inverse=True, return_counts=True)
    own = metrics.membership(*(name for name in ATTRIBUTES if name not in POOLED))
    shared = metrics.membership(*POOLED)
    sums = np.zeros((len(names), shared.shape[1]))
    np.add.at(sums, person, np.log(at_least(p @ shared)))
    pooled = normalised(np.exp(sums / photographs[:, None]))[person]
    together = (p @ own @ own.T) * (pooled @ shared.T)
    return np.where(photographs[person][:, None] > 1, together, p)
