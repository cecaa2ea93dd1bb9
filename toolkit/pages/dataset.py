"""dataset.html: people, corrections, augmentation and problems of a data set, to look at before training."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup
from PIL import Image

from toolkit.data import augment, face_box
from toolkit.data.face_box import Faces
from toolkit.data.framing import Framing
from toolkit.data.split import Split
from toolkit.data.store import Store
from toolkit.labels import ATTRIBUTES, CLASSES, PERSON_ATTRIBUTES, readable
from toolkit.pages.parts import charts, pictures, render
from toolkit.pages.parts.predictions import NO_PHOTOGRAPHS, NUMBERED_CLASSES, READABLE_CLASSES

PEOPLE_OF_EACH_GROUP = 4  # of each gender and age band
MAX_CORRECTED = 60  # people
MAX_AUGMENTED = 8  # photographs
MAX_FRAMED = 11
FOUND_COLOUR, USED_COLOUR = (255, 150, 0), (40, 110, 255)  # orange, blue: of boxes
HEIGHT_PX = 104


@dataclass(frozen=True)
class Findings:
    """What was found in the data set."""

    facts: str  # the first line
    labels: np.ndarray  # classes after corrections: int64, shape (n,)
    sides: Split  # of these photographs, as train.py would split them
    corrections: str  # as dataset.py prints them
    problems: Mapping[str, Sequence[str]]  # {what is wrong: [where]}, as toolkit/data/checks.py finds them
    faces: Faces


@dataclass(frozen=True)
class Shown:
    """Which photographs the page shows, and how."""

    store: Store | None  # of all photographs as found; None keeps photographs out of the page
    seed: int  # decides which people are shown, and the augmentation
    pixelate: bool


def write(
    path: pathlib.Path, findings: Findings, as_found: pd.DataFrame, corrected: pd.DataFrame, shown: Shown
) -> None:
    """Write the page, from the table of photographs as it was found and as it was corrected."""
    store, seed = shown.store, shown.seed
    render.write(
        path,
        "dataset.html",
        title="Data set",
        facts=findings.facts,
        pixelate=shown.pixelate,
        why_no_photographs=NO_PHOTOGRAPHS if store is None else "",
        sides=list(_sides(findings.sides)),
        counts=_class_counts(findings),
        lacking=_lacking(findings),
        people_counts=_people_counts(corrected, findings.sides),
        ages=_ages(corrected),
        applied=findings.corrections,
        problems=findings.problems,
        crop=f"{findings.faces}. {face_box.RULE if findings.faces.box else ''}",
        boxes=[] if store is None else list(_boxes(findings.faces, store)),
        framed=[] if store is None else _framed(findings.faces, store),
        people=[] if store is None else [_person(as_found, store, rows) for rows in _sample_people(as_found, seed)],
        corrections=_corrected_people(as_found, corrected, store),
        policies=list(augment.POLICIES),
        augmented=[] if store is None else _augmented(store, seed),
    )


def _class_counts(findings: Findings) -> list[tuple[str, list[int]]]:
    """The number of photographs of each class on each side of the split."""
    sides = _sides(findings.sides).values()
    counts = [np.bincount(findings.labels[rows], minlength=CLASSES).tolist() for rows in sides]
    return [(name, numbers) for name, *numbers in zip(NUMBERED_CLASSES, *counts, strict=True)]


def _sides(split: Split) -> dict[str, np.ndarray]:
    """{name: rows} of training and, unless VAL_RATIO=0, of validation."""
    return {"training": split.train} | ({"validation": split.validation} if len(split.validation) else {})


def _lacking(findings: Findings) -> dict[str, list[str]]:
    """Classes without photographs, which lower macro F1: in the whole data set, and others in validation only."""
    whole = np.bincount(findings.labels, minlength=CLASSES)
    names = np.array(READABLE_CLASSES)
    found = {"the data set": names[whole == 0].tolist()}
    if (rows := _sides(findings.sides).get("validation")) is not None:
        held_out = np.bincount(findings.labels[rows], minlength=CLASSES)
        found["validation"] = names[(whole > 0) & (held_out == 0)].tolist()
    return found


def _people_counts(table: pd.DataFrame, sides: Split) -> list[tuple[str, list[int]]]:
    """The number of people of each gender and age band (PERSON_ATTRIBUTES) on each side of the split."""
    people = [table.iloc[rows].groupby(list(PERSON_ATTRIBUTES))["person"].nunique() for rows in _sides(sides).values()]
    rows = []
    for values in itertools.product(*(range(len(ATTRIBUTES[name])) for name in PERSON_ATTRIBUTES)):
        names = (ATTRIBUTES[name][value] for name, value in zip(PERSON_ATTRIBUTES, values, strict=True))
        rows.append((readable(" ".join(names)), [int(side.get(values, 0)) for side in people]))
    return rows


def _ages(table: pd.DataFrame) -> Markup | None:
    """A bar for each year of age; None where years are not known."""
    years = table.groupby("person", observed=True)["years"].first().dropna().astype(int)
    return charts.bars(years.value_counts().sort_index().to_dict(), "People", "age in years") if len(years) else None


def _framed(faces: Faces, store: Store) -> list[Image.Image]:
    """The mean photograph and some others, with the box of the faces, and that of CROP and FIT if it is another."""
    mean = Image.fromarray(faces.mean).resize((round(HEIGHT_PX / faces.proportion), HEIGHT_PX))
    some = np.linspace(0, len(store) - 1, min(MAX_FRAMED, len(store))).astype(int)
    photos = [mean, *(pictures.thumbnail(store.paths[row], HEIGHT_PX) for row in some)]
    boxes = _boxes(faces, store).values()
    for photo in filter(None, photos):
        for framing, colour in boxes:
            pictures.draw_box(photo, framing.box(photo.height, photo.width), colour)
    return [photo for photo in photos if photo]


def _boxes(faces: Faces, store: Store) -> dict[str, tuple[Framing, tuple[int, int, int]]]:
    """{what a box means: (its framing, its colour)}, of those that are drawn."""
    found = replace(store.framing, crop=faces.crop)
    boxes = {"Orange: the part that holds the faces.": (found, FOUND_COLOUR)} if faces.box else {}
    if store.framing not in (found, Framing(store.size)):
        boxes["Blue: what CROP and FIT take."] = store.framing, USED_COLOUR
    return boxes


def _sample_people(table: pd.DataFrame, seed: int) -> list[np.ndarray]:
    """The rows of PEOPLE_OF_EACH_GROUP people of each gender and age band, an array for each person."""
    rng, people = np.random.default_rng([seed, 4]), []
    for _, group in table.groupby(["gender", "age"]):
        folders = group["folder"].unique()
        sample = rng.choice(folders, min(PEOPLE_OF_EACH_GROUP, len(folders)), replace=False)
        people += [np.flatnonzero(table["folder"] == folder) for folder in sorted(sample)]
    return people


def _person(table: pd.DataFrame, store: Store, rows: np.ndarray) -> dict:
    """A person's folder and photographs: (caption, picture)."""
    photographs = [
        (readable(str(table["photograph"].iloc[row])), pictures.thumbnail(store.paths[row], HEIGHT_PX)) for row in rows
    ]
    return {"name": str(table["folder"].iloc[rows[0]]), "photographs": photographs}


