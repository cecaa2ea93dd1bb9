"""Many photographs, decoded once into one store: in memory, in a temporary file, or not at all (then at each use)."""

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from tqdm import tqdm

from toolkit import images
from toolkit.console import say

CHUNK = 64  # photographs that are decoded, written and waited for together


class Store:
    """Photographs of one size as uint8 pixels, in the order of their paths; `start` decodes them in the background.

    They lie in memory up to `memory_gib`, beyond that in an unnamed temporary file, of which nothing is held in memory;
    where the disk has no room for that either, they are decoded at each use. As a context it starts, and stops early
    where the block ends early.
    """

    def __init__(self, paths: Sequence[str | bytes], size: tuple[int, int], memory_gib: float = 8.0):
        self.paths, self.size = paths, tuple(size)
        self.shape = (len(paths), *self.size, 3)
        self.bytes = math.prod(self.shape)
        self.fits_memory = self.bytes <= memory_gib * 2**30
        self.pixels: torch.Tensor | None = None  # of self.shape, where they lie in memory or are mapped
        self.bad: dict[int, str] = {}  # {index: reason} of what could not be decoded; its pixels are 0
        self._file, self._turn = None, threading.Lock()  # whose turn it is to move the file's position
        self._ready = [threading.Event() for _ in self._chunks()]
        self._filler, self._error, self._stopped = threading.Thread(target=self._run, daemon=True), None, False

    def __len__(self) -> int:
        return len(self.paths)

    def __str__(self) -> str:
        place = "in memory" if self.fits_memory else "in a file" if self._file else "to be decoded again at each use"
        return f"decoded {len(self)} photographs, {self.bytes / 2**20:.0f} MiB, {place}"

    def __enter__(self) -> "Store":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped = True

    def start(self) -> None:
        """Begin to decode, in threads."""
        self._filler.start()

    def wait(self) -> dict[int, str]:
        """Wait until everything is there; what could not be decoded, as {index: reason}."""
        self._filler.join()
        if self._error:
            raise self._error
        return dict(sorted(self.bad.items()))

    def fill(self) -> dict[int, str]:
        """Decode everything now."""
        self.start()
        return self.wait()

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """The photographs of these indices (int64, shape (b,)): uint8, shape (b, height, width, 3).

        Waits for those of them that are still being decoded.
        """
        if self._filler.is_alive():
            for chunk in (index // CHUNK).unique().tolist():
                self._ready[chunk].wait()
        if self.pixels is not None:
            return self.pixels.index_select(0, index)
        photographs = torch.empty((len(index), *self.size, 3), dtype=torch.uint8)
        if self._file is not None:
            for row, photograph in zip(photographs.split(1), index.tolist(), strict=True):
                self._read(photograph, row)
        else:
            with ThreadPoolExecutor(processors()) as pool:
                decoded = pool.map(lambda i: images.decode(self.paths[i], self.size), index.tolist())
                for row, photograph in zip(photographs.numpy(), decoded, strict=True):
                    row[:] = photograph
        return photographs

    def _run(self) -> None:
        try:
            self._fill()
        except BaseException as error:
            self._error = error
        finally:
            for event in self._ready:
                event.set()

    def _fill(self) -> None:
        if self.fits_memory:
            self.pixels = torch.empty(self.shape, dtype=torch.uint8)
        elif self.bytes < 0.9 * shutil.disk_usage(tempfile.gettempdir()).free:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the store)
        try:
            self._decode_all()
        except OSError as error:  # the disk got full after all: all that is left to do is to find the bad ones
            say(f"note: {tempfile.gettempdir()}: {error.strerror}; photographs are decoded at each use")
            self._file = None
            self._decode_all()

    def _decode_all(self) -> None:
        def decode(first: int) -> None:
            self._decode(first)  # and let go of its pixels, which lie in memory or in the file

        self._each_chunk(decode, "decoding")

    def _chunks(self) -> range:
        """The first photograph of every chunk."""
        return range(0, len(self), CHUNK)

    def _each_chunk(self, work: Callable[[int], object], what: str) -> list:
        """What `work` gives for each chunk, in their order."""
        # Threads serve as well as processes: Pillow, torch and zlib work outside the interpreter's lock. None of them
        # may let torch copy: it shares a copy among threads of its own, for each of ours, and all wait for all.
        bar = tqdm(total=len(self), desc=what, leave=False, disable=None)
        with bar, ThreadPoolExecutor(processors()) as pool:
            results = []
            for result in pool.map(work, self._chunks()):
                results.append(result)
                bar.update(CHUNK)
        return results

    def _decode(self, first: int) -> torch.Tensor:
        """Decode the chunk that begins there, and put it in its place; its pixels."""
        if self._stopped:
            raise RuntimeError("stopped")
        paths = self.paths[first : first + CHUNK]
        if self.pixels is not None:
            chunk = self.pixels[first : first + CHUNK]
        else:
            chunk = torch.empty((len(paths), *self.size, 3), dtype=torch.uint8)
        for row, path in enumerate(paths):
            try:
                chunk.numpy()[row] = images.decode(path, self.size)
            except Exception as error:  # Pillow raises nearly anything on a broken file
                self.bad[first + row] = images.reason(error)
                chunk[row] = 0
        if self._file is not None:
            self._write(self._offset(first), _bytes(chunk))
        self._ready[first // CHUNK].set()
        return chunk

    def _offset(self, photograph: int) -> int:
        """Where in the file it begins."""
        return photograph * math.prod(self.shape[1:])

    def _read(self, first: int, photographs: torch.Tensor) -> torch.Tensor:
        """Fill a tensor with the photographs from `first` on, read from the file."""
        with self._turn:
            self._file.seek(self._offset(first))
            self._file.readinto(_bytes(photographs))
        return photographs

    def _write(self, offset: int, content: memoryview) -> None:
        with self._turn:
            self._file.seek(offset)
            while content:  # a disk that is nearly full takes a part, and refuses the rest with an error
                content = content[self._file.write(content) :]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bytes(pixels: torch.Tensor) -> memoryview:
    return memoryview(pixels.numpy()).cast("B")
