"""What a script says, and how it ends: done, or with one clear line (expected, found, where, what to do)."""

import contextlib
import os
import pathlib
import sys
import traceback


class InputError(Exception):
    """Bad input. The text is what the person reads: one line, or one line for each thing that is wrong."""


def say(text: str) -> None:
    """Print lines in one piece and at once: of a line that is written in pieces, SageMaker's logs cut some."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(main) -> None:
    """Call `main(argv)`; bad input ends the process with its message and exit status 2, without a traceback.

    Whatever ends the run is also left where SageMaker shows it to the person who started the job
    ($SM_OUTPUT_DIR/failure, of which the first 1,024 characters are shown).
    """
    try:
        main(sys.argv[1:])
    except InputError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a folder that cannot be read, a full disk
            _refuse(f"{error.filename}: {error.strerror}")
        _leave_failure_reason(f"{error}\n\n{traceback.format_exc()}")
        raise


def _refuse(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)
    _leave_failure_reason(text)
    sys.exit(2)


def _leave_failure_reason(text: str) -> None:
    folder = pathlib.Path(os.environ.get("SM_OUTPUT_DIR") or "/nowhere")
    if folder.is_dir():
        with contextlib.suppress(OSError):  # the reason must not be replaced by a failure to note it
            (folder / "failure").write_text(text, encoding="utf-8", errors="backslashreplace")


def listed(items, most: int = 5) -> str:
    """ "a, b, c and 4 more": the first few of `items`, in their order."""
    items = [str(item) for item in items]
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")
