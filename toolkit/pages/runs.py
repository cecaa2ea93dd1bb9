"""leaderboard.html beside leaderboard.csv: all finished runs of a folder, with the settings that differ."""

import pathlib
import urllib.parse

from toolkit.pages import report
from toolkit.pages.parts import render
from toolkit.runs import leaderboard
from toolkit.runs.artefacts import SCORES
from toolkit.system import files, locks

PAGE = "leaderboard.html"
OF_ONE_RUN = ("run", "seed", "best_epoch", *SCORES, "seconds", "started", "finished")  # all other columns are settings


@render.unless_it_fails()
def write(folder: pathlib.Path) -> None:
    """Write the page of a folder of runs: the best macro F1 first."""
    with locks.locked(folder):  # until it is written: a run that ends meanwhile must not be missing from the last page
        table = files.read_csv(folder / leaderboard.TABLE, ("run", "macro_f1"), "SM_MODEL_DIR")
        rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
        rows.sort(key=lambda row: float(row["macro_f1"] or "-inf"), reverse=True)
        shown = [_rounded(row) for row in rows]
        settings = [name for name in table if name not in OF_ONE_RUN]
        seeds = leaderboard.over_seeds(rows, settings, [name for name in SCORES if name in table])
        pages = {row["run"]: f"{row['run']}/{report.PAGE}" for row in rows}
        links = {run: urllib.parse.quote(page) for run, page in pages.items() if (folder / page).exists()}
        context = {"rows": shown, "seeds": seeds, "links": links, "folder": folder.absolute()}
        render.write(folder / PAGE, "runs.html", title="Runs", **context)


def _rounded(row: dict[str, str]) -> dict[str, str]:
    return {name: f"{float(text):.4f}" if name in SCORES and text else text for name, text in row.items()}
