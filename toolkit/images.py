"""Photographs to pixels: one file decoded, and many decoded once into one store."""

import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

EXIF_ORIENTATION = 0x0112
LYING_DOWN = (5, 6, 7, 8)  # orientations that exchange width and height


def decode(path: str, size: tuple[int, int]) -> np.ndarray:
    """One photograph as RGB pixels of `size` = (height, width): uint8, shape (height, width, 3).

    Of any mode, turned as its EXIF orientation says, transparency dropped, and squeezed where its proportions differ.
    A JPEG is scaled down by its decoder as far as that leaves at least `size`, which is several times faster; the rest
    is an antialiased bilinear resize. Raises whatever Pillow raises on a file that it cannot read.
    """
    height, width = size
    with Image.open(path) as photo:
        if photo.width * photo.height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{photo.width} x {photo.height} pixels are more than a photograph has")
        lying = photo.getexif().get(EXIF_ORIENTATION) in LYING_DOWN
        photo.draft(None, (height, width) if lying else (width, height))
        photo = ImageOps.exif_transpose(photo)
        if photo.mode.startswith("I"):  # 16 bits a channel, which convert() would clip, not scale
            photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
        return np.asarray(photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


class Store:
    """Photographs of one size, decoded once: a uint8 tensor of shape (n, height, width, 3), or a stand-in for it.

    It lies in memory up to `memory_gib`, beyond that in an unnamed temporary file that the system maps and drops by
    itself. Where the disk has no room for that either, `pixels` is None and photographs are decoded at each use.
    """

    def __init__(self, paths: list[str], size: tuple[int, int], memory_gib: float = 8.0):
        self.paths, self.size = paths, size
        shape = (len(paths), *size, 3)
        self.bytes = math.prod(shape)
        if self.bytes <= memory_gib * 2**30:
            self.pixels = torch.empty(shape, dtype=torch.uint8)
        elif self.bytes < 0.9 * shutil.disk_usage(tempfile.gettempdir()).free:
            file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as its mapping)
            self.pixels = torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
        else:
            self.pixels = None

    def __len__(self) -> int:
        return len(self.paths)

    def fill(self) -> dict[int, str]:
        """Decode every photograph, in threads; what could not be read, as {index: reason}."""
        bad = {}

        def one(index: int) -> None:
            try:
                photograph = decode(self.paths[index], self.size)
            except Exception as error:  # Pillow raises nearly anything on a broken file
                bad[index] = _reason(error)
            else:
                if self.pixels is not None:
                    self.pixels.numpy()[index] = photograph

        # Threads serve as well as processes here: Pillow decodes and resizes outside the interpreter's lock.
        with ThreadPoolExecutor(processors()) as pool:
            done = pool.map(one, range(len(self)))
            for _ in tqdm(done, "decoding", len(self), unit=" photographs", leave=False, disable=None):
                pass
        return dict(sorted(bad.items()))

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """The photographs of these indices (int64, shape (b,)): uint8, shape (b, height, width, 3)."""
        if self.pixels is not None:
            return self.pixels[index.to(self.pixels.device)]
        with ThreadPoolExecutor(processors()) as pool:
            decoded = pool.map(lambda i: decode(self.paths[i], self.size), index.tolist())
            return torch.from_numpy(np.stack(list(decoded)))

    def move(self, device: torch.device) -> None:
        """Keep the pixels on a GPU where they take less than half of its free memory."""
        if device.type == "cuda" and self.pixels is not None:
            free, _ = torch.cuda.mem_get_info(device)
            if self.bytes < free / 2:
                self.pixels = self.pixels.to(device)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(error).split("\n")[0] or type(error).__name__
