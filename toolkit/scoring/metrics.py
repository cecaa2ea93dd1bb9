"""Every score from one 18 x 18 confusion matrix: counts add up over batches and processes, means of means do not."""

import numpy as np

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES, to_attributes


def confusion(true, predicted, classes: int = CLASSES) -> np.ndarray:
    """Counts of shape (classes, classes), int64: row is the true class, column the predicted one."""
    cells = _cells(true, predicted, classes)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def membership(attribute: str) -> np.ndarray:
    """Which value of "mask", "gender" or "age" each class has, one-hot: int64, shape (18, values)."""
    return np.eye(len(ATTRIBUTES[attribute]), dtype=np.int64)[to_attributes(np.arange(CLASSES))[attribute]]


def scores(matrix: np.ndarray) -> dict:
    """All scores of a confusion matrix, as plain numbers that JSON can hold.

    {"count", "accuracy", "macro_f1", "classes": [{"class", "name", "count", "precision", "recall", "f1"}],
    "attributes": {"mask" | "gender" | "age": {"accuracy", "macro_f1", "classes": [...]}}}; fractions from 0 to 1.
    Macro F1 is the mean over all classes of the table; a class that is neither true nor predicted counts 0
    (scikit-learn's f1_score with labels=range(18) and zero_division=0).
    """
    attributes = {name: _scores(attribute_confusion(matrix, name), values) for name, values in ATTRIBUTES.items()}
    total = _scores(matrix, CLASS_NAMES)
    return {"count": int(matrix.sum()), **total, "attributes": attributes}


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


def bootstrap(true, predicted, people=None, draws: int = 1000) -> np.ndarray:
    """Confusion matrices of resampled people (the cluster bootstrap): shape (draws, 18, 18).

    All photographs of a person are drawn together, as they are right or wrong together. Without `people`, shape (n,),
    photographs are drawn one by one, and the spread comes out too small.
    """
    rng = np.random.default_rng(0)
    if people is None:
        counts = rng.multinomial(len(true), confusion(true, predicted).ravel() / len(true), draws)
    else:
        names, number = np.unique(people, return_inverse=True)
        cells_of_person = np.zeros((len(names), CLASSES**2))
        np.add.at(cells_of_person, (number, _cells(true, predicted)), 1)
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), draws) @ cells_of_person
    return counts.reshape(draws, CLASSES, CLASSES)


def is_as_good(true, predicted, best, people) -> bool:
    """Whether macro F1 of `predicted` is within one standard error of that of `best` (Breiman et al., 1984).

    The standard error is that of their difference, over resampled people. All are of shape (n,).
    """
    scores = [macro_f1(bootstrap(true, classes, people, draws=200)) for classes in (best, predicted)]
    behind = scores[0] - scores[1]
    return bool(behind.mean() <= behind.std())


def intervals(matrices: np.ndarray) -> dict:
    """95 % intervals, (low, high), of the scores of matrices from `bootstrap`, under the keys that `scores` has.

    A draw with nobody of a class is left out of that class's interval.
    """
    found = {"accuracy": _middle(np.trace(matrices, axis1=1, axis2=2) / matrices.sum((1, 2)))}
    classes = {name: np.where(matrices.sum(2) > 0, values, np.nan) for name, values in _of_classes(matrices).items()}
    there = ~np.isnan(classes["f1"])
    f1 = np.where(there, classes["f1"], 0).sum(1) / np.maximum(there.sum(1), 1)
    found["macro_f1"] = _middle(f1 * there.any(0).mean())  # a class that nobody is of counts 0 in the score too
    rows = {name: _middle(values) for name, values in classes.items()}
    return found | {"classes": [{name: middle[k] for name, middle in rows.items()} for k in range(CLASSES)]}


def _cells(true, predicted, classes: int = CLASSES) -> np.ndarray:
    """The place of each pair in a confusion matrix, row by row: int64, shape (n,)."""
    return np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)


def _middle(values: np.ndarray):
    """The 2.5 % and the 97.5 % quantile along the first axis; None where there are only NaN."""
    columns = np.sort(values.reshape(len(values), -1), axis=0)  # NaN come last
    known = (~np.isnan(columns)).sum(0)
    places = np.round(np.array([[0.025], [0.975]]) * np.maximum(known - 1, 0)).astype(int)
    bounds = np.take_along_axis(columns, places, 0).T.tolist()
    pairs = [tuple(pair) if count else None for pair, count in zip(bounds, known, strict=True)]
    return pairs[0] if values.ndim == 1 else pairs


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


def _ratio(part, whole) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
