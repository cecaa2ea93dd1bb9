"""Which files are read as photographs, whatever they are called, and what becomes of those that lack their end."""

import functools
import io
import math
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from toolkit.data import photo_file
from toolkit.data.decode import decode_bytes
from toolkit.data.disk_cache import open_store
from toolkit.data.framing import Framing
from toolkit.data.photo_file import MissingEndError, Reading
from toolkit.data.store import Store

FRAMING = Framing((64, 48))
HEIF = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed").register_heif_opener


def test_what_pillow_warns_of_and_reads_all_the_same_is_not_said(tmp_path):
    """The warning names no photograph, and may come from any thread."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"  # cut short in its first entry
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    for loud, said in (("", ""), ("import warnings; warnings.simplefilter('always'); ", "Corrupt EXIF data")):
        code = (
            f"import sys; from toolkit.data import photo_file; {loud}\n"
            "with photo_file.opened(photo_file.read(sys.argv[1])) as photo: print(photo_file.orientation(photo))"
        )
        command = [sys.executable, "-c", code, tmp_path / "a.jpg"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "1\n" and said in done.stderr and bool(done.stderr) == bool(said), done.stderr


@functools.cache
def scene() -> Image.Image:
    y, x = np.mgrid[0:256, 0:192]
    return Image.fromarray(np.stack([x, y, 128 + 60 * np.sin(x / 9) * np.sin(y / 7)], -1).astype(np.uint8))


def as_file(kind: str, **options) -> bytes:
    file = io.BytesIO()
    scene().save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", photo_file.FORMATS)
def test_every_format_that_is_named_is_read(kind):
    if kind == "HEIF":
        HEIF()  # to write it
    pixels = decode_bytes(as_file(kind), FRAMING).astype(int)
    assert np.abs(pixels - decode_bytes(as_file("PNG"), FRAMING)).mean() < (12 if kind == "GIF" else 3)


def test_a_heic_photograph_without_its_package_says_which_one_it_needs(monkeypatch):
    HEIF()
    content = as_file("HEIF")
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as Python has it of a package that is not there
    with pytest.raises(ValueError, match="needs the package pillow-heif .*; pip install -r requirements-extras.txt"):
        decode_bytes(content, FRAMING)


def test_a_program_that_is_called_a_photograph_is_not_run(tmp_path):
    path, proof = tmp_path / "mask1.jpg", tmp_path / "proof"
    path.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({proof}) (w) file closefile showpage\n")
    bad = Store([str(path)], FRAMING).fill()
    assert bad == {0: "no photograph of a format that is read: JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF, HEIF"}
    assert not proof.exists()


def png_header(width: int, height: int) -> bytes:
    """A small PNG that says of itself that it is larger."""
    content = bytearray(as_file("PNG"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_photographs_of_phones_are_opened_where_a_setting_says_so_and_threads_never():
    with pytest.raises(ValueError, match="12000 x 9000 pixels: expected at most MAX_MEGAPIXELS=100"):
        decode_bytes(png_header(12000, 9000), FRAMING)
    with photo_file.opened(png_header(16320, 12240), 200) as photo:
        assert photo.size == (16320, 12240)
    for width, height in ((1, 40_000_000), (40_000_000, 1)):
        for limit in (100, math.inf):
            with pytest.raises(ValueError, match=f"{width} x {height} pixels: expected sides of at most 65535"):
                decode_bytes(png_header(width, height), FRAMING, limit)
    decode_bytes(as_file("PNG"), FRAMING, 0.05)
    with pytest.raises(ValueError, match="MAX_MEGAPIXELS=0.04"):
        decode_bytes(as_file("PNG"), FRAMING, 0.04)


TURNED = Image.Exif()
TURNED[photo_file.EXIF_ORIENTATION] = 6


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": TURNED}], ids=lambda options: str([*options]))
def test_a_jpeg_that_lacks_its_end_is_read_where_it_may_be(options, tmp_path):
    whole = as_file("JPEG", quality=90, **options)
    paths = [str(tmp_path / f"{share}.jpg") for share in (100, 85, 20)]
    for path, share in zip(paths, (1, 0.85, 0.2), strict=True):
        pathlib.Path(path).write_bytes(whole[: int(share * len(whole))])
    assert Store(paths, FRAMING).fill() == {1: "its end is missing", 2: "its end is missing"}
    store = Store(paths, FRAMING, reading=Reading(repair=True))
    bad = store.fill()
    assert store.repaired == {1: "its end is missing"} | ({2: "its end is missing"} if "progressive" in options else {})
    assert [reason.partition(" ")[2] for reason in bad.values()] == ["of it is missing"] * (2 - len(store.repaired))
    first, second = store.gather(torch.tensor([0, 1])).int().numpy()
    there = (slice(None), slice(12, 48)) if "exif" in options else (slice(0, 48),)  # turned: it is the left that lacks
    assert np.abs(first[there] - second[there]).mean() < (3 if "progressive" in options else 0.01)


def test_what_was_repaired_is_kept_and_not_taken_for_whole_later(tmp_path):
    content, path = as_file("JPEG"), tmp_path / "cut.jpg"
    path.write_bytes(content[:-400])
    (tmp_path / "cache").mkdir()
    found = []
    for repair in (True, True, False):
        store = open_store([str(path)], FRAMING, 1.0, tmp_path / "cache", Reading(repair=repair))
        found.append((store.fill(), store.reused, store.repaired))
    lacks = {0: "its end is missing"}
    assert found == [({}, False, lacks), ({}, True, lacks), (lacks, False, {})]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_others_that_are_cut_are_not_repaired(kind, tmp_path):
    (tmp_path / "cut").write_bytes(as_file(kind)[:-400])
    assert list(Store([str(tmp_path / "cut")], FRAMING, reading=Reading(repair=True)).fill()) == [0]


def test_a_jpeg_of_one_colour_cannot_be_told_from_one_that_is_missing():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(file, "JPEG")
    with pytest.raises(MissingEndError, match="100% of it is missing"):
        photo_file.with_an_end(file.getvalue()[:-2])
