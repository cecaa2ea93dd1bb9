"""docs/contest.md: its commands, one after another, on drawn faces, with small nets and photographs."""

import pandas as pd
import pytest
from conftest import run_here
from settings_page import ROOT
from test_docs import lines_of_blocks, parsed

SMALL = {
    "train.py": {"name": "shufflenet_v2_x0_5", "weights": "none", "size": "32x32", "epochs": "1", "device": "cpu"},
    "suspects.py": {
        "name": "shufflenet_v2_x0_5", "weights": "none", "size": "32x32", "epochs": "1", "folds": "2", "serve": "false"
    },
    "inference.py": {"device": "cpu"},
    "dataset.py": {},
    "evaluation.py": {},
}  # fmt: skip


def test_the_whole_way_ends_with_a_submission_that_is_scored(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the page's `runs` and `out` are below the folder in which one works
    places = {"/data/train/images": str(drawn.train), "/data/eval": str(drawn.eval)}
    scripts = []
    for line in lines_of_blocks((ROOT / "docs" / "contest.md").read_text()):
        script, given = parsed(line)
        given = {name: places.get(value, value) for name, value in given.items()} | SMALL[script]
        if "folds" in given:
            given["folds"] = "2"
        if "sm_channel_pseudo" in given:
            given["pseudo_from"] = "0.01"  # of what these nets are sure
        done = run_here(script, **{name.upper(): value for name, value in given.items()})
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        scripts.append(script)
        if script == "suspects.py":  # what a person saves from the page
            columns = (ROOT / "outliers.csv").read_text().partition("\n")[0]
            (tmp_path / "out" / "suspects" / "corrections.csv").write_text(columns + "\n")
    assert scripts == [
        "dataset.py", "train.py", "suspects.py", "train.py", "train.py", "inference.py", "train.py", "train.py",
        "inference.py", "evaluation.py",
    ]  # fmt: skip
    answers = pd.read_csv(tmp_path / "out" / "together" / "output.csv")
    assert answers["ImageID"].tolist() == pd.read_csv(drawn.eval / "info.csv")["ImageID"].tolist()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == [
        "first", "large", "other", "pseudo", "six"
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["FOLDS=5 FINAL=true", "TTA=true", "SM_CHANNEL_PSEUDO=", "RELABEL="])
def test_the_winning_steps_are_on_the_page(word):
    assert any(word in line for line in lines_of_blocks((ROOT / "docs" / "contest.md").read_text()))
