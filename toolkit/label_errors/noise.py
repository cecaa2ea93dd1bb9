"""How likely a label is wrong: what nets say of it, held against many labels of which a few are wrong."""

from dataclasses import dataclass

import numpy as np

ROUNDS = 12  # until values are as common as they should be
SCALES = np.geomspace(0.02, 2.0, 48)
SHARES = np.geomspace(1e-4, 0.4, 48)
# What is believed before: a scale of about a half, and one wrong label in a hundred, as if seen of thirty people.
USUAL_SCALE, SPREAD, USUAL_SHARE, SEEN = 0.5, 1.0, 0.01, 30


@dataclass(frozen=True)
class Noise:
    """What labels call for: `scale` of the evidence, and which `share` of them is wrong."""

    scale: float
    share: float


def fit(evidence: np.ndarray, common: np.ndarray, honest: np.ndarray) -> Noise:
    """The likeliest noise, for all labels of one kind.

    `evidence`, shape (n, k), says in nats how well what is seen fits each of k values; `common`, shape (k,), how common
    those are; `honest`, shape (n, k), how likely the label that was given is for each value, if its writer saw rightly.
    Several photographs of a person are not as good as several people, and a net may be too sure: so evidence has a
    scale. A share of the labels is any other one (logistic regression that is robust to label noise: Bootkrajang and
    Kaban, Label-noise robust logistic regression and its applications, 2012).
    """
    chance = np.empty((len(SCALES), len(SHARES)))
    for row, scale in enumerate(SCALES):
        true = _values(evidence, common, scale)
        right, other = (true * honest).sum(1), (true * _otherwise(honest)).sum(1)
        for column, share in enumerate(SHARES):
            chance[row, column] = np.log(np.maximum((1 - share) * right + share * other, 1e-300)).sum()
    chance += (-0.5 * (np.log(SCALES / USUAL_SCALE) / SPREAD) ** 2)[:, None]
    chance += USUAL_SHARE * SEEN * np.log(SHARES) + (1 - USUAL_SHARE) * SEEN * np.log1p(-SHARES)
    row, column = np.unravel_index(chance.argmax(), chance.shape)
    return Noise(float(SCALES[row]), float(SHARES[column]))


def wrong(evidence: np.ndarray, common: np.ndarray, honest: np.ndarray, noise: Noise) -> np.ndarray:
    """How likely each value is the true one, and the label wrong: shape (n, k); shapes are those of `fit`.

    The rows' sums are how likely the labels are wrong.
    """
    true = _values(evidence, common, noise.scale)
    right, other = (1 - noise.share) * true * honest, noise.share * true * _otherwise(honest)
    return other / np.maximum((right + other).sum(1, keepdims=True), 1e-300)


def _values(evidence: np.ndarray, common: np.ndarray, scale: float) -> np.ndarray:
    """How likely each value is by what is seen, all values as common as they are: shape (n, k)."""
    logs = scale * evidence + np.log(np.maximum(common, 1e-12))
    for _ in range(ROUNDS):  # a net that sees too little says the commonest of everybody: that doubts nobody
        powers = np.exp(logs - logs.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
        logs = logs + np.log(np.maximum(common, 1e-12) / np.maximum(values.mean(0), 1e-12)) if len(values) else logs
    return values


def _otherwise(honest: np.ndarray) -> np.ndarray:
    """How likely the label is for each value if it is any other one: shape (n, k)."""
    return (1 - honest) / max(honest.shape[1] - 1, 1)
