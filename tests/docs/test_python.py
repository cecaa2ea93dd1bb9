"""docs/python.md: its examples run, on a few small faces."""

import json
import pathlib
import re

import optuna
import pandas as pd
import pytest
from conftest import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(), re.M | re.S)


@pytest.fixture
def run(drawn, tmp_path, monkeypatch, capsys):
    """Run a block of the page with the drawn faces in place of /data; gives its variables, and what it printed."""
    monkeypatch.chdir(tmp_path)
    for name in ("PRETRAINED=false", "NAME=shufflenet_v2_x0_5", "SIZE=32x32", "DEVICE=cpu", "EPOCHS=2"):
        monkeypatch.setenv(*name.split("="))

    def run(block: str) -> tuple[dict, str]:
        for before, after in (("/data/train/images", drawn.train), ("/data/eval", drawn.eval), ("=20", "=2")):
            block = block.replace(before, str(after))
        variables = {}
        exec(re.sub(r"--epochs=\d+", "--epochs=1", block), variables)
        return variables, capsys.readouterr().out

    return run


def test_a_notebook_trains_and_predicts(run):
    variables, printed = run(BLOCKS[0])
    assert variables["run"].folder == pathlib.Path("runs", "first")
    result = pd.read_csv("runs/leaderboard.csv").iloc[0]
    assert {name: result[name] for name in variables["run"].scores} == pytest.approx(variables["run"].scores)
    found, output = variables["found"], pd.read_csv("out/output.csv")
    assert (found.images, found.classes.tolist()) == (output["ImageID"].tolist(), output["ans"].tolist())
    assert found.probabilities.shape == (42, 18) and "\nruns/first 0." in printed
    again, printed = run(BLOCKS[0].partition("folders =")[0])
    assert again["run"] == variables["run"] and "this run was finished before" in printed


def test_optuna_searches_and_stops_what_falls_behind(run, tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    variables, _ = run(BLOCKS[1])
    trials = variables["study"].trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    for trial in trials:
        folder = tmp_path / "runs" / f"trial-{trial.number}"
        history = pd.read_csv(folder / "history.csv")
        assert trial.intermediate_values == pytest.approx(dict(zip(history["epoch"], history["macro_f1"], strict=True)))
        kept = json.loads((folder / "result.json").read_text())["kept_epoch"]  # not always the best one
        assert trial.value == pytest.approx(history["macro_f1"][kept - 1])
    assert "trial-1" in (tmp_path / "runs" / "leaderboard.html").read_text()
