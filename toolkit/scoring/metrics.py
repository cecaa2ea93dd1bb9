"""Every score from one 18 x 18 confusion matrix: counts add up over batches and processes, means of means do not."""

import math

import numpy as np

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES, to_attributes

BOOTSTRAP_DRAWS = 1000
FEW_PEOPLE = 20  # with fewer, the bootstrap's intervals are too narrow: with one person all draws are the same
Z = 1.96  # of 95 % intervals


def confusion(true, predicted) -> np.ndarray:
    """Counts of shape (18, 18), int64: row is the true class, column the predicted one."""
    return np.bincount(_cells(true, predicted), minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def membership(*attributes: str) -> np.ndarray:
    """For each class the combination of values of these attributes, one-hot: int64, shape (18, combinations)."""
    values, shape = to_attributes(np.arange(CLASSES)), [len(ATTRIBUTES[name]) for name in attributes]
    numbers = np.ravel_multi_index([values[name] for name in attributes], shape)
    return np.eye(math.prod(shape), dtype=np.int64)[numbers]


def scores(matrix: np.ndarray) -> dict:
    """All scores of a confusion matrix, as plain numbers that JSON can hold.

    {"count", "accuracy", "macro_f1", "classes": [{"class", "name", "count", "precision", "recall", "f1"}],
    "attributes": {"mask" | "gender" | "age": {"accuracy", "macro_f1", "classes": [...]}}, "classes_present",
    "macro_f1_present"}; fractions from 0 to 1. Macro F1 is the mean over all classes of the table; a class that is
    neither true nor predicted counts 0 (scikit-learn's f1_score with labels=range(18) and zero_division=0). So it is at
    most classes_present / 18; macro_f1_present is the mean over the classes that have photographs.
    """
    attributes = {name: _scores(attribute_confusion(matrix, name), values) for name, values in ATTRIBUTES.items()}
    total = _scores(matrix, CLASS_NAMES)
    present = {"classes_present": int(_present(matrix).sum()), "macro_f1_present": float(macro_f1_present(matrix))}
    return {"count": int(matrix.sum()), **total, "attributes": attributes, **present}


def attribute_confusion(matrix: np.ndarray, attribute: str) -> np.ndarray:
    """The confusion matrix of "mask", "gender" or "age" alone, from that of the classes."""
    return membership(attribute).T @ matrix @ membership(attribute)


def headline_scores(true, predicted) -> dict[str, float]:
    """Accuracy, macro F1, and the accuracy of mask, gender and age, from true and predicted classes, shape (n,)."""
    result = scores(confusion(true, predicted))
    attributes = {name: attribute["accuracy"] for name, attribute in result["attributes"].items()}
    return {"accuracy": result["accuracy"], "macro_f1": result["macro_f1"], **attributes}


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """The mean F1 of the classes of each confusion matrix, as in `scores`: shape (...), from (..., 18, 18)."""
    return _f1(matrix).mean(-1)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """The share on the diagonal of each confusion matrix: shape (...), from (..., n, n); NaN without photographs."""
    total = matrix.sum((-1, -2))
    return np.where(total > 0, _ratio(np.trace(matrix, axis1=-2, axis2=-1), total), np.nan)


def macro_f1_present(matrix: np.ndarray) -> np.ndarray:
    """The mean F1 of the classes that have photographs, of each confusion matrix: shape (...), from (..., 18, 18)."""
    present = _present(matrix)
    return _ratio((_f1(matrix) * present).sum(-1), present.sum(-1))


def bootstrap(true, predicted, people=None, draws: int = BOOTSTRAP_DRAWS, seed: int = 0) -> np.ndarray:
    """Confusion matrices of resampled people (the cluster bootstrap): shape (draws, 18, 18).

    All photographs of a person are drawn together, because they tend to be right or wrong together. With `people` None
    instead of names, shape (n,), photographs are drawn one by one, by `seed`, and the spread is too small.
    """
    if people is not None:
        names, number = np.unique(people, return_inverse=True)
        return resampled(true, predicted, number, draw_people(len(names), draws))
    shares = confusion(true, predicted).ravel() / len(true)
    return np.random.default_rng(seed).multinomial(len(true), shares, draws).reshape(draws, CLASSES, CLASSES)


def draw_people(people: int, draws: int = BOOTSTRAP_DRAWS) -> np.ndarray:
    """How often each person is in each bootstrap sample: int64, shape (draws, people)."""
    return np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), draws)


