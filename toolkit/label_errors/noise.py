"""The probability that a label is wrong, by a model of label noise that is fitted to all labels of one kind.

For row i, value v of k values, and the label that was given, which names the value y_i:

    p(v | x_i) = softmax_v(scale * evidence[i, v] + log b_v), with b such that mean over i of p(v | x_i) = priors[v]
    right[i, v] = p(v | x_i) * fit_i for v = y_i, fit_i = sum over u of p(u | x_i) * appearance[i, u]
    wrong[i, v] = p(v | x_i) / (k - 1) for v other than y_i
    p(v is true and label i is wrong) = e * wrong[i, v] / sum over u of ((1 - e) * right[i, u] + e * wrong[i, u])

`evidence` is in nats. `scale` is less than 1 where evidence is overrated: a net may be overconfident, and several
photographs of one person are not independent. `e` is the error rate: a wrong label is any other value with the same
probability. `appearance` is for labels that say more than their value, as years of age do:

    appearance[i, v] = p(i looks like v | label of i) / p(i looks like v | y_i)

Somebody of 29 looks 30 more often than others under 30 do. Only people of one value are compared: how old people look
in general is part of the net's evidence already. How far apparent ages spread is not known, so several are tried.

Each point of a grid of scale, appearance and e is weighed by its posterior probability, with log scale ~ Normal(log
0.5, 1) and e as if 5 % of 5 labels had been wrong (logistic regression robust to label noise: Bootkrajang and Kaban,
Label-noise robust logistic regression and its applications, 2012). Results are means over the grid: a good net with few
errors and a bad net with many may fit equally well, and the best point alone would be one of the two.

Shapes in this module: evidence (n, k), priors (k,), is_given (n, k) with 1 at y_i, each appearance (n, k); all float64.
"""

from collections.abc import Sequence

import numpy as np

SCALES = np.geomspace(0.02, 2.0, 24)
ERROR_RATES = np.geomspace(1e-4, 0.4, 32)
PRIOR_SCALE, PRIOR_LOG_SCALE_SD = 0.5, 1.0
PRIOR_ERROR_RATE, PRIOR_COUNT = 0.05, 5  # the prior of e counts as much as so many labels
BALANCING_ROUNDS = 12  # until the means of p(v | x_i) are the priors
SMALLEST_WEIGHT = 1e-3  # of the largest: less probable points of the grid are passed over
TINY = 1e-300  # keeps logarithms and divisions finite


def error_probabilities(
    evidence: np.ndarray, priors: np.ndarray, is_given: np.ndarray, appearances: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """p(v is true and label i is wrong): shape (n, k). The sum of row i is p(label i is wrong).

    `appearances` are those to try; None is 1 everywhere.
    """
    appearances = appearances or [np.ones(evidence.shape)]
    weights = grid_posterior(evidence, priors, is_given, appearances)
    weights = np.where(weights < SMALLEST_WEIGHT * weights.max(), 0.0, weights)
    total = np.zeros(evidence.shape)
    for scale, weights_of_scale in zip(SCALES, weights / weights.sum(), strict=True):
        p = _value_probabilities(evidence, priors, scale) if weights_of_scale.any() else None
        for number, column in np.argwhere(weights_of_scale):
            e, (right, wrong) = ERROR_RATES[column], _joint(p, is_given, appearances[number])
            joint = (1 - e) * right + e * wrong
            total += weights_of_scale[number, column] * e * wrong / np.maximum(joint.sum(1, keepdims=True), TINY)
    return total


def grid_posterior(
    evidence: np.ndarray, priors: np.ndarray, is_given: np.ndarray, appearances: Sequence[np.ndarray]
) -> np.ndarray:
    """How probable each point of the grid is: shape (scales, appearances, error rates); the sum is 1."""
    wrong_before, right_before = PRIOR_ERROR_RATE * PRIOR_COUNT, (1 - PRIOR_ERROR_RATE) * PRIOR_COUNT
    log_posterior = np.empty((len(SCALES), len(appearances), len(ERROR_RATES)))
    log_posterior[:] = wrong_before * np.log(ERROR_RATES) + right_before * np.log1p(-ERROR_RATES)
    log_posterior -= 0.5 * (np.log(SCALES / PRIOR_SCALE) / PRIOR_LOG_SCALE_SD)[:, None, None] ** 2
    for row, scale in enumerate(SCALES):
        p = _value_probabilities(evidence, priors, scale)
        for number, each in enumerate(appearances):
            # p(label i | x_i) is linear in e: both sums are taken once, and not for each e.
            right, wrong = (joint.sum(1) for joint in _joint(p, is_given, each))
            for column, e in enumerate(ERROR_RATES):
                log_posterior[row, number, column] += np.log(np.maximum((1 - e) * right + e * wrong, TINY)).sum()
    posterior = np.exp(log_posterior - log_posterior.max())
    return posterior / posterior.sum()


def _joint(p: np.ndarray, is_given: np.ndarray, appearance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """right and wrong, shape (n, k), from p(v | x_i)."""
    fit = (p * appearance).sum(1, keepdims=True)
    return p * is_given * fit, p * (1 - is_given) / max(p.shape[1] - 1, 1)


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
