"""Runs that are killed, stopped, starved and given damaged files: a few of the faults that `make torture` tries."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tiny
import torch
import zygote
from conftest import QUICK, ROOT, run_here, succeeded
from faults import SMALL, Forked, damaged_files, differing, malicious_files, mutated_photographs, results
from safetensors.torch import save_file

import model
import train
from toolkit.data import store
from toolkit.data.framing import Framing
from toolkit.pages import report
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoint, Checkpoints
from toolkit.runs.weights import load_weights
from toolkit.system.console import InputError


@pytest.fixture(scope="session")
def whole(drawn, tmp_path_factory) -> pathlib.Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    succeeded(run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=folder, **SMALL))
    return folder / SMALL["NAME"]


@pytest.fixture(scope="session")
def expected(whole) -> dict[str, bytes]:
    return results(whole)


def test_a_run_that_is_killed_terminated_and_interrupted_ends_as_if_nothing_had_happened(drawn, expected, tmp_path):
    """Its checkpoints survive and its folder does not, as on SageMaker when a machine is taken away."""
    states, said = tmp_path / "checkpoints", []
    states.mkdir()
    given = SMALL | {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "SM_CHECKPOINT_DIR": states}
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = Forked(train.main, tmp_path / str(number), **given)
        before = newest(states / SMALL["NAME"])
        while newest(states / SMALL["NAME"]) == before:
            assert process.wait(0.01) is None, process.log.read_text()
        (states / SMALL["NAME"] / f"{CHECKPOINTS[0]}.sagemaker-uploading").touch()
        began = time.monotonic()
        os.kill(process.pid, number)
        assert process.wait(60) == code, process.log.read_text()
        said.append(process.log.read_text())
        assert time.monotonic() - began < 5
        shutil.rmtree(tmp_path / "runs")
    done = succeeded(run_here("train.py", **given))
    said.append(done.stdout)
    assert "goes on from" not in said[0] and all("goes on from epoch" in text for text in said[1:])
    assert "terminated" in said[1] and "interrupted" in said[2] and "Traceback" not in "".join(said)
    assert all("saved at epoch" in text for text in said[1:3])
    assert differing(tmp_path / "runs" / SMALL["NAME"], expected) == ""
    kept = ["finished.json", CHECKPOINTS[0], f"{CHECKPOINTS[0]}.sagemaker-uploading", CHECKPOINTS[1]]
    assert sorted(path.name for path in states.glob("*/*")) == kept


def test_a_run_that_is_stopped_after_an_epoch_has_its_report_and_a_second_signal_ends_that_too(drawn, tmp_path):
    given = QUICK | {"NAME": "tiny", "BATCH_SIZE": "64", "EPOCHS": "3", "LOSSES": tmp_path / "losses"}
    given |= {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "DYING_RANK": 0, "DYING_STEP": 3}
    del given["epochs"]
    page = tmp_path / "runs" / "tiny" / "report.html"

    def interrupted_again(argv: list[str]) -> None:
        report.write = lambda *given: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
        tiny.main(argv)

    for main, code in ((interrupted_again, 130), (tiny.main, 143)):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        process = Forked(main, tmp_path / "log", DYING_SIGNAL=int(signal.SIGTERM), **given)
        assert process.wait(30) == code, process.log.read_text()
        assert page.exists() == (main is tiny.main) and "no report is written" not in process.log.read_text()
    assert "saved at epoch 2, after " in process.log.read_text()
    assert "kept epoch 1 of 1, stopped before EPOCHS=3" in page.read_text()
    assert not page.with_name("result.json").exists()


def newest(folder: pathlib.Path) -> list[int]:
    return [(folder / name).stat().st_mtime_ns for name in CHECKPOINTS if (folder / name).exists()]


def test_a_flipped_bit_or_a_missing_end_is_refused_and_the_state_before_is_used(whole, tmp_path):
    shutil.copy(whole / "model.safetensors", tmp_path)
    outcomes = list(damaged_files(tmp_path, tmp_path / "model.safetensors", flips=120, truncations=20, seed=0))
    assert len(outcomes) == 140 and set(outcomes) == {""}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy", "tar"])
def test_a_malicious_file_executes_nothing(kind, tmp_path):
    marker = tmp_path / "executed"
    content = malicious_files(marker)[kind]
    assert not marker.exists()
    for path in (tmp_path / "model.safetensors", tmp_path / CHECKPOINTS[0]):
        path.write_bytes(content)
    with pytest.raises(InputError, match="found a damaged or foreign file"):
        load_weights(tmp_path / "model.safetensors")
    assert Checkpoints(tmp_path).load() is None and not marker.exists()
    for name in ("net.pth", "net.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: expected a "):
            model.build("resnet18", (32, 32), str(tmp_path / name))
    assert not marker.exists()


FULL = """
import pathlib, resource, sys, torch
from toolkit.runs.checkpoint import Checkpoint, Checkpoints
from toolkit.system.console import InputError
states = Checkpoints(pathlib.Path(sys.argv[1]))
for epoch in range(5):
    if epoch == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        states.save(Checkpoint({}, "now", epoch=epoch, tensors={"model.a": torch.full((100_000,), float(epoch))}))
    except InputError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_state_before_and_says_what_was_needed(tmp_path):
    done = subprocess.run([zygote.python(), "-c", FULL, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    words = r"state-1.safetensors: cannot be written: .*File too large.*; expected room for 0.4 MiB, found [0-9,.]+ MiB"
    assert len(re.findall(words, done.stdout)) == 3, done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == list(CHECKPOINTS)
    assert Checkpoints(tmp_path).load().epoch == 1


def test_mutated_photographs_are_decoded_or_refused_each_alone(tmp_path):
    """In a separate process, which must not die, hang or print anything."""
    mutated_photographs(tmp_path, 150, seed=0)
    command = [zygote.python(), ROOT / "tests" / "decode_all.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 150 and 20 < sum(not answer.endswith(" ") for answer in answers) < 150


def test_a_picture_too_large_to_be_a_photograph_is_refused_before_it_is_decoded(tmp_path):
    """An empty PNG of 20,000 x 20,000 pixels is a few hundred kB on the disk, and 1.2 GB decoded."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"no pixel is ever looked at"))
    (reason,) = store.Store([str(path)], Framing((32, 32))).fill().values()
    assert "20000 x 20000" in reason or "exceeds limit" in reason


def test_a_second_signal_does_not_wait_and_saves_nothing():
    code = (
        "import os, pathlib, signal, sys; from toolkit.system import console, signals\n"
        "def main(argv):\n"
        "    try:\n"
        "        with signals.defer_signals():\n"
        "            for number in range(2):\n"
        "                os.kill(os.getpid(), signal.SIGTERM)\n"
        "            print('went on')\n"
        "    except KeyboardInterrupt:\n"
        "        print('saved what is half done')\n"
        "console.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and done.stdout == "" and "once more stops at once" in done.stderr


def test_two_generations_of_state_are_kept_and_the_older_one_goes(tmp_path):
    states = Checkpoints(tmp_path)
    for epoch in range(4):
        states.save(Checkpoint({}, "now", epoch=epoch, tensors={"model.a": torch.full((3,), float(epoch))}))
        assert Checkpoints(tmp_path).load().epoch == epoch
    found = Checkpoints(tmp_path)
    assert sorted(state.epoch for state in found.headers.values()) == [2, 3]
    assert found.load().part("model")["a"].tolist() == [3.0] * 3
    save_file({"a": torch.zeros(1)}, tmp_path / CHECKPOINTS[0])  # of something else
    assert Checkpoints(tmp_path).load().epoch in (2, 3)


def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path):
    from toolkit.system import files

    for name in (".output.csv.abcd1234.part", "mine.part", ".hidden", "output.csv"):
        (tmp_path / name).touch()
    with files.locked(tmp_path):
        assert (tmp_path / files.LOCK).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "mine.part", "output.csv"]