def resampled(true, predicted, number: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Confusion matrices of bootstrap samples: shape (draws, 18, 18).

    `number`: index of each photograph's person, int64, shape (n,); `times`: how often each person is in each sample,
    shape (draws, people).
    """
    cells_of_person = np.zeros((times.shape[1], CLASSES**2))
    np.add.at(cells_of_person, (number, _cells(true, predicted)), 1)
    return (times @ cells_of_person).reshape(-1, CLASSES, CLASSES)


def is_as_good(true, predicted, best, people) -> bool:
    """Whether macro F1 of `predicted` is within one standard error of that of `best` (Breiman et al., 1984).

    The standard error is that of their difference, over resampled people. All are of shape (n,).
    """
    scores = [macro_f1(bootstrap(true, classes, people, draws=200)) for classes in (best, predicted)]
    behind = scores[0] - scores[1]
    return bool(behind.mean() <= behind.std())


def intervals(true, predicted, people=None, draws: int = BOOTSTRAP_DRAWS) -> dict:
    """95 % intervals, (low, high), of the scores, under the keys that `scores` has; from arrays of shape (n,).

    They are quantiles over resampled people; draws with nobody of a class do not count for that class. With fewer than
    FEW_PEOPLE, or if all draws are the same, Wilson's interval (1927) with each person as one trial replaces them. None
    for a class without people, and for a macro F1 whose draws are all the same.
    """
    matrix, matrices = confusion(true, predicted), bootstrap(true, predicted, people, draws)
    number = np.arange(len(true)) if people is None else np.unique(people, return_inverse=True)[1]
    present, values = _present(matrices), _of_classes(matrix)
    drawn = {name: np.where(present, some, np.nan) for name, some in _of_classes(matrices).items()}
    low, high = middle(macro_f1_present(matrices) * present.any(0).mean())  # a class without people counts 0
    # Wilson's interval is for shares. F1 is not a share, but F1 = 2J / (1 + J), where J = right / (true or predicted)
    # is.
    shares = {"precision": [predicted], "recall": [true], "f1": [true, predicted]}
    for of in (values, drawn):
        of["f1"] = of["f1"] / (2 - of["f1"])
    found = {}
    for name, concerned in shares.items():
        each = zip(drawn[name].T, values[name], _people_of(concerned, number), strict=True)
        found[name] = [interval_of_share(*one) for one in each]
    found["f1"] = [pair and tuple(2 * bound / (1 + bound) for bound in pair) for pair in found["f1"]]
    return {
        "accuracy": interval_of_share(accuracy(matrices), float(accuracy(matrix)), number.max() + 1),
        "macro_f1": (low, high) if low < high else None,
        "classes": [{name: pairs[k] for name, pairs in found.items()} for k in range(CLASSES)],
    }


def interval_of_share(drawn: np.ndarray, share: float, people: int) -> tuple[float, float] | None:
    """The 95 % interval of a share of these people's photographs, from its bootstrap, shape (draws,), or Wilson's."""
    interval = middle(drawn)
    return wilson(share, max(people, 1)) if interval and is_too_narrow(drawn, people) else interval


def is_too_narrow(drawn: np.ndarray, people: int) -> bool:
    """Whether a share's bootstrap, shape (draws,), has too little spread: few people, or all draws are the same."""
    low, high = middle(drawn)
    return people < FEW_PEOPLE or low == high


def middle(values: np.ndarray) -> tuple[float, float] | None:
    """The 2.5 % and 97.5 % quantiles of values, shape (n,), without NaN; None if all are NaN."""
    known = np.sort(values[~np.isnan(values)])
    low, high = (int(np.round(share * max(len(known) - 1, 0))) for share in (0.025, 0.975))
    return (float(known[low]), float(known[high])) if len(known) else None


def wilson(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval: (p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n), p the share, n trials."""
    centre = share + Z**2 / (2 * trials)
    half = Z * np.sqrt(share * (1 - share) / trials + (Z / (2 * trials)) ** 2)
    low, high = (centre + np.array([-half, half])) / (1 + Z**2 / trials)
    return max(float(low), 0.0), min(float(high), 1.0)


def _people_of(classes, number: np.ndarray) -> np.ndarray:
    """The number of people with a photograph of each class in any of `classes`: (18,). `number` as in `resampled`."""
    pairs = np.unique(np.concatenate([_cells(number, each) for each in classes]))
    return np.bincount(pairs % CLASSES, minlength=CLASSES)


def _cells(true, predicted) -> np.ndarray:
    """The index of each pair in a flattened confusion matrix: int64, shape (n,)."""
    return np.asarray(true, np.int64) * CLASSES + np.asarray(predicted, np.int64)


def _scores(matrix: np.ndarray, names: tuple[str, ...]) -> dict:
    right, true = np.diag(matrix), matrix.sum(1)
    precision, recall, f1 = _of_classes(matrix).values()
    rows = zip(names, true, precision, recall, f1, strict=True)
    return {
        "accuracy": float(_ratio(right.sum(), matrix.sum())),
        "macro_f1": float(f1.mean()),
        "classes": [
            {"class": k, "name": name, "count": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
            for k, (name, n, p, r, f) in enumerate(rows)
        ],
    }


def _of_classes(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class: shape (..., classes)."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return {"precision": _ratio(right, matrix.sum(-2)), "recall": _ratio(right, matrix.sum(-1)), "f1": _f1(matrix)}


def _f1(matrix: np.ndarray) -> np.ndarray:
    return _ratio(2 * np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1) + matrix.sum(-2))


def _present(matrix: np.ndarray) -> np.ndarray:
    """Whether each class has photographs: bool, shape (..., classes)."""
    return matrix.sum(-1) > 0


def _ratio(part, whole) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
