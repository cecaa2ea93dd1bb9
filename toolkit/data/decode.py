"""One photograph, from its file or its bytes, to pixels."""

import contextlib
import io
import os
import stat

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:  # no more than quicker than Pillow: see `_pixels`
    simplejpeg = None

EXIF_ORIENTATION = 0x0112
TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange width and height
LARGEST_FILE = 2**28  # bytes
VERSION = 2  # raise it when `decode_bytes` gives other pixels: stores in CACHE_DIR are then decoded anew


def decode_file(path: str | bytes, size: tuple[int, int]) -> np.ndarray:
    """What `decode_bytes` returns for a file. Raises ValueError or OSError if it is no regular file, or too large."""
    file = os.stat(path)
    if not stat.S_ISREG(file.st_mode) or file.st_size > LARGEST_FILE:  # a pipe would never end
        raise ValueError(f"expected a file of at most {LARGEST_FILE >> 20} MiB")
    with open(path, "rb", buffering=0) as file:
        content = file.readall()
    return decode_bytes(content, size)


def decode_bytes(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """One photograph as RGB pixels of `size` = (height, width): uint8, shape (height, width, 3).

    It may be of any mode; it is turned as its EXIF orientation says, transparency is dropped, and other proportions are
    squeezed. A JPEG's decoder scales it down as far as at least `size` is left; the rest is an antialiased bilinear
    resize. Raises whatever Pillow raises on content that it cannot read.
    """
    if not content:
        raise ValueError("it is empty")
    height, width = size
    with Image.open(io.BytesIO(content)) as photo:
        if photo.width * photo.height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{photo.width} x {photo.height} pixels are more than a photograph has")
        # getexif() takes long even where there is nothing to find, and few photographs have any EXIF.
        tagged = photo.format != "JPEG" or photo.info.keys() & {"exif", "xmp"}
        orientation = photo.getexif().get(EXIF_ORIENTATION, 1) if tagged else 1
        photo.draft(None, (height, width) if orientation in TRANSPOSED else (width, height))
        pixels = _pixels(photo, content, orientation)
    if pixels.shape[:2] == size:
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    planes = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)[0]
    return np.stack(tuple(planes.numpy()), axis=-1)  # plane by plane: one transposed copy takes three times as long


def _pixels(photo: Image.Image, content: bytes, orientation: int) -> np.ndarray:
    """The pixels of a photograph that Pillow has opened, upright: RGB, uint8, shape (height, width, 3).

    Pillow reads every format on every platform, so it decides what can be read. It lets a JPEG's decoder scale down
    (`draft`), which saves most of the time. simplejpeg drives the same decoder to the same pixels with fewer copies and
    is half as fast again (benchmarks/decode.py), so it takes the ordinary JPEGs. torchcodec cannot scale, and is no
    faster than Pillow on single photographs.
    """
    if simplejpeg and photo.format == "JPEG" and photo.mode == "RGB" and orientation == 1:
        least = {"min_height": photo.height, "min_width": photo.width}  # after `draft`
        with contextlib.suppress(ValueError):  # what it refuses, Pillow may still read
            pixels = simplejpeg.decode_jpeg(content, "RGB", **least)
            if pixels.shape[:2] == (photo.height, photo.width):
                return pixels
    if orientation != 1:
        photo = ImageOps.exif_transpose(photo)
    if photo.mode.startswith("I"):  # 16 bits a channel: convert() would clip them
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    return np.array(photo.convert("RGB"))


def reason(error: Exception) -> str:
    """Why a photograph cannot be decoded, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):  # whose text names an address in memory
        return "no photograph of a format that Pillow knows"
    return str(error).split("\n")[0] or type(error).__name__
