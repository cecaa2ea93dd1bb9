"""Files that are whole or not there: written under a temporary name, flushed to the disk, then renamed."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from toolkit.system import csv_text
from toolkit.system.console import InputError, first_line, listed, say

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What file systems answer that lack an operation: WSL's /mnt, exFAT, network and FUSE disks.
LACKING = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOTTY)
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # the names that `replacing` makes
_LACKED: set[str] = set()  # what this process has said that a file system lacks


class WriteError(InputError):
    """A file cannot be written."""


class DamagedError(InputError):
    """The file can be read, and is not what it should be: it is damaged, or not ours."""


def damaged(path: pathlib.Path, error: Exception) -> DamagedError:
    """What to raise for a file in which this went wrong."""
    reason = first_line(error)
    if isinstance(error, ValidationError):
        reason = listed(": ".join(map(str, (*one["loc"], one["msg"]))) for one in error.errors(include_url=False))
    return DamagedError(f"{path}: expected a whole file that train.py wrote, found a damaged or foreign file: {reason}")


@contextlib.contextmanager
def replacing(path: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """The path of a temporary file that replaces `path` when the block ends without an error.

    Whoever reads `path`, and a crash at any instant, finds the old content or the new one, and never a part of it.
    `size`, in bytes, is what the message names when there is no room. Raises WriteError where the folder cannot be
    written to or the disk is full; `path` is then as it was.
    """
    temporary = descriptor = None
    try:
        # In the same folder, since a file can only be renamed within its disk. mkstemp, since two processes that save
        # the same file must not share a temporary one.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = pathlib.Path(name)
        if os.name == "nt":  # which renames no open file, and has no such locks
            os.close(descriptor)
            descriptor = None
        else:
            _try_lock(descriptor)  # so that no other process takes it for the leftover of a killed one
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
        # The new name is an entry of the folder. Until that is on the disk, a power failure brings the old file back,
        # whole. Some systems cannot flush a folder; there it stays at that.
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
    with contextlib.suppress(OSError):
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
    """A block without which a file is still a file, for a folder whose file system may lack it; that is said once."""
    try:
        yield
    except OSError as error:
        if error.errno not in LACKING:
            raise
        if what not in _LACKED:
            _LACKED.add(what)
            say(f"note: the file system of {folder} cannot {what} ({error.strerror}), and does without")


def remove_leftovers(folder: pathlib.Path) -> None:
    """Delete the temporary files, and folders of them, of processes that were killed while they wrote to this folder.

    Only for a process that holds the folder's lock: other writers of such folders hold it too. Files are also written
    without it, and those of living processes stay.
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
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open. False where another process has done so."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # no such locks on this system
        pass
    return True


def flush(path: pathlib.Path) -> None:
    """Wait until the disk holds a file's content, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # no system opens a folder for writing
    try:
        with if_it_can("wait until a disk holds what was written", path.parent):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes in one durable step. Raises InputError as `replacing` does."""
    content = content.encode() if isinstance(content, str) else content
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_together(folder: pathlib.Path, contents: Mapping[str, str | None]) -> None:
    """Write the files of a folder that belong together, {name: text, or None for no such file}.

    All are written aside first; then they take their places, in this order. Raises InputError as `replacing` does: all
    are then as they were.
    """
    with contextlib.ExitStack() as stack:
        for name, text in reversed(contents.items()):  # the stack ends with the first
            if text is not None:
                temporary = stack.enter_context(replacing(folder / name, len(text)))
                temporary.write_text(text, encoding="utf-8", newline="")
                flush(temporary)  # now: a full disk must be known before any file is replaced
        for name in (name for name, text in contents.items() if text is None):
            (folder / name).unlink(missing_ok=True)


def as_csv(table) -> str:
    """Columns {name: values}, or a pandas table, as CSV with a header; NaN becomes an empty cell."""
    # Python's own numbers: text of np.float64(0.5) and tensor(1) would be those words.
    columns = [column.tolist() if hasattr(column, "tolist") else column for _, column in table.items()]
    return csv_text.as_text([[name for name, _ in table.items()], *zip(*columns, strict=True)])


