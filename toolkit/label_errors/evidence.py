"""Evidence against labels, from the probabilities by nets that never saw these people in training.

All photographs of a person share gender and age, so their log-probabilities add up. Each file name stands for a mask
state, so two exchanged files show each other's state. Tools that judge each photograph alone use neither.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from toolkit.data.checks import path_of
from toolkit.label_errors import noise
from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, PERSON_ATTRIBUTES, readable
from toolkit.scoring import metrics

KINDS = (*PERSON_ATTRIBUTES, "mask", "duplicate")
EXCHANGED = {"incorrect_mask": (1, 2), "normal": (2, 1)}  # names that people mix up: (its mask state, the other's)
APPARENT_AGE_SDS = (2.0, 4.0, 8.0, 16.0, 32.0)  # years: spreads of apparent age around age that are tried
MIN_PROBABILITY = 1e-7  # of a value in one photograph: a lower one comes from overconfidence


@dataclass(frozen=True)
class Finding:
    """The most probable label error of one kind in one folder."""

    folder: str
    kind: str  # one of KINDS
    suggestion: str  # as a page shows it: "looks male"
    nats: float  # log-likelihood ratio of the suggestion to the folder's label, without their priors
    probability: float  # that the folder has any error of this kind
    corrections: list[dict[str, str]]  # rows of a table of corrections that apply the suggestion
    duplicate_of: str = ""  # the other folder, which a person must see to decide


def find_label_errors(table: pd.DataFrame, probabilities: np.ndarray) -> list[Finding]:
    """A finding on gender, age band and masks of each folder.

    `table`: the table of photographs as `dataset.read_faces` and then `with_correction_names` give it, or rows of it;
    `probabilities`: of its photographs, shape (n, 18), by nets that never saw the person.
    """
    log_p = {name: np.log(np.maximum(probabilities @ metrics.membership(name), MIN_PROBABILITY)) for name in ATTRIBUTES}
    people = [_person_findings(table, name, log_p[name]) for name in ATTRIBUTES if _is_of_person(table, name)]
    return [*itertools.chain(*people), *_mask_findings(table, log_p["mask"])]


def _is_of_person(table: pd.DataFrame, attribute: str) -> bool:
    """Whether all photographs of a folder share this label: gender and age do, an added attribute may."""
    if attribute in ("gender", "age"):
        return True
    return attribute != "mask" and bool((table.groupby("folder", observed=True)[attribute].nunique() == 1).all())


def with_correction_names(table: pd.DataFrame) -> pd.DataFrame:
    """The whole table of photographs with a column correction_name: what a table of corrections calls the person.

    That is the id, which a folder keeps when it is renamed; or the folder, for a person who has several.
    """
    has_several = table.groupby("person", observed=True)["folder"].transform("nunique") > 1
    names = np.where(has_several, table["folder"].astype(str), table["person"].astype(str))
    return table.assign(correction_name=names)


def folder_numbers(table: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """The number of each row's folder, from 0: int64, shape (n,); and the first row of each folder."""
    numbers = pd.factorize(table["folder"])[0]
    return numbers, table.iloc[np.unique(numbers, return_index=True)[1]]


def correction_row(row, photograph: str, field: str, given: str, correct: str, note: str = "") -> dict[str, str]:
    """A row of a table of corrections, from a row of the table of photographs.

    For a single photograph it has the path of its `file` below the image folder, too.
    """
    file = {} if photograph == "all" else {"file": path_of(row.folder, row.file)}
    return file | {
        "person": row.correction_name,
        "photograph": photograph,
        "field": field,
        "given": given,
        "correct": correct,
        "certainty": "sure",
        "note": note,
    }


def _person_findings(table: pd.DataFrame, attribute: str, log_p: np.ndarray) -> list[Finding]:
    """Findings on gender or age band: a label of a folder, and so of all its photographs.

    evidence[folder, v] = sum over its photographs of log p(v | photograph) - log priors[v]
    """
    folders, first_rows = folder_numbers(table)
    values, given = ATTRIBUTES[attribute], first_rows[attribute].to_numpy()
    is_given = np.eye(len(values))[given]
    log_likelihood = np.stack([np.bincount(folders, column) for column in log_p.T], 1)
    priors, log_priors = _priors(table[attribute], len(values))
    # Each log p(v | photograph) contains the prior; `noise` adds it back once for the folder.
    evidence = log_likelihood - np.bincount(folders)[:, None] * log_priors
    appearances = None
    if attribute == "age":  # somebody of 29 may look 30: the nearer the age to a band, the weaker the evidence
        appearances = [_appearance(first_rows["years"].to_numpy(), is_given, sd) for sd in APPARENT_AGE_SDS]
    p_error = noise.error_probabilities(evidence, priors, is_given, appearances)
    suggested = (p_error - is_given).argmax(1)  # never the label itself
    return [
        Finding(
            folder=row.folder,
            kind=attribute,
            suggestion=f"looks {readable(values[other])}",
            nats=float(of_folder[other] - of_folder[own]),
            probability=float(p.sum()),
            corrections=[correction_row(row, "all", attribute, _given_label(row, attribute), values[other])],
        )
        for row, own, other, of_folder, p in zip(
            first_rows.itertuples(), given, suggested, evidence, p_error, strict=True
        )
    ]


