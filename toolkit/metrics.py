"""One 18 x 18 confusion matrix -> every number. Counts add up over batches and processes; means of means do not."""

import numpy as np

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES, decode


def confusion(true, predicted, classes: int = CLASSES) -> np.ndarray:
    """Counts of shape (classes, classes), int64: row is the true class, column the predicted one."""
    pairs = np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def scores(matrix: np.ndarray) -> dict:
    """All scores of a confusion matrix, as plain numbers that JSON can hold.

    {"count", "accuracy", "macro_f1", "classes": [{"class", "name", "count", "precision", "recall", "f1"}],
    "attributes": {"mask" | "gender" | "age": {"accuracy", "macro_f1", "classes": [...]}}}; fractions from 0 to 1.
    Macro F1 is the mean over all classes of the table; a class that is neither true nor predicted counts 0
    (scikit-learn's f1_score with labels=range(18) and zero_division=0).
    """
    classes = np.arange(CLASSES)
    attributes = {}
    for attribute, names in ATTRIBUTES.items():
        belongs = np.eye(len(names), dtype=np.int64)[decode(classes)[attribute]]  # (18, names)
        attributes[attribute] = _scores(belongs.T @ matrix @ belongs, names)
    total = _scores(matrix, CLASS_NAMES)
    return {"count": int(matrix.sum()), **total, "attributes": attributes}


def headline(true, predicted) -> dict[str, float]:
    """Accuracy, macro F1, and the accuracy of mask, gender and age, of classes that are true and predicted: (n,)."""
    result = scores(confusion(true, predicted))
    attributes = {name: attribute["accuracy"] for name, attribute in result["attributes"].items()}
    return {"accuracy": result["accuracy"], "macro_f1": result["macro_f1"], **attributes}


def macro_f1(matrix: np.ndarray) -> float:
    """The mean F1 of the classes of a confusion matrix, as in `scores`."""
    return float(_f1(matrix).mean())


def _scores(matrix: np.ndarray, names: tuple[str, ...]) -> dict:
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    precision, recall, f1 = _ratio(right, predicted), _ratio(right, true), _f1(matrix)
    rows = zip(names, true, precision, recall, f1, strict=True)
    return {
        "accuracy": float(_ratio(right.sum(), matrix.sum())),
        "macro_f1": float(f1.mean()),
        "classes": [
            {"class": k, "name": name, "count": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
            for k, (name, n, p, r, f) in enumerate(rows)
        ],
    }


def _f1(matrix: np.ndarray) -> np.ndarray:
    """The F1 of each class."""
    return _ratio(2 * np.diag(matrix), matrix.sum(1) + matrix.sum(0))


def _ratio(part, whole) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
