"""What pages show of predictions."""

import numpy as np

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
        predictions.class_name(5), predictions.class_name(2), 2, 0.5,
    )  # fmt: skip
    assert second["predicted"] == predictions.class_name(0) and context["people"] == 4 and context["wrong"] == 3
    mistakes = [
        (one["name"], one["predicted"], one["true"], one["p_predicted"], one["p_true"]) for one in context["mistakes"]
    ]
    assert mistakes[0] == ("b", predictions.class_name(2), predictions.class_name(5), 0.8, 0.13)
    assert [one[0] for one in mistakes] == ["b", "a", "c"]


def test_names_from_outside_are_escaped(tmp_path):
    hostile = "<script>alert(1)</script>"
    context = template_context(Predictions([hostile, "b"], np.array([0, 1]), np.array([1, 1])))
    render.write(tmp_path / "page.html", "predictions.html", title=hostile, facts=hostile, **context)
    assert hostile not in (tmp_path / "page.html").read_text()
