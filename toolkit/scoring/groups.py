"""Scores by group of people or photographs: for whom is a net wrong more often?

The measures are those of Fairlearn's MetricFrame: a score of each group, and the difference between groups.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, CLASSES, PERSON_ATTRIBUTES, readable, to_attributes
from toolkit.scoring import metrics

MAX_GROUPS = 20  # a column with more values is no grouping
MIN_PEOPLE = 10  # of a group that is compared with others: two people are easily all right or all wrong
UNKNOWN = "not known"
YEARS = ("years", "age")  # columns of ages


def by_columns(true, predicted, people, columns: Mapping[str, Sequence]) -> dict[str, dict]:
    """{grouping: result of `by_group`} for the attributes, their combinations, and further columns.

    `true` and `predicted`: classes, int64, shape (n,); `people`: the person on each photograph, or None; `columns`:
    {name: a value for each photograph}. A column with the name of an attribute becomes "column age", and columns in
    YEARS are grouped by decade. A grouping of one value only, or of more than MAX_GROUPS, is left out.
    """
    found, of_classes = {}, _of_attributes(np.arange(CLASSES))
    for name, values in _of_attributes(true).items():
        if not _is_grouping(values):
            continue
        found[name] = by_group(true, predicted, people, values)
        place = list(of_classes[name]).index  # "under 30" first, not as the alphabet has it
        found[name]["groups"].sort(key=lambda group, place=place: place(group["group"]))
    for name, values in columns.items():
        texts = [_decade(value) if name in YEARS else str(value).strip() or UNKNOWN for value in values]
        if _is_grouping(texts):
            found[f"column {name}" if name in ATTRIBUTES else name] = by_group(true, predicted, people, texts)
    return found


def by_group(true, predicted, people, values: Sequence[str]) -> dict:
    """{"groups": [{"group", "people", "photographs", "accuracy", "macro_f1", "accuracy_interval", "macro_f1_interval"},
    ...], "gap": {"difference", "interval", "interval_over", "lowest", "highest"} or None}, as plain values for JSON;
    sorted by group.

    Macro F1 is over the classes that the group has. The gap is the widest difference of accuracy between groups of at
    least MIN_PEOPLE people; its interval is corrected for choosing the widest. 95 % intervals are over resampled
    people, with the same draws in all groups, as a person may be in several. With `people` None, each photograph counts
    as a person, and every group is resampled separately.
    """
    true, predicted, values = np.asarray(true), np.asarray(predicted), np.asarray(values)
    names, number = np.unique(values, return_inverse=True)
    keys = None if people is None else np.unique(np.asarray(people, str), return_inverse=True)[1]
    times = None if people is None else metrics.draw_people(keys.max() + 1)
    groups, drawn = [], []
    for k, name in enumerate(names.tolist()):
        rows = np.flatnonzero(number == k)
        if people is None:
            members, matrices = rows, metrics.bootstrap(true[rows], predicted[rows], seed=k)
        else:
            members, own = np.unique(keys[rows], return_inverse=True)
            matrices = metrics.resampled(true[rows], predicted[rows], own, times[:, members])
        drawn.append(metrics.accuracy(matrices))
        groups.append(_group(name, metrics.confusion(true[rows], predicted[rows]), matrices, len(members)))
        if people is None:
            groups[-1]["people"] = None
    compared = [k for k, group in enumerate(groups) if (group["people"] or group["photographs"]) >= MIN_PEOPLE]
    return {"groups": groups, "gap": _gap(groups, drawn, compared) if len(compared) > 1 else None}


def _group(name: str, matrix: np.ndarray, matrices: np.ndarray, people: int) -> dict:
    """The scores of one group. `matrices`: of resampled people; draws with nobody of the group are left out."""
    accuracy, known = float(metrics.accuracy(matrix)), matrices[matrices.sum((1, 2)) > 0]
    is_enough = people >= metrics.FEW_PEOPLE
    return {
        "group": name,
        "people": people,
        "photographs": int(matrix.sum()),
        "accuracy": accuracy,
        "accuracy_interval": metrics.interval_of_share(metrics.accuracy(known), accuracy, people),
        "macro_f1": float(metrics.macro_f1_present(matrix)),
        "macro_f1_interval": metrics.middle(metrics.macro_f1_present(known)) if is_enough else None,
    }


def _gap(groups: list[dict], drawn: list[np.ndarray], compared: list[int]) -> dict:
    """The widest gap between the groups in `compared`. `drawn`: accuracies of each group over resampled people.

    The widest of many gaps is wide by chance, too: so the level of its interval is 1 - 0.05 / pairs (Bonferroni). With
    few people, or if all photographs of a group are right or wrong, the bootstrap's spread is too small: Wilson's
    intervals replace it.
    """
    by_accuracy = sorted(compared, key=lambda k: groups[k]["accuracy"])
    low, high = by_accuracy[0], by_accuracy[-1]  # two groups, also where all are equal
    difference, sd = groups[high]["accuracy"] - groups[low]["accuracy"], float(np.nanstd(drawn[high] - drawn[low]))
    sizes = [groups[k]["people"] or groups[k]["photographs"] for k in (low, high)]
    if any(map(metrics.is_too_narrow, (drawn[low], drawn[high]), sizes)):
        widths = [np.subtract(*groups[k]["accuracy_interval"]) / (2 * metrics.Z) for k in (low, high)]
        sd = max(sd, math.hypot(*widths))
    half = NormalDist().inv_cdf(1 - 0.025 / math.comb(len(compared), 2)) * sd
    return {
        "difference": difference,
        "interval": (max(difference - half, -1.0), min(difference + half, 1.0)),
        "interval_over": "photographs" if groups[low]["people"] is None else "people",
        "lowest": groups[low]["group"],
        "highest": groups[high]["group"],
    }


def _of_attributes(true) -> dict[str, list[str]]:
    """The group of each photograph: by each attribute, by gender x age, and by class."""
    numbers = to_attributes(np.asarray(true))
    names = {name: [ATTRIBUTES[name][k] for k in numbers[name]] for name in ATTRIBUTES}
    columns = {name: [readable(text) for text in names[name]] for name in ATTRIBUTES}
    columns[" x ".join(PERSON_ATTRIBUTES)] = list(
        map(" ".join, zip(*(columns[name] for name in PERSON_ATTRIBUTES), strict=True))
    )
    columns[" x ".join(ATTRIBUTES)] = [readable(CLASS_NAMES[number]) for number in np.asarray(true)]
    return columns


def _is_grouping(values: Sequence[str]) -> bool:
    return 1 < len(set(values)) <= MAX_GROUPS


def _decade(value) -> str:
    """ "20 to 29" for 25."""
    try:
        first = int(float(value)) // 10 * 10
    except (ValueError, OverflowError):  # no number: empty, NaN, a band in words
        return str(value).strip() if str(value).strip().lower() not in ("", "nan") else UNKNOWN
    return f"{first} to {first + 9}"


def widest(found: Mapping[str, dict]) -> list[str]:
    """A line for each column that has a gap, the widest first."""
    gaps = [(name, one["gap"]) for name, one in found.items() if one["gap"]]
    return [f"{name}: {as_text(gap)}" for name, gap in sorted(gaps, key=lambda each: -each[1]["difference"])]


def as_text(gap: Mapping) -> str:
    low, high = (100 * value for value in gap["interval"])
    too_narrow = "" if gap["interval_over"] == "people" else "; too narrow, as people are not known"
    return (
        f"accuracy of {gap['lowest']} is {100 * gap['difference']:.1f} points below that of {gap['highest']} "
        f"(95 % interval {low:.1f} to {high:.1f}{too_narrow})"
    )
