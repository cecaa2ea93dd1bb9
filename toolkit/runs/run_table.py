"""The table of a folder of runs, leaderboard.csv: a line for each finished run, with the settings that differ."""

import contextlib
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence

from toolkit.config.settings import TrainSettings
from toolkit.config.types import as_text
from toolkit.runs.folders import RESULT, read_result, read_settings
from toolkit.system import csv_files, files
from toolkit.system.console import InputError, say

TABLE = "leaderboard.csv"
EDITED = ("dataset.py", "model.py", "loss.py")  # files that people change: their hashes count as settings


def finish(folder: pathlib.Path, row: dict) -> None:
    """Mark a run as finished by its result.json, then add its line to the table beside its folder."""
    files.write_json(folder / RESULT, row)
    update(folder.parent, row)


def update(runs: pathlib.Path, row: dict | None = None) -> None:
    """Add to the table of a folder this run's line, and those of finished runs that have none.

    Such a run was killed just after it wrote its result, or could not write the table: another program had locked it,
    or it belongs to another person. If the table cannot be written now, a note says so.
    """
    try:
        with files.locked(runs):
            _add_lines(runs / TABLE, row)
    except (InputError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        say(
            f"note: {reason}; a run's line stands in its {RESULT}, and is added here when the next run finishes, or "
            "the same command is started again"
        )


def settings_of(run: pathlib.Path, started: str | None = None) -> dict[str, str]:
    """{setting: text} of the settings that decide the result of this run, and hashes of EDITED and of the data.

    {} if its settings.json is missing or foreign, or of a run that began at another time than `started`.
    """
    record = read_settings(run)
    if not {"settings", "code", "data"} <= record.keys() or started not in (None, record.get("started")):
        return {}
    settings = {name: value for name, value in record["settings"].items() if name not in TrainSettings.RUNTIME_ONLY}
    found = {name: as_text(value) for name, value in settings.items()}
    found |= {name: record["code"].get(name, "") for name in EDITED} | {"data": record["data"]}
    found["decided_by"] = str(record.get("run", {}).get("decided_by", ""))
    found["pseudo_labels"] = str(sum(record.get("pseudo_labels", {}).get("photographs", ())))
    return found


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of settings with more than one value; runs without the setting do not count."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one[name] for one in settings if name in one}) > 1]


def over_seeds(rows: Sequence[Mapping], settings: Sequence[str], scores: Sequence[str]) -> list[dict[str, str]]:
    """A row for each group of rows that differ only in `seed`: settings, seeds, scores as "mean (lowest to highest)".

    Groups with one seed are left out.
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


def as_markdown(rows: Sequence[Mapping]) -> list[str]:
    """The lines of a Markdown table. All rows have the same columns."""
    lines = [rows[0], ["--"] * len(rows[0]), *(row.values() for row in rows)]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def _mean_and_spread(values: Sequence[str | float]) -> str:
    """The values that are not empty, as "mean (lowest to highest)"; "" if there is none."""
    numbers = [float(value) for value in values if str(value)]
    return f"{statistics.fmean(numbers):.4f} ({min(numbers):.4f} to {max(numbers):.4f})" if numbers else ""


def _add_lines(path: pathlib.Path, row: dict | None) -> None:
    """Add a run's line, or replace it, and lines for finished runs that have none. All other lines and columns stay.

    Settings become columns once they differ between lines.
    """
    table = _read(path)
    lines = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    found = {_key(line): line for line in lines}
    results = [*_results(path.parent), *([row] if row else [])]
    new = {_key(result): result for result in results if result is row or _key(result) not in found}
    if not new:
        return
    lines = [*(line for line in lines if _key(line) not in new), *map(dict, new.values())]
    settings = [settings_of(path.parent / line["run"], line.get("started")) for line in lines]
    own = dict.fromkeys(name for result in new.values() for name in result)
    shown = {*table, *differing(settings)} - {*own, "name"}  # `backbone` has the name
    for line, values in zip(lines, settings, strict=True):
        line |= {name: value for name, value in values.items() if name in shown}
    columns = dict.fromkeys([*table, *own, *(name for line in lines for name in line)])  # a newer version has more
    csv_files.write(path, {name: [line.get(name, "") for line in lines] for name in columns})


def _key(line: Mapping) -> tuple[str, str]:
    """The identity of a run: its name, which can come again after a run is deleted, and when it began."""
    return str(line["run"]), str(line.get("started") or "")


def _results(runs: pathlib.Path) -> list[dict]:
    """The results of the finished runs in a folder, the earliest first; damaged and foreign files are skipped."""
    found = []
    for path in sorted(runs.glob(f"*/{RESULT}")):
        with contextlib.suppress(OSError, InputError, KeyError):
            result = read_result(path.parent)
            found.append((str(result.get("finished")), _key(result), result))
    return [result for _, _, result in sorted(found, key=lambda one: one[:2])]


def _read(path: pathlib.Path) -> dict[str, list]:
    """The columns of the table; {} if it is missing or damaged. A damaged one is renamed, with a note.

    Raises OSError if it cannot be read.
    """
    if not path.exists():
        return {}
    try:
        return csv_files.read(path, ("run",), "SM_MODEL_DIR")
    except InputError as error:
        with files.opened(path) as file:  # raises OSError if it cannot be read: then it may be whole
            file.read()
        aside = path.with_name(f"leaderboard.damaged-{time.time_ns()}.csv")
        path.rename(aside)
        say(f"note: {error}; it is now {aside.name}, and a new one is begun")
        return {}
