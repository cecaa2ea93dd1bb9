"""Files that outlive a run: whole or not there, and never another run's."""

import json
import pathlib

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from toolkit.labels import CLASS_NAMES
from toolkit.runs import checkpoint, folders
from toolkit.system import files
from toolkit.system.console import InputError

HEADER = {
    "run": "r",
    "backbone": "resnet18",
    "head": "flat",
    "size": [64, 48],
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "decision": {"temperature": 1.5},
    "scores": {"macro_f1": 0.5},
}


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"kept": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(path, {"lost": float("nan")})
    with pytest.raises(RuntimeError), files.replacing(path, 4) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"kept": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_written_files_have_the_usual_rights(tmp_path):
    files.write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [1]}))
    (tmp_path / "b.csv").touch()
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "b.csv").stat().st_mode


def test_a_folder_that_cannot_be_written_to_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        files.write_json(tmp_path / "nowhere" / "a.json", {})
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "/proc/nowhere"):
        with pytest.raises(InputError, match=r"SM_MODEL_DIR=.*expected a folder to write to"):
            files.make_folder(pathlib.Path(folder), "SM_MODEL_DIR")


def test_weights_and_header_survive_the_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    state = {"a": torch.randn(3, 4), "b": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    checkpoint.save_weights(path, state, HEADER)
    loaded, header = checkpoint.load_weights(path)
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert {key: header[key] for key in HEADER} == HEADER and tuple(header["classes"]) == CLASS_NAMES


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"a": torch.zeros(100)}, HEADER)
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[:200], whole[:-1], b"not a safetensors file at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="found a damaged or foreign file"):
            checkpoint.load_weights(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="expected weights that train.py wrote"):
        checkpoint.load_weights(path)


@pytest.mark.parametrize("classes", [CLASS_NAMES[:-1], (*CLASS_NAMES[:-1], "a cat"), CLASS_NAMES[::-1]])
def test_weights_of_another_class_table_are_refused(tmp_path, classes):
    checkpoint.save_weights(tmp_path / "w", {"a": torch.zeros(1)}, HEADER | {"classes": classes})
    with pytest.raises(InputError, match="expected the 18 classes of toolkit/labels.py"):
        checkpoint.load_weights(tmp_path / "w")


def make_run(folder, age):
    folder.mkdir(parents=True)
    (folder / folders.WEIGHTS).touch()
    files.os.utime(folder / folders.WEIGHTS, (age, age))


def test_the_run_that_is_meant(tmp_path):
    for name, age in (("a", 100), ("a-2", 300), ("a-10", 400), ("b", 200), ("a-b", 500)):
        make_run(tmp_path / name, age)
    (tmp_path / "unfinished").mkdir()
    assert folders.find(tmp_path, "a") == (tmp_path / "a", [tmp_path / "a"])
    assert folders.find(tmp_path, None) == (tmp_path / "a-b", [tmp_path / "a-b"])
    assert folders.find(tmp_path / "b", "anything") == (tmp_path / "b", [tmp_path / "b"])
    for name, age in (("f/fold-10", 600), ("f/fold-2", 700), ("f-2/fold-0", 650), ("f/fold-x", 800)):
        make_run(tmp_path / name, age)
    folds = [tmp_path / "f" / "fold-2", tmp_path / "f" / "fold-10"]
    assert (
        folders.find(tmp_path, "f")
        == folders.find(tmp_path, None)
        == folders.find(tmp_path / "f", None)
        == (tmp_path / "f", folds)
    )
    assert folders.find(tmp_path / "f", "fold-2") == (tmp_path / "f" / "fold-2", folds[:1])
    assert folders.newer(tmp_path / "f") == []
    assert folders.newer(tmp_path / "a") == ["a-2", "a-10"] and folders.newer(tmp_path / "a-10") == []
    for name in ("c", "unfinished", "../a", ""):
        with pytest.raises(InputError, match=r"found the runs|SM_CHANNEL_MODEL"):
            folders.find(tmp_path / "unfinished" if name == "" else tmp_path, name or None)


def test_the_leaderboard_keeps_every_line_and_column(tmp_path):
    for run, row in (("a", {"macro_f1": 0.5}), ("0001", {"macro_f1": 0.25, "new": 1})):
        make_run(tmp_path / run, 100)
        folders.finish(tmp_path / run, {"run": run, **row})
    table = pd.read_csv(tmp_path / "leaderboard.csv", dtype=str)
    assert table.columns.tolist() == ["run", "macro_f1", "new"] and table["run"].tolist() == ["a", "0001"]
    assert table["macro_f1"].tolist() == ["0.5", "0.25"]
    assert json.loads((tmp_path / "a" / folders.RESULT).read_text()) == {"run": "a", "macro_f1": 0.5}


def test_a_damaged_leaderboard_is_put_aside_and_the_run_is_not_lost(tmp_path, capsys):
    make_run(tmp_path / "a", 100)
    (tmp_path / "leaderboard.csv").write_text("")
    folders.finish(tmp_path / "a", {"run": "a"})
    assert pd.read_csv(tmp_path / "leaderboard.csv")["run"].tolist() == ["a"]
    assert len(list(tmp_path.glob("leaderboard.damaged-*.csv"))) == 1
    assert "a new one is begun" in capsys.readouterr().out