def _corrected_people(as_found: pd.DataFrame, corrected: pd.DataFrame, store: Store | None) -> list[dict]:
    """As `_person`, for people with a corrected photograph: these photographs, captioned with what was changed."""
    keys = ["folder", "file"]
    changes = dict(
        zip(zip(*(corrected[key].astype(str) for key in keys), strict=True), corrected["corrected"], strict=True)
    )
    people: dict[str, dict] = {}
    for row, (folder, file) in enumerate(zip(*(as_found[key].astype(str) for key in keys), strict=True)):
        change = changes.get((folder, file), "left out")
        if not change or (folder not in people and len(people) == MAX_CORRECTED):
            continue
        photo = None if store is None else pictures.thumbnail(store.paths[row], HEIGHT_PX)
        person = people.setdefault(folder, {"name": folder, "photographs": []})
        person["photographs"].append((f"{file}: {change}", photo))
    return list(people.values())


def _augmented(store: Store, seed: int) -> list[list]:
    """Photographs at even distances through the store: for each a list of pictures, one for each policy."""
    count = min(MAX_AUGMENTED, len(store))
    pixels = store.gather(torch.linspace(0, len(store) - 1, count).long())
    mean, std, draws = torch.full((3,), 0.5), torch.full((3,), 0.25), augment.draw(seed, 0, count)
    of_policies = [
        augment.to_pixels(augment.prepare(pixels, mean, std, policy, draws), mean, std)
        for policy in augment.POLICIES.values()
    ]
    return [[pictures.from_pixels(some[number], HEIGHT_PX) for some in of_policies] for number in range(count)]
