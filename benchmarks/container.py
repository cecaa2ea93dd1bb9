"""What the Dockerfile does, without docker: its steps in a fresh virtual environment, what that weighs, and an answer.

python benchmarks/container.py

RUN lines are run with the pip of the environment, which wants a package index (as for docker build,
PIP_EXTRA_INDEX_URL=<PyTorch's index of builds for CPUs> spares some GB). COPY lines fill a folder; there the ENTRYPOINT
is started with ENV's variables and the word `serve`, on an untrained net, and is sent a drawn face. The weights are
without python:slim itself.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv

import common
import photographs
from serving import make_run

PORT, MOST_SECONDS = 8080, 600


def main() -> None:
    steps = re.findall(r"^([A-Z]+) (.+)$", (common.ROOT / "Dockerfile").read_text(), re.M)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (photograph, *_), runs = photographs.make_few(folder / "faces"), make_run(folder / "runs", "resnet18", "128x96")
        venv.create(folder / "venv", with_pip=True)
        path = f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}"
        keep = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "SSL_", "TMPDIR"))
        }
        environment, program = {**keep, "PATH": path, "SERVE_PORT": str(PORT)}, folder / "program"
        program.mkdir()
        for step, words in steps:
            if step == "COPY":
                *sources, to = words.split()
                for source in (found for pattern in sources for found in common.ROOT.glob(pattern)):
                    (shutil.copytree if source.is_dir() else shutil.copy)(source, program / to)
            elif step == "RUN":
                print(words, flush=True)
                subprocess.run(words, shell=True, cwd=program, env=environment, check=True)
            elif step == "ENV":
                environment |= dict(word.split("=") for word in words.split())
        print(f"packages {mib(folder / 'venv')} MiB, this project {mib(program)} MiB")
        environment["SM_CHANNEL_MODEL"] = str(runs)
        command = [*json.loads(dict(steps)["ENTRYPOINT"]), "serve"]
        server = subprocess.Popen(command, cwd=program, env=environment)
        try:
            wait_for(f"http://127.0.0.1:{PORT}/ping")
            headers = {"Content-Type": "image/jpeg"}
            request = urllib.request.Request(f"http://127.0.0.1:{PORT}/invocations", photograph.read_bytes(), headers)
            print(urllib.request.urlopen(request).read().decode())
        finally:
            server.send_signal(signal.SIGTERM)
        print(f"it ended with status {server.wait()}")


def wait_for(address: str) -> None:
    """Wait for an answer; raises the last error after MOST_SECONDS."""
    until = time.monotonic() + MOST_SECONDS
    while True:
        try:
            urllib.request.urlopen(address)
            return
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def mib(folder: pathlib.Path) -> int:
    """The size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) >> 20


if __name__ == "__main__":
    sys.exit(main())
