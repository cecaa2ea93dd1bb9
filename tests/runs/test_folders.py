"""Which run goes on, which begins, and that no two processes ever have the same one."""

import multiprocessing
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import ROOT

from toolkit.runs import folders
from toolkit.runs.checkpoint import STATES, State
from toolkit.system import files

IDENTITY = {"settings": {"name": "a", "lr": 0.1}, "photographs": "p", "code": {"loss.py": "c"}}


def opened(folder, identity=IDENTITY, resume="auto", checkpoints=None, name="a"):
    return folders.opened(folder, checkpoints, name, identity, resume)


def save(run, epoch=1, identity=IDENTITY):
    run.states.save(State(identity, "now", epoch=epoch, tensors={"net.a": torch.zeros(1)}))


def test_an_unfinished_run_of_the_same_settings_goes_on_and_a_finished_one_does_not(tmp_path):
    with opened(tmp_path) as run:
        assert run.folder == tmp_path / "a" and run.state is None
        save(run, epoch=3)
    with opened(tmp_path) as run:
        assert run.folder == tmp_path / "a" and run.state.epoch == 3
    with opened(tmp_path, resume="never") as other:
        assert other.folder == tmp_path / "a-2" and other.state is None
    with opened(tmp_path) as run:
        folders.finish(run.folder, {"run": "a", "started": "now"})
        run.states.remove()
    with opened(tmp_path) as run:
        assert run.folder.name == "a-2" and run.state is None  # the one before left nothing in it, and was taken away


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"name": "a", "lr": 0.2}}, "LR is 0.2, was 0.1"),
        ({"photographs": "others"}, "the photographs or their labels have changed"),
        ({"code": {"loss.py": "d"}}, "loss.py has changed"),
    ],
)
def test_what_has_changed_is_said_and_a_new_run_begins(tmp_path, capsys, change, said):
    with opened(tmp_path) as run:
        save(run)
    with opened(tmp_path, {**IDENTITY, **change}) as run:
        assert run.folder == tmp_path / "a-2"
    assert f"the run a did not finish, but does not go on: {said}" in capsys.readouterr().out
    with opened(tmp_path) as run:
        assert run.folder == tmp_path / "a" and run.state


def test_a_damaged_generation_is_passed_over_and_the_other_one_goes_on(tmp_path, capsys):
    """Also where the flipped bit says that the run is of other settings."""
    for place, said in ((b'\\"p\\"', "checksum is wrong"), (b"data_offsets", "damaged or foreign")):
        name = said.replace(" ", "_")
        with opened(tmp_path, name=name) as run:
            save(run, epoch=1)
            save(run, epoch=2)
        newer = run.states.newest()[0]
        content = bytearray(newer.read_bytes())
        content[content.index(place) + 2] ^= 1
        newer.write_bytes(content)
        with opened(tmp_path, name=name) as run:
            assert run.folder.name == name and run.state.epoch == 1
        assert said in capsys.readouterr().out


def test_with_no_whole_state_a_new_run_begins_and_says_so(tmp_path, capsys):
    with opened(tmp_path) as run:
        save(run)
    for path in run.states.notes:
        path.write_bytes(path.read_bytes()[:-1])
    with opened(tmp_path) as run:
        assert run.folder.name == "a-2"
    assert "the run a did not finish, but does not go on: no state of it is whole" in capsys.readouterr().out


