"""The probability that a label is wrong, by a model of label noise that is fitted to all labels of one kind.

For row i, value v of k values, and the label y_i that was given:

    p(v | x_i) = softmax_v(scale * evidence[i, v] + log b_v), with b such that mean over i of p(v | x_i) = priors[v]
    p(y_i | v) = (1 - e) * L[i, v] + e * (1 - L[i, v]) / (k - 1)
    p(v is true and y_i is wrong) = p(v | x_i) * e * (1 - L[i, v]) / (k - 1) / sum_u p(u | x_i) * p(y_i | u)

`evidence` is in nats. `scale` is less than 1 where evidence is overrated: a net may be overconfident, and several
photographs of one person are not independent. `L` is the likelihood of the label that was given if it is no error, `e`
the error rate: such a label is any other value with the same probability. The fit is the maximum of the posterior on a
grid of scale and e (logistic regression robust to label noise: Bootkrajang and Kaban, Label-noise robust logistic
regression and its applications, 2012), with log scale ~ Normal(log 0.5, 1) and e as if 1 % of 30 labels had been wrong.

Shapes in this module: evidence (n, k), priors (k,), label_likelihood L (n, k); all float64.
"""

from dataclasses import dataclass

import numpy as np

SCALES = np.geomspace(0.02, 2.0, 48)
ERROR_RATES = np.geomspace(1e-4, 0.4, 48)
PRIOR_SCALE, PRIOR_LOG_SCALE_SD = 0.5, 1.0
PRIOR_ERROR_RATE, PRIOR_COUNT = 0.01, 30  # the prior of e counts as much as so many labels
BALANCING_ROUNDS = 12  # until the means of p(v | x_i) are the priors
TINY = 1e-300  # keeps logarithms and divisions finite


@dataclass(frozen=True)
class Noise:
    """The two parameters of the model."""

    scale: float
    error_rate: float


def fit_noise(evidence: np.ndarray, priors: np.ndarray, label_likelihood: np.ndarray) -> Noise:
    """The most probable noise, for all labels of one kind."""
    log_posterior = np.empty((len(SCALES), len(ERROR_RATES)))
    for row, scale in enumerate(SCALES):
        p = _value_probabilities(evidence, priors, scale)
        # sum_v p(v | x) p(y | v) is linear in e: both sums are taken once for each scale, and not for each e.
        correct, error = (p * label_likelihood).sum(1), (p * _error_likelihood(label_likelihood)).sum(1)
        for column, e in enumerate(ERROR_RATES):
            log_posterior[row, column] = np.log(np.maximum((1 - e) * correct + e * error, TINY)).sum()
    log_posterior += (-0.5 * (np.log(SCALES / PRIOR_SCALE) / PRIOR_LOG_SCALE_SD) ** 2)[:, None]
    wrong, right = PRIOR_ERROR_RATE * PRIOR_COUNT, (1 - PRIOR_ERROR_RATE) * PRIOR_COUNT
    log_posterior += wrong * np.log(ERROR_RATES) + right * np.log1p(-ERROR_RATES)
    row, column = np.unravel_index(log_posterior.argmax(), log_posterior.shape)
    return Noise(float(SCALES[row]), float(ERROR_RATES[column]))


def error_probabilities(
    evidence: np.ndarray, priors: np.ndarray, label_likelihood: np.ndarray, noise: Noise
) -> np.ndarray:
    """p(v is true and the label is wrong): shape (n, k). The sum of row i is p(label i is wrong)."""
    p = _value_probabilities(evidence, priors, noise.scale)
    correct = (1 - noise.error_rate) * p * label_likelihood
    error = noise.error_rate * p * _error_likelihood(label_likelihood)
    return error / np.maximum((correct + error).sum(1, keepdims=True), TINY)


def _value_probabilities(evidence: np.ndarray, priors: np.ndarray, scale: float) -> np.ndarray:
    """p(v | x_i): shape (n, k)."""
    log_priors = np.log(np.maximum(priors, 1e-12))
    logits = scale * evidence + log_priors
    for _ in range(BALANCING_ROUNDS):
        # A net that sees too little predicts the commonest value for everybody, and all other labels would look wrong.
        # Once the means are the priors, such a net says nothing against any label.
        powers = np.exp(logits - logits.max(1, keepdims=True))
        p = powers / powers.sum(1, keepdims=True)
        if len(p):
            logits = logits + log_priors - np.log(np.maximum(p.mean(0), 1e-12))
    return p


def _error_likelihood(label_likelihood: np.ndarray) -> np.ndarray:
    """(1 - L) / (k - 1): shape (n, k)."""
    return (1 - label_likelihood) / max(label_likelihood.shape[1] - 1, 1)
