"""Photographs as pages show them: small, upright, embedded. Without torch, which takes seconds to import."""

import base64
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from toolkit.data import photo_file

HEIGHT_PX = 176
MOST_MEGAPIXELS = 256  # of what a page shows, whatever MAX_MEGAPIXELS is: a photograph takes 4 bytes a pixel
MOSAIC_CELLS = 14  # in a row or column of a mosaic, whichever is shorter
SALIENCY_COLOUR, SALIENCY_OPACITY = (214, 40, 40), 150  # RGB; of 255, where saliency is 1
CELL_ASPECT, EMPTY_COLOUR = 3 / 4, (128, 128, 128)  # of `in_a_row`: width / height, as of a portrait


def thumbnail(path: str | bytes | os.PathLike | None, height: int = HEIGHT_PX) -> Image.Image | None:
    """A photograph from its file: RGB, upright, at most `height` px high; None where it cannot be read, or for None."""
    if path is None:
        return None
    try:
        with photo_file.opened(photo_file.read(path), MOST_MEGAPIXELS) as photo:
            photo.draft("RGB", (1, 2 * height))  # JPEG decoders scale down for free; twice the height is left to resize
            photo = ImageOps.exif_transpose(photo).convert("RGB")
    except Exception:  # Pillow raises nearly anything on a broken file
        return None
    photo.thumbnail((2 * height, height))
    return photo


def from_pixels(pixels: np.ndarray, height: int = HEIGHT_PX) -> Image.Image:
    """Pixels (uint8, shape (h, w, 3)) as a picture of that height."""
    photo = Image.fromarray(np.ascontiguousarray(pixels))
    return photo.resize((round(photo.width * height / photo.height), height), Image.Resampling.BILINEAR)


def pixelated(photo: Image.Image) -> Image.Image:
    """The picture as a mosaic: masks can still be seen, but hardly who wears them."""
    scale = MOSAIC_CELLS / min(photo.size)
    cells = photo.resize([max(round(length * scale), 1) for length in photo.size], Image.Resampling.BOX)
    return cells.resize(photo.size, Image.Resampling.NEAREST)


def draw_box(photo: Image.Image, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    """Draw the outline of a box (top, left, bottom, right, in pixels) into a picture."""
    top, left, bottom, right = box
    ImageDraw.Draw(photo).rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)


def with_saliency(photo: Image.Image, saliency: np.ndarray) -> Image.Image:
    """The photograph in grey, coloured where `saliency` (float, 0 to 1, shape (h, w) of any size) is high."""
    mask = Image.fromarray((saliency * SALIENCY_OPACITY).astype(np.uint8)).resize(photo.size, Image.Resampling.BICUBIC)
    grey = ImageOps.grayscale(photo).convert("RGB")
    return Image.composite(Image.new("RGB", photo.size, SALIENCY_COLOUR), grey, mask)


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of the same height as one."""
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def in_a_row(photos: Sequence[Image.Image | None], height: int) -> Image.Image:
    """Pictures as one, each centred in a cell of this height; None leaves its cell empty.

    All cells have the same width, so that a page can cut the row into its pictures by numbers alone.
    """
    width = round(height * CELL_ASPECT)
    row = Image.new("RGB", (max(len(photos), 1) * width, height), EMPTY_COLOUR)
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
    """The picture as a URL that holds it, for <img src>."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(photo)).decode()
