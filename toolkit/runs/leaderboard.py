"""The leaderboard of a folder of runs: leaderboard.csv, a line for each finished run, with the settings that differ."""

import json
import os
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence

from toolkit.config.settings import TrainSettings
from toolkit.config.types import as_text
from toolkit.runs.folders import RESULT, SETTINGS
from toolkit.system import files, locks
from toolkit.system.console import InputError, say

TABLE = "leaderboard.csv"
EDITED = ("dataset.py", "model.py", "loss.py")  # files that people change: a run is known by their hashes, too


def finish(folder: pathlib.Path, row: dict) -> None:
    """Add a run's line to the leaderboard beside its folder, then mark the run as finished by its result.json.

    A run that was killed in between does it again when it goes on, and still has one line.
    """
    # The line first: a run that has its result.json never comes here again.
    with locks.locked(folder.parent):
        _add_line(folder.parent / TABLE, row)
        files.write_json(folder / RESULT, row)


def settings_of(run: pathlib.Path, started: str | None = None) -> dict[str, str]:
    """{setting: text} of all that decide the result of the run in this folder, and hashes of EDITED and of the data.

    Empty where its settings.json is missing or foreign, or of a run that began at another time than `started`.
    """
    try:
        record = json.loads((run / SETTINGS).read_text())
        settings = {name: value for name, value in record["settings"].items() if name not in TrainSettings.RUNTIME_ONLY}
        found = {name: as_text(value) for name, value in settings.items()}
        found |= {name: record["code"][name] for name in EDITED} | {"data": record["data"]}
        found["decided_by"] = record.get("run", {}).get("decided_by", "")
        found["pseudo_labels"] = str(sum(record.get("pseudo_labels", {}).get("photographs", ())))
        return found if started in (None, record.get("started")) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings that have several values among those that are known."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one[name] for one in settings if name in one}) > 1]


def over_seeds(rows: Sequence[Mapping], settings: Sequence[str], scores: Sequence[str]) -> list[dict[str, str]]:
    """A row for all rows that differ in their `seed` only: `settings`, seeds, and scores as "mean (lowest to highest)".

    Only where there are several seeds.
    """
    groups = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(name, "")) for name in settings), []).append(row)
    found = []
    for values, group in groups.items():
        seeds = dict.fromkeys(str(row.get("seed", "")) for row in group)
        if len(seeds) > 1:
            of_scores = {name: _mean_and_spread([row[name] for row in group]) for name in scores}
            found.append({**dict(zip(settings, values, strict=True)), "seeds": ", ".join(seeds), **of_scores})
    return found


def _mean_and_spread(values: Sequence[str | float]) -> str:
    """As text; of those that are numbers."""
    numbers = [float(value) for value in values if str(value)]
    return f"{statistics.fmean(numbers):.4f} ({min(numbers):.4f} to {max(numbers):.4f})" if numbers else ""


def _add_line(path: pathlib.Path, row: dict) -> None:
    """Add a line, or replace the line of the same run. All other lines and columns stay.

    Settings become columns once they differ between lines.
    """
    table = _read(path)
    if table is None:
        return
    lines = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    # A name can come again, after its run was deleted; the time at which a run began does not.
    run = [row["run"], row.get("started")]
    lines = [*(line for line in lines if [line.get("run"), line.get("started")] != run), dict(row)]
    settings = [settings_of(path.parent / line["run"], line.get("started")) for line in lines]
    shown = {*table, *differing(settings)} - {*row, "name"}  # `backbone` has the name
    for line, values in zip(lines, settings, strict=True):
        line |= {name: value for name, value in values.items() if name in shown}
    columns = dict.fromkeys([*table, *row, *(name for line in lines for name in line)])  # a newer version has more
    files.write_csv(path, {name: [line.get(name, "") for line in lines] for name in columns})


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
