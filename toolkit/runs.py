"""Runs in their folders: where a new one goes, which one is meant, and the leaderboard of the finished ones."""

import glob
import itertools
import pathlib
import re

import pandas as pd

from toolkit import files
from toolkit.errors import InputError, listed

WEIGHTS = "model.safetensors"


def new_folder(runs: pathlib.Path, name: str) -> pathlib.Path:
    """A folder of its own for a new run: runs/name, or name-2, name-3 and so on where that is taken."""
    files.make_folder(runs, "SM_MODEL_DIR")
    for number in itertools.count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()  # fails where another run, of this moment even, has taken it
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"SM_MODEL_DIR={runs}: cannot make {folder.name} in it: {error.strerror}") from None


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


def add_to_leaderboard(runs: pathlib.Path, row: dict) -> None:
    """Add a finished run's line to runs/leaderboard.csv, which keeps every line and column that it has."""
    path = runs / "leaderboard.csv"
    table = pd.DataFrame([row])
    if path.exists():
        table = pd.concat([pd.read_csv(path, dtype=str), table])
    files.write_csv(path, table)
