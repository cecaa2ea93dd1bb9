"""Checks of a data set before training: is what `read_faces` returned a valid table, and what in it is suspicious?"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from toolkit.data import photo_file
from toolkit.data.framing import Framing
from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASS_NAMES, age_band, to_class
from toolkit.system import files
from toolkit.system.console import InputError, listed

TEXTS = ("folder", "file", "person", "photograph")  # columns of the table; then ATTRIBUTES, and years if they are known
SAMPLE = 20  # photographs of which at least one must exist
SOURCE = "read_faces in dataset.py"
OLDEST = 100  # years; an age above it counts as a mistake


def checked(answer, images: pathlib.Path) -> tuple[pd.DataFrame, list[str]]:
    """The table of photographs and the names passed over, from what `read_faces` answered for this image folder.

    Texts become categories, attributes int8, years float; without a column years they are NaN. If people share a
    folder, `folder` becomes a name for each person, and `file` the path below `images` (see `path_of`). Raises
    InputError in one line if the answer is not what the docstring of `read_faces` promises.
    """
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], pd.DataFrame)):
        raise InputError(f"{SOURCE}: expected a table and a list of names passed over, found {type(answer).__name__}")
    table, passed_over = answer[0].reset_index(drop=True), list(answer[1])
    if missing := [name for name in (*TEXTS, *ATTRIBUTES) if name not in table]:
        raise InputError(
            f"{SOURCE}: expected the columns {', '.join((*TEXTS, *ATTRIBUTES))}; found {', '.join(map(str, table))}; "
            f"missing {', '.join(missing)}"
        )
    if table.empty:
        raise InputError(f"{SOURCE}: expected a row for each photograph, found none in {images}")
    types = {}
    for name in TEXTS:
        _refuse_values(table, name, table[name].isna() | (table[name].astype(str) == ""), "a text in every row")
        if not isinstance(table[name].dtype, pd.CategoricalDtype):
            table[name] = table[name].astype(str)
            types[name] = "category"
    for name, values in ATTRIBUTES.items():
        numbers = {number: value for number, value in enumerate(values)}
        _refuse_values(table, name, ~table[name].isin(list(numbers)), f"numbers as in toolkit/labels.py, {numbers}")
        types[name] = "int8"
    years = np.nan
    if "years" in table:
        years = pd.to_numeric(table["years"], errors="coerce")
        is_given = ~table["years"].astype(str).str.strip().str.lower().isin(("", "nan", "none", "<na>"))
        _refuse_values(table, "years", is_given & years.isna(), "numbers, or nothing where it is unknown")
        is_other = years.notna() & (age_band(years) != table["age"])
        _refuse_values(table, "age", is_other, f"the band of the column years, from {AGE_FROM_YEARS} on")
    table = table.astype(types).assign(years=years).astype({"years": float})
    _refuse_values(table, "file", table["file"].astype(str).str.startswith("/"), f"paths below {images}")
    _refuse_values(table, "file", table.duplicated(["folder", "file"]), "every photograph once")
    rows = np.linspace(0, len(table) - 1, min(SAMPLE, len(table))).astype(int)
    sample = [path_of(table["folder"].iloc[row], table["file"].iloc[row]) for row in rows]
    if not any((images / path).exists() for path in sample):
        raise InputError(
            f"{SOURCE}: expected photographs at folder/file in {images}, found none at {listed(sample)}; are the "
            "columns folder and file right?"
        )
    is_shared = table.groupby("folder", observed=True)["person"].nunique().max() > 1
    return _by_person(table) if is_shared else table, passed_over


def path_of(folder: str, file: str) -> str:
    """A photograph's path below the image folder: folder/file, or `file` itself where it has a slash."""
    return file if "/" in file else f"{folder}/{file}"


def _refuse_values(table: pd.DataFrame, column: str, is_wrong: pd.Series, expected: str) -> None:
    if is_wrong.any():
        named = [f"{row.file} has {getattr(row, column)!r}" for row in table[is_wrong].head().itertuples()]
        count = f"found {is_wrong.sum()} of {len(table)} rows that are not so"
        raise InputError(f"{SOURCE}: expected in {column} {expected}; {count}: {listed(named)}")


def _by_person(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a folder name per person, or per person, gender and age if a person has several of them."""
    labels = list(zip(table["gender"], table["age"], table["years"].astype(str).fillna("nan"), strict=True))
    labels_of: dict[str, set] = {}
    for person, label in zip(table["person"], labels, strict=True):
        labels_of.setdefault(person, set()).add(label)
    folders = [
        person if len(labels_of[person]) == 1 else "_".join(map(str, (person, *label)))
        for person, label in zip(table["person"], labels, strict=True)
    ]
    paths = [path_of(folder, file) for folder, file in zip(table["folder"], table["file"], strict=True)]
    paths = [path if "/" in path else f"./{path}" for path in paths]
    return table.assign(folder=pd.Categorical(folders), file=pd.Categorical(paths))


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
    return path_of(table["folder"].iloc[row], table["file"].iloc[row])


def _too_small(table, paths, framing: Framing, bad) -> list[str]:
    """Photographs whose used part is smaller than SIZE, so that it is enlarged."""
    small = []
    for row in (row for row in range(len(paths)) if row not in bad):
        with photo_file.opened(photo_file.read(paths[row]), math.inf) as photo:
            height, width = photo_file.upright_size(photo)
        top, left, bottom, right = framing.box(height, width)
        rows, columns = framing.scaled(bottom - top, right - left)
        if bottom - top < rows or right - left < columns:
            small.append(f"{_name(table, row)} ({height}x{width})")
    return small


def _missing(table, expected: Sequence[str]) -> list[str]:
    if not set(expected) & set(table["photograph"].unique()):  # another layout, with other names of photographs
        return []
    photographs = table.groupby("folder", observed=True)["photograph"].agg(set)
    missing = {folder: [name for name in expected if name not in there] for folder, there in photographs.items()}
    return [f"{folder} ({', '.join(names)})" for folder, names in missing.items() if names]


def _several_extensions(table) -> list[str]:
    count = table.groupby(["folder", "photograph"], observed=True).size()
    return [f"{folder}/{photograph}" for folder, photograph in count[count > 1].index]


def _several_folders(table) -> list[str]:
    """The split stays right: all folders of one id are on one side, even if they are of two people."""
    folders = table.groupby("person", observed=True)["folder"].unique()
    return [f"{person} ({', '.join(map(str, some))})" for person, some in folders.items() if len(some) > 1]


def _identical(table, paths, bad) -> list[str]:
    """Files with the same content. If they have two masks, or are of two people, at least one label is wrong."""
    # Only files of equal size are read; each bad one gets a size of its own.
    sizes = pd.Series([-row - 1 if row in bad else os.path.getsize(path) for row, path in enumerate(paths)])
    rows_of_content: dict[str, list[int]] = {}
    for row in np.flatnonzero(sizes.duplicated(keep=False)):
        rows_of_content.setdefault(files.sha256(paths[row]), []).append(row)
    return [" = ".join(_name(table, row) for row in rows) for rows in rows_of_content.values() if len(rows) > 1]


def _impossible_ages(table) -> list[str]:
    folders = table.groupby("folder", observed=True)["years"].first()
    return [str(folder) for folder, years in folders.items() if years < 1 or years > OLDEST]


def _empty_classes(table) -> list[str]:
    classes = set(to_class(*(table[attribute].astype(int) for attribute in ATTRIBUTES)))
    return [name for number, name in enumerate(CLASS_NAMES) if number not in classes]
