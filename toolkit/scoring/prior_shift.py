"""Prior shift: estimates the priors of gender and age band on the photographs at hand, and the factor for each class.

Assumption: training and test people differ in the frequencies of genders and age bands, but not in how each of them
looks. Then

    p_test(class | photograph) is proportional to p_train(class | photograph) * priors_test / priors_train

and expectation-maximization finds priors_test without labels (Saerens et al., 2002). Each attribute is estimated
separately, not all 18 classes at once, because the rarest are too few. Two things prevent extreme estimates from an
overconfident net, and estimates that follow chance:

- the probabilities of each attribute are calibrated before, by a temperature and a bias for each value (Alexandari et
  al., Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation, 2020);
- the priors of training count as TRAINING_PEOPLE people who were seen before: the mode of the posterior with a
  Dirichlet prior around them.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat

from toolkit.config.types import NotNegative, Positive, Whole
from toolkit.labels import ATTRIBUTES, CLASSES, to_attributes
from toolkit.scoring import metrics
from toolkit.scoring.calibration import softmax
from toolkit.scoring.prior_correction import at_least, normalised

SHIFTING = ("gender", "age")  # the attributes whose priors may differ from those of training
PHOTOGRAPHS_PER_PERSON = 7  # they tend to be right or wrong together, so they count as one observation
TRAINING_PEOPLE = 30.0  # the priors of training have the weight of so many people


@dataclass(frozen=True)
class AttributeCalibration:
    """Calibrated probabilities of an attribute's values: p' is proportional to p^scale * exp(bias)."""

    scale: Positive
    bias: tuple[FiniteFloat, ...]
    priors: tuple[NotNegative, ...]  # the mean of p' over the validation people that this was fitted on
    people: Annotated[Whole, Field(ge=1)]  # the number of these people

    def probabilities(self, p: np.ndarray) -> np.ndarray:
        """p' from p: float64, shape (n, values)."""
        return softmax(self.scale * np.log(at_least(p)) + self.bias)


@dataclass(frozen=True)
class PriorShift:
    """The estimated priors of one attribute."""

    attribute: str
    training_priors: np.ndarray  # float64, shape (values,)
    found_priors: np.ndarray  # on the photographs at hand: float64, shape (values,)
    people: float  # how many people the estimate is worth

    def as_plain(self) -> dict:
        """The estimate as JSON types."""
        priors = {name: getattr(self, name).tolist() for name in ("training_priors", "found_priors")}
        return {**vars(self), **priors}

    def __str__(self) -> str:
        priors = zip(ATTRIBUTES[self.attribute], self.found_priors, self.training_priors, strict=True)
        found = ", ".join(f"{name} {here:.1%} (training {training:.1%})" for name, here, training in priors)
        return f"{self.attribute} priors here: {found}; an estimate worth {self.people:.0f} people"


def calibrate_attributes(p: np.ndarray, labels: np.ndarray, people: np.ndarray) -> dict[str, AttributeCalibration]:
    """Scale and biases with the highest posterior, from validation: p, shape (n, 18), labels and people, shape (n,).

    An attribute is left out if validation lacks one of its values. Every person counts once. A standard normal prior on
    log scale and biases prevents fitting noise with few people.
    """
    from scipy.optimize import minimize  # slow to import, and only training needs it

    count, calibrations = len(np.unique(people)), {}
    for attribute in SHIFTING:
        values, true = p @ metrics.membership(attribute), to_attributes(labels)[attribute]
        log_p, one_hot = np.log(at_least(values)), np.eye(values.shape[1])[true]
        if not one_hot.any(0).all():  # unknown: how the net sees a value that nobody here has
            continue

        def loss(parameters: np.ndarray, log_p=log_p, one_hot=one_hot) -> tuple[float, np.ndarray]:
            """The negative log-posterior of (log scale, biases), and its gradient."""
            logits = np.exp(parameters[0]) * log_p
            q = softmax(logits + parameters[1:])
            error = q - one_hot
            gradient = np.array([(error * logits).sum(1).mean(), *error.mean(0)])
            likelihood = np.log(at_least((q * one_hot).sum(1))).mean()
            return -count * likelihood + 0.5 * (parameters**2).sum(), count * gradient + parameters

        log_scale, *bias = minimize(loss, np.zeros(1 + values.shape[1]), jac=True).x.tolist()
        fitted = AttributeCalibration(float(np.exp(log_scale)), tuple(bias), (), count)
        calibrations[attribute] = replace(fitted, priors=tuple(fitted.probabilities(values).mean(0).tolist()))
    return calibrations


def em_priors(p: np.ndarray, priors: np.ndarray, people: float = 1.0, training_people: float = 0.0) -> np.ndarray:
    """The priors of k values, shape (k,), from probabilities, shape (n, k), of a net trained with `priors`, (k,).

    The rows have the weight of `people` people, `priors` that of `training_people`; with 0 the result is the maximum of
    the likelihood.
    """
    found, weight = priors, people / (people + training_people)
    for _ in range(1000):
        before = found
        found = weight * normalised(p * _ratio(found, priors)).mean(0) + (1 - weight) * priors
        if np.abs(found - before).max() < 1e-7:
            break
    return found


def adapt_priors(
    p: list[np.ndarray], priors: np.ndarray, calibrations: list[dict[str, AttributeCalibration]]
) -> tuple[np.ndarray, list[PriorShift]]:
    """priors_here / priors of each class, float64, shape (18,), and the estimate for each attribute.

    `p`: calibrated probabilities of each net, shape (n, 18), float64; `calibrations`: of the same nets. An attribute is
    not adapted if one of them lacks it. The estimate is worth 1 / (1 / people + 1 / validation people) people, with
    people = n / PHOTOGRAPHS_PER_PERSON: validation people limit how well a net's error is known.
    """
    ratio, shifts = np.ones(CLASSES), []
    people_here = len(p[0]) / PHOTOGRAPHS_PER_PERSON
    for attribute in SHIFTING:
        nets = [calibration[attribute] for calibration in calibrations if attribute in calibration]
        if len(nets) < len(p):
            continue
        membership = metrics.membership(attribute)
        calibrated = np.mean([net.probabilities(of_net @ membership) for net, of_net in zip(nets, p, strict=True)], 0)
        before = np.mean([net.priors for net in nets], 0)
        people = 1 / (1 / people_here + 1 / np.mean([net.people for net in nets]))
        value_ratio = _ratio(em_priors(calibrated, before, people, TRAINING_PEOPLE), before)
        training = priors @ membership
        shifts.append(PriorShift(attribute, training, normalised(training * value_ratio), people))
        ratio *= membership @ value_ratio
    return ratio, shifts


def _ratio(found: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """found / priors; 1 for a value that training lacks, about which nothing is known."""
    return np.where(priors > 0, found / at_least(priors), 1.0)
