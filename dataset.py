"""The faces: from folders of photographs to a table with a row for each, and its split into two sides by person.

SM_CHANNEL_TRAIN=<image folder> SM_OUTPUT_DATA_DIR=<folder> python dataset.py

looks at them before training: counts, every problem that is found, and dataset.html, a contact sheet.

To read photographs that lie otherwise, write another `read_faces`: all that follows needs only its columns, and that a
photograph lies at folder/file.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.config import settings, sources
from toolkit.labels import ATTRIBUTES, BORDER_YEARS, CLASS_NAMES, CLASSES, age_band, to_class
from toolkit.system import console, files
from toolkit.system.console import InputError, listed, say

if TYPE_CHECKING:
    import pandas as pd

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
PERSON_FOLDER = re.compile(r"(?P<person>[^.].*)_(?P<gender>male|female)_(?P<race>[^_]*)_(?P<years>\d{1,3})", re.I)
MASK_OF_PHOTOGRAPH = {**{f"mask{n}": 0 for n in range(1, 6)}, "incorrect_mask": 1, "normal": 2}


def read_faces(folder: pathlib.Path) -> tuple[pd.DataFrame, list[str]]:
    """A row for each photograph, sorted by folder and file, and what else lies there and was passed over.

    `folder` is the image folder or its parent; in it lie folders `<id>_<gender>_<race>_<age>`, in each of them any of
    mask1 to mask5, incorrect_mask and normal. Columns: folder, file, person (id) and photograph, which are categories,
    as a million separate texts would take more memory than the net; mask, gender and age, numbers as in
    toolkit/labels.py; and years. Raises InputError where there is no photograph.
    """
    import pandas as pd  # slow, and inference has no use for it

    root = image_folder(folder)
    people, files_of_all, passed_over = [], [], []
    for name, is_folder in _listing(root):
        person = PERSON_FOLDER.fullmatch(name) if is_folder else None
        if person is None:
            passed_over.append(name)
            continue
        found = 0
        for file, is_folder in _listing(root / name):
            photograph, extension = os.path.splitext(file.lower())
            if photograph not in MASK_OF_PHOTOGRAPH or is_folder or extension not in EXTENSIONS:
                passed_over.append(f"{name}/{file}")
            else:
                files_of_all.append(sys.intern(file))
                found += 1
        gender, years = ATTRIBUTES["gender"].index(person["gender"].lower()), int(person["years"])
        people.append((name, person["person"], gender, age_band(years), years, found))
    if not files_of_all:
        raise InputError(
            f"SM_CHANNEL_TRAIN={folder}: expected folders <id>_<gender>_<race>_<age> with photographs named "
            f"{', '.join(MASK_OF_PHOTOGRAPH)}; found {listed(passed_over) or 'nothing'}"
        )
    columns = {
        "folder": "category",
        "person": "category",
        "gender": "int8",
        "age": "int8",
        "years": float,
        "found": int,
    }
    table = pd.DataFrame(people, columns=list(columns)).astype(columns)
    found = table.pop("found")
    table = table.loc[table.index.repeat(found)].reset_index(drop=True)
    table["file"] = pd.Categorical(files_of_all)
    photographs = [os.path.splitext(file)[0].lower() for file in table["file"].cat.categories]
    names = pd.Series(photographs, dtype="category").iloc[table["file"].cat.codes].reset_index(drop=True)
    masks = np.array([MASK_OF_PHOTOGRAPH[name] for name in photographs], np.int8)[table["file"].cat.codes]
    return table.assign(photograph=names, mask=masks), passed_over


def image_folder(folder: pathlib.Path) -> pathlib.Path:
    """`folder`, or the `images` folder in it where there is one."""
    return folder / "images" if (folder / "images").is_dir() else folder


def paths(faces: pd.DataFrame, folder: pathlib.Path | None = None) -> np.ndarray:
    """Every photograph's path, below the image folder or, where `folder` is given, with it: bytes, shape (n,)."""
    folders, names = (faces[column].astype("category").cat for column in ("folder", "file"))
    above = b"" if folder is None else os.fsencode(image_folder(folder)) + b"/"
    folder_names = np.array([above + os.fsencode(name) + b"/" for name in folders.categories], bytes)
    file_names = np.array([os.fsencode(name) for name in names.categories], bytes)
    return np.char.add(folder_names[folders.codes], file_names[names.codes])


