"""Where the faces are in photographs of one kind, found by their masks: what CROP=auto takes.

A wall or a coat differs between people as much as a face does, but not between the photographs of one person: a mask
does. So a pixel counts by how alike the difference between with and without a mask is among people.
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

FEWEST_PEOPLE, MOST_PEOPLE = 50, 500  # fewer with both kinds of photograph say too little, more nothing new
WORN, NOT_WORN = 0, 2  # of mask, in toolkit/labels.py
# How far the box reaches beyond the masks, in mask widths: what scored best on real faces (docs/measured.md).
ABOVE, BELOW, BESIDE = 0.95, 0.15, 0.35
FILLS = 0.85  # of the photograph's area: a larger box is not worth a crop
SIZE = (64, 48)  # at which photographs are compared
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
        return f"CROP={as_text(WHOLE)}: faces fill the photographs, or {few}"


def find(table: pd.DataFrame, paths: np.ndarray, reading: Reading) -> Faces:
    """Where the faces of a table of photographs are, from those of up to MOST_PEOPLE people that can be read."""
    people = table["person"].unique()
    of_some = table["person"].isin(people[:: -(-len(people) // MOST_PEOPLE)])
    rows = np.flatnonzero(of_some & table["mask"].isin((WORN, NOT_WORN)))
    store = Store(paths[rows], Framing(SIZE), reading=reading)
    good = np.setdiff1d(np.arange(len(rows)), list(store.fill()))
    if not len(good):
        return Faces(np.zeros((*SIZE, 3), np.uint8), 1.0, None)
    with photo_file.opened(store.read(good[0]), reading.max_megapixels) as photo:
        height, width = photo_file.upright_size(photo)
    pixels, sample = store.gather(torch.from_numpy(good)).numpy(), table.iloc[rows[good]]
    box = find_box(pixels, sample["mask"].to_numpy(), sample["person"].astype(str).tolist(), height / width)
    return Faces(pixels.mean(0).round().astype(np.uint8), height / width, box)


def find_box(
    pixels: np.ndarray, masks: np.ndarray, people: Sequence[str], proportion: float
) -> tuple[float, float, float, float] | None:
    """The box of the faces as CROP takes it, shares from 0 to 1; None where people are too few, or faces fill it all.

    `pixels`: uint8, shape (n, h, w, 3), of whole photographs; `masks`: as numbers, shape (n,); `people`: who is on
    them; `proportion`: height / width of these photographs, before they were scaled.

    d = mean of a person's photographs with a mask - mean of those without. Masks are where, summed over the channels,
    mean(d)^2 / (mean(d)^2 + var(d)) over people is at least half its maximum. The box reaches ABOVE, BELOW, BESIDE.
    """
    of_person = pd.Series(np.arange(len(pixels))).groupby([people, masks]).indices
    pairs = [(rows, of_person.get((person, NOT_WORN))) for (person, mask), rows in of_person.items() if mask == WORN]
    differences = [pixels[worn].mean(0) - pixels[bare].mean(0) for worn, bare in pairs if bare is not None]
    if len(differences) < FEWEST_PEOPLE:
        return None
    alike = (np.mean(differences, 0) ** 2).sum(-1)
    share = alike / (alike + np.var(differences, 0).sum(-1) + 1e-9)
    is_mask = share >= share.max() / 2
    # Without the outermost hundredths: single pixels elsewhere may be alike by chance.
    (top, bottom), (left, right) = (_middle(is_mask.sum(axis)) for axis in (1, 0))
    width, height = right - left, (right - left) / proportion  # one mask width, as a share of width and of height
    box = top - ABOVE * height, left - BESIDE * width, bottom + BELOW * height, right + BESIDE * width
    top, left, bottom, right = np.clip(box, 0, 1).round(2).tolist()
    return (top, left, bottom, right) if (bottom - top) * (right - left) < FILLS else None


def _middle(counts: np.ndarray) -> tuple[float, float]:
    """Where the middle 96 % of these counts along a side lie: shares of the side."""
    running = np.cumsum(counts) / counts.sum()
    return np.searchsorted(running, 0.02) / len(counts), (np.searchsorted(running, 0.98) + 1) / len(counts)
