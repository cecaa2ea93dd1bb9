"""Prior correction: what class weights, label smoothing and samplers change in the logits, taken out again.

A net that was trained on classes as common as `sampled_priors`, by a loss that counts each class `loss_weights` times
and spreads the share `smoothing` of each label over all classes, has at best

    softmax(logits) = loss_weights x ((1 - smoothing) posterior + smoothing / 18), normalised

with a posterior in proportion to p(photograph | class) x sampled_priors. For people among whom the classes are as
common as `priors`, the probabilities are therefore, with a temperature T for what the net is not at best,

    smoothed  = softmax(logits - log loss_weights)
    posterior = max((smoothed - smoothing / 18) / (1 - smoothing), SMALLEST_POSTERIOR)
    p         = softmax(log posterior / T + log(priors / sampled_priors))

A temperature alone does not undo smoothing: it leaves each of 18 classes at least a few thousandths, or makes the
net too sure of the first. SMALLEST_POSTERIOR, as a real net's smoothed probabilities also fall below smoothing / 18.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from toolkit.config.types import NotNegative, Positive
from toolkit.labels import CLASSES
from toolkit.scoring.calibration import softmax

SMALLEST = 1e-12  # in place of 0, where a logarithm or a ratio is taken
SMALLEST_POSTERIOR = 1e-3  # of a class, where labels were smoothed

OfClasses = Field(min_length=CLASSES, max_length=CLASSES)
Priors = Annotated[tuple[NotNegative, ...], OfClasses]
LossWeights = Annotated[tuple[Positive, ...], OfClasses]


@dataclass(frozen=True)
class PriorCorrection:
    """What to take out: three numbers for each class, as tuples that can be stored with the weights, and smoothing."""

    priors: Priors  # shares of the classes among the people of training
    sampled_priors: Priors  # shares among what the net is trained on: samplers and soft labels change them
    loss_weights: LossWeights = (1.0,) * CLASSES  # how many times as much the loss counts each class
    smoothing: Annotated[NotNegative, Field(lt=1)] = 0.0  # share of each label that the loss spreads over all classes

    def log_loss_weights(self) -> np.ndarray:
        """float64, shape (18,)."""
        return np.log(self.loss_weights)

    def log_prior_shift(self) -> np.ndarray:
        """log(priors / sampled_priors): float64, shape (18,).

        0 where either is 0: BORDER_AGES may remove a class from what the net is trained on, or add one to it, and then
        the ratio says nothing about people.
        """
        priors, sampled = np.array(self.priors), np.array(self.sampled_priors)
        return np.where((priors > 0) & (sampled > 0), np.log(at_least(priors) / at_least(sampled)), 0.0)

    def log_posterior(self, logits: np.ndarray) -> np.ndarray:
        """As above, up to a constant in each row: float64, shape (n, 18), from logits of that shape."""
        logits = logits - self.log_loss_weights()
        if not self.smoothing:
            return logits
        posterior = (softmax(logits) - self.smoothing / CLASSES) / (1 - self.smoothing)
        return np.log(at_least(posterior, SMALLEST_POSTERIOR))

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """p as above: float64, shape (n, 18), from logits of that shape."""
        return softmax(self.log_posterior(logits), temperature, self.log_prior_shift())

    def log_posterior_of(self, p: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
        """log posterior from p, up to a constant in each row; the temperature may be one for each row, shape (n, 1)."""
        return temperature * (np.log(p) - self.log_prior_shift())


def normalised(weights: np.ndarray) -> np.ndarray:
    """Scaled so that each row sums to 1."""
    return weights / weights.sum(-1, keepdims=True)


def at_least(values, smallest: float = SMALLEST) -> np.ndarray:
    return np.maximum(values, smallest)