def refuse_bad_photographs(faces: pd.DataFrame, folder: pathlib.Path, bad: dict[int, str]) -> None:
    """Raises InputError that names those that could not be read, as {row: why}."""
    if bad:
        named = zip(map(os.fsdecode, paths(faces.iloc[list(bad)])), bad.values(), strict=True)
        raise InputError(
            f"SM_CHANNEL_TRAIN={folder}: {len(bad)} of {len(faces)} photographs cannot be read; mend or remove them: "
            f"{listed((f'{path} ({reason})' for path, reason in named), most=len(bad))}"
        )


def labels(faces: pd.DataFrame) -> np.ndarray:
    """The class 0..17 of every row: int64."""
    return to_class(*(faces[attribute] for attribute in ATTRIBUTES)).to_numpy(np.int64, copy=True)


@dataclass(frozen=True)
class Split:
    """Indices of the table's rows on the two sides, each sorted: int64."""

    train: np.ndarray
    validation: np.ndarray


def hold_out(faces: pd.DataFrame, ratio: float, folds: int, fold: int, seed: int) -> set[str]:
    """The people to validate on, so that gender and age bands keep their shares on both sides.

    People stand in a row, sorted by gender and age band and, within those, by a hash of seed and id. Of the row every
    `folds`-th from `fold` on is held out, or, where `folds` is 0, people at even distances that make up `ratio` of all.
    So every group keeps its share to within one person. It depends on the seed, the people and what their folders say,
    and on no library's random numbers. Take the table before corrections: then RELABEL does not change who is held out.
    """
    people = faces.groupby("person", observed=True)[["gender", "age"]].first()
    people["rank"] = [hashlib.sha256(f"{seed}/{person}".encode()).hexdigest() for person in people.index]
    row = people.sort_values(["gender", "age", "rank"]).index
    place = np.arange(len(row) + 1)
    return set(row[place[:-1] % folds == fold if folds else np.diff(np.floor(place * ratio + 0.5)) > 0])


def split(faces: pd.DataFrame, held_out: set[str]) -> Split:
    """The two sides of the table; a person is an id, so that one who has two folders is on one side.

    Raises InputError where a side is too small: batch norm cannot learn from a single photograph.
    """
    outside = faces["person"].isin(held_out).to_numpy()
    sides = Split(np.flatnonzero(~outside), np.flatnonzero(outside))
    if len(sides.train) < 2 or not len(sides.validation):
        raise InputError(
            f"expected people for training and for validation, found {len(sides.train)} and {len(sides.validation)} "
            f"photographs of {faces['person'].nunique()} people; change VAL_RATIO or FOLDS, or add people"
        )
    assert not set(faces["person"].iloc[sides.train]) & set(faces["person"].iloc[sides.validation])
    return sides


def without_border_ages(faces: pd.DataFrame, sides: Split) -> Split:
    """The two sides, without BORDER_YEARS on that of training. Raises InputError where that leaves nobody."""
    train = sides.train[~faces["years"].iloc[sides.train].isin(BORDER_YEARS).to_numpy()]
    if len(train) < 2:
        raise InputError(
            f"BORDER_AGES=leave_out: expected other ages than {listed(BORDER_YEARS)}, found none to train on"
        )
    return Split(train, sides.validation)


