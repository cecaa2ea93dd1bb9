"""leaderboard.py, as a person runs it."""

import pandas as pd
from conftest import refused, run_script


def test_backbones_are_compared_one_that_fails_stops_no_other_and_nothing_is_done_twice(drawn, tmp_path):
    folders = {
        "SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "SM_CHANNEL_EVAL": drawn.eval,
        "SM_GROUND_TRUTH_DIR": drawn.eval, "SM_OUTPUT_DATA_DIR": tmp_path / "out",
    }  # fmt: skip
    given = {"PRETRAINED": "false", "SIZE": "32x32", "epochs": "1", "BATCH_SIZE": "32", "DEVICE": "cpu"}
    names = "alexnet,shufflenet_v2_x0_5"  # alexnet is too deep for 32 x 32
    done = run_script("leaderboard.py", **folders, **given, NAMES=names)
    refused(done, "alexnet failed: see train.log")
    table = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index("model")
    assert table.columns.tolist()[:5] == ["epoch", "batch size", "val_acc", "board_f1", "board_acc"]
    assert "does not take SIZE=32x32" in table.loc["alexnet", "note"]
    row = table.loc["shufflenet_v2_x0_5"]
    assert (row["epoch"], row["batch size"], row["parameters"]) == (1, 32, 360242) and 0 <= row["board_f1"] <= 1
    assert (
        f"| shufflenet_v2_x0_5 | 1 | 32 | {row['val_acc']:.4f} |" in (tmp_path / "out" / "leaderboard.md").read_text()
    )
    again = run_script("leaderboard.py", "--names", "shufflenet_v2_x0_5", **folders, **given)
    assert again.returncode == 0 and "done before" in again.stdout, again.stderr
    assert [path.name for path in (tmp_path / "runs").glob("shuf*")] == ["shufflenet_v2_x0_5"]


def test_wrong_names_are_refused(drawn):
    refused(run_script("leaderboard.py", NAMES="resnet18,resnet19"), "expected names of backbones, found resnet19")
    refused(
        run_script("leaderboard.py", NAME="resnet18"), "NAME=resnet18: has no effect here; remove it, or set NAMES="
    )
