"""All photographs, decoded once: kept in memory, else in a temporary file; if there is no room, decoded at each use."""

import contextlib
import math
import os
import shutil
import statistics
import tempfile
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from toolkit.data import decode, photo_file
from toolkit.data.framing import Framing
from toolkit.data.photo_file import MissingEndError, Reading
from toolkit.system.console import InputError, bar, say

CHUNK = 64  # photographs that are decoded and stored together, and for which `gather` waits together
TIMED, TIMED_SECONDS = 5, 0.2  # photographs that are timed to choose the number of threads, and for how long at most
# Decoding one photograph holds the interpreter's lock for 0.1 ms. With one thread for each 0.2 ms that a photograph
# takes, the lock is free half of the time. More threads wait for it: of photographs that take 0.6 ms, 16 threads on 16
# cores decoded 790 a second, 2 threads on 2 cores 2,600. Imports and the model waited, too (docs/speed.md).
SECONDS_OF_A_THREAD = 2e-4


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
        # seek and read are two calls: only the thread with the lock may move the file's position.
        self.file, self.shape, self.lock = file, shape, threading.Lock()

    def put(self, first: int, chunk: np.ndarray) -> None:
        self.write(first * math.prod(self.shape[1:]), memoryview(chunk).cast("B"))

    def write(self, offset: int, content: memoryview) -> None:
        with self.lock:
            self.file.seek(offset)
            while content:  # a nearly full disk may write only a part; the next write then raises
                content = content[self.file.write(content) :]

    def get(self, index: torch.Tensor) -> torch.Tensor:
        pixels = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)
        for row, photograph in zip(pixels.numpy(), index.tolist(), strict=True):
            with self.lock:
                self.file.seek(photograph * row.size)
                if self.file.readinto(memoryview(row).cast("B")) != row.size:
                    raise OSError(0, f"decoded photograph {photograph} is cut short")
        return pixels


class OnTheFly:
    """Pixels are decoded at each use: slow, but needs neither memory nor disk."""

    name = "to be decoded again at each use"

    def __init__(self, store: "Store"):
        self.store = store

    def put(self, first: int, chunk: np.ndarray) -> None:
        pass  # the first decoding of all only finds the bad ones

    def get(self, index: torch.Tensor) -> torch.Tensor:
        def pixels_of(photograph: int) -> np.ndarray:
            if photograph in self.store.bad:
                return np.zeros((*self.store.size, 3), np.uint8)
            return self.store.decode(photograph)

        with ThreadPoolExecutor(self.store.threads) as pool:
            return torch.from_numpy(np.stack(list(pool.map(pixels_of, index.tolist()))))


