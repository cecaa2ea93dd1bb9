"""Prior correction: what class weights and samplers change in the logits, taken out again.

A net that was trained on classes as common as `sampled_priors`, by a loss that counts each class `loss_weights` times,
gives, up to a constant and a temperature T, the logits

    log p(photograph | class) + log sampled_priors + log loss_weights

For people among whom the classes are as common as `priors`, the probabilities are therefore

    p = softmax((logits - log loss_weights) / T + log(priors / sampled_priors))

The weights are subtracted before the temperature, the prior shift is added after it. The best net for weighted cross
entropy with smoothed labels has softmax(logits) = weights x smoothed posterior, so only the smoothed posterior may be
scaled; while a sampler changes the posterior itself, before its labels are smoothed.
"""

from dataclasses import dataclass

import numpy as np

from toolkit.labels import CLASSES
from toolkit.scoring.calibration import softmax

SMALLEST = 1e-12  # in place of 0, where a logarithm or a ratio is taken


@dataclass(frozen=True)
class PriorCorrection:
    """Three numbers for each class, shape (18,), as tuples, so that they can be stored with the weights."""

    priors: tuple[float, ...]  # shares of the classes among the people of training
    sampled_priors: tuple[float, ...]  # shares among what the net is trained on: samplers and soft labels change them
    loss_weights: tuple[float, ...] = (1.0,) * CLASSES  # how many times as much the loss counts each class

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

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """p as above: float64, shape (n, 18), from logits of that shape."""
        return softmax(logits - self.log_loss_weights(), temperature, self.log_prior_shift())

    def logits(self, p: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
        """The inverse of `probabilities`, up to a constant in each row; the temperature may be one for each, (n, 1)."""
        return temperature * (np.log(p) - self.log_prior_shift()) + self.log_loss_weights()


def normalised(weights: np.ndarray) -> np.ndarray:
    """Scaled so that each row sums to 1."""
    return weights / weights.sum(-1, keepdims=True)


def at_least(values, smallest: float = SMALLEST) -> np.ndarray:
    return np.maximum(values, smallest)
