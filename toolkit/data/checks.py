"""Checks of a data set before training: each names what it finds, and stops nothing."""

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from toolkit.data import photo_file
from toolkit.data.framing import Framing
from toolkit.labels import ATTRIBUTES, CLASS_NAMES, to_class

OLDEST = 100  # years; an age above it is taken for a mistake


def find_problems(
    table: pd.DataFrame, paths: np.ndarray, framing: Framing, expected: Sequence[str], bad: Mapping[int, str]
) -> dict[str, list[str]]:
    """{what is wrong: [where]} in the table of photographs before corrections, with a path for each row.

    `expected` are the photographs that each person should have ("mask1", ...); `bad` is {row: reason} of those that
    cannot be decoded.
    """
    problems = {
        "unreadable photographs": [f"{_name(table, row)} ({reason})" for row, reason in bad.items()],
        f"photographs smaller than {framing}": _too_small(table, paths, framing, bad),
        "folders without all photographs": _missing(table, expected),
        "photographs with several extensions": _several_extensions(table),
        "people with several folders": _several_folders(table),
        "identical files": _identical(table, paths, bad),
        f"folders of no age from 1 to {OLDEST}": _impossible_ages(table),
        "classes without a photograph": _empty_classes(table),
    }
    return {what: where for what, where in problems.items() if where}


def _name(table: pd.DataFrame, row: int) -> str:
    return f"{table['folder'].iloc[row]}/{table['file'].iloc[row]}"


def _too_small(table, paths, framing: Framing, bad) -> list[str]:
    """Those of which less than SIZE is used, which is then enlarged."""
    small = []
    for row in (row for row in range(len(paths)) if row not in bad):
        with photo_file.opened(photo_file.read(paths[row])) as photo:
            height, width = photo_file.upright_size(photo)
        top, left, bottom, right = framing.box(height, width)
        rows, columns = framing.scaled(bottom - top, right - left)
        if bottom - top < rows or right - left < columns:
            small.append(f"{_name(table, row)} ({height}x{width})")
    return small


def _missing(table, expected: Sequence[str]) -> list[str]:
    photographs = table.groupby("folder", observed=True)["photograph"].agg(set)
    missing = {folder: [name for name in expected if name not in there] for folder, there in photographs.items()}
    return [f"{folder} ({', '.join(names)})" for folder, names in missing.items() if names]


def _several_extensions(table) -> list[str]:
    count = table.groupby(["folder", "photograph"], observed=True).size()
    return [f"{folder}/{photograph}" for folder, photograph in count[count > 1].index]


def _several_folders(table) -> list[str]:
    """Folders of one id are on one side of the split, so two people with one id are at worst held out together."""
    folders = table.groupby("person", observed=True)["folder"].unique()
    return [f"{person} ({', '.join(map(str, some))})" for person, some in folders.items() if len(some) > 1]


def _identical(table, paths, bad) -> list[str]:
    """Files with the same content: of one person under two masks, or of two people, at least one label is wrong."""
    # Only files of equal size are read; each bad one gets a size of its own.
    sizes = pd.Series([-row - 1 if row in bad else os.path.getsize(path) for row, path in enumerate(paths)])
    rows_of_content: dict[str, list[int]] = {}
    for row in np.flatnonzero(sizes.duplicated(keep=False)):
        with open(paths[row], "rb") as file:
            rows_of_content.setdefault(hashlib.sha256(file.read()).hexdigest(), []).append(row)
    return [" = ".join(_name(table, row) for row in rows) for rows in rows_of_content.values() if len(rows) > 1]


def _impossible_ages(table) -> list[str]:
    folders = table.groupby("folder", observed=True)["years"].first()
    return [str(folder) for folder, years in folders.items() if not 1 <= years <= OLDEST]


def _empty_classes(table) -> list[str]:
    classes = set(to_class(*(table[attribute] for attribute in ATTRIBUTES)))
    return [name for number, name in enumerate(CLASS_NAMES) if number not in classes]
