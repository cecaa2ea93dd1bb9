"""Real files and real processes: a small drawn data set in the true layout, and a run that train.py made on it."""

import contextlib
import importlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest.mock
from dataclasses import dataclass

import pytest
import zygote
from PIL import Image

FIRST = "PYTEST_XDIST_WORKER" not in os.environ and sys.platform == "linux"
if FIRST:  # one server, whatever the number of test processes; it imports while this process does
    FOLDER = tempfile.TemporaryDirectory()
    SERVER = zygote.start(pathlib.Path(FOLDER.name))

import numpy as np
import torch
from browser import browser  # noqa: F401 (a fixture)
from faults import ROOT, environment
from reviewing import images, suspects, thousands  # noqa: F401 (fixtures)

import dataset
import loss
from toolkit.config import defaults
from toolkit.config.settings import TrainSettings
from toolkit.data import decode, photo_file, store
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader
from toolkit.data.split import held_out_people, split_by_person
from toolkit.data.store import Store
from toolkit.demo import synthetic
from toolkit.system import device
from toolkit.system.console import InputError
from toolkit.training.task import Task

# Two threads that wait for each other are far slower than one where something else runs beside the tests. The variable
# is for processes that a script starts.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# These files take longest, and come first: at the end no worker is left alone with one.
LONGEST = (
    "distributed", "leaderboard", "suspects", "review_server", "suspects_page", "pages", "sagemaker", "scripts",
    "model",
)  # fmt: skip
QUICK = {"PRETRAINED": "false", "SIZE": "32x32", "epochs": "1", "DEVICE": "cpu"}
FOLDS = {
    "NAME": "shufflenet_v2_x0_5", "FOLDS": "2", "HEAD": "factored", "MIX": "cutmix", "BORDER_AGES": "soften",
    "EMA": "true", "SAMPLER": "balanced", "CROP": "0.1,0.05,0.95,0.9", "FIT": "cover", **QUICK,
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if FIRST:
        config.add_cleanup(FOLDER.cleanup)
        config.add_cleanup(SERVER.kill)
        processes = getattr(config.option, "tx", None) or []
        config.option.tx = [f"{process}//python={zygote.python()}" for process in processes]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


def run_script(
    name: str, *argv: str, cwd: pathlib.Path | None = None, python: str | None = None, **variables
) -> subprocess.CompletedProcess:
    """Run one of the scripts as a process, with these variables and none of the surrounding settings.

    `python` is the interpreter; None is a fork of one that has torch imported.
    """
    return subprocess.run(
        [python or zygote.python(), ROOT / name, *argv],
        cwd=cwd or ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def decode_file(path: str | bytes | os.PathLike, framing: Framing) -> np.ndarray:
    """The pixels of one photograph."""
    return decode.decode_bytes(photo_file.read(path), framing)


def repaint(path: str | os.PathLike) -> None:
    """Another picture in a file of the same size and the same time of change."""
    before, length = os.stat(path), os.path.getsize(path)
    Image.new("RGB", (36, 48), (200, 55, 7)).save(path)
    content = pathlib.Path(path).read_bytes()
    assert len(content) <= length + 8
    pathlib.Path(path).write_bytes(content.ljust(length, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flags(**settings) -> list[str]:
    """The settings as words of a command line."""
    return [str(word) for key, value in settings.items() for word in (f"--{key.lower()}", value)]


def run_here(name: str, **settings) -> subprocess.CompletedProcess:
    """The same with these flags in this process, which has torch already: for what is no matter of processes."""
    words = flags(**settings)
    printed, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
        unittest.mock.patch("sys.executable", zygote.python()),  # of scripts that it starts
    ):
        try:
            importlib.import_module(name.removesuffix(".py")).main(words)
        except InputError as error:
            status = 2
            print(error, file=sys.stderr)
    return subprocess.CompletedProcess([name, *words], status, printed.getvalue(), errors.getvalue())


def from_scratch(**given) -> TrainSettings:
    """The settings of a run from random weights, without unset values."""
    given = {"weights": "none", **given}
    return defaults.resolve(TrainSettings(**given), dict.fromkeys(TrainSettings.model_fields, "default"))[0]


def succeeded(done: subprocess.CompletedProcess, *expected: str) -> subprocess.CompletedProcess:
    """The same process, once it is asserted that it ended without an error and printed these words."""
    assert done.returncode == 0, done.stdout + done.stderr
    for words in expected:
        assert words in done.stdout, done.stdout
    return done


def refused(done: subprocess.CompletedProcess, *expected: str) -> None:
    """Assert that a script ended as it should on bad input: exit 2, these words, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for words in expected:
        assert words in done.stderr, done.stderr


@pytest.fixture
def nothing_set(monkeypatch) -> None:
    """No variable is set, so that no setting comes from outside."""
    for variable in list(os.environ):
        monkeypatch.delenv(variable)


@pytest.fixture
def opened_at_once(monkeypatch) -> list[int]:
    """On a machine of 64 CPUs: at each opening of a photograph, how many are open."""
    opened, lock, counts, now = photo_file.opened, threading.Lock(), [], set()

    @contextlib.contextmanager
    def counted(*given):
        with lock:
            now.add(threading.get_ident())
            counts.append(len(now))
        try:
            with opened(*given) as photo:
                yield photo
        finally:
            with lock:
                now.discard(threading.get_ident())

    monkeypatch.setattr(store, "cpu_count", lambda: 64)
    monkeypatch.setattr(photo_file, "opened", counted)
    return counts


@dataclass(frozen=True)
class Drawn:
    """Where the drawn faces lie, as the three scripts' variables name them."""

    train: pathlib.Path
    eval: pathlib.Path


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    synthetic.ensure(folder, people=24, eval_people=6)
    return Drawn(folder / "train" / "images", folder / "eval")


@pytest.fixture(scope="session")
def photographs(drawn) -> dict[str, bytes]:
    """The content of each photograph to predict, by ImageID."""
    return {path.name: path.read_bytes() for path in sorted((drawn.eval / "images").iterdir())}


@pytest.fixture(scope="session")
def trained(drawn, tmp_path_factory) -> pathlib.Path:
    """A folder of runs with one run in it, resnet18."""
    folder = tmp_path_factory.mktemp("runs")
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=folder, NAME="resnet18", **QUICK)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def folds(drawn, tmp_path_factory):
    """A run of two folds with a factored head, all that is soft, and the average."""
    runs = tmp_path_factory.mktemp("folds")
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=runs, **FOLDS)
    assert done.returncode == 0, done.stderr
    assert "no report is written" not in done.stdout
    return runs


class Async(device.Machine):
    """A CPU on which numbers are not read at every step, as on a GPU."""

    is_async = True


@pytest.fixture(scope="module")
def task(drawn) -> Task:
    """All synthetic people, decoded to 32 x 32, half of them for validation."""
    table, _ = dataset.read_faces(drawn.train)
    sides = split_by_person(table, held_out_people(table, 0.5, 0, 0, seed=0))
    return task_of(table, drawn.train, (32, 32), sides.train, sides.validation)


def task_of(table, folder: pathlib.Path, size: tuple[int, int], train: np.ndarray, validation=(), **given) -> Task:
    """A task of these rows of the table, on one CPU in float32, with cross entropy unless another loss is given."""
    store = Store(dataset.paths(table, folder), Framing(size))
    assert store.fill() == {}
    loader = Loader(store, device.choose("cpu", "fp32"), (0.5,) * 3, (0.25,) * 3)
    labels = torch.from_numpy(dataset.labels(table))
    own = {"labels": labels, "targets": labels, "criterion": loss.cross_entropy}
    sides = {"train": np.asarray(train), "validation": np.asarray(validation, np.int64)}
    return Task(loader=loader, names=dataset.paths(table), people=table["person"], **sides, **own | given)
