"""One or several runs that classify photographs together: each predicts, then their probabilities are combined."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import ValidationError

from toolkit.config import sources
from toolkit.config.settings import InferenceSettings, TrainSettings
from toolkit.config.types import as_text
from toolkit.data.framing import Framing
from toolkit.labels import CLASSES
from toolkit.runs import lookup
from toolkit.runs.weights import Header
from toolkit.scoring.decision import Decision, decide, log_priors
from toolkit.scoring.pooling import pool
from toolkit.scoring.prior_correction import at_least, normalised
from toolkit.scoring.prior_shift import PriorShift, adapt_priors
from toolkit.serving import runtimes
from toolkit.system.console import InputError, listed, say

if TYPE_CHECKING:
    from torch import nn

    from toolkit.data.store import Store
    from toolkit.models.onnx_file import OnnxModel


class Answer(NamedTuple):
    """What one or several runs predict for n photographs."""

    classes: np.ndarray  # int64, shape (n,)
    probabilities: np.ndarray  # float64, shape (n, 18)
    prior_shifts: list[PriorShift]  # estimated priors of each attribute


class Ensemble:
    """Runs, in the order of NAME, and what runs their models. The caller holds the models, all or one at a time."""

    def __init__(
        self,
        config: InferenceSettings,
        runtime: runtimes.TorchRuntime | runtimes.OnnxRuntime,
        headers: dict[pathlib.Path, Header],
    ):
        """`headers`: {run folder: header of its weights}."""
        self.config, self.runtime, self.headers = config, runtime, headers

    @classmethod
    def find(cls, config: InferenceSettings, folder: pathlib.Path, load_weights: runtimes.LoadWeights) -> Ensemble:
        """The runs in `folder` that NAME selects. Prints them, and notes on unfinished and newer runs.

        Raises InputError where there is none, a file is damaged, or a setting asks what these runs cannot give.
        """
        runtime = runtimes.choose(config, load_weights)
        headers = lookup.find_runs(folder, config.name, runtime.file, runtime.read_header)
        if config.old_from is not None:
            refuse_without_years(config.old_from, headers)
        if "ensemble" in config.model_fields_set and len(headers) == 1:
            raise InputError(
                f"ENSEMBLE={config.ensemble}: has no effect with one run; remove it, or name several in NAME"
            )
        note_framing(headers)
        return cls(config, runtime, headers)

    @cached_property
    def decisions(self) -> dict[pathlib.Path, Decision]:
        """{run: how its logits become classes}, with the oldest age band from OLD_FROM on."""
        decisions = {run: header.decision for run, header in self.headers.items()}
        if self.config.old_from is None:
            return decisions
        return {run: decision.with_old_from(self.config.old_from) for run, decision in decisions.items()}

    def by_framing(self) -> dict[Framing, list[pathlib.Path]]:
        """The runs of each framing: photographs are decoded once for each, not once per run."""
        runs = {}
        for run, header in self.headers.items():
            runs.setdefault(header.framing, []).append(run)
        return runs

    def predict(self, run: pathlib.Path, model: nn.Module | OnnxModel, store: Store) -> np.ndarray:
        """Calibrated probabilities by one run: float64, shape (n, 18). `model` is what `runtime.load(run)` gave."""
        return self.runtime.predict(model, store, self.headers[run], self.decisions[run])

    def decide(
        self, probabilities: dict[pathlib.Path, np.ndarray], unreadable: list[int], people: list[str] | None = None
    ) -> Answer:
        """The answer of all runs, from {run: probabilities of shape (n, 18)} and the rows of unreadable photographs.

        With `people`, the name of each photograph's person, probabilities are pooled over a person. Unreadable
        photographs get FALLBACK_CLASS, and NaN as probabilities. Prints the estimated priors. Raises InputError if a
        run's probabilities are not finite.
        """
        by_run = np.stack([probabilities[run] for run in self.headers])
        readable = np.setdiff1d(np.arange(by_run.shape[1]), unreadable)
        for run, finite in zip(self.headers, np.isfinite(by_run[:, readable]).all((1, 2)), strict=True):
            if not finite:
                raise InputError(
                    f"run {run.absolute()}: expected finite probabilities, found NaN or infinity; train it again"
                )
        decisions, of_readable = list(self.decisions.values()), None if people is None else np.array(people)[readable]
        answer = decide_together(
            decisions, by_run[:, readable], self.config.ensemble, self.config.adapt_priors, of_readable
        )
        for shift in answer.prior_shifts:
            say(str(shift))
        if people is not None:
            say(f"{len(readable)} photographs of {len(set(of_readable))} people are pooled for gender and age")
        classes = np.full(by_run.shape[1], self.config.fallback_class)
        together = np.full((len(classes), CLASSES), np.nan)
        classes[readable], together[readable] = answer.classes, answer.probabilities
        return Answer(classes, together, answer.prior_shifts)

    def report(self, answer: Answer, people: list[str] | None = None) -> dict:
        """The content of inference.json: how this answer came about, as JSON types; `people` as in `decide`."""
        return {
            "runs": {
                str(run.absolute()): header.decision.as_plain() | header.scores for run, header in self.headers.items()
            },
            "settings": self.config.model_dump(mode="json"),
            "prior_shifts": [shift.as_plain() for shift in answer.prior_shifts],
            "pooled_people": None if people is None else len(set(people)),
        }


def refuse_without_years(old_from: int, headers: dict[pathlib.Path, Header]) -> None:
    """Raises InputError if a run does not predict years of age, or had none in training: OLD_FROM needs them."""
    if flat := [run.name for run, header in headers.items() if header.head == "flat"]:
        raise InputError(
            f"OLD_FROM={old_from}: expected runs of HEAD=factored, which predict years of age; found HEAD=flat in "
            f"{listed(flat)}; leave OLD_FROM unset, or train with HEAD=factored"
        )
    if without := [run.name for run, header in headers.items() if not header.decision.knows_years()]:
        raise InputError(
            f"OLD_FROM={old_from}: expected runs that were trained on ages in years, found an age band without them in "
            f"{listed(without)}; leave OLD_FROM unset"
        )


def note_framing(headers: dict[pathlib.Path, Header]) -> None:
    """Print a note if the environment has a SIZE, CROP or FIT that a run was not trained with: runs keep their own."""
    given, _ = sources.parse_variables(TrainSettings, os.environ)
    for name in ("size", "crop", "fit"):
        if name not in given:
            continue
        try:
            wanted = getattr(TrainSettings.model_validate({name: given[name]}), name)
        except ValidationError:
            wanted = None
        others = [header for header in headers.values() if getattr(header.framing, name) != wanted]
        if others and wanted != "auto":
            own, run = as_text(getattr(others[0].framing, name)), others[0].run
            say(f"note: {name.upper()}={given[name]} is for train.py: {run} was trained with {own}, and keeps it")


def decide_together(
    decisions: list[Decision], p: np.ndarray, how: str, adapt: bool, people: Sequence[str] | None = None
) -> Answer:
    """The answer of several runs with probabilities `p`, shape (runs, n, 18).

    If `adapt`, `p` is adapted to the priors of these photographs. If `people` is given, `p` is pooled over the
    photographs of each person. `how`: "mean" decides by the mean over runs; "vote" by a vote of the runs, and that mean
    breaks ties.
    """
    priors = np.mean([decision.class_priors for decision in decisions], 0)
    tau = np.mean([decision.tau for decision in decisions])
    ratio, shifts = np.ones(CLASSES), []
    if adapt and p.shape[1]:
        ratio, shifts = adapt_priors(list(p), priors, [decision.attributes for decision in decisions])
    priors, mean, by_run = normalised(priors * ratio), normalised(p.mean(0) * ratio), normalised(p * ratio)
    if people is not None:
        mean, by_run = pool(mean, people), [pool(one, people) for one in by_run]
    if how == "mean":
        return Answer(decide(mean, priors, tau), mean, shifts)
    votes = np.zeros(mean.shape)
    for one in by_run:
        votes[np.arange(len(mean)), decide(one, priors, tau)] += 1
    tie_break = normalised(at_least(mean) * np.exp(-tau * log_priors(priors)))
    return Answer((votes + 0.5 * tie_break).argmax(1), mean, shifts)
