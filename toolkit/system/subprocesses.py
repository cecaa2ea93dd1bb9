"""One script that runs another one, as a person would in a shell, but that has its outcome and ends with it."""

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

OUTCOME = "STARTED_BY_SCRIPT"  # the variable that tells a script so: the path of a file for its outcome


class Ended(NamedTuple):
    status: int  # the exit status
    outcome: object  # what its main returned, as JSON has it; None where it ended early


def run(script: str, words: Sequence[str], variables: Mapping[str, str], log: pathlib.Path | None = None) -> Ended:
    """Run a script of this repository with these command-line words and environment variables until it ends.

    What it prints goes to the log, or where this process prints. Where this process is killed, it ends as by SIGTERM.
    """
    with tempfile.TemporaryDirectory() as scratch, log.open("w") if log else contextlib.nullcontext() as file:
        outcome = pathlib.Path(scratch) / "outcome.json"
        process = None
        try:
            with signals.defer_signals():  # until it is known here: else it would be left, and nobody would end it
                # In a session of its own: the terminal sends Ctrl-C to every process of ours. The script would get it,
                # and then the SIGTERM of below: a second signal, at which it stops without saving.
                process = subprocess.Popen(
                    [sys.executable, ROOT / script, *words], env={**variables, OUTCOME: str(outcome)},
                    stdin=subprocess.PIPE,  # which nobody writes to: it ends with this process, see `end_with_starter`
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
    """Where `run` started this process: end it by SIGTERM once its starter is gone. The file for its outcome, or None.

    An orphan would train on beside the same command that is started again.
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
    """For `run`: what main returned. Named tuples are dictionaries there, paths texts."""
    plain = outcome._asdict() if hasattr(outcome, "_asdict") else outcome
    path.write_text(json.dumps(plain, default=str))
