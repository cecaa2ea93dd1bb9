"""The three scripts as a person runs them: real processes on real files."""

import errno
import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, ROOT, refused, run_here, run_script, succeeded
from safetensors import safe_open
from safetensors.torch import save_file

import model
import train
from toolkit.labels import CLASS_NAMES, PROBABILITY_COLUMNS
from toolkit.scoring import decision, metrics
from toolkit.system import files


@pytest.fixture
def infer(drawn, trained, tmp_path):
    def run(by=run_here, **variables):
        folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
        return by("inference.py", **{**folders, "NAME": "resnet18", "DEVICE": "cpu", **variables})

    return run


@pytest.fixture
def evaluate(drawn, tmp_path):
    def run(answers: pd.DataFrame | None = None, by=run_here, **variables):
        (tmp_path / "out").mkdir(exist_ok=True)
        if answers is not None:
            answers.to_csv(tmp_path / "out" / "output.csv", index=False)
        folders = {"SM_GROUND_TRUTH_DIR": drawn.eval, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
        return by("evaluation.py", **{**folders, **variables})

    return run


def test_a_run_leaves_its_folder_and_a_line_on_the_leaderboard(trained):
    run = trained / "resnet18"
    assert sorted(file.name for file in run.iterdir()) == [
        "calibration.json", "history.csv", "model.safetensors", "model_card.md", "report.html", "result.json",
        "settings.json", "validation.csv",
    ]  # fmt: skip
    history, validation = pd.read_csv(run / "history.csv"), pd.read_csv(run / "validation.csv")
    assert history["epoch"].tolist() == [1] and history["macro_f1"].between(0, 1).all()
    assert validation[list(PROBABILITY_COLUMNS)].sum(axis=1).round(3).eq(1).all()
    decided = json.loads((run / "calibration.json").read_text())
    p = validation[list(PROBABILITY_COLUMNS)].to_numpy()
    answers = decision.decide(p, np.array(decided["prior_correction"]["priors"]), decided["tau"])
    assert (answers == validation["predicted"]).mean() > 0.99
    settings = json.loads((run / "settings.json").read_text())
    assert settings["settings"]["size"] == [32, 32] and settings["origin"]["size"] == "flag"
    assert settings["run"]["corrections"] == {"outliers.csv": files.sha256(ROOT / "outliers.csv")}
    assert settings["settings"]["lr"] == 1e-3 and settings["origin"]["lr"] == "adamw"
    assert settings["code"]["loss.py"] == files.sha256(ROOT / "loss.py")[:16] and len(settings["data"]) == 16
    with safe_open(run / "model.safetensors", "pt") as file:
        header = {key: json.loads(value) for key, value in file.metadata().items()}
    assert header["corrections"] == settings["run"]["corrections"]
    assert header["backbone"] == "resnet18" and header["size"] == [32, 32] and header["pretrained"] == "none"
    assert header["scores"]["macro_f1"] == pytest.approx(history["macro_f1"][0])
    leaderboard = pd.read_csv(trained / "leaderboard.csv")
    assert leaderboard["run"].tolist() == ["resnet18"] and leaderboard["kept_epoch"].tolist() == [1]


def test_training_says_what_it_does(drawn, tmp_path):
    junk = tmp_path / "images"
    shutil.copytree(drawn.train, junk)
    (junk / ".DS_Store").touch()
    before = sorted(junk.rglob("*"))
    done = run_script(
        "train.py", "--patience", "1", SM_CHANNEL_TRAIN=junk, SM_MODEL_DIR=tmp_path / "runs",
        NAME="squeezenet1_1", EPOCHES="3", LR="1e-9", **{**QUICK, "SIZE": "64x64", "epochs": "3"},
    )  # fmt: skip
    assert "EPOCHES is set but is not a setting; did you mean epochs?" in done.stderr and "%|" not in done.stderr
    succeeded(
        done, "environment", "pretrained: none", "label corrections (outliers.csv, 14 rows)",
        "passed over 1 files", "train validation", "people", "epoch   1/3", "kept", "stopped: no better macro F1",
    )  # fmt: skip
    assert re.search(r"^  size +64x64 +environment$", done.stdout, re.MULTILINE)
    assert done.stdout.count("macro_f1 ") == 2
    assert sorted(junk.rglob("*")) == before


def test_a_second_run_gets_a_folder_of_its_own_and_inference_says_that_it_is_newer(drawn, trained, infer, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs)
    weights = (runs / "resnet18" / "model.safetensors").read_bytes()
    given = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": runs, **QUICK}
    before = {path: path.read_bytes() for path in runs.rglob("*.*")}
    done = succeeded(run_here("train.py", **given), "this run was finished before")
    assert "epoch " not in done.stdout
    assert f"run folder: {runs / 'resnet18'}\n" in done.stdout
    assert {path: path.read_bytes() for path in runs.rglob("*.*") if path.suffix != ".html"} == {
        path: content for path, content in before.items() if path.suffix != ".html"
    }
    succeeded(run_here("train.py", **given, RESUME="never"), "resnet18-2")
    assert (runs / "resnet18" / "model.safetensors").read_bytes() == weights
    assert pd.read_csv(runs / "leaderboard.csv")["run"].tolist() == ["resnet18", "resnet18-2"]
    # The same seed on the same machine: the same run.
    histories = [pd.read_csv(runs / run / "history.csv") for run in ("resnet18", "resnet18-2")]
    assert histories[0]["train_loss"].equals(histories[1]["train_loss"])
    assert (runs / "resnet18-2" / "validation.csv").read_bytes() == (runs / "resnet18" / "validation.csv").read_bytes()
    done = infer(SM_CHANNEL_MODEL=runs)
    assert "there are newer runs of that name: resnet18-2" in done.stdout and "better" not in done.stdout
    result = json.loads((runs / "resnet18" / "result.json").read_text())
    (runs / "resnet18" / "result.json").write_text(json.dumps(result | {"macro_f1": 0.75}))
    done = infer(SM_CHANNEL_MODEL=runs, NAME="")
    assert f"run {runs / 'resnet18-2'}" in done.stdout
    assert "note: resnet18 has a better validation macro F1 than this run, 0.7500; NAME=resnet18" in done.stdout


def test_inference_keeps_rows_order_and_columns_and_evaluation_scores_them(drawn, infer, evaluate, tmp_path):
    done = succeeded(infer(by=run_script, python=sys.executable, PROBABILITIES="true"))
    info, output = (pd.read_csv(path) for path in (drawn.eval / "info.csv", tmp_path / "out" / "output.csv"))
    assert output.columns.tolist() == ["ImageID", "ans"] and output["ImageID"].equals(info["ImageID"])
    assert output["ans"].between(0, 17).all()
    probabilities = pd.read_csv(tmp_path / "out" / "probabilities.csv")
    assert probabilities.columns.tolist() == ["ImageID", *PROBABILITY_COLUMNS, "ans"]
    report = json.loads((tmp_path / "out" / "inference.json").read_text())
    (decided,) = report["runs"].values()
    priors = np.array(decided["prior_correction"]["priors"])
    for shift in report["prior_shifts"]:  # of 6 people nobody can tell much
        here, training = (np.array(shift[name]) for name in ("found_priors", "training_priors"))
        assert 0 < np.abs(here - training).max() < 0.1
        priors = priors * (metrics.membership(shift["attribute"]) @ (here / training))
    p = probabilities[list(PROBABILITY_COLUMNS)].to_numpy()
    classes = decision.decide(p, priors / priors.sum(), decided["tau"])
    assert (classes == output["ans"]).mean() > 0.99
    done = succeeded(evaluate(by=run_script, python=sys.executable))
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    truth = pd.read_csv(drawn.eval / "gt.csv").set_index("ImageID")["ans"]
    assert result["accuracy"] == pytest.approx((truth[output["ImageID"]].to_numpy() == output["ans"]).mean())
    assert f"accuracy {result['accuracy']:.4%}\nmacro F1 {result['macro_f1']:.4f}\n" in done.stdout


def test_a_full_disk_leaves_the_answer_before_and_all_that_belongs_to_it(infer, tmp_path, monkeypatch):
    succeeded(infer(PROBABILITIES="true"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    report = json.loads(before["inference.json"])
    assert report["output_sha256"] == files.sha256(tmp_path / "out" / "output.csv")

    def fails(path):
        if "probabilities.csv" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "flush", fails)
    refused(infer(PROBABILITIES="true", TTA="true"), "cannot be written: No space left", "before is untouched")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_inference_predicts_as_validation_did(drawn, trained, infer, tmp_path):
    validation = pd.read_csv(trained / "resnet18" / "validation.csv")
    folder = tmp_path / "eval"
    (folder / "images").mkdir(parents=True)
    shutil.copytree(drawn.train, folder / "images", dirs_exist_ok=True)
    validation.rename(columns={"path": "ImageID"}).assign(ans=0)[["ImageID", "ans"]].to_csv(
        folder / "info.csv", index=False
    )
    succeeded(infer(SM_CHANNEL_EVAL=folder))
    assert (pd.read_csv(tmp_path / "out" / "output.csv")["ans"] == validation["predicted"]).mean() > 0.99


def test_bad_photographs_stop_inference_or_get_a_stated_class(drawn, infer, tmp_path):
    folder = tmp_path / "eval"
    shutil.copytree(drawn.eval, folder)
    names = pd.read_csv(folder / "info.csv")["ImageID"].tolist()
    (folder / "images" / names[3]).unlink()
    (folder / "images" / names[7]).write_bytes(b"no photograph")
    cut = folder / "images" / names[9]
    cut.write_bytes(cut.read_bytes()[:-600])
    done = infer(SM_CHANNEL_EVAL=folder)
    refused(done, "3 of 42 photographs cannot be read", f"{names[3]} (no such file)", names[7], "ON_BAD_IMAGE=fallback")
    assert f"{names[9]} (its end is missing)" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    good = infer()
    whole = pd.read_csv(tmp_path / "out" / "output.csv")["ans"]
    done = infer(SM_CHANNEL_EVAL=folder, ON_BAD_IMAGE="fallback", FALLBACK_CLASS="17", PROBABILITIES="true")
    assert good.returncode == done.returncode == 0, done.stderr
    output, bad = (pd.read_csv(tmp_path / "out" / name) for name in ("output.csv", "bad_images.csv"))
    gone = [3, 7, 9]
    assert output["ans"].drop(gone).equals(whole.drop(gone)) and output["ans"][gone].tolist() == [17, 17, 17]
    assert bad["ImageID"].tolist() == [names[row] for row in gone] and bad["ans"].tolist() == [17, 17, 17]
    assert pd.read_csv(tmp_path / "out" / "probabilities.csv").isna().any(axis=1).sum() == 3
    done = infer(SM_CHANNEL_EVAL=folder, ON_BAD_IMAGE="repair", FALLBACK_CLASS="17")
    assert "2 bad photographs got class 17, 1 were repaired; they are listed in bad_images.csv" in done.stdout
    output, bad = (pd.read_csv(tmp_path / "out" / name) for name in ("output.csv", "bad_images.csv"))
    assert output["ans"].drop([3, 7]).equals(whole.drop([3, 7]))  # the end of that photograph is its lowest rows
    assert bad["ans"].tolist() == [17, 17, whole[9]] and bad["reason"].tolist()[2] == "its end is missing"


def test_bad_photographs_stop_training_or_are_left_out_or_repaired(drawn, tmp_path, monkeypatch):
    def small(outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, outputs))

    monkeypatch.setitem(model.OWN, "small", small)
    monkeypatch.setitem(train.CHOICES, "name", ["small"])
    images, runs = tmp_path / "images", tmp_path / "runs"
    shutil.copytree(drawn.train, images)
    cut, broken = (sorted(images.glob(f"*/{name}.jpg"))[0] for name in ("incorrect_mask", "normal"))
    cut.write_bytes(cut.read_bytes()[:-600])
    broken.write_bytes(b"no photograph")

    def fit(**given):
        return run_here("train.py", NAME="small", SM_CHANNEL_TRAIN=images, SM_MODEL_DIR=runs, **QUICK, **given)

    named = f"{cut.relative_to(images)} (its end is missing), {broken.relative_to(images)} (no photograph of a format"
    refused(fit(), "2 of 168 photographs cannot be read; mend or remove them, or set ON_BAD_IMAGE=leave_out", named)
    assert not list(runs.iterdir())
    succeeded(fit(ON_BAD_IMAGE="leave_out"), "2 bad photographs are left out, 0 repaired: ")
    table = pd.read_csv(runs / "small" / "bad_images.csv")
    assert table["path"].tolist() == [str(path.relative_to(images)) for path in (cut, broken)]
    assert table["done"].tolist() == ["left out"] * 2 and table["reason"][0] == "its end is missing"
    succeeded(fit(ON_BAD_IMAGE="repair"), "1 bad photographs are left out, 1 repaired: ")
    assert pd.read_csv(runs / "small-2" / "bad_images.csv")["done"].tolist() == ["left out", "repaired"]
    cut.unlink()
    broken.unlink()
    assert "this run was finished before" in fit().stdout  # the one that left them out


def test_a_perfect_answer_scores_one_in_any_order(drawn, evaluate, tmp_path):
    truth = pd.read_csv(drawn.eval / "gt.csv")
    done = evaluate(truth.sample(frac=1, random_state=0))
    assert "accuracy 100.0000%\nmacro F1 1.0000" in done.stdout
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["macro_f1"] == 1.0


def test_answers_that_do_not_fit_the_ground_truth_are_refused(drawn, evaluate, tmp_path):
    truth = pd.read_csv(drawn.eval / "gt.csv")
    refused(evaluate(truth.iloc[2:]), f"2 missing: {', '.join(sorted(truth['ImageID'][:2]))}")
    refused(evaluate(pd.concat([truth, pd.DataFrame({"ImageID": ["x.jpg"], "ans": [0]})])), "1 extra: x.jpg")
    wrong = truth.astype({"ans": object})
    wrong.loc[[0, 1, 2], "ans"] = [18, "1.5", "old"]
    refused(evaluate(wrong), "found 3 others", "has '18'", "has '1.5'", "has 'old'")
    refused(evaluate(pd.concat([truth, truth.iloc[5:6]])), f"1 repeated: {truth['ImageID'][5]}")
    refused(evaluate(truth.rename(columns={"ans": "class"})), "expected the columns ImageID, ans; found ImageID, class")
    (tmp_path / "out" / "output.csv").unlink()
    refused(evaluate(), "output.csv: expected this file, found none")
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_bad_input_to_training_is_refused(drawn, tmp_path):
    (tmp_path / "empty").mkdir()
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs"}
    failure = tmp_path / "failure"
    done = run_script(
        "train.py", "--epocs", "3", NAME="resnet19", EPOCHS="many", SIZE="128", LOSS="focl", SM_OUTPUT_DIR=tmp_path,
        **{**folders, "SM_CHANNEL_TRAIN": "/nowhere"},
    )  # fmt: skip
    refused(
        done, "epocs (flag): there is no such setting; did you mean epochs?", "NAME=resnet19", "resnet18",
        "EPOCHS=many", "SIZE=128: expected height and width", "LOSS=focl", "focal", "SM_CHANNEL_TRAIN=/nowhere",
    )  # fmt: skip
    assert failure.read_text() in done.stderr
    refused(run_here("train.py", **{**folders, **QUICK, "SM_CHANNEL_TRAIN": tmp_path / "empty"}), "found nothing")
    refused(run_here("train.py", **folders, **{**QUICK, "RELABEL": "/nowhere.csv"}), "expected sure, all, none or")
    refused(
        run_here("train.py", **folders, **{**QUICK, "SIZE": "32x32", "NAME": "vgg16_bn", "epochs": "0"}), "EPOCHS=0"
    )
    images = tmp_path / "images"
    shutil.copytree(drawn.train, images)
    broken = sorted(images.glob("*/mask1.*"))[:3]
    for path in broken:
        path.write_bytes(path.read_bytes()[:999])
    done = run_here("train.py", **{**folders, **QUICK, "SM_CHANNEL_TRAIN": images})
    refused(done, "3 of 168 photographs cannot be read", *(str(path.relative_to(images)) for path in broken))
    done = run_here("train.py", **folders, **{**QUICK, "LR": "1e30", "CLIP_GRAD": "0"})
    refused(done, "epoch 1, step ", "expected finite numbers", "lower LR")
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "loop").symlink_to("loop")
    refused(run_here("train.py", **{**folders, **QUICK, "SM_MODEL_DIR": tmp_path / "loop"}), "SM_MODEL_DIR=", "loop")


