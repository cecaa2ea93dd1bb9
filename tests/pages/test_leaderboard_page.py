"""leaderboard.html in a real browser."""

import numpy as np
import pandas as pd
from browser import PHONE, opened, reads_well

from toolkit.pages import leaderboard as leaderboard_page


def test_runs_are_compared_by_column_and_by_photograph(browser, drawn, tmp_path):
    truth = dict(zip(*pd.read_csv(drawn.eval / "gt.csv")[["ImageID", "ans"]].to_numpy().T, strict=True))
    true = np.array(list(truth.values()), int)
    half = np.where(np.arange(len(true)) % 2, true, (true + 1) % 18)
    history = {"epoch": ["1", "2"], "macro_f1": ["0.1", "0.3"], "val_loss": ["2", "1"], "train_loss": ["2.5", "1.5"]}
    runs = [
        leaderboard_page.ComparedRun(name, history, predicted)
        for name, predicted in (("a", half), ("b<i>", true), ("c", true))
    ]
    rows = [{"model": run.name, "seconds": seconds} for run, seconds in zip(runs, (9, 100, 20), strict=True)]
    leaderboard_page.write(tmp_path / "page.html", rows, runs, truth, drawn.eval / "images")
    with opened(browser, tmp_path / "page.html", viewport=PHONE, color_scheme="dark") as shown:
        reads_well(shown)
        names = shown.locator("#table tbody th")
        shown.get_by_role("button", name="seconds").click()
        assert names.all_text_contents() == ["b<i>", "c", "a"]
        shown.get_by_role("button", name="seconds").click()
        assert names.all_text_contents() == ["a", "c", "b<i>"]
        wrong = int((half != true).sum())
        assert f"Both right: {len(true) - wrong}. Only a: 0. Only b<i>: {wrong}. Neither: 0." in shown.inner_text(
            "#summary"
        )
        assert shown.locator("#photos li").count() == wrong == shown.locator("#photos img").count()
        shown.get_by_label("First", exact=True).select_option("c")
        assert "Shown below: 0" in shown.inner_text("#summary")
        reads_well(shown)
