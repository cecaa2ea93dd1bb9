"""Many photographs, decoded once into one store: in memory, in a temporary file, or not at all (then at each use)."""

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from toolkit.data import decode
from toolkit.system.console import InputError, bar, say

CHUNK = 64  # photographs that are decoded, written and waited for together


class Memory:
    """Pixels in one tensor: uint8, shape (n, height, width, 3)."""

    name = "in memory"

    def __init__(self, pixels: torch.Tensor):
        self.pixels = pixels

    def put(self, first: int, chunk: np.ndarray) -> None:
        self.pixels.numpy()[first : first + len(chunk)] = chunk

    def get(self, index: torch.Tensor) -> torch.Tensor:
        return self.pixels.index_select(0, index)


class File:
    """Pixels in a file, read as they are asked for."""

    name = "in a file"

    def __init__(self, file, shape: tuple[int, ...]):
        self.file, self.shape, self.turn = file, shape, threading.Lock()  # whose turn it is to move its position

    def put(self, first: int, chunk: np.ndarray) -> None:
        self.write(first * math.prod(self.shape[1:]), memoryview(chunk).cast("B"))

    def write(self, offset: int, content: memoryview) -> None:
        with self.turn:
            self.file.seek(offset)
            while content:  # a disk that is nearly full takes a part, and refuses the rest with an error
                content = content[self.file.write(content) :]

    def get(self, index: torch.Tensor) -> torch.Tensor:
        pixels = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)
        for row, photograph in zip(pixels.numpy(), index.tolist(), strict=True):
            with self.turn:
                self.file.seek(photograph * row.size)
                if self.file.readinto(memoryview(row).cast("B")) != row.size:
                    raise OSError(0, f"photograph {photograph} of the decoded ones is cut short")
        return pixels


class Nowhere:
    """Pixels are decoded whenever they are asked for."""

    name = "to be decoded again at each use"

    def __init__(self, store: "Store"):
        self.store = store

    def put(self, first: int, chunk: np.ndarray) -> None:
        pass  # decoded once all the same, to find the bad ones

    def get(self, index: torch.Tensor) -> torch.Tensor:
        def one(photograph: int) -> np.ndarray:
            if photograph in self.store.bad:
                return np.zeros((*self.store.size, 3), np.uint8)
            return self.store.decode(photograph)

        with ThreadPoolExecutor(processors()) as pool:
            return torch.from_numpy(np.stack(list(pool.map(one, index.tolist()))))


class Store:
    """Photographs of one size as uint8 pixels, in the order of their paths; `start` decodes them in the background.

    They lie in memory up to `memory_gib`, beyond that in an unnamed temporary file (TMPDIR says where); where the disk
    has no room for that either, they are decoded at each use. As a context it starts, and stops early where the block
    ends early.
    """

    def __init__(self, paths: Sequence[str | bytes], size: tuple[int, int], memory_gib: float = 8.0):
        self.paths, self.size = paths, tuple(size)
        self.shape = (len(paths), *self.size, 3)
        self.bytes = math.prod(self.shape)
        self.fits_memory = self.bytes <= memory_gib * 2**30
        self.place: Memory | File | Nowhere | None = None
        self.bad: dict[int, str] = {}  # {index: reason} of what could not be decoded; its pixels are 0
        self._ready = [threading.Event() for _ in self._chunks()]
        self._filler, self._error, self._stopped = threading.Thread(target=self._run, daemon=True), None, False

    def __len__(self) -> int:
        return len(self.paths)

    def __str__(self) -> str:
        return f"decoded {len(self)} photographs, {self.bytes / 2**20:.0f} MiB, {self.place.name}"

    def __enter__(self) -> "Store":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped = True
        self._filler.join()

    def decode(self, photograph: int) -> np.ndarray:
        """One photograph anew: uint8, shape (height, width, 3). Raises whatever Pillow raises where it is a bad one."""
        return decode.decode_file(self.paths[photograph], self.size)

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

        Waits for those of them that are still being decoded. Raises what ended the decoding early.
        """
        while True:
            place = self.place
            if self._filler.is_alive():
                for chunk in (index // CHUNK).unique().tolist():
                    self._ready[chunk].wait()
            if self._error:
                raise self._error
            if place is not None and place is self.place:  # else it was given up for another one in the meantime
                return place.get(index)

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
            try:
                pixels = torch.empty(self.shape, dtype=torch.uint8)
            except RuntimeError as error:  # torch's word for it
                gib = self.bytes / 2**30
                raise InputError(f"CACHE_GIB: expected {gib:.1f} GiB of memory for photographs; lower it") from error
            self._decode_into(Memory(pixels))
            return
        try:
            room = shutil.disk_usage(tempfile.gettempdir()).free
            if self.bytes < 0.9 * room:
                file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the store)
                self._decode_into(File(file, self.shape))
                return
        except OSError as error:  # no such disk, or it got full after all
            say(f"note: the temporary file: {error.strerror or error}; photographs are decoded at each use")
        self._decode_into(Nowhere(self))

    def _decode_into(self, place) -> None:
        """Decode everything into that place, whatever there was before."""

        def decode(first: int) -> None:
            self._decode(first)  # and let go of its pixels

        self._begin(place)
        self._each_chunk(decode, "decoding")

    def _begin(self, place) -> None:
        for event in self._ready:
            event.clear()
        self.bad.clear()
        self.place = place

    def _chunks(self) -> range:
        """The first photograph of every chunk."""
        return range(0, len(self), CHUNK)

    def _each_chunk(self, work: Callable[[int], object], what: str) -> list:
        """What `work` gives for each chunk, in their order."""

        def unless_stopped(first: int):
            if self._stopped:
                raise RuntimeError("stopped")
            return work(first)

        # Threads serve as well as processes: Pillow, torch and zlib work outside the interpreter's lock. None of them
        # may let torch copy: it shares a copy among threads of its own, for each of ours, and all wait for all.
        with bar(what=what, total=len(self)) as progress, ThreadPoolExecutor(processors()) as pool:
            results = []
            for result in pool.map(unless_stopped, self._chunks()):
                results.append(result)
                progress.update(min(CHUNK, len(self) - progress.n))
        return results

    def _decode(self, first: int) -> np.ndarray:
        """Decode the chunk that begins there, and put it in its place; its pixels."""
        chunk = np.zeros((min(CHUNK, len(self) - first), *self.size, 3), np.uint8)
        for row in range(len(chunk)):
            try:
                chunk[row] = self.decode(first + row)
            except Exception as error:  # Pillow raises nearly anything on a broken file
                self.bad[first + row] = decode.reason(error)
        self.place.put(first, chunk)
        self._ready[first // CHUNK].set()
        return chunk


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
