"""Bootstrap intervals of the scores."""

import numpy as np
import pytest

from toolkit.scoring import metrics


def test_the_bootstrap_draws_people_and_not_photographs():
    """Either all photographs of a person are right or none: 7 of them say no more than one."""
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.7
    people, true = np.repeat(np.arange(300), 7), np.zeros(2100, int)
    predicted = np.where(np.repeat(right, 7), 0, 1)
    by_person = metrics.intervals(true, predicted, people)["accuracy"]
    by_photograph = metrics.intervals(true, predicted)["accuracy"]
    share = right.mean()
    spread = 1.96 * np.sqrt(share * (1 - share) / 300)
    np.testing.assert_allclose(by_person, (share - spread, share + spread), atol=0.01)
    assert np.diff(by_person) / np.diff(by_photograph) == pytest.approx(np.sqrt(7), rel=0.15)


def test_intervals_hold_the_true_value_as_often_as_they_claim():
    """Of 80 samples of people from a known net, some 95 % have its true recall in their interval."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(80):
        true = rng.integers(0, 2, 150)
        predicted = np.where(rng.random(150) < 0.8, true, 1 - true)
        low, high = metrics.intervals(true, predicted, np.arange(150), 300)["classes"][0]["recall"]
        held += low <= 0.8 <= high
    assert 71 <= held <= 80


def test_intervals_of_few_people_hold_the_true_value_too():
    """Three people a class, whose five photographs are mostly all right or all wrong."""
    rng, held = np.random.default_rng(0), 0
    people, true = np.repeat(np.arange(6), 5), np.repeat([0, 0, 0, 1, 1, 1], 5)
    for _ in range(200):
        right = np.where(rng.random(30) < 0.8, np.repeat(rng.random(6) < 0.8, 5), rng.random(30) < 0.8)
        low, high = metrics.intervals(true, np.where(right, true, 1 - true), people, 50)["classes"][0]["recall"]
        held += low <= 0.8 <= high
    assert held >= 185


@pytest.mark.parametrize("people", [1, 2, 50])
def test_a_class_that_is_always_right_has_an_interval_that_gets_narrower_by_people(people):
    """The interval is not 1.000 to 1.000. Wilson's lower bound is 1 / (1 + z^2 / n)."""
    true = np.repeat([0, 1], 5 * people)
    found = metrics.intervals(true, true, np.repeat(np.arange(2 * people), 5))
    for name in ("precision", "recall", "f1"):
        low, high = found["classes"][0][name]
        expected = 1 / (1 + 1.96**2 / people)
        assert low == pytest.approx(expected if name != "f1" else 2 * expected / (1 + expected)) and high == 1
    assert found["macro_f1"] is None and found["classes"][2]["f1"] is None


def test_macro_f1_over_classes_that_are_there():
    scores = metrics.scores(metrics.confusion([0, 0, 1, 1], [0, 0, 1, 2]))
    assert scores["classes_present"] == 2
    assert scores["macro_f1_present"] == pytest.approx((1 + 2 / 3) / 2) == pytest.approx(scores["macro_f1"] * 9)