def as_json(content) -> str:
    """`content`, of plain types, as JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_csv(path: pathlib.Path, table) -> None:
    """Write `as_csv`. Raises InputError as `replacing` does."""
    write(path, as_csv(table))


def write_json(path: pathlib.Path, content) -> None:
    """Write `as_json`. Raises InputError as `replacing` does."""
    write(path, as_json(content))


def read_json(path: pathlib.Path, kind: type[BaseModel]) -> dict:
    """The content of a JSON file, as it stands there; those fields that `kind` has are of its types.

    Raises OSError where it cannot be read, and DamagedError where it is something else, or nested too deeply.
    """
    with opened(path) as file:
        content = file.read()
    try:
        kind.model_validate_json(content, strict=True)
        return json.loads(content)
    except ValueError as error:
        raise damaged(path, error) from None


class Table(dict):
    """{column: texts}, and where the rows are."""

    lines: list[int]  # of each row in its file, as an editor counts them


def read_csv(path: pathlib.Path, columns: tuple[str, ...], setting: str, key: str | None = None) -> Table:
    """A CSV table as {column: texts}, each cell exactly as in the file. Without pandas, which is slow to import.

    Spreadsheets' ways of saving are read where they are certain (csv_text.py). `setting` is named when the file is
    missing. Raises InputError unless the table has these columns and, with a `key`, at least one row and no value
    twice in that column.
    """
    try:
        with opened(path) as file:
            rows = csv_text.rows(file.read(), columns)
    except FileNotFoundError:
        raise InputError(f"{path}: expected this file, found none; is {setting} the right folder?") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}; {csv_text.REMEDY}") from None
    header = rows.pop(0)[1] if rows else []
    if missing := [column for column in columns if column not in header]:
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)}; found {listed(header, 30) or 'nothing'}; "
            f"missing {', '.join(missing)}{f'; {csv_text.REMEDY}' if len(header) == 1 else ''}"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path}: expected every column once, and a name for each; found {listed(header, 30)}")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path} line {line}: expected {len(header)} cells, as in the header, found {len(row)}: {listed(row)}"
            )
    table = Table({name: [row[column] for _, row in rows] for column, name in enumerate(header)})
    table.lines = [line for line, _ in rows]
    if key and not rows:
        raise InputError(f"{path}: expected a row for each photograph, found none")
    if key and len(set(table[key])) < len(rows):
        repeated = [value for value, count in Counter(table[key]).items() if count > 1]
        raise InputError(f"{path}: expected every {key} once, found {len(repeated)} repeated: {listed(repeated)}")
    return table


def make_folder(path: pathlib.Path, setting: str) -> pathlib.Path:
    """Make a folder and its parents, and return it. Raises InputError where it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()  # by writing: the rights alone do not tell of a read-only disk
    except OSError as error:
        raise InputError(f"{setting}={path}: expected a folder to write to: {error.strerror}") from None
    return path


def make_folders(config, *names: str) -> None:
    """`make_folder` for each of these settings that is set."""
    for name in names:
        if folder := getattr(config, name):
            make_folder(folder, name.upper())


def below(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """folder/name; None where a name from a file or an archive leads out of the folder. Links in it are its owner's."""
    parts = pathlib.PurePath(name)
    return None if parts.is_absolute() or ".." in parts.parts else folder / parts


@contextlib.contextmanager
def opened(path: str | bytes | os.PathLike) -> Iterator[BinaryIO]:
    """A file, to be read. Raises OSError, also where it is no regular file: a pipe or a device might never end."""
    # Opening a pipe would wait for whoever writes to it, unless it is told not to.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "expected a file, found a pipe or a device", os.fsdecode(path))
        yield file


def sha256(path: str | bytes | os.PathLike) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits. Raises OSError as `opened` does."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
