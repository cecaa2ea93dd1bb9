"""Prior correction: undoes what class weights, label smoothing and samplers change in the logits.

Training on class frequencies `sampled_priors`, with a loss that multiplies each class by `loss_weights` and spreads the
share `smoothing` of each label over all classes, has its minimum at

    softmax(logits) = loss_weights x ((1 - smoothing) posterior + smoothing / 18), normalised

where posterior is proportional to p(photograph | class) x sampled_priors. For people with class frequencies `priors`,
the probabilities are therefore, with a temperature T because a net does not reach the minimum,

    smoothed  = softmax(logits - log loss_weights)
    posterior = max((smoothed - smoothing / 18) / (1 - smoothing), SMALLEST_POSTERIOR)
    p         = softmax(log posterior / T + log(priors / sampled_priors))

A temperature alone does not undo smoothing: each of 18 classes keeps at least a few thousandths, or the first gets too
much. SMALLEST_POSTERIOR is needed because a real net's smoothed probabilities also fall below smoothing / 18.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from toolkit.config.types import NotNegative, Positive
from toolkit.labels import CLASSES
from toolkit.scoring.calibration import softmax

SMALLEST = 1e-12  # replaces 0 in logarithms and ratios
SMALLEST_POSTERIOR = 1e-3  # of a class, if labels were smoothed

OfClasses = Field(min_length=CLASSES, max_length=CLASSES)
Priors = Annotated[tuple[NotNegative, ...], OfClasses]
LossWeights = Annotated[tuple[Positive, ...], OfClasses]


@dataclass(frozen=True)
class PriorCorrection:
    """What to undo: three numbers for each class, and smoothing. Stored with the weights."""

    priors: Priors  # class frequencies among the people of training
    sampled_priors: Priors  # those in the batches, which samplers and soft labels change
    loss_weights: LossWeights = (1.0,) * CLASSES  # factor of each class in the loss
    smoothing: Annotated[NotNegative, Field(lt=1)] = 0.0  # share of each label that the loss spreads over all classes

    def log_loss_weights(self) -> np.ndarray:
        """float64, shape (18,)."""
        return np.log(self.loss_weights)

    def log_prior_shift(self) -> np.ndarray:
        """log(priors / sampled_priors): float64, shape (18,).

        0 if either is 0: BORDER_AGES may remove a class from the batches or add one to them, and then the ratio says
        nothing about people.
        """
        priors, sampled = np.array(self.priors), np.array(self.sampled_priors)
        return np.where((priors > 0) & (sampled > 0), np.log(at_least(priors) / at_least(sampled)), 0.0)

    def log_posterior(self, logits: np.ndarray) -> np.ndarray:
        """log posterior as above, up to a constant in each row: float64, shape (n, 18), from logits of that shape."""
        logits = logits - self.log_loss_weights()
        if not self.smoothing:
            return logits
        posterior = (softmax(logits) - self.smoothing / CLASSES) / (1 - self.smoothing)
        return np.log(at_least(posterior, SMALLEST_POSTERIOR))

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """p as above: float64, shape (n, 18), from logits of that shape."""
        return softmax(self.log_posterior(logits), temperature, self.log_prior_shift())

    def log_posterior_of(self, p: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
        """log posterior from p, shape (n, 18), up to a constant in each row; temperature: a number, or (n, 1)."""
        return temperature * (np.log(p) - self.log_prior_shift())


def normalised(weights: np.ndarray) -> np.ndarray:
    """The weights, scaled so that each row sums to 1."""
    return weights / weights.sum(-1, keepdims=True)


def at_least(values, smallest: float = SMALLEST) -> np.ndarray:
    return np.maximum(values, smallest)
