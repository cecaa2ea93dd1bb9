"""Runs in their folders: where a new one goes, which one is meant, and the leaderboard of the finished ones."""

import contextlib
import glob
import itertools
import os
import pathlib
import re
import shutil
import time

from toolkit import files
from toolkit.console import InputError, listed, say

WEIGHTS, RESULT = "model.safetensors", "result.json"  # the best weights so far; and, once it is finished, the scores


@contextlib.contextmanager
def new_folder(runs: pathlib.Path, name: str):
    """A folder of its own for a new run: runs/name, or name-2, name-3 and so on where that is taken.

    `runs` must be there. The new folder goes again where the block ends with an error before there are weights in it.
    """
    for number in itertools.count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):  # taken, by another run of this moment even
            folder.mkdir()
            break
    try:
        yield folder
    except BaseException:
        if not (folder / WEIGHTS).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def find(runs: pathlib.Path, name: str | None) -> pathlib.Path:
    """The folder of the run that is meant: `runs` itself where it is a run, else runs/name, else the newest run.

    Raises InputError where there is none.
    """
    if (runs / WEIGHTS).is_file():
        return runs
    there = sorted(runs.glob(f"*/{WEIGHTS}"), key=lambda weights: weights.stat().st_mtime, reverse=True)
    found = [weights.parent.name for weights in there]
    if name in found or (name is None and found):
        return runs / (name or found[0])
    what = f"NAME={name}: expected {runs / str(name) / WEIGHTS}" if name else f"expected a run in {runs}"
    raise InputError(f"{what}, found {f'the runs {listed(found)}' if found else 'no run'}; SM_CHANNEL_MODEL={runs}")


def newer(folder: pathlib.Path) -> list[str]:
    """The later runs of the same name, name-2 and so on, from the oldest to the newest."""
    age = {
        file.parent.name: file.stat().st_mtime for file in folder.parent.glob(f"{glob.escape(folder.name)}*/{WEIGHTS}")
    }
    later = re.compile(re.escape(folder.name) + r"-\d+")
    return sorted((run for run in age if later.fullmatch(run) and age[run] > age[folder.name]), key=age.get)


def finish(folder: pathlib.Path, row: dict) -> None:
    """Mark a run as finished by its result.json, and add its line to the leaderboard, which keeps all that it has."""
    files.write_json(folder / RESULT, row)
    path = folder.parent / "leaderboard.csv"
    with files.locked(folder.parent):
        try:
            before = files.read_csv(path, ("run",), "SM_MODEL_DIR") if path.exists() else {}
        except InputError as error:  # a finished run is not lost over a damaged table
            if not os.access(path, os.R_OK):
                say(f"note: {error}; the run's line is not added, it stands in {folder / RESULT}")
                return
            aside = path.with_name(f"leaderboard.damaged-{time.time_ns()}.csv")
            path.rename(aside)
            say(f"note: {error}; it is now {aside.name}, and a new one is begun")
            before = {}
        empty = [""] * len(before.get("run", []))
        columns = dict.fromkeys([*before, *row])
        files.write_csv(path, {name: [*before.get(name, empty), row.get(name, "")] for name in columns})
