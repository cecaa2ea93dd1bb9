"""Runs of folds: what they predict, how they continue after a stop, and what outlives the machine."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FOLDS, QUICK, run_here, succeeded
from faults import Forked

import dataset
import suspects
import train
from toolkit.config.settings import SuspectsSettings, TrainSettings
from toolkit.runs import cross_validation, run_table
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoint, Checkpoints
from toolkit.runs.weights import load_weights, read_header
from toolkit.system.console import InputError


def test_folds_say_something_of_every_photograph_by_the_run_that_never_saw_it(drawn, folds):
    assert "never saw its person" in (folds / "shufflenet_v2_x0_5" / "report.html").read_text()
    group = folds / "shufflenet_v2_x0_5"
    table = pd.read_csv(group / "out_of_fold.csv", dtype={"person": str})
    faces, _ = dataset.read_faces(drawn.train)
    assert table["path"].tolist() == sorted(path.decode() for path in dataset.paths(faces))
    assert table.groupby("person")["fold"].nunique().eq(1).all() and set(table["fold"]) == {0, 1}
    for fold in (0, 1):
        validation = pd.read_csv(group / f"fold-{fold}" / "validation.csv")
        of_fold = table[table["fold"] == fold]
        assert of_fold["p7"].tolist() == validation.sort_values("path")["p7"].tolist()
    board = pd.read_csv(folds / "leaderboard.csv")
    assert board["run"].tolist() == ["shufflenet_v2_x0_5"]
    assert board["accuracy"].tolist() == pytest.approx([(table["label"] == table["predicted"]).mean()])
    assert not list(group.rglob("*.lock")) and not list(group.rglob("state-*"))


def test_folds_go_on_where_they_were_stopped(drawn, folds, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(folds, runs)
    group = runs / "shufflenet_v2_x0_5"
    (group / "result.json").unlink()
    (group / "fold-1" / "result.json").unlink()  # killed in this moment: there are weights, but no state
    (group / "fold-0" / "state-1.safetensors").write_bytes(b"left behind")
    before = (group / "fold-0" / "model.safetensors").stat().st_mtime_ns
    oof = (group / "out_of_fold.csv").read_bytes()
    checkpoints = tmp_path / "checkpoints"  # have come to be there: what is done is kept in them until the next run
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=runs, SM_CHECKPOINT_DIR=checkpoints, **FOLDS)
    kept = checkpoints / "shufflenet_v2_x0_5"
    assert sorted(path.name for path in kept.iterdir()) == ["finished.json", "fold-0", "fold-1", "folds.json"]
    assert {path.name for path in kept.glob("fold-1/*")} == {path.name for path in group.glob("fold-1/*")}
    assert done.returncode == 0 and "net 1 of 2: fold-0, done before" in done.stdout, done.stderr
    assert (group / "fold-0" / "model.safetensors").stat().st_mtime_ns == before
    assert (group / "out_of_fold.csv").read_bytes() == oof
    assert sorted(path.name for path in runs.iterdir()) == [
        "leaderboard.csv", "leaderboard.html", "shufflenet_v2_x0_5"
    ]  # fmt: skip
    assert sorted(path.name for path in group.glob("fold-*")) == ["fold-0", "fold-1"]
    assert not list(group.rglob("state-*"))


def open_folds(folder, photographs: str, **given):
    """The settings of a run of two folds in folder/runs and folder/checkpoints, and what opens it."""
    runs, checkpoints = folder / "runs", folder / "checkpoints"
    for place in (runs, checkpoints):
        place.mkdir(exist_ok=True)
    config = TrainSettings(sm_channel_train=folder, sm_model_dir=runs, sm_checkpoint_dir=checkpoints, folds=2)
    config = config.model_copy(update={"run": "resnet18", **given})
    return config, cross_validation.open_folds(config, {"settings": {}, "photographs": photographs, "code": {}})


def test_what_is_kept_of_finished_folds_stays_until_the_next_run_of_that_name_begins(tmp_path):
    runs, kept = tmp_path / "runs", tmp_path / "checkpoints" / "resnet18"
    config, opening = open_folds(tmp_path, "a")
    with opening as (folder, _):
        for name in ("fold-0", "fold-1"):
            (folder / name).mkdir()
            run_table.finish(folder / name, {"run": name, "started": "now"})
            cross_validation.back_up(config, folder, name)
        (folder / "result.json").write_text("{}")
        cross_validation.finish(config, folder)
    assert sorted(path.name for path in kept.iterdir()) == ["finished.json", "fold-0", "fold-1", "folds.json"]
    shutil.rmtree(runs)  # with the machine, before the model was stored anywhere
    with open_folds(tmp_path, "a")[1] as (folder, done):
        assert (folder.name, done) == ("resnet18", ["fold-0", "fold-1"]) and not (kept / "finished.json").exists()
        assert pd.read_csv(folder / "leaderboard.csv")["run"].tolist() == done
        (folder / "result.json").write_text("{}")  # and it is killed in this moment
    with open_folds(tmp_path, "b", resume="never")[1] as (folder, _):
        assert folder.name == "resnet18-2" and (kept / "fold-1").exists()  # nothing says that it is finished
    with open_folds(tmp_path, "c")[1] as (folder, _):
        assert folder.name == "resnet18-3" and not kept.exists()


def test_folds_take_nothing_from_a_run_that_is_none_of_theirs(tmp_path):
    """The state of a killed run is left without its folder, and another run of that name is finished."""
    state = tmp_path / "checkpoints" / "resnet18" / "state-1.safetensors"
    for folder, name in ((state.parent, state.name), (tmp_path / "runs" / "resnet18", "result.json")):
        folder.mkdir(parents=True)
        (folder / name).write_text("{}")
    with open_folds(tmp_path, "a")[1] as (folder, _):
        assert folder.name == "resnet18-2"
    assert state.exists()


def test_a_fold_whose_state_cannot_be_read_now_is_kept(tmp_path):
    """Its folder was deleted, and the fold trained again."""
    config, opening = open_folds(tmp_path, "a")
    with (
        pytest.raises(InputError, match="state-1.safetensors: cannot be read now: Is a directory"),
        opening as (folder, _),
    ):
        own = cross_validation.fold_settings(config, folder, "fold-1")
        state = own.sm_checkpoint_dir / own.run / "state-1.safetensors"
        for path in (folder / own.run, state):  # a folder of that name, as not even root can read it
            path.mkdir(parents=True)
        (folder / own.run / "model.safetensors").touch()
        cross_validation.clean_up(own, done=False)
    assert state.exists() and (folder / own.run / "model.safetensors").exists()
    state.rmdir()
    Checkpoints(state.parent).save(Checkpoint({}, "now", tensors={"model.a": torch.zeros(1)}))
    with open_folds(tmp_path, "a")[1] as (folder, _):  # a state of another start: it goes on, and not the run
        (folder / own.run / "settings.json").write_text('{"started": "earlier"}')
        cross_validation.clean_up(own, done=False)
        assert state.exists() and not (folder / own.run).exists()


def test_folds_that_are_done_outlive_the_machine_where_the_checkpoints_do(tmp_path):
    runs, checkpoints = tmp_path / "runs", tmp_path / "checkpoints"

    def started(photographs: str, **given):
        return open_folds(tmp_path, photographs, **given)

    config, opening = started("a")
    with pytest.raises(KeyboardInterrupt), opening as (folder, done):
        assert done == []
        for fold, name in ((0, "result.json"), (1, "model.safetensors")):
            own = cross_validation.fold_settings(config, folder, f"fold-{fold}")
            (folder / own.run).mkdir()
            (folder / own.run / name).write_text("{}")
            (own.sm_checkpoint_dir / own.run).mkdir()
        (checkpoints / "resnet18" / "fold-1" / "state-1.safetensors").touch()
        cross_validation.back_up(config, folder, "fold-0")
        raise KeyboardInterrupt
    shutil.rmtree(runs)
    for other in (started("b")[1], started("a", resume="never")[1]):  # of something else: what is kept stays
        with other as (folder, done):
            assert folder.name != "resnet18" and done == []
        shutil.rmtree(checkpoints / folder.name)
    shutil.rmtree(runs)
    config, opening = started("a")
    with opening as (folder, done):
        assert (folder.name, done) == ("resnet18", ["fold-0"])
        assert [path.name for path in folder.glob("fold-*/*")] == ["result.json"]
        assert (checkpoints / "resnet18" / "fold-1" / "state-1.safetensors").exists()
    shutil.rmtree(checkpoints / "resnet18")
    config, opening = started("a", sm_checkpoint_dir=None)
    with opening as (folder, _):
        (folder / "fold-1").mkdir()
        (folder / "fold-1" / "state-1.safetensors").touch()
    config, opening = started("a")
    with opening as (folder, _):
        own = cross_validation.fold_settings(config, folder, "fold-1")
        assert (own.sm_model_dir, own.sm_checkpoint_dir) == (folder, checkpoints / folder.name)
        (folder / "result.json").write_text("{}")  # killed in this moment
    with started("a")[1] as (folder, _):
        assert folder.name == "resnet18-2" and not (checkpoints / "resnet18").exists()
        (folder / "fold-0").mkdir()
    shutil.rmtree(checkpoints)
    # What goes on is taken before what is finished, and that before a new folder.
    record = {"settings": {"device": "cpu"}, "photographs": "a", "code": {}}
    (runs / "resnet18" / "settings.json").write_text(json.dumps(record))
    for photographs, expected in (("a", "resnet18-2"), ("b", "resnet18-3")):
        with started(photographs)[1] as (folder, _):
            assert folder.name == expected
    for folder in (runs / "resnet18-2", runs / "resnet18-3", checkpoints):
        shutil.rmtree(folder)
    for photographs, resume, expected in (("a", "auto", "resnet18"), ("a", "never", "resnet18-2")):
        with started(photographs, resume=resume)[1] as (folder, _):
            assert folder.name == expected
    assert (runs / "resnet18" / "result.json").exists()
    shutil.rmtree(checkpoints)
    # A single run of that name, of which only the state outlived the machine, is not taken for one of folds.
    (checkpoints / "resnet18").mkdir(parents=True)
    (checkpoints / "resnet18" / "state-1.safetensors").touch()
    shutil.rmtree(runs)
    with started("a")[1] as (folder, _):
        assert folder.name == "resnet18-2"


WITH_FINAL = QUICK | {
    "NAME": "squeezenet1_1", "SIZE": "64x64", "epochs": "2", "FOLDS": "2", "FINAL": "true", "CHECKPOINT_SECONDS": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def with_final(drawn, tmp_path_factory):
    """The folder of a run of two folds and a net of everybody, in a folder of runs of its own."""
    runs = tmp_path_factory.mktemp("final")
    done = succeeded(run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=runs, **WITH_FINAL))
    assert not any(words in done.stdout for words in ("no report is written", "may not suit")), done.stdout
    return runs / "squeezenet1_1"


def test_the_final_net_is_of_everybody_and_decides_as_the_folds_do(with_final):
    table = pd.read_csv(with_final / "out_of_fold.csv")
    results = [json.loads((with_final / name / "result.json").read_text()) for name in ("fold-0", "fold-1", "final")]
    assert results[2]["epochs"] == int(np.mean([result["kept_epoch"] for result in results[:2]]) + 0.5)
    assert results[2]["kept_epoch"] == results[2]["epochs"] and results[2]["macro_f1"] is None
    header = read_header(with_final / "final" / "model.safetensors")
    assert header.decided_by == "out-of-fold predictions of squeezenet1_1"
    priors = np.bincount(table["label"], minlength=18) / len(table)
    assert header.decision.prior_correction.priors == pytest.approx(priors)
    of_all = json.loads((with_final / "result.json").read_text())
    assert of_all["seconds"] == pytest.approx(sum(result["seconds"] for result in results), abs=0.2)
    assert of_all["accuracy"] == pytest.approx((table["label"] == table["predicted"]).mean())


def test_all_nets_answer_or_one_of_them(drawn, with_final, tmp_path):
    def infer(**given) -> tuple[np.ndarray, dict]:
        folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": with_final.parent, "SM_OUTPUT_DATA_DIR": tmp_path}
        succeeded(run_here("inference.py", **folders | given, DEVICE="cpu", ADAPT_PRIORS="false"))
        p = pd.read_csv(tmp_path / "probabilities.csv").drop(columns=["ImageID", "ans"]).to_numpy()
        return p, json.loads((tmp_path / "inference.json").read_text())["runs"]

    each = [infer(NAME=f"squeezenet1_1/{name}")[0] for name in ("fold-0", "fold-1", "final")]
    together, runs = infer(NAME="squeezenet1_1")
    np.testing.assert_allclose(together, np.mean(each, 0), atol=2e-6)
    assert [path.rpartition("/")[2] for path in runs] == ["fold-0", "fold-1", "final"]
    assert ["macro_f1" in said for said in runs.values()] == [True, True, False]
    np.testing.assert_array_equal(infer(SM_CHANNEL_MODEL=with_final, NAME="final")[0], each[2])


def test_a_final_net_that_is_killed_goes_on_also_on_another_machine(drawn, with_final, tmp_path):
    runs, states = tmp_path / "runs", tmp_path / "states"
    given = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": runs, "SM_CHECKPOINT_DIR": states}
    group = runs / "squeezenet1_1"
    shutil.copytree(with_final, group, ignore=shutil.ignore_patterns("final"))
    (group / "result.json").unlink()
    process = Forked(train.main, tmp_path / "log", **given, **WITH_FINAL)
    while not (states / "squeezenet1_1" / "final" / CHECKPOINTS[1]).exists():
        assert process.wait(0.01) is None, process.log.read_text()
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    shutil.rmtree(runs)
    succeeded(run_here("train.py", **given, **WITH_FINAL), "run final goes on from epoch")
    expected, found = (load_weights(folder / "final" / "model.safetensors")[0] for folder in (with_final, group))
    assert expected.keys() == found.keys() and all(expected[name].equal(found[name]) for name in found)
    assert not list(states.rglob("state-*")) and (states / "squeezenet1_1" / "finished.json").exists()


def test_suspects_are_judged_by_folds_alone(drawn, with_final, tmp_path, capsys):
    def ask(name: str) -> list[str]:
        given = {"sm_channel_train": drawn.train, "sm_channel_model": with_final.parent, "sm_output_data_dir": tmp_path}
        return [run.name for run in suspects.read_folds(SuspectsSettings(**given, name=name))]

    assert ask("squeezenet1_1") == ["fold-0", "fold-1"]
    assert "final is not used: it was trained on everybody" in capsys.readouterr().out
    with pytest.raises(InputError, match="expected one run of folds"):
        ask("squeezenet1_1/final")
