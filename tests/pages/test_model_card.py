"""The model card says of a run what its files say."""

import json

import numpy as np
import pandas as pd

import dataset
from toolkit.pages import model_card
from toolkit.pages.parts.predictions import Predictions
from toolkit.runs.weights import WEIGHTS, read_header


def test_the_card_of_a_run_has_its_scores_its_people_and_its_digests(trained, drawn):
    run = trained / "resnet18"
    card, result = (run / model_card.CARD).read_text(), json.loads((run / "result.json").read_text())
    settings, validation = json.loads((run / "settings.json").read_text()), pd.read_csv(run / "validation.csv")
    table, _ = dataset.read_faces(drawn.train)
    people, held_out = table["person"].nunique(), validation["person"].nunique()
    low, high = result["macro_f1_low"], result["macro_f1_high"]
    assert f"- macro F1 {result['macro_f1']:.4f} ({low:.3f} to {high:.3f})" in card
    assert f"{len(table) - len(validation)} photographs of {people - held_out} people." in card
    assert f"On {len(validation)} photographs of {held_out} people who were held out" in card
    assert f"- data {settings['data']}:" in card and settings["started"] in card
    assert "ages below 1" in card and "fewer than 20 people" in card


def test_the_card_says_for_whom_it_is_unfit_and_shows_names_from_outside_as_text(trained):
    run = trained / "resnet18"
    rng = np.random.default_rng(0)
    true, camera = rng.integers(0, 15, 400), np.repeat(["phone", "<b>|fixed"], 200)
    predicted = np.where((camera == "phone") | (rng.random(400) < 0.4), true, 17)
    scores = Predictions(range(400), true, predicted, range(400), columns={"camera": camera}).scores
    table = pd.DataFrame({"person": range(4), "gender": [0, 1] * 2, "years": [20, 30, 40, 50], "corrected": ""})
    header = read_header(run / WEIGHTS)
    lines = list(model_card._lines(model_card.Facts(run, header, table, 0, "400 people"), scores))
    (wrong,) = [line for line in lines if "by camera" in line]
    assert wrong.startswith("- Wrong more often: by camera: accuracy of \\<b\\>\\|fixed is ")
    assert any("known of how often it is wrong on: not worn female under 30; " in line for line in lines)
    assert "- Unfit: for ages below 20 and above 50. It saw none." in lines
    assert "\nPeople by gender: male (2), female (2)." in lines
    unknown = list(model_card._lines(model_card.Facts(run, header, table, 0, ""), None))
    assert "None: nobody was held out." in unknown
