"""From probabilities to classes: rare classes favoured by so much, and shares of classes that have moved."""

from dataclasses import asdict, dataclass, field, replace

import numpy as np

from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASSES, to_attributes
from toolkit.scoring import metrics
from toolkit.scoring.calibration import softmax, temperature_that_helps

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of logit adjustment, from the likeliest class to the most telling one
USUAL = 0.5
RESAMPLES = 200
MOVING = ("gender", "age")  # attributes whose shares may differ between training and the photographs at hand
PER_PERSON = 7  # photographs, which stand or fall together: they count as one
SIGNIFICANT = {2: 6.63, 3: 9.21}  # the 1 % points of the chi-square distribution with 1 and 2 degrees of freedom
MOVED = 4.0  # times as common: how validation people are re-weighted to see whether adapting helps


@dataclass(frozen=True)
class Prior:
    """How common the 18 classes are, and what training made of that: a number a class."""

    shares: tuple[float, ...]  # among the people of training
    shown: tuple[float, ...]  # among what the net was shown: others, where rare classes were drawn more often
    emphasis: tuple[float, ...] = (1.0,) * CLASSES  # how much more the loss made of each class than it was shown


@dataclass(frozen=True)
class Decision:
    """How a run's logits become classes: all that was fitted on its validation people. Stored with its weights."""

    temperature: float  # of the logits
    strength: float  # of logit adjustment
    prior: Prior
    # The attributes whose shares among other photographs it can tell, and how many times as common as they are it finds
    # each of their values among validation people: its own error.
    moving: dict[str, tuple[float, ...]] = field(default_factory=dict)
    years: tuple[float, ...] = ()  # the shares of ages that it was shown, from 0, with the factored head

    def as_header(self) -> dict:
        """As plain types."""
        return asdict(self)

    @classmethod
    def of_header(cls, header: dict) -> "Decision":
        prior = Prior(**{key: tuple(values) for key, values in header["prior"].items()})
        moving = {attribute: tuple(values) for attribute, values in header["moving"].items()}
        return cls(header["temperature"], header["strength"], prior, moving, tuple(header["years"]))

    @property
    def shares(self) -> np.ndarray:
        """Of the classes among the people of training: shape (18,)."""
        return np.array(self.prior.shares)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Those where classes are as common as in training: float64, shape (n, 18), from logits of that shape."""
        return _probabilities(logits, self.temperature, self.prior)

    def classes(self, logits: np.ndarray) -> np.ndarray:
        """int64, shape (n,), from logits of shape (n, 18)."""
        return decide(self.probabilities(logits), self.shares, self.strength)

    def with_old_from(self, year: int) -> "Decision":
        """The same for a third age band that begins at another year: its shares change as those of the years do."""

        def moved(shares: np.ndarray) -> tuple[float, ...]:
            edges = (0, *AGE_FROM_YEARS)
            bands, of_bands = shares @ metrics.members("age"), np.add.reduceat(self.years, edges)
            lengths = np.diff([*edges, len(self.years)])
            years = np.array(self.years) * np.repeat(bands / _positive(of_bands), lengths)
            after = np.add.reduceat(years, (*edges[:2], year))
            return tuple(_as_shares(shares * np.tile(after / _positive(bands), len(shares) // len(bands))))

        prior = replace(self.prior, shares=moved(self.shares), shown=moved(np.array(self.prior.shown)))
        return replace(self, prior=prior)

    def scale_and_bias(self) -> tuple[float, np.ndarray]:
        """What makes logits those of `probabilities`, which are softmax(scale * logits + bias): a number, and (18,)."""
        return 1 / self.temperature, _lift(self.prior) - _log_emphasis(self.prior) / self.temperature

    def offset(self) -> np.ndarray:
        """What to add to logits so that the greatest is that of the class which is decided on: shape (18,)."""
        of_decision = _lift(self.prior) - self.strength * _log_shares(self.shares)
        return self.temperature * of_decision - _log_emphasis(self.prior)


def fit(
    logits: np.ndarray, labels: np.ndarray, people: np.ndarray, prior: Prior, strength: float | None = None
) -> Decision:
    """The decision for the best macro F1 on validation people: shapes (n, 18), (n,), (n,).

    A `strength` that is given is taken.
    """
    temperature = temperature_that_helps(logits - _log_emphasis(prior), labels, people, _lift(prior))
    p, shares = _probabilities(logits, temperature, prior), np.array(prior.shares)
    if strength is None:
        strength = choose_strength(p, labels, people, shares)
    return Decision(temperature, float(strength), prior, trusted_to_move(p, labels, shares))


def decide(p: np.ndarray, shares: np.ndarray, strength: float) -> np.ndarray:
    """The class of each row of probabilities (n, 18), of which `shares`, (18,), are the means: int64, shape (n,).

    Post-hoc logit adjustment (Menon et al., 2021): with a strength of 0 the likeliest class; with 1 the one whose
    probability has risen most above its share, which is best for the mean of the classes' recalls.
    """
    return (np.log(_positive(p)) - strength * _log_shares(shares)).argmax(1)


def choose_strength(p: np.ndarray, labels: np.ndarray, people: np.ndarray, shares: np.ndarray) -> float:
    """The strength for the best macro F1 on validation people; as near to USUAL as chance allows.

    A few rare people decide macro F1: what is not better by more than a standard error, over resampled people, is not
    better (the one-standard-error rule of Breiman et al., 1984).
    """
    decided = [decide(p, shares, strength) for strength in STRENGTHS]
    scores = np.array([metrics.macro_f1(metrics.resampled(labels, said, people, RESAMPLES)) for said in decided])
    behind = scores[scores.mean(1).argmax()] - scores
    good = [STRENGTHS[i] for i in np.flatnonzero(behind.mean(1) <= behind.std(1))]
    return min(good, key=lambda strength: abs(strength - USUAL))


def decide_together(decisions: list[Decision], probabilities: np.ndarray, how: str, adapt_shares: bool):
    """The classes by several runs, the probabilities that they mean, and what was found of shares that have moved.

    `probabilities`, shape (runs, n, 18), are averaged ("mean"), or each run votes and their mean decides a draw
    ("vote").
    """
    shares, strength = (np.mean([getattr(one, name) for one in decisions], 0) for name in ("shares", "strength"))
    factors, found = np.ones(CLASSES), []
    if adapt_shares and probabilities.shape[1]:
        in_all = [name for name in MOVING if all(name in one.moving for one in decisions)]
        moving = {name: np.mean([one.moving[name] for one in decisions], 0) for name in in_all}
        factors, found = moved_shares(probabilities.mean(0), shares, moving)
    each, shares = _as_shares(probabilities * factors), _as_shares(shares * factors)
    p = _as_shares(probabilities.mean(0) * factors)
    if how == "mean":
        return decide(p, shares, strength), p, found
    votes = np.zeros(p.shape)
    for one in each:
        votes[np.arange(len(p)), decide(one, shares, strength)] += 1
    scores = _as_shares(_positive(p) * np.exp(-strength * _log_shares(shares)))
    return (votes + 0.5 * scores).argmax(1), p, found


@dataclass(frozen=True)
class Found:
    """What was found of the shares of one attribute's values."""

    attribute: str
    shares: np.ndarray  # of training
    found: np.ndarray  # among these photographs, less the net's own error
    evidence: float  # twice the log-likelihood that they explain more than those of training do, in people
    trusted: bool

    def as_json(self) -> dict:
        """As plain types."""
        return {**vars(self), "shares": self.shares.tolist(), "found": self.found.tolist()}

    def __str__(self) -> str:
        names = ATTRIBUTES[self.attribute]
        values = ", ".join(
            f"{name} {after:.1%} (training {before:.1%})"
            for name, before, after in zip(names, self.shares, self.found, strict=True)
        )
        needed = SIGNIFICANT[len(names)]
        verdict = "taken" if self.trusted else "left alone"
        return f"{self.attribute} here: {values}; evidence {self.evidence:.1f}, needed {needed}: {verdict}"