def test_a_run_does_not_go_on_in_the_folder_of_another_one(tmp_path, capsys):
    """Its state lies in a folder of checkpoints, and in the folder of runs there is another one of its name."""
    for name in ("first", "second", "checkpoints"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "first", checkpoints=tmp_path / "checkpoints") as run:
        save(run)
    with opened(tmp_path / "second", {**IDENTITY, "photographs": "others"}) as run:
        files.write_json(run.folder / folders.SETTINGS, {"started": "at another time"})
        save(run)
    with opened(tmp_path / "second", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder.name == "a-2"
    assert "holds another run of that name" in capsys.readouterr().out
    with opened(tmp_path / "first", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder.name == "a" and run.state


def test_a_new_run_begins_where_only_the_state_of_another_one_outlived_the_machine(tmp_path):
    for name in ("first", "second", "checkpoints"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "first", checkpoints=tmp_path / "checkpoints") as run:
        save(run)
    others = {**IDENTITY, "photographs": "others"}
    with opened(tmp_path / "second", others, checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder == tmp_path / "second" / "a-2"
        assert [path.name for path in (tmp_path / "second").iterdir()] == ["a-2"]
        assert (tmp_path / "checkpoints" / "a" / STATES[0]).exists()


def test_identity_holds_the_code_that_a_result_depends_on():
    code = folders.identity({}, "p")["code"]
    assert {"train.py", "dataset.py", "model.py", "loss.py", "toolkit/training/step.py"} <= set(code)
    assert "inference.py" not in code


def test_state_may_lie_in_a_folder_of_its_own_which_outlives_the_runs_folder(tmp_path):
    for name in ("runs", "again", "checkpoints"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder == tmp_path / "runs" / "a" and run.states.folder == tmp_path / "checkpoints" / "a"
        save(run)
    with opened(tmp_path / "again", checkpoints=tmp_path / "checkpoints") as run:
        assert run.state and run.folder == tmp_path / "again" / "a"
    with opened(tmp_path / "again", checkpoints=tmp_path / "checkpoints", resume="never") as run:
        assert run.folder.name == run.states.folder.name == "a-2"
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    with opened(tmp_path / "runs", checkpoints=tmp_path / "link", name="b") as run:
        assert run.folder == run.states.folder == tmp_path / "runs" / "b"


def test_a_run_that_fails_before_it_has_anything_leaves_no_folder_and_one_that_has_keeps_it(tmp_path):
    for name, kept in (("empty", False), ("begun", True)):
        with pytest.raises(KeyboardInterrupt), opened(tmp_path, name=name) as run:
            files.write_json(run.folder / folders.SETTINGS, {})
            if kept:
                save(run)
            raise KeyboardInterrupt
        assert run.folder.exists() is kept


def test_the_folder_of_one_that_was_killed_before_it_had_anything_is_taken_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / folders.SETTINGS).touch()
    (tmp_path / "a" / ".settings.json.abcd1234.part").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "somebody's notes.txt").touch()
    with opened(tmp_path) as run:
        assert run.folder == tmp_path / "a"
    with opened(tmp_path, name="b") as run:
        assert run.folder == tmp_path / "b-2"


def test_no_two_processes_have_the_same_run(tmp_path):
    with opened(tmp_path) as first:
        save(first)
        with opened(tmp_path) as second, opened(tmp_path) as third:
            assert [run.folder.name for run in (first, second, third)] == ["a", "a-2", "a-3"]
            assert second.state is None


def take(folder, together, found):
    with opened(folder) as run:
        together.wait()
        found.put(run.folder.name)


def test_processes_that_begin_at_the_same_moment_get_a_run_each(tmp_path):
    context = multiprocessing.get_context("fork")
    together, found = context.Barrier(8), context.Queue()
    processes = [context.Process(target=take, args=(tmp_path, together, found)) for _ in range(8)]
    for process in processes:
        process.start()
    names = [found.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(names)) == 8


def test_a_run_that_finishes_twice_has_one_line(tmp_path):
    (tmp_path / "a").mkdir()
    for seconds in (1, 2):
        folders.finish(tmp_path / "a", {"run": "a", "started": "today", "seconds": seconds})
    folders.finish(tmp_path / "a", {"run": "a", "started": "tomorrow", "seconds": 3})
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table["seconds"].tolist() == [2, 3] and table["started"].tolist() == ["today", "tomorrow"]


def test_runs_that_finish_together_all_get_their_line(tmp_path):
    code = (
        "import pathlib, sys; from toolkit.runs import folders; "
        "folders.finish(pathlib.Path(sys.argv[1]), {'run': sys.argv[1]})"
    )
    for number in range(8):
        (tmp_path / str(number)).mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / str(number)], cwd=ROOT, env=dict(os.environ))
        for number in range(8)
    ]
    assert [process.wait() for process in processes] == [0] * 8
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 8
