"""Calibration, logit adjustment and moved shares, on people whose true probabilities are known."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from toolkit.labels import ATTRIBUTES, CLASSES, to_attributes
from toolkit.scoring import calibration, decision, metrics

SHARES = np.outer([5, 1, 1], np.outer([0.386, 0.614], [0.474, 0.455, 0.071])).ravel() / 7
EVEN = (1 / CLASSES,) * CLASSES
AS_SHOWN = decision.Prior(tuple(SHARES), tuple(SHARES))
MOVED = np.outer([5, 1, 1], np.outer([0.6, 0.4], [0.384, 0.366, 0.25])).ravel() / 7


def people_of(shares: np.ndarray, people: int, seed: int, clear: float = 2.2):
    """Logits of a net that knows the shares of training and how clear photographs are; labels; people."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(6, people, p=shares.reshape(3, 6).sum(0))
    labels = (np.repeat([0, 0, 0, 0, 0, 1, 2], people).reshape(7, people).T * 6 + classes[:, None]).ravel()
    of = to_attributes(np.arange(CLASSES))
    evidence = np.zeros((len(labels), CLASSES))
    for attribute, names in ATTRIBUTES.items():
        true = to_attributes(labels)[attribute]
        seen = rng.normal(clear * np.eye(len(names))[true], 1)  # log-likelihoods: clear * seen, up to a constant
        evidence += clear * seen[:, of[attribute]]
    return evidence + np.log(SHARES), labels, np.repeat(np.arange(people), 7)


def test_the_temperature_is_that_of_the_greatest_likelihood():
    logits, labels, _ = people_of(SHARES, 200, 0)
    best = minimize_scalar(
        lambda t: calibration.likelihood_loss(calibration.softmax(logits * 3, t), labels), (0.5, 20), method="brent"
    )
    assert (
        calibration.fit_temperature(logits * 3, labels) == pytest.approx(best.x, rel=1e-3) == pytest.approx(3, rel=0.1)
    )


def test_a_temperature_is_taken_only_where_it_helps_people_it_was_not_fitted_on():
    logits, labels, people = people_of(SHARES, 200, 0)
    temperature = calibration.temperature_that_helps(logits * 3, labels, people)
    before, after = (calibration.softmax(logits * 3, t) for t in (1.0, temperature))
    assert calibration.likelihood_loss(after, labels) < calibration.likelihood_loss(before, labels)
    assert calibration.calibration_error(after, labels) < 0.5 * calibration.calibration_error(before, labels)
    few = people_of(SHARES, 4, 1)
    assert calibration.temperature_that_helps(*few) == 1.0  # fewer people than folds
    taken = [calibration.temperature_that_helps(*people_of(SHARES, 30, seed)) for seed in range(20)]
    assert taken.count(1.0) > 5  # the net is calibrated already: what is fitted is noise


def test_calibration_error_by_hand():
    p = np.full((4, CLASSES), 0.1 / 17)
    p[:, 0] = 0.9
    assert calibration.calibration_error(p, np.array([0, 0, 0, 5])) == pytest.approx(0.15)


def test_strength_favours_rare_classes_and_is_chosen_where_macro_f1_calls_for_it():
    logits, labels, people = people_of(SHARES, 400, 0)
    p = calibration.softmax(logits)
    old = [(to_attributes(decision.decide(p, SHARES, strength))["age"] == 2).sum() for strength in decision.STRENGTHS]
    assert old == sorted(old) and old[0] < old[-1]
    assert (decision.decide(p, SHARES, 0.0) == p.argmax(1)).all()
    offset = decision.Decision(2.0, 0.5, AS_SHOWN).offset()
    assert ((logits + offset).argmax(1) == decision.decide(calibration.softmax(logits, 2.0), SHARES, 0.5)).all()
    # A net that favours rare classes by itself already, and one that favours the common ones twice.
    for tilt, best in ((-1, 0.0), (1, 1.0)):
        tilted = calibration.softmax(logits + tilt * np.log(SHARES))
        assert decision.choose_strength(tilted, labels, people, SHARES) == best
    logits, labels, people = people_of(SHARES, 400, 0, clear=1.2)
    assert decision.choose_strength(calibration.softmax(logits), labels, people, SHARES) == decision.USUAL


