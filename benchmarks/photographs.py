"""Photographs to measure with: drawn people as JPEGs of 384 x 512 pixels with some grain, like those of the contest."""

import os
import pathlib

import numpy as np
from PIL import Image

from toolkit.demo import synthetic

WIDTH, HEIGHT = 384, 512


def make(folder: pathlib.Path, people: int, copies: int = 1) -> pathlib.Path:
    """Write 7 photographs of each of so many people to folder/images, in the layout of training; that path.

    Copies are links: each stands for another person of the same looks.
    """
    synthetic.ensure(folder / "drawn", people=people, eval_people=6)
    rng = np.random.default_rng(0)
    for path in sorted((folder / "drawn" / "train" / "images").glob("*/*.*")):
        large = Image.open(path).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        grain = np.asarray(large) + rng.normal(0, 4, (HEIGHT, WIDTH, 3))
        places = [folder / "images" / f"{copy}{path.parent.name}" / f"{path.stem}.jpg" for copy in range(copies)]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(places[0], quality=90)
        for place in places[1:]:
            os.link(places[0], place)
    return folder / "images"
