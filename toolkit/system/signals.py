"""Ctrl-C and SIGTERM: raised at once, or deferred to the end of a block whose work must be done whole.

The state of this module is that of the process: signals have handlers of the process, not of an object.
"""

import contextlib
import os
import signal

from toolkit.system import world

OTHER_RANKS_WAIT_SECONDS = 15

_deferring = False
_pending: int | None = None  # the signal that came while it could not be raised


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the machine is needed for something else."""


def install() -> None:
    """Raise Ctrl-C as KeyboardInterrupt and SIGTERM as Terminated."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background
            signal.signal(number, _handle)


@contextlib.contextmanager
def defer_signals():
    """Both signals wait until the block ends. A second one does not wait: it ends the process at once.

    A pending signal replaces an error of the block: with several processes, that error is mostly the end of another.
    """
    global _deferring, _pending
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        if _pending is not None and world.rank() == 0:
            number, _pending = _pending, None
            raise _exception(number)


def _handle(number, _frame) -> None:
    global _pending
    if world.rank() and _pending is None:
        # Rank 0 needs this process to end its step, and ends the job when it has saved. The alarm is for its death.
        _pending = number
        signal.alarm(OTHER_RANKS_WAIT_SECONDS)
    elif not _deferring:
        raise _exception(number)
    elif _pending is None:
        _pending = number
        # os.write, since the signal may have come while Python's own buffer was being written.
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, b"stopping when this step is done; once more stops at once, with the last saved state\n")
    else:
        # SystemExit and not KeyboardInterrupt, which would be answered by a save: the block's work is half done.
        _pending = None
        raise SystemExit(128 + number)


def _exception(number: int) -> type[KeyboardInterrupt]:
    return Terminated if number == signal.SIGTERM else KeyboardInterrupt
