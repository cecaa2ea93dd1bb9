"""Files that are whole or not there: written beside their place, flushed to the disk, then put in it."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections import Counter

from toolkit.system.console import InputError, listed, say

LOCK = ".lock"  # in a folder while a process has it for itself
PART = re.compile(r"\..+\.[a-z0-9_]{8}\.part")  # a name that `replacing` makes


@contextlib.contextmanager
def replacing(path: pathlib.Path, size: int):
    """The path of a temporary file beside `path`, which takes its place when the block ends without an error.

    `size` is what it will take, in bytes. Raises InputError where the folder cannot be written to or the disk is full;
    what was at `path` is then untouched.
    """
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
        temporary = pathlib.Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private; what the person keeps has the usual rights
        flush(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # the name, too, where the system can
            flush(path.parent)
    except OSError as error:
        reason = error.strerror or error
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            reason = f"{reason}; expected room for {size / 2**20:,.1f} MiB, found {free / 2**20:,.1f} MiB free there"
        raise InputError(f"{path}: cannot be written: {reason}; what was there before is untouched") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def flush(path: pathlib.Path) -> None:
    """Have the disk hold what was written: a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: pathlib.Path, content: str | bytes) -> None:
    content = content.encode() if isinstance(content, str) else content
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_csv(path: pathlib.Path, table) -> None:
    """Write columns {name: values}, or a pandas table; NaN becomes an empty cell."""
    columns = [column.tolist() if hasattr(column, "tolist") else column for _, column in table.items()]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name, _ in table.items()])
    writer.writerows(["" if cell != cell else cell for cell in row] for row in zip(*columns, strict=True))
    write(path, text.getvalue())


def write_json(path: pathlib.Path, content) -> None:
    """`content` of plain types only; NaN and infinity are refused, as they are no JSON."""
    write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_csv(path: pathlib.Path, columns: tuple[str, ...], setting: str, key: str | None = None) -> dict[str, list]:
    """A CSV table as {column: texts}, every cell as it stands in the file. Without pandas, which is slow to import.

    Raises InputError unless it has these columns and, with a `key`, at least a row and nothing twice in that column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise InputError(f"{path}: expected this file, found none; is {setting} the right folder?") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {str(error).strip()}") from None
    header = [name.strip() for name in rows.pop(0)[1]] if rows else []
    if missing := [column for column in columns if column not in header]:
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)}; found {', '.join(header) or 'nothing'}; "
            f"missing {', '.join(missing)}"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path}: expected every column once, and a name for each; found {', '.join(header)}")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path} line {line}: expected {len(header)} cells, as in the header, found {len(row)}: {listed(row)}"
            )
    table = {name: [row[place] for _, row in rows] for place, name in enumerate(header)}
    if key and not rows:
        raise InputError(f"{path}: expected a row for each photograph, found none")
    if key and len(set(table[key])) < len(rows):
        repeated = [value for value, count in Counter(table[key]).items() if count > 1]
        raise InputError(f"{path}: expected every {key} once, found {len(repeated)} repeated: {listed(repeated)}")
    return table


def make_folder(path: pathlib.Path, setting: str) -> pathlib.Path:
    """`path`, made with its parents. Raises InputError where that is not possible or nothing can be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(f"{setting}={path}: expected a folder to write to: {error.strerror}") from None
    return path


@contextlib.contextmanager
def locked(folder: pathlib.Path, until=lambda: False, name: str = LOCK):
    """Processes that change the files of this folder take turns; whether this one has it for itself.

    Then temporary files that lie in it are of a process that was killed, and go. Where the system has no such locks
    nobody waits. Raises InterruptedError when `until` is true before it is its turn. The system lets go of the lock of
    a process that is killed. `name` is of the file that is locked: who has one may take another.
    """
    path, descriptor, waiting = folder / name, None, False
    while descriptor is None:
        try:
            descriptor = _lock(path)
        except NotImplementedError:
            yield False
            return
        if descriptor is None:
            if until():
                raise InterruptedError("stopped")
            if not waiting:
                say(f"waiting for another run that writes to {folder}")
            waiting = True
            time.sleep(0.05)
    try:
        for name in filter(PART.fullmatch, os.listdir(folder)):
            (folder / name).unlink(missing_ok=True)
        yield True
    finally:
        path.unlink(missing_ok=True)  # who waits for it sees that it is gone, and makes another
        os.close(descriptor)


def _lock(path: pathlib.Path) -> int | None:
    """A descriptor, while which is open the file is this process's; None where it is another's.

    Raises NotImplementedError where the system has no such locks: Windows, and some network disks.
    """
    try:
        import fcntl
    except ImportError:
        raise NotImplementedError from None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks no file that is not open to write
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):  # another's; or it was, and is gone
        pass
    except OSError:
        os.close(descriptor)
        raise NotImplementedError from None
    os.close(descriptor)
    return None


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
