"""Cross-validation: a folder with a run for each fold, and the predictions for people that each run never saw.

With FINAL, one more run there is trained on everybody. A finished net is kept: a run of folds that was stopped goes on
with the first net that is not done.
"""

import contextlib
import itertools
import json
import math
import pathlib
import shutil
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from toolkit.config.settings import TrainSettings
from toolkit.runs import artefacts, folders
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoints
from toolkit.runs.fingerprint import differences
from toolkit.scoring import metrics
from toolkit.system import distributed, files, locks, world
from toolkit.system.console import InputError, say

FINGERPRINT, OUT_OF_FOLD = "folds.json", "out_of_fold.csv"
LOCK = f".folds{locks.LOCK}"  # held for hours; the runs in this folder need its usual lock for their leaderboard


@contextlib.contextmanager
def open_folds(config: TrainSettings, fingerprint: dict) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """The folder of the run of folds with this fingerprint, unfinished or finished, or of a new one; and its nets that
    are done.

    The folder is sm_model_dir/run, or run-2 and so on where that is taken. Unless the run is finished, no other process
    can open it until the block ends. A block that ends with an error before a fold has begun removes it. Nets that are
    done are copied back from sm_checkpoint_dir where the machine is a new one.
    """
    with contextlib.ExitStack() as stack:
        folder = _find_folder(config, fingerprint, stack) if world.rank() == 0 else None
        folder = distributed.broadcast(folder)
        done = [name for name in net_names(config) if (folder / name / folders.RESULT).exists()]
        try:
            yield folder, distributed.broadcast(done)
        except BaseException:
            ours = {folder, _backup_of(config, folder)} if world.rank() == 0 else set()
            if not any(any(path.glob("fold-*")) for path in ours):
                for path in ours:
                    shutil.rmtree(path, ignore_errors=True)
            raise


def net_names(config: TrainSettings) -> list[str]:
    """The folders of the nets, in the order in which they are trained."""
    return [f"fold-{fold}" for fold in range(config.folds)] + [folders.FINAL] * config.final


def _find_folder(config: TrainSettings, fingerprint: dict, stack: contextlib.ExitStack) -> pathlib.Path:
    """The first of run, run-2, ... that goes on or is free, locked until the stack is closed; or a finished run.

    Runs that go on come first, then a finished one with this fingerprint, then the next name that is not there.
    """
    name, finished = config.run, None
    if config.resume == "auto":
        finished = folders.find_finished(config.sm_model_dir, name, fingerprint)
    for number in itertools.count(1):
        folder = config.sm_model_dir / (name if number == 1 else f"{name}-{number}")
        both = dict.fromkeys((folder, _backup_of(config, folder)))
        if finished and not any(path.exists() for path in both):
            return finished
        if folders.claim(both, partial(_is_usable, config, folder, fingerprint), stack, LOCK):
            say(f"run of {config.folds} folds: {folder.absolute()}")
            return folder


def _is_usable(config: TrainSettings, folder: pathlib.Path, fingerprint: dict, new: bool, alone: bool) -> bool:
    """Whether this run can go into the folder: it is empty, or holds an unfinished run that goes on.

    The folder, its backup or both may hold that run. What only the backup has is copied back.
    """
    backup = _backup_of(config, folder)
    if backup != folder and (folder / folders.RESULT).exists() and _read(backup) == _read(folder):
        shutil.rmtree(backup, ignore_errors=True)  # it was killed after its result was written
        return False
    begun = [path for path in (folder, backup) if (path / FINGERPRINT).exists()]
    if not all(folders.is_empty(path) for path in {folder, backup}.difference(begun)):
        return False
    if begun and (config.resume == "never" or not all(_goes_on(path, fingerprint) for path in begun)):
        return False
    for path in (folder, backup):
        files.write_json(path / FINGERPRINT, fingerprint)
    for name in net_names(config):
        if (backup / name / folders.RESULT).exists() and not (folder / name / folders.RESULT).exists():
            _copy(backup / name, folder / name)
    return True


def _backup_of(config: TrainSettings, folder: pathlib.Path) -> pathlib.Path:
    """The folder in sm_checkpoint_dir that outlives the machine; `folder` itself where no other one is set."""
    checkpoints = config.sm_checkpoint_dir
    return folder if checkpoints is None or checkpoints.samefile(folder.parent) else checkpoints / folder.name


def untrained(config: TrainSettings, folder: pathlib.Path, done: list[str]) -> Iterator[tuple[int, TrainSettings]]:
    """Number and settings of each net that is not done, to be trained before the next one is asked for.

    What a killed process left in its way is removed before; after, it is copied to the backup.
    """
    for number, name in enumerate(net_names(config)):
        say(f"{name} of {config.folds} folds{': done before' if name in done else ''}")
        if name == folders.FINAL:
            scores = distributed.broadcast(join(folder, config) if world.rank() == 0 else None)
            own = final_settings(config, folder, scores["epoch"])
        else:
            own = fold_settings(config, folder, name)
        clean_up(own, name in done)
        if name not in done:
            yield number, own
        back_up(config, folder, name)


def back_up(config: TrainSettings, folder: pathlib.Path, name: str) -> None:
    """Copy a net that is done to the backup folder, unless it is there."""
    if world.rank() == 0 and not (_backup_of(config, folder) / name / folders.RESULT).exists():
        _copy(folder / name, _backup_of(config, folder) / name)


