"""Runs in their folders: where a new one goes, which one goes on, which one is meant, and the leaderboard."""

import contextlib
import glob
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from toolkit import ROOT
from toolkit.runs.checkpoint import STATES, State, States
from toolkit.system import files, world
from toolkit.system.console import InputError, listed, say

WEIGHTS, RESULT = "model.safetensors", "result.json"  # the best weights so far; and, once it is finished, the scores
EXPORTED = "model.onnx"  # the same net, where export.py has made it
SETTINGS = "settings.json"
BOARD = "tensorboard"  # folder of what TensorBoard reads, which is made anew whenever a run goes on
MARKERS = (".sagemaker-uploading", ".sagemaker-uploaded")  # of SageMaker, beside each file of its checkpoint folder
# What may change a result: pages and requests do not.
CODE = ("train.py", "dataset.py", "model.py", "loss.py", "toolkit/**/*.py")


@dataclass
class Run:
    """A run that this process has for itself."""

    folder: pathlib.Path
    states: States  # which may lie in another folder
    state: State | None  # from which it goes on
    header: dict = field(default_factory=dict)  # of its weights, but for their scores


@contextlib.contextmanager
def opened(
    runs: pathlib.Path, checkpoints: pathlib.Path | None, name: str, identity: dict, resume: str
) -> Iterator[Run | None]:
    """The unfinished run of this identity, where there is one and `resume` is "auto"; else a new one in its own folder.

    That is runs/name, or name-2, name-3 and so on where it is taken. Its state goes there too, or to the same name in
    `checkpoints`. Both folders must be there. A new run's folders go again where the block ends with an error before
    there is a state or weights in them. Nobody else has the run until the block ends. Of several processes only the
    first one gets it.
    """
    if world.rank():
        yield None
        return
    if checkpoints is None or checkpoints.samefile(runs):
        checkpoints = runs
    with contextlib.ExitStack() as stack:
        run = _unfinished(runs, checkpoints, name, identity, stack) if resume == "auto" else None
        if run is None:
            run = _new(runs, checkpoints, name, stack)
        try:
            yield run
        except BaseException:
            if not (run.folder / WEIGHTS).exists() and not any(path.exists() for path in run.states.paths):
                for folder in {run.folder, run.states.folder}:
                    shutil.rmtree(folder, ignore_errors=True)
            raise
    with contextlib.suppress(OSError):  # there are states in it
        run.states.folder.rmdir()


def _unfinished(runs, checkpoints, name: str, identity: dict, stack: contextlib.ExitStack) -> Run | None:
    """The newest run of that name and identity that did not finish and that nobody is at. Says what others lack."""
    pattern = re.compile(re.escape(name) + r"(-\d+)?")
    times = {}
    for file in (checkpoint for state in STATES for checkpoint in checkpoints.glob(f"{glob.escape(name)}*/{state}")):
        with contextlib.suppress(FileNotFoundError):  # the run has just finished
            if pattern.fullmatch(file.parent.name):
                times[file.parent] = file.stat().st_mtime
    for folder in sorted(times, key=times.get, reverse=True):
        run = runs / folder.name
        if (run / RESULT).exists():
            if folder == run:  # killed when all was done
                States(folder).remove()
            continue
        with contextlib.ExitStack() as attempt:
            try:
                run.mkdir(exist_ok=True)  # where only the checkpoints outlived the machine
                _lock(dict.fromkeys((run, folder)), attempt)
            except InterruptedError:
                say(f"note: the run {folder.name} is being trained by another process at this moment")
                continue
            states = States(folder)
            state, why_not = _fitting(states, identity)
            if state and not is_of(run, folder, state):
                why_not = [f"{run} holds another run of that name"]
            if not why_not:
                stack.push(attempt.pop_all())
                return Run(run, states, state)
            say(f"note: the run {folder.name} did not finish, but does not go on: {listed(why_not, most=20)}")
        with contextlib.suppress(OSError):  # it is not empty: it was there before
            run.rmdir()
    return None


def _fitting(states: States, identity: dict) -> tuple[State | None, list[str]]:
    """The newest whole state, and what keeps it from going on. What a damaged one says is not believed."""
    differing = [compare(note.identity, identity) for note in states.notes.values()]
    if differing and all(differing):  # so that it need not be read whole
        return None, differing[0]
    state = states.load()
    return state, compare(state.identity, identity) if state else ["no state of it is whole"]


