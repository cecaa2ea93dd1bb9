import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from toolkit import labels
from toolkit.scoring import metrics


@pytest.mark.parametrize("classes", [range(18), (0, 3, 17)])
def test_scores_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    true, predicted = rng.choice(list(classes), 500), rng.integers(0, 18, 500)
    result = metrics.scores(metrics.confusion(true, predicted))
    options = {"labels": range(18), "zero_division": 0}
    assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
    assert result["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(true, predicted, average="macro", **options))
    each = sklearn_metrics.precision_recall_fscore_support(true, predicted, **options)
    for name, expected in zip(("precision", "recall", "f1", "count"), each, strict=True):
        assert [row[name] for row in result["classes"]] == pytest.approx(list(expected))
    for name, numbers in labels.to_attributes(true).items():
        expected = sklearn_metrics.f1_score(
            numbers, labels.to_attributes(predicted)[name], average="macro", zero_division=0
        )
        assert result["attributes"][name]["macro_f1"] == pytest.approx(expected)


def test_an_absent_class_counts_zero_and_nothing_is_nan():
    result = metrics.scores(metrics.confusion([0, 1], [0, 1]))
    assert result["macro_f1"] == pytest.approx(2 / 18)
    assert result["accuracy"] == 1.0
    json.dumps(result, allow_nan=False)  # and every number is a plain one
    assert metrics.scores(np.zeros((18, 18), np.int64))["accuracy"] == 0.0
