"""The decision of a net without validation people: fitted on the predictions of a run of folds, or defaults."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from toolkit.config.settings import TrainSettings
from toolkit.config.types import as_text
from toolkit.data.framing import Framing
from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.runs.artefacts import read_predictions
from toolkit.runs.cross_validation import OUT_OF_FOLD
from toolkit.runs.folders import read_settings
from toolkit.runs.weights import WEIGHTS, read_header
from toolkit.scoring.decision import Decision, fit_on_posterior
from toolkit.scoring.prior_correction import PriorCorrection, at_least
from toolkit.system import csv_files, distributed, world
from toolkit.system.console import InputError, listed, say

if TYPE_CHECKING:
    from toolkit.training.task import Task

# Settings that a run of folds and its net of everybody need not have in common.
MAY_DIFFER = ("epochs", "val_ratio", "folds", "fold", "final", "patience", "logit_adjustment", "seed")
SMALLEST_WRITTEN = 5e-7  # a probability below it is 0 in a table of six digits


def with_decision(config: TrainSettings, task: Task) -> Task:
    """The task, which has no validation people, with its decision. Rank 0 reads the predictions that it is fitted on.

    Without DECIDE_BY the temperature is 1 and inference adapts no priors, as the net's error is not known.
    """
    correction, tau, decision, by = task.prior_correction, config.logit_adjustment, None, "defaults"
    if config.decide_by is None:
        decision = Decision(1.0, tau, correction)
    elif world.rank() == 0:
        folder = run_of_folds(config)
        note_other_settings(config, folder)
        decision, by = fit_out_of_fold(folder, correction, tau), f"out-of-fold predictions of {folder.name}"
    decision, by = distributed.broadcast((decision, by))
    return replace(task, decision=replace(decision, year_priors=task.year_priors), decided_by=by)


def note_other_settings(config: TrainSettings, folder: pathlib.Path) -> None:
    """Print a note if the folds were trained with other settings: their errors may be of another kind."""
    then = read_settings(folder / "fold-0").get("settings", {})  # {} if the folds were copied without settings.json
    now = {name: value for name, value in config.deciding().items() if name not in MAY_DIFFER}
    if other := [name for name, value in now.items() if then.get(name, value) != value]:
        told = listed(f"{name.upper()}={as_text(then[name])}, not {as_text(now[name])}" for name in other)
        say(f"note: DECIDE_BY={config.decide_by}: its folds were trained with {told}; their decision may not suit")


def fit_out_of_fold(folder: pathlib.Path, correction: PriorCorrection, tau: float) -> Decision:
    """Fit a decision on the out-of-fold predictions of a run of folds, for a net with this prior correction.

    Calibration is undone first: from the probabilities and the temperature of each fold follows the log posterior that
    a net with this correction would have given.
    """
    table = read_predictions(folder / OUT_OF_FOLD, "DECIDE_BY")
    headers = {fold: read_header(folder / f"fold-{fold}" / WEIGHTS) for fold in table["fold"].unique()}
    temperature = table["fold"].map({fold: header.decision.temperature for fold, header in headers.items()})
    p = at_least(table[list(PROBABILITY_COLUMNS)].to_numpy(), SMALLEST_WRITTEN)
    log_posterior = correction.log_posterior_of(p, temperature.to_numpy()[:, None])
    return fit_on_posterior(log_posterior, table["label"].to_numpy(), pd.factorize(table["person"])[0], correction, tau)


def run_of_folds(config: TrainSettings) -> pathlib.Path:
    """The folder of the run of folds that DECIDE_BY names: in SM_MODEL_DIR, or at that path.

    Raises InputError where it has no out-of-fold predictions.
    """
    runs, name = config.sm_model_dir, config.decide_by
    for folder in (runs / name, pathlib.Path(name)):
        if (folder / OUT_OF_FOLD).is_file():
            return folder
    there = sorted(path.parent.name for path in runs.glob(f"*/{OUT_OF_FOLD}"))
    raise InputError(
        f"DECIDE_BY={name}: expected a run whose folds are done, with an {OUT_OF_FOLD}, in SM_MODEL_DIR={runs} or at "
        f"that path; found in SM_MODEL_DIR {listed(there) or 'none'}; FOLDS=5 python train.py makes one"
    )


def refuse_unlike_folds(config: TrainSettings) -> None:
    """Raises InputError unless DECIDE_BY names a run of folds that has all its nets, and nets like this one."""
    folder, columns = run_of_folds(config), ("person", "label", "fold", *PROBABILITY_COLUMNS)
    folds = sorted(set(csv_files.read(folder / OUT_OF_FOLD, columns, "DECIDE_BY")["fold"]))
    for path in (folder / f"fold-{fold}" / WEIGHTS for fold in folds):
        if not path.is_file():
            raise InputError(f"DECIDE_BY={config.decide_by}: expected the nets of all folds, found no {path}")
        header = read_header(path)
        own = header.framing.crop if config.crop == "auto" else config.crop
        expected = _described(config.name, config.head, Framing(config.size, own, config.fit))
        found = _described(header.backbone, header.head, header.framing)
        if found != expected:
            raise InputError(
                f"DECIDE_BY={config.decide_by}: expected folds of nets like this one, {expected}; found {found} in "
                f"{path.parent}"
            )


def crop(config: TrainSettings) -> tuple[float, float, float, float]:
    """The crop (top, left, bottom, right) of the folds that DECIDE_BY names. Call `refuse_unlike_folds` first."""
    return read_header(run_of_folds(config) / "fold-0" / WEIGHTS).framing.crop


def _described(backbone: str, head: str, framing: Framing) -> str:
    return f"NAME={backbone} HEAD={head} at {framing}"
