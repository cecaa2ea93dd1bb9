"""Copies of a data set with known label errors, of the kinds that people make."""

import os
import pathlib
from dataclasses import dataclass

import numpy as np

import dataset
from toolkit.labels import ATTRIBUTES, age_band

EXCHANGED = {"incorrect_mask": "normal", "normal": "incorrect_mask"}


@dataclass(frozen=True)
class ErrorRates:
    """The share of people with a wrong label of each kind."""

    gender: float
    mask: float  # incorrect_mask and normal have each other's name
    age: float  # an age in another band


def make(folder: pathlib.Path, right_images: pathlib.Path, rates: ErrorRates, seed: int) -> dict[str, set[str]]:
    """Link all photographs of an image folder below `folder`, some under wrong labels. Returns {kind: ids}.

    A person has at most one kind of error.
    """
    rng = np.random.default_rng([seed, 5])
    table, _ = dataset.read_faces(right_images)
    people = table.groupby("folder", observed=True)[["person", "gender", "years"]].first()
    order, wrong, first = rng.permutation(len(people)), {}, 0
    for kind, share in vars(rates).items():
        count = round(share * len(people))
        wrong[kind] = {people["person"].iloc[row] for row in order[first : first + count]}
        first += count
    years = people["years"].to_numpy()
    for name, person, gender, age in zip(people.index, people["person"], people["gender"], years, strict=True):
        if person in wrong["gender"]:
            gender = 1 - gender
        if person in wrong["age"]:
            age = rng.choice(years[age_band(years) != age_band(age)])
        target = folder / f"{person}_{ATTRIBUTES['gender'][gender]}_Drawn_{int(age)}"
        target.mkdir(parents=True)
        for file in (dataset.image_folder(right_images) / name).iterdir():
            stem = EXCHANGED.get(file.stem, file.stem) if person in wrong["mask"] else file.stem
            os.link(file, target / f"{stem}{file.suffix}")
    return wrong