@pytest.mark.parametrize("seed", range(3))
def test_moved_shares_are_found_and_win_macro_f1(seed):
    logits, labels, people = people_of(SHARES, 300, seed)
    decided = decision.fit(logits, labels, people, AS_SHOWN, strength=0.0)
    assert set(decided.moving) == {"gender", "age"}
    for shares, gain in ((MOVED, 0.015), (SHARES, -0.005)):
        logits, labels, _ = people_of(shares, 600, 100 + seed)
        p = decided.probabilities(logits)[None]
        scores = []
        for adapt in (False, True):
            answers, _, found = decision.decide_together([decided], p, "mean", adapt)
            scores.append(metrics.macro_f1(metrics.confusion(labels, answers)))
        assert scores[1] - scores[0] >= gain
        assert [one.trusted for one in found] == [shares is MOVED] * 2
        true = np.bincount(to_attributes(labels)["age"]) / len(labels)
        assert np.abs(found[1].found - true).max() < 0.04


@pytest.mark.parametrize("seed", range(3))
def test_a_net_that_takes_too_many_for_old_does_not_find_more_of_them_than_there_are(seed):
    """Its error is the same among validation people; without that, it was taken for shares that have moved."""
    wrong = 0.7 * (to_attributes(np.arange(CLASSES))["age"] == 2)
    logits, labels, people = people_of(SHARES, 300, seed)
    decided = decision.fit(logits + wrong, labels, people, AS_SHOWN)
    assert decided.moving["age"][2] > 1.2
    for shares in (SHARES, MOVED):
        logits, labels, _ = people_of(shares, 600, 100 + seed)
        p = decided.probabilities(logits + wrong)[None]
        answers, _, found = decision.decide_together([decided], p, "mean", True)
        before, _, _ = decision.decide_together([decided], p, "mean", False)
        scores = [metrics.macro_f1(metrics.confusion(labels, one)) for one in (before, answers)]
        assert scores[1] - scores[0] >= -0.005
        assert found[1].trusted == (shares is MOVED)
        assert found[1].found[2] == pytest.approx(np.bincount(to_attributes(labels)["age"])[2] / len(labels), rel=0.2)


def test_a_net_that_was_shown_rare_classes_more_decides_as_one_that_was_not():
    logits, labels, people = people_of(SHARES, 300, 0)
    plain = decision.fit(2 * logits, labels, people, AS_SHOWN, 0.5)
    balanced = decision.fit(2 * (logits - np.log(SHARES)), labels, people, decision.Prior(tuple(SHARES), EVEN), 0.5)
    assert balanced.temperature == pytest.approx(plain.temperature, rel=0.02) == pytest.approx(2, rel=0.1)
    assert set(balanced.moving) == set(plain.moving) == {"gender", "age"}
    logits, labels, _ = people_of(MOVED, 300, 1)
    for one, seen in ((plain, 2 * logits), (balanced, 2 * (logits - np.log(SHARES)))):
        assert np.abs(one.probabilities(seen) - calibration.softmax(logits)).mean() < 0.003
        assert ((seen + one.offset()).argmax(1) == one.classes(seen)).all()
    assert (balanced.classes(2 * (logits - np.log(SHARES))) == plain.classes(2 * logits)).mean() > 0.98


def test_a_net_whose_loss_weighed_rare_classes_more_decides_as_one_whose_did_not():
    """The best logits for weighted cross entropy with smoothing: the smoothed labels, times the weights."""
    weights = SHARES**-0.5

    def seen_by_net(logits: np.ndarray) -> np.ndarray:
        return np.log(0.9 * calibration.softmax(logits) + 0.1 / CLASSES)

    logits, labels, people = people_of(SHARES, 300, 0)
    plain = decision.fit(seen_by_net(logits), labels, people, AS_SHOWN, 0.5)
    prior = decision.Prior(tuple(SHARES), tuple(SHARES), tuple(weights))
    weighed = decision.fit(seen_by_net(logits) + np.log(weights), labels, people, prior, 0.5)
    assert weighed.temperature == pytest.approx(plain.temperature) and plain.temperature < 0.9
    logits, _, _ = people_of(MOVED, 300, 1)
    seen = seen_by_net(logits) + np.log(weights)
    np.testing.assert_allclose(weighed.probabilities(seen), plain.probabilities(seen_by_net(logits)))
    assert ((seen + weighed.offset()).argmax(1) == weighed.classes(seen)).all()