def _mask_findings(table: pd.DataFrame, log_p: np.ndarray) -> list[Finding]:
    """Findings on masks: two photographs of the folder are exchanged, or one shows another state than its name says.

    At most one of these alternatives is true: p(any) = O / (1 + O), O being the sum of their odds.
    """
    folders, _ = folder_numbers(table)
    exchange_nats, p_exchange = _exchange_evidence(table, folders, log_p)
    given = table["mask"].to_numpy()
    is_given = np.eye(len(ATTRIBUTES["mask"]))[given]
    priors, log_priors = _priors(given, is_given.shape[1])
    evidence = log_p - log_priors
    p_error = noise.error_probabilities(evidence, priors, is_given)
    p_any = p_error.sum(1)
    odds = _odds(p_any)[:, None] * p_error / np.maximum(p_any, noise.TINY)[:, None]
    rows_of_folders = np.split(np.argsort(folders, kind="stable"), np.cumsum(np.bincount(folders))[:-1])
    findings = []
    for folder, rows in enumerate(rows_of_folders):
        odds_exchange = _odds(p_exchange[folder])
        odds_any = odds_exchange + odds[rows].sum()
        probability = float(odds_any / (1 + odds_any))
        if odds_exchange > odds[rows].max():
            findings.append(_exchange_finding(table.iloc[rows], float(exchange_nats[folder]), probability))
        else:
            number, state = np.unravel_index((odds[rows] - is_given[rows]).argmax(), (len(rows), len(priors)))
            row = rows[number]
            nats = float(evidence[row, state] - evidence[row, given[row]])
            findings.append(_state_finding(next(table.iloc[[row]].itertuples()), state, nats, probability))
    return findings


def _exchange_evidence(table: pd.DataFrame, folders: np.ndarray, log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each folder, that its two EXCHANGED photographs have each other's name: nats and probability, (folders,).

    nats = sum over both of log p(the other's state) - log p(own state); 0 where the folder lacks one of them.
    """
    gains, has_both = np.zeros(len(table)), np.ones(folders.max() + 1, bool)
    for photograph, (own, other) in EXCHANGED.items():
        rows = (table["photograph"] == photograph).to_numpy()
        gains[rows] = log_p[rows, other] - log_p[rows, own]
        has_both &= np.bincount(folders, rows) > 0
    nats, probability = np.where(has_both, np.bincount(folders, gains), 0.0), np.zeros(len(has_both))
    evidence = np.stack([np.zeros(has_both.sum()), nats[has_both]], 1)
    is_given = np.tile([1.0, 0.0], (len(evidence), 1))
    # `noise` moves the mean of each value to its prior. With each pair counted twice, the second time with its names
    # exchanged, both orders have the prior 1/2 for certain.
    evidence, is_given = (np.concatenate([some, some[:, ::-1]]) for some in (evidence, is_given))
    priors = np.full(2, 0.5)
    p_error = noise.error_probabilities(evidence, priors, is_given)
    probability[has_both] = p_error[: has_both.sum(), 1]
    return nats, probability


def _exchange_finding(rows: pd.DataFrame, nats: float, probability: float) -> Finding:
    values = ATTRIBUTES["mask"]
    corrections = []
    for row in (row for row in rows.itertuples() if row.photograph in EXCHANGED):
        own, other = EXCHANGED[row.photograph]
        corrections.append(correction_row(row, row.photograph, "mask", values[own], values[other], "exchanged"))
    suggestion = f"the photographs named {readable(' and '.join(EXCHANGED))} look exchanged"
    return Finding(rows["folder"].iloc[0], "mask", suggestion, nats, probability, corrections)


def _state_finding(row, state: int, nats: float, probability: float) -> Finding:
    values = ATTRIBUTES["mask"]
    corrections = [correction_row(row, row.photograph, "mask", values[row.mask], values[state])]
    suggestion = readable(f"the photograph named {row.photograph} looks {values[state]}")
    return Finding(row.folder, "mask", suggestion, nats, probability, corrections)


def _priors(labels, values: int) -> tuple[np.ndarray, np.ndarray]:
    """The share of each value among photographs, and its logarithm: shape (values,); 0 for a value that nobody has."""
    priors = np.bincount(labels, minlength=values) / len(labels)
    return priors, np.log(np.where(priors > 0, priors, 1.0))


def _odds(p):
    return p / np.maximum(1 - p, 1e-12)


def _given_label(row, attribute: str) -> str:
    """The folder's label as a table of corrections writes it: years where they are known."""
    if attribute == "age" and not math.isnan(row.years):
        return f"{row.years:.0f}"
    return ATTRIBUTES[attribute][getattr(row, attribute)]


def _appearance(years: np.ndarray, is_given: np.ndarray, sd: float) -> np.ndarray:
    """p(person i looks like band v) / mean of that over people of the band of i: shape (n, 3); 1 if years[i] is NaN.

    Apparent age ~ Normal(years, sd).
    """
    borders = np.array(AGE_FROM_YEARS) - 0.5
    below = 0.5 * (1 + np.vectorize(math.erf)((borders - years[:, None]) / (sd * math.sqrt(2))))
    p = np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=(0, 1)))
    is_known = ~np.isnan(years)
    of_band = is_given[is_known].T @ p[is_known] / np.maximum(is_given[is_known].sum(0), 1)[:, None]
    return np.where(is_known[:, None], p / np.maximum(is_given @ of_band, noise.TINY), 1.0)
