"""One script that runs another one, as a person would in a shell."""

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from toolkit import ROOT


def run(script: str, words: Sequence[str], variables: Mapping[str, str], log: pathlib.Path | None = None) -> int:
    """Run a script of this repository with these command-line words and environment variables; its exit status.

    What it prints goes to the log, or where this process prints.
    """
    with log.open("w") if log else contextlib.nullcontext() as file:
        # In a session of its own: the terminal sends Ctrl-C to every process of ours. The script would get it, and then
        # the SIGTERM of below: a second signal, at which it stops without saving.
        process = subprocess.Popen(
            [sys.executable, ROOT / script, *words],
            env=variables, stdout=file, stderr=subprocess.STDOUT if log else None, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()  # it saves what it has
            raise
