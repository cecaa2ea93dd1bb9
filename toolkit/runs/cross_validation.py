"""A run of folds: a folder with a run for each fold, and what each says of the people that it never saw."""

import contextlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from toolkit.config.settings import TrainSettings
from toolkit.runs import folders
from toolkit.runs.checkpoint import STATES, State, States
from toolkit.scoring import metrics
from toolkit.system import distributed, files, world
from toolkit.system.console import InputError, say

IDENTITY, OUT_OF_FOLD = "folds.json", "out_of_fold.csv"
LOCK = f".folds{files.LOCK}"  # held for hours; the folder's leaderboard has the usual one


@contextlib.contextmanager
def opened(config: TrainSettings, identity: dict) -> Iterator[tuple[pathlib.Path, list[int]]]:
    """The folder of the unfinished run of folds of this identity, or a new one; and the folds that are done.

    It is sm_model_dir/name, or name-2 and so on where that is taken. Nobody else has it until the block ends. It goes
    again where the block ends with an error before there is a run in it. Where only sm_checkpoint_dir outlived the
    machine, the folds that are done are fetched from there.
    """
    with contextlib.ExitStack() as stack:
        folder = _open(config, identity, stack) if world.rank() == 0 else None
        folder = distributed.broadcast(folder)
        done = [fold for fold in range(config.folds) if (folder / f"fold-{fold}" / folders.RESULT).exists()]
        try:
            yield folder, distributed.broadcast(done)
        except BaseException:
            places = {folder, _kept(config, folder)} if world.rank() == 0 else set()
            if not any(any(place.glob("fold-*")) for place in places):
                for place in places:
                    shutil.rmtree(place, ignore_errors=True)
            raise


def _open(config: TrainSettings, identity: dict, stack: contextlib.ExitStack) -> pathlib.Path:
    for number in itertools.count(1):
        folder = config.sm_model_dir / (config.name if number == 1 else f"{config.name}-{number}")
        places = dict.fromkeys((folder, _kept(config, folder)))
        if folders.claim(places, partial(_takes, config, folder, identity), stack, LOCK):
            say(f"run of {config.folds} folds: {folder.absolute()}")
            return folder


def _takes(config: TrainSettings, folder: pathlib.Path, identity: dict, new: bool, alone: bool) -> bool:
    """Whether the run goes into this folder: a new one, or an unfinished one of its identity, or what is kept of it."""
    kept = _kept(config, folder)
    if kept != folder and (folder / folders.RESULT).exists() and _read(kept) == _read(folder):
        shutil.rmtree(kept, ignore_errors=True)  # killed when all was done
        return False
    begun = [place for place in (folder, kept) if (place / IDENTITY).exists()]
    if not all(folders.is_empty(place) for place in {folder, kept}.difference(begun)):
        return False
    if begun and (config.resume == "never" or not all(_goes_on(place, identity) for place in begun)):
        return False
    for place in (folder, kept):
        files.write_json(place / IDENTITY, identity)
    for fold in kept.glob("fold-*"):
        if (fold / folders.RESULT).exists() and not (folder / fold.name / folders.RESULT).exists():
            _copy(fold, folder / fold.name)
    return True


def _kept(config: TrainSettings, folder: pathlib.Path) -> pathlib.Path:
    """Where states and finished folds outlive the machine: the folder itself, where no other one is set for it."""
    checkpoints = config.sm_checkpoint_dir
    return folder if checkpoints is None or checkpoints.samefile(folder.parent) else checkpoints / folder.name


def keep(config: TrainSettings, folder: pathlib.Path, fold: int) -> None:
    """Copy a fold that is done to where it outlives the machine."""
    if world.rank() == 0 and not (_kept(config, folder) / f"fold-{fold}" / folders.RESULT).exists():
        _copy(folder / f"fold-{fold}", _kept(config, folder) / f"fold-{fold}")


def forget(config: TrainSettings, folder: pathlib.Path) -> None:
    """Take away what was kept of a run of folds elsewhere: it is done."""
    if (kept := _kept(config, folder)) != folder:
        shutil.rmtree(kept, ignore_errors=True)


def _copy(run: pathlib.Path, to: pathlib.Path) -> None:
    """A copy of a run's folder, whole or not there. Raises InputError where the disk is full."""
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(run, part, ignore=shutil.ignore_patterns(*STATES, files.LOCK))
        for path in part.iterdir():
            files.flush(path)
        shutil.rmtree(to, ignore_errors=True)
        part.rename(to)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{to}: {run} cannot be copied there: {error}") from None


def _goes_on(folder: pathlib.Path, identity: dict) -> bool:
    """Whether this is an unfinished run of folds of that identity. Says what it lacks."""
    before = _read(folder)
    if before is None or (folder / folders.RESULT).exists():
        return False
    if why_not := folders.compare(before, json.loads(json.dumps(identity))):
        say(f"note: the run of folds {folder.name} did not finish, but does not go on: {', '.join(why_not)}")
    return not why_not


def _read(folder: pathlib.Path) -> dict | None:
    try:
        return json.loads((folder / IDENTITY).read_text())
    except (OSError, ValueError):
        return None


def prepare(own: TrainSettings, done: bool) -> None:
    """Take away what a killed run of a fold left: its states, if it is done; all, if it has none to go on from.

    So every fold has the run of its own name, and no other one.
    """
    if world.rank():
        return
    run, states = own.sm_model_dir / own.name, own.sm_checkpoint_dir / own.name
    if done:
        for folder in {run, states}:
            States(folder).remove()
        return
    state = States(states).load()
    if state is None or (run.exists() and not folders.is_of(run, states, state)):
        for folder in {run, states}:
            shutil.rmtree(folder, ignore_errors=True)


def settings_of(config: TrainSettings, folder: pathlib.Path, fold: int) -> TrainSettings:
    """The settings of the run of one fold. Its state stays where it is, if it was begun without SM_CHECKPOINT_DIR."""
    begun = any((folder / f"fold-{fold}" / state).exists() for state in STATES)
    checkpoints = folder if begun or world.rank() else _kept(config, folder)
    own = {"sm_model_dir": folder, "sm_checkpoint_dir": checkpoints, "name": f"fold-{fold}", "fold": fold}
    return config.model_copy(update=own)


def join(folder: pathlib.Path, count: int) -> tuple[dict, State]:
    """Write out_of_fold.csv from the runs of all folds; its scores, as of a run's best epoch, and their state."""
    tables = [pd.read_csv(folder / f"fold-{fold}" / "validation.csv", dtype={"person": str}) for fold in range(count)]
    results = [json.loads((folder / f"fold-{fold}" / folders.RESULT).read_text()) for fold in range(count)]
    table = pd.concat([table.assign(fold=fold) for fold, table in enumerate(tables)]).sort_values("path")
    if table["path"].duplicated().any():
        raise InputError(f"{folder}: expected every photograph in one fold, found some in several; begin a new run")
    files.write_csv(folder / OUT_OF_FOLD, {name: table[name] for name in table})
    best = {
        "epoch": round(float(np.mean([result["best_epoch"] for result in results])), 1),
        "val_loss": float(np.average([result["val_loss"] for result in results], weights=list(map(len, tables)))),
        **metrics.headline(table["label"], table["predicted"]),
    }
    return best, State({}, results[0]["started"], sum(result["seconds"] for result in results))
