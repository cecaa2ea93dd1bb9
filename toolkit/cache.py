"""Decoded photographs that are kept between runs, in CACHE_DIR: made once, checked, and never stale."""

import contextlib
import hashlib
import json
import os
import pathlib
import zlib

import numpy as np
import PIL
import torch

from toolkit import files, images
from toolkit.console import say
from toolkit.store import CHUNK, Store

PIXELS = "pixels"  # all of them, then JSON: the state of the photographs, and a checksum for each chunk


def open_store(paths, size: tuple[int, int], memory_gib: float, cache_dir: pathlib.Path | None) -> Store:
    """A store of these photographs that is kept in `cache_dir`, where there is one."""
    if cache_dir is None:
        return Store(paths, size, memory_gib)
    return KeptStore(paths, size, memory_gib, files.make_folder(cache_dir, "CACHE_DIR"))


class KeptStore(Store):
    """A store whose pixels lie in a file of `folder`, from where a later run takes them.

    It takes them unless a photograph or the decoder has changed since, or a checksum is wrong; then it makes them anew.
    Runs that want the same at once wait for the first. Where nothing can be kept there it is a plain store.
    """

    def __init__(self, paths, size, memory_gib: float, folder: pathlib.Path):
        super().__init__(paths, size, memory_gib)
        self.folder = folder
        self.taken = False  # whether the pixels are of an earlier run

    def __str__(self) -> str:
        return f"found {len(self)} decoded photographs in {self.folder}" if self.taken else super().__str__()

    def _fill(self) -> None:
        folder = self.folder / self._name()
        try:
            folder.mkdir(exist_ok=True)
            with files.locked(folder):
                state = self._state()
                self.taken = self._take(folder / PIXELS, state)
                if not self.taken:
                    self._keep(folder, state)
        except OSError as error:
            say(f"note: decoded photographs are not kept: {folder}: {error.strerror or error}")
            self.pixels, self._file = None, None
            super()._fill()

    def _name(self) -> str:
        """Of the folder: one for these paths at this size."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.path.abspath(os.fsencode(path)) + b"\0")
        return "x".join(map(str, self.size)) + "-" + digest.hexdigest()[:16]

    def _state(self) -> str:
        """What the pixels depend on besides: the files as they are now, and what decodes them."""
        digest = hashlib.sha256(f"{images.VERSION} {PIL.__version__} {torch.__version__}".encode())
        for path in self.paths:
            with contextlib.suppress(OSError):
                file = os.stat(path)
                # Tools set the time of the content back at will, but not that of the last change of any kind.
                digest.update(f"{file.st_size} {file.st_mtime_ns} {file.st_ctime_ns}\n".encode())
        return digest.hexdigest()

    def _take(self, path: pathlib.Path, state: str) -> bool:
        """Take what is kept, if it is whole and of this state."""
        try:
            self._file = path.open("rb", buffering=0)
            self._file.seek(self.bytes)
            note = json.loads(self._file.read())
            if note["state"] != state:
                return False
        except (OSError, ValueError, TypeError, KeyError):  # nothing is there, or something else, or a part
            return False
        self._map()
        return note["checksums"] == self._each_chunk(self._checksum, "checking")

    def _keep(self, folder: pathlib.Path, state: str) -> None:
        """Decode into a new file that takes its place when it is whole and no photograph is bad."""
        for leftover in folder.glob("*.part"):  # of a killed run: who holds the lock writes alone
            leftover.unlink()
        part = folder / f"{PIXELS}.{os.getpid()}.part"
        try:
            self.pixels, self._file = None, part.open("wb+", buffering=0)
            checksums = self._each_chunk(lambda first: zlib.crc32(self._decode(first).numpy()), "decoding")
            if not self.bad:
                note = json.dumps({"state": state, "checksums": checksums})
                self._write(self.bytes, memoryview(note.encode()))
                part.replace(folder / PIXELS)
            self._map()
        finally:
            part.unlink(missing_ok=True)

    def _map(self) -> None:
        if self.fits_memory:  # "c" for copy on write: the file stays as it is, whatever happens to the tensor
            self.pixels = torch.from_numpy(np.memmap(self._file, np.uint8, "c", shape=self.shape))

    def _checksum(self, first: int) -> int:
        if self.pixels is not None:
            return zlib.crc32(self.pixels[first : first + CHUNK].numpy())
        count = min(CHUNK, len(self) - first)
        return zlib.crc32(self._read(first, torch.empty((count, *self.size, 3), dtype=torch.uint8)).numpy())
