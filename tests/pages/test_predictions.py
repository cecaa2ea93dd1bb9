"""What pages show of predictions."""

import base64
import io
import re

import numpy as np
from PIL import Image

from toolkit.pages.parts import predictions, render
from toolkit.pages.parts.predictions import Predictions, template_context


def test_rows_are_true_and_columns_are_predicted():
    """Of four photographs of class 5 two are predicted as class 2, and one as class 0."""
    true, predicted = np.array([5, 5, 5, 5, 2]), np.array([2, 2, 0, 5, 2])
    p = np.full((5, 18), 0.01)
    p[np.arange(5), predicted], p[:3, 5] = 0.7, 0.13
    p[1, 2] = 0.8
    context = template_context(Predictions(list("abcde"), true, predicted, list("vvwxy"), p))
    row = context["matrices"][0]["rows"][5]
    assert [cell["count"] for cell in row["cells"]][:6] == [1, 0, 2, 0, 0, 1] and row["cells"][2]["share"] == 0.5
    first, second = context["pairs"]
    assert (first["true"], first["predicted"], first["count"], first["share"]) == (
        predictions.READABLE_CLASSES[5], predictions.READABLE_CLASSES[2], 2, 0.5,
    )  # fmt: skip
    assert second["predicted"] == predictions.READABLE_CLASSES[0] and context["people"] == 4 and context["wrong"] == 3
    first, second = context["mistakes"]
    assert (first["person"], first["wrong"], first["count"]) == ("v", 2, 2)
    assert [one["name"] for one in first["mistakes"] + second["mistakes"]] == ["b", "a", "c"]
    shown = first["mistakes"][0]
    names = predictions.READABLE_CLASSES[2], predictions.READABLE_CLASSES[5]
    assert (shown["predicted"], shown["true"], shown["p_predicted"], shown["p_true"]) == (*names, 0.8, 0.13)
    assert shown["cells"] == ["class-5-2", "gender-1-0"] and context["matrices"][0]["shown"]["class-5-2"] == 2


def test_every_cell_of_the_matrix_leads_to_photographs_before_a_frequent_one_takes_all_places():
    true = np.repeat([0, 1, 2], [200, 2, 1])
    context = template_context(Predictions(range(203), true, true + 1, true, np.full((203, 18), 0.5)))
    shown = context["matrices"][0]["shown"]
    assert (shown["class-0-1"], shown["class-1-2"], shown["class-2-3"]) == (predictions.MAX_MISTAKES - 3, 2, 1)


def test_the_page_says_what_caps_macro_f1_and_which_classes_nobody_is_of(tmp_path):
    true = np.arange(18)
    true[15:] = 0
    context = template_context(Predictions(list(true), true, true, true, corrected=[""] * 18))
    render.write(tmp_path / "page.html", "predictions.html", title="", facts="", **context)
    text = (tmp_path / "page.html").read_text()
    assert "3 of 18 classes have no photographs here" in text and "macro F1 is at most\n0.833." in text
    assert "Over the other 15 classes it is 1.0000." in text and text.count("<td>-</td><td>-</td><td>-</td>") == 3
    assert "1.000 to 1.000" not in text


def test_a_corrected_label_is_said_beside_its_mistake(tmp_path):
    found = Predictions(["a", "b"], np.array([0, 1]), np.array([1, 0]), ["x", "y"], corrected=["male to female", ""])
    render.write(tmp_path / "page.html", "predictions.html", title="", facts="", **template_context(found))
    assert (tmp_path / "page.html").read_text().count("label corrected: male to female") == 1


def test_pixelated_pages_hold_mosaics_only(drawn):
    photographs = sorted(drawn.train.glob("*/mask1.jpg"))[:2]
    found = Predictions(["a", "b"], np.array([0, 1]), np.array([1, 0]), ["x", "y"], paths=photographs)
    for pixelate in (False, True):
        page = render.render("predictions.html", title="", facts="", pixelate=pixelate, **template_context(found))
        uris = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
        assert len(uris) == 2
        for uri in uris:
            with Image.open(io.BytesIO(base64.b64decode(uri))) as photo:
                pixels = np.asarray(photo.convert("L")).astype(int)
            inside = pixels[:, 2 : pixels.shape[1] // 14 - 2]  # of the first cells: a mosaic is flat there
            assert (np.abs(inside - inside[:, :1]).max() < 6) == pixelate


def test_the_page_scores_groups():
    rng = np.random.default_rng(0)
    true, camera = rng.integers(0, 18, 400), np.repeat(["phone", "fixed"], 200)
    predicted = np.where((camera == "fixed") & (rng.random(400) < 0.5), 0, true)
    found = Predictions(range(400), true, predicted, range(400), columns={"camera": camera})
    text = render.render("predictions.html", title="", facts="", **template_context(found))
    gap = found.scores["groups"]["camera"]["gap"]
    assert f"camera: accuracy of fixed is {100 * gap['difference']:.1f} points below that of phone" in text
    assert "<summary>By camera</summary>" in text and "<summary>By gender x age</summary>" in text


def test_names_from_outside_are_escaped(tmp_path):
    hostile = "<script>alert(1)</script>"
    context = template_context(Predictions([hostile, "b"], np.array([0, 1]), np.array([1, 1])))
    render.write(tmp_path / "page.html", "predictions.html", title=hostile, facts=hostile, **context)
    assert hostile not in (tmp_path / "page.html").read_text()
