"""Packed models: SageMaker's channel `model` is a folder with the model.tar.gz of a training job."""

import contextlib
import errno
import pathlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator

from toolkit.runs.folders import EXPORTED
from toolkit.runs.weights import WEIGHTS
from toolkit.system import files
from toolkit.system.console import InputError, listed

PACKED = "model.tar.gz"


@contextlib.contextmanager
def unpacked(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder of runs: `folder`, or if it has only a model.tar.gz, the content of that in a temporary folder.

    The temporary folder is deleted when the block ends. Raises InputError if the archive is damaged, has members other
    than files and folders inside it, or is larger than the free disk space (TMPDIR names the disk).
    """
    archive = folder / PACKED
    if not archive.is_file() or any(next(folder.rglob(file), None) for file in (WEIGHTS, EXPORTED)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        content = pathlib.Path(temporary) / PACKED  # so that printed paths of runs name the archive
        content.mkdir()
        try:
            with tarfile.open(archive) as packed:
                refuse_unsafe_members(archive, packed.getmembers(), shutil.disk_usage(content).free)
                packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later have it
                packed.extractall(content)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            # tarfile gives its own OSErrors no errno, or EINVAL; others, such as a full disk, are no damage.
            if getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise
            reason = str(error).split("\n")[0].rstrip(":")  # further lines tell what each compression expected
            raise InputError(f"{archive}: expected a packed model, found a damaged file: {reason}") from None
        yield content


def refuse_unsafe_members(archive: pathlib.Path, members: list[tarfile.TarInfo], free: int) -> None:
    """Raises InputError unless all are files and folders inside the archive, of at most `free` bytes together.

    An archive is a stranger's: a link or `..` in it would write outside of the folder that it is unpacked to.
    """
    unsafe = [
        member.name
        for member in members
        if not (member.isreg() or member.isdir()) or not files.below(archive.parent, member.name)
    ]
    if unsafe:
        raise InputError(
            f"{archive}: expected files and folders inside it, found links or paths that lead out of it: "
            f"{listed(unsafe)}"
        )
    size = sum(member.size for member in members)
    if size > free:
        raise InputError(
            f"{archive}: expected room for {size / 2**20:,.1f} MiB to unpack it, found {free / 2**20:,.1f} MiB free; "
            f"set TMPDIR to a folder with more"
        )
