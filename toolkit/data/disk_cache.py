"""Decoded photographs that are kept between runs, in CACHE_DIR: made once, checked, and never stale."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import zlib

import numpy as np
import PIL
import torch

from toolkit.data import decode
from toolkit.data.store import CHUNK, File, Memory, Store
from toolkit.system import files
from toolkit.system.console import say

PIXELS = "pixels"  # all of them, then JSON: the state of the photographs, and a checksum for each chunk


def open_store(paths, size: tuple[int, int], memory_gib: float, cache_dir: pathlib.Path | None) -> Store:
    """A store of these photographs that is kept in `cache_dir`, where there is one."""
    return Store(paths, size, memory_gib) if cache_dir is None else KeptStore(paths, size, memory_gib, cache_dir)


class KeptStore(Store):
    """A store whose pixels lie in a file below `folder`, from where a later run takes them.

    It takes them unless a photograph or the decoder has changed since, or a checksum is wrong; then it makes them anew.
    Runs that want the same at once wait for the first. Where nothing can be kept there it is a plain store.
    """

    def __init__(self, paths, size: tuple[int, int], memory_gib: float, folder: pathlib.Path):
        super().__init__(paths, size, memory_gib)
        self.folder = folder
        self.taken = False  # whether the pixels are of an earlier run

    def __str__(self) -> str:
        return f"found {len(self)} decoded photographs in {self.folder}" if self.taken else super().__str__()

    def _fill(self) -> None:
        folder = self.folder / self._name()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with files.locked(folder, until=lambda: self._stopped) as alone:
                state = self._state()
                self.taken = self._take(folder / PIXELS, state)
                if not self.taken:
                    self._keep(folder, state, alone)
        except OSError as error:
            say(f"note: decoded photographs are not kept: {folder}: {error.strerror or error}")
            super()._fill()

    def _name(self) -> str:
        """Of the folder: one for these paths at this size."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.path.abspath(os.fsencode(path)) + b"\0")
        return "x".join(map(str, self.size)) + "-" + digest.hexdigest()[:16]

    def _state(self) -> str:
        """What the pixels depend on besides: the files as they are now, and what decodes them."""
        decoders = (decode.VERSION, PIL.__version__, torch.__version__, getattr(decode.simplejpeg, "__version__", None))
        digest = hashlib.sha256(repr(decoders).encode())
        for path in self.paths:
            with contextlib.suppress(OSError, ValueError):  # a name that no file can have
                file = os.stat(path)
                # Tools set the time of the content back at will, but not that of the last change of any kind.
                digest.update(f"{file.st_size} {file.st_mtime_ns} {file.st_ctime_ns}\n".encode())
        return digest.hexdigest()

    def _take(self, path: pathlib.Path, state: str) -> bool:
        """Take what is kept, if it is whole and of this state."""
        try:
            file = path.open("rb", buffering=0)
            file.seek(self.bytes)
            note = json.loads(file.read())
            if note["state"] != state:
                return False
        except (OSError, ValueError, TypeError, KeyError):  # nothing is there, or something else, or a part
            return False
        place = self._whole(file)

        def checksum(first: int) -> int:
            return zlib.crc32(place.get(torch.arange(first, min(first + CHUNK, len(self)))).numpy())

        if note["checksums"] != self._each_chunk(checksum, "checking"):
            return False
        self.place = place
        return True

    def _keep(self, folder: pathlib.Path, state: str, alone: bool) -> None:
        """Decode into a new file that takes its place when it is whole and no photograph is bad."""
        for leftover in folder.glob("*.part") if alone else ():  # of a killed run, then
            leftover.unlink()
        if self.bytes > 0.9 * shutil.disk_usage(folder).free:
            raise OSError(0, f"expected {self.bytes / 2**30:.1f} GiB of free disk, found less")
        part = folder / f"{PIXELS}.{os.getpid()}.part"
        try:
            place = File(part.open("xb+", buffering=0), self.shape)
            self._begin(place)
            checksums = self._each_chunk(lambda first: zlib.crc32(self._decode(first)), "decoding")
            if self.bad:
                say("note: decoded photographs are not kept, as some are bad")
            else:
                note = json.dumps({"state": state, "checksums": checksums})
                place.write(self.bytes, memoryview(note.encode()))
                part.replace(folder / PIXELS)
            self.place = self._whole(place.file)
        finally:
            part.unlink(missing_ok=True)

    def _whole(self, file) -> Memory | File:
        """The place of pixels that are all in the file: mapped, where they fit the memory."""
        if self.fits_memory:  # "c" for copy on write: the file stays as it is, whatever happens to the tensor
            return Memory(torch.from_numpy(np.memmap(file, np.uint8, "c", shape=self.shape)))
        return File(file, self.shape)
