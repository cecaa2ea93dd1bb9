"""The box that CROP=auto takes: where the faces are, whatever is behind and below them."""

import pathlib

import numpy as np
import pytest
from conftest import from_scratch
from PIL import Image

import dataset
import train
from toolkit.data import face_box
from toolkit.data.face_box import FEWEST_PEOPLE, find_box
from toolkit.data.photo_file import Reading

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


def save(images: pathlib.Path, pixels: np.ndarray, masks: np.ndarray, names: list[str]) -> None:
    """A folder of photographs for each person, as dataset.py reads them."""
    for photo, mask, name in zip(pixels, masks, names, strict=True):
        folder = images / f"{name}_{'female' if int(name) % 2 else 'male'}_x_{20 + int(name)}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(folder / ("normal.png" if mask else "mask1.png"))


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


@pytest.mark.parametrize("people", [60, 200])
def test_nothing_is_suggested_where_faces_are_anywhere(people):
    rng = np.random.default_rng(people)
    pixels, masks, names = photographs(people, (30, 24), 6)
    places = rng.integers((-20, -16), (20, 16), (people, 2)).repeat(2, axis=0)
    pixels = np.stack([np.roll(photo, place, (0, 1)) for photo, place in zip(pixels, places, strict=True)])
    assert find_box(pixels, masks, names, HEIGHT / WIDTH) is None


def test_people_are_taken_who_have_both_kinds_and_a_photograph_of_another_shape_changes_nothing(tmp_path):
    pixels, masks, names = photographs(60, (30, 24), 9)
    save(tmp_path, pixels, masks, names)
    table, _ = dataset.read_table(tmp_path)
    expected = face_box.find(table, dataset.paths(table, tmp_path), Reading()).box
    masked = pixels[0].repeat(2, axis=1)  # twice as wide
    save(tmp_path, np.stack([masked] * 900), np.zeros(900, int), [str(number) for number in range(100, 1000)])
    table, _ = dataset.read_table(tmp_path)
    found = face_box.find(table, dataset.paths(table, tmp_path), Reading())
    assert found.box == expected is not None and found.proportion == HEIGHT / WIDTH
    Image.fromarray(masked).save(tmp_path / "0_male_x_20" / "normal.png")
    table, _ = dataset.read_table(tmp_path)
    assert face_box.find(table, dataset.paths(table, tmp_path), Reading()).proportion == HEIGHT / WIDTH


def test_train_takes_the_box_unless_a_crop_is_set(tmp_path, capsys):
    pixels, masks, names = photographs(60, (30, 24), 9)
    save(tmp_path, pixels, masks, names)
    (tmp_path / "7_female_x_27" / "normal.png").write_bytes(b"not a photograph")
    table, _ = dataset.read_table(tmp_path)
    config = from_scratch(sm_channel_train=tmp_path, sm_model_dir=tmp_path)
    assert config.crop == "auto"
    found, origin = train.crop_to_faces(config, {}, table)
    others = np.array(names) != "7"
    expected = find_box(pixels[others], masks[others], [name for name in names if name != "7"], HEIGHT / WIDTH)
    assert found.crop == expected and origin == {"crop": "photographs"}
    assert capsys.readouterr().out == f"CROP={','.join(map(str, expected))} holds the faces, as their masks show\n"
    few, _ = train.crop_to_faces(config, {}, table[table["folder"].astype(str) < "3"].reset_index(drop=True))
    assert few.crop == (0.0, 0.0, 1.0, 1.0) and "CROP=1: faces fill the photographs" in capsys.readouterr().out
    given = config.model_copy(update={"crop": (0.1, 0.2, 0.9, 0.8)})
    assert train.crop_to_faces(given, {}, table) == (given, {}) and not capsys.readouterr().out
