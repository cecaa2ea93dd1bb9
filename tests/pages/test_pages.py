"""The pages: what stands in them, and how they read in a real browser."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from browser import DESK, PHONE, opened, reads_well
from conftest import QUICK, run_here
from PIL import Image
from torch import nn

from toolkit.config.settings import TrainSettings
from toolkit.pages import answers, charts, comparison, gradcam, page, report
from toolkit.pages.answers import Answers
from toolkit.runs.checkpoint import State
from toolkit.scoring import metrics


@pytest.fixture(scope="module")
def evaluated(trained, drawn, tmp_path_factory):
    """The folder of an answer that was evaluated."""
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


def test_runs_are_compared_by_column_and_by_photograph(browser, drawn, tmp_path):
    truth = dict(zip(*pd.read_csv(drawn.eval / "gt.csv")[["ImageID", "ans"]].to_numpy().T, strict=True))
    true = np.array(list(truth.values()), int)
    half = np.where(np.arange(len(true)) % 2, true, (true + 1) % 18)
    history = {"epoch": ["1", "2"], "macro_f1": ["0.1", "0.3"], "val_loss": ["2", "1"], "train_loss": ["2.5", "1.5"]}
    runs = [comparison.Compared(name, history, said) for name, said in (("a", half), ("b<i>", true), ("c", true))]
    rows = [{"model": run.name, "seconds": seconds} for run, seconds in zip(runs, (9, 100, 20), strict=True)]
    comparison.write(tmp_path / "page.html", rows, runs, truth, drawn.eval / "images")
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


def test_a_look_at_the_data_finds_every_problem_that_was_put_there(browser, drawn, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(drawn.train, images)
    first, second, third, fourth, fifth = sorted(path for path in images.iterdir())[:5]
    old = first.with_name(first.name.rpartition("_")[0] + "_0")
    first.rename(old)
    shutil.copy(second / "normal.jpg", third / "mask1.jpg")
    (third / "mask2.jpg").write_bytes((third / "mask2.jpg").read_bytes()[:500])
    (third / "mask3.jpg").unlink()
    shutil.copy(third / "mask4.jpg", third / "mask4.jpeg")
    with Image.open(fourth / "mask1.jpg") as photo:
        photo.resize((30, 40)).save(fourth / "mask1.jpg")
    fifth.rename(images / f"{second.name.partition('_')[0]}_male_Drawn_33")
    (images / "notes.txt").write_text("")
    person, gender, *_ = old.name.split("_")
    other = {"male": "female", "female": "male"}[gender]
    rows = f"{person},all,gender,{gender},{other},sure\n{person},mask5,leave_out,,,sure\n"
    (tmp_path / "own.csv").write_text("person,photograph,field,given,correct,certainty\n" + rows)
    folders = {"SM_CHANNEL_TRAIN": images, "SM_OUTPUT_DATA_DIR": tmp_path}
    done = run_here("dataset.py", **folders, RELABEL=tmp_path / "own.csv", SIZE="64x48")
    assert done.returncode == 0, done.stderr
    for words in (
        "passed over, as they are no photographs (1): notes.txt",
        f"unreadable photographs (1): {third.name}/mask2.jpg",
        f"photographs smaller than 64x48 (1): {fourth.name}/mask1.jpg (40x30)",
        f"folders without all photographs (1): {third.name} (mask3)",
        f"photographs with several extensions (1): {third.name}/mask4",
        f"people with several folders (1): {second.name.partition('_')[0]} (",
        "identical files (2): ",
        f"folders of no age from 1 to 100 (1): {old.name}",
    ):
        assert words in done.stdout, words
    with opened(browser, tmp_path / "dataset.html", viewport=PHONE, color_scheme="dark") as shown:
        reads_well(shown)
        assert shown.get_by_text(f"mask1.jpg: {gender} to {other}", exact=True).is_visible()
        assert shown.get_by_text("mask5.jpg: left out", exact=True).is_visible()


def test_no_photograph_stands_in_a_page_where_they_may_not_travel(drawn, evaluated, tmp_path):
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
        assert "data:image" not in path.read_text() and answers.NO_PHOTOGRAPHS in path.read_text()


def test_an_evaluation_says_what_it_knows_and_no_more(drawn, evaluated, tmp_path):
    """Without people, probabilities and photographs; and with probabilities of other photographs."""
    text = (evaluated / "evaluation.html").read_text()
    assert (
        "draws of other people" in text
        and "Calibration</h2>" in text
        and ">6 people<" in text.replace("<small>", ">").replace("</small>", "<")
    )
    pd.read_csv(drawn.eval / "gt.csv").drop(columns="person").to_csv(tmp_path / "gt.csv", index=False)
    shutil.copy(evaluated / "output.csv", tmp_path)
    (tmp_path / "probabilities.csv").write_text((evaluated / "probabilities.csv").read_text().replace(".jpg", ".png"))
    done = run_here("evaluation.py", SM_GROUND_TRUTH_DIR=tmp_path, SM_OUTPUT_DATA_DIR=tmp_path)
    assert done.returncode == 0 and "probabilities.csv is passed over" in done.stdout
    text = (tmp_path / "evaluation.html").read_text()
    assert "people not known" in text and "Calibration</h2>" not in text and "data:image" not in text
    before, after = (json.loads((folder / "evaluation.json").read_text()) for folder in (evaluated, tmp_path))
    assert before == after


def test_answers_stand_on_their_side():
    """Twice class 2 was said of a photograph of class 5, and once class 0 of one of class 5."""
    true, said = np.array([5, 5, 5, 5, 2]), np.array([2, 2, 0, 5, 2])
    p = np.full((5, 18), 0.01)
    p[np.arange(5), said], p[:3, 5] = 0.7, 0.13
    p[1, 2] = 0.8
    told = answers.tell(Answers(list("abcde"), true, said, list("vvwxy"), p))
    row = told["matrices"][0]["rows"][5]
    assert [cell["count"] for cell in row["cells"]][:6] == [1, 0, 2, 0, 0, 1] and row["cells"][2]["share"] == 0.5
    first, second = told["pairs"]
    assert (first["true"], first["said"], first["count"], first["share"]) == (
        answers.class_name(5), answers.class_name(2), 2, 0.5,
    )  # fmt: skip
    assert second["said"] == answers.class_name(0) and told["people"] == 4 and told["wrong"] == 3
    mistakes = [(one["name"], one["said"], one["true"], one["p_said"], one["p_true"]) for one in told["mistakes"]]
    assert mistakes[0] == ("b", answers.class_name(2), answers.class_name(5), 0.8, 0.13)
    assert [one[0] for one in mistakes] == ["b", "a", "c"]


def test_a_run_counts_its_sides_and_shows_photographs_before_and_after(data):
    found = report.counts(data)
    assert found["sides"] == ["training", "validation"]
    numbers = dict(found["rows"])
    assert numbers["all photographs"] == [len(data.train), len(data.validation)]
    assert numbers[f"0 {answers.class_name(0)}"][0] == int((data.faces.labels[data.train] == 0).sum())
    config = TrainSettings(augment="none", size="32x32")
    data.faces.targets = data.faces.labels
    for before, after in report.augmented(config, data, State({}, "")):  # the same, but for rounding
        assert np.abs(np.asarray(before, int) - np.asarray(after, int)).max() <= 2


def test_the_net_is_shown_to_look_where_its_evidence_is():
    """A net that tells class 1 by what is bright at the top left, and class 0 by the bottom right."""
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        places = torch.zeros(2, 8, 8)
        places[1, :3, :3], places[0, 5:, 5:] = 1.0, 1.0
        net[3].weight.copy_(places.flatten(1))
    photograph = torch.zeros(1, 3, 8, 8)
    photograph[:, :, :3, :3] = 1.0
    (heat,) = gradcam.heat(net, photograph, torch.tensor([1]))
    assert heat[:3, :3].min() == 1 and heat[4:, 4:].max() == 0


def test_names_from_outside_are_text_in_a_page(tmp_path):
    hostile = "<script>alert(1)</script>"
    given = Answers([hostile, "b"], np.array([0, 1]), np.array([1, 1]))
    page.write(tmp_path / "page.html", "answers.html", title=hostile, facts=hostile, told=answers.tell(given))
    assert hostile not in (tmp_path / "page.html").read_text()


def test_the_bootstrap_draws_people_and_not_photographs():
    """Of one person's photographs all are right or none: 7 of each tell no more than one would."""
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.7
    people, true = np.repeat(np.arange(300), 7), np.zeros(2100, int)
    said = np.where(np.repeat(right, 7), 0, 1)
    by_person = metrics.intervals(metrics.resampled(true, said, people))["accuracy"]
    by_photograph = metrics.intervals(metrics.resampled(true, said))["accuracy"]
    share = right.mean()
    spread = 1.96 * np.sqrt(share * (1 - share) / 300)
    np.testing.assert_allclose(by_person, (share - spread, share + spread), atol=0.01)
    assert np.diff(by_person) / np.diff(by_photograph) == pytest.approx(np.sqrt(7), rel=0.15)


def test_intervals_hold_what_is_true_as_often_as_they_say():
    """Of 80 samples of people from a known net, some 95 % have its true recall in their interval."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(80):
        true = rng.integers(0, 2, 150)
        said = np.where(rng.random(150) < 0.8, true, 1 - true)
        low, high = metrics.intervals(metrics.resampled(true, said, np.arange(150), 300))["classes"][0]["recall"]
        held += low <= 0.8 <= high
    assert 71 <= held <= 80


def test_ticks_are_round_and_hold_the_range():
    for low, high in [
        (0.0, 1.0),
        (1.31, 2.84),
        (3e-7, 1e-3),
        (5.0, 5.0),
        (0.0, 0.0),
        (0.1828713452365508, 0.18287134523655083),
        (-3.0, 1e6),
    ]:
        found = charts.ticks(low, high)
        assert found[0] <= low and high <= found[-1] and 2 <= len(found) <= 8
        assert all(len(re.sub(r"e.*|[-.]", "", f"{value:.6g}").strip("0")) <= 3 for value in found)
