"""suspects.py: nets judge people that they never saw, bad input is refused, and decided people do not return."""

import dataclasses
import json
import re
import shutil
import socket
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from browser import opened
from conftest import refused, run_here, succeeded

import dataset
import suspects
from toolkit.config.settings import SuspectsSettings
from toolkit.data.store import Store
from toolkit.demo import synthetic
from toolkit.label_errors import corrections
from toolkit.labels import CLASSES, PROBABILITY_COLUMNS
from toolkit.runs import cross_validation as folds_module
from toolkit.system import files
from toolkit.system.console import InputError

ROW = ("900005", "all", "gender", "male", "male", "sure", "")
SMALL = {"NAME": "shufflenet_v2_x0_5", "PRETRAINED": "false", "SIZE": "32x32", "epochs": "2", "FOLDS": "2"}


@pytest.fixture(scope="module")
def folds(drawn, tmp_path_factory):
    """The folder of a run of two folds."""
    runs = tmp_path_factory.mktemp("runs")
    succeeded(run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=runs, DEVICE="cpu", **SMALL))
    return runs / SMALL["NAME"]


@pytest.fixture
def ask(drawn, folds, tmp_path):
    """Call suspects.py on the drawn faces and the folds, with these settings."""

    def call(**settings):
        where = {"SM_CHANNEL_TRAIN": drawn.train, "SM_CHANNEL_MODEL": folds, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
        return run_here("suspects.py", **{**where, "DEVICE": "cpu", **settings})

    return call


@pytest.fixture
def inputs(drawn, folds):
    """What held_out_probabilities takes, for the drawn faces: settings, headers, folds, store; and their table."""
    config = SuspectsSettings(
        sm_channel_train=drawn.train, sm_output_data_dir=folds, sm_channel_model=folds, device="cpu"
    )
    headers = suspects.read_folds(config)
    table, is_reviewed = suspects.read_people(config)
    store = Store(dataset.paths(table, drawn.train), next(iter(headers.values())).framing)
    assert store.fill() == {}
    return config, headers, suspects.held_out_folds(table, is_reviewed, headers), store, table


@pytest.fixture
def copied(folds, tmp_path):
    """A copy of the run of folds, to be damaged."""
    return shutil.copytree(folds, tmp_path / "copy")


def test_everybody_is_ranked_and_the_expected_errors_are_printed(ask, tmp_path):
    done = succeeded(ask())
    table = pd.read_csv(tmp_path / "out" / "suspects.csv")
    assert len(table) == table["folder"].nunique() == 24
    probability = table["probability"].to_numpy()
    assert (np.diff(probability) <= 0).all() and probability.min() >= 0 and probability.max() <= 1
    assert f"first   24 {probability.sum():28.1f}" in done.stdout
    kinds = 1 - table[[f"{kind}_probability" for kind in ("gender", "age", "mask", "duplicate")]]
    np.testing.assert_allclose(1 - kinds.prod(axis=1), probability, atol=1e-4)


def test_each_net_predicts_people_it_never_saw_and_their_mirror_images(inputs, folds):
    config, headers, numbers, store, table = inputs
    p = suspects.held_out_probabilities(config, headers, numbers, store)
    store.storage.pixels = store.storage.pixels.flip(2)
    mirrored = suspects.held_out_probabilities(config, headers, numbers, store)
    np.testing.assert_allclose(p, mirrored, atol=1e-5)
    plain = pd.read_csv(folds / folds_module.OUT_OF_FOLD).set_index("path")
    plain = plain.loc[[path.decode() for path in dataset.paths(table)]]
    once = plain[list(PROBABILITY_COLUMNS)].to_numpy()
    assert p.shape == (168, CLASSES) and np.abs(p - once).max() > 1e-4
    of_training = np.where(numbers == "0", "1", "0")
    other = suspects.held_out_probabilities(config, headers, of_training, store)
    assert np.abs(p - once).mean() < np.abs(other - once).mean()


def test_decided_people_do_not_return(ask, tmp_path):
    rows = ["900001,all,gender,male,male,sure,", "900002,mask1,mask,worn,worn,not sure,"]
    mine = tmp_path / "mine.csv"
    mine.write_text("person,photograph,field,given,correct,certainty,note\n" + "\n".join(rows) + "\n")
    succeeded(ask(RELABEL=f"sure,{mine}"), "22 people to look at, without 2 whom a table of RELABEL names")
    left = set(pd.read_csv(tmp_path / "out" / "suspects.csv")["folder"].str[:6])
    assert len(left) == 22 and not left & {"900001", "900002"}


def test_duplicates_of_a_decided_person_are_found_and_corrections_have_the_hash_of_the_file(drawn, folds, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(drawn.train, images)
    original = next(folder for folder in sorted(images.iterdir()) if folder.name.startswith("900005"))
    shutil.copytree(original, images / original.name.replace("900005", "900999"))
    twice = next(images.glob("900006*/mask3.*"))
    twice.with_suffix(".png").write_bytes(next(images.glob("900006*/normal.*")).read_bytes())
    (tmp_path / "mine.csv").write_text(corrections.to_csv([dict(zip(corrections.COLUMNS, ROW, strict=True))]))
    config = SuspectsSettings(
        sm_channel_train=images, sm_output_data_dir=tmp_path, sm_channel_model=folds, relabel=str(tmp_path / "mine.csv")
    )
    table, is_reviewed = suspects.read_people(config)
    headers = suspects.read_folds(config)
    numbers = suspects.held_out_folds(table, is_reviewed, headers)
    numbers[table["person"] == "900999"] = "0"  # as if a fold knew it
    _, found, agreement = suspects.collect_findings(config, headers, table, numbers)
    assert re.search(
        r"agree with the labels of people they have not seen on mask \d+%, gender \d+%, age \d+%", agreement
    )
    (copy,) = [one for one in found if one.kind == "duplicate" and one.folder.startswith("900999")]
    assert copy.probability > 0.9 and copy.duplicate_of == original.name
    assert original.name not in {one.folder for one in found}
    row = {"photograph": "mask3", "file": str(twice.with_suffix(".png").relative_to(images))}
    (other,) = suspects.list_suspects(config, table, [dataclasses.replace(copy, corrections=[row], duplicate_of="")])
    assert other.corrections == [{"photograph": "mask3", "sha256": files.sha256(twice.with_suffix(".png"))[:16]}]


def test_the_loop_closes(ask, browser, drawn, tmp_path):
    """From the page to a training without the error, to a second round that begins where the first one ended."""
    succeeded(ask())
    with opened(browser, tmp_path / "out" / "suspects.html") as page:
        first, second = page.locator("article h3").all_text_contents()[:2]
        page.keyboard.press("y")
        page.keyboard.press("n")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save").click()
        saved.value.save_as(tmp_path / "corrections.csv")
    agreed, confirmed = (heading.split()[-1].split("_")[0] for heading in (first, second))
    rows = pd.read_csv(tmp_path / "corrections.csv", dtype=str)
    assert set(rows["person"]) == {agreed, confirmed}
    relabel = f"sure,{tmp_path / 'corrections.csv'}"
    trained = run_here(
        "train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=tmp_path / "runs", RELABEL=relabel, DEVICE="cpu",
        **SMALL | {"epochs": "1", "FOLDS": "0"},
    )  # fmt: skip
    succeeded(trained, f"1 people: {agreed}", "labels confirmed")
    run = json.loads((tmp_path / "runs" / SMALL["NAME"] / "settings.json").read_text())["run"]
    assert run["corrections"]["corrections.csv"] == files.sha256(tmp_path / "corrections.csv")
    succeeded(ask(RELABEL=relabel))
    with opened(browser, tmp_path / "out" / "suspects.html") as page:
        left = " ".join(page.locator("article h3").all_text_contents())
        assert page.locator("article").count() == 22 and agreed not in left and confirmed not in left
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save").click()
        carried_on = pd.read_csv(saved.value.path(), dtype=str)
    pd.testing.assert_frame_equal(carried_on, rows)


def test_folds_are_trained_once_where_there_are_none(tmp_path, capfd):
    synthetic.ensure(tmp_path / "data", people=12, eval_people=2)
    where = {"SM_CHANNEL_TRAIN": tmp_path / "data" / "train", "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    quick = {**SMALL, "epochs": "1", "DEVICE": "cpu"}
    succeeded(run_here("suspects.py", **where, **quick))
    assert "epoch   1/1" in capfd.readouterr().out  # of a process of its own
    again = run_here("suspects.py", **where, **quick)
    said = capfd.readouterr().out
    assert again.returncode == 0 and "this run was finished before" in said and "epoch   1/1" not in said
    other = run_here("suspects.py", **where, **quick, SEED=7)
    made = tmp_path / "out" / "folds" / "shufflenet_v2_x0_5-2"
    assert other.returncode == 0 and str(made / "fold-0") in other.stdout, other.stdout
    assert (tmp_path / "out" / "suspects.html").exists()
    refused(run_here("suspects.py", **where, **quick, SM_CHANNEL_MODEL=tmp_path), "FOLDS: has no effect")
    refused(run_here("suspects.py", **where, NAME="resnet19"), "NAME=resnet19: expected a backbone to train")


def test_what_the_page_could_not_save_or_serve_is_refused_before_the_folds_are_trained(drawn, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text(",".join([*corrections.COLUMNS, "reviewer"]) + "\n" + ",".join([*ROW, "me"]) + "\n")
    where = {"SM_CHANNEL_TRAIN": drawn.train, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    refused(run_here("suspects.py", **where, **SMALL, RELABEL=f"sure,{table}"), "found reviewer too")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(run_here("suspects.py", **where, **SMALL, SERVE="true", SERVE_PORT=port), "one that is in use")
    table.rename(tmp_path / "out" / "corrections.csv")
    refused(run_here("suspects.py", **where, **SMALL, SERVE="true", SERVE_PORT="0"), "found reviewer too")
    assert not (tmp_path / "out" / "folds").exists()


def test_what_is_no_run_of_folds_is_refused(ask, copied, trained, tmp_path):
    refused(ask(SM_CHANNEL_MODEL=trained, NAME="resnet18"), "expected one run of folds", "found resnet18", "FOLDS=5")
    (copied / "result.json").unlink()
    refused(ask(SM_CHANNEL_MODEL=copied), "expected a finished run of folds")
    refused(ask(NAME="fold-0"), "expected the nets of all folds, found none of fold 1; set NAME to the run")
    assert not (tmp_path / "out" / "suspects.csv").exists()


def test_folds_that_share_a_person_are_refused(ask, copied):
    path = copied / folds_module.OUT_OF_FOLD
    table = pd.read_csv(path)
    table.loc[0, "fold"] = 1 - table.loc[0, "fold"]
    table.to_csv(path, index=False)
    refused(ask(SM_CHANNEL_MODEL=copied), "expected each person in one fold, found 9000")


def test_people_of_no_fold_are_not_looked_at(ask, copied, tmp_path):
    path = copied / folds_module.OUT_OF_FOLD
    table = pd.read_csv(path, dtype={"person": str})
    table[table["person"] != "900003"].to_csv(path, index=False)
    done = ask(SM_CHANNEL_MODEL=copied)
    assert "note: 1 people are in no fold, and not looked at: 900003" in done.stdout
    assert len(pd.read_csv(tmp_path / "out" / "suspects.csv")) == 23
    table.assign(person="x" + table["person"]).to_csv(path, index=False)
    refused(ask(SM_CHANNEL_MODEL=copied), "found none of them among those to look at")


def test_a_photograph_that_cannot_be_read_is_named_or_left_out(ask, drawn, tmp_path):
    shutil.copytree(drawn.train, tmp_path / "images")
    broken = sorted((tmp_path / "images").glob("*/mask1.*"))[0]
    broken.write_bytes(b"no photograph")
    refused(ask(SM_CHANNEL_TRAIN=tmp_path / "images"), "1 of 168 photographs cannot be read", broken.name)
    done = ask(SM_CHANNEL_TRAIN=tmp_path / "images", ON_BAD_IMAGE="leave_out")
    succeeded(done, f"1 bad photographs are left out, 0 repaired: {broken.parent.name}")
    assert len(pd.read_csv(tmp_path / "out" / "suspects.csv")) == 24


def test_nets_that_are_broken_are_refused(inputs):
    config, headers, numbers, store, _ = inputs
    headers = {run: replace(header, mean=(float("nan"),) * 3) for run, header in headers.items()}
    with pytest.raises(InputError, match="expected finite numbers of its nets"):
        suspects.held_out_probabilities(config, headers, numbers, store)
