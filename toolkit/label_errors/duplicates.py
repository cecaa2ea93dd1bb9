"""People whose photographs are those of another folder: copied, scaled, cropped a little or mirrored."""

import numpy as np
import torch
from torch.nn import functional

GREY = 16, 12  # pixels, of what is compared
DIRECTIONS = 32  # in which photographs differ most from each other
CHUNK = 512  # photographs, or folders
SHARE = 0.01  # of folders are believed to be copies, before anything is seen
SAME = 6.0  # how steeply copies gather at a likeness of 1: their density is SAME * likeness ** (SAME - 1)


def find(store, codes: np.ndarray, photographs: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each folder the one before it that is most like it, how likely that is a copy, and the evidence in nats.

    `store` has the pixels of n photographs, `codes`, (n,), the number of each one's folder, from 0, `photographs`,
    (n,), which of a person's photographs it is, and `people`, (folders,), whose folder it is: several of one person are
    not compared. Shapes (folders,) each; int64, float64, float64. The first folder has itself, and 0.

    Likeness is the mean cosine of photographs of one name, in grey, along the directions in which photographs differ
    most, each of which counts the same: so unlike photographs have a likeness near 0 whatever all have in common. What
    is nearest to a folder by chance follows the law of largest values (Gumbel), whose place and width the folders say.
    """
    plain, mirrored = (_by_folder(vectors, codes, photographs) for vectors in _directions(store))
    nearest, like, largest = np.zeros(len(plain), int), np.zeros(len(plain)), np.zeros(len(plain))
    for first in range(0, len(plain), CHUNK):
        rows = np.arange(first, min(first + CHUNK, len(plain)))
        likeness = np.maximum(plain[rows] @ plain.T, mirrored[rows] @ plain.T)
        likeness[people[rows][:, None] == people] = -1
        largest[rows] = likeness.max(1)
        likeness[np.arange(len(plain)) >= rows[:, None]] = -1
        nearest[rows], like[rows] = likeness.argmax(1), likeness.max(1)
    like, largest = like.clip(1e-3, 1), largest.clip(1e-3, 1)  # also where there is nobody to compare with
    nats = np.log(SAME) + (SAME - 1) * np.log(like) - _log_gumbel(like, largest)
    odds = SHARE / (1 - SHARE) * np.exp(np.minimum(nats, 500))
    return nearest, odds / (1 + odds), nats


def _directions(store) -> list[np.ndarray]:
    """Each photograph, and each one mirrored, as a vector of length 1: two arrays, float32, shape (n, DIRECTIONS)."""
    parts = []
    for first in range(0, len(store), CHUNK):
        pixels = store.gather(torch.arange(first, min(first + CHUNK, len(store)))).float().mean(3)[:, None]
        parts.append(functional.interpolate(pixels, size=GREY, mode="bilinear", antialias=True))
    grey = torch.cat(parts).double()
    grey = (grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + 1e-6)
    centre = grey.mean(0)
    sides = [(side - centre).flatten(1) for side in (grey, grey.flip(3))]
    spread, axes = torch.linalg.eigh(sides[0].T @ sides[0] / len(grey))
    scaled = axes[:, -DIRECTIONS:] / spread[-DIRECTIONS:].clamp(min=1e-9).sqrt()
    return [functional.normalize(side @ scaled).float().numpy() for side in sides]


def _by_folder(vectors: np.ndarray, codes: np.ndarray, photographs: np.ndarray) -> np.ndarray:
    """The vectors of each folder's photographs, one behind another, as one of length 1."""
    names, places = np.unique(photographs, return_inverse=True)
    table = np.zeros((codes.max() + 1, len(names), vectors.shape[1]), np.float32)
    table[codes, places] = vectors
    table = table.reshape(len(table), -1)
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)


def _log_gumbel(values: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The logarithm of the density of Gumbel's law with the quartiles of a sample."""
    low, middle, high = np.quantile(sample, (0.25, 0.5, 0.75))
    width = max((high - low) / 1.5725, 0.02)
    z = np.maximum(values - middle, 0) / width - np.log(np.log(2))  # what is less like than usual is no surprise
    return -z - np.exp(-z) - np.log(width)
