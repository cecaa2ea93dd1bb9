"""The line of a finished run: one for each, none lost, whoever ends at the same time."""

import json
import os
import shutil
import subprocess

import pandas as pd
import zygote
from conftest import ROOT

from toolkit.runs import artefacts, folders, run_table


def test_the_leaderboard_keeps_every_line_and_column(tmp_path):
    for run, row in (("a", {"macro_f1": 0.5}), ("0001", {"macro_f1": 0.25, "new": 1})):
        (tmp_path / run).mkdir()
        run_table.finish(tmp_path / run, {"run": run, **row})
    table = pd.read_csv(tmp_path / "leaderboard.csv", dtype=str)
    assert table.columns.tolist() == ["run", "macro_f1", "new"] and table["run"].tolist() == ["a", "0001"]
    assert table["macro_f1"].tolist() == ["0.5", "0.25"]
    assert json.loads((tmp_path / "a" / folders.RESULT).read_text()) == {"run": "a", "macro_f1": 0.5}


def test_a_damaged_leaderboard_is_put_aside_and_the_run_is_not_lost(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "leaderboard.csv").write_text("")
    run_table.finish(tmp_path / "a", {"run": "a"})
    assert pd.read_csv(tmp_path / "leaderboard.csv")["run"].tolist() == ["a"]
    assert len(list(tmp_path.glob("leaderboard.damaged-*.csv"))) == 1
    assert "a new one is begun" in capsys.readouterr().out


def test_a_table_that_nobody_can_write_now_gets_its_lines_later_and_no_run_waits_for_it(tmp_path, capsys):
    """Say, another person holds the lock, or has the table open in a spreadsheet."""
    scores = dict.fromkeys(artefacts.SCORES, 0.5)

    def finish(run: str) -> None:
        (tmp_path / run).mkdir()
        run_table.finish(tmp_path / run, {"run": run, "started": run, "finished": run, **scores})

    (tmp_path / ".lock").mkdir()  # nobody can open it
    for run in "ba":
        finish(run)
        assert json.loads((tmp_path / run / folders.RESULT).read_text())["run"] == run
        assert f"{tmp_path / '.lock'}" in (printed := capsys.readouterr().out) and "is added here when" in printed
    assert not (tmp_path / "leaderboard.csv").exists()
    (tmp_path / ".lock").rmdir()
    assert artefacts.finished_before(tmp_path / "a").scores == scores  # the same command again
    assert pd.read_csv(tmp_path / "leaderboard.csv")["run"].tolist() == ["a", "b"]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / folders.RESULT).write_text("[]")
    finish("c")
    assert pd.read_csv(tmp_path / "leaderboard.csv")["run"].tolist() == ["a", "b", "c"]


def test_a_run_that_finishes_twice_has_one_line(tmp_path):
    (tmp_path / "a").mkdir()
    for seconds in (1, 2):
        run_table.finish(tmp_path / "a", {"run": "a", "started": "today", "seconds": seconds})
    run_table.finish(tmp_path / "a", {"run": "a", "started": "tomorrow", "seconds": 3})
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table["seconds"].tolist() == [2, 3] and table["started"].tolist() == ["today", "tomorrow"]


def test_runs_that_finish_together_all_get_their_line(tmp_path):
    code = (
        "import pathlib, sys; from toolkit.runs import run_table; "
        "run_table.finish(pathlib.Path(sys.argv[1]), {'run': sys.argv[1]})"
    )
    for number in range(8):
        (tmp_path / str(number)).mkdir()
    processes = [
        subprocess.Popen([zygote.python(), "-c", code, tmp_path / str(number)], cwd=ROOT, env=dict(os.environ))
        for number in range(8)
    ]
    assert [process.wait() for process in processes] == [0] * 8
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 8


def test_settings_become_columns_once_they_differ(tmp_path):
    def finish(run: str, started: str = "now", **settings):
        (tmp_path / run).mkdir()
        code = {"dataset.py": "d", "model.py": "m", "loss.py": settings.pop("loss_py", "l")}
        record = {"settings": {"name": run, "device": run, **settings}, "code": code, "data": "x", "started": "now"}
        (tmp_path / run / folders.SETTINGS).write_text(json.dumps(record))
        run_table.finish(tmp_path / run, {"run": run, "epochs": settings["epochs"], "started": started})
        table = pd.read_csv(tmp_path / "leaderboard.csv", dtype=str, keep_default_na=False).drop(columns="started")
        return [table.columns.tolist(), *table.to_numpy().tolist()]

    plain = {"epochs": 1, "ema": False, "size": [64, 48]}
    assert finish("a", **plain) == [["run", "epochs"], ["a", "1"]]
    (tmp_path / "b").mkdir()
    run_table.finish(tmp_path / "b", {"run": "b", "epochs": 1})  # of an older version: nothing is known of it
    assert finish("c", **plain | {"ema": True})[0] == ["run", "epochs", "ema"]
    shutil.rmtree(tmp_path / "a")  # its line stays as it is
    assert finish("d", **plain | {"size": [32, 32], "epochs": 2}, loss_py="k") == [
        ["run", "epochs", "ema", "size", "loss.py"],
        ["a", "1", "false", "", ""], ["b", "1", "", "", ""],
        ["c", "1", "true", "64x48", "l"], ["d", "2", "false", "32x32", "k"],
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "c")
    assert finish("c", started="later", **plain)[-2:] == [
        ["d", "2", "false", "32x32", "k"], ["c", "1", "", "", ""],
    ]  # fmt: skip


def test_scores_of_several_seeds_are_shown_as_mean_and_spread():
    table = (("1", "1", "0.5"), ("1", "3", 0.25), ("2", "1", 1), ("2", "1", 0.5), ("3", "1", ""), ("3", "2", ""))
    rows = [dict(zip(("lr", "seed", "f1"), cells, strict=True)) for cells in table]
    assert run_table.over_seeds(rows, ["lr"], ["f1"]) == [
        {"lr": "1", "seeds": "1, 3", "f1": "0.3750 (0.2500 to 0.5000)"}, {"lr": "3", "seeds": "1, 2", "f1": ""},
    ]  # fmt: skip
