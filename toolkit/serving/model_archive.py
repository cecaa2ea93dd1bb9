"""Packed models: SageMaker's channel `model` is a folder with the model.tar.gz of a training job."""

import contextlib
import errno
import pathlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator

from toolkit.runs.folders import EXPORTED
from toolkit.runs.weights import WEIGHTS
from toolkit.system import files
from toolkit.system.console import InputError, listed

PACKED = "model.tar.gz"
MOST_MEMBERS = 5000  # a run of five folds has some 70


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
            with tarfile.open(archive, "r:gz") as packed:
                refuse_unsafe_members(archive, packed, shutil.disk_usage(content).free)
                packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later have it
                packed.extractall(content)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            # tarfile gives its own OSErrors no errno, or EINVAL; others, such as a full disk, are no damage.
            if getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise
            reason = str(error).split("\n")[0].rstrip(":")  # further lines tell what each compression expected
            raise InputError(f"{archive}: expected a packed model, found a damaged file: {reason}") from None
        yield content


def refuse_unsafe_members(archive: pathlib.Path, members: Iterable[tarfile.TarInfo], free: int) -> None:
    """Raises InputError unless these are at most MOST_MEMBERS files and folders inside the archive, of `free` bytes.

    An archive is a stranger's: a link or `..` in it would write outside of the folder that it is unpacked to, and a few
    kilobytes can be millions of files. So it is read no further than the first member too many.
    """
    unsafe, size = [], 0
    for number, member in enumerate(members, 1):
        if number > MOST_MEMBERS:
            raise InputError(f"{archive}: expected at most {MOST_MEMBERS:,} files and folders in it, found more")
        size += member.size
        if size > free:
            raise InputError(
                f"{archive}: expected room for {size / 2**20:,.1f} MiB or more to unpack it, found "
                f"{free / 2**20:,.1f} MiB free; set TMPDIR to a folder with more"
            )
        if not (member.isreg() or member.isdir()) or not files.below(archive.parent, member.name):
            unsafe.append(member.name)
    if unsafe:
        raise InputError(
            f"{archive}: expected files and folders inside it, found links or paths that lead out of it: "
            f"{listed(unsafe)}"
        )