def is_of(run: pathlib.Path, states: pathlib.Path, state: State) -> bool:
    """Whether the run's folder is that of this state, or still empty."""
    if states == run or is_empty(run):
        return True
    try:
        return json.loads((run / SETTINGS).read_text())["started"] == state.started
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _new(runs, checkpoints, name: str, stack: contextlib.ExitStack) -> Run:
    for number in itertools.count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        places = dict.fromkeys((folder, checkpoints / folder.name))
        if claim(places, partial(_are_free, places), stack):
            return Run(folder, States(checkpoints / folder.name), None)


def _are_free(places: Iterable[pathlib.Path], new: bool, alone: bool) -> bool:
    """One that was killed before it had anything is taken over, where a lock tells that it is not at it still."""
    return new or (alone and all(is_empty(place) for place in places))


def claim(places: Iterable[pathlib.Path], fits: Callable[[bool, bool], bool], stack, lock: str = files.LOCK) -> bool:
    """Have these folders until the stack is closed, if nobody else has them and they fit; whether that is so.

    Those that are not there are made, and go again where they are not had. `fits` is told whether all of them are new,
    and whether nobody else can have them.
    """
    made = {place: _make(place) for place in places}
    with contextlib.ExitStack() as attempt, contextlib.suppress(InterruptedError):
        alone = _lock(places, attempt, lock)
        if fits(all(made.values()), alone):
            stack.push(attempt.pop_all())
            return True
    for place in filter(made.get, made):
        with contextlib.suppress(OSError):  # another one has it by now
            place.rmdir()
    return False


def _make(folder: pathlib.Path) -> bool:
    """Whether it was made by this call."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def is_empty(folder: pathlib.Path) -> bool:
    names = [file.name for file in folder.iterdir()]
    return all(name in (SETTINGS, BOARD) or name.endswith((files.LOCK, *MARKERS)) for name in names)


def _lock(places: Iterable[pathlib.Path], stack: contextlib.ExitStack, name: str = files.LOCK) -> bool:
    """Have all folders until the stack is closed; whether nobody else can. Raises InterruptedError if another has."""
    alone = True
    for folder in places:
        try:
            alone &= stack.enter_context(files.locked(folder, until=lambda: True, name=name))
        except (FileNotFoundError, NotADirectoryError):  # taken away in this moment, by a run that has failed; a file
            raise InterruptedError from None
    return alone


def identity(settings: dict, photographs: str) -> dict:
    """What must be the same for a run to go on: settings that change its result, photographs and labels, and code."""
    code = {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for pattern in CODE
        for path in sorted(ROOT.glob(pattern))
    }
    return {"settings": settings, "photographs": photographs, "code": code}


def compare(before: dict, now: dict) -> list[str]:
    """What differs between two identities, each as a person would say it."""
    settings = [before.get("settings", {}), now["settings"]]
    code = [before.get("code", {}), now["code"]]
    differing = [
        f"{key.upper()} is {settings[1].get(key)}, was {settings[0].get(key)}"
        for key in dict.fromkeys([*settings[1], *settings[0]])
        if settings[0].get(key) != settings[1].get(key)
    ]
    if before.get("photographs") != now["photographs"]:
        differing.append("the photographs or their labels have changed")
    changed = [path for path in dict.fromkeys([*code[1], *code[0]]) if code[0].get(path) != code[1].get(path)]
    return differing + [f"{path} has changed" for path in changed]


def named(folder: pathlib.Path, names: str | None, file: str, read_header: Callable[[pathlib.Path], dict]) -> dict:
    """The runs in `folder` that NAME means, as {folder: header of its `file`}. Says which they are, and of newer ones.

    Raises InputError where there is none, and what `read_header` raises.
    """
    headers = {}
    for name in [name.strip() for name in (names or "").split(",") if name.strip()] or [None]:
        meant, folders = find(folder, name, file)
        found = {run: read_header(run / file) for run in folders}
        own_names = [meant.name, *(header[key] for header in found.values() for key in ("run", "backbone"))]
        if name and name not in own_names:
            raise InputError(
                f"NAME={name}: SM_CHANNEL_MODEL={meant} is itself a run, {', '.join(own_names)}; leave NAME unset"
            )
        here = [run for run in folders if (run / WEIGHTS).exists()]  # a model.onnx may have been taken elsewhere, alone
        for run, header in found.items():
            scores, (height, width) = header["scores"], header["size"]
            say(
                f"run {run.absolute()}: {header['backbone']} at {height}x{width}, "
                f"epoch {scores['epoch']}, validation macro F1 {scores['macro_f1']:.4f}"
            )
            if run in here and not (run / RESULT).exists():
                say("note: this run did not finish, or is still running: these are its best weights so far")
        if here and folders != [meant] and not (meant / RESULT).exists():
            say(f"note: {meant.absolute()} did not finish, or is still running: {len(folders)} of its folds answer")
        if others := newer(meant, file):
            say(f"note: there are newer runs of that name: {listed(others)}; NAME={others[-1]} takes the last")
        headers |= found
    return headers


def find(folder: pathlib.Path, name: str | None, file: str = WEIGHTS) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder that is meant, and the runs in it: itself, or the folds of a run of folds, in their order.

    It is `folder` itself where that is one, or the fold in it that has the name, else folder/name, else the newest in
    `folder`; a run is what has that `file`. Raises InputError where there is none, or not in all folds that there are.
    """
    if there := members(folder, file):
        one = [run for run in there if run.name == name]
        return (folder / name, one) if one else (folder, _all_of(folder, there, file))
    age = _ages(folder, "*", file)
    if name is None and age:
        name = max(age, key=age.get)
    if name in age:
        return folder / name, _all_of(folder / name, members(folder / name, file), file)
    what = f"NAME={name}: expected {folder / str(name) / file}" if name else f"expected a run with a {file} in {folder}"
    found = f"the runs {listed(sorted(age, key=age.get, reverse=True))}" if age else "no run"
    hint = "; export.py makes that file" if file == EXPORTED else ""
    raise InputError(f"{what}, found {found}; SM_CHANNEL_MODEL={folder}{hint}")


