"""leaderboard.html, of leaderboard.py and of a folder of runs, in a real browser."""

import numpy as np
import pandas as pd
from browser import PHONE, opened, reads_well

from toolkit.pages import comparison as comparison_page
from toolkit.pages import run_table
from toolkit.system import csv_files


def test_runs_are_compared_by_column_and_by_photograph(browser, drawn, tmp_path):
    truth = dict(zip(*pd.read_csv(drawn.eval / "gt.csv")[["ImageID", "ans"]].to_numpy().T, strict=True))
    true = np.array(list(truth.values()), int)
    half = np.where(np.arange(len(true)) % 2, true, (true + 1) % 18)
    of_everybody = {"epoch": ["1", "2"], "train_loss": ["2.5", "1.5"]}
    history = of_everybody | {"macro_f1": ["0.1", "0.3"], "val_loss": ["2", "1"]}
    runs = [
        comparison_page.ComparedRun(name, columns, predicted)
        for name, columns, predicted in (("a", history, half), ("b<i>", history, true), ("c", of_everybody, true))
    ]
    rows = [{"model": run.name, "seconds": seconds} for run, seconds in zip(runs, (9, 100, 20), strict=True)]
    seeds = [{"model": "a", "seeds": "1, 2", "seconds": "9.0000 (8.0000 to 10.0000)"}]
    links = [{"report": "a/report.html", "evaluation": "b%3Ci%3E/evaluation.html"}, {}, {}]
    comparison = comparison_page.Comparison(rows, seeds, links, runs)
    comparison_page.write(tmp_path / "page.html", comparison, truth, drawn.eval / "images")
    with opened(browser, tmp_path / "page.html", viewport=PHONE, color_scheme="dark") as shown:
        reads_well(shown)
        names = shown.locator("#table tbody th")
        shown.get_by_role("button", name="seconds").click()
        assert names.all_text_contents() == ["b<i>", "c", "a report evaluation"]
        shown.get_by_role("button", name="seconds").click()
        assert names.all_text_contents() == ["a report evaluation", "c", "b<i>"]
        addresses = [link.get_attribute("href") for link in names.first.get_by_role("link").all()]
        assert addresses == ["a/report.html", "b%3Ci%3E/evaluation.html"]
        wrong = int((half != true).sum())
        assert f"Both right: {len(true) - wrong}. Only a: 0. Only b<i>: {wrong}. Neither: 0." in shown.inner_text(
            "#summary"
        )
        assert shown.locator("#photos li").count() == wrong == shown.locator("#photos img").count()
        shown.get_by_label("First", exact=True).select_option("c")
        assert "Shown below: 0" in shown.inner_text("#summary")
        reads_well(shown)


def test_photographs_on_which_all_are_wrong_but_not_alike_are_disputed_last():
    true, predicted = np.zeros(4, int), np.array([[0, 1, 2, 0], [0, 1, 3, 1]])
    assert comparison_page.most_disputed(true, predicted).tolist() == [3, 2]


def test_the_page_of_a_folder_of_runs_shows_settings_that_differ_and_seeds_as_mean_and_spread(browser, tmp_path):
    (tmp_path / "b & <i>?").mkdir()
    (tmp_path / "b & <i>?" / "report.html").write_text("<title>the report</title>")
    table = {
        "run": ["a", "b & <i>?", "c"],
        "macro_f1": [0.5, 0.61234, ""],
        "lr": ["0.1"] * 2 + ["0.2"],
        "macro_f1_low": ["", 0.51234, ""],
        "macro_f1_high": ["", 0.7, ""],
        "seed": [1, 2, 3],
    }
    csv_files.write(tmp_path / "leaderboard.csv", table)
    run_table.write(tmp_path)
    with opened(browser, tmp_path / "leaderboard.html", viewport=PHONE, color_scheme="light") as shown:
        reads_well(shown)
        assert shown.locator("#table tbody th").all_text_contents() == ["b & <i>? report", "a", "c"]
        assert shown.locator("#table tbody tr").first.get_by_text("0.512 to 0.700").is_visible()
        seeds = shown.locator("table").nth(1).locator("tbody tr")
        assert seeds.locator("th, td").all_text_contents() == ["0.1", "2, 1", "0.5562 (0.5000 to 0.6123)"]
        shown.get_by_role("button", name="run").click()
        assert shown.locator("#table tbody th").all_text_contents() == ["c", "b & <i>? report", "a"]
        shown.get_by_role("link", name="report").click()
        assert shown.title() == "the report"
