"""One photograph from its file to pixels."""

import numpy as np
import torch
from PIL import Image, ImageOps

EXIF_ORIENTATION = 0x0112
LYING_DOWN = (5, 6, 7, 8)  # orientations that exchange width and height
VERSION = 2  # to be raised when `decode` gives other pixels: stores that were kept are then decoded anew


def decode(path: str, size: tuple[int, int]) -> np.ndarray:
    """One photograph as RGB pixels of `size` = (height, width): uint8, shape (height, width, 3).

    Of any mode, turned as its EXIF orientation says, transparency dropped, and squeezed where its proportions differ.
    A JPEG is scaled down by its decoder as far as that leaves at least `size`; the rest is an antialiased bilinear
    resize. Raises whatever Pillow raises on a file that it cannot read.
    """
    # Why these two: benchmarks/decode.py. Pillow reads every format on every platform, and its decoder's own scaling
    # gains most; but its resize costs twice torch's, which computes the same to a unit or two of 255.
    height, width = size
    with Image.open(path) as photo:
        if photo.width * photo.height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{photo.width} x {photo.height} pixels are more than a photograph has")
        orientation = photo.getexif().get(EXIF_ORIENTATION, 1)
        photo.draft(None, (height, width) if orientation in LYING_DOWN else (width, height))
        if orientation != 1:
            photo = ImageOps.exif_transpose(photo)
        if photo.mode.startswith("I"):  # 16 bits a channel, which convert() would clip, not scale
            photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
        pixels = torch.from_numpy(np.array(photo.convert("RGB"))).permute(2, 0, 1)[None]
    if pixels.shape[2:] != size:
        pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return np.stack(tuple(pixels[0].numpy()), axis=-1)  # a plane at a time: a transposed copy takes thrice as long


def reason(error: Exception) -> str:
    """Why a photograph could not be decoded, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(error).split("\n")[0] or type(error).__name__