def members(folder: pathlib.Path, file: str = WEIGHTS) -> list[pathlib.Path]:
    """The folder, if it is a run; its runs, if it is a run of folds; else nothing."""
    if (folder / file).is_file():
        return [folder]
    fold_of = {path.parent: path.parent.name.removeprefix("fold-") for path in folder.glob(f"fold-*/{file}")}
    return sorted((run for run in fold_of if fold_of[run].isdecimal()), key=lambda run: int(fold_of[run]))


def _all_of(folder: pathlib.Path, there: list[pathlib.Path], file: str) -> list[pathlib.Path]:
    if missing := [run.name for run in members(folder) if run not in there]:
        raise InputError(f"{folder}: expected a {file} in every fold, found none in {listed(missing)}; run export.py")
    return there


def newer(folder: pathlib.Path, file: str = WEIGHTS) -> list[str]:
    """The later runs of the same name, name-2 and so on, from the oldest to the newest."""
    folder = folder.absolute()
    age = _ages(folder.parent, f"{glob.escape(folder.name)}*", file)
    later = re.compile(re.escape(folder.name) + r"-\d+")
    return sorted((run for run in age if later.fullmatch(run) and age[run] > age[folder.name]), key=age.get)


def _ages(folder: pathlib.Path, pattern: str, file: str) -> dict[str, float]:
    """When the newest weights of each run in a folder were written."""
    there = ((child.name, members(child, file)) for child in folder.glob(pattern) if child.is_dir())
    return {name: max((run / file).stat().st_mtime for run in some) for name, some in there if some}


def finish(folder: pathlib.Path, row: dict) -> None:
    """Mark a run as finished by its result.json, and add its line to the leaderboard, which keeps all that it has.

    A run that was killed in here does it again, and has one line all the same: lines of one run began at one time.
    """
    with files.locked(folder.parent):
        _add_line(folder.parent / "leaderboard.csv", row)
        files.write_json(folder / RESULT, row)


def _add_line(path: pathlib.Path, row: dict) -> None:
    try:
        before = files.read_csv(path, ("run",), "SM_MODEL_DIR") if path.exists() else {}
    except InputError as error:  # a finished run is not lost over a damaged table
        if not os.access(path, os.R_OK):
            say(f"note: {error}; the run's line is not added, it stands in its {RESULT}")
            return
        aside = path.with_name(f"leaderboard.damaged-{time.time_ns()}.csv")
        path.rename(aside)
        say(f"note: {error}; it is now {aside.name}, and a new one is begun")
        before = {}
    rows = [dict(zip(before, cells, strict=True)) for cells in zip(*before.values(), strict=True)]
    rows = [
        other for other in rows if [other.get(key) for key in ("run", "started")] != [row["run"], row.get("started")]
    ]
    columns = dict.fromkeys([*before, *row])
    files.write_csv(path, {name: [other.get(name, "") for other in [*rows, row]] for name in columns})