def remove_backup(config: TrainSettings, folder: pathlib.Path) -> None:
    """Remove the backup of a run of folds that is finished."""
    if (backup := _backup_of(config, folder)) != folder:
        shutil.rmtree(backup, ignore_errors=True)


def _copy(run: pathlib.Path, to: pathlib.Path) -> None:
    """Copy a run's folder; `to` is whole or not there. Raises InputError where the disk is full."""
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        # Without checkpoints: it is finished, and they are most of its bytes.
        shutil.copytree(run, part, ignore=shutil.ignore_patterns(*CHECKPOINTS, locks.LOCK))
        for path in part.iterdir():
            files.flush(path)
        shutil.rmtree(to, ignore_errors=True)  # rename does not replace a folder that has files
        part.rename(to)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{to}: {run} cannot be copied there: {error}") from None


def _goes_on(folder: pathlib.Path, fingerprint: dict) -> bool:
    """Whether the folder holds an unfinished run of folds with this fingerprint. Says what differs."""
    before = _read(folder)
    if before is None or (folder / folders.RESULT).exists():
        return False
    # Through JSON, as the one in the file has been: it makes lists of tuples.
    if why_not := differences(before, json.loads(json.dumps(fingerprint))):
        say(f"note: the run of folds {folder.name} did not finish, but does not go on: {', '.join(why_not)}")
    return not why_not


def _read(folder: pathlib.Path) -> dict | None:
    """The fingerprint of the run of folds in this folder; None where there is none, or a damaged one."""
    try:
        return json.loads((folder / FINGERPRINT).read_text())
    except (OSError, ValueError):
        return None


def clean_up(config: TrainSettings, done: bool) -> None:
    """Before a net is trained, remove what a killed process left of it. `config`: of that net, see `fold_settings`.

    If it is done, its checkpoints; if it has none to go on from, its folders. A run that found them in its way would
    take the name fold-0-2, and a fold has the run of its own name and no other.
    """
    if world.rank():
        return
    run, checkpoints = config.sm_model_dir / config.run, config.sm_checkpoint_dir / config.run
    if done:
        for folder in {run, checkpoints}:
            Checkpoints(folder).remove()
        return
    checkpoint = Checkpoints(checkpoints).load()
    if checkpoint is None or (run.exists() and not folders.is_same_run(run, checkpoints, checkpoint)):
        for folder in {run, checkpoints}:
            shutil.rmtree(folder, ignore_errors=True)


def fold_settings(config: TrainSettings, folder: pathlib.Path, name: str) -> TrainSettings:
    """The settings for the run of one fold, fold-0 say, in `folder`."""
    return config.model_copy(update=_places(config, folder, name) | {"fold": int(name.removeprefix("fold-"))})


def final_settings(config: TrainSettings, folder: pathlib.Path, kept_epoch: float) -> TrainSettings:
    """The settings for the net of everybody: those of the folds, but for as many epochs as they keep.

    Its schedule is as long: validation chose each fold's epoch, also by luck; here nothing can, and the last epoch of a
    schedule, where the learning rate is lowest, is the one that can be relied on.
    """
    epochs = max(math.floor(kept_epoch + 0.5), config.freeze_epochs + 1)
    alone = {"folds": 0, "final": False, "val_ratio": 0.0, "patience": 0, "decide_by": str(folder.absolute())}
    return config.model_copy(update=_places(config, folder, folders.FINAL) | alone | {"epochs": epochs})


def _places(config: TrainSettings, folder: pathlib.Path, name: str) -> dict:
    """The settings that say where a net of this name is trained."""
    # Its checkpoint stays where it is: SM_CHECKPOINT_DIR may have been set since.
    begun = any((folder / name / file).exists() for file in CHECKPOINTS)
    checkpoints = folder if begun or world.rank() else _backup_of(config, folder)
    return {"sm_model_dir": folder, "sm_checkpoint_dir": checkpoints, "run": name}


def join(folder: pathlib.Path, config: TrainSettings) -> dict:
    """Write out_of_fold.csv: every photograph, predicted by the run that never saw its person.

    Returns its scores, with the names that a row of history.csv has. Raises InputError where a photograph is in several
    folds.
    """
    runs = [folder / f"fold-{fold}" for fold in range(config.folds)]
    tables = [artefacts.read_predictions(run / "validation.csv") for run in runs]
    results = [_result(run) for run in runs]
    table = pd.concat([table.assign(fold=fold) for fold, table in enumerate(tables)]).sort_values("path")
    if table["path"].duplicated().any():
        raise InputError(f"{folder}: expected every photograph in one fold, found some in several; begin a new run")
    files.write_csv(folder / OUT_OF_FOLD, {name: table[name] for name in table})
    return {
        "epoch": round(float(np.mean([result["kept_epoch"] for result in results])), 1),
        "val_loss": float(np.average([result["val_loss"] for result in results], weights=list(map(len, tables)))),
        **metrics.headline_scores(table["label"], table["predicted"]),
    }


def times(folder: pathlib.Path, config: TrainSettings) -> tuple[str, float]:
    """When the first of its nets began, and the seconds of all."""
    results = [_result(folder / name) for name in net_names(config)]
    return results[0]["started"], sum(result["seconds"] for result in results)


def _result(run: pathlib.Path) -> dict:
    return json.loads((run / folders.RESULT).read_text())
