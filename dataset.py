"""The photographs: a table of those with labels, from their folders, and the list of those to predict.

SM_CHANNEL_TRAIN=<image folder> SM_OUTPUT_DATA_DIR=<folder> python dataset.py

checks them before training: it prints counts and every problem, and writes dataset.html, a contact sheet.

To read another layout of photographs, rewrite `read_faces`: everything else needs only its columns, which
toolkit/data/checks.py checks.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from toolkit.config import settings, sources
from toolkit.data import split
from toolkit.demo import synthetic
from toolkit.labels import ATTRIBUTES, age_band, to_class
from toolkit.system import console, csv_files, files, spelling, world
from toolkit.system.console import InputError, listed, say, warn

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.data.store import Selection, Store
    from toolkit.label_errors.corrections import CorrectionReport

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
)  # fmt: skip
PERSON_FOLDER = re.compile(r"(?P<person>[^.].*)_(?P<gender>male|female)_(?P<race>[^_]*)_(?P<years>\d{1,3})", re.I)
# Files and folders that operating systems put into folders, beside hidden ones.
JUNK = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information")
MASK_OF_PHOTOGRAPH = {**{f"mask{n}": 0 for n in range(1, 6)}, "incorrect_mask": 1, "normal": 2}


def read_faces(folder: pathlib.Path) -> tuple[pd.DataFrame, list[str]]:
    """The table: a row for each photograph, sorted by folder and file; and the files and folders passed over.

    `folder` is the image folder or its parent. It holds folders `<id>_<gender>_<race>_<age>`, each with any of mask1 to
    mask5, incorrect_mask and normal. Their extension is one of EXTENSIONS, or any other if the content is a photograph.
    Columns of the table: folder, file, person (the id) and photograph ("mask1") are categories, since a million
    separate texts would take more memory than the model; mask, gender and age are int8, as numbered in
    toolkit/labels.py; years is float. Further columns, such as race, only group the scores in report.html. Raises
    InputError if there is no photograph.

    A function for another layout may return texts in place of categories, and no years. A `file` with slashes is the
    path below the image folder, whatever `folder` is. Several people may share a folder. For photographs in the image
    folder itself, `folder` is ".".
    """
    import pandas as pd  # slow to import, and inference does not need it

    root = image_folder(folder)
    people, files_of_all, passed_over = [], [], []
    for name, is_folder in _listing(root):
        person = PERSON_FOLDER.fullmatch(name) if is_folder else None
        if person is None:
            passed_over.append(name)
            continue
        photographs, others = _photographs(root / name)
        passed_over += [f"{name}/{file}" for file in others]
        files_of_all += map(sys.intern, photographs)
        gender, years = ATTRIBUTES["gender"].index(person["gender"].lower()), int(person["years"])
        people.append((name, person["person"], gender, person["race"], age_band(years), years, len(photographs)))
    if not files_of_all:
        found = listed(sort_passed_over(root, passed_over)[0] or passed_over) or "nothing"
        raise InputError(
            f"SM_CHANNEL_TRAIN={folder}: expected folders <id>_<gender>_<race>_<age> with photographs named "
            f"{', '.join(MASK_OF_PHOTOGRAPH)}; found {found}"
        )
    columns = {
        "folder": "category",
        "person": "category",
        "gender": "int8",
        "race": "category",
        "age": "int8",
        "years": float,
        "count": int,
    }
    table = pd.DataFrame(people, columns=list(columns)).astype(columns)
    table = table.loc[table.index.repeat(table.pop("count"))].reset_index(drop=True)
    table["file"] = pd.Categorical(files_of_all)
    photographs = [os.path.splitext(file)[0].lower() for file in table["file"].cat.categories]
    names = pd.Series(photographs, dtype="category").iloc[table["file"].cat.codes].reset_index(drop=True)
    masks = np.array([MASK_OF_PHOTOGRAPH[name] for name in photographs], np.int8)[table["file"].cat.codes]
    return table.assign(photograph=names, mask=masks), passed_over


def _photographs(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """The files in a person's folder that are photographs, sorted; and all else there.

    A file with an extension that is not in EXTENSIONS counts if its content is a photograph, as in inference.py, and if
    it is no copy, such as mask1.bak beside mask1.jpg.
    """
    from toolkit.data import photo_file

    listing = _listing(folder)
    parts = {file: os.path.splitext(file.lower()) for file, is_folder in listing if not is_folder}
    named = {file: parts[file] for file in parts if parts[file][0] in MASK_OF_PHOTOGRAPH}
    known = {name for name, extension in named.values() if extension in EXTENSIONS}
    found = {
        file
        for file, (name, extension) in named.items()
        if extension in EXTENSIONS or (name not in known and not photo_file.why_unreadable(folder / file))
    }
    return sorted(found), [file for file, _ in listing if file not in found]


def sort_passed_over(root: pathlib.Path, passed_over: Iterable[str]) -> tuple[list[str], list[str]]:
    """(misnamed, junk): names below `root` that look like people or photographs, perhaps with a typo; all others."""
    misnamed, junk = [], []
    for path in passed_over:
        name = path.rpartition("/")[2]
        stem, extension = os.path.splitext(name.lower())
        looks_right = extension in EXTENSIONS or stem in MASK_OF_PHOTOGRAPH or PERSON_FOLDER.fullmatch(name)
        is_junk = name.startswith(".") or name.lower() in JUNK or not (looks_right or (root / path).is_dir())
        (junk if is_junk else misnamed).append(path)
    return misnamed, junk


def report_passed_over(root: pathlib.Path, passed_over: Sequence[str]) -> None:
    """Print how many files below `root` are no photographs; warn of those that look like some but are not read."""
    misnamed, junk = sort_passed_over(root, passed_over)
    if junk:
        say(f"passed over {len(junk)} files and folders that are no photographs: {listed(junk)}")
    if misnamed and world.rank() == 0:
        warn(
            f"warning: {len(misnamed)} files and folders look like people or photographs, and are NOT read: "
            f"{listed(misnamed, 20)}; expected folders <id>_<gender>_<race>_<age>, gender male or female, with "
            f"photographs {', '.join(MASK_OF_PHOTOGRAPH)}; rename them, or remove them from {root}"
        )


def image_folder(folder: pathlib.Path) -> pathlib.Path:
    """`folder`, or the folder `images` in it if there is one."""
    return folder / "images" if (folder / "images").is_dir() else folder


def read_table(folder: pathlib.Path) -> tuple[pd.DataFrame, list[str]]:
    """What `read_faces` returns, checked. Raises InputError if it is not what that docstring promises."""
    from toolkit.data import checks

    return checks.checked(read_faces(folder), image_folder(folder))


class Corrected(NamedTuple):
    """The table of photographs with label corrections."""

    table: pd.DataFrame
    as_found: pd.DataFrame  # the table before corrections, which may also leave photographs out
    report: CorrectionReport
    passed_over: list[str]  # files and folders that are no photographs


def read_corrected(folder: pathlib.Path, relabel: str) -> Corrected:
    """`read_table`, with the corrections that RELABEL names. Raises InputError on wrong tables of corrections."""
    from toolkit.label_errors import corrections

    as_found, passed_over = read_table(folder)
    table, report = corrections.apply(as_found, relabel, image_folder(folder))
    return Corrected(table, as_found, report, passed_over)


def paths(table: pd.DataFrame, folder: pathlib.Path | None = None) -> np.ndarray:
    """The path of each photograph, relative to the image folder; if `folder` is given, with it: bytes, shape (n,)."""
    from toolkit.data.checks import path_of

    above = "" if folder is None else f"{image_folder(folder)}/"
    places = zip(table["folder"], table["file"], strict=True)
    # Bytes of one length in one array: as many texts of their own would take many times the memory.
    return np.array([os.fsencode(above + path_of(*place)) for place in places], bytes)


def labels(table: pd.DataFrame) -> np.ndarray:
    """The class 0..17 of every row: int64."""
    # In int8, which the columns are, more than 128 classes would overflow.
    return to_class(*(table[attribute].to_numpy(np.int64) for attribute in ATTRIBUTES))


class BadPhotographs(NamedTuple):
    """Photographs that cannot be read, or whose end is missing: {row of the table: reason}."""

    left_out: dict[int, str]
    repaired: dict[int, str]

    def as_columns(self, table: pd.DataFrame) -> dict[str, list]:
        """The columns of bad_images.csv."""
        reasons = {**self.left_out, **self.repaired}
        names = [os.fsdecode(name) for name in paths(table.iloc[list(reasons)])]
        done = ["left out"] * len(self.left_out) + ["repaired"] * len(self.repaired)
        return {"path": names, "done": done, "reason": list(reasons.values())}


def find_bad(table: pd.DataFrame, store: Store, folder: pathlib.Path, on_bad_image: str) -> BadPhotographs:
    """The bad photographs of the table. Waits for the store; prints how many are bad, and what is done with them.

    With ON_BAD_IMAGE=stop raises InputError that names them.
    """
    store.wait()
    of_table = ({row: why for row, why in sorted(of.items()) if row < len(table)} for of in (store.bad, store.repaired))
    found = BadPhotographs(*of_table)
    named = [f"{path} ({reason})" for path, _, reason in zip(*found.as_columns(table).values(), strict=True)]
    if named and on_bad_image == "stop":
        raise InputError(
            f"SM_CHANNEL_TRAIN={folder}: {len(named)} of {len(table)} photographs cannot be read; mend or remove them, "
            f"or set ON_BAD_IMAGE=leave_out (or repair, for those that lack only their end): "
            f"{listed(named, most=len(named))}"
        )
    if named:
        say(f"{len(found.left_out)} bad photographs are left out, {len(found.repaired)} repaired: {listed(named)}")
    return found


def without_rows(table: pd.DataFrame, store: Store, rows: list[int]) -> tuple[pd.DataFrame, Selection]:
    """The table and the store without these rows. Row i of the table is photograph i of the store."""
    from toolkit.data.store import Selection

    kept = Selection(store, np.delete(np.arange(len(store)), rows))
    return table.drop(index=rows).reset_index(drop=True), kept


def read_eval(folder: pathlib.Path) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of `info.csv` as texts, and the path of the photograph that each row names.

    Without that file the only column is ImageID: all photographs in the folder, or in `images` in it, sorted. Raises
    InputError if there are no photographs, if the file has no column ImageID or no row, or if an ImageID is repeated or
    leads out of the image folder.
    """
    if not (folder / "info.csv").exists():
        return _all_photographs(folder)
    info = csv_files.read(folder / "info.csv", ("ImageID",), "SM_CHANNEL_EVAL", key="ImageID")
    images = folder / "images"
    if not images.is_dir():
        raise InputError(f"SM_CHANNEL_EVAL={folder}: expected a folder images in it, found none")
    paths = spelling.paths(images, info["ImageID"], folder / "info.csv")
    if outside := [name for name, path in zip(info["ImageID"], paths, strict=True) if path is None]:
        raise InputError(
            f"{folder / 'info.csv'}: expected names of files in {images}, found {len(outside)} that lead out of it: "
            f"{listed(outside)}"
        )
    return info, paths


