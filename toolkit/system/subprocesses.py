"""One script runs another, as in a shell, but gets its result, and the other script ends when this one ends."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from toolkit import ROOT
from toolkit.system import signals

OUTCOME = "STARTED_BY_SCRIPT"  # environment variable for such a script: the path of the file for its outcome


class Ended(NamedTuple):
    status: int  # the exit status
    outcome: object  # what its main returned, as JSON has it; None where it ended early


def run(script: str, words: Sequence[str], variables: Mapping[str, str], log: pathlib.Path | None = None) -> Ended:
    """Run a script of this repository with these command-line words and environment variables until it ends.

    Its output goes to the log, or to the output of this process. If this process is killed, the script ends as by
    SIGTERM.
    """
    with tempfile.TemporaryDirectory() as scratch, log.open("w") if log else contextlib.nullcontext() as file:
        outcome = pathlib.Path(scratch) / "outcome.json"
        process = None
        try:
            with signals.defer_signals():  # a signal before `process` is set would leave the script running
                # A session of its own: the terminal sends Ctrl-C to every process of a session. The script would get
                # that, and then the SIGTERM from below; at a second signal it stops without saving.
                process = subprocess.Popen(
                    [sys.executable, ROOT / script, *words], env={**variables, OUTCOME: str(outcome)},
                    stdin=subprocess.PIPE,  # only to end with this process: see `end_with_starter`
                    stdout=file, stderr=subprocess.STDOUT if log else None, start_new_session=True,
                )  # fmt: skip
            status = process.wait()
        except KeyboardInterrupt:
            if process:
                process.terminate()
                process.wait()  # it saves what it has
            raise
        finally:
            if process:
                process.stdin.close()
        return Ended(status, json.loads(outcome.read_text()) if outcome.exists() else None)


def end_with_starter() -> pathlib.Path | None:
    """If `run` started this process, SIGTERM ends it once its starter is gone. Returns the file for its outcome.

    Otherwise it would train on, beside the run of the same command that is started again. Returns None if a user
    started it.
    """
    path = os.environ.pop(OUTCOME, None)
    if path is None:
        return None

    def wait_for_end() -> None:
        with contextlib.suppress(OSError):
            os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, daemon=True).start()
    return pathlib.Path(path)


def write_outcome(path: pathlib.Path, outcome) -> None:
    """Write what main returned, for `run`. Named tuples become dictionaries, paths texts."""
    plain = outcome._asdict() if hasattr(outcome, "_asdict") else outcome
    path.write_text(json.dumps(plain, default=str))
