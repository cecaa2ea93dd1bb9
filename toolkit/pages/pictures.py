"""Photographs as a page shows them: small, upright, inside the page itself. No torch is imported for it."""

import base64
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

HEIGHT_PX = 176
HOT = (214, 40, 40)  # the colour of where a net looks
CELL, EMPTY = 3 / 4, (128, 128, 128)  # of pictures in a row: width of a height, and the colour of no picture


def thumbnail(path: str | bytes | os.PathLike, height: int = HEIGHT_PX) -> Image.Image | None:
    """A photograph from its file, RGB, upright, of that height or smaller; None where it cannot be read."""
    try:
        with Image.open(os.fsdecode(path)) as photo:
            photo.draft("RGB", (1, 2 * height))  # scaled down by its decoder, as far as twice that height is left
            photo = ImageOps.exif_transpose(photo).convert("RGB")
    except Exception:  # Pillow raises nearly anything on a broken file
        return None
    photo.thumbnail((2 * height, height))
    return photo


def of_pixels(pixels: np.ndarray, height: int = HEIGHT_PX) -> Image.Image:
    """Stored pixels (uint8, shape (h, w, 3)) as a picture of that height."""
    photo = Image.fromarray(np.ascontiguousarray(pixels))
    return photo.resize((round(photo.width * height / photo.height), height), Image.Resampling.BILINEAR)


def heated(photo: Image.Image, heat: np.ndarray) -> Image.Image:
    """A photograph, grey, with HOT where `heat` (float, 0 to 1, shape (h, w) of any size) is high."""
    mask = Image.fromarray((heat * 150).astype(np.uint8)).resize(photo.size, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", photo.size, HOT), ImageOps.grayscale(photo).convert("RGB"), mask)


def beside(first: Image.Image, second: Image.Image) -> Image.Image:
    """Two pictures of one height as one."""
    both = Image.new("RGB", (first.width + second.width, first.height))
    both.paste(first, (0, 0))
    both.paste(second, (first.width, 0))
    return both


def in_a_row(photos: Sequence[Image.Image | None], height: int) -> Image.Image:
    """Pictures of at most that height as one, each in the middle of a cell of that height; None leaves its cell empty.

    All cells are as wide as a portrait is, CELL of their height.
    """
    width = round(height * CELL)
    row = Image.new("RGB", (max(len(photos), 1) * width, height), EMPTY)
    for number, photo in enumerate(photos):
        if photo is not None:
            photo = ImageOps.contain(photo, (width, height))
            row.paste(photo, (number * width + (width - photo.width) // 2, (height - photo.height) // 2))
    return row


def jpeg(photo: Image.Image) -> bytes:
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=82)
    return content.getvalue()


def data_uri(photo: Image.Image) -> str:
    """The picture itself, as an address that an <img> takes."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(photo)).decode()