def _all_photographs(folder: pathlib.Path) -> tuple[dict[str, list[str]], list[str]]:
    """`read_eval` for a folder without info.csv. Prints that there is none."""
    from toolkit.data import photo_file

    images = image_folder(folder)
    listing = [(name, is_folder) for name, is_folder in _listing(images) if not name.startswith(".")]
    names = [
        name
        for name, is_folder in listing
        if not is_folder
        and (os.path.splitext(name.lower())[1] in EXTENSIONS or not photo_file.why_unreadable(images / name))
    ]
    others = [name for name, is_folder in listing if not is_folder and name not in set(names)]
    inside = [name for name, is_folder in listing if is_folder]
    if not names:
        raise InputError(
            f"{folder / 'info.csv'}: expected this file, or photographs in {images}; found "
            f"{listed([*inside, *others]) or 'nothing'}; is SM_CHANNEL_EVAL the right folder?"
        )
    left_out = f"; passed over, as they are no photographs: {listed(others)}" if others else ""
    left_out += f"; folders in it are NOT read: {listed(inside)}" if inside else ""
    say(f"no info.csv in {folder}: all {len(names)} photographs of {images}, sorted{left_out}")
    return {"ImageID": names}, [os.path.join(images, name) for name in names]


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.DatasetSettings, argv)
    files.make_folder(config.sm_output_data_dir, "SM_OUTPUT_DATA_DIR")
    from toolkit.data import checks, face_box
    from toolkit.data.framing import Framing
    from toolkit.data.photo_file import Reading
    from toolkit.data.store import Store
    from toolkit.pages import dataset as dataset_page

    synthetic.ensure_for(config)
    table, as_found, report, passed_over = read_corrected(config.sm_channel_train, config.relabel)
    held_out = split.held_out_people(as_found, config.val_ratio, 0, 0, config.seed)
    sides = split.split_by_person(table, held_out)
    classes = labels(table)
    say(*split.describe(classes, table["person"], [sides]), *str(report).split("\n"))
    reading = Reading.of(config)
    faces = face_box.find(table, paths(table, config.sm_channel_train), reading)  # train.py finds the same
    say(str(faces))
    if config.crop == "auto":
        config = config.model_copy(update={"crop": faces.crop})
    store = Store(paths(as_found, config.sm_channel_train), Framing.of(config), reading=reading)
    with store:
        bad = store.wait()
        problems = checks.find_problems(as_found, store.paths, store.framing, MASK_OF_PHOTOGRAPH, bad)
    misnamed, junk = sort_passed_over(image_folder(config.sm_channel_train), passed_over)
    of_names = {
        "files and folders that look like people or photographs, and are NOT read": misnamed,
        "files and folders passed over, as they are no photographs": junk,
    }
    problems = {what: items for what, items in of_names.items() if items} | problems
    for what, items in problems.items():
        say(f"{what} ({len(items)}): {listed(items)}")
    facts = f"{len(as_found):,} photographs of {as_found['person'].nunique():,} people in {config.sm_channel_train}"
    page = config.sm_output_data_dir / "dataset.html"
    findings = dataset_page.Findings(facts, classes, sides, str(report), problems, faces)
    shown = dataset_page.Shown(store if config.report_photos else None, config.seed, config.pixelate)
    dataset_page.write(page, findings, as_found, table, shown)
    say(f"written: {page.absolute()}")


def _listing(folder: pathlib.Path) -> list[tuple[str, bool]]:
    """(name, is a folder) of all that lies in a folder, sorted, so that the order is the same on every machine.

    Names that are not UTF-8 get escapes (\\xff) and never count as folders: they could not be written to a CSV.
    """
    listing = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.encode("utf-8", "backslashreplace").decode()
            listing.append((name, entry.is_dir() and name == entry.name))
    return sorted(listing)


if __name__ == "__main__":
    console.run(main)
