"""Photographs of every kind, written by Pillow and read back."""

import functools
import os
import random
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import decode_file
from PIL import Image, PngImagePlugin

from toolkit.data import decode, photo_file
from toolkit.data.framing import Framing
from toolkit.data.store import Store

FRAMING = Framing((64, 48))


@functools.cache
def scene() -> Image.Image:
    """A smooth picture, 384 x 512, whose red grows to the right and whose green grows downwards."""
    y, x = np.mgrid[0:512, 0:384]
    return Image.fromarray(np.stack([x * 255 // 383, y * 255 // 511, np.full_like(x, 40)], -1).astype(np.uint8))


@pytest.fixture
def save(tmp_path):
    def write(name: str, picture: Image.Image, **options) -> str:
        picture.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return write


def test_height_comes_before_width_and_the_jpeg_decoders_scaling_keeps_the_picture(save):
    exact = np.asarray(scene().resize((48, 64), Image.Resampling.BILINEAR)).astype(int)
    for name, bound in (("a.png", 0.5), ("a.jpg", 2)):
        pixels = decode_file(save(name, scene(), quality=95) if name == "a.jpg" else save(name, scene()), FRAMING)
        assert pixels.shape == (64, 48, 3) and pixels.dtype == np.uint8
        assert np.abs(pixels - exact).mean() <= bound


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_rgb_from_any_mode(save, mode):
    grey = scene().convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "I":
        picture = Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
    else:
        picture = scene().convert("RGBA").convert(mode) if mode in ("LA", "PA") else scene().convert(mode)
    name = {"CMYK": "a.jpg", "YCbCr": "a.jpg", "F": "a.tiff", "I": "a.tiff", "PA": "a.tiff"}.get(mode, "a.png")
    pixels = decode_file(save(name, picture), FRAMING).astype(int)
    expected = np.asarray(
        (grey if mode in ("L", "LA", "1", "I;16", "I", "F") else scene()).convert("RGB").resize((48, 64))
    )
    assert pixels.shape == (64, 48, 3)
    assert np.abs(pixels - expected).mean() < 8  # palettes and dithering are coarse


@pytest.mark.parametrize(
    ("kind", "greatest"),
    [(np.float32, 1), (np.float32, 255), (np.float32, 65535), (np.uint16, 255), (np.uint16, 65535), (np.int32, 255)],
)
def test_grey_values_are_as_bright_as_their_range_says(save, kind, greatest):
    """Scientific programs store 8-bit values in 16 bits, or values from 0 to 1. Such photographs came out black."""
    grey = scene().convert("L")
    values = (np.asarray(grey) / 255 * greatest).astype(kind)
    pixels = decode_file(save("a.tiff", Image.fromarray(values)), FRAMING).astype(int)
    assert np.abs(pixels - np.asarray(grey.convert("RGB").resize((48, 64)))).mean() < 2


@pytest.mark.parametrize("values", [[-1.0, 5.0], [0.0, 70000.0], [0.0, float("nan")]])
def test_grey_values_of_no_known_range_are_refused(save, values):
    with pytest.raises(ValueError, match="expected grey values from 0 to 1, 255 or 65535, found"):
        decode_file(save("a.tiff", Image.fromarray(np.array([values], np.float32))), FRAMING)


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_a_photograph_whose_exif_is_damaged_is_read(save, kind):
    pixels = decode_file(save(f"a.{kind}", scene(), exif=b"Exif\0\0no TIFF at all"), FRAMING)
    assert np.abs(pixels.astype(int) - decode_file(save(f"b.{kind}", scene()), FRAMING)).max() == 0
    turned = struct.pack("<HHII", 0x0112, 3, 1, 6)  # then an entry whose value lies beyond the end
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turned + struct.pack("<HHII", 0x8298, 2, 99, 9999) + bytes(4)
    pixels = decode_file(save(f"c.{kind}", scene(), exif=exif), FRAMING)
    good = Image.Exif()
    good[photo_file.EXIF_ORIENTATION] = 6
    assert np.abs(pixels.astype(int) - decode_file(save(f"d.{kind}", scene(), exif=good), FRAMING)).max() == 0


def test_of_large_photographs_one_is_decoded_at_a_time(save, monkeypatch):
    """Also where Pillow must decode a photograph to know its orientation."""
    path, at_once, most, load = save("a.png", scene()), [], [], PngImagePlugin.PngImageFile.load

    def slow(photo):
        at_once.append(photo)
        most.append(len(at_once))
        time.sleep(0.02)
        at_once.pop()
        return load(photo)

    monkeypatch.setattr(decode, "LARGE", 1000)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode_file, [path] * 8, [FRAMING] * 8))
    assert len(most) >= 8 and max(most) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(save, orientation):
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    lying = scene().transpose(undo[orientation]) if orientation in undo else scene()
    exif = Image.Exif()
    exif[photo_file.EXIF_ORIENTATION] = orientation
    upright, turned = (
        decode_file(save("a.jpg", scene()), FRAMING),
        decode_file(save("b.jpg", lying, exif=exif), FRAMING),
    )
    assert np.abs(turned.astype(int) - upright).mean() < 3


@pytest.mark.skipif(decode.simplejpeg is None, reason="simplejpeg is not installed")
def test_simplejpeg_gives_the_pixels_and_the_verdicts_of_pillow(save, tmp_path, monkeypatch):
    rng = random.Random(0)
    verdicts = {"decoded": 0, "refused": 0}
    for number in range(300):
        picture = scene().resize((rng.randint(20, 600), rng.randint(20, 600))).convert(rng.choice(["RGB", "L", "CMYK"]))
        path = save("a.jpg", picture, quality=rng.randint(20, 100), progressive=number % 3 == 0)
        content = bytearray((tmp_path / "a.jpg").read_bytes())
        if number % 2:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "a.jpg").write_bytes(content[: rng.randrange(len(content))] if number % 7 == 0 else content)
        framing, results = Framing((rng.randint(16, 400), rng.randint(16, 400))), []
        for module in (decode.simplejpeg, None):
            with monkeypatch.context() as patch:
                patch.setattr(decode, "simplejpeg", module)
                try:
                    results.append(decode_file(path, framing))
                except Exception as error:
                    results.append(str(error))
        assert np.array_equal(*results)
        verdicts["refused" if isinstance(results[0], str) else "decoded"] += 1
    assert min(verdicts.values()) > 30


def broken_files(save, tmp_path) -> list[str]:
    good = save("good.jpg", scene())
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no photograph")
    (tmp_path / "empty.png").write_bytes(b"")
    huge = save("huge.png", Image.new("1", (20_000, 20_000)))
    return [good, *(str(tmp_path / name) for name in ("cut.jpg", "text.jpg", "empty.png", "missing.jpg")), huge]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_store_names_every_bad_photograph_and_keeps_the_good_ones(save, tmp_path):
    paths = broken_files(save, tmp_path)
    store = Store(paths, FRAMING)
    bad = store.fill()
    assert list(bad) == [1, 2, 3, 4, 5]
    assert bad[4] == "no such file" and "pixels" in bad[5]
    assert (store.gather(torch.tensor([0]))[0].numpy() == decode_file(paths[0], FRAMING)).all()


def test_what_is_no_file_or_too_large_to_be_a_photograph_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(photo_file.LARGEST_FILE + 1)
    for name in ("pipe.jpg", "large.jpg"):
        with pytest.raises(ValueError, match="expected a file of at most 256 MiB"):
            decode_file(tmp_path / name, FRAMING)
