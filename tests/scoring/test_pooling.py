"""What the photographs of a person say together."""

import numpy as np
import pytest

from toolkit.labels import to_attributes
from toolkit.scoring import metrics, pooling
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection, normalised
from toolkit.serving.ensemble import decide_together

IDENTITY = np.eye(6)[np.arange(18) % 6]  # gender and age band of a class


def probabilities(n: int) -> np.ndarray:
    return normalised(np.exp(2 * np.random.default_rng(0).normal(size=(n, 18))))


def test_a_persons_photographs_share_gender_and_age_and_each_keeps_its_mask():
    p, people = probabilities(7), ["b", "a", "b", "c", "b", "a", "b"]
    pooled = pooling.pool(p, people)
    np.testing.assert_allclose(pooled.sum(1), 1)
    np.testing.assert_array_equal(pooled[3], p[3])  # the only photograph of c
    masks = metrics.membership("mask")
    np.testing.assert_allclose(pooled @ masks, p @ masks)
    for person in "ab":
        rows = [row for row, name in enumerate(people) if name == person]
        expected = np.exp(np.log(p[rows] @ IDENTITY).mean(0))
        np.testing.assert_allclose(pooled[rows] @ IDENTITY, np.tile(expected / expected.sum(), (len(rows), 1)))


def test_photographs_that_say_the_same_make_nobody_surer():
    one = probabilities(1)
    np.testing.assert_allclose(pooling.pool(one.repeat(7, 0), ["a"] * 7) @ IDENTITY, (one @ IDENTITY).repeat(7, 0))


def test_certain_photographs_that_contradict_each_other_give_numbers():
    p = np.zeros((2, 18))
    p[[0, 1], [0, 17]] = 1
    assert np.isfinite(pooling.pool(p, ["a", "a"])).all()
    assert pooling.pool(np.zeros((0, 18)), []).shape == (0, 18)


@pytest.mark.parametrize("how", ["mean", "vote"])
def test_it_repairs_the_answers_of_a_net_that_errs_photograph_by_photograph(how):
    """Each photograph has noise of its own. Pooling removes most of it, however the runs are combined."""
    draws = np.random.default_rng(1)
    identities = draws.integers(0, 6, 200).repeat(7)
    labels = np.tile([0, 0, 0, 0, 0, 1, 2], 200) * 6 + identities
    logits = 3 * np.eye(18)[labels] + 1.5 * draws.normal(size=(3, 1400, 18))
    decision = Decision(1.0, 0.5, PriorCorrection((1 / 18,) * 18, (1 / 18,) * 18))
    people = np.arange(200).repeat(7).astype(str).tolist()
    right = {}
    for given in (None, people):
        answer = decide_together([decision] * 3, normalised(np.exp(logits)), how, False, given)
        found, true = to_attributes(answer.classes), to_attributes(labels)
        right[given is None] = np.mean((found["gender"] == true["gender"]) & (found["age"] == true["age"]))
    assert right[False] > 0.99 > right[True] + 0.02
