"""Drawn faces in folders whose labels are wrong on purpose, as people make such mistakes."""

import os
import pathlib
from dataclasses import dataclass

import numpy as np

import dataset
from toolkit.labels import ATTRIBUTES, age_band

EXCHANGED = {"incorrect_mask": "normal", "normal": "incorrect_mask"}


@dataclass(frozen=True)
class Shares:
    """Of all people, how many get a wrong label of each kind."""

    gender: float
    mask: float  # incorrect_mask and normal exchanged
    age: float  # the age of somebody of another band


def make(folder: pathlib.Path, right: pathlib.Path, shares: Shares, seed: int) -> dict[str, set[str]]:
    """Link all photographs of the image folder `right` below `folder`, some under wrong labels; {kind: ids} of whom.

    A person has one kind of error at the most.
    """
    rng = np.random.default_rng([seed, 5])
    faces, _ = dataset.read_faces(right)
    people = faces.groupby("folder", observed=True)[["person", "gender", "years"]].first()
    order, wrong, first = rng.permutation(len(people)), {}, 0
    for kind, share in vars(shares).items():
        count = round(share * len(people))
        wrong[kind] = {people["person"].iloc[row] for row in order[first : first + count]}
        first += count
    years = people["years"].to_numpy()
    for name, person, gender, age in zip(people.index, people["person"], people["gender"], years, strict=True):
        if person in wrong["gender"]:
            gender = 1 - gender
        if person in wrong["age"]:
            age = rng.choice(years[age_band(years) != age_band(age)])
        place = folder / f"{person}_{ATTRIBUTES['gender'][gender]}_Drawn_{int(age)}"
        place.mkdir(parents=True)
        for file in (dataset.image_folder(right) / name).iterdir():
            stem = EXCHANGED.get(file.stem, file.stem) if person in wrong["mask"] else file.stem
            os.link(file, place / f"{stem}{file.suffix}")
    return wrong
