"""Temperature scaling and prior shift against well-kept libraries that have the same methods."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from toolkit.labels import CLASSES
from toolkit.scoring import calibration, prior_shift


class AsTheyAre(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its logits."""

    def fit(self, logits, labels):
        self.classes_ = np.arange(CLASSES)
        return self

    def decision_function(self, logits):
        return logits

    def predict(self, logits):
        return logits.argmax(1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_of_scikit_learn(scale):
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(CLASSES), rng.integers(0, CLASSES, 400)])
    logits = scale * (rng.normal(size=(len(labels), CLASSES)) + 2.0 * np.eye(CLASSES)[labels])
    theirs = CalibratedClassifierCV(FrozenEstimator(AsTheyAre().fit(logits, labels)), method="temperature")
    theirs.fit(logits, labels)
    ours = calibration.softmax(logits, calibration.fit_temperature(logits, labels))
    np.testing.assert_allclose(ours, theirs.predict_proba(logits), atol=1e-5)


@pytest.mark.parametrize("shifted", [(0.2, 0.3, 0.5), (0.45, 0.5, 0.05)])
def test_the_priors_are_those_of_quapys_em(shifted):
    from quapy.method.aggregative import EMQ  # slow to import, and nothing else needs it

    rng, training = np.random.default_rng(0), np.array([0.474, 0.455, 0.071])
    labels = rng.choice(3, 3000, p=shifted)
    evidence = rng.normal(1.5 * np.eye(3)[labels])
    p = calibration.softmax(1.5 * evidence + np.log(training))
    theirs, _ = EMQ.EM(training, p, epsilon=1e-7)
    ours = prior_shift.em_priors(p, training)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(ours, shifted, atol=0.05)
