"""Cross-validation: a folder with a run for each fold, and the predictions for people that each run never saw.

With FINAL, one more run there is trained on everybody. A finished net is kept: a run of folds that was stopped goes on
with the first net that is not done.
"""

import contextlib
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from toolkit.config.settings import TrainSettings
from toolkit.runs import artefacts, folders, run_table
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoints, remove_checkpoints
from toolkit.runs.fingerprint import Fingerprint, differences
from toolkit.scoring import metrics
from toolkit.system import csv_files, distributed, files, world
from toolkit.system.console import InputError, say

OUT_OF_FOLD = "out_of_fold.csv"


@contextlib.contextmanager
def open_folds(config: TrainSettings, fingerprint: dict) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Find or make the folder of the run of folds with this fingerprint. Yields it, and the names of its finished nets.

    The folder is sm_model_dir/run, or run-2 and so on if that is taken. Unless the run is finished, no other process
    can open it until the block ends. If the block ends with an error before a fold has begun, the folder is removed. On
    a new machine, finished nets are copied back from sm_checkpoint_dir.
    """
    with contextlib.ExitStack() as stack:
        folder = _find_folder(config, fingerprint, stack) if world.rank() == 0 else None
        folder = distributed.broadcast(folder)
        done = [name for name in net_names(config) if (folder / name / folders.RESULT).exists()]
        try:
            yield folder, distributed.broadcast(done)
        except BaseException:
            ours = {folder, _backup_of(config, folder)} if world.rank() == 0 else set()
            if all(folders.is_empty(path, folders.FOLDS) for path in ours if path.exists()):
                for path in ours:
                    shutil.rmtree(path, ignore_errors=True)
            raise


def net_names(config: TrainSettings) -> list[str]:
    """The folders of the nets, in the order in which they are trained."""
    return [f"fold-{fold}" for fold in range(config.folds)] + [folders.FINAL] * config.final


def _find_folder(config: TrainSettings, fingerprint: dict, stack: contextlib.ExitStack) -> pathlib.Path:
    """The newest of the folders run, run-2, ... whose run can go on; else a finished one; else the first free one.

    The folder is locked until the stack is closed, unless the run is finished.
    """
    runs, name = config.sm_model_dir, config.run

    def claim(folder: pathlib.Path, usable: Callable[..., bool]) -> bool:
        both = dict.fromkeys((folder, _backup_of(config, folder)))
        return folders.claim(both, partial(usable, config, folder, fingerprint), stack, folders.FOLDS_LOCK)

    begun = []
    if config.resume == "auto":
        places = (runs, config.sm_checkpoint_dir or runs)
        begun = [runs / folder.name for folder in folders.newest_first(places, name, (folders.FOLDS,))]
    folder = next((folder for folder in dict.fromkeys(begun) if claim(folder, _goes_on)), None)
    if not folder and config.resume == "auto" and (finished := folders.find_finished(runs, name, fingerprint)):
        return finished
    if not folder:
        if _backup_of(config, runs / name) != runs / name:
            folders.clear_finished(config.sm_checkpoint_dir, name)
        folder = next(folder for folder in map(runs.joinpath, folders.numbered(name)) if claim(folder, _begins))
    say(f"run of {config.folds} folds: {folder.absolute()}")
    return folder


def _begins(config: TrainSettings, folder: pathlib.Path, fingerprint: dict, new: bool, alone: bool) -> bool:
    """Whether a new run can begin in the folder. If so, its fingerprint is written there and to the backup."""
    both = {folder, _backup_of(config, folder)}
    if is_free := folders.are_free(both, new, alone):
        _write_fingerprint(both, fingerprint)
    return is_free


def _goes_on(config: TrainSettings, folder: pathlib.Path, fingerprint: dict, new: bool, alone: bool) -> bool:
    """Whether the folder, its backup or both hold an unfinished run with this fingerprint. Says what differs.

    If so, nets that only the backup has are copied back.
    """
    backup = _backup_of(config, folder)
    if (folder / folders.RESULT).exists():
        saved = _read(backup) if backup != folder else None
        if saved is not None and saved == _read(folder):
            folders.mark_finished(backup, folder)  # its process was killed before it did
        return False
    begun = [path for path in dict.fromkeys((folder, backup)) if (path / folders.FOLDS).exists()]
    before, now = [_read(path) for path in begun], json.loads(json.dumps(fingerprint))  # as in files: no tuples
    if None in before:
        return False
    why_not = next(filter(None, (differences(each, now) for each in before)), [])
    if why_not and not (backup / folders.FINISHED).exists():
        say(f"note: the run of folds {folder.name} did not finish, but does not go on: {', '.join(why_not)}")
    if why_not or not all(folders.is_empty(path) for path in {folder, backup}.difference(begun)):
        return False
    (backup / folders.FINISHED).unlink(missing_ok=True)
    _write_fingerprint({folder, backup}, fingerprint)
    for name in net_names(config):
        if (backup / name / folders.RESULT).exists() and not (folder / name / folders.RESULT).exists():
            _copy(backup / name, folder / name)
    run_table.update(folder)  # with the nets that were copied
    return True


def _backup_of(config: TrainSettings, folder: pathlib.Path) -> pathlib.Path:
    """The folder in sm_checkpoint_dir that outlives the machine; `folder` itself where no other one is set."""
    checkpoints = config.sm_checkpoint_dir
    return folder if checkpoints is None or checkpoints.samefile(folder.parent) else checkpoints / folder.name


def untrained(config: TrainSettings, folder: pathlib.Path, done: list[str]) -> Iterator[tuple[int, TrainSettings]]:
    """Yields number and settings of each unfinished net; the caller trains it before it asks for the next one.

    Before each net, what a killed process left of it is removed; after it, the net is copied to the backup.
    """
    names = net_names(config)
    for number, name in enumerate(names):
        say(f"net {number + 1} of {len(names)}: {name}{', done before' if name in done else ''}")
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


def finish(config: TrainSettings, folder: pathlib.Path) -> None:
    """Mark the backup as finished; it stays until the next run of that name begins: see `Run.finish`."""
    folders.mark_finished(_backup_of(config, folder), folder)


def _copy(run: pathlib.Path, to: pathlib.Path) -> None:
    """Copy the folder of a finished run to `to`, which may hold its checkpoints. Its result comes last: all is there.

    Raises InputError if it cannot be written, as on a full disk.
    """
    try:
        ignored = shutil.ignore_patterns(*CHECKPOINTS, folders.RESULT, folders.FINISHED, files.LOCK)
        shutil.copytree(run, to, ignore=ignored, dirs_exist_ok=True)
        for path in to.rglob("*"):
            files.flush(path)
        files.write(to / folders.RESULT, (run / folders.RESULT).read_bytes())
        remove_checkpoints(to)
        (to / folders.FINISHED).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{to}: {run} cannot be copied there: {error}") from None


def _write_fingerprint(places: Iterable[pathlib.Path], fingerprint: dict) -> None:
    for path in places:
        files.write_json(path / folders.FOLDS, fingerprint)


def _read(folder: pathlib.Path) -> dict | None:
    """The fingerprint of the run of folds in this folder; None if it is missing or, with a note, damaged."""
    try:
        return files.read_json(folder / folders.FOLDS, Fingerprint)
    except FileNotFoundError:
        return None
    except InputError as error:
        say(f"note: {error}; that run is passed over")
        return None


def clean_up(config: TrainSettings, done: bool) -> None:
    """Remove what a killed process left of a net. `config`: the settings of that net, see `fold_settings`.

    If the net is done, its checkpoints are removed. If it has no whole checkpoint, its folders are. If its newest
    checkpoint belongs to another run than its folder, that folder is: else the net would be trained as fold-0-2, and
    only fold-0 is read.
    """
    if world.rank():
        return
    run = config.sm_model_dir / config.run
    places = folders.state_places(config.sm_model_dir, config.sm_checkpoint_dir, config.run)
    newest_first = folders.newest_first(places, config.run, CHECKPOINTS)
    of_net = [folder for folder in newest_first if folder.name == config.run]
    if done:
        for folder in of_net:
            remove_checkpoints(folder)
        for place in places:
            files.sweep(place / config.run)
        return
    whole = ((folder, Checkpoints(folder).load()) for folder in of_net)
    found = next(((folder, checkpoint) for folder, checkpoint in whole if checkpoint), None)
    if found is None or (run.exists() and not folders.is_same_run(run, *found)):
        shutil.rmtree(run, ignore_errors=True)
    if found is None:
        shutil.rmtree(config.sm_checkpoint_dir / config.run, ignore_errors=True)


def fold_settings(config: TrainSettings, folder: pathlib.Path, name: str) -> TrainSettings:
    """The settings for the run of one fold, fold-0 say, in `folder`."""
    return config.model_copy(update=_places(config, folder, name) | {"fold": int(name.removeprefix("fold-"))})


def final_settings(config: TrainSettings, folder: pathlib.Path, kept_epoch: float) -> TrainSettings:
    """The settings of the final net: those of the folds, with as many epochs as the mean of their kept epochs.

    The learning-rate schedule has this length, too. The final net has no validation people to choose an epoch. The last
    epoch of a schedule is the reliable choice, as the learning rate is lowest there.
    """
    epochs = math.floor(kept_epoch + 0.5)
    alone = {"folds": 0, "final": False, "val_ratio": 0.0, "patience": 0, "decide_by": str(folder.absolute())}
    return config.model_copy(update=_places(config, folder, folders.FINAL) | alone | {"epochs": epochs})


def _places(config: TrainSettings, folder: pathlib.Path, name: str) -> dict:
    """The settings that say where a net of this name is trained."""
    checkpoints = folder if world.rank() else _backup_of(config, folder)  # ranks other than 0 write nothing
    return {"sm_model_dir": folder, "sm_checkpoint_dir": checkpoints, "run": name}


def join(folder: pathlib.Path, config: TrainSettings) -> dict:
    """Write out_of_fold.csv: every photograph, predicted by the run that never saw its person.

    Returns its scores, under the names of history.csv. Raises InputError if a photograph is in several folds.
    """
    runs = [folder / f"fold-{fold}" for fold in range(config.folds)]
    tables = [artefacts.read_predictions(run / "validation.csv") for run in runs]
    results = [_result(run, "kept_epoch", "val_loss") for run in runs]
    table = pd.concat([table.assign(fold=fold) for fold, table in enumerate(tables)]).sort_values("path")
    if table["path"].duplicated().any():
        raise InputError(f"{folder}: expected every photograph in one fold, found some in several; begin a new run")
    csv_files.write(folder / OUT_OF_FOLD, {name: table[name] for name in table})
    return {
        "epoch": round(float(np.mean([result["kept_epoch"] for result in results])), 1),
        "val_loss": float(np.average([result["val_loss"] for result in results], weights=list(map(len, tables)))),
        **metrics.headline_scores(table["label"], table["predicted"]),
        **artefacts.interval(artefacts.Validation(table["path"], table["person"], table["label"]), table["predicted"]),
    }


def times(folder: pathlib.Path, config: TrainSettings) -> tuple[str, float]:
    """When the first net began (ISO 8601, UTC), and the seconds of all nets together."""
    results = [_result(folder / name, "started", "seconds") for name in net_names(config)]
    return results[0]["started"], sum(result["seconds"] for result in results)


def _result(run: pathlib.Path, *needed: str) -> dict:
    """The result of a net. Raises InputError, with how to train the net again, if it is damaged or lacks `needed`."""
    remedy = "remove that file, and the same command trains this net again"
    try:
        result = folders.read_result(run)
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
    if missing := [name for name in needed if result.get(name) is None]:
        raise InputError(f"{run / folders.RESULT}: expected {', '.join(missing)} of a run, found none; {remedy}")
    return result
