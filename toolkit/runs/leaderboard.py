"""The leaderboard of a folder of runs: leaderboard.csv, a line for each finished run."""

import os
import pathlib
import time

from toolkit.runs.folders import RESULT
from toolkit.system import files, locks
from toolkit.system.console import InputError, say

TABLE = "leaderboard.csv"


def finish(folder: pathlib.Path, row: dict) -> None:
    """Add a run's line to the leaderboard beside its folder, then mark the run as finished by its result.json.

    A run that was killed in between does it again when it goes on, and still has one line.
    """
    # The line first: a run that has its result.json never comes here again.
    with locks.locked(folder.parent):
        _add_line(folder.parent / TABLE, row)
        files.write_json(folder / RESULT, row)


def _add_line(path: pathlib.Path, row: dict) -> None:
    """Add a line, or replace the line of the same run. All other lines and columns stay."""
    table = _read(path)
    if table is None:
        return
    lines = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    # A name can come again, after its run was deleted; the time at which a run began does not.
    run = [row["run"], row.get("started")]
    lines = [line for line in lines if [line.get("run"), line.get("started")] != run]
    columns = dict.fromkeys([*table, *row])  # a newer version may write more of them
    files.write_csv(path, {name: [line.get(name, "") for line in [*lines, row]] for name in columns})


def _read(path: pathlib.Path) -> dict[str, list] | None:
    """The columns of the table. A damaged one is put aside, and none is read; None where it cannot be read at all.

    A finished run must not be lost over its line.
    """
    if not path.exists():
        return {}
    try:
        return files.read_csv(path, ("run",), "SM_MODEL_DIR")
    except InputError as error:
        if not os.access(path, os.R_OK):
            say(f"note: {error}; the run's line is not added, it stands in its {RESULT}")
            return None
        aside = path.with_name(f"leaderboard.damaged-{time.time_ns()}.csv")
        path.rename(aside)
        say(f"note: {error}; it is now {aside.name}, and a new one is begun")
        return {}
