"""SageMaker's packed models: a channel `model` is a folder that holds a model.tar.gz, as a training job left it."""

import contextlib
import errno
import pathlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator

from toolkit.runs.folders import EXPORTED, WEIGHTS
from toolkit.system.console import InputError, listed

PACKED = "model.tar.gz"


@contextlib.contextmanager
def unpacked(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """`folder` itself, or where it has no weights but a model.tar.gz, what that holds: in a temporary folder.

    It is gone when the block ends. Raises InputError where the archive is damaged, holds anything but files and folders
    that stay below it, or has no room there (TMPDIR says where).
    """
    archive = folder / PACKED
    if not archive.is_file() or any(next(folder.rglob(net), None) for net in (WEIGHTS, EXPORTED)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary) / PACKED  # whose name says, in what is printed, where the runs come from
        place.mkdir()
        try:
            with tarfile.open(archive) as packed:
                refuse_what_is_no_model(archive, packed.getmembers(), shutil.disk_usage(place).free)
                packed.extraction_filter = getattr(tarfile, "data_filter", None)  # not in the first of Python 3.11
                packed.extractall(place)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            if getattr(error, "errno", None) not in (None, errno.EINVAL):  # a disk that is full, say
                raise
            reason = str(error).split("\n")[0].rstrip(":")  # below it, what each of several formats wants
            raise InputError(f"{archive}: expected a packed model, found a damaged file: {reason}") from None
        yield place


def refuse_what_is_no_model(archive: pathlib.Path, members: list[tarfile.TarInfo], free: int) -> None:
    """Raises InputError unless these are files and folders that stay below it, and take at most `free` bytes."""
    odd = [
        member.name
        for member in members
        if not (member.isreg() or member.isdir()) or ".." in pathlib.PurePosixPath(member.name).parts
        or member.name.startswith("/")
    ]  # fmt: skip
    if odd:
        raise InputError(
            f"{archive}: expected files and folders below it, found links or what leads out of it: {listed(odd)}"
        )
    size = sum(member.size for member in members)
    if size > free:
        raise InputError(
            f"{archive}: expected room for {size / 2**20:,.1f} MiB to unpack it, found {free / 2**20:,.1f} MiB free; "
            f"set TMPDIR to a folder with more"
        )
