"""One photograph, from its file or its bytes, to pixels."""

import contextlib
import threading

import numpy as np
import torch
from PIL import Image

from toolkit.data import photo_file
from toolkit.data.framing import Framing

try:
    import simplejpeg
except ImportError:  # optional, as it is only faster than Pillow: see `_cut`
    simplejpeg = None

LARGE = 25e6  # decoded pixels: two such photographs at once could need more memory than there is
LARGE_ALONE = threading.Lock()
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
GREATEST = (1, 255, 65535)  # possible values of white in files of floats, or of more than 8 bits


def decode_bytes(content: bytes, framing: Framing, max_megapixels: float = photo_file.MEGAPIXELS) -> np.ndarray:
    """The part of a photograph that `framing` takes, as RGB pixels of its size: uint8, shape (height, width, 3).

    The photograph may have any mode; it is turned as its EXIF orientation says, and transparency is dropped. A JPEG's
    decoder scales it down to no less than twice the size; an antialiased bilinear resize does the rest. Raises as
    `photo_file.opened`, MissingEndError if a JPEG is cut short, and whatever Pillow raises on what it cannot read.
    """
    with photo_file.opened(content, max_megapixels) as photo, contextlib.ExitStack() as stack:
        can_draft = photo.format in photo_file.DRAFTED
        if not can_draft:  # Pillow decodes a PNG to find out how it is turned
            stack.enter_context(_alone_if_large(photo))
        least = framing.least(*photo_file.upright_size(photo))
        if can_draft:
            photo.draft(None, least if photo_file.orientation(photo) in photo_file.TRANSPOSED else least[::-1])
            stack.enter_context(_alone_if_large(photo))
        pixels = _cut(photo, content, framing)
        pixels = _resized(pixels, framing.scaled(*pixels.shape[:2]))
    return pixels if pixels.shape[:2] == framing.size else _padded(pixels, framing.size)


def _alone_if_large(photo: Image.Image) -> contextlib.AbstractContextManager:
    return LARGE_ALONE if photo.width * photo.height > LARGE else contextlib.nullcontext()


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (uint8, shape (h, w, 3)) at `size` = (height, width), antialiased."""
    if pixels.shape[:2] == size:
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    planes = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)[0]
    return np.stack(tuple(planes.numpy()), axis=-1)  # plane by plane: one transposed copy takes three times as long


def _padded(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels in the middle of `size`, their edge repeated around them."""
    missing = [side - there for side, there in zip(size, pixels.shape[:2], strict=True)]
    return np.pad(pixels, [(count // 2, count - count // 2) for count in missing] + [(0, 0)], mode="edge")


def _cut(photo: Image.Image, content: bytes, framing: Framing) -> np.ndarray:
    """The part that `framing` takes of a photograph that Pillow has opened: RGB, uint8, shape (height, width, 3).

    Pillow reads every format on every platform, so it decides what can be read. It lets a JPEG's decoder scale down
    (`draft`), which saves most of the time. simplejpeg uses the same decoder, gives the same pixels with fewer copies,
    and is 1.5 times as fast (benchmarks/decode.py), so it decodes the ordinary JPEGs. torchcodec cannot scale, and is
    no faster than Pillow on single photographs.
    """
    orientation = photo_file.orientation(photo)
    if simplejpeg and photo.format == "JPEG" and photo.mode == "RGB" and orientation == 1:
        least = {"min_height": photo.height, "min_width": photo.width}  # after `draft`
        with contextlib.suppress(ValueError):  # simplejpeg refused it; Pillow may still read it
            pixels = simplejpeg.decode_jpeg(content, "RGB", **least)
            if pixels.shape[:2] == (photo.height, photo.width):
                top, left, bottom, right = framing.box(photo.height, photo.width)
                return pixels[top:bottom, left:right]
    _load(photo)
    if orientation in TURNS:  # not exif_transpose: it writes the EXIF anew, and fails where that is damaged
        photo = photo.transpose(TURNS[orientation])
    photo = _to_8_bits(photo)
    top, left, bottom, right = framing.box(photo.height, photo.width)
    if (left, top, right, bottom) != (0, 0, *photo.size):
        photo = photo.crop((left, top, right, bottom))  # before convert(), which copies
    return np.array(photo.convert("RGB"))


def _load(photo: Image.Image) -> None:
    """Let Pillow decode it. Raises MissingEndError if it is a JPEG that is cut short, and whatever Pillow raises."""
    try:
        photo.load()
    except OSError as error:  # Pillow has no class for a truncated file
        if photo.format in photo_file.DRAFTED and "truncated" in str(error):
            raise photo_file.MissingEndError("its end is missing") from None
        raise


def _to_8_bits(photo: Image.Image) -> Image.Image:
    """A grey photograph of integers or floats, scaled to bytes: convert() would clip them. Others stay as they are.

    Black is 0. White is the first of GREATEST that no value exceeds (integers: without 1). Raises ValueError if there
    is none.
    """
    if photo.mode != "F" and not photo.mode.startswith("I"):
        return photo
    values = np.asarray(photo)
    least, most = values.min(), values.max()
    limits = GREATEST if photo.mode == "F" else GREATEST[1:]
    greatest = [limit for limit in limits if least >= 0 and most <= limit]  # none where a value is NaN
    if not greatest:
        raise ValueError(f"expected grey values from 0 to 1, 255 or 65535, found {least:g} to {most:g}")
    return Image.fromarray((values * (255 / greatest[0])).round().astype(np.uint8))
