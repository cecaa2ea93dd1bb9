"""Nets without validation people: what they leave behind, how they decide, and that they go on like others."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import tiny
from conftest import FOLDS, QUICK, from_scratch, refused, run_here, succeeded
from faults import Forked

from toolkit.runs.weights import load_weights, read_header
from toolkit.scoring.calibration import softmax
from toolkit.scoring.decision import fit_decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.training import decide_by

SCORES = ("macro_f1", "accuracy", "mask", "gender", "age", "val_loss")


def of_everybody(drawn, runs, **given):
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": runs}
    return run_here("train.py", **{**QUICK, "VAL_RATIO": 0, **folders, **given})


def test_a_net_of_everybody_keeps_its_last_epoch_and_shows_no_validation(drawn, tmp_path):
    done = succeeded(of_everybody(drawn, tmp_path, NAME="shufflenet_v2_x0_5", epochs=2))
    assert "no report is written" not in done.stdout, done.stdout + done.stderr
    run = tmp_path / "shufflenet_v2_x0_5"
    history = pd.read_csv(run / "history.csv")
    assert history.columns.tolist() == ["epoch", "lr", "train_loss"] and not (run / "validation.csv").exists()
    header = read_header(run / "model.safetensors")
    assert header.scores["epoch"] == 2 and header.decided_by == "defaults"
    decided = json.loads((run / "calibration.json").read_text())
    assert (decided["temperature"], decided["tau"], decided["attributes"]) == (1.0, 0.5, {}) and "before" not in decided
    counts = pd.read_csv(run.parent / "leaderboard.csv")[[*SCORES]]
    assert counts.isna().all(axis=None)
    assert all(json.loads((run / "result.json").read_text())[score] is None for score in SCORES)
    page = (run / "report.html").read_text()
    assert "The net was trained on everybody" in page and "decision by defaults" in page
    assert not any(words in page for words in ("Macro F1", ">nan<", '<th scope="col">validation'))
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": tmp_path, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    done = run_here("inference.py", **folders, DEVICE="cpu")
    assert "epoch 2, trained on everybody, decides by defaults" in done.stdout, done.stderr
    (said,) = json.loads((tmp_path / "out" / "inference.json").read_text())["runs"].values()
    assert not set(SCORES) & set(said)


def test_one_that_is_stopped_ends_as_if_nothing_had_happened(drawn, tmp_path):
    given = QUICK | {"NAME": "tiny", "VAL_RATIO": 0, "BATCH_SIZE": 64, "EPOCHS": 3, "SM_CHANNEL_TRAIN": drawn.train}
    given |= {"LOSSES": tmp_path / "losses", "DYING_RANK": 0, "DYING_SIGNAL": int(signal.SIGTERM)}
    del given["epochs"]
    found = []
    for name, steps in (("stopped", (5, None)), ("whole", (None,))):
        for step in steps:
            process = Forked(tiny.main, tmp_path / "log", **given, SM_MODEL_DIR=tmp_path / name, DYING_STEP=step)
            assert process.wait(60) == (143 if step else 0), process.log.read_text()
        weights, _ = load_weights(tmp_path / name / "tiny" / "model.safetensors")
        history = (tmp_path / name / "tiny" / "history.csv").read_bytes()
        found.append([history, *(value.numpy().tobytes() for value in weights.values())])
    assert found[0] == found[1]


def test_it_decides_as_a_run_of_folds_does(drawn, folds, tmp_path):
    given = {name: value for name, value in FOLDS.items() if name != "FOLDS"}
    own = {"DECIDE_BY": folds / "shufflenet_v2_x0_5", "LOGIT_ADJUSTMENT": 0.25, "WARMUP": 0.2}
    succeeded(of_everybody(drawn, tmp_path, **given, **own), "its folds were trained with WARMUP=0.1, not 0.2; their")
    header = read_header(tmp_path / "shufflenet_v2_x0_5" / "model.safetensors")
    assert header.decided_by == "out-of-fold predictions of shufflenet_v2_x0_5"
    decision = header.decision
    fitted = decide_by.fit_out_of_fold(folds / "shufflenet_v2_x0_5", decision.prior_correction, 0.25)
    assert decision.tau == 0.25 and len(decision.year_priors) == 101
    assert (decision.temperature, decision.attributes) == (fitted.temperature, fitted.attributes)
    assert decision.prior_correction.priors == pytest.approx(all_priors(folds))


def all_priors(folds) -> np.ndarray:
    labels = pd.read_csv(folds / "shufflenet_v2_x0_5" / "out_of_fold.csv")["label"]
    return np.bincount(labels, minlength=18) / len(labels)


def test_what_is_fitted_on_probabilities_is_what_would_be_fitted_on_logits(folds, tmp_path):
    """Also where each fold has its own prior correction and temperature."""
    rng = np.random.default_rng(0)
    shutil.copytree(folds / "shufflenet_v2_x0_5", tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "out_of_fold.csv", dtype={"person": str})
    labels = table["label"].to_numpy()
    logits = rng.normal(size=(len(table), 18)) + 2.5 * np.eye(18)[labels]
    priors, sampled_priors = (tuple(rng.dirichlet(np.full(18, 20.0))) for _ in range(2))
    correction = PriorCorrection(priors, sampled_priors, tuple(rng.uniform(0.5, 2, 18)), 0.1)
    for fold in (0, 1):
        rows = (table["fold"] == fold).to_numpy()
        temperature = read_header(tmp_path / "run" / f"fold-{fold}" / "model.safetensors").decision.temperature
        p = correction.probabilities(logits[rows], temperature)
        log_posterior = correction.log_posterior_of(p, temperature)
        np.testing.assert_allclose(softmax(log_posterior), softmax(correction.log_posterior(logits[rows])))
        table.loc[rows, [f"p{k}" for k in range(18)]] = p.round(6)
    table.to_csv(tmp_path / "run" / "out_of_fold.csv", index=False)
    people = pd.factorize(table["person"])[0]
    expected = fit_decision(logits, labels, people, correction, 0.5)
    found = decide_by.fit_out_of_fold(tmp_path / "run", correction, 0.5)
    assert expected.temperature != 1 and found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.attributes["age"].people == len(set(people))


def test_a_run_that_cannot_decide_is_refused_before_any_work(drawn, folds, trained, tmp_path):
    given = {name: value for name, value in FOLDS.items() if name not in ("FOLDS", "CROP")} | {"FIT": "pad"}
    run = folds / "shufflenet_v2_x0_5"
    words = "expected folds of nets like this one, NAME=shufflenet_v2_x0_5 HEAD=factored at 32x32 "
    done = of_everybody(drawn, tmp_path, **given, DECIDE_BY=run, CROP="1")
    refused(done, words + "FIT=pad; found", "at 32x32 CROP=0.1,0.05,0.95,0.9 FIT=cover in")
    done = of_everybody(drawn, tmp_path, **given, DECIDE_BY=run)  # CROP=auto takes that of the folds
    refused(done, words + "CROP=0.1,0.05,0.95,0.9 FIT=pad; found")
    done = of_everybody(drawn, trained, DECIDE_BY="resnet18")  # a single run
    refused(done, "DECIDE_BY=resnet18: expected a run whose folds are done", "found in SM_MODEL_DIR none")
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "fold-1" / "model.safetensors").unlink()
    given |= {"FIT": FOLDS["FIT"], "CROP": FOLDS["CROP"]}
    done = of_everybody(drawn, tmp_path, **given, DECIDE_BY="copy")
    refused(done, "DECIDE_BY=copy: expected the nets of all folds, found no")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_another_decision_begins_another_run(task):
    config = from_scratch(val_ratio=0)
    decided = decide_by.with_decision(config, task)
    other = decide_by.with_decision(config.model_copy(update={"logit_adjustment": 0.25}), task)
    assert len({task.digest(), decided.digest(), other.digest()}) == 3
