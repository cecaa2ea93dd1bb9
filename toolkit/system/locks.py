"""One process at a time writes to a folder: a lock that the system frees when its holder dies.

Why not the package filelock (looked at up to 4.3.1)? It frees the lock of a dead process as well as this does. But:

- It leaves the lock file behind (only 3.25 to 3.29 removed it), and SageMaker uploads all that lies in these folders.
  To remove the file ourselves would not be safe: a process that waits has that file open, and must notice. filelock
  checks for a link count of 0. NFS renames an open file instead of removing it, so its count stays 1, and two processes
  hold the lock. `_try_lock` compares the open file with the one at the path.
- It makes a missing folder again: the folder of a run that failed and cleaned up would come back, empty.
- Where a disk has no locks it raises OSError, or takes the mere existence of a file for a lock: once its holder has
  died on another machine, all others wait for ever. Here nobody waits, and `locked` gives False.
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from toolkit.system import files
from toolkit.system.console import say

LOCK = ".lock"  # the file in a folder while a process holds it
POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(folder: pathlib.Path, give_up: Callable[[], bool] = lambda: False, name: str = LOCK) -> Iterator[bool]:
    """Hold the lock `name` of a folder until the block ends. Gives whether no other process can hold it now.

    That is False where the system has no locks: then nobody waits. Locks of other names are independent of this one.
    Raises InterruptedError when `give_up` is true before it is this process's turn, and OSError where the lock file
    cannot be opened: the folder is gone (FileNotFoundError), or another person's process made it (PermissionError).
    """
    path = folder / name
    try:
        descriptor = _wait(path, give_up)
    except NotImplementedError:
        descriptor = None
    if descriptor is None:
        yield False
        return
    try:
        files.remove_leftovers(folder)
        yield True
    finally:
        # Removed while it is still locked: once it is free, another process may hold it and count on it.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(folder: pathlib.Path) -> None:
    """Remove what a killed process left of its lock and its unfinished files, unless another process is there now."""
    with contextlib.suppress(OSError), locked(folder, give_up=lambda: True):  # InterruptedError is an OSError
        pass


def _wait(path: pathlib.Path, give_up: Callable[[], bool]) -> int:
    """The descriptor of the lock file, locked by this process. Raises as `locked` and `_try_lock` do."""
    waiting = False
    # It asks again and again. A call that blocks would not see `give_up`, nor that the file was replaced.
    while (descriptor := _try_lock(path)) is None:
        if give_up():
            raise InterruptedError("stopped")
        if not waiting:
            say(f"waiting for another run that writes to {path.parent}")
        waiting = True
        time.sleep(POLL_SECONDS)
    return descriptor


def _try_lock(path: pathlib.Path) -> int | None:
    """A descriptor that holds the lock for as long as it is open; None where another process holds it.

    Raises NotImplementedError where the system has no such locks: Windows, and some network disks.
    """
    try:
        import fcntl
    except ImportError:
        raise NotImplementedError from None
    # NFS locks only files that are open for writing. A link would lead to a file that is not ours, and be made there.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder may have removed the file after it was opened here: its lock is worth nothing then.
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):  # held by another process; or removed by it, just now
        pass
    except OSError:
        os.close(descriptor)
        raise NotImplementedError from None
    os.close(descriptor)
    return None
