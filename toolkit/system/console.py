"""What a script prints, and how it ends: exit 0, 2 with one clear line, 128 + its number after a signal.

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

from toolkit.system import signals, subprocesses, world

SECONDS_BETWEEN_LINES = 10  # between lines of progress without a terminal: a log keeps every line
LONGEST_LINE = 100_000  # characters
INDENTED = "\n       "  # before a further line of an error
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left"


class InputError(Exception):
    """Bad input. The arguments are the lines that the user reads, one for each problem.

    A line says what was expected, what was found, where, and what to do.
    """

    def __str__(self) -> str:
        return INDENTED.join(map(str, self.args))


class _LastingFile(io.FileIO):
    """stdout or stderr of this process. Output that cannot be written is lost: no training must fail by its log.

    The reader or terminal may be gone, or the disk full. The first loss is reported on the other stream.
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
    """Within the block, writing to sys.stdout and sys.stderr never fails. Characters not in their encoding get escapes.

    A stream that the shell has closed is opened on /dev/null: otherwise the next file that is opened would get its
    number.
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


def say(*lines: str) -> None:
    """Print lines on rank 0, in one write and flushed: SageMaker cuts lines that are written in pieces."""
    if world.rank() == 0:
        with _without_bars():
            _write(sys.stdout, *lines)


def warn(*lines: str) -> None:
    """Print lines on stderr, on every rank."""
    with _without_bars():
        _write(sys.stderr, *lines)


def printable(text: str) -> str:
    """The text as one line: line breaks and control characters are replaced by Python's escapes.

    Names of files come from outside: a line break in one could forge a line of ours, from which SageMaker reads scores.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}... ({len(text):,} characters)"


def _write(stream, *lines: str) -> None:
    if stream is None:  # closed before Python started, and no script, which would have `_lasting_streams`
        return
    text = "".join(f"{printable(line)}\n" for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def bar(items=None, what: str = "", total: int | None = None):
    """tqdm's progress bar over `items`, on rank 0, removed at the end.

    Without a terminal it prints a line every SECONDS_BETWEEN_LINES, and nothing if the work takes less than that.
    """
    from tqdm import tqdm

    options = {}
    if not _is_terminal():
        seconds = SECONDS_BETWEEN_LINES
        options = {"file": _Lines(), "bar_format": LINE, "position": 0, "miniters": 1}
        options |= {"delay": seconds, "mininterval": seconds}
    return tqdm(items, what, total, leave=False, disable=world.rank() != 0, **options)


class _Lines:
    """A file for tqdm that prints each state as a line of its own."""

    def write(self, text: str) -> None:
        if state := text.strip("\r\n "):  # empty when tqdm only erases its last state
            say(f"  {state}")

    def flush(self) -> None:
        pass


def _without_bars():
    """A context in which the bars are off the terminal: a line would otherwise begin behind a bar."""
    shown = sys.modules.get("tqdm") if _is_terminal() else None
    return shown.tqdm.external_write_mode() if shown else contextlib.nullcontext()


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None: it was closed before Python started


def first_line(error: BaseException) -> str:
    """The first line of an exception's text: those of libraries may have many."""
    return str(error).strip().split("\n")[0]


def listed(items, most: int = 5) -> str:
    """ "a, b, c and 4 more": the first few of `items`, in their order, as one line."""
    items = [printable(str(item)) for item in items]
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def run(main) -> None:
    """Call `main(argv)`, and exit with the status that the module's docstring says.

    The reason of a failure is also written to $SM_OUTPUT_DIR/failure, of which SageMaker shows the first 1,024
    characters to the person who started the job.
    """
    with _lasting_streams():
        try:
            signals.install()
            _run(main)
            signals.uninstall()
        except KeyboardInterrupt as stopped:
            _stop(getattr(stopped, "number", signal.SIGINT))
        if world.size() > 1:
            _end(0)


def _run(main) -> None:
    try:
        outcome_file = subprocesses.end_with_starter()
        outcome = main(sys.argv[1:])
        if outcome_file and world.rank() == 0:
            subprocesses.write_outcome(outcome_file, outcome)
    except Exception as error:
        if number := signals.uninstall():  # a library took the signal for an error of its own
            _stop(number)
        if isinstance(error, InputError):
            _refuse(*error.args)
        if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):  # tempfile's, for torch
            _refuse(f"TMPDIR: expected a folder that can be written to, found none: {error.strerror}; set it to one")
        if isinstance(error, OSError) and error.filename is not None:  # a folder that cannot be read, a full disk
            _refuse(f"{error.filename}: {error.strerror}")
        _write_failure_reason(f"{str(error) or type(error).__name__}\n\n{traceback.format_exc()}")
        raise


def _stop(number: int) -> None:
    signals.uninstall()
    warn("interrupted" if number == signal.SIGINT else "terminated")
    _end(128 + number)


def _end(status: int) -> None:
    """End the process without Python's clean-up, which threads of torch.distributed, or of libraries that were being
    imported, may abort.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _refuse(*lines: str) -> None:
    where = f"process {world.rank()}: " if world.rank() else ""
    first, *others = map(printable, map(str, lines))
    others = [INDENTED[1:] + line for line in others]
    warn(f"error: {where}{first}", *others)
    _write_failure_reason("\n".join([first, *others]))
    sys.exit(2)


def _write_failure_reason(text: str) -> None:
    path = pathlib.Path(os.environ.get("SM_OUTPUT_DIR") or "/nowhere") / "failure"
    # The first process to fail knows why; the others only find that it is gone.
    first = world.size() == 1 or not path.exists()
    if path.parent.is_dir() and first:
        with contextlib.suppress(OSError):  # a reason that cannot be written must not replace the reason
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
