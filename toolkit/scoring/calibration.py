"""Probabilities that mean what they say: logits divided by a temperature that validation people call for."""

import numpy as np

FOLDS = 5  # by person, to see whether a temperature helps people whom it was not fitted on
BINS = 15  # of the calibration error
TEMPERATURES = (0.1, 10.0)  # the lowest and the highest


def softmax(logits: np.ndarray, temperature: float | np.ndarray = 1.0, lift: float | np.ndarray = 0.0) -> np.ndarray:
    """The probabilities of the classes, from logits of shape (n, 18): float64, shape (n, 18).

    The temperature may be one for each row, of shape (n, 1); `lift`, shape (18,), is added behind it.
    """
    logits = np.asarray(logits, np.float64) / temperature + lift
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, lift: float | np.ndarray = 0.0) -> float:
    """The temperature for the greatest likelihood of labels, (n,), after Guo et al., 2017.

    The loss is convex in the inverse of the temperature: where its slope is 0 is found by bisection.
    """
    logits = np.asarray(logits, np.float64)
    of_label = logits[np.arange(len(labels)), labels]
    coldest, hottest = TEMPERATURES
    low, high = 1 / hottest, 1 / coldest
    for _ in range(50):
        inverse = (low + high) / 2
        slope = ((softmax(logits, 1 / inverse, lift) * logits).sum(1) - of_label).mean()
        low, high = (inverse, high) if slope < 0 else (low, inverse)
    return 1 / inverse


def temperature_that_helps(
    logits: np.ndarray, labels: np.ndarray, people: np.ndarray, lift: float | np.ndarray = 0.0
) -> float:
    """The fitted temperature, if those fitted without a fifth of the people make that fifth likelier in all; else 1."""
    names, number = np.unique(people, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[number] % FOLDS
    if len(names) < FOLDS:
        return 1.0
    fitted = [fit_temperature(logits[fold != k], labels[fold != k], lift) for k in range(FOLDS)]
    before = likelihood_loss(softmax(logits, 1.0, lift), labels)
    after = likelihood_loss(softmax(logits, np.array(fitted)[fold][:, None], lift), labels)
    return fit_temperature(logits, labels, lift) if after < before else 1.0


def likelihood_loss(p: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative log-likelihood of the labels, in nats."""
    return float(-np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-12)).mean())


def calibration_error(p: np.ndarray, labels: np.ndarray) -> float:
    """How far confidence and accuracy lie apart, over BINS equal bins of confidence (Guo et al., 2017, ECE)."""
    photographs, confidence, accuracy = in_bins(p, labels)
    return float(np.average(np.abs(accuracy - confidence), weights=photographs))


def in_bins(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photographs, mean confidence and accuracy of the bins that hold any, from low to high: shape (bins,) each.

    Confidence is the probability of the likeliest class, accuracy how often that is right.
    """
    confidence, right = p.max(1), p.argmax(1) == labels
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    photographs = np.bincount(number, minlength=BINS)
    sums = [np.bincount(number, values, BINS)[photographs > 0] for values in (confidence, right)]
    photographs = photographs[photographs > 0]
    return photographs, *(values / photographs for values in sums)
