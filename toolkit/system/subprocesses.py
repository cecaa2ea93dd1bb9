"""One script that runs another, as a person would: with flags, and none of the surrounding settings."""

import contextlib
import os
import pathlib
import subprocess
import sys

from toolkit import ROOT
from toolkit.config import sources


def run(script: str, given: dict, log: pathlib.Path | None = None) -> int:
    """Run a script of this folder with these settings; its exit status. What it says goes to the log, or to ours.

    It runs in a session of its own: Ctrl-C reaches it once, by us, and it saves what it has before we end.
    """
    words = [word for key, value in given.items() for word in (f"--{key}", sources.as_text(value))]
    # All that counts is given as flags; TTA, say, would be taken from the environment without a word.
    variables = {key: value for key, value in os.environ.items() if not sources.is_setting(key)}
    with log.open("w") if log else contextlib.nullcontext() as file:
        process = subprocess.Popen(
            [sys.executable, ROOT / script, *words],
            env=variables, stdout=file, stderr=subprocess.STDOUT if log else None, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