def test_the_old_begin_at_another_year_whatever_the_net_was_shown():
    years = np.zeros(101)
    years[[20, 40, 58, 60]] = 0.4, 0.3, 0.2, 0.1
    of_years = np.tile([0.4, 0.5, 0.1], 6) / 6
    prior = decision.Prior(tuple(of_years), tuple(of_years))
    same = decision.Decision(1.0, 0.5, prior, years=tuple(years)).with_old_from(58)
    np.testing.assert_allclose(same.shares[:3], np.array([0.4, 0.3, 0.3]) / 6)
    np.testing.assert_allclose(same.shares, same.prior.shown)
    rare = np.tile([0.4, 0.55, 0.05], 6) / 6  # in training, but the net was shown the old twice as often
    prior = decision.Prior(tuple(rare), tuple(of_years))
    other = decision.Decision(1.0, 0.5, prior, years=tuple(years)).with_old_from(58)
    np.testing.assert_allclose(other.shares[:3], np.array([0.4, 0.33, 0.05 + 0.22]) / 6)
    np.testing.assert_allclose(other.prior.shown, same.prior.shown)


def test_shares_are_left_alone_where_the_net_cannot_tell():
    rng = np.random.default_rng(0)
    logits, labels, _ = people_of(SHARES, 200, 0)
    blind = np.log(SHARES) + 3 * rng.normal(size=logits.shape)  # sure of itself, and wrong
    moving = decision.trusted_to_move(calibration.softmax(blind), labels, SHARES)
    assert moving == {}
    answers, p, found = decision.decide_together(
        [decision.Decision(1.0, 0.5, AS_SHOWN, moving)], calibration.softmax(blind)[None], "mean", True
    )
    # One that never says old: nothing can be concluded from its finding none among validation people either.
    young = logits - 30 * (to_attributes(np.arange(CLASSES))["age"] == 2)
    assert "age" not in decision.trusted_to_move(calibration.softmax(young), labels, SHARES)
    assert not any(one.trusted for one in found) and (answers == decision.decide(p, SHARES, 0.5)).all()


def test_votes_and_means_of_several_runs():
    one = decision.Decision(1.0, 0.0, decision.Prior(EVEN, EVEN))
    p = np.full((3, 2, CLASSES), 0.01)
    p[0, :, 5], p[1, 0, 5], p[1, 1, 3], p[2, :, 7] = 0.1, 0.1, 0.1, 5.0
    p /= p.sum(2, keepdims=True)
    assert decision.decide_together([one] * 3, p, "mean", False)[0].tolist() == [7, 7]
    assert decision.decide_together([one] * 3, p, "vote", False)[0].tolist() == [5, 7]  # a draw of three: the mean


def test_a_decision_survives_its_header():
    one = decision.Decision(1.5, 0.25, decision.Prior(tuple(SHARES), EVEN), {"age": (1.0, 0.9, 1.2)}, (0.5, 0.5))
    assert decision.Decision.of_header(json.loads(json.dumps(one.as_header()))) == one


def test_a_class_that_training_does_not_have_is_not_favoured():
    shares = SHARES.copy()
    shares[[2, 5, 8, 11, 14, 17]] = 0
    shares /= shares.sum()
    logits, labels, people = people_of(shares, 200, 0)
    p = calibration.softmax(np.where(shares > 0, logits, logits.mean(1, keepdims=True)))  # as smoothed labels leave it
    for strength in decision.STRENGTHS:
        assert (to_attributes(decision.decide(p, shares, strength))["age"] == 2).mean() < 0.1
    one = decision.fit(np.log(p), labels, people, decision.Prior(tuple(shares), tuple(shares)))
    _, p, found = decision.decide_together([one], p[None], "mean", True)
    assert (
        np.isfinite(p).all()
        and np.isfinite([line.evidence for line in found]).all()
        and np.isfinite(one.offset()).all()
    )
    assert decision.decide_together([one], p[None, :0], "mean", True)[0].shape == (0,)


def test_a_class_that_is_never_shown_is_not_favoured_for_it():
    """Say, all of the middle band stood at its border, and were left out."""
    shown = SHARES.copy()
    shown[7] = 0
    logits = people_of(SHARES, 50, 0)[0]
    logits[:, 7] = logits.min(1) - 1
    one = decision.Decision(1.0, 0.5, decision.Prior(tuple(SHARES), tuple(shown / shown.sum())))
    assert (one.classes(logits) != 7).all()


def test_a_draw_of_votes_favours_rare_classes_as_the_mean_does():
    one = decision.Decision(1.0, 1.0, AS_SHOWN)
    p = np.full((2, 1, CLASSES), 0.001)
    p[0, 0, 4], p[0, 0, 5] = 0.9, 0.05
    p[1, 0, 4], p[1, 0, 5] = 0.5, 0.4
    p /= p.sum(2, keepdims=True)
    by_mean, by_vote = (decision.decide_together([one], p, how, False)[0][0] for how in ("mean", "vote"))
    assert by_mean == by_vote == 5
