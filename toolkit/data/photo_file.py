"""The one place that opens photographs: which formats, how large, and why one is refused. Without torch."""

import contextlib
import errno
import io
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from toolkit.system.console import InputError

# No other formats: Pillow gives some to other programs (EPS to Ghostscript), whatever the file's extension.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")
DRAFTED = ("JPEG", "MPO")  # their decoder can scale down; an MPO is several JPEGs in one file
HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")  # kinds of HEIF files
EXIF_ORIENTATION = 0x0112
TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange width and height
LARGEST_FILE = 2**28  # bytes
LONGEST_SIDE = 2**16 - 1  # pixels, as in a JPEG: to resize a longer, thin photograph takes much memory
MEGAPIXELS = 100.0  # the default of MAX_MEGAPIXELS

FILE_ERRNOS = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)  # None: Pillow's own
END_OF_JPEG = b"\xff\xd9"
MOST_MISSING = 0.25  # share of a JPEG's rows: if more are missing, it is not repaired

# Pillow warns of broken EXIF without naming the file; the photograph is read all the same.
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit cannot be raised for one photograph; ours is in `opened`


@dataclass(frozen=True)
class Reading:
    """Limits of reading: the largest photograph, and whether to repair a JPEG without its end."""

    max_megapixels: float = MEGAPIXELS
    repair: bool = False

    @classmethod
    def of(cls, settings) -> "Reading":
        """The limits by a script's settings."""
        return cls(settings.max_megapixels, getattr(settings, "on_bad_image", "stop") == "repair")


class MissingEndError(ValueError):
    """A JPEG is cut short."""


def read(path: str | bytes | os.PathLike) -> bytes:
    """The content of a file. Raises OSError, or ValueError if it is no regular file, or too large."""
    file = os.stat(path)
    if not stat.S_ISREG(file.st_mode) or file.st_size > LARGEST_FILE:  # a pipe would never end
        raise ValueError(f"expected a file of at most {LARGEST_FILE >> 20} MiB")
    with open(path, "rb", buffering=0) as file:
        return file.readall()


@contextlib.contextmanager
def opened(content: bytes, max_megapixels: float = MEGAPIXELS) -> Iterator[Image.Image]:
    """A photograph as Pillow opens it: size and format are known, pixels are not decoded yet.

    Raises ValueError if it is empty or too large, and whatever Pillow raises on what it cannot read.
    """
    if not content:
        raise ValueError("it is empty")
    with Image.open(io.BytesIO(content), formats=_formats(content)) as photo:
        if photo.width * photo.height > max_megapixels * 1e6:
            raise ValueError(
                f"{photo.width} x {photo.height} pixels: expected at most MAX_MEGAPIXELS={max_megapixels:g}"
            )
        if max(photo.size) > LONGEST_SIDE:
            raise ValueError(f"{photo.width} x {photo.height} pixels: expected sides of at most {LONGEST_SIDE}")
        yield photo


def why_unreadable(path: str | bytes | os.PathLike, max_megapixels: float = math.inf) -> str:
    """Why a file cannot be read as a photograph, by its header alone; empty if it can, whatever its extension.

    Raises errors of the machine (`is_of_the_machine`), which say nothing about the file.
    """
    try:
        with opened(read(path), max_megapixels):
            return ""
    except Exception as error:  # Pillow may raise anything
        if is_of_the_machine(error):
            raise
        return reason(error)


def with_an_end(content: bytes) -> bytes:
    """A JPEG that is cut short, with an end added: its decoder then fills the missing rows with one colour.

    Raises MissingEndError if more than MOST_MISSING of its rows are missing. A progressive JPEG that is cut short has
    all rows, but is less sharp.
    """
    content += END_OF_JPEG
    with opened(content, math.inf) as photo:
        photo.draft(None, (1, 1))  # an eighth of its size: each block of 8 x 8 is one pixel
        pixels = np.asarray(photo.convert("RGB"))
    is_filled = (pixels == pixels[-1, -1]).all((1, 2))[::-1]
    filled = len(is_filled) if is_filled.all() else is_filled.argmin()
    if filled > MOST_MISSING * len(is_filled):
        raise MissingEndError(f"{filled / len(is_filled):.0%} of it is missing")
    return content


def orientation(photo: Image.Image) -> int:
    """How an opened photograph must be turned: 1 (not at all) to 8, as EXIF counts."""
    # getexif() takes long even where there is nothing to find, and few photographs have any EXIF.
    tagged = photo.format != "JPEG" or photo.info.keys() & {"exif", "xmp"}
    try:
        return photo.getexif().get(EXIF_ORIENTATION, 1) if tagged else 1
    except (SyntaxError, struct.error):  # the EXIF is damaged, but the pixels may be good
        return 1


def upright_size(photo: Image.Image) -> tuple[int, int]:
    """The (height, width) of an opened photograph, after it is turned."""
    return photo.size if orientation(photo) in TRANSPOSED else photo.size[::-1]


def is_of_the_machine(error: Exception) -> bool:
    """Whether the machine is at fault, not the photograph: too little memory, too many open files, a failing disk."""
    if isinstance(error, OSError):
        return error.errno not in FILE_ERRNOS
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)  # torch has no class for it


def reason_or_raise(error: Exception, which: str) -> str:
    """`reason`. Raises InputError that names the photograph, `which`, where the machine is at fault."""
    if is_of_the_machine(error):
        raise InputError(
            f"{which} cannot be read now ({type(error).__name__}: {error}); this is no fault of the photograph, so "
            "it is not left out; solve the problem and start again"
        ) from error
    return reason(error)


def reason(error: Exception) -> str:
    """Why a photograph cannot be read, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):  # its text would only be an address in memory
        return f"no photograph of a format that is read: {', '.join(FORMATS)}"
    return str(error).split("\n")[0] or type(error).__name__


def _formats(content: bytes) -> tuple[str, ...]:
    """The FORMATS that are installed. Raises ValueError on a HEIC photograph if its package is not."""
    Image.init()
    if content[4:8] == b"ftyp" and content[8:12] in HEIC and "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError as error:
            raise ValueError(
                f"a HEIC photograph needs the package pillow-heif ({error}); pip install -r requirements-extras.txt"
            ) from None
        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)
