"""From probabilities to classes: rare classes favoured by so much, and shares of classes that have moved."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from toolkit import metrics
from toolkit.calibration import softmax, temperature_that_helps
from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASSES, decode

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of logit adjustment, from the likeliest class to the most telling one
USUAL = 0.5
RESAMPLES = 200
MOVING = ("gender", "age")  # attributes whose shares may differ between training and the photographs at hand
PER_PERSON = 7  # photographs, which stand or fall together: they count as one
SIGNIFICANT = {2: 6.63, 3: 9.21}  # the 1 % points of the chi-square distribution with 1 and 2 degrees of freedom
MOVED = 4.0  # times as common: how validation people are re-weighted to see whether adapting helps


@dataclass(frozen=True)
class Decision:
    """How a run's logits become classes: all that was fitted on its validation people. Stored with its weights."""

    temperature: float  # of the logits
    strength: float  # of logit adjustment
    shares: tuple[float, ...]  # of the 18 classes in training
    expected: tuple[float, ...]  # the shares that the net learned to expect: others, where it was shown rare ones more
    moving: tuple[str, ...]  # the attributes whose shares among other photographs it can tell
    years: tuple[float, ...] = ()  # the shares of ages that it learned to expect, from 0, with the factored head

    def as_header(self) -> dict:
        """As plain types."""
        return asdict(self)

    @classmethod
    def of_header(cls, header: dict) -> "Decision":
        tuples = (tuple(header[key]) for key in ("shares", "expected", "moving", "years"))
        return cls(header["temperature"], header["strength"], *tuples)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Those where classes are as common as in training: float64, shape (n, 18), from logits of that shape."""
        return softmax(logits, self.temperature, _lift(np.array(self.shares), np.array(self.expected)))

    def classes(self, logits: np.ndarray) -> np.ndarray:
        """int64, shape (n,), from logits of shape (n, 18)."""
        return decide(self.probabilities(logits), np.array(self.shares), self.strength)

    def with_old_from(self, year: int) -> "Decision":
        """The same for a third age band that begins at another year: its shares change as those of the years do."""

        def moved(shares: np.ndarray) -> tuple[float, ...]:
            edges = (0, *AGE_FROM_YEARS)
            bands, of_bands = shares @ _members("age"), np.add.reduceat(self.years, edges)
            lengths = np.diff([*edges, len(self.years)])
            years = np.array(self.years) * np.repeat(bands / _positive(of_bands), lengths)
            after = np.add.reduceat(years, (*edges[:2], year))
            return tuple(_as_shares(shares * np.tile(after / _positive(bands), len(shares) // len(bands))))

        return replace(self, shares=moved(np.array(self.shares)), expected=moved(np.array(self.expected)))

    def offset(self) -> np.ndarray:
        """What to add to logits so that the greatest is that of the class which is decided on: shape (18,)."""
        shares = np.array(self.shares)
        return self.temperature * (_lift(shares, np.array(self.expected)) - self.strength * _log_shares(shares))


def fit(
    logits: np.ndarray,
    labels: np.ndarray,
    people: np.ndarray,
    shares: np.ndarray,
    expected: np.ndarray,
    strength: float | None = None,
) -> Decision:
    """The decision for the best macro F1 on validation people: shapes (n, 18), (n,), (n,), (18,), (18,).

    A `strength` that is given is taken.
    """
    lift = _lift(shares, expected)
    temperature = temperature_that_helps(logits, labels, people, lift)
    p = softmax(logits, temperature, lift)
    if strength is None:
        strength = choose_strength(p, labels, people, shares)
    moving = trusted_to_move(p, labels, shares)
    return Decision(temperature, float(strength), tuple(map(float, shares)), tuple(map(float, expected)), moving)


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
    names, number = np.unique(people, return_inverse=True)
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    scores = []
    for strength in STRENGTHS:
        cells = labels * CLASSES + decide(p, shares, strength)
        counts = np.zeros((RESAMPLES, CLASSES * CLASSES))
        np.add.at(counts.T, cells, draws.T[number])
        scores.append([metrics.macro_f1(matrix) for matrix in counts.reshape(-1, CLASSES, CLASSES)])
    scores = np.array(scores)
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
        moving = tuple(name for name in MOVING if all(name in one.moving for one in decisions))
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
    found: np.ndarray  # among these photographs
    evidence: float  # twice the log-likelihood that they explain more than those of training do
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


def trusted_to_move(p: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> tuple[str, ...]:
    """The attributes for which adapting to moved shares helps validation people: it makes their labels likelier.

    Their shares are moved by weights: each value in turn counts MOVED times as much. The mean over the values decides.
    """
    trusted = []
    for attribute in MOVING:
        member, true = _members(attribute), decode(labels)[attribute]
        values, before, rows = p @ member, shares @ member, np.arange(len(labels))
        gains = []
        for value in range(len(before)):
            weights = np.where(true == value, MOVED, 1.0)
            adapted = values * _times(found_shares(values, before, weights), before)
            adapted /= adapted.sum(1, keepdims=True)
            gains.append(
                np.average(np.log(_positive(adapted[rows, true]) / _positive(values[rows, true])), weights=weights)
            )
        if np.mean(gains) > 0:
            trusted.append(attribute)
    return tuple(trusted)


def moved_shares(p: np.ndarray, shares: np.ndarray, moving: tuple[str, ...]) -> tuple[np.ndarray, list[Found]]:
    """How many times as common each class is among these photographs as in training, and what was found of attributes.

    Each attribute apart, never all 18 classes at once, whose rarest nobody can count. It is left alone where it is not
    one of `moving`, or where the likelihood ratio says that the difference may be chance.
    """
    factors, report = np.ones(CLASSES), []
    for attribute in MOVING:
        member = _members(attribute)
        values, before = p @ member, shares @ member
        after = found_shares(values, before)
        evidence = 2 * float(np.log(values @ _times(after, before)).sum()) / PER_PERSON
        trusted = attribute in moving and bool(evidence > SIGNIFICANT[len(before)])
        report.append(Found(attribute, before, after, evidence, trusted))
        if trusted:
            factors *= member @ _times(after, before)
    return factors, report


def _members(attribute: str) -> np.ndarray:
    """Which value of the attribute each class has: shape (18, values)."""
    return np.eye(len(ATTRIBUTES[attribute]))[decode(np.arange(CLASSES))[attribute]]


def _as_shares(weights: np.ndarray) -> np.ndarray:
    """Scaled so that each row makes 1."""
    return weights / weights.sum(-1, keepdims=True)


def _times(found: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How many times as common values are; 1 for those that training does not have, of which nothing can be said."""
    return np.where(shares > 0, found / _positive(shares), 1.0)


def _lift(shares: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """What to add to logarithms of probabilities where classes are as common as `shares`, not as `expected`: (18,)."""
    return np.log(_positive(shares) / _positive(expected))


def _log_shares(shares: np.ndarray) -> np.ndarray:
    """Their logarithms; a class that training does not have is as the commonest, so that nothing favours it."""
    return np.log(np.where(shares > 0, shares, shares.max()))


def _positive(values) -> np.ndarray:
    return np.maximum(values, 1e-12)
