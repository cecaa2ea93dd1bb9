"""What a script says, and how it ends: done, told to stop, or with one clear line (expected, found, where, what to do).

Of several processes of one job (torchrun's, who numbers them in RANK) only the first says anything but errors.
"""

import contextlib
import os
import pathlib
import signal
import sys
import traceback

OTHERS_WAIT = 15  # seconds


class InputError(Exception):
    """Bad input. The text is what the person reads: one line, or one line for each thing that is wrong."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the machine is needed for something else."""


def place() -> tuple[int, int]:
    """The number of this process among those of its job, from 0, and how many there are: (0, 1) alone.

    Only torchrun's RANK and WORLD_SIZE, both of them, mean that there are others.
    """
    number, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return (int(number), int(count)) if number.isdigit() and count.isdigit() else (0, 1)


def rank() -> int:
    return place()[0]


def say(text: str) -> None:
    """Print lines in one piece and at once: of a line that is written in pieces, SageMaker's logs cut some."""
    if rank() == 0:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def bar(items=None, what: str = "", total: int | None = None):
    """tqdm's bar over `items`, on a terminal only; gone when it is done."""
    from tqdm import tqdm

    return tqdm(items, what, total, leave=False, disable=None if rank() == 0 else True)


def run(main) -> None:
    """Call `main(argv)`; bad input ends the process with its message and exit status 2, without a traceback.

    Ctrl-C ends it with 130 and SIGTERM with 143, either as KeyboardInterrupt; `held` puts that off. Whatever ends the
    run is also left where SageMaker shows it to the person who started the job ($SM_OUTPUT_DIR/failure, of which the
    first 1,024 characters are shown).
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background
            signal.signal(number, _stop)
    try:
        main(sys.argv[1:])
    except InputError as error:
        _refuse(str(error))
    except Terminated:
        print("terminated", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a folder that cannot be read, a full disk
            _refuse(f"{error.filename}: {error.strerror}")
        _leave_failure_reason(f"{str(error) or type(error).__name__}\n\n{traceback.format_exc()}")
        raise
    if place()[1] > 1:  # threads of torch.distributed may hold Python's objects when Python ends, which aborts it
        sys.stdout.flush()
        os._exit(0)


_holding, _came = False, None  # whether a signal waits; and the one that does


def _stop(number, _frame) -> None:
    global _came
    if rank() and _came is None:  # the first process needs this one to end its step, and ends the job when it has saved
        _came = number
        signal.alarm(OTHERS_WAIT)
    elif not _holding:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
    elif _came is None:
        _came = number  # said past Python's own buffers, in which the signal may have come upon a line
        os.write(2, b"stopping when this step is done; once more stops at once, with the last saved state\n")
    else:  # nobody may take it for an order to save: what is held is half done
        _came = None
        sys.exit(128 + number)


@contextlib.contextmanager
def held():
    """Ctrl-C and SIGTERM wait until the block ends: what is done in it is done as a whole. A second one does not wait.

    One that came is raised in place of an error: with several processes, the others have ended in the meantime.
    """
    global _holding, _came
    _holding = True
    try:
        yield
    finally:
        _holding = False
        if _came is not None and rank() == 0:
            number, _came = _came, None
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _refuse(text: str) -> None:
    where = f"process {rank()}: " if rank() else ""
    print(f"error: {where}{text}", file=sys.stderr, flush=True)
    _leave_failure_reason(text)
    sys.exit(2)


def _leave_failure_reason(text: str) -> None:
    path = pathlib.Path(os.environ.get("SM_OUTPUT_DIR") or "/nowhere") / "failure"
    first = place()[1] == 1 or not path.exists()  # to fail, and so to know why: the others find that it is gone
    if path.parent.is_dir() and first:
        with contextlib.suppress(OSError):  # the reason must not be replaced by a failure to note it
            path.write_text(text, encoding="utf-8", errors="backslashreplace")


def listed(items, most: int = 5) -> str:
    """ "a, b, c and 4 more": the first few of `items`, in their order."""
    items = [str(item) for item in items]
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")
