"""leaderboard.py, as a person runs it."""

import json
import shutil

import pandas as pd
import pytest
from conftest import ROOT, refused, repaint, run_here, run_script, succeeded

import leaderboard
from toolkit.config.settings import LeaderboardSettings
from toolkit.pages.parts import predictions
from toolkit.runs import lookup
from toolkit.runs.run_table import EDITED
from toolkit.system.console import InputError


def test_backbones_are_compared_one_that_fails_stops_no_other_and_nothing_is_done_twice(drawn, tmp_path):
    truth = tmp_path / "truth" / "gt.csv"
    truth.parent.mkdir()
    folders = {
        "SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "SM_CHANNEL_EVAL": drawn.eval,
        "SM_GROUND_TRUTH_DIR": truth.parent, "SM_OUTPUT_DATA_DIR": tmp_path / "out",
    }  # fmt: skip
    given = {"PRETRAINED": "false", "SIZE": "32x32", "epochs": "1", "BATCH_SIZE": "32", "DEVICE": "cpu"}
    given["REPORT_PHOTOS"] = "false"
    names = "inception_v3,shufflenet_v2_x0_5"  # the first one is too deep for 32 x 32
    refused(run_here("leaderboard.py", **folders, **given, NAMES=names), "gt.csv: expected this file, found none")
    header, *lines = (drawn.eval / "gt.csv").read_text().splitlines()
    truth.write_text("\n".join([header, *lines[1:]]))
    refused(run_here("leaderboard.py", **folders, **given, NAMES=names), "info.csv: expected the ImageIDs of gt.csv")
    assert not any((tmp_path / "runs").iterdir())  # before anything is trained
    truth.write_text("\n".join([header, *lines]))
    done = run_here("leaderboard.py", **folders, **given, NAMES=names)
    refused(done, f"inception_v3 failed: see {tmp_path / 'out' / 'inception_v3' / 'train.log'}")
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) == 4 and not any("data:image" in page.read_text() for page in pages)
    assert sum(predictions.NO_PHOTOGRAPHS in page.read_text() for page in pages) == 3
    table = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index("model")
    assert table.columns.tolist()[:5] == ["epoch", "batch size", "val_acc", "board_f1", "board_acc"]
    assert table.index.tolist() == ["shufflenet_v2_x0_5", "inception_v3"]  # what failed comes last
    assert "does not take SIZE=32x32" in table.loc["inception_v3", "note"]
    row = table.loc["shufflenet_v2_x0_5"]
    assert (row["epoch"], row["batch size"], row["parameters"]) == (1, 32, 360242) and 0 <= row["board_f1"] <= 1
    line = f"| shufflenet_v2_x0_5 | 1 | 32 | {row['val_acc']:.4f} |"
    assert line in (tmp_path / "out" / "leaderboard.md").read_text()
    log = tmp_path / "out" / "shufflenet_v2_x0_5" / "train.log"
    trained = log.stat().st_mtime_ns
    truth.write_text("\n".join([header, *lines[::-1]]))  # what evaluation reads
    for said in ("macro F1", "done before"):
        again = succeeded(run_here("leaderboard.py", names="shufflenet_v2_x0_5", **folders, **given), said)
        assert ("done before" in again.stdout) == (said == "done before") and log.stat().st_mtime_ns == trained
    # Not beside a user's own runs, of which NAME unset takes the newest.
    assert [path.parent.name for path in (tmp_path / "runs").rglob("shuf*")] == ["leaderboard"]
    with pytest.raises(InputError, match="found no run"):
        lookup.resolve(tmp_path / "runs", None)
    now = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index("model")  # the other one was scored otherwise
    pd.testing.assert_frame_equal(now, table.loc[["shufflenet_v2_x0_5"]], check_dtype=False)
    path = tmp_path / "out" / "shufflenet_v2_x0_5" / leaderboard.PROGRESS
    progress = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in progress.items() if key != "run"}))  # by somebody's hand
    again = run_here("leaderboard.py", names="inception_v3", **folders, **given)
    refused(again, "inception_v3 failed")
    with_it = pd.read_csv(tmp_path / "out" / "leaderboard.csv")["model"].tolist()
    assert with_it == ["shufflenet_v2_x0_5", "inception_v3"]  # its row stands alone, without curves


def test_rows_of_other_data_or_settings_are_made_anew(drawn, tmp_path, monkeypatch):
    shutil.copytree(drawn.eval, tmp_path / "eval")
    folders = {"sm_channel_train": drawn.train, "sm_channel_eval": tmp_path / "eval", "sm_model_dir": tmp_path / "runs"}
    folders |= {"sm_ground_truth_dir": tmp_path / "eval", "sm_output_data_dir": tmp_path}
    config = LeaderboardSettings(**folders)
    with pytest.raises(ValueError, match="expected another folder than SM_MODEL_DIR"):
        LeaderboardSettings(**{**folders, "sm_model_dir": tmp_path})
    before = leaderboard.fingerprint_of(config)
    assert leaderboard.fingerprint_of(config) == before
    assert leaderboard.fingerprint_of(LeaderboardSettings(**folders, names="vgg11", device="cpu")) == before
    assert leaderboard.fingerprint_of(LeaderboardSettings(**folders, epochs=2)) != before
    shutil.copy(ROOT / "outliers.csv", tmp_path / "own.csv")
    relabelled = LeaderboardSettings(**folders, relabel=f"sure,{tmp_path / 'own.csv'}")
    whole = leaderboard.fingerprint_of(relabelled)
    (tmp_path / "own.csv").write_text((ROOT / "outliers.csv").read_text().rpartition("\n0")[0] + "\n")
    assert leaderboard.fingerprint_of(relabelled)["photographs"] != whole["photographs"]
    monkeypatch.setattr(leaderboard, "SCORING", ("evaluation.py",))  # as if inference.py had changed
    assert leaderboard.fingerprint_of(config) != before
    monkeypatch.undo()
    (tmp_path / "vgg11").mkdir()
    row = {**dict.fromkeys(leaderboard.COLUMNS, ""), "model": "vgg11"}
    (tmp_path / "vgg11" / "progress.json").write_text(json.dumps({"fingerprint": before, "row": row}))
    assert leaderboard.write(config, before) == ([row], [])
    with (tmp_path / "eval" / "gt.csv").open("a") as file:
        file.write("\n")
    after = leaderboard.fingerprint_of(config)
    assert leaderboard.training_part(after) == leaderboard.training_part(before)
    assert after != before and leaderboard.write(config, after) == ([], [])
    photograph = next((tmp_path / "eval" / "images").iterdir())
    repaint(photograph)
    repainted = leaderboard.fingerprint_of(config)
    assert repainted != after
    photograph.unlink()
    assert leaderboard.fingerprint_of(config) != repainted
    with pytest.raises(InputError, match=rf"1 of \d+ photographs cannot be read.*{photograph.name} \(no such file\)"):
        leaderboard.refuse_wrong_inputs(config)


