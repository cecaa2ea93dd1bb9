"""Who is held out for validation: a split of the table of photographs by person, never by photograph."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.labels import ATTRIBUTES, BORDER_YEARS, CLASS_NAMES, CLASSES, PERSON_ATTRIBUTES, to_attributes
from toolkit.system.console import InputError, listed

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.config.settings import TrainSettings


@dataclass(frozen=True)
class Split:
    """Rows of the table on the two sides, sorted: int64."""

    train: np.ndarray
    validation: np.ndarray


def held_out_people(table: "pd.DataFrame", ratio: float, folds: int, fold: int, seed: int) -> set[str] | None:
    """The people to validate on: `ratio` of all or, if `folds` is not 0, fold number `fold` of so many.

    None if both are 0: then everybody is in training.

    Stratified: people are sorted by all attributes but the mask, then by a hash of seed and id. Every k-th of them is
    held out, so each group keeps its share to within one person. Of a group of two people or more, somebody is always
    held out (with folds, in as many folds as it has people): otherwise small sets say nothing about the old. The only
    person of a group is in training, because otherwise nothing is learned about the group; but not with folds, nor if
    nobody else would be held out. The result depends on the seed, the people and their folders, and on no library's
    random numbers. `table` is the one before corrections, so that RELABEL does not change the split.
    """
    if not (ratio or folds):
        return None
    people = table.groupby("person", observed=True)[list(PERSON_ATTRIBUTES)].first()
    people["hash"] = [hashlib.sha256(f"{seed}/{person}".encode()).hexdigest() for person in people.index]
    people = people.sort_values([*PERSON_ATTRIBUTES, "hash"])
    number = np.arange(len(people) + 1)
    if folds:
        return set(people.index[number[:-1] % folds == fold])
    # One of each 1 / ratio people is held out: the one at which the rounded sum of ratios grows.
    is_held_out = np.diff(np.floor(number * ratio + 0.5)) > 0
    groups = people.groupby(list(PERSON_ATTRIBUTES)).indices.values()
    for rows in groups:
        if len(rows) > 1 and not is_held_out[rows].any():
            is_held_out[rows[0]] = True
    alone = [rows[0] for rows in groups if len(rows) == 1]
    if np.delete(is_held_out, alone).any():
        is_held_out[alone] = False
    return set(people.index[is_held_out])


def make_splits(config: "TrainSettings", as_found: "pd.DataFrame", table: "pd.DataFrame") -> list[Split]:
    """The split by VAL_RATIO or FOLD; with all FOLDS one for each fold, with FINAL also one without validation.

    `as_found` is the table before corrections. Raises InputError where a side has too few.
    """
    folds = range(config.folds) if config.folds and config.fold is None else [config.fold or 0]
    held_out = [held_out_people(as_found, config.val_ratio, config.folds, fold, config.seed) for fold in folds]
    if config.final:
        held_out.append(None)
    splits = [split_by_person(table, people) for people in held_out]
    return [without_border_ages(table, sides) for sides in splits] if config.border_ages == "leave_out" else splits


def split_by_person(table: "pd.DataFrame", held_out: set[str] | None) -> Split:
    """The two sides of the table; None leaves validation empty. All folders of one id are on one side.

    Raises InputError if training has fewer than two photographs, as batch norm cannot learn from one, or validation has
    none though people are held out.
    """
    is_held_out = table["person"].isin(held_out or ()).to_numpy()
    split = Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    if len(split.train) < 2 or (held_out is not None and not len(split.validation)):
        raise InputError(
            f"expected people for training and for validation, found {len(split.train)} and {len(split.validation)} "
            f"photographs of {table['person'].nunique()} people; change VAL_RATIO or FOLDS, or add people"
        )
    assert not set(table["person"].iloc[split.train]) & set(table["person"].iloc[split.validation])
    return split


def without_border_ages(table: "pd.DataFrame", split: Split) -> Split:
    """The split without BORDER_YEARS in training. Raises InputError if that leaves nobody to train on."""
    train = split.train[~table["years"].iloc[split.train].isin(BORDER_YEARS).to_numpy()]
    if len(train) < 2:
        raise InputError(
            f"BORDER_AGES=leave_out: expected other ages than {listed(BORDER_YEARS)}, found none to train on"
        )
    return Split(train, split.validation)


def without_rows(split: Split, rows: Sequence[int], count: int) -> Split:
    """The split after `rows` were removed from a table of `count` rows. Raises InputError if a side gets too small."""
    kept = np.setdiff1d(np.arange(count), rows)
    left = Split(*(np.searchsorted(kept, np.intersect1d(side, kept)) for side in (split.train, split.validation)))
    if len(left.train) < 2 or (len(split.validation) and not len(left.validation)):
        raise InputError(
            "expected readable photographs on both sides of the split, found too few on one; repair or add some"
        )
    return left


def describe(labels: np.ndarray, people: "pd.Series", splits: Sequence[Split]) -> list[str]:
    """Photographs and people on both sides of the first split, as aligned lines: one for each class, then totals.

    Then a note for each split whose validation lacks a group of people. Labels are int64, shape (n,).
    """
    sides = (splits[0].train, splits[0].validation)
    train, validation = (np.bincount(labels[rows], minlength=CLASSES) for rows in sides)
    people_train, people_validation = (people.iloc[rows].nunique() for rows in sides)
    lines = [f"{'class':>5}  {'':32} {'train':>7} {'validation':>10}"]
    for number, name in enumerate(CLASS_NAMES):
        lines.append(f"{number:5}  {name:32} {train[number]:7} {validation[number]:10}")
    lines.append(f"{'all':>5}  {'photographs':32} {train.sum():7} {validation.sum():10}")
    lines.append(f"{'':5}  {'people':32} {people_train:7} {people_validation:10}")
    return lines + missing_groups(labels, splits)


def missing_groups(labels: np.ndarray, splits: Sequence[Split]) -> list[str]:
    """A line for each split whose validation lacks a group of people that is in the labels, int64, shape (n,)."""
    names = [" ".join(values) for values in itertools.product(*(ATTRIBUTES[name] for name in PERSON_ATTRIBUTES))]
    values = to_attributes(labels)
    groups = np.ravel_multi_index(
        [values[name] for name in PERSON_ATTRIBUTES], [len(ATTRIBUTES[name]) for name in PERSON_ATTRIBUTES]
    )
    lines = []
    for number, split in enumerate(splits):
        missing = set(groups) - set(groups[split.validation])
        if missing and len(split.validation):
            where = f"of fold {number} " if len(splits) > 1 else ""
            lines.append(
                f"note: validation {where}has nobody who is {listed(names[group] for group in sorted(missing))}"
            )
    return lines
