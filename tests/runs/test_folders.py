"""Which run goes on, which begins, and that no two processes ever have the same one."""

import multiprocessing
import os
import signal
import sys

import pytest
import torch

from toolkit.runs import folders, run_table
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoint
from toolkit.system import files

FINGERPRINT = {"settings": {"name": "a", "lr": 0.1}, "photographs": "p", "code": {"loss.py": "c"}}


def open_run(folder, fingerprint=FINGERPRINT, resume="auto", checkpoints=None, name="a"):
    return folders.open_run(folder, checkpoints, name, fingerprint, resume)


def save(run, epoch=1, fingerprint=FINGERPRINT):
    run.checkpoints.save(Checkpoint(fingerprint, "now", epoch=epoch, tensors={"model.a": torch.zeros(1)}))


def test_an_unfinished_run_of_the_same_settings_goes_on_and_a_finished_one_does_not(tmp_path):
    with open_run(tmp_path) as run:
        assert run.folder == tmp_path / "a" and run.checkpoint is None
        save(run, epoch=3)
    with open_run(tmp_path) as run:
        assert run.folder == tmp_path / "a" and run.checkpoint.epoch == 3
    with open_run(tmp_path, resume="never") as other:
        assert other.folder == tmp_path / "a-2" and other.checkpoint is None
    with open_run(tmp_path) as run:
        run_table.finish(run.folder, {"run": "a", "started": "now"})
        run.finish()
    with open_run(tmp_path) as run:
        assert run.folder.name == "a-2" and run.checkpoint is None  # that of before left nothing in it, and went


def test_a_finished_run_with_the_same_fingerprint_is_not_trained_again_unless_it_is_asked_for(tmp_path):
    record = {**FINGERPRINT, "settings": {**FINGERPRINT["settings"], "device": "cpu"}, "started": "now"}
    with open_run(tmp_path) as run:
        files.write_json(run.folder / folders.SETTINGS, record)
        run_table.finish(run.folder, {"run": "a", "started": "now"})
    (tmp_path / "a" / ".lock").touch()  # it was killed just after it had finished
    with pytest.raises(KeyError), open_run(tmp_path) as run:
        assert not (tmp_path / "a" / ".lock").exists()
        assert run.is_finished and run.folder == tmp_path / "a" and run.checkpoint is None
        raise KeyError
    assert (tmp_path / "a" / folders.RESULT).exists()  # whatever happens meanwhile
    others = {**FINGERPRINT, "settings": {"name": "a", "lr": 0.2}}
    for given in ({"resume": "never"}, {"fingerprint": others}, {"name": "b"}):
        with open_run(tmp_path, **given) as run:
            assert not run.is_finished and run.folder.name == ("b" if "name" in given else "a-2")
    with open_run(tmp_path, resume="never") as run:
        save(run)
    with open_run(tmp_path) as run:  # it goes on
        assert run.folder.name == "a-2" and not run.is_finished
    for damage in ("", "[]", "{}", '{"settings": []}'):
        (tmp_path / "a" / folders.SETTINGS).write_text(damage)
        assert folders.find_finished(tmp_path, "a", FINGERPRINT) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"name": "a", "lr": 0.2}}, "LR is 0.2, was 0.1"),
        ({"photographs": "others"}, "the photographs or their labels have changed"),
        ({"code": {"loss.py": "d"}}, "loss.py has changed"),
    ],
)
def test_what_has_changed_is_said_and_a_new_run_begins(tmp_path, capsys, change, said):
    with open_run(tmp_path) as run:
        save(run)
    with open_run(tmp_path, {**FINGERPRINT, **change}) as run:
        assert run.folder == tmp_path / "a-2"
    assert f"the run a did not finish, but does not go on: {said}" in capsys.readouterr().out
    with open_run(tmp_path) as run:
        assert run.folder == tmp_path / "a" and run.checkpoint


