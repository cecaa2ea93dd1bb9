"""Synthetic faces that are hard enough to tell recipes apart: few old people, ages at the border, shifted priors.

Training has the contest's priors: 39 % male, 7 % of 60, all exactly 60, and nearly twice as many of 57 to 59. Apparent
age varies around age, so that nobody can tell 59 from 60 for certain. There are three sets of other people: `same` with
the priors of training, `equal` with as many of each gender and age band, `moved` with 60 % male and 25 % old.
"""

import pathlib

import numpy as np

from toolkit.demo import synthetic

PEOPLE_OF_CONTEST = np.array([[549, 410, 83], [732, 817, 109]])  # in its training data: (gender, age band)
AGES_MOVED = np.array([0.384, 0.366, 0.25])  # of `moved`: the first two bands keep their proportion
EVALS = {"same": PEOPLE_OF_CONTEST, "equal": np.ones((2, 3)), "moved": np.outer((0.6, 0.4), AGES_MOVED)}
APPARENT_AGE_SD, OLDER_AT_60 = 4.0, 6.0  # years: spread of apparent age, and how much older those of 60 look


def make(folder: pathlib.Path, people: int, eval_people: int, seed: int = 0) -> None:
    """Draw folder/train and, as eval folders, folder/same, /equal and /moved, unless they are there."""
    if (folder / "done").exists():
        return
    synthetic.draw_train(folder / "train", cast(PEOPLE_OF_CONTEST, people, np.random.default_rng([seed, 1])), seed)
    for number, (name, weights) in enumerate(EVALS.items(), 2):
        rng = np.random.default_rng([seed, number])
        synthetic.draw_eval(folder / name, cast(weights, eval_people, rng), seed + number, rng)
    (folder / "done").touch()


def cast(weights: np.ndarray, people: int, rng: np.random.Generator) -> list[tuple[int, int, float]]:
    """(gender, age, apparent age) of people in proportion to weights, shape (2, 3): (gender, age band)."""
    groups = np.searchsorted(np.cumsum(weights) / np.sum(weights), (np.arange(people) + 0.5) / people)
    is_border = rng.random(people) < 350 / 1227  # the share of 57 to 59 in the middle band
    middle = np.where(is_border, rng.integers(57, 60, people), rng.triangular(30, 40, 57, people))
    ages = np.stack([18 + 12 * rng.beta(1, 2.2, people), middle, np.full(people, 60)])
    everybody = []
    for number, group in enumerate(rng.permutation(groups)):
        age = int(ages[group % 3, number])
        apparent_age = age + rng.normal(0, APPARENT_AGE_SD) + OLDER_AT_60 * (age == 60)
        everybody.append((int(group) // 3, age, apparent_age))
    return everybody
