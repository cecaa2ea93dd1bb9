"""Files that are complete or absent, and folders to which one process writes at a time.

A file is written under a temporary name, flushed to the disk, then renamed. `locked` takes the lock of a folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from toolkit.system.console import InputError, first_line, listed, say

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of file systems that lack an operation: WSL's /mnt, exFAT, network and FUSE disks.
LACKING = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY)
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # the names that `replacing` makes
LOCK = ".lock"  # the file in a folder while a process holds its lock
POLL_SECONDS = 0.05  # between two tries to take a lock
_LACKED: set[str] = set()  # operations whose lack this process has reported


class WriteError(InputError):
    """A file cannot be written."""


class DamagedError(InputError):
    """A file can be read, but is damaged, or was not written by this project."""


def damaged(path: pathlib.Path, error: Exception) -> DamagedError:
    """The error to raise for a file that gave `error` when it was parsed."""
    reason = first_line(error)
    if isinstance(error, ValidationError):
        reason = listed(": ".join(map(str, (*one["loc"], one["msg"]))) for one in error.errors(include_url=False))
    return DamagedError(f"{path}: expected a whole file that train.py wrote, found a damaged or foreign file: {reason}")


@contextlib.contextmanager
def replacing(path: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """The path of a temporary file that replaces `path` when the block ends without an error.

    Readers of `path` find the old content or the new one, never a part of it, even after a crash at any instant.
    `size`, in bytes, is what the message names when there is no room. Raises WriteError where the folder cannot be
    written to or the disk is full; `path` is then as it was.
    """
    temporary = descriptor = None
    try:
        # In the same folder, since a file can only be renamed within its disk. mkstemp, since two processes that save
        # the same file must not share a temporary one.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = pathlib.Path(name)
        if os.name == "nt":  # Windows cannot rename an open file, and has no such locks
            os.close(descriptor)
            descriptor = None
        else:
            _flock(descriptor)  # else another process may take it for the leftover of a killed one, and delete it
        yield temporary
        # mkstemp makes files that only their owner can read; this one gets the rights that `open` would give it. Python
        # can read the umask only by setting it.
        umask = os.umask(0)
        os.umask(umask)
        with if_it_can("set the rights of files", path.parent):
            temporary.chmod(0o666 & ~umask)
        # The content before the name: a disk may write them in any order, and after a power failure the name would
        # belong to an empty file, with the old content lost.
        flush(temporary)
        temporary.replace(path)
        # The new name is an entry of the folder. Until the folder is on the disk, a power failure brings the old file
        # back, complete. Some systems cannot flush a folder: this risk remains there.
        with contextlib.suppress(OSError):
            flush(path.parent)
    except OSError as error:
        reason = f"{error.strerror or error}{_room(path.parent, size) if error.errno in NO_ROOM else ''}"
        raise WriteError(f"{path}: cannot be written: {reason}; what was there before is untouched") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _room(folder: pathlib.Path, size: int) -> str:
    """The end of a message about a disk without room: how much was needed, and how much there was."""
    with contextlib.suppress(OSError, AttributeError):  # Windows has no statvfs
        usage = os.statvfs(folder)
        if not usage.f_favail and usage.f_files:
            return "; its file system can hold no more files, however small: remove some"
        needed, free = (
            f"{n / 2**20:,.1f} MiB" if n >= 2**17 else f"{n:,} bytes" for n in (size, usage.f_bavail * usage.f_frsize)
        )
        return f"; expected room for {needed}, found {free} free there"
    return ""


@contextlib.contextmanager
def if_it_can(what: str, folder: pathlib.Path) -> Iterator[None]:
    """Run an operation that is not essential, and that the folder's file system may lack; a note says so once."""
    try:
        yield
    except OSError as error:
        if error.errno not in LACKING:
            raise
        if what not in _LACKED:
            _LACKED.add(what)
            say(f"note: the file system of {folder} cannot {what} ({error.strerror}), and does without")


def flush(path: pathlib.Path) -> None:
    """Wait until the disk holds a file's content, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # no system opens a folder for writing
    try:
        with if_it_can("wait until a disk holds what was written", path.parent):
            _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """os.fsync; on a Mac F_FULLFSYNC: there, after fsync, the drive may still write later and in another order."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    except (AttributeError, OSError):  # another system, or a disk without it, such as a network's
        os.fsync(descriptor)


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes in one durable step. Raises InputError as `replacing` does."""
    content = content.encode() if isinstance(content, str) else content
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_together(folder: pathlib.Path, contents: Mapping[str, str | None]) -> None:
    """Write files of a folder that belong together: {name: text, or None to remove that file}.

    All are written under temporary names first, then renamed in this order. Raises InputError as `replacing` does; then
    no file has changed.
    """
    with contextlib.ExitStack() as stack:
        for name, text in reversed(contents.items()):  # an ExitStack ends the last one first
            if text is not None:
                temporary = stack.enter_context(replacing(folder / name, len(text)))
                temporary.write_text(text, encoding="utf-8", newline="")
                flush(temporary)  # now: a full disk must be known before any file is replaced
        for name in (name for name, text in contents.items() if text is None):
            (folder / name).unlink(missing_ok=True)


def as_json(content) -> str:
    """`content`, of plain types, as JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_json(path: pathlib.Path, content) -> None:
    """Write `as_json`. Raises InputError as `replacing` does."""
    write(path, as_json(content))


