"""Pseudo-labels: photographs without labels that join training with the probabilities that earlier runs gave them.

Only photographs whose most probable class is probable enough join (Lee, Pseudo-Label, 2013). Their targets are all
probabilities, not one class, so that doubts of the earlier runs are not taught as certain.
"""

import math
import os
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.labels import CLASS_NAMES, CLASSES, PROBABILITY_COLUMNS
from toolkit.system import csv_files, files, spelling
from toolkit.system.console import InputError, listed

if TYPE_CHECKING:
    import pandas as pd

TABLE = "probabilities.csv"  # as inference.py writes it


@dataclass(frozen=True)
class PseudoLabels:
    """The n photographs that are sure enough."""

    names: np.ndarray  # bytes, shape (n,): below the folder of photographs
    paths: np.ndarray  # bytes, shape (n,)
    probabilities: np.ndarray  # float32, shape (n, 18); each row sums to 1
    record: dict  # JSON types: photographs per class, rows in the table, threshold, SHA-256 of the table

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> np.ndarray:
        """The most probable class of each: int64, shape (n,)."""
        return self.probabilities.argmax(1)

    def __str__(self) -> str:
        """Counts as aligned lines: a sentence, then one for each class."""
        counts = enumerate(zip(CLASS_NAMES, self.record["photographs"], strict=True))
        lines = [f"{number:5}  {name:32} {count:13}" for number, (name, count) in counts]
        found = f"{len(self)} of {self.record['of']} photographs are at least {self.record['from']:g} sure"
        return "\n".join([f"pseudo-labels: {found}", f"{'class':>5}  {'':32} {'pseudo-labels':>13}", *lines])

    def joined(self, names: np.ndarray, people: "pd.Series", classes: np.ndarray, years: "pd.Series") -> tuple:
        """These columns of a table, with the pseudo-labelled photographs appended, of unknown people and age.

        They are grouped into pretended people, with as many photographs of a class as real people have of it on
        average: SAMPLER=balanced draws all people of a class equally often, and one person per photograph would
        outnumber those with labels.
        """
        import pandas as pd

        known = people.groupby(classes, observed=True).agg(["size", "nunique"]).reindex(range(CLASSES), fill_value=1)
        per_person = (known["size"] / known["nunique"]).round().astype(int)[self.classes].to_numpy()
        number = pd.Series(self.classes).groupby(self.classes).cumcount() // per_person
        unknown = [f"pseudo-labels {label}/{one}" for label, one in zip(self.classes, number, strict=True)]
        return (
            np.concatenate([names, self.names]),
            pd.Series([*people, *unknown]),
            np.concatenate([classes, self.classes]),
            pd.Series([*years, *[math.nan] * len(self)]),
        )

    def refuse_bad(self, bad: dict[int, str], first: int) -> None:
        """Raises InputError that names those in `bad`, {row of the store: reason}, whose rows are `first` and above."""
        named = [f"{self.names[row - first].decode()} ({bad[row]})" for row in sorted(bad) if row >= first]
        if named:
            raise InputError(
                f"SM_CHANNEL_PSEUDO: {len(named)} of {len(self)} photographs cannot be read; mend them, or remove "
                f"their rows from {TABLE}: {listed(named, most=len(named))}"
            )


def read(folder: pathlib.Path, table: pathlib.Path, sure_from: float) -> PseudoLabels:
    """The photographs in `folder` whose most probable class has at least the probability `sure_from` in the table.

    Rows without probabilities, of photographs that could not be read, are skipped. Raises InputError if the table or
    photographs are missing, if numbers are no probabilities, or if no photograph reaches `sure_from`.
    """
    if not table.is_file():
        raise InputError(
            f"SM_CHANNEL_PSEUDO: expected {table}, as inference.py writes it, found none; PSEUDO_PROBABILITIES says "
            "where else it lies"
        )
    columns = csv_files.read(table, ("ImageID", *PROBABILITY_COLUMNS), "PSEUDO_PROBABILITIES", key="ImageID")
    try:
        p = np.array([[float(cell or "nan") for cell in columns[name]] for name in PROBABILITY_COLUMNS]).T
    except ValueError as error:
        raise InputError(f"{table}: expected numbers in {', '.join(PROBABILITY_COLUMNS)}: {error}") from None
    is_known = ~np.isnan(p).any(1)
    if not (np.abs(p[is_known].sum(1) - 1) < 1e-3).all() or (p[is_known] < 0).any():
        raise InputError(f"{table}: expected probabilities, whose sum in every row is 1; found others")
    rows = np.flatnonzero(is_known & (p.max(1) >= sure_from))
    if not len(rows):
        surest = p[is_known].max(initial=0.0)
        raise InputError(
            f"PSEUDO_FROM={sure_from:g}: no photograph of {table} is that sure; lower it: the surest has {surest:.2f}"
        )
    names = [columns["ImageID"][row] for row in rows]
    paths = spelling.paths(folder, names, table)
    if missing := [name for name, path in zip(names, paths, strict=True) if path is None or not os.path.isfile(path)]:
        raise InputError(
            f"SM_CHANNEL_PSEUDO: expected in {folder} the photographs that {table} names, found {len(missing)} of "
            f"{len(names)} missing: {listed(missing)}"
        )
    chosen = (p[rows] / p[rows].sum(1, keepdims=True)).astype(np.float32)
    counts = np.bincount(chosen.argmax(1), minlength=CLASSES).tolist()
    record = {"photographs": counts, "of": len(p), "from": sure_from, "sha256": files.sha256(table)}
    encoded = (np.array([os.fsencode(text) for text in texts]) for texts in (names, paths))
    return PseudoLabels(*encoded, chosen, record)