def balanced(labels: np.ndarray, people: pd.Series) -> np.ndarray:
    """Chances of photographs with which every class is as likely as the others: shapes (n,), (n,), float64 (n,).

    And within a class every person, and then every photograph of that person in that class.
    """
    import pandas as pd

    table = pd.DataFrame({"label": labels, "person": pd.factorize(people)[0]})
    of_class = table.groupby("label")["person"].transform("nunique")
    of_person = table.groupby(["label", "person"])["person"].transform("size")
    return (1 / (table["label"].nunique() * of_class * of_person)).to_numpy()


def counts(faces: pd.DataFrame, sides: Split) -> str:
    """The photographs and people of both sides as aligned lines: one a class, and a last one for all."""
    numbers = {
        side: np.bincount(labels(faces)[rows], minlength=CLASSES)
        for side, rows in (("train", sides.train), ("validation", sides.validation))
    }
    people = [faces["person"].iloc[rows].nunique() for rows in (sides.train, sides.validation)]
    lines = [f"{'class':>5}  {'':32} {'train':>7} {'validation':>10}"]
    for number, name in enumerate(CLASS_NAMES):
        lines.append(f"{number:5}  {name:32} {numbers['train'][number]:7} {numbers['validation'][number]:10}")
    lines.append(f"{'all':>5}  {'photographs':32} {numbers['train'].sum():7} {numbers['validation'].sum():10}")
    lines.append(f"{'':5}  {'people':32} {people[0]:7} {people[1]:10}")
    return "\n".join(lines)


def read_eval(folder: pathlib.Path) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of `info.csv` as texts, and the path of the photograph that each row names.

    Raises InputError where the file or its column ImageID is missing, where it has no row, where an ImageID is repeated
    or leads out of the image folder.
    """
    info = files.read_csv(folder / "info.csv", ("ImageID",), "SM_CHANNEL_EVAL", key="ImageID")
    images = folder / "images"
    if not images.is_dir():
        raise InputError(f"SM_CHANNEL_EVAL={folder}: expected a folder images in it, found none")
    outside = [name for name in info["ImageID"] if os.path.isabs(name) or ".." in pathlib.PurePath(name).parts]
    if outside:
        raise InputError(
            f"{folder / 'info.csv'}: expected names of files in {images}, found {len(outside)} that lead out of it: "
            f"{listed(outside)}"
        )
    return info, [os.path.join(images, name) for name in info["ImageID"]]


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.DatasetSettings, argv)
    files.make_folder(config.sm_output_data_dir, "SM_OUTPUT_DATA_DIR")
    from toolkit.data import checks
    from toolkit.data.store import Store
    from toolkit.label_errors import corrections
    from toolkit.pages import contact_sheet

    sources.ensure_drawn_faces(config)
    as_found, passed_over = read_faces(config.sm_channel_train)
    table, corrected = corrections.apply(as_found, config.relabel, image_folder(config.sm_channel_train))
    sides = split(table, hold_out(as_found, config.val_ratio, 0, 0, config.seed))
    said = [counts(table, sides), str(corrected)]
    say("\n".join(said))
    store = Store(paths(as_found, config.sm_channel_train), config.size)
    with store:
        found = checks.find(as_found, store.paths, config.size, MASK_OF_PHOTOGRAPH, store.wait())
    if passed_over:
        found = {"files and folders passed over, as they are no photographs": passed_over, **found}
    for what, items in found.items():
        say(f"{what} ({len(items)}): {listed(items)}")
    say(f"written: {contact_sheet.write(config, as_found, table, store, found, said).absolute()}")


def _listing(folder: pathlib.Path) -> list[tuple[str, bool]]:
    """(name, is a folder) of all that lies in a folder, sorted, so that the order is the same on every machine.

    Names that are no UTF-8 are spelled out, and count as no folders: they could not be written to any CSV.
    """
    listing = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.encode("utf-8", "backslashreplace").decode()
            listing.append((name, entry.is_dir() and name == entry.name))
    return sorted(listing)


if __name__ == "__main__":
    console.run(main)
