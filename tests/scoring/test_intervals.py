"""Bootstrap intervals of the scores."""

import numpy as np
import pytest

from toolkit.scoring import metrics


def test_the_bootstrap_draws_people_and_not_photographs():
    """All photographs of a person are right, or none: 7 of each hold no more information than one."""
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.7
    people, true = np.repeat(np.arange(300), 7), np.zeros(2100, int)
    predicted = np.where(np.repeat(right, 7), 0, 1)
    by_person = metrics.intervals(metrics.bootstrap(true, predicted, people))["accuracy"]
    by_photograph = metrics.intervals(metrics.bootstrap(true, predicted))["accuracy"]
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
        low, high = metrics.intervals(metrics.bootstrap(true, predicted, np.arange(150), 300))["classes"][0]["recall"]
        held += low <= 0.8 <= high
    assert 71 <= held <= 80
