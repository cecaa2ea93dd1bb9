"""leaderboard.html beside leaderboard.csv: all finished runs of a folder, with the settings that differ."""

import pathlib
import urllib.parse

from toolkit.pages import report
from toolkit.pages.parts import render
from toolkit.runs import run_table
from toolkit.runs.artefacts import INTERVAL, SCORES
from toolkit.system import csv_files, files

PAGE = "leaderboard.html"
INTERVAL_COLUMN = "95 % interval"
# Columns beside scores; all others are settings.
ABOUT_RUN = ("kept_epoch", "seconds", "parameters", "photographs_per_second", "started", "finished")


@render.unless_it_fails()
def write(folder: pathlib.Path) -> None:
    """Write the page of a folder of runs: the best macro F1 first, settings that differ before scores."""
    with files.locked(folder):  # until the page is written: else the last page could lack a run that ends meanwhile
        table = csv_files.read(folder / run_table.TABLE, ("run", "macro_f1"), "SM_MODEL_DIR")
        rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
        if not rows:  # the table could not be written; a note has said so
            return
        rows.sort(key=lambda row: float(row["macro_f1"] or "-inf"), reverse=True)
        scores = [name for name in SCORES if name in table]
        settings = [name for name in table if name not in ("run", *scores, *INTERVAL, *ABOUT_RUN)]
        differing = [name for name in settings if len(set(table[name])) > 1]
        columns = ["run", *differing, *scores, *(name for name in ABOUT_RUN if name in table and name != "started")]
        columns.insert(columns.index("macro_f1") + 1, INTERVAL_COLUMN)
        pages = [f"{row['run']}/{report.PAGE}" for row in rows]
        render.write(
            folder / PAGE,
            "run_table.html",
            title="Runs",
            folder=folder.absolute(),
            same={name: table[name][0] for name in settings if name not in differing},
            rows=[{name: _short(name, row) for name in columns} for row in rows],
            seeds=run_table.over_seeds(rows, [name for name in differing if name != "seed"], scores),
            links=[{"report": urllib.parse.quote(page)} if (folder / page).exists() else {} for page in pages],
        )


def _short(name: str, row: dict[str, str]) -> str:
    """A cell of the table, with as many digits as mean something."""
    if name == INTERVAL_COLUMN:  # older runs have none
        return " to ".join(f"{float(row[bound]):.3f}" for bound in INTERVAL if row.get(bound))
    if name == "finished":
        return row[name][:16].replace("T", " ")
    return f"{float(row[name]):.4f}" if name in SCORES and row[name] else row[name]
