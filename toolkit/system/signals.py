"""Ctrl-C, SIGTERM and SIGHUP: raised at once, or deferred to the end of a block that must not be interrupted.

The state of this module is global, as the handlers of signals belong to the process.
"""

import contextlib
import os
import signal
import sys
import threading

from toolkit.system import world

OTHER_RANKS_WAIT_SECONDS = 15
AGAIN_SECONDS = 0.05  # after this time a signal that nobody has answered is raised again
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # the last two: Slurm's --signal, qsub -notify
ENDING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

_deferring = False
_pending: int | None = None  # the signal that came in a block of `defer_signals`
_unanswered: int | None = None  # the signal that was raised, and that nobody has answered yet


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as the machine is needed for something else; or SIGHUP, as the terminal is gone."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__(number)
        self.number = number


def install() -> None:
    """Raise Ctrl-C as KeyboardInterrupt, SIGTERM and SIGHUP as Terminated."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background
            signal.signal(number, _handle)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _raise_again)
        sys.unraisablehook = _on_ignored_exception


def uninstall() -> int | None:
    """From now on a signal ends the process at once: its work is done, or given up.

    Returns the signal that was not answered, if any.
    """
    number = _unanswered
    answered()
    for ending in ENDING:
        if signal.getsignal(ending) is _handle:
            signal.signal(ending, signal.SIG_DFL)
    return number


def answered() -> None:
    """Call this when the exception of a signal was caught and is being dealt with: it is not raised again."""
    global _unanswered
    _unanswered = None
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def defer_signals():
    """Signals wait until the block ends. A second one does not wait: it ends the process at once.

    Ctrl-C also waits if `install` was never called, as in a notebook that has imported train.py. If the block ends with
    an error while a signal waits, the signal is raised instead: with several processes, such an error mostly means that
    another process has ended.
    """
    global _deferring, _pending
    _deferring = True
    in_main_thread = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    of_python = [n for n in ENDING if in_main_thread and signal.getsignal(n) is signal.default_int_handler]
    for number in of_python:
        signal.signal(number, _defer)
    try:
        yield
    finally:
        _deferring = False
        for number in of_python:
            signal.signal(number, signal.default_int_handler)
        if of_python and _pending is not None:
            _pending = None
            raise KeyboardInterrupt
        if _pending is not None and world.rank() == 0:
            number, _pending = _pending, None
            _raise(number, None)


def _defer(number, _frame) -> None:
    """The handler within `defer_signals` for signals that have Python's default handler outside of it."""
    global _pending
    if _pending is not None:
        _pending = None
        raise SystemExit(128 + number)  # see `_handle`
    _pending = number


def _handle(number, frame) -> None:
    global _pending
    if hasattr(signal, "SIGHUP"):  # a closed terminal sends several: the second must not mean "at once"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if world.rank() and _pending is None:
        # Rank 0 needs this process to finish its step, and ends the job when it has saved. The alarm ends this process
        # if rank 0 has died.
        _pending = number
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(OTHER_RANKS_WAIT_SECONDS)
    elif _deferring and _pending is None:
        _pending = number
        # os.write, since the signal may have come while Python's own buffer was being written.
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, b"stopping when this step is done; once more stops at once, with the last saved state\n")
    elif _deferring:
        # SystemExit, not KeyboardInterrupt: that would cause a save, but the block's work is half done.
        _pending = None
        raise SystemExit(128 + number)
    elif _unanswered is not None and _is_importing(frame):
        os._exit(128 + number)
    else:
        _raise(number, frame)


def _raise(number: int, frame) -> None:
    """Raise the signal's exception, again and again until `answered` is called; during an import only after it.

    One exception may be lost: Python ignores exceptions in callbacks, such as those of weak references, also in its
    import machinery; and libraries may take it for an error of their own. A module whose import was interrupted would
    stay half imported.
    """
    global _unanswered
    if hasattr(signal, "setitimer") and not world.rank():
        _unanswered = number
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        if _is_importing(frame):
            return
    raise _exception(number)


def _raise_again(_number, frame) -> None:
    global _pending
    if _unanswered is None:
        return
    if _deferring:
        _pending = _unanswered
    elif _is_handled():
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    else:
        _raise(_unanswered, frame)


def _is_importing(frame) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _is_handled() -> bool:
    """Whether the exception of a signal is being handled now, by code that saves or cleans up."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _on_ignored_exception(ignored) -> None:
    if not isinstance(ignored.exc_value, KeyboardInterrupt):  # the alarm raises it again
        sys.__unraisablehook__(ignored)


def _exception(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
