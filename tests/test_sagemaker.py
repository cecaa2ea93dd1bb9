"""Training, inference and evaluation as SageMaker's jobs, by its own launchers on local trees of /opt/ml.

Jobs of two hosts are in system/test_distributed.py, responses of endpoints in serving/test_requests.py.
"""

import json
import os
import pathlib
import re
import shutil
import tarfile

import pytest
from conftest import run_here, run_script, succeeded
from faults import finish
from launcher import Job

import train
from toolkit.runs import folders
from toolkit.runs.checkpoint import CHECKPOINTS
from toolkit.serving import model_archive

SMALL = {"name": "shufflenet_v2_x0_5", "pretrained": "false", "device": '"cpu"'}


def listing(folder: pathlib.Path) -> dict:
    """The files in a folder, with the time of their last change."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_training_job_by_the_launcher(drawn, tmp_path):
    forms = {"size": "[32, 32]", "epochs": "1e0", "batch-size": "32", "lr": "null", "weight_decay": "", "ema": "False"}
    foreign = {"_tuning_objective_metric": '"macro_f1"', "sagemaker_region": '"eu-west-1"', "probabilities": "true"}
    job = Job(tmp_path, "train.py", {**SMALL, **forms, **foreign}, hosts=("127.0.0.1", "127.0.0.2"))  # not joined
    job.channel("train", drawn.train)
    job.sources()
    photographs = listing(drawn.train)
    process = job.start(SEED=7)
    printed = finish(process)
    assert process.returncode == 0, printed
    assert (tmp_path / "output" / "success").exists() and not (tmp_path / "output" / "failure").exists()
    # What the image has stays as it is, and the code is taken for scripts, no package.
    assert "Requirement already satisfied: torch" in printed and "Successfully installed" not in printed
    assert "-- train.py --batch-size 32" in printed
    (run,) = (path for path in (tmp_path / "model").iterdir() if path.is_dir())
    assert (run / "report.html").exists()
    found = json.loads((run / "settings.json").read_text())
    values = [found["settings"][name] for name in ("size", "epochs", "batch_size", "lr", "ema", "seed")]
    assert values == [[32, 32], 1, 32, 1e-3, False, 7]
    origins = [found["origin"][name] for name in ("size", "batch_size", "lr", "seed", "sm_model_dir")]
    assert origins == ["flag", "flag", "adamw", "environment", "environment"]
    # A line an epoch, in one piece, for metric definitions; no bars, no warnings of names that the launcher sets.
    assert len(re.findall(r"^epoch .* macro_f1 +([0-9.]+) .*$", printed, re.M)) == 1
    assert "%|" not in printed and "warning:" not in printed
    assert listing(drawn.train) == photographs
    with tarfile.open(tmp_path / "sourcedir.tar.gz") as packed:
        assert sorted(map(str, listing(tmp_path / "code"))) == sorted(packed.getnames())


@pytest.mark.parametrize("script", ["leaderboard.py", "suspects.py"])
def test_scripts_that_start_train_py_are_idle_there_too(script, drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("SM_HOSTS", '["algo-1", "algo-2"]')
    monkeypatch.setenv("SM_CURRENT_HOST", "algo-2")
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    if script == "leaderboard.py":
        folders |= {name: drawn.eval for name in ("SM_CHANNEL_EVAL", "SM_GROUND_TRUTH_DIR")}
        folders |= {"SM_MODEL_DIR": tmp_path / "runs"}
    succeeded(run_here(script, **folders), "nothing to do on algo-2")


def test_the_other_hosts_of_a_job_that_nothing_joins_are_idle(drawn, tmp_path):
    job = Job(tmp_path, "train.py", SMALL, hosts=("127.0.0.1", "127.0.0.2"))
    job.leave("resourceconfig", {"current_host": "127.0.0.2", **job.resources})
    job.channel("train", drawn.train)
    job.sources("*.py", "toolkit/**/*.py")
    process = job.start(framework=False)
    printed = finish(process)
    assert process.returncode == 0 and "nothing to do on 127.0.0.2: 127.0.0.1 does all" in printed, printed
    assert listing(tmp_path / "model") == {}


def test_a_channel_in_pipe_mode_is_named_first_where_the_job_shows_why_it_failed(tmp_path):
    job = Job(tmp_path, "train.py", SMALL)
    os.mkfifo(tmp_path / "input" / "data" / "train_0")
    job.channels["train"] = {"TrainingInputMode": "Pipe"}
    job.sources("*.py", "toolkit/**/*.py")
    process = job.start(framework=False)
    printed = finish(process)
    assert process.returncode == 1 and "ExitCode 2" in printed and "Traceback" not in printed
    channel = tmp_path / "input" / "data" / "train"
    assert job.failure() == (
        f"SM_CHANNEL_TRAIN={channel}: expected a folder, found a channel in Pipe mode; set its input mode to File or "
        "FastFile"
    )


def test_a_job_of_environment_variables_only_keeps_its_state_in_the_checkpoint_folder(
    drawn, tmp_path, monkeypatch, capsys
):
    """As ModelTrainer does: the user's own command without flags, and the code in a channel."""
    checkpoints, config = tmp_path / "checkpoints", tmp_path / "config"
    run = checkpoints / "shufflenet_v2_x0_5"
    run.mkdir(parents=True)
    config.mkdir()
    (config / "checkpointconfig.json").write_text(json.dumps({"LocalPath": str(checkpoints)}))
    for state in CHECKPOINTS:  # what is left in a checkpoint folder of a run that has ended
        (run / f"{state}.sagemaker-uploaded").touch()
        (run / f"{state}.sagemaker-uploading").touch()
    typed = {**SMALL, "device": "cpu", "pretrained": False, "size": [32, 32], "epochs": 1, "lr": None}
    variables = {
        "SM_HPS": json.dumps(typed), "SM_HP_EPOCHS": "1", "SM_HP_LR": "null", "SM_HP_SIZE": "[32, 32]",
        "SM_CHANNEL_TRAIN": drawn.train, "SM_CHANNEL_CODE": config, "SM_CHANNEL_SM_DRIVERS": config,
        "SM_MODEL_DIR": tmp_path / "model", "SM_INPUT_CONFIG_DIR": config, "MASTER_ADDR": "algo-1",
        "SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1", "CHECKPOINT_SECONDS": "0",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    train.main([])
    printed, errors = capsys.readouterr()
    assert (tmp_path / "model" / "shufflenet_v2_x0_5" / folders.RESULT).exists() and errors == ""
    assert re.search(rf"sm_checkpoint_dir +{checkpoints} +SageMaker", printed)
    # They stay until the next run of that name begins; the markers of the uploader are not touched.
    kept = {path.name for path in run.iterdir()}
    assert {"finished.json", *CHECKPOINTS} <= kept and len(kept) == 7
    assert not list((tmp_path / "model").rglob("*state*.safetensors"))
    assert [path.name for path in config.iterdir()] == ["checkpointconfig.json"]


def test_a_packed_model_is_unpacked_into_a_temporary_folder(drawn, trained, tmp_path):
    """SageMaker's channel `model` is a folder with the packed model of a training job."""
    channel = tmp_path / "model"
    channel.mkdir()
    with tarfile.open(channel / model_archive.PACKED, "w:gz", compresslevel=0) as packed:
        packed.add(trained, ".")
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": channel, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    done = succeeded(run_here("inference.py", **folders, NAME="resnet18"))
    assert (tmp_path / "out" / "output.csv").exists()
    (run,) = re.findall(r"^run (.*/model\.tar\.gz/resnet18):", done.stdout, re.M)
    assert not pathlib.Path(run).parent.parent.exists()
    assert [path.name for path in channel.iterdir()] == [model_archive.PACKED]


def test_evaluation_as_a_processing_job(drawn, tmp_path):
    """No SM_ variables but those the user sets. The conditions of a property file compare plain numbers."""
    truth, results = (tmp_path / "processing" / name for name in ("input/truth", "output"))
    truth.mkdir(parents=True)
    results.mkdir()
    shutil.copy(drawn.eval / "gt.csv", truth)
    images = [line.partition(",")[0] for line in (drawn.eval / "gt.csv").read_text().splitlines()[1:]]
    (results / "output.csv").write_text("\n".join(["ImageID,ans", *(f"{image},4" for image in images)]))
    succeeded(run_script("evaluation.py", cwd=truth, SM_GROUND_TRUTH_DIR=truth, SM_OUTPUT_DATA_DIR=results))

    def refuse(constant: str):
        raise AssertionError(constant)

    found = json.loads((results / "evaluation.json").read_text(), parse_constant=refuse)
    assert "%" not in (results / "evaluation.json").read_text()
    for score in (found["macro_f1"], found["accuracy"], found["attributes"]["mask"]["accuracy"]):
        assert type(score) is float and 0 < score < 1
    assert [path.name for path in truth.iterdir()] == ["gt.csv"]
