"""Photographs to measure with: drawn people as JPEGs of 384 x 512 pixels with some grain, like those of the contest."""

import multiprocessing
import os
import pathlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from toolkit.data.store import cpu_count
from toolkit.demo import synthetic
from toolkit.demo.portrait import PHOTOGRAPHS
from toolkit.labels import ATTRIBUTES

WIDTH, HEIGHT = 384, 512
FIRST = 900_001  # id: outliers.csv corrects none of these


def make(folder: pathlib.Path, people: int, copies: int = 1) -> pathlib.Path:
    """Write 7 photographs of each of so many people to folder/images, in the layout of training; that path.

    All cores draw. Copies are links in more folders of the same person, so nobody is on both sides of a split.
    """
    images = folder / "images"
    cast = synthetic.draw_cast(synthetic.TRAIN_SHARES, people, np.random.default_rng(0))
    parts = np.array_split(np.arange(people), min(people, 4 * cpu_count()))
    with ProcessPoolExecutor(cpu_count(), multiprocessing.get_context("fork")) as pool:
        list(pool.map(partial(_draw, images, cast, copies), parts))
    return images


def make_few(folder: pathlib.Path, people: int = 12) -> list[pathlib.Path]:
    """Draw 7 photographs of each of so many people into one folder; their paths, sorted."""
    folder.mkdir(exist_ok=True)
    cast = synthetic.draw_cast(synthetic.EVAL_SHARES, people, np.random.default_rng(0))
    synthetic.draw_people(cast, range(people), 0, lambda person, number: folder / f"{person}-{number}.jpg")
    return sorted(folder.iterdir())


def _draw(images: pathlib.Path, cast: list[tuple[int, int]], copies: int, numbers: np.ndarray) -> None:
    def path_of(number: int, photograph: int, copy: int = 0) -> pathlib.Path:
        gender, age = cast[numbers[number]]
        person = f"{FIRST + numbers[number]}_{ATTRIBUTES['gender'][gender]}_Drawn{copy}_{age}"
        return images / person / f"{PHOTOGRAPHS[photograph]}.jpg"

    for number in range(len(numbers)):
        for copy in range(copies):
            path_of(number, 0, copy).parent.mkdir(parents=True, exist_ok=True)
    synthetic.draw_people([cast[number] for number in numbers], FIRST + numbers, 0, path_of)
    for number in range(len(numbers)):
        rng = np.random.default_rng(FIRST + numbers[number])
        for photograph in range(len(PHOTOGRAPHS)):
            path = path_of(number, photograph)
            large = Image.open(path).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            grain = np.asarray(large) + rng.normal(0, 4, (HEIGHT, WIDTH, 3))
            Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(path, quality=90)
            for copy in range(1, copies):
                os.link(path, path_of(number, photograph, copy))
