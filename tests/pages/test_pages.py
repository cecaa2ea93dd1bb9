"""The pages of a run and of an evaluation in a real browser, and what pages of all scripts must not show."""

import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from browser import DESK, PHONE, opened, reads_well
from conftest import run_here, succeeded

from toolkit.pages.parts import predictions, render


@pytest.fixture(scope="module")
def evaluated(trained, drawn, tmp_path_factory):
    """The output folder of inference.py and evaluation.py."""
    out = tmp_path_factory.mktemp("out")
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": out}
    succeeded(run_here("inference.py", **folders, DEVICE="cpu"))
    succeeded(run_here("evaluation.py", SM_GROUND_TRUTH_DIR=drawn.eval, SM_OUTPUT_DATA_DIR=out))
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


def test_a_cell_of_a_confusion_matrix_leads_to_its_photographs(browser, evaluated):
    with opened(browser, evaluated / "evaluation.html", viewport=DESK) as shown:
        photographs, people = shown.locator("[data-cells]:visible"), shown.locator(".person:visible")
        everybody = photographs.count(), people.count()
        link = shown.locator(".matrix a[data-cell^='gender']").first
        cell = link.get_attribute("data-cell")
        link.click()
        true, predicted = {"gender-0-1": ("male", "female"), "gender-1-0": ("female", "male")}[cell]
        assert shown.inner_text("#filter span") == (
            f"Only {true}, predicted as {predicted}: {photographs.count()} shown."
        )
        assert 0 < photographs.count() < everybody[0]
        assert all(f" {true} " in text for text in photographs.locator("p").first.all_inner_texts())
        assert all(cell in one.get_attribute("data-cells") for one in photographs.all())
        shown.get_by_role("button", name="Show all").click()
        assert (photographs.count(), people.count()) == everybody


@pytest.mark.parametrize(("window", "is_list"), [(DESK, False), (PHONE, True)], ids=["a desk", "a phone"])
def test_a_matrix_of_36_classes_is_shown_whole(browser, tmp_path, window, is_list):
    names = [f"{number} worn incorrectly female 60 and over" for number in range(36)]
    shares = np.eye(36, dtype=int) * 2000 + np.eye(36, k=1, dtype=int) * 3
    matrix = predictions._matrix("36 classes", "class", names, shares, Counter({"class-0-1": 1}))
    text = '{% extends "base.html" %}{% import "macros.html" as macros %}{% block main %}<h2 id="mistakes">'
    text += "Mistakes</h2>{{ macros.confusion(matrix) }}{% endblock %}"
    (tmp_path / "page.html").write_text(render._environment().from_string(text).render(title="", matrix=matrix))
    with opened(browser, tmp_path / "page.html", viewport=window) as shown:
        shown.evaluate("document.title = document.querySelector('h1').textContent = 'Matrix'")
        reads_well(shown)
        assert shown.locator("table.list").count() == is_list
        first = shown.locator("tbody tr").first.locator("td:visible")
        assert first.count() == (2 if is_list else 36) and first.nth(1).inner_text().split() == ["<1", "3"]
        if is_list:
            content = "(cell) => getComputedStyle(cell, '::before').content"
            assert first.nth(1).evaluate(content) == f'"{names[1]}: "'


def test_a_page_is_used_by_keyboard_and_prints_whole(browser, trained):
    with opened(browser, trained / "resnet18" / "report.html", viewport=DESK) as shown:
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.textContent") == "Skip to the content"
        shown.keyboard.press("Enter")
        shown.keyboard.press("Tab")  # into the first part of the content
        assert shown.evaluate("document.querySelector('main').contains(document.activeElement)")
        table = shown.locator("details table").first
        assert not table.is_visible()
        shown.emulate_media(media="print")
        shown.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert table.is_visible() and not shown.locator("nav").is_visible()
        assert len(shown.pdf()) > 20_000
        shown.set_viewport_size({"width": 718, "height": 1000})  # A4, less its margins
        assert shown.evaluate("document.documentElement.scrollWidth") <= 718


def test_without_report_photos_the_page_of_a_data_set_holds_no_photograph(drawn, tmp_path):
    """tests/test_leaderboard.py checks the pages of runs and evaluations."""
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_OUTPUT_DATA_DIR": tmp_path}
    succeeded(run_here("dataset.py", **folders, REPORT_PHOTOS="false", SIZE="32x32"))
    page = (tmp_path / "dataset.html").read_text()
    assert "data:image" not in page and predictions.NO_PHOTOGRAPHS in page


def test_an_evaluation_shows_what_it_knows_and_no_more(drawn, evaluated, tmp_path):
    """Without people, probabilities and photographs; and with probabilities of other photographs."""
    text = (evaluated / "evaluation.html").read_text()
    assert "bootstrap samples of people" in text and "Calibration</h2>" in text
    assert ">6 people<" in text.replace("<small>", ">").replace("</small>", "<")
    pd.read_csv(drawn.eval / "gt.csv").drop(columns="person").to_csv(tmp_path / "gt.csv", index=False)
    shutil.copy(evaluated / "output.csv", tmp_path)
    (tmp_path / "probabilities.csv").write_text((evaluated / "probabilities.csv").read_text().replace(".jpg", ".png"))
    done = run_here("evaluation.py", SM_GROUND_TRUTH_DIR=tmp_path, SM_OUTPUT_DATA_DIR=tmp_path)
    succeeded(done, "probabilities.csv is ignored")
    text = (tmp_path / "evaluation.html").read_text()
    assert "people not known" in text and "Calibration</h2>" not in text and "data:image" not in text
    assert f"No photographs are shown: no folder {tmp_path / 'images'}." in text
    # Names that lead out of the folder of photographs are scored, and not shown.
    (tmp_path / "images").mkdir()
    for name in ("gt.csv", "output.csv"):
        table = pd.read_csv(tmp_path / name)
        table["ImageID"] = [str(drawn.eval / "images" / image) for image in table["ImageID"]]
        table.loc[0, "ImageID"] = f"../{drawn.eval.name}/images/{table.loc[0, 'ImageID'].rpartition('/')[2]}"
        table.to_csv(tmp_path / name, index=False)
    succeeded(run_here("evaluation.py", SM_GROUND_TRUTH_DIR=tmp_path, SM_OUTPUT_DATA_DIR=tmp_path))
    assert "data:image" not in (tmp_path / "evaluation.html").read_text()
    before, after = (json.loads((folder / "evaluation.json").read_text()) for folder in (evaluated, tmp_path))
    assert all(before[name] == after[name] for name in ("accuracy", "macro_f1", "attributes", "confusion"))
    people, unknown = (found["groups"]["gender"]["groups"][0]["people"] for found in (before, after))
    assert people == 3 and not unknown
