"""Folders that hold the photographs of another folder: copied, scaled, cropped a little or mirrored.

The similarity s of two folders is the mean cosine of their photographs of the same name, plain or mirrored, whichever
is larger; a photograph that one folder lacks counts 0. Photographs are compared small and in grey, whitened along the
principal axes of all photographs: this removes what all have in common, so unlike ones have a similarity near 0.

    no duplicate: s of the most similar folder is the largest of many, and follows Gumbel's law:
                  density exp(-z - exp(-z)) / scale, z = (s - location) / scale, fitted to the quartiles of all folders
    duplicate:    density a * s^(a - 1), a = DUPLICATE_EXPONENT: close to 1
    nats = log of the ratio of the densities, p = prior * exp(nats) / (prior * exp(nats) + 1 - prior)
"""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from toolkit.label_errors.evidence import Finding, correction_row, folder_numbers

GREY_PX = 16, 12  # height and width of what is compared
AXES = 32  # principal axes of the photographs
CHUNK = 512  # photographs, or folders, at once
PRIOR = 0.01  # share of folders that are duplicates, before the photographs are seen
DUPLICATE_EXPONENT = 6.0
MIN_GUMBEL_SCALE = 0.02  # few folders may have equal similarities; then any other one would look significant


def find_duplicates(table: pd.DataFrame, store) -> list[Finding]:
    """A finding for each folder: that it duplicates an earlier folder of another person.

    `store` has the pixels of the photographs of `table`, which is as in `evidence.find_label_errors`.
    """
    folders, first_rows = folder_numbers(table)
    photographs = table["photograph"]
    if photographs.nunique() > len(table) / 2:  # names of their own: the first is compared with the first, and so on
        photographs = table.groupby("folder", observed=True).cumcount()
    scores = score_folders(store, folders, photographs.to_numpy(), first_rows["person"].to_numpy())
    names = first_rows["folder"]
    return [
        Finding(
            folder=row.folder,
            kind="duplicate",
            suggestion=f"the photographs are those of {names.iloc[original]}: leave these out",
            nats=float(nats),
            probability=float(p),
            corrections=[correction_row(row, "all", "leave_out", "no", "yes", f"as {names.iloc[original]}")],
            duplicate_of=names.iloc[original],
        )
        for row, original, p, nats in zip(first_rows.itertuples(), *scores, strict=True)
    ]


def score_folders(
    store, folders: np.ndarray, photographs: np.ndarray, people: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each folder: the most similar earlier folder, p(it is a duplicate of that one), and the evidence in nats.

    `folders`, (n,), is the number of each photograph's folder, from 0; `photographs`, (n,), its name; `people`,
    (folders,), the person of each folder: two folders of one person are not compared. Returns int64, float64 and
    float64, shape (folders,). The first folder gets itself and a probability near 0.
    """
    plain, mirrored = (_folder_vectors(vectors, folders, photographs) for vectors in _photograph_vectors(store))
    original, similarity, largest = np.zeros(len(plain), int), np.zeros(len(plain)), np.zeros(len(plain))
    for start in range(0, len(plain), CHUNK):  # all pairs at once would take folders^2 x 4 bytes
        rows = np.arange(start, min(start + CHUNK, len(plain)))
        pairs = np.maximum(plain[rows] @ plain.T, mirrored[rows] @ plain.T)
        pairs[people[rows][:, None] == people] = -1
        largest[rows] = pairs.max(1)
        pairs[np.arange(len(plain)) >= rows[:, None]] = -1  # of two duplicates only the later one is left out
        original[rows], similarity[rows] = pairs.argmax(1), pairs.max(1)
    similarity, largest = similarity.clip(1e-3, 1), largest.clip(1e-3, 1)  # also where nobody is left to compare with
    log_duplicate = np.log(DUPLICATE_EXPONENT) + (DUPLICATE_EXPONENT - 1) * np.log(similarity)
    nats = log_duplicate - _log_gumbel(similarity, largest)
    odds = PRIOR / (1 - PRIOR) * np.exp(np.minimum(nats, 500))
    return original, odds / (1 + odds), nats


def _photograph_vectors(store) -> list[np.ndarray]:
    """Each photograph, and each one mirrored, as a vector of length 1: two arrays, float32, shape (n, AXES)."""
    chunks = []
    for start in range(0, len(store), CHUNK):
        pixels = store.gather(torch.arange(start, min(start + CHUNK, len(store)))).float().mean(3)[:, None]
        chunks.append(functional.interpolate(pixels, size=GREY_PX, mode="bilinear", antialias=True))
    grey = torch.cat(chunks).double()
    # Brightness and contrast change when a photograph is edited or saved again.
    grey = (grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + 1e-6)
    mean = grey.mean(0)
    plain, mirrored = ((side - mean).flatten(1) for side in (grey, grey.flip(3)))
    variances, axes = torch.linalg.eigh(plain.T @ plain / len(grey))
    whitening = axes[:, -AXES:] / variances[-AXES:].clamp(min=1e-9).sqrt()
    return [functional.normalize(side @ whitening).float().numpy() for side in (plain, mirrored)]


def _folder_vectors(vectors: np.ndarray, folders: np.ndarray, photographs: np.ndarray) -> np.ndarray:
    """The vectors of each folder's photographs, joined by name (0 for a missing one), scaled to length 1."""
    names, columns = np.unique(photographs, return_inverse=True)
    joined = np.zeros((folders.max() + 1, len(names), vectors.shape[1]), np.float32)
    joined[folders, columns] = vectors
    joined = joined.reshape(len(joined), -1)
    return joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-6)


def _log_gumbel(values: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The log density at `values` of the Gumbel law that has the quartiles of `sample`.

    Its quartiles are location - scale * log(log 4), - log(log 2) and - log(log 4/3): the outer ones are 1.5725 scales
    apart. Values below the median count as the median: less similarity than usual is no evidence of a duplicate.
    """
    low, median, high = np.quantile(sample, (0.25, 0.5, 0.75))
    scale = max((high - low) / 1.5725, MIN_GUMBEL_SCALE)
    z = np.maximum(values - median, 0) / scale - np.log(np.log(2))
    return -z - np.exp(-z) - np.log(scale)