def test_a_second_leaderboard_takes_another_folder_while_the_first_one_trains(drawn, tmp_path, monkeypatch):
    def config(seed: int) -> LeaderboardSettings:
        return LeaderboardSettings(
            sm_channel_train=drawn.train, sm_channel_eval=drawn.eval, sm_ground_truth_dir=drawn.eval,
            sm_model_dir=tmp_path / "runs", sm_output_data_dir=tmp_path, seed=seed,
        )  # fmt: skip

    second = config(2)
    taken = []

    def train(*_):
        taken.append(leaderboard.folder_of(second, leaderboard.fingerprint_of(second), "vgg11").name)
        raise leaderboard.FailedError("stopped", tmp_path / "log")

    monkeypatch.setattr(leaderboard, "train", train)
    leaderboard.make_row(config(1), {}, leaderboard.fingerprint_of(config(1)), "vgg11")
    assert taken == ["vgg11-2"]


def test_rows_of_other_settings_stand_in_one_table_with_what_differs_and_means_over_seeds(drawn, tmp_path):
    folders = {"sm_channel_train": drawn.train, "sm_channel_eval": drawn.eval, "sm_model_dir": tmp_path / "runs"}
    folders |= {"sm_ground_truth_dir": drawn.eval, "sm_output_data_dir": tmp_path / "out"}
    table = (
        ("resnet18", 1, 0.5, "0.001"), ("resnet18", 2, 0.7, "0.001"), ("vgg11", 1, 0.25, "0.0002"), ("vgg11", 2, "", "")
    )  # fmt: skip
    for model, seed, score, lr in table:
        config = LeaderboardSettings(**folders, seed=seed)
        fingerprint = leaderboard.fingerprint_of(config)
        folder = leaderboard.folder_of(config, fingerprint, model)
        assert folder.name == (model if seed == 1 else f"{model}-2")
        note = "" if lr else "failed"
        row = dict.fromkeys(leaderboard.COLUMNS, "") | {"model": model, "board_f1": score, "note": note}
        progress = {"fingerprint": fingerprint, "row": row}
        if lr:
            progress["run"] = str(tmp_path / "runs" / folder.name)
            settings = {"name": model, "seed": seed, "lr": float(lr), "size": [64, 48], "device": model}
            record = {"settings": settings, "data": "", "code": dict.fromkeys(EDITED, "")}
            (tmp_path / "runs" / folder.name).mkdir(parents=True)
            (tmp_path / "runs" / folder.name / "settings.json").write_text(json.dumps(record))
        (folder / "progress.json").write_text(json.dumps(progress))
        for scoring in (fingerprint["scoring"], {}):  # also where only what scores has changed
            assert leaderboard.folder_of(config, fingerprint | {"scoring": scoring}, model) == folder
    _, seeds = leaderboard.write(config, fingerprint)
    found = pd.read_csv(tmp_path / "out" / "leaderboard.csv", dtype=str, keep_default_na=False)
    assert found.columns.tolist() == [*leaderboard.COLUMNS[:3], "seed", "lr", "folder", *leaderboard.COLUMNS[3:]]
    assert found[["model", "seed", "lr", "folder"]].to_numpy().tolist() == [
        ["resnet18", "1", "0.001", "resnet18"], ["resnet18", "2", "0.001", "resnet18-2"],
        ["vgg11", "1", "0.0002", "vgg11"], ["vgg11", "2", "", "vgg11-2"],
    ]  # fmt: skip
    assert [(row["seeds"], row["lr"], row["board_f1"]) for row in seeds] == [
        ("1, 2", "0.001", "0.6000 (0.5000 to 0.7000)")
    ]
    for name in ("leaderboard.md", "leaderboard.html"):
        assert "0.6000 (0.5000 to 0.7000)" in (tmp_path / "out" / name).read_text()


def test_wrong_names_are_refused():
    refused(run_script("leaderboard.py", NAMES="resnet18,resnet19"), "expected names of backbones, found resnet19")
    for given, message in (
        ({"NAME": "resnet18"}, "NAME=resnet18: has no effect here; remove it, or set NAMES="),
        ({"RUN": "mine"}, "RUN=mine: has no effect here"),
        ({"LOSS": "focal", "MIX": "mixup"}, "MIX=mixup: LOSS=focal takes whole labels"),
        ({"VAL_RATIO": "0", "DECIDE_BY": "a"}, "DECIDE_BY: has no effect here"),
    ):
        refused(run_script("leaderboard.py", **given), message)
