"""CROP and FIT: what is cut, and how it is fitted, the same for every kind of file and wherever a run is asked."""

import dataclasses
import functools
import io
import pathlib

import numpy as np
import pandas as pd
import pytest
from conftest import run_here, succeeded
from PIL import Image, ImageOps

import model
from toolkit.config.types import WHOLE, as_text, crop_box
from toolkit.data import decode, photo_file
from toolkit.data.framing import Framing
from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.runs.weights import WEIGHTS, load_weights, save_weights
from toolkit.serving import handlers

CROP = (0.2, 0.15, 0.7, 0.9)
ALIGNED = (0.25, 0.125, 0.75, 0.875)  # whole pixels at every scale of a JPEG of 384 x 512
SIZE = (64, 48)


@functools.cache
def scene() -> Image.Image:
    """A picture of 384 x 512 with detail of all sizes."""
    rng = np.random.default_rng(0)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (side * 4, side * 3, 3), np.uint8)).resize(
                (384, 512), Image.Resampling.BICUBIC
            )
        )
        for side in (2, 8, 24)
    ]
    return Image.fromarray(np.mean(layers, 0).astype(np.uint8))


def test_the_text_of_a_crop_says_it_whole():
    rng = np.random.default_rng(0)
    for _ in range(300):
        (top, bottom), (left, right) = np.sort(rng.random((2, 2)).round(rng.integers(1, 9))).tolist()
        if bottom - top > 1e-6 < right - left:
            crop = crop_box([top, left, bottom, right])
            assert crop_box(as_text(crop)) == crop_box(list(crop)) == crop
        share = rng.random() + 1e-6
        assert as_text(crop_box(as_text(crop_box(share)))) == as_text(crop_box(share))
    assert crop_box("0.625") == (0.1875, 0.1875, 0.8125, 0.8125) and as_text(crop_box("0.625")) == "0.625"
    assert crop_box("1") == crop_box("0,0,1,1") == WHOLE and as_text(WHOLE) == "1"
    assert crop_box(" 0.1 , 0.2,0.9 0.8") == (0.1, 0.2, 0.9, 0.8)


@pytest.mark.parametrize("value", ["0", "1.2", "-0.5", "nan", "x", "", "0.1,0.2", "0.5,0,0.5,1", "0,0.9,1,0.1", "62 %"])
def test_other_crops_are_refused(value):
    with pytest.raises(ValueError, match="expected top,left,bottom,right as shares of"):
        crop_box(value)


def as_file(kind: str, picture: Image.Image) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[photo_file.EXIF_ORIENTATION] = 6
    if kind == "turned JPEG":
        picture.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=97, exif=exif)
    elif kind == "CMYK":
        picture.convert("CMYK").save(file, "JPEG", quality=97)
    elif kind == "16 bits":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(file, "PNG")
    else:
        picture.save(file, kind, **{"quality": 97, "subsampling": 0} if kind == "JPEG" else {})
    return file.getvalue()


@pytest.mark.parametrize("fit", ["squeeze", "pad", "cover"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "turned JPEG", "CMYK", "16 bits"])
def test_what_is_cut_in_decoding_is_what_is_cut_by_hand(kind, fit):
    picture = scene()
    box = (0.15 * 384, 0.2 * 512, 0.9 * 384, 0.7 * 512)
    by_hand = picture.crop(tuple(map(round, box)))
    found = decode.decode_bytes(as_file(kind, picture), Framing(SIZE, CROP, fit)).astype(int)
    expected = decode.decode_bytes(as_file("16 bits" if kind == "16 bits" else "PNG", by_hand), Framing(SIZE, fit=fit))
    assert found.shape == expected.shape == (*SIZE, 3)
    assert np.abs(found - expected).mean() < {"PNG": 0.01, "16 bits": 0.01, "CMYK": 3}.get(kind, 1.5)


def test_what_fits_keeps_its_proportions_and_what_is_squeezed_does_not():
    wide = Image.new("RGB", (400, 200), (200, 0, 0))
    wide.paste((0, 0, 200), (150, 50, 250, 150))  # a square in the middle

    def square(fit: str) -> tuple[int, int]:
        blue = decode.decode_bytes(as_file("PNG", wide), Framing((80, 80), fit=fit))[:, :, 2] > 100
        return blue.any(1).sum(), blue.any(0).sum()

    assert [square(fit) for fit in ("squeeze", "pad", "cover")] == [(40, 20), (20, 20), (40, 40)]
    cover = decode.decode_bytes(as_file("PNG", scene()), Framing((60, 60), fit="cover")).astype(int)
    assert np.abs(cover - np.asarray(ImageOps.fit(scene(), (60, 60), Image.Resampling.BILINEAR))).mean() < 0.5
    pad = decode.decode_bytes(as_file("PNG", scene()), Framing((64, 64), fit="pad"))
    assert (pad[:, :8] == pad[:, 8:9]).all() and (pad[:, 56:] == pad[:, 55:56]).all()  # the edge goes on
    assert (pad[:, 8:56] == decode.decode_bytes(as_file("PNG", scene()), Framing(SIZE))).all()


