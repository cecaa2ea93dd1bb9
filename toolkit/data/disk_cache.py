"""Decoded photographs kept for later runs, in CACHE_DIR: written once, checked with checksums, never stale."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import zlib

import numpy as np
import PIL
import torch

from toolkit.data import decode, framing, photo_file
from toolkit.data.framing import Framing
from toolkit.data.photo_file import Reading
from toolkit.data.store import CHUNK, File, Memory, Store, cpu_count
from toolkit.system import files
from toolkit.system.console import say

# A file of all pixels, followed by JSON: a digest of their sources, and checksums of each chunk and of each source.
PIXELS = "pixels"


def open_store(
    paths, framing: Framing, memory_gib: float, cache_dir: pathlib.Path | None, reading: Reading | None = None
) -> Store:
    """A store of these photographs, kept in `cache_dir` if one is given."""
    if cache_dir is None:
        return Store(paths, framing, memory_gib, reading)
    return CachedStore(paths, framing, memory_gib, cache_dir, reading)


class CachedStore(Store):
    """A store whose pixels lie in a file below `folder`, for later runs to reuse.

    A later run decodes again if a photograph or the decoder has changed, or a checksum is wrong. Runs that need the
    same pixels at the same time wait for the first. If the folder cannot be written to, this is a plain store.
    """

    def __init__(
        self, paths, framing: Framing, memory_gib: float, folder: pathlib.Path, reading: Reading | None = None
    ):
        super().__init__(paths, framing, memory_gib, reading)
        self.folder = folder
        self.reused = False  # whether an earlier run decoded the pixels

    def __str__(self) -> str:
        return f"found {len(self)} decoded photographs in {self.folder}" if self.reused else super().__str__()

    def _fill(self) -> None:
        folder = self.folder / self._name()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with files.locked(folder, give_up=lambda: self._stopped) as alone:
                sources = self._digest_of_sources()
                self.reused = self._reuse(folder / PIXELS, sources)
                if not self.reused:
                    self._decode_to_disk(folder, sources, alone)
        except OSError as error:
            say(f"note: decoded photographs are not kept: {folder}: {error.strerror or error}")
            super()._fill()

    def _name(self) -> str:
        """The name of the folder for these paths in this framing."""
        digest = hashlib.sha256(repr(self.framing).encode())
        for path in self.paths:
            digest.update(os.path.abspath(os.fsencode(path)) + b"\0")
        return "x".join(map(str, self.size)) + "-" + digest.hexdigest()[:16]

    def _digest_of_sources(self) -> str:
        """A digest of all else that decides the pixels: size and times of the files, and the code that decodes them."""
        code = [pathlib.Path(module.__file__).read_bytes() for module in (decode, framing, photo_file)]
        decoders = [*code, PIL.__version__, torch.__version__, getattr(decode.simplejpeg, "__version__", None)]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            decoders.append(importlib.metadata.version("pillow-heif"))
        decoders.append(self.reading.max_megapixels)
        digest = hashlib.sha256(repr(decoders).encode())
        for path in self.paths:
            with contextlib.suppress(OSError, ValueError):  # no such file; a name that no file can have
                file = os.stat(path)
                # ctime too: copying tools set mtime back to that of the original, but cannot set ctime.
                digest.update(f"{file.st_size} {file.st_mtime_ns} {file.st_ctime_ns}\n".encode())
        return digest.hexdigest()

    def _reuse(self, path: pathlib.Path, sources: str) -> bool:
        """Use the file at `path` if it is complete and decoded from the same sources. Returns whether it is used."""
        try:
            file = path.open("rb", buffering=0)
            file.seek(self.bytes)
            note = json.loads(file.read())
            if note["sources"] != sources or (note["repaired"] and not self.reading.repair):
                return False
            repaired = {int(index): text for index, text in note["repaired"].items()}
            chunks, of_files = note["checksums"], np.array(note["files"], self.checksums.dtype).reshape(len(self))
        # No such file, or none that this code wrote.
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        storage = self._mapped(file)

        def checksum(first: int) -> int:
            return zlib.crc32(storage.get(torch.arange(first, min(first + CHUNK, len(self)))).numpy())

        if chunks != self._map_chunks(checksum, "checking", cpu_count()):
            return False
        self.storage, self.repaired = storage, repaired
        self.checksums[:] = of_files
        return True

    def _decode_to_disk(self, folder: pathlib.Path, sources: str, alone: bool) -> None:
        """Decode into a new file, which becomes PIXELS once it is complete, unless a photograph is bad."""
        for leftover in folder.glob("*.part") if alone else ():  # of a killed run: no other process can be here
            leftover.unlink()
        if self.bytes > 0.9 * shutil.disk_usage(folder).free:
            raise OSError(0, f"expected {self.bytes / 2**30:.1f} GiB of free disk, found less")
        part = folder / f"{PIXELS}.{os.getpid()}.part"
        try:
            storage = File(part.open("xb+", buffering=0), self.shape)
            self._begin(storage)
            checksums = self._map_chunks(lambda first: zlib.crc32(self._decode_chunk(first)), "decoding", self.threads)
            if self.bad:
                say("note: decoded photographs are not kept, as some are bad")
            else:
                of_files = {"files": self.checksums.tolist(), "repaired": self.repaired}
                note = json.dumps({"sources": sources, "checksums": checksums, **of_files})
                storage.write(self.bytes, memoryview(note.encode()))
                part.replace(folder / PIXELS)
            self.storage = self._mapped(storage.file)
        finally:
            part.unlink(missing_ok=True)

    def _mapped(self, file) -> Memory | File:
        """The pixels of a complete file: mapped into memory if they take at most `memory_gib`."""
        if self.fits_memory:  # "c" for copy on write: the file does not change, whatever happens to the tensor
            return Memory(torch.from_numpy(np.memmap(file, np.uint8, "c", shape=self.shape)))
        return File(file, self.shape)
