"""The drawn faces: the true layout, the same for the same seed, whole or not there."""

import pathlib
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

import dataset
from toolkit import labels
from toolkit.demo import synthetic
from toolkit.label_errors import corrections
from toolkit.system.console import InputError


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_that_of_the_real_data(drawn):
    faces, passed_over = dataset.read_faces(drawn.train)
    assert len(faces) == 24 * 7 and passed_over == []
    people = pd.read_csv(drawn.train.parent / "train.csv", dtype=str)
    assert people.columns.tolist() == ["id", "gender", "race", "age", "path"]
    assert set(people["path"]) == set(faces["folder"])
    assert {path.rpartition(".")[2] for path in faces["file"]} == {"jpg", "png", "jpeg"}
    with Image.open(dataset.paths(faces, drawn.train)[0].decode()) as photograph:
        assert photograph.size == (384, 512)
    info, truth = (pd.read_csv(drawn.eval / name) for name in ("info.csv", "gt.csv"))
    assert info["ImageID"].equals(truth["ImageID"]) and set(info["ans"]) == {0}
    assert sorted(info["ImageID"]) == sorted(path.name for path in (drawn.eval / "images").iterdir())
    assert info["ImageID"].str.fullmatch("[0-9a-f]{40}.jpg").all()
    assert truth["ans"].value_counts().sort_index().tolist() == [5] * 6 + [1] * 12
    assert set(truth["ans"]) == set(range(labels.CLASSES))


def test_drawn_people_are_nobody_whose_label_is_corrected(drawn):
    faces, _ = dataset.read_faces(drawn.train)
    table, _ = corrections.read_corrections("all")
    assert not set(table["person"]) & set(faces["person"])


def test_the_same_seed_draws_the_same_and_another_seed_other_faces(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthetic.ensure(tmp_path / name, people=3, eval_people=2, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & {value for name, value in c.items() if name.endswith(("jpg", "png"))}


def test_a_folder_of_another_drawing_or_of_something_else_is_refused_and_left_alone(tmp_path):
    synthetic.ensure(tmp_path / "a", people=2, eval_people=1)
    before = contents(tmp_path / "a")
    with pytest.raises(InputError, match="remove that folder or name another"):
        synthetic.ensure(tmp_path / "a", people=3, eval_people=1)
    assert contents(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(InputError, match="found 'no drawing of this toolkit'"):
        synthetic.ensure(tmp_path / "b", people=2, eval_people=1)


def test_a_drawing_that_is_killed_leaves_nothing_under_its_name(tmp_path):
    code = "import pathlib, sys; from toolkit.demo import synthetic; synthetic.ensure(pathlib.Path(sys.argv[1]), 500)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a"], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not any(tmp_path.rglob("normal.*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    synthetic.ensure(tmp_path / "a", people=2, eval_people=1)
    assert len(dataset.read_faces(tmp_path / "a" / "train")[0]) == 14
