"""The box that dataset.py suggests as CROP: where the faces are, whatever is behind and below them."""

import numpy as np
import pytest

from toolkit.data.face_box import FEWEST_PEOPLE, find_box

HEIGHT, WIDTH = 64, 48


def photographs(people: int, middle: tuple[int, int], radius: int, seed: int = 0):
    """Two photographs of each: a face, a disc of their own colour, with and without a mask over its lower half.

    Wall and coat have colours of their own in each photograph, more different than the faces. Faces are not all in the
    same place.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels, masks, names = [], [], []
    for person in range(people):
        face, wall = rng.integers(120, 200, 3), rng.integers(0, 255, 3)
        for mask in (0, 2):
            photo = np.tile(wall + rng.integers(-20, 20, 3), (HEIGHT, WIDTH, 1)).clip(0, 255)
            row, column = np.array(middle) + rng.integers(-2, 3, 2)
            photo[row + radius :] = rng.integers(0, 255, 3)
            disc = (y - row) ** 2 + (x - column) ** 2 < radius**2
            photo[disc] = face
            if mask == 0:
                photo[disc & (y > row) & (abs(x - column) < 0.8 * radius)] = rng.integers(200, 255, 3)
            pixels.append(photo)
            masks.append(mask)
            names.append(str(person))
    return np.array(pixels, np.uint8), np.array(masks), names


@pytest.mark.parametrize("middle", [(24, 24), (36, 16), (20, 32)])
def test_the_box_holds_the_faces_and_little_else(middle):
    radius = 9
    top, left, bottom, right = np.multiply(
        find_box(*photographs(80, middle, radius), HEIGHT / WIDTH), (HEIGHT, WIDTH) * 2
    )
    row, column = middle
    assert top <= row - radius + 3 and bottom >= row + radius - 2
    assert left <= column - radius + 1 and right >= column + radius - 1
    assert (bottom - top) * (right - left) < 3.2 * (2 * radius) ** 2 < HEIGHT * WIDTH / 2.9


def test_nothing_is_suggested_of_few_people_or_of_faces_that_fill_the_photograph():
    assert find_box(*photographs(FEWEST_PEOPLE - 1, (24, 24), 9), HEIGHT / WIDTH) is None
    assert find_box(*photographs(80, (30, 24), 24), HEIGHT / WIDTH) is None
    pixels, masks, names = photographs(80, (24, 24), 9)
    assert find_box(pixels, np.zeros_like(masks), names, HEIGHT / WIDTH) is None  # nobody without a mask
