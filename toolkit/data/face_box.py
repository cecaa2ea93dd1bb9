"""CROP=auto: the box of the faces in photographs that were taken alike, found by the masks.

Walls and clothes differ between people, as faces do, but not between the photographs of one person; masks do. So masks
are where photographs with and without a mask differ, and differ in the same way for all people.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from toolkit.config.types import WHOLE, as_text
from toolkit.data import photo_file
from toolkit.data.framing import Framing
from toolkit.data.photo_file import Reading
from toolkit.data.store import Store

FEWEST_PEOPLE, MOST_PEOPLE = 50, 300  # who have both; fewer say too little, more say nothing new
LEAST_ALIKE = 0.25  # found: 0.5 and more if photographs are taken alike, up to 0.2 if faces are anywhere
WORN, NOT_WORN = 0, 2  # of mask, in toolkit/labels.py
# How far the box reaches beyond the masks, in mask widths: what scored best on real faces (docs/measured.md).
ABOVE, BELOW, BESIDE = 0.95, 0.15, 0.35
FILLS = 0.85  # of the photograph's area: a larger box is not worth a crop
SIZE = (64, 48)  # at which photographs are compared
SHAPES = 50  # photographs whose height and width are read
RULE = (
    "The rule: masks are where the difference between a person's photographs with and without one is most alike among "
    f"people; the box reaches {ABOVE} mask widths above the masks, {BELOW} below and {BESIDE} beside them."
)


class Faces(NamedTuple):
    """Where the faces are."""

    mean: np.ndarray  # the mean photograph: uint8, shape (h, w, 3)
    proportion: float  # height / width of the photographs
    box: tuple[float, float, float, float] | None  # as CROP takes it; None where there is no use in a crop

    @property
    def crop(self) -> tuple[float, float, float, float]:
        return self.box or WHOLE

    def __str__(self) -> str:
        if self.box:
            return f"CROP={as_text(self.box)} holds the faces, as their masks show"
        few = f"fewer than {FEWEST_PEOPLE} people have some with and some without a mask"
        return f"CROP={as_text(WHOLE)}: faces fill the photographs, or are not in one place, or {few}"


def find(table: pd.DataFrame, paths: np.ndarray, reading: Reading) -> Faces:
    """Where the faces of a table of photographs are, from those of up to MOST_PEOPLE people that can be read."""
    people = table["person"].astype(str).to_numpy()
    worn, bare = (table["mask"].to_numpy() == mask for mask in (WORN, NOT_WORN))
    of_both = np.intersect1d(people[worn], people[bare])
    names = of_both if len(of_both) >= FEWEST_PEOPLE else np.unique(people)  # everybody, only for the mean photograph
    some = names[np.linspace(0, len(names), min(MOST_PEOPLE, len(names)), endpoint=False).astype(int)]
    rows = np.flatnonzero(np.isin(people, some) & (worn | bare))
    with Store(paths[rows], Framing(SIZE), reading=reading) as store:
        good = np.setdiff1d(np.arange(len(rows)), list(store.wait()))
    if not len(good):
        return Faces(np.zeros((*SIZE, 3), np.uint8), 1.0, None)
    proportion = float(np.median([_proportion(store, row, reading) for row in good[:SHAPES]]))
    pixels, rows = store.gather(torch.from_numpy(good)).numpy(), rows[good]
    box = find_box(pixels, table["mask"].to_numpy()[rows], people[rows], proportion)
    return Faces(pixels.mean(0).round().astype(np.uint8), proportion, box)


def _proportion(store: Store, photograph: int, reading: Reading) -> float:
    """height / width of a photograph, from the header of its file."""
    with photo_file.opened(store.read(photograph), reading.max_megapixels) as photo:
        height, width = photo_file.upright_size(photo)
    return height / width


def find_box(
    pixels: np.ndarray, masks: np.ndarray, people: Sequence[str], proportion: float
) -> tuple[float, float, float, float] | None:
    """The box of the faces as CROP takes it, shares from 0 to 1.

    None if people are too few, if masks are not in one place, or if faces fill the photograph.

    `pixels`: uint8, shape (n, h, w, 3), of whole photographs; `masks`: as numbers, shape (n,); `people`: who is on
    them; `proportion`: height / width of these photographs, before they were scaled.

    d = mean of a person's photographs with a mask - mean of those without. Masks are where, summed over the channels,
    mean(d)^2 / (mean(d)^2 + var(d)) over people is at least half its maximum, which must be LEAST_ALIKE. The box
    reaches ABOVE, BELOW, BESIDE.
    """
    of_person = pd.Series(np.arange(len(pixels))).groupby([people, masks]).indices
    pairs = [(rows, of_person.get((person, NOT_WORN))) for (person, mask), rows in of_person.items() if mask == WORN]
    differences = [pixels[worn].mean(0) - pixels[bare].mean(0) for worn, bare in pairs if bare is not None]
    if len(differences) < FEWEST_PEOPLE:
        return None
    alike = (np.mean(differences, 0) ** 2).sum(-1)
    share = alike / (alike + np.var(differences, 0).sum(-1) + 1e-9)
    if share.max() < LEAST_ALIKE:
        return None
    # Without the outermost 2 % on each side: single pixels elsewhere may be alike by chance.
    (top, bottom), (left, right) = (
        np.quantile(place, (0.02, 0.98), method="inverted_cdf") / length + (0, 1 / length)
        for place, length in zip(np.nonzero(share >= share.max() / 2), share.shape, strict=True)
    )
    width, height = right - left, (right - left) / proportion  # one mask width, as a share of width and of height
    box = top - ABOVE * height, left - BESIDE * width, bottom + BELOW * height, right + BESIDE * width
    top, left, bottom, right = np.clip(box, 0, 1).round(2).tolist()
    return (top, left, bottom, right) if (bottom - top) * (right - left) < FILLS else None