class Store:
    """Photographs in one framing, as uint8 pixels in the order of their paths.

    They are kept in memory if they take at most `memory_gib`, else in an unnamed temporary file (in TMPDIR); if the
    disk has no room for it, they are decoded at each use. `start` decodes in the background. As a context manager, the
    store starts, and stops when the block ends.
    """

    def __init__(
        self,
        paths: Sequence[str | bytes],
        framing: Framing,
        memory_gib: float = 8.0,
        reading: Reading | None = None,
    ):
        self.paths, self.framing, self.size, self.reading = paths, framing, framing.size, reading or Reading()
        self.shape = (len(paths), *self.size, 3)
        self.bytes = math.prod(self.shape)
        self.fits_memory = self.bytes <= memory_gib * 2**30
        self.storage: Memory | File | OnTheFly | None = None
        self.bad: dict[int, str] = {}  # {index: reason} of photographs that cannot be decoded; their pixels are 0
        self.repaired: dict[int, str] = {}  # the same for photographs without their end that are used all the same
        self.checksums = np.zeros(len(paths), np.uint32)  # CRC-32 of each file's content, once it is decoded
        self.threads = cpu_count()
        self._ready = [threading.Event() for _ in self._chunks()]
        self._filler, self._error, self._stopped = threading.Thread(target=self._run, daemon=True), None, False

    def __len__(self) -> int:
        return len(self.paths)

    def __str__(self) -> str:
        return f"decoded {len(self)} photographs, {self.bytes / 2**20:.0f} MiB, {self.storage.name}"

    def __enter__(self) -> "Store":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped = True
        self._filler.join()

    def decode(self, photograph: int) -> np.ndarray:
        """One photograph from its file: uint8, shape (height, width, 3). Raises whatever Pillow raises on a bad one."""
        content = self.read(photograph)
        self.checksums[photograph] = zlib.crc32(content)
        try:
            return decode.decode_bytes(content, self.framing, self.reading.max_megapixels)
        except MissingEndError as error:
            if not self.reading.repair:
                raise
            content = photo_file.with_an_end(content)
            self.repaired[photograph] = str(error)
            return decode.decode_bytes(content, self.framing, self.reading.max_megapixels)

    def read(self, photograph: int) -> bytes:
        """The content of the photograph's file."""
        return photo_file.read(self.paths[photograph])

    def start(self) -> None:
        """Begin to decode, in threads of their own."""
        self.threads = self._useful_threads()  # timed now, while nothing else runs in this process
        self._filler.start()

    def wait(self) -> dict[int, str]:
        """Wait until all is decoded. Returns {index: reason} of what cannot be decoded."""
        self._filler.join()
        if self._error:
            raise self._error
        return dict(sorted(self.bad.items()))

    def fill(self) -> dict[int, str]:
        """Decode all now. Returns what `wait` returns."""
        self.start()
        return self.wait()

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """The photographs of these indices (int64, shape (b,)): uint8, shape (b, height, width, 3).

        Waits for those that are still being decoded. Raises what ended the decoding early.
        """
        while True:
            storage = self.storage
            if self._filler.is_alive():
                for chunk in (index // CHUNK).unique().tolist():
                    self._ready[chunk].wait()
            if self._error:
                raise self._error
            # When the disk is full, the filler changes to another storage and starts again.
            if storage is not None and storage is self.storage:
                return storage.get(index)

    def _useful_threads(self) -> int:
        """`useful_threads` by the times of the first photographs: large ones and slow disks keep many threads busy."""
        until, seconds = time.perf_counter() + TIMED_SECONDS, []
        for photograph in range(min(TIMED, len(self))):
            with contextlib.suppress(Exception):  # reported when its turn comes
                began = time.perf_counter()
                self.read(photograph)
                read, began = time.perf_counter() - began, time.thread_time()
                self.decode(photograph)
                seconds.append(read + time.thread_time() - began)
            if time.perf_counter() > until:
                break
        return useful_threads(seconds)

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
            except RuntimeError as error:  # torch has no class for a lack of memory
                gib = self.bytes / 2**30
                raise InputError(f"CACHE_GIB: expected {gib:.1f} GiB of memory, found less; lower it") from error
            self._decode_into(Memory(pixels))
            return
        try:
            room = shutil.disk_usage(tempfile.gettempdir()).free
            if self.bytes < 0.9 * room:
                file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the store)
                self._decode_into(File(file, self.shape))
                return
        except OSError as error:  # no such disk, or it got full after all
            say(f"note: no temporary file can be used: {error.strerror or error}; photographs are decoded at each use")
        self._decode_into(OnTheFly(self))

    def _decode_into(self, storage) -> None:
        """Decode all photographs into that storage, from the first one on."""

        def decode_chunk(first: int) -> None:
            self._decode_chunk(first)  # without returning its pixels: the pool would keep all of them in memory

        self._begin(storage)
        self._map_chunks(decode_chunk, "decoding", self.threads)

    def _begin(self, storage) -> None:
        for event in self._ready:
            event.clear()
        self.bad.clear()
        self.repaired.clear()
        self.storage = storage

    def _chunks(self) -> range:
        """The first photograph of every chunk."""
        return range(0, len(self), CHUNK)

    def _map_chunks(self, work: Callable[[int], object], what: str, threads: int) -> list:
        """What `work` returns for the first photograph of each chunk, in their order."""

        def unless_stopped(first: int):
            self._end_if_stopped()
            return work(first)

        # Threads, not processes: Pillow, torch and zlib release the interpreter's lock, and processes must send pixels
        # back. Threads must not let torch copy tensors: for each of our threads it starts its own, and all wait.
        with bar(what=what, total=len(self)) as progress, ThreadPoolExecutor(threads) as pool:
            results = []
            for result in pool.map(unless_stopped, self._chunks()):
                results.append(result)
                progress.update(min(CHUNK, len(self) - progress.n))
        return results

    def _end_if_stopped(self) -> None:
        if self._stopped:
            raise RuntimeError("stopped")

    def _decode_chunk(self, first: int) -> np.ndarray:
        """Decode and store the chunk that begins at photograph `first`. Returns its pixels: 0 for a bad photograph.

        Raises InputError on errors of the machine.
        """
        chunk = np.zeros((min(CHUNK, len(self) - first), *self.size, 3), np.uint8)
        for row in range(len(chunk)):
            self._end_if_stopped()  # a chunk of large photographs takes half a minute
            photograph = first + row
            try:
                chunk[row] = self.decode(photograph)
            except Exception as error:  # Pillow may raise anything on a damaged file
                self.bad[photograph] = photo_file.reason_or_raise(error, f"photograph {photograph + 1} of {len(self)}")
        self.storage.put(first, chunk)
        self._ready[first // CHUNK].set()
        return chunk


class Selection:
    """Some photographs of a decoded store, numbered from 0. It has what a Loader needs of a store."""

    def __init__(self, store: Store, photographs: np.ndarray):
        """`photographs`: their indices in the store, int64."""
        self.store, self.photographs = store, torch.from_numpy(photographs)
        self.paths = [store.paths[photograph] for photograph in photographs]
        self.checksums = store.checksums[photographs]
        self.framing, self.size = store.framing, store.size
        self.shape = (len(self), *store.shape[1:])
        self.bytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __str__(self) -> str:
        return f"{self.store}; {len(self)} are used"

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        return self.store.gather(self.photographs[index])


class DecodingThreads(ThreadPoolExecutor):
    """Threads for photographs that come one by one: `useful_threads` limits how many decode at once."""

    def __init__(self):
        super().__init__(cpu_count())
        self._decoding, self._seconds = 0, deque(maxlen=TIMED)
        self._may_begin = threading.Condition()

    def submit(self, work: Callable, /, *given) -> Future:
        return super().submit(self._timed, work, *given)

    def _timed(self, work: Callable, *given):
        with self._may_begin:  # a thread that sleeps here does not compete for the interpreter's lock
            self._may_begin.wait_for(lambda: self._decoding < useful_threads(self._seconds))
            self._decoding += 1
        began = time.thread_time()
        try:
            return work(*given)
        finally:
            with self._may_begin:
                self._seconds.append(time.thread_time() - began)
                self._decoding -= 1
                self._may_begin.notify(useful_threads(self._seconds) - self._decoding)


def useful_threads(seconds: Collection[float]) -> int:
    """The most threads that do not wait for each other. `seconds`: time of single photographs, CPU time plus reading.

    Not decoding by the clock: that takes longer while others use the CPUs or the lock, and would lead to more threads.
    """
    useful = statistics.median(seconds) / SECONDS_OF_A_THREAD if seconds else 0
    return min(max(round(useful), 2), cpu_count())


def cpu_count() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