def test_a_damaged_generation_is_passed_over_and_the_other_one_goes_on(tmp_path, capsys):
    """Also if the flipped bit lies in the settings, so that they look different."""
    for place, said in ((b'\\"p\\"', "checksum is wrong"), (b"data_offsets", "damaged or foreign")):
        name = said.replace(" ", "_")
        with open_run(tmp_path, name=name) as run:
            save(run, epoch=1)
            save(run, epoch=2)
        newer = run.checkpoints.newest_first()[0]
        content = bytearray(newer.read_bytes())
        content[content.index(place) + 2] ^= 1
        newer.write_bytes(content)
        with open_run(tmp_path, name=name) as run:
            assert run.folder.name == name and run.checkpoint.epoch == 1
        assert said in capsys.readouterr().out


def test_with_no_whole_state_a_new_run_begins_and_says_so(tmp_path, capsys):
    with open_run(tmp_path) as run:
        save(run)
    for path in run.checkpoints.headers:
        path.write_bytes(path.read_bytes()[:-1])
    with open_run(tmp_path) as run:
        assert run.folder.name == "a-2"
    assert "the run a did not finish, but does not go on: no checkpoint of it is whole" in capsys.readouterr().out


def test_a_run_does_not_go_on_in_the_folder_of_another_one(tmp_path, capsys):
    """Its state lies in the checkpoint folder; the folder of runs has another run of the same name."""
    for name in ("first", "second", "checkpoints"):
        (tmp_path / name).mkdir()
    with open_run(tmp_path / "first", checkpoints=tmp_path / "checkpoints") as run:
        save(run)
    others = {**FINGERPRINT, "photographs": "others"}
    with open_run(tmp_path / "second", others) as run:
        files.write_json(run.folder / folders.SETTINGS, {"started": "at another time"})
        save(run, fingerprint=others)
    with open_run(tmp_path / "second", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder.name == "a-2"
    assert "holds another run of that name" in capsys.readouterr().out
    with open_run(tmp_path / "first", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder.name == "a" and run.checkpoint


def test_a_new_run_begins_where_only_the_state_of_another_one_outlived_the_machine(tmp_path):
    for name in ("first", "second", "checkpoints"):
        (tmp_path / name).mkdir()
    with open_run(tmp_path / "first", checkpoints=tmp_path / "checkpoints") as run:
        save(run)
    others = {**FINGERPRINT, "photographs": "others"}
    with open_run(tmp_path / "second", others, checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder == tmp_path / "second" / "a-2"
        assert [path.name for path in (tmp_path / "second").iterdir()] == ["a-2"]
        assert (tmp_path / "checkpoints" / "a" / CHECKPOINTS[0]).exists()


def test_state_may_lie_in_a_folder_of_its_own_which_outlives_the_runs_folder(tmp_path):
    for name in ("runs", "again", "checkpoints"):
        (tmp_path / name).mkdir()
    with open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder == tmp_path / "runs" / "a" and run.checkpoints.folder == tmp_path / "checkpoints" / "a"
        save(run)
    with open_run(tmp_path / "again", checkpoints=tmp_path / "checkpoints") as run:
        assert run.checkpoint and run.folder == tmp_path / "again" / "a"
    with open_run(tmp_path / "again", checkpoints=tmp_path / "checkpoints", resume="never") as run:
        assert run.folder.name == run.checkpoints.folder.name == "a-2"
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    with open_run(tmp_path / "runs", checkpoints=tmp_path / "link", name="b") as run:
        assert run.folder == run.checkpoints.folder == tmp_path / "runs" / "b"


def test_a_state_is_found_where_it_was_saved_before_though_nothing_names_that_folder_now(tmp_path):
    for name in ("runs", "checkpoints"):
        (tmp_path / name).mkdir()
    with open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        record = {"started": "now", "settings": {"sm_checkpoint_dir": str(tmp_path / "checkpoints")}}
        files.write_json(run.folder / folders.SETTINGS, record)
        (run.folder / folders.WEIGHTS).touch()  # an epoch is done
        save(run, epoch=1)
    with open_run(tmp_path / "runs") as run:
        assert run.folder.name == "a" and run.checkpoint.epoch == 1
        save(run, epoch=2)
    with open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        assert run.checkpoint.epoch == 2


def test_a_state_is_found_where_it_was_saved_before_there_was_a_folder_for_it(tmp_path):
    for name in ("runs", "checkpoints"):
        (tmp_path / name).mkdir()
    with open_run(tmp_path / "runs") as run:
        files.write_json(run.folder / folders.SETTINGS, {"started": "now"})
        save(run, epoch=1)
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        assert run.folder.name == "a" and run.checkpoint.epoch == 1
        assert run.checkpoints.folder == tmp_path / "checkpoints" / "a"
        raise KeyboardInterrupt  # before its first save: nothing of it may go
    with open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        assert run.checkpoint.epoch == 1
        save(run, epoch=2)
    with open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints") as run:
        assert run.checkpoint.epoch == 2
        run_table.finish(run.folder, {"run": "a", "started": "now"})
        run.finish()
    assert not list((tmp_path / "runs" / "a").glob("state-*"))


def test_the_last_state_of_a_finished_run_stays_until_the_next_run_of_that_name_begins(tmp_path):
    """If the machine is lost before the model is stored, so is the folder of runs."""
    state = tmp_path / "checkpoints" / "a" / CHECKPOINTS[0]

    def begin(**given):
        for name in ("runs", "checkpoints"):
            (tmp_path / name).mkdir(exist_ok=True)
        return open_run(tmp_path / "runs", checkpoints=tmp_path / "checkpoints", **given)

    with begin() as run:
        files.write_json(run.folder / folders.SETTINGS, {"started": "now"})
        save(run)
        run_table.finish(run.folder, {"run": "a", "started": "now"})
        run.finish()
    (tmp_path / "runs" / "a" / folders.RESULT).rename(tmp_path / "runs" / "result")
    for _ in range(2):  # on a new machine it goes on, also where that is lost again
        (tmp_path / "runs" / "a").rename(tmp_path / "runs" / "old")
        with begin() as run:
            assert run.checkpoint and not (state.parent / folders.FINISHED).exists()
        (tmp_path / "runs" / "old").rename(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "result").rename(tmp_path / "runs" / "a" / folders.RESULT)
    others = {**FINGERPRINT, "photographs": "others"}
    with begin(fingerprint=others) as run:  # says that the first is finished, which it was before this could be said
        assert run.folder.name == "a-2" and state.exists() is False
        save(run, fingerprint=others)
    assert (tmp_path / "runs" / "a" / folders.RESULT).exists()
    with begin() as run:
        assert run.folder.name == "a-3" and (tmp_path / "checkpoints" / "a-2" / CHECKPOINTS[0]).exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_that_cannot_be_locked_does_not_block_its_name(kind, tmp_path):
    """Say, another person's or a read-only one. Here its lock is a folder: not even root can open that for writing."""
    if kind == "file":
        (tmp_path / "a").touch()
    else:
        with open_run(tmp_path) as run:
            save(run)
        (tmp_path / "a" / ".lock").mkdir()
    with open_run(tmp_path) as run:
        assert run.folder.name == "a-2"


def test_a_process_killed_while_it_writes_a_state_leaves_nothing(tmp_path):
    """safetensors writes to a temporary file first. It was left behind, and so the run's name counted as taken."""
    pid = os.fork()
    if pid == 0:
        sys.addaudithook(lambda event, given: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
        with open_run(tmp_path) as run:
            save(run)
    os.waitpid(pid, 0)
    assert len(list((tmp_path / "a").iterdir())) == 3  # the lock, a file, and a folder with the tensors
    with open_run(tmp_path) as run:
        assert run.folder.name == "a" and [path.name for path in run.folder.iterdir()] == [".lock"]


def test_a_run_that_fails_before_it_has_anything_leaves_no_folder_and_one_that_has_keeps_it(tmp_path):
    for name, kept in (("empty", False), ("begun", True)):
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path, name=name) as run:
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
    with open_run(tmp_path) as run:
        assert run.folder == tmp_path / "a"
    with open_run(tmp_path, name="b") as run:
        assert run.folder == tmp_path / "b-2"


def test_no_two_processes_have_the_same_run(tmp_path):
    with open_run(tmp_path) as first:
        save(first)
        with open_run(tmp_path) as second, open_run(tmp_path) as third:
            assert [run.folder.name for run in (first, second, third)] == ["a", "a-2", "a-3"]
            assert second.checkpoint is None


def take(folder, together, found):
    with open_run(folder) as run:
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
