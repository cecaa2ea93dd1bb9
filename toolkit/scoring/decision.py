"""From logits to classes: temperature, priors and logit adjustment."""

from dataclasses import asdict, dataclass, field, replace

import numpy as np
from pydantic import FiniteFloat

from toolkit.config.types import NotNegative, Positive, adapter
from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASSES
from toolkit.scoring import metrics
from toolkit.scoring.calibration import cross_validated_temperature, softmax
from toolkit.scoring.prior_correction import PriorCorrection, at_least, normalised
from toolkit.scoring.prior_shift import SHIFTING, AttributeCalibration, calibrate_attributes

BAND_STARTS = (0, *AGE_FROM_YEARS)  # the first year of each age band


@dataclass(frozen=True)
class Decision:
    """How a run's logits become classes, with all that was fitted on its validation people. Stored with the weights."""

    temperature: Positive  # of the logits
    tau: FiniteFloat  # of logit adjustment
    prior_correction: PriorCorrection
    attributes: dict[str, AttributeCalibration] = field(default_factory=dict)  # none without validation people
    year_priors: tuple[NotNegative, ...] = ()  # of each year of age in training, from 0; only with the factored head

    def as_plain(self) -> dict:
        """The decision as JSON types."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict) -> "Decision":
        """The inverse of `as_plain`, also if JSON made lists of the tuples. Raises ValueError on wrong values."""
        decision = adapter(Decision).validate_python(values)
        for name, one in decision.attributes.items():
            lengths = {len(one.bias), len(one.priors)}
            if name not in SHIFTING or lengths != {len(ATTRIBUTES[name])} or not sum(one.priors) > 0:
                raise ValueError(f"attributes.{name}: expected a bias and a prior for each value of gender or age")
        if not all(sum(shares) > 0 for shares in (decision.class_priors, decision.prior_correction.sampled_priors)):
            raise ValueError("prior_correction: expected priors above 0")
        return decision

    @property
    def class_priors(self) -> np.ndarray:
        """Class frequencies among the people of training: float64, shape (18,)."""
        return np.array(self.prior_correction.priors)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, for the priors of training: float64, shape (n, 18), from logits of that shape."""
        return self.prior_correction.probabilities(logits, self.temperature)

    def adjusted(self, logits: np.ndarray) -> np.ndarray:
        """log p - tau * log priors: float64, shape (n, 18), from logits of that shape. The highest decides."""
        return adjusted(self.probabilities(logits), self.class_priors, self.tau)

    def classes(self, logits: np.ndarray) -> np.ndarray:
        """The decided classes: int64, shape (n,), from logits of shape (n, 18)."""
        return self.adjusted(logits).argmax(1)

    def knows_years(self) -> bool:
        """Whether each age band that has people has ages in years, too: `with_old_from` needs them."""
        people, with_years = self.class_priors @ metrics.membership("age"), self._bands_of_years()
        return bool((with_years[people > 0] > 0).all())

    def with_old_from(self, year: int) -> "Decision":
        """The decision with a third age band that begins at `year`; the class priors follow from the priors of years.

        The calibration of age is dropped, because it was fitted to the bands of the labels.
        """

        def moved(class_priors: np.ndarray) -> tuple[float, ...]:
            bands, lengths = class_priors @ metrics.membership("age"), np.diff([*BAND_STARTS, len(self.year_priors)])
            # Priors of single years, scaled within each band so that the bands have the frequencies of `class_priors`.
            years = np.array(self.year_priors) * np.repeat(bands / at_least(self._bands_of_years()), lengths)
            after = np.add.reduceat(years, (*BAND_STARTS[:2], year))
            return tuple(normalised(class_priors * np.tile(after / at_least(bands), CLASSES // len(bands))))

        sampled = np.array(self.prior_correction.sampled_priors)
        return replace(
            self,
            prior_correction=replace(
                self.prior_correction, priors=moved(self.class_priors), sampled_priors=moved(sampled)
            ),
            attributes={name: one for name, one in self.attributes.items() if name != "age"},
        )

    def _bands_of_years(self) -> np.ndarray:
        """The priors of years, summed over each age band: float64, shape (3,)."""
        return np.add.reduceat(self.year_priors, BAND_STARTS)


def fit_decision(
    logits: np.ndarray, labels: np.ndarray, people: np.ndarray, correction: PriorCorrection, tau: float
) -> Decision:
    """The decision, calibrated on validation people: shapes (n, 18), (n,), (n,).

    `tau` is not fitted: the best tau of some hundred people is mostly chance, and made macro F1 worse on other people.
    """
    return fit_on_posterior(correction.log_posterior(logits), labels, people, correction, tau)


def fit_on_posterior(
    log_posterior: np.ndarray, labels: np.ndarray, people: np.ndarray, correction: PriorCorrection, tau: float
) -> Decision:
    """`fit_decision`, from PriorCorrection.log_posterior, shape (n, 18)."""
    shift = correction.log_prior_shift()
    temperature = cross_validated_temperature(log_posterior, labels, people, shift)
    attributes = calibrate_attributes(softmax(log_posterior, temperature, shift), labels, people)
    return Decision(temperature, tau, correction, attributes)


def decide(p: np.ndarray, priors: np.ndarray, tau: float) -> np.ndarray:
    """argmax(log p - tau * log priors): int64, shape (n,), from p of shape (n, 18) and priors of shape (18,).

    Post-hoc logit adjustment (Menon et al., 2021). With tau = 0 it is the most probable class; with 1 the class with
    the highest p / prior, which is best for balanced accuracy.
    """
    return adjusted(p, priors, tau).argmax(1)


def adjusted(p: np.ndarray, priors: np.ndarray, tau: float) -> np.ndarray:
    """log p - tau * log priors: float64, shape (n, 18)."""
    return np.log(at_least(p)) - tau * log_priors(priors)


def log_priors(priors: np.ndarray) -> np.ndarray:
    """log priors. A class without people in training gets the highest prior: no adjustment favours it."""
    return np.log(np.where(priors > 0, priors, priors.max()))