def test_bad_input_to_inference_is_refused(drawn, trained, infer, tmp_path):
    refused(infer(by=run_script, NAME="vgg11"), "NAME=vgg11: expected", "found the runs resnet18")
    refused(infer(SM_CHANNEL_MODEL=trained / "resnet18", NAME="vgg11"), "is itself a run, resnet18")
    succeeded(infer(SM_CHANNEL_MODEL=trained / "resnet18"))
    runs = tmp_path / "runs"
    (runs / "resnet18").mkdir(parents=True)
    refused(infer(SM_CHANNEL_MODEL=runs), "found no run")
    whole = (trained / "resnet18" / "model.safetensors").read_bytes()
    (runs / "resnet18" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(infer(SM_CHANNEL_MODEL=runs), "found a damaged or foreign file")
    with safe_open(trained / "resnet18" / "model.safetensors", "pt") as file:
        header = file.metadata()
    two_classes = header | {"classes": json.dumps(["mask", "no mask"])}
    for metadata, expected in (
        (None, "expected weights that train.py wrote"),
        (two_classes, "expected the 18 classes"),
    ):
        save_file({"a": torch.zeros(1)}, runs / "resnet18" / "model.safetensors", metadata)
        refused(infer(SM_CHANNEL_MODEL=runs), expected)
    folder = tmp_path / "eval"
    shutil.copytree(drawn.eval, folder)
    (folder / "info.csv").write_text("image,ans\nx.jpg,0\n")
    refused(infer(SM_CHANNEL_EVAL=folder), "info.csv: expected the columns ImageID; found image, ans")
    refused(infer(SM_CHANNEL_EVAL=drawn.train), "info.csv: expected this file, or photographs in ", "found 900001_")
    refused(
        infer(SM_CHANNEL_EVAL=drawn.eval, POOL="person"), "POOL=person: expected a column person in ", "ImageID, ans"
    )
    refused(infer(SM_CHANNEL_EVAL=""), "SM_CHANNEL_EVAL: expected a folder, found nothing set")


def test_a_folder_without_a_table_is_answered_whole_and_nothing_is_written_into_it(drawn, infer, tmp_path):
    folder = tmp_path / "any folder"
    (folder / "more").mkdir(parents=True)
    photographs = sorted((drawn.eval / "images").iterdir())[:4]
    for path, name in zip(photographs, ("b.JPG", "a.jpeg", "ä.jpg", "._b.jpg"), strict=True):
        shutil.copy(path, folder / name)
    (folder / "notes.txt").touch()
    before = sorted(folder.rglob("*"))
    done = succeeded(infer(SM_CHANNEL_EVAL=folder))
    assert f"all 3 photographs of {folder}, sorted; passed over, as they are no photographs: notes.txt" in done.stdout
    assert "; folders in it are NOT read: more" in done.stdout
    answers = pd.read_csv(tmp_path / "out" / "output.csv")
    assert answers.columns.tolist() == ["ImageID", "ans"] and answers["ImageID"].tolist() == [
        "a.jpeg",
        "b.JPG",
        "ä.jpg",
    ]
    assert sorted(folder.rglob("*")) == before


def test_photographs_that_are_named_get_a_line_each_and_no_file(drawn, trained, infer, tmp_path):
    succeeded(infer())
    expected = pd.read_csv(tmp_path / "out" / "output.csv").set_index("ImageID")["ans"]
    paths = sorted((drawn.eval / "images").iterdir())[:2]
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    given = {"cwd": tmp_path, "SM_CHANNEL_MODEL": trained, "DEVICE": "cpu"}
    before = sorted(tmp_path.rglob("*"))
    done = run_script("inference.py", paths[0], "bad.jpg", paths[1], "--tta", "false", **given)
    refused(done, "error: cannot be read: bad.jpg (")
    lines = [line for line in done.stdout.splitlines() if "  class " in line]
    found = re.findall(
        r"^(\S+) +class +(\d+)  mask (\w+) +gender (\w+) +age (\w+) +probability ([01]\.\d{3})$", done.stdout, re.M
    )
    assert len(lines) == len(found) == 2 and sorted(tmp_path.rglob("*")) == before
    for path, (name, number, *names, _) in zip(paths, found, strict=True):
        assert (name, int(number)) == (str(path), expected[path.name]) and " ".join(names) == CLASS_NAMES[int(number)]
    done = run_script("inference.py", paths[0], "missing.jpg", tmp_path, "--name", "x", **given)
    refused(done, f"found no such file: missing.jpg, {tmp_path}; SM_CHANNEL_EVAL takes a folder")
    done = run_script("inference.py", paths[0], PROBABILITIES="true", **given)
    refused(done, "PROBABILITIES: has no effect on photographs that are given by name")
    done = run_script("inference.py", paths[0], cwd=tmp_path)
    refused(done, "found no run")
    assert done.stdout == f"no folder is set: taking the model of the drawn faces in {tmp_path / 'demo'}\n"


def test_photographs_of_a_person_share_gender_and_age(drawn, infer, tmp_path):
    folder = tmp_path / "eval"
    folder.mkdir()
    (folder / "images").symlink_to(drawn.eval / "images")
    truth = pd.read_csv(drawn.eval / "gt.csv")
    truth.assign(ans=0).to_csv(folder / "info.csv", index=False)
    succeeded(infer(SM_CHANNEL_EVAL=folder, POOL="person"), "42 photographs of 6 people are pooled for gender and age")
    assert json.loads((tmp_path / "out" / "inference.json").read_text())["pooled_people"] == 6
    output, p = (pd.read_csv(tmp_path / "out" / name) for name in ("output.csv", "probabilities.csv"))
    assert output["person"].equals(truth["person"])
    of_old = p[[f"p{number}" for number in (2, 5, 8, 11, 14, 17)]].sum(axis=1)
    assert of_old.groupby(truth["person"]).std().max() < 1e-5 < of_old.std()
    truth.assign(person=truth["person"].where(truth["person"] != truth["person"][0], " ")).to_csv(folder / "info.csv")
    refused(infer(SM_CHANNEL_EVAL=folder, POOL="person"), "found 7 empty cells in it")