def found_shares(p: np.ndarray, shares: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The shares of values of which these are the probabilities, (n, k), where those of training were `shares`, (k,).

    Expectation-maximization (Saerens et al., 2002). `weights`, shape (n,), say how much each row counts.
    """
    found = shares
    for _ in range(1000):
        before = found
        parts = p * _times(found, shares)
        found = np.average(parts / parts.sum(1, keepdims=True), 0, weights)
        if np.abs(found - before).max() < 1e-7:
            break
    return found


def trusted_to_move(p: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> dict[str, tuple[float, ...]]:
    """The attributes for which adapting to moved shares helps validation people: it makes their labels likelier.

    Their shares are moved by weights: each value in turn counts MOVED times as much. The mean over the values decides.
    With each, how many times as common as they are its values are found among validation people: the net's own error,
    which is taken out of what it finds elsewhere. Beyond MOVED it is no error to be made good.
    """
    trusted = {}
    for attribute in MOVING:
        member, true = metrics.members(attribute), to_attributes(labels)[attribute]
        values, before, rows = p @ member, shares @ member, np.arange(len(labels))
        error = found_shares(values, before) / _positive(np.bincount(true, minlength=len(before)) / len(true))
        if not (np.abs(np.log(_positive(error[before > 0]))) < np.log(MOVED)).all():
            continue
        usual, gains = _as_shares(before * error), {"found": [], "known": []}
        for value in range(len(before)):
            weights = np.where(true == value, MOVED, 1.0)
            known = np.bincount(true, weights, len(before)) / weights.sum()
            for how, after in (("found", found_shares(values, before, weights)), ("known", known * error)):
                adapted = _as_shares(values * _times(after, usual))
                likelier = _positive(adapted[rows, true]) / _positive(values[rows, true])
                gains[how].append(np.average(np.log(likelier), weights=weights))
        if np.mean(gains["found"]) > 0.5 * np.mean(gains["known"]) > 0:
            trusted[attribute] = tuple(map(float, error))
    return trusted


def moved_shares(p: np.ndarray, shares: np.ndarray, moving: dict) -> tuple[np.ndarray, list[Found]]:
    """How many times as common each class is among these photographs as in training, and what was found of attributes.

    Each attribute apart, never all 18 classes at once, whose rarest nobody can count. It is left alone where it is not
    in `moving`, or where the likelihood ratio says that the difference may be chance. Both compare with what the net
    finds among people like those of training: a net that takes one in ten for old will do so everywhere.
    """
    factors, report = np.ones(CLASSES), []
    for attribute in MOVING:
        member = metrics.members(attribute)
        values, before = p @ member, shares @ member
        usual = _as_shares(before * moving.get(attribute, 1.0))
        after = found_shares(values, before)
        likelier = (values @ _times(after, before)) / (values @ _times(usual, before))
        evidence = 2 * float(np.log(likelier).sum()) / PER_PERSON
        trusted = attribute in moving and bool(evidence > SIGNIFICANT[len(before)])
        report.append(Found(attribute, before, _as_shares(before * _times(after, usual)), evidence, trusted))
        if trusted:
            factors *= member @ _times(after, usual)
    return factors, report


def _probabilities(logits: np.ndarray, temperature: float, prior: Prior) -> np.ndarray:
    """What the loss made more of is taken out before the temperature, which undoes smoothing: weights smooth too.

    What was drawn more often is taken out behind it, as the smoothed labels were those of what was drawn.
    """
    return softmax(logits - _log_emphasis(prior), temperature, _lift(prior))


def _as_shares(weights: np.ndarray) -> np.ndarray:
    """Scaled so that each row makes 1."""
    return weights / weights.sum(-1, keepdims=True)


def _times(found: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How many times as common values are; 1 for those that training does not have, of which nothing can be said."""
    return np.where(shares > 0, found / _positive(shares), 1.0)


def _lift(prior: Prior) -> np.ndarray:
    """What to add to logarithms of probabilities where classes are as common as they are, not as shown: (18,).

    Nothing for a class that either has none of: border ages that are left out or softened may take or make the last.
    """
    shares, shown = np.array(prior.shares), np.array(prior.shown)
    return np.where((shares > 0) & (shown > 0), np.log(_positive(shares) / _positive(shown)), 0.0)


def _log_emphasis(prior: Prior) -> np.ndarray:
    return np.log(prior.emphasis)


def _log_shares(shares: np.ndarray) -> np.ndarray:
    """Their logarithms; a class that training does not have is as the commonest, so that nothing favours it."""
    return np.log(np.where(shares > 0, shares, shares.max()))


def _positive(values) -> np.ndarray:
    return np.maximum(values, 1e-12)
