"""The model of label noise, on labels whose errors are known."""

import numpy as np
import pytest

from toolkit.label_errors import noise


def test_the_fit_finds_the_scale_of_the_evidence_and_the_error_rate():
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=4000)
    once = np.where(true == 1, 1, -1) * 3.0 + rng.normal(0, 2.0, 4000)  # log odds are 1.5 times that
    evidence = 7 * np.stack([np.zeros(4000), 1.5 * once], 1)  # as if it were seven times as good as it is
    given = np.where(rng.random(4000) < 0.04, 1 - true, true)
    is_given = np.eye(2)[given]
    weights = noise.grid_posterior(evidence, np.full(2, 0.5), is_given, [np.ones((4000, 2))])
    assert weights.sum((1, 2)) @ noise.SCALES == pytest.approx(1 / 7, rel=0.3)
    assert weights.sum((0, 1)) @ noise.ERROR_RATES == pytest.approx(0.04, rel=0.3)
    p_error = noise.error_probabilities(evidence, np.full(2, 0.5), is_given).sum(1)
    assert p_error.sum() == pytest.approx((given != true).sum(), rel=0.15)
    sure = p_error > 0.8
    assert (given != true)[sure].mean() == pytest.approx(p_error[sure].mean(), abs=0.08)
