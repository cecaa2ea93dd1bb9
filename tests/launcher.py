"""SageMaker's own packages, in an environment of their own (`make sagemaker`), on local trees of /opt/ml."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest
from faults import ROOT, environment

from toolkit.system import files

FOLDER = pathlib.Path(sys.prefix) / "sagemaker"
PYTHON = FOLDER / "bin" / "python"
# What a source_dir holds.
PAGES = ("toolkit/pages/templates/*", "toolkit/pages/static/*")
SOURCES = ("*.py", "toolkit/**/*.py", *PAGES, "outliers.csv", "requirements.txt", "tests/tiny.py")
PORT = 7777  # of the first host, which the launcher decides


def needed() -> None:
    """Skips a test where the packages are not there; with NO_SKIPS=1 that is an error."""
    if not (FOLDER / "ready").exists():
        why = "SageMaker's packages are not there: make sagemaker, which wants a C compiler"
        assert not os.environ.get("NO_SKIPS"), why
        pytest.skip(why)


class Job:
    """A training job on one of its hosts: its tree, and the process that runs in it."""

    def __init__(self, folder: pathlib.Path, program: str, hyperparameters: dict[str, str], hosts=("127.0.0.1",)):
        needed()
        self.folder = folder
        for name in ("input/config", "input/data", "model", "output/data"):
            (folder / name).mkdir(parents=True)
        self.hyperparameters = {"sagemaker_program": f'"{program}"', **hyperparameters}
        self.channels = {}
        group = {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": hosts}
        self.resources = {"hosts": hosts, "network_interface_name": "lo", "instance_groups": [group]}
        self.leave("resourceconfig", {"current_host": hosts[0], **self.resources})

    def leave(self, name: str, content: dict) -> None:
        (self.folder / "input" / "config" / f"{name}.json").write_text(json.dumps(content))

    def channel(self, name: str, content: pathlib.Path) -> None:
        (self.folder / "input" / "data" / name).symlink_to(content)
        self.channels[name] = {"TrainingInputMode": "File"}

    def sources(self, *patterns: str) -> None:
        """Pack the code, as the SDK does; in place of its address in S3 the job is told the archive's path."""
        archive = self.folder / "sourcedir.tar.gz"
        with tarfile.open(archive, "w:gz") as packed:
            for path in (path for pattern in patterns or SOURCES for path in ROOT.glob(pattern)):
                packed.add(path, path.relative_to(ROOT))
        self.hyperparameters["sagemaker_submit_directory"] = f'"{archive}"'

    def start(self, framework: bool = True, **variables) -> subprocess.Popen:
        """The entry point of the image, with the environment map of the job and nothing from the network."""
        self.leave("hyperparameters", self.hyperparameters)
        self.leave("inputdataconfig", self.channels)
        if framework:
            variables["SAGEMAKER_TRAINING_MODULE"] = "sagemaker_pytorch_container.training:main"
        path = f"{PYTHON.parent}:{sys.prefix}/bin:{os.environ['PATH']}"
        pip = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.Popen(
            [PYTHON.parent / "train"], cwd=self.folder, text=True, start_new_session=True,
            env=environment(**pip, **variables, SAGEMAKER_BASE_DIR=self.folder) | {"PATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def failure(self) -> str:
        return (self.folder / "output" / "failure").read_text()


@contextlib.contextmanager
def turn_at_the_port():
    """Jobs of several hosts take turns, as all of them want the same port."""
    turns = pathlib.Path(tempfile.gettempdir()) / f"port-{PORT}"
    turns.mkdir(exist_ok=True)
    with files.locked(turns):
        for _ in range(600):
            with contextlib.suppress(OSError), socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("", PORT))
                break
            time.sleep(0.1)
        yield
