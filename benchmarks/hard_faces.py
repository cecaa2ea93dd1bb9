"""Drawn faces made hard enough to tell recipes apart: few old people, ages on the border, moved shares in eval.

Training has the contest's shares: 39 % male, 7 % of 60, all exactly 60, and nearly twice as many of 57 to 59. People
look their years, give or take a few, so that nobody can tell 59 from 60 for sure. There are three sets of other people:
`same` in the shares of training, `equal` with as many of each gender and age band, `moved` with 60 % male and 25 % old.
"""

import pathlib

import numpy as np

from toolkit.demo import synthetic

SHARES = np.array([[549, 410, 83], [732, 817, 109]])  # people of the contest's training data: (gender, age band)
YOUNG_OLD = np.array([0.384, 0.366, 0.25])  # of `moved`: the young and the middle keep their proportion
EVALS = {"same": SHARES, "equal": np.ones((2, 3)), "moved": np.outer((0.6, 0.4), YOUNG_OLD)}
LOOKS = (4.0, 6.0)  # years: the spread of looks around the age, and how much older those of 60 look


def make(folder: pathlib.Path, people: int, eval_people: int, seed: int = 0) -> None:
    """Draw folder/train and, in the layout of eval, folder/same, /equal and /moved, unless they are there."""
    if (folder / "done").exists():
        return
    synthetic.draw_train(folder / "train", cast(SHARES, people, np.random.default_rng([seed, 1])), seed)
    for number, (name, shares) in enumerate(EVALS.items(), 2):
        rng = np.random.default_rng([seed, number])
        synthetic.draw_eval(folder / name, cast(shares, eval_people, rng), seed + number, rng)
    (folder / "done").touch()


def cast(shares: np.ndarray, people: int, rng: np.random.Generator) -> list[tuple[int, int, float]]:
    """(gender, age, the years that the person looks) of everybody."""
    cells = np.searchsorted(np.cumsum(shares) / np.sum(shares), (np.arange(people) + 0.5) / people)
    border = rng.random(people) < 350 / 1227  # of the middle band
    middle = np.where(border, rng.integers(57, 60, people), rng.triangular(30, 40, 57, people))
    ages = np.stack([18 + 12 * rng.beta(1, 2.2, people), middle, np.full(people, 60)])
    spread, older = LOOKS
    everybody = []
    for number, cell in enumerate(rng.permutation(cells)):
        age = int(ages[cell % 3, number])
        everybody.append((int(cell) // 3, age, age + rng.normal(0, spread) + older * (age == 60)))
    return everybody
