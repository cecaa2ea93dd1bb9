"""Prior shift: how common genders and age bands are among the photographs at hand, and what follows for each class.

Training and test people may differ in how common each gender and age band is, but not in how each of them looks. Then

    p_test(class | photograph) is proportional to p_train(class | photograph) * priors_test / priors_train

and expectation-maximization finds priors_test without labels (Saerens et al., 2002). Each attribute is estimated alone,
never all 18 classes at once: nobody can count the rarest.
"""

from dataclasses import dataclass

import numpy as np

from toolkit.labels import ATTRIBUTES, CLASSES, to_attributes
from toolkit.scoring import metrics
from toolkit.scoring.prior_correction import at_least, normalised

SHIFTING = ("gender", "age")  # the attributes whose priors may differ from those of training
PHOTOGRAPHS_PER_PERSON = 7  # they are right or wrong together, so they count as one observation
CRITICAL_VALUE = {2: 6.63, 3: 9.21}  # of chi-square at 1 %, with 1 and 2 degrees of freedom, by number of values
SIMULATED_SHIFT = 4.0  # how many times as common one value becomes when validation people are re-weighted


@dataclass(frozen=True)
class PriorShift:
    """What was found of one attribute's priors."""

    attribute: str
    training_priors: np.ndarray  # float64, shape (values,)
    found_priors: np.ndarray  # the same here, without the net's own bias
    evidence: float  # twice the log-likelihood ratio against no shift; photographs of a person count as one
    adapted: bool  # whether the priors of training were replaced

    def as_plain(self) -> dict:
        """Of JSON's types."""
        priors = {name: getattr(self, name).tolist() for name in ("training_priors", "found_priors")}
        return {"attribute": self.attribute, **priors, "evidence": self.evidence, "adapted": self.adapted}

    def __str__(self) -> str:
        names = ATTRIBUTES[self.attribute]
        priors = ", ".join(
            f"{name} {found:.1%} (training {training:.1%})"
            for name, training, found in zip(names, self.training_priors, self.found_priors, strict=True)
        )
        threshold = CRITICAL_VALUE[len(names)]
        verdict = "adapted" if self.adapted else "not adapted"
        return f"{self.attribute} priors here: {priors}; evidence {self.evidence:.1f}, needed {threshold}: {verdict}"


def em_priors(p: np.ndarray, priors: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The priors of values, shape (k,), among rows of probabilities, (n, k), of a net trained with `priors`, (k,).

    `weights`, shape (n,), say how much each row counts.
    """
    found = priors
    for _ in range(1000):
        before = found
        p_found = normalised(p * _ratio(found, priors))
        found = np.average(p_found, 0, weights)
        if np.abs(found - before).max() < 1e-7:
            break
    return found


def adaptation_helps(p: np.ndarray, labels: np.ndarray, priors: np.ndarray) -> dict[str, tuple[float, ...]]:
    """The attributes for which adaptation helps validation people, each with the bias of `em_priors` on them.

    Prior shift is simulated by weights: each value in turn becomes SIMULATED_SHIFT times as common. Adaptation must win
    more than half of what knowing the priors would win, in the mean log-likelihood over the values. The bias is how
    many times as common as it is each value is found among validation people; it is divided out of what is found
    elsewhere. An attribute with a bias beyond SIMULATED_SHIFT is left out: such a net cannot count.
    """
    helped = {}
    for attribute in SHIFTING:
        membership, true = metrics.membership(attribute), to_attributes(labels)[attribute]
        p_values, training, rows = p @ membership, priors @ membership, np.arange(len(labels))
        bias = em_priors(p_values, training) / at_least(np.bincount(true, minlength=len(training)) / len(true))
        if not (np.abs(np.log(at_least(bias[training > 0]))) < np.log(SIMULATED_SHIFT)).all():
            continue
        unshifted, gains = normalised(training * bias), {"found": [], "known": []}
        for value in range(len(training)):
            weights = np.where(true == value, SIMULATED_SHIFT, 1.0)
            known = np.bincount(true, weights, len(training)) / weights.sum()
            for how, shifted in (("found", em_priors(p_values, training, weights)), ("known", known * bias)):
                adapted = normalised(p_values * _ratio(shifted, unshifted))
                gain = np.log(at_least(adapted[rows, true]) / at_least(p_values[rows, true]))
                gains[how].append(np.average(gain, weights=weights))
        if np.mean(gains["found"]) > 0.5 * np.mean(gains["known"]) > 0:
            helped[attribute] = tuple(map(float, bias))
    return helped


def adapt_priors(p: np.ndarray, priors: np.ndarray, bias: dict[str, np.ndarray]) -> tuple[np.ndarray, list[PriorShift]]:
    """priors_here / priors for each class, float64, shape (18,), and what was found of each attribute.

    `p`, shape (n, 18), are calibrated probabilities, `bias` is what `adaptation_helps` gave. An attribute keeps its
    priors where it is not in `bias`, or where a likelihood-ratio test at 1 % says that the difference may be chance.
    The null hypothesis is what the net finds among people like those of training, its bias included: a net that takes
    one in ten for old does so everywhere.
    """
    ratio, shifts = np.ones(CLASSES), []
    for attribute in SHIFTING:
        membership = metrics.membership(attribute)
        p_values, training = p @ membership, priors @ membership
        unshifted = normalised(training * bias.get(attribute, 1.0))
        found = em_priors(p_values, training)
        likelihood_ratio = (p_values @ _ratio(found, training)) / (p_values @ _ratio(unshifted, training))
        evidence = 2 * float(np.log(likelihood_ratio).sum()) / PHOTOGRAPHS_PER_PERSON
        adapted = attribute in bias and bool(evidence > CRITICAL_VALUE[len(training)])
        found_priors = normalised(training * _ratio(found, unshifted))
        shifts.append(PriorShift(attribute, training, found_priors, evidence, adapted))
        if adapted:
            ratio *= membership @ _ratio(found, unshifted)
    return ratio, shifts


def _ratio(found: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """found / priors; 1 for a value that training does not have, of which nothing is known."""
    return np.where(priors > 0, found / at_least(priors), 1.0)
