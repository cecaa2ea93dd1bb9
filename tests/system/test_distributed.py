"""Several processes against a single one: started by torchrun and SageMaker, as people start them, or forked here."""

import contextlib
import os
import pathlib
import signal
import socket

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import zygote
from conftest import refused, run_here, run_script, succeeded
from faults import TORCHRUN, Forked, finish, start
from launcher import PAGES, Job, turn_at_the_port
from torch import nn

import inference
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader
from toolkit.data.store import Memory, Store
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.runs.checkpoint import Checkpoints
from toolkit.runs.weights import read_header
from toolkit.system import device, distributed, world
from toolkit.system.console import InputError

# A loss that no share of a batch has alone, and class weights: nothing is a mere mean of what the processes have. An
# optimizer that takes gradients as they are: Adam does not mind their scale.
TINY = {
    "NAME": "tiny", "PRETRAINED": "false", "SIZE": "32x32", "EPOCHS": "2", "BATCH_SIZE": "26", "DEVICE": "cpu",
    "PRECISION": "fp32", "LOSS": "f1", "CLASS_WEIGHTS": "balanced", "CHECKPOINT_SECONDS": "0",
    "OPTIMIZER": "sgd", "LR": "1", "CLIP_GRAD": "0",
}  # fmt: skip


def given(drawn, folder: pathlib.Path) -> dict:
    return TINY | {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": folder / "runs", "LOSSES": folder / "losses"}


def two(main, folder: pathlib.Path, **variables) -> list[Forked]:
    """Two processes of `main`, which know each other without torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
    return [Forked(main, folder / f"log-{rank}", RANK=rank, LOCAL_RANK=rank, **variables) for rank in range(2)]


def ended(forks: list[Forked], status: int = 0) -> str:
    """What the first one printed, once all have ended with this status."""
    codes, logs = [fork.wait(60) for fork in forks], [fork.log.read_text() for fork in forks]
    for fork in forks:
        fork.kill()
    assert codes == [status] * len(forks), logs
    return logs[0]


def losses(folder: pathlib.Path) -> list[float]:
    return [float(line) for line in (folder / "losses").read_text().split()]


@pytest.fixture(scope="module")
def alone(drawn, tmp_path_factory) -> pathlib.Path:
    """The folder of a single process's run."""
    folder = tmp_path_factory.mktemp("alone")
    ended([Forked(tiny.main, folder / "log", **given(drawn, folder))])
    assert len(losses(folder)) == 10
    return folder


def same_run(folder: pathlib.Path, alone: pathlib.Path) -> None:
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-6)
    assert (folder / "runs" / "tiny" / "report.html").exists()
    for name in ("history.csv", "validation.csv"):
        found, expected = (pd.read_csv(where / "runs" / "tiny" / name) for where in (folder, alone))
        pd.testing.assert_frame_equal(found, expected, atol=2e-6)
    assert len(pd.read_csv(folder / "runs" / "leaderboard.csv")) == 1


def test_a_batch_in_pieces_is_the_same_batch(drawn, alone, tmp_path):
    ended([Forked(tiny.main, tmp_path / "log", MICRO_BATCH_SIZE=7, **given(drawn, tmp_path))])
    same_run(tmp_path, alone)


def test_two_machines_make_the_run_of_one(drawn, alone, tmp_path):
    """As two hosts of SageMaker, whose own launcher starts torchrun on each."""
    hosts = ("127.0.0.1", "127.0.0.2")
    settings = {**TINY, "NAME": '"tiny"', "sagemaker_torch_distributed_enabled": "true"}
    jobs = [Job(tmp_path / host, "tests/tiny.py", settings, hosts) for host in hosts]
    with turn_at_the_port():
        processes = []
        for job, host in zip(jobs, hosts, strict=True):
            job.leave("resourceconfig", {"current_host": host, **job.resources})
            job.channel("train", drawn.train)
            job.sources("*.py", "toolkit/**/*.py", *PAGES, "outliers.csv", "tests/tiny.py")
            processes.append(job.start(LOSSES=tmp_path / "losses", PYTHON_EXEC=zygote.python()))
        printed = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "torchrun --nnodes 2 --nproc_per_node 1 --master_addr 127.0.0.1" in printed[0]
    assert list((jobs[1].folder / "model").iterdir()) == []
    (jobs[0].folder / "model").rename(tmp_path / "runs")
    same_run(tmp_path, alone)


def test_two_processes_make_the_run_of_one_though_one_dies_and_torchruns_restart_goes_on(drawn, alone, tmp_path):
    dying = {"DYING_RANK": "1", "DYING_STEP": "8", "MICRO_BATCH_SIZE": "11"}  # of the last batch they get 12 and 11
    launcher = (*TORCHRUN, "--nproc-per-node=2", "--max-restarts=1")
    process = start("tests/tiny.py", launcher=launcher, **given(drawn, tmp_path), **dying)
    printed = finish(process)
    assert process.returncode == 0, printed
    assert "failed (exitcode: -9) local_rank: 1" in printed
    assert "another process of this job has ended, or cannot be reached" in printed or "\nterminated" in printed
    assert "run tiny goes on from epoch 2, after 2 of its steps" in printed
    assert printed.count("epoch   1/2") == 1 and "Warning" not in printed
    steps = losses(tmp_path)
    (tmp_path / "losses").write_text("\n".join(map(str, steps[:7] + steps[-3:])))  # those before the death once
    same_run(tmp_path, alone)
    assert [file.name for file in (tmp_path / "runs").iterdir() if file.name.startswith("tiny")] == ["tiny"]