def test_a_crop_of_less_than_a_pixel_is_a_pixel():
    tiny = as_file("PNG", Image.new("RGB", (3, 2), (9, 8, 7)))
    for crop in ((0, 0, 1e-6, 1e-6), (1 - 1e-6, 1 - 1e-6, 1, 1)):
        for fit in ("squeeze", "pad", "cover"):
            assert (decode.decode_bytes(tiny, Framing(SIZE, crop, fit)) == (9, 8, 7)).all()


@pytest.mark.parametrize("times", [4, 8])
def test_a_jpeg_is_not_taken_as_its_decoder_scales_it(times):
    """At 128x96 the decoder's own scaling gave the final pixels: up to 3 grey levels off, with sharper edges."""
    jpeg = as_file("JPEG", scene().resize((96 * times, 128 * times)))
    with Image.open(io.BytesIO(jpeg)) as photo:
        exact = decode.decode_bytes(as_file("PNG", photo.convert("RGB")), Framing((128, 96))).astype(int)
    with Image.open(io.BytesIO(jpeg)) as photo:
        photo.draft("RGB", (96, 128))
        aliased = np.asarray(photo)
    ours = decode.decode_bytes(jpeg, Framing((128, 96)))
    assert 2 * np.abs(ours - exact).mean() < np.abs(aliased - exact).mean() > 1.5


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory) -> pathlib.Path:
    """A folder of two runs with the same weights: "whole" sees all of each photograph, "cut" a part of it."""
    folder = tmp_path_factory.mktemp("runs")
    state, header = load_weights(trained / "resnet18" / WEIGHTS)
    for name, framing in (("whole", Framing((32, 32))), ("cut", Framing((32, 32), ALIGNED))):
        (folder / name).mkdir()
        save_weights(folder / name / WEIGHTS, state, dataclasses.replace(header, run=name, framing=framing))
    return folder


def test_a_run_is_asked_about_the_part_that_it_learned_from(drawn, runs, tmp_path, monkeypatch):
    by_hand = tmp_path / "eval"
    (by_hand / "images").mkdir(parents=True)
    (by_hand / "info.csv").write_bytes((drawn.eval / "info.csv").read_bytes())
    for path in (drawn.eval / "images").iterdir():
        with Image.open(path) as photo:
            top, left, bottom, right = Framing(SIZE, ALIGNED).box(photo.height, photo.width)
            photo.crop((left, top, right, bottom)).save(by_hand / "images" / path.name, "PNG")

    def infer(names: str, folder: pathlib.Path) -> np.ndarray:
        where = {"SM_CHANNEL_EVAL": folder, "SM_CHANNEL_MODEL": runs, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
        done = succeeded(run_here("inference.py", NAME=names, DEVICE="cpu", ADAPT_PRIORS="false", **where))
        assert ("at 32x32 CROP=0.25,0.125,0.75,0.875, epoch" in done.stdout) == ("cut" in names)
        return pd.read_csv(tmp_path / "out" / "probabilities.csv")[list(PROBABILITY_COLUMNS)].to_numpy()

    whole, cut = infer("whole", drawn.eval), infer("cut", drawn.eval)
    off, other = (np.abs(cut - p).mean() for p in (infer("whole", by_hand), whole))
    assert 5 * off < other
    np.testing.assert_allclose(infer("cut,whole", drawn.eval), (cut + whole) / 2, atol=2e-6)
    monkeypatch.setenv("NAME", "cut")
    endpoint = handlers.load_endpoint(str(runs), model.load)
    (answer,) = handlers.predict_fn([(drawn.eval / "images" / first_image(drawn.eval)).read_bytes()], endpoint)
    np.testing.assert_allclose(answer["probabilities"], cut[0], atol=1e-4)


def first_image(folder: pathlib.Path) -> str:
    return pd.read_csv(folder / "info.csv")["ImageID"][0]