def read_json(path: pathlib.Path, kind: type[BaseModel]) -> dict:
    """The content of a JSON file. Fields that `kind` has are checked to be of its types.

    Raises OSError if it cannot be read, and DamagedError if it is no JSON, of other types, or nested too deeply.
    """
    with opened(path) as file:
        content = file.read()
    try:
        kind.model_validate_json(content, strict=True)
        return json.loads(content)
    except ValueError as error:
        raise damaged(path, error) from None


def make_folder(path: pathlib.Path, setting: str) -> pathlib.Path:
    """Make a folder and its parents, and return it. Raises InputError where it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()  # a try, since rights do not tell that a disk is read-only
    except OSError as error:
        raise InputError(f"{setting}={path}: expected a folder to write to: {error.strerror}") from None
    return path


def make_folders(config, *names: str) -> None:
    """`make_folder` for each of these settings that is set."""
    for name in names:
        if folder := getattr(config, name):
            make_folder(folder, name.upper())


def below(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """folder/name; None if `name`, from a file or an archive, leads out of the folder. Links are followed."""
    parts = pathlib.PurePath(name)
    return None if parts.is_absolute() or ".." in parts.parts else folder / parts


@contextlib.contextmanager
def opened(path: str | bytes | os.PathLike) -> Iterator[BinaryIO]:
    """A file, to be read. Raises OSError, also where it is no regular file: a pipe or a device might never end."""
    # Without O_NONBLOCK, opening a pipe waits for a process that writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "expected a file, found a pipe or a device", os.fsdecode(path))
        yield file


def sha256(path: str | bytes | os.PathLike) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits. Raises OSError as `opened` does."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: pathlib.Path, give_up: Callable[[], bool] = lambda: False, name: str = LOCK) -> Iterator[bool]:
    """Hold the lock `name` of a folder until the block ends. Yields whether this process really is the only holder.

    It yields False if the system has no locks: then nobody waits. Locks of other names are independent of this one. The
    system frees the lock of a process that dies, and the next holder removes its unfinished files. Raises
    InterruptedError when `give_up` is true before it is this process's turn, and OSError where the lock file cannot be
    opened: the folder is gone (FileNotFoundError), or another person's process made it (PermissionError).

    Why not the package filelock (looked at up to 4.3.1)?

    - It leaves the lock file behind (only 3.25 to 3.29 removed it), and SageMaker uploads all that lies in these
      folders. To remove it ourselves would not be safe: a process that waits has it open, and must notice. filelock
      checks for a link count of 0. NFS renames an open file instead of removing it, so its count stays 1, and two
      processes hold the lock. `_open_locked` compares the open file with the one at the path.
    - It makes a missing folder again: the folder of a run that failed and cleaned up would come back, empty.
    - Where a disk has no locks it raises OSError, or takes the mere existence of a file for a lock: once its holder has
      died on another machine, all others wait for ever.
    """
    path = folder / name
    descriptor = _wait(path, give_up)
    if descriptor is None:
        yield False
        return
    try:
        _remove_leftovers(folder)
        yield True
    finally:
        # Removed while it is still locked: once it is free, another process may hold it and count on it.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(folder: pathlib.Path) -> None:
    """Remove what a killed process left of its lock and its unfinished files, unless another process is there now."""
    with contextlib.suppress(OSError), locked(folder, give_up=lambda: True):  # InterruptedError is an OSError
        pass


def _wait(path: pathlib.Path, give_up: Callable[[], bool]) -> int | None:
    """`_open_locked` when it is this process's turn."""
    is_told = False
    # Polling: a call that blocks would not notice `give_up`, nor that the file was replaced.
    while True:
        with contextlib.suppress(BlockingIOError):
            return _open_locked(path)
        if give_up():
            raise InterruptedError("stopped")
        if not is_told:
            say(f"waiting for another run that writes to {path.parent}")
        is_told = True
        time.sleep(POLL_SECONDS)


def _open_locked(path: pathlib.Path) -> int | None:
    """A descriptor of the lock file that holds the lock until it is closed; None where the system has no locks.

    Raises BlockingIOError where another process holds it.
    """
    if fcntl is None:
        return None
    # O_RDWR: NFS locks only files that are open for writing. O_NOFOLLOW: a link could lead to a file that is not ours.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    is_held = _flock(descriptor)
    try:
        # The holder may have removed the file after it was opened here: then this lock protects nothing.
        is_held = is_held and os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        is_held = False
    except OSError:
        is_held = None
    if is_held:
        return descriptor
    os.close(descriptor)
    if is_held is None:
        return None
    raise BlockingIOError


def _flock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed. False where another process holds it, None where the system has no locks.

    Windows has none, nor have some network disks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Delete the temporary files, and folders of them, of processes that were killed while they wrote to this folder.

    Call this only with the folder's lock, which writers of temporary folders hold too. Temporary files may be written
    without it; those of living processes stay.
    """
    for path in (folder / name for name in filter(TEMPORARY.fullmatch, os.listdir(folder))):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not _is_being_written(path):
            path.unlink(missing_ok=True)


def _is_being_written(temporary: pathlib.Path) -> bool:
    try:
        descriptor = os.open(temporary, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # it is gone, or no file of ours
        return False
    try:
        return _flock(descriptor) is False
    finally:
        os.close(descriptor)