def test_two_processes_train_folds_and_the_net_of_everybody_which_nobody_validates(drawn, tmp_path):
    printed = ended(two(tiny.main, tmp_path, **given(drawn, tmp_path) | {"EPOCHS": 1, "FOLDS": 2, "FINAL": "true"}))
    assert printed.count("the last, trained on everybody") == 1
    header = read_header(tmp_path / "runs" / "tiny" / "final" / "model.safetensors")
    assert header.decided_by == "out-of-fold predictions of tiny" and header.scores["epoch"] == 1


def test_several_processes_save_when_they_are_told_to_stop(drawn, tmp_path):
    ranks = two(tiny.main, tmp_path, **given(drawn, tmp_path) | {"EPOCHS": 100_000, "CHECKPOINT_SECONDS": 1000})
    while not (tmp_path / "runs" / "tiny" / "history.csv").exists():
        assert ranks[0].wait(0.01) is None, ranks[0].log.read_text()
    for fork in ranks:  # as torchrun does
        os.kill(fork.pid, signal.SIGTERM)
    printed = ended(ranks[:1], 128 + signal.SIGTERM)
    assert ranks[1].wait(60) in (128 + signal.SIGTERM, 2)  # 2 where the first has gone before
    assert "saved at epoch" in printed and "terminated" in printed
    assert Checkpoints(tmp_path / "runs" / "tiny").load().epoch > 0


def recompute(_argv) -> None:
    """Print the running statistics of a batch norm, recomputed over some photographs."""
    with distributed.joined("cpu"):
        store = Store([""] * 48, Framing((8, 8)))
        pixels = torch.randint(0, 255, (48, 8, 8, 3), generator=torch.Generator().manual_seed(0))
        store.storage = Memory(pixels.byte())
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        nn.init.constant_(net[0].weight, 0.1)
        nn.init.zeros_(net[0].bias)
        loader = Loader(store, device.choose("cpu", "fp32"), (0.5,) * 3, (0.25,) * 3)
        recompute_batch_norm_statistics(net, loader, distributed.shard(np.array_split(np.arange(48), 4)))
        print(*net[1].running_mean.tolist(), *net[1].running_var.tolist())


def test_batch_norm_gets_the_statistics_of_the_photographs_of_all_processes(capsys, tmp_path):
    recompute([])
    printed = capsys.readouterr().out, ended(two(recompute, tmp_path))
    alone, shared = ([float(word) for word in text.split()] for text in printed)
    assert len(alone) == 8 and alone == pytest.approx(shared, rel=1e-5)


def join_again(_argv) -> None:
    for number in range(3):  # as a search for settings calls train.main
        with contextlib.suppress(InputError), distributed.joined("cpu"):
            assert distributed.broadcast(number) == number
            if number == 1:
                raise InputError("a trial that is refused")
    print("joined")


def test_processes_join_again_in_a_second_call_also_after_an_error(tmp_path):
    assert "joined" in ended(two(join_again, tmp_path))


def test_inference_is_shared_out_and_joined(drawn, trained, tmp_path):
    settings = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "DEVICE": "cpu", "PRECISION": "fp32"}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    succeeded(run_here("inference.py", **settings, SM_OUTPUT_DATA_DIR=alone))
    ended(two(inference.main, tmp_path, **settings, SM_OUTPUT_DATA_DIR=shared))
    names = ("output.csv", "probabilities.csv")
    answers = [[pd.read_csv(out / name) for name in names] for out in (alone, shared)]
    pd.testing.assert_frame_equal(answers[0][0], answers[1][0])
    pd.testing.assert_frame_equal(answers[0][1], answers[1][1], atol=2e-6)


def test_only_rank_and_world_size_together_mean_several(monkeypatch):
    for name, value in {"MASTER_ADDR": "algo-1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert world.size() == 1 and world.local_rank() == 0 and distributed.shard([1, 2]) == [1, 2]
    monkeypatch.setenv("RANK", "3")
    assert world.size() == 4 and world.local_rank() == 1 and distributed.shard(list(range(9))) == [3, 7]


def test_what_torchrun_did_not_set_is_named(drawn, tmp_path):
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path}
    (tmp_path / "failure").write_text("the process that failed first")  # and so knows why
    alone = {"RANK": "0", "WORLD_SIZE": "2", "SM_OUTPUT_DIR": tmp_path}
    refused(run_script("train.py", **folders, **alone), "RANK and WORLD_SIZE are set, but not all")
    assert (tmp_path / "failure").read_text() == "the process that failed first"
