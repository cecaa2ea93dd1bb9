"""Calibrated probabilities: logits divided by a temperature that is fitted on validation people."""

import numpy as np

FOLDS = 5  # by person: does a temperature help people on whom it was not fitted?
BINS = 15  # of the calibration error
TEMPERATURES = (0.1, 10.0)  # lowest and highest


def softmax(logits: np.ndarray, temperature: float | np.ndarray = 1.0, shift: float | np.ndarray = 0.0) -> np.ndarray:
    """softmax(logits / temperature + shift): float64, shape (n, 18), from logits of that shape.

    The temperature is a number, or one for each row, shape (n, 1); `shift` is a number or of shape (18,).
    """
    logits = np.asarray(logits, np.float64) / temperature + shift
    exponentials = np.exp(logits - logits.max(1, keepdims=True))  # minus the highest, so that none overflows
    return exponentials / exponentials.sum(1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, shift: float | np.ndarray = 0.0) -> float:
    """The temperature with the lowest NLL of the labels, shape (n,) (Guo et al., 2017).

    The NLL is convex in 1 / temperature, so bisection of its derivative finds the one minimum.
    """
    logits = np.asarray(logits, np.float64)
    logit_of_label = logits[np.arange(len(labels)), labels]
    coldest, hottest = TEMPERATURES
    low, high = 1 / hottest, 1 / coldest
    for _ in range(50):
        inverse = (low + high) / 2
        derivative = ((softmax(logits, 1 / inverse, shift) * logits).sum(1) - logit_of_label).mean()
        low, high = (inverse, high) if derivative < 0 else (low, inverse)
    return 1 / inverse


def cross_validated_temperature(
    logits: np.ndarray, labels: np.ndarray, people: np.ndarray, shift: float | np.ndarray = 0.0
) -> float:
    """The fitted temperature if it lowers the NLL of people on whom it was not fitted, else 1.

    Each fifth of the people is scored with a temperature that was fitted on the other four fifths. With a few dozen
    people the fitted temperature is mostly noise, and 1 is the better guess. Shapes: logits (n, 18), labels and people
    (n,).
    """
    names, number = np.unique(people, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[number] % FOLDS
    if len(names) < FOLDS:
        return 1.0
    fitted = [fit_temperature(logits[fold != k], labels[fold != k], shift) for k in range(FOLDS)]
    before = nll(softmax(logits, 1.0, shift), labels)
    after = nll(softmax(logits, np.array(fitted)[fold][:, None], shift), labels)
    return fit_temperature(logits, labels, shift) if after < before else 1.0


def nll(p: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative log-likelihood of the labels, in nats."""
    return float(-np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-12)).mean())


def ece(p: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: mean |accuracy - confidence| over BINS, by photographs (Guo et al., 2017)."""
    photographs, confidence, accuracy = reliability(p, labels)
    return float(np.average(np.abs(accuracy - confidence), weights=photographs))


def reliability(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photographs, mean confidence and accuracy of each bin that is not empty, from low to high: shape (bins,) each.

    Confidence is the probability of the likeliest class, accuracy how often that class is right.
    """
    confidence, right = p.max(1), p.argmax(1) == labels
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    photographs = np.bincount(number, minlength=BINS)
    sums = [np.bincount(number, values, BINS)[photographs > 0] for values in (confidence, right)]
    photographs = photographs[photographs > 0]
    return photographs, *(values / photographs for values in sums)
