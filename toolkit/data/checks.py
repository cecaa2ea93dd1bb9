"""What may be wrong with a data set, found before training: none of it stops anything."""

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from toolkit.labels import ATTRIBUTES, CLASS_NAMES, to_class

OLDEST = 100  # years that are believed


def find(
    faces: pd.DataFrame, paths: np.ndarray, size: tuple[int, int], photographs: Sequence[str], bad: Mapping[int, str]
) -> dict[str, list[str]]:
    """{what is wrong: [where]} of the table of faces as it was read, and of its photographs, a path for each row.

    `photographs` are those that every person should have, `bad` {row: why} of those that cannot be decoded.
    """
    found = {
        "unreadable photographs": [f"{_name(faces, row)} ({why})" for row, why in bad.items()],
        f"photographs smaller than {size[0]}x{size[1]}": _small(faces, paths, size, bad),
        "folders without all photographs": _lacking(faces, photographs),
        "photographs with several extensions": _twice(faces),
        "people with several folders": _several_folders(faces),
        "identical files": _same(faces, paths, bad),
        f"folders of no age from 1 to {OLDEST}": _ages(faces),
        "classes without a photograph": _empty_classes(faces),
    }
    return {what: where for what, where in found.items() if where}


def _name(faces: pd.DataFrame, row: int) -> str:
    return f"{faces['folder'].iloc[row]}/{faces['file'].iloc[row]}"


def _small(faces, paths, size: tuple[int, int], bad) -> list[str]:
    """Those that are blown up to `size`."""
    small = []
    for row in (row for row in range(len(paths)) if row not in bad):
        with Image.open(os.fsdecode(paths[row])) as photo:  # only its head is read
            if min(photo.size) < min(size) or max(photo.size) < max(size):
                small.append(f"{_name(faces, row)} ({photo.height}x{photo.width})")
    return small


def _lacking(faces, photographs: Sequence[str]) -> list[str]:
    there = faces.groupby("folder", observed=True)["photograph"].agg(set)
    lacking = {folder: [name for name in photographs if name not in some] for folder, some in there.items()}
    return [f"{folder} ({', '.join(names)})" for folder, names in lacking.items() if names]


def _twice(faces) -> list[str]:
    count = faces.groupby(["folder", "photograph"], observed=True).size()
    return [f"{folder}/{photograph}" for folder, photograph in count[count > 1].index]


def _several_folders(faces) -> list[str]:
    """They are kept on one side of the split, so two people of one id are at worst held out together."""
    folders = faces.groupby("person", observed=True)["folder"].unique()
    return [f"{person} ({', '.join(map(str, some))})" for person, some in folders.items() if len(some) > 1]


def _same(faces, paths, bad) -> list[str]:
    """Files of one content: of one person with two masks, or of two people, one label is wrong at least."""
    sizes = pd.Series([-row - 1 if row in bad else os.path.getsize(path) for row, path in enumerate(paths)])
    alike: dict[str, list[int]] = {}
    for row in np.flatnonzero(sizes.duplicated(keep=False)):
        with open(paths[row], "rb") as file:
            alike.setdefault(hashlib.sha256(file.read()).hexdigest(), []).append(row)
    return [" = ".join(_name(faces, row) for row in rows) for rows in alike.values() if len(rows) > 1]


def _ages(faces) -> list[str]:
    folders = faces.groupby("folder", observed=True)["years"].first()
    return [str(folder) for folder, years in folders.items() if not 1 <= years <= OLDEST]


def _empty_classes(faces) -> list[str]:
    there = set(to_class(*(faces[attribute] for attribute in ATTRIBUTES)))
    return [name for number, name in enumerate(CLASS_NAMES) if number not in there]
