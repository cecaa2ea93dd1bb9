"""The pages of a run and of an evaluation in a real browser, and what pages of all scripts must not show."""

import json
import shutil

import pandas as pd
import pytest
from browser import DESK, PHONE, opened, reads_well
from conftest import QUICK, run_here

from toolkit.pages.parts import predictions


@pytest.fixture(scope="module")
def evaluated(trained, drawn, tmp_path_factory):
    """The output folder of inference.py and evaluation.py."""
    out = tmp_path_factory.mktemp("out")
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": out}
    assert run_here("inference.py", **folders, DEVICE="cpu").returncode == 0
    assert run_here("evaluation.py", SM_GROUND_TRUTH_DIR=drawn.eval, SM_OUTPUT_DATA_DIR=out).returncode == 0
    return out


@pytest.mark.parametrize(
    ("window", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["a phone in the dark", "a desk by day"]
)
def test_pages_read_well(browser, trained, evaluated, window, scheme):
    for path in (trained / "resnet18" / "report.html", evaluated / "evaluation.html"):
        with opened(browser, path, viewport=window, color_scheme=scheme) as shown:
            reads_well(shown)
            assert shown.locator("img").count() > 12
            parts = shown.locator("nav a").all_text_contents()
            assert parts == shown.locator("main h2").all_text_contents()


def test_a_page_is_used_by_keyboard_and_prints_whole(browser, trained):
    with opened(browser, trained / "resnet18" / "report.html", viewport=DESK) as shown:
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.textContent") == "Skip to the content"
        shown.keyboard.press("Enter")
        shown.keyboard.press("Tab")  # into the first part of the content
        assert shown.evaluate("document.querySelector('main').contains(document.activeElement)")
        table = shown.locator("details table")
        assert not table.is_visible()
        shown.emulate_media(media="print")
        shown.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert table.is_visible() and not shown.locator("nav").is_visible()
        assert len(shown.pdf()) > 20_000
        shown.set_viewport_size({"width": 718, "height": 1000})  # A4, less its margins
        assert shown.evaluate("document.documentElement.scrollWidth") <= 718


def test_without_report_photos_no_page_holds_a_photograph(drawn, evaluated, tmp_path):
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path}
    settings = QUICK | {"REPORT_PHOTOS": "false", "NAME": "shufflenet_v2_x0_5"}
    assert run_here("train.py", **folders, **settings).returncode == 0
    shutil.copytree(evaluated, tmp_path / "out")
    folders = {"SM_GROUND_TRUTH_DIR": drawn.eval, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    assert run_here("evaluation.py", **folders, REPORT_PHOTOS="false").returncode == 0
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_OUTPUT_DATA_DIR": tmp_path}
    assert run_here("dataset.py", **folders, REPORT_PHOTOS="false", SIZE="32x32").returncode == 0
    of_run = tmp_path / "shufflenet_v2_x0_5" / "report.html"
    for path in (of_run, tmp_path / "out" / "evaluation.html", tmp_path / "dataset.html"):
        assert "data:image" not in path.read_text() and predictions.NO_PHOTOGRAPHS in path.read_text()


def test_an_evaluation_shows_what_it_knows_and_no_more(drawn, evaluated, tmp_path):
    """Without people, probabilities and photographs; and with probabilities of other photographs."""
    text = (evaluated / "evaluation.html").read_text()
    assert (
        "bootstrap samples of people" in text
        and "Calibration</h2>" in text
        and ">6 people<" in text.replace("<small>", ">").replace("</small>", "<")
    )
    pd.read_csv(drawn.eval / "gt.csv").drop(columns="person").to_csv(tmp_path / "gt.csv", index=False)
    shutil.copy(evaluated / "output.csv", tmp_path)
    (tmp_path / "probabilities.csv").write_text((evaluated / "probabilities.csv").read_text().replace(".jpg", ".png"))
    done = run_here("evaluation.py", SM_GROUND_TRUTH_DIR=tmp_path, SM_OUTPUT_DATA_DIR=tmp_path)
    assert done.returncode == 0 and "probabilities.csv is ignored" in done.stdout
    text = (tmp_path / "evaluation.html").read_text()
    assert "people not known" in text and "Calibration</h2>" not in text and "data:image" not in text
    before, after = (json.loads((folder / "evaluation.json").read_text()) for folder in (evaluated, tmp_path))
    assert before == after
