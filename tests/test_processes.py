"""Several processes, started by torchrun as people start it, against a single one."""

import pathlib
import subprocess

import pandas as pd
import pytest
from conftest import run_script
from faults import TORCHRUN, finish, free_port, start

from toolkit import processes

# A loss that no share of a batch has alone, and class weights: nothing is a mere mean of what the processes have.
TINY = {
    "NAME": "tiny", "PRETRAINED": "false", "SIZE": "32x32", "EPOCHS": "2", "BATCH_SIZE": "32", "DEVICE": "cpu",
    "PRECISION": "fp32", "LOSS": "f1", "CLASS_WEIGHTS": "balanced", "CHECKPOINT_SECONDS": "0",
}  # fmt: skip


def begin(drawn, folder: pathlib.Path, *launcher, **variables) -> subprocess.Popen:
    variables = {
        "SM_CHANNEL_TRAIN": drawn.train,
        "SM_MODEL_DIR": folder / "runs",
        "LOSSES": folder / "losses",
        **variables,
    }
    return start("tests/tiny.py", launcher=launcher, **{**TINY, **variables})


def train(drawn, folder: pathlib.Path, *launcher, **variables) -> str:
    process = begin(drawn, folder, *launcher, **variables)
    said = finish(process)
    assert process.returncode == 0, said
    return said


def losses(folder: pathlib.Path) -> list[float]:
    return [float(line) for line in (folder / "losses").read_text().split()]


@pytest.fixture(scope="module")
def alone(drawn, tmp_path_factory) -> pathlib.Path:
    """The folder of a single process's run."""
    folder = tmp_path_factory.mktemp("alone")
    train(drawn, folder)
    assert len(losses(folder)) == 10
    return folder


def same_run(folder: pathlib.Path, alone: pathlib.Path) -> None:
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-6)
    for name in ("history.csv", "validation.csv"):
        found, expected = (pd.read_csv(where / "runs" / "tiny" / name) for where in (folder, alone))
        pd.testing.assert_frame_equal(found, expected, atol=2e-6)
    assert len(pd.read_csv(folder / "runs" / "leaderboard.csv")) == 1


def test_a_batch_in_pieces_is_the_same_batch(drawn, alone, tmp_path):
    train(drawn, tmp_path, MICRO_BATCH_SIZE=7)
    same_run(tmp_path, alone)


def test_two_processes_make_the_run_of_one_and_one_of_them_writes(drawn, alone, tmp_path):
    said = train(drawn, tmp_path, *TORCHRUN, "--nproc-per-node=2", MICRO_BATCH_SIZE=9)
    same_run(tmp_path, alone)
    assert said.count("epoch   1/2") == 1 and "Warning" not in said


def test_two_machines_make_the_run_of_one(drawn, alone, tmp_path):
    port = free_port()
    agents = [
        begin(
            drawn, tmp_path, *TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}",
            "--master-addr=127.0.0.1", f"--master-port={port}",
        )
        for node in range(2)
    ]  # fmt: skip
    said = [finish(agent) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    same_run(tmp_path, alone)


def test_a_process_that_dies_ends_the_job_clearly_and_torchruns_restart_goes_on(drawn, alone, tmp_path):
    dying = {"DYING_RANK": "1", "DYING_STEP": "8"}
    said = train(drawn, tmp_path, *TORCHRUN, "--nproc-per-node=2", "--max-restarts=1", **dying)
    assert "another process of this job has ended, or cannot be reached" in said
    assert "run tiny goes on from epoch 2, after 2 of its steps" in said
    steps = losses(tmp_path)
    assert steps[:7] + steps[-3:] == pytest.approx(losses(alone), abs=1e-6)
    pd.testing.assert_frame_equal(
        *(pd.read_csv(where / "runs" / "tiny" / "history.csv") for where in (tmp_path, alone)), atol=2e-6
    )
    assert [file.name for file in (tmp_path / "runs").iterdir() if file.name.startswith("tiny")] == ["tiny"]


def test_inference_is_shared_out_and_joined(drawn, trained, tmp_path):
    answers = []
    for launcher in ((), (*TORCHRUN, "--nproc-per-node=2")):
        out = tmp_path / str(len(launcher))
        process = start(
            "inference.py", launcher=launcher, SM_CHANNEL_EVAL=drawn.eval, SM_CHANNEL_MODEL=trained,
            SM_OUTPUT_DATA_DIR=out, DEVICE="cpu", PRECISION="fp32", PROBABILITIES="true",
        )  # fmt: skip
        said = finish(process)
        assert process.returncode == 0, said
        answers.append([pd.read_csv(out / name) for name in ("output.csv", "probabilities.csv")])
    pd.testing.assert_frame_equal(answers[0][0], answers[1][0])
    pd.testing.assert_frame_equal(answers[0][1], answers[1][1], atol=2e-6)


def test_only_rank_and_world_size_together_mean_several(monkeypatch):
    for name, value in {"MASTER_ADDR": "algo-1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert processes.count() == 1 and processes.local_rank() == 0 and processes.own([1, 2]) == [1, 2]
    monkeypatch.setenv("RANK", "3")
    assert processes.count() == 4 and processes.local_rank() == 1 and processes.own(list(range(9))) == [3, 7]


def test_machines_that_nothing_joins_leave_the_work_to_the_first(drawn, tmp_path):
    hosts = {"SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-2"}
    done = run_script("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=tmp_path, NAME="resnet18", **hosts)
    assert done.returncode == 0 and "nothing to do on algo-2: algo-1 does all" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_batch_too_small_for_its_processes_is_refused(drawn, tmp_path):
    process = begin(drawn, tmp_path, *TORCHRUN, "--nproc-per-node=2", BATCH_SIZE=3)
    said = finish(process)
    assert process.returncode == 1 and "BATCH_SIZE=3: expected 2 photographs a step for each of 2 processes" in said
