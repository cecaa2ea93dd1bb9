"""What a script prints, and how it ends: exit 0, 2 with one clear line, 130 or 143 after a signal.

Rank 0 prints; other ranks print errors only.
"""

import contextlib
import io
import os
import pathlib
import select
import signal
import sys
import traceback

from toolkit.system import signals, world

SECONDS_BETWEEN_LINES = 10  # of progress, where is no terminal: a log keeps every line
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left"


class InputError(Exception):
    """Bad input. The text is what the person reads: one line, or one line for each problem.

    It says what was expected, what was found, where, and what to do.
    """


class _LastingFile(io.FileIO):
    """A stream of this process; what cannot be written there is lost, since no training must end over its log.

    The first time that is said, where it can be: a reader or a terminal may be gone, a disk full.
    """

    _is_told = False

    def write(self, content) -> int:
        try:
            while (written := super().write(content)) is None:  # another program has told the terminal not to wait
                select.select([], [self], [])
            return written
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                note = f"note: what this script prints cannot be written ({error.strerror}); it goes on\n"
                with contextlib.suppress(OSError):
                    os.write(3 - self.fileno(), note.encode("ascii", "backslashreplace"))
            return len(content)


@contextlib.contextmanager
def _lasting_streams():
    """Within the block sys.stdout and sys.stderr take whatever is written; characters that they lack are spelled out.

    A stream that the shell has closed leads nowhere, instead of into the next file that is opened.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    own = sys.stdout, sys.stderr
    for name, number in (("stdout", 1), ("stderr", 2)):
        encoding = getattr(getattr(sys, name), "encoding", "utf-8")
        raw = _LastingFile(number, "w", closefd=False)
        stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = own


def say(text: str) -> None:
    """Print lines on rank 0, in one write and flushed: SageMaker cuts lines that are written in pieces."""
    if world.rank() == 0:
        with _without_bars():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def bar(items=None, what: str = "", total: int | None = None):
    """tqdm's progress bar over `items`, on rank 0, removed at the end.

    Where there is no terminal it is a line every SECONDS_BETWEEN_LINES, and nothing for what is done sooner.
    """
    from tqdm import tqdm

    options = {}
    if not sys.stderr.isatty():
        seconds = SECONDS_BETWEEN_LINES
        options = {"file": _Lines(), "bar_format": LINE, "position": 0, "miniters": 1}
        options |= {"delay": seconds, "mininterval": seconds}
    return tqdm(items, what, total, leave=False, disable=world.rank() != 0, **options)


class _Lines:
    """A file for tqdm: what it writes over its last state is said as a line."""

    def write(self, text: str) -> None:
        if state := text.strip("\r\n "):  # else it removes the last state
            say(f"  {state}")

    def flush(self) -> None:
        pass


def _without_bars():
    """A context in which no bars are on the terminal: a line would begin behind them."""
    shown = sys.modules.get("tqdm") if sys.stderr.isatty() else None
    return shown.tqdm.external_write_mode() if shown else contextlib.nullcontext()


def first_line(error: BaseException) -> str:
    """Of an exception's text: those of libraries may have many."""
    return str(error).strip().split("\n")[0]


def listed(items, most: int = 5) -> str:
    """ "a, b, c and 4 more": the first few of `items`, in their order."""
    items = [str(item) for item in items]
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def run(main) -> None:
    """Call `main(argv)`, and end the process as the module's docstring says.

    The reason of a failure is also written to $SM_OUTPUT_DIR/failure, of which SageMaker shows the first 1,024
    characters to the person who started the job.
    """
    signals.install()
    with _lasting_streams():
        _run(main)


def _run(main) -> None:
    try:
        main(sys.argv[1:])
    except InputError as error:
        _refuse(str(error))
    except signals.Terminated:
        print("terminated", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a folder that cannot be read, a full disk
            _refuse(f"{error.filename}: {error.strerror}")
        _write_failure_reason(f"{str(error) or type(error).__name__}\n\n{traceback.format_exc()}")
        raise
    if world.size() > 1:
        # Threads of torch.distributed may hold Python objects while Python ends, which aborts the process.
        sys.stdout.flush()
        os._exit(0)


def _refuse(text: str) -> None:
    where = f"process {world.rank()}: " if world.rank() else ""
    print(f"error: {where}{text}", file=sys.stderr, flush=True)
    _write_failure_reason(text)
    sys.exit(2)


def _write_failure_reason(text: str) -> None:
    path = pathlib.Path(os.environ.get("SM_OUTPUT_DIR") or "/nowhere") / "failure"
    # The first process to fail knows why; the others only find that it is gone.
    first = world.size() == 1 or not path.exists()
    if path.parent.is_dir() and first:
        with contextlib.suppress(OSError):  # a reason that cannot be written must not replace the reason
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
