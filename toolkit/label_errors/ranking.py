"""Suspects: people in the order in which it is worth looking at them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from toolkit.label_errors.evidence import Finding, words
from toolkit.labels import ATTRIBUTES

LIKELY = 0.5  # findings of so much are suggested together


@dataclass(frozen=True)
class Suspect:
    """A person's folder, and what is most likely wrong with its labels."""

    folder: str
    person: str  # id; a few people have two folders
    says: str  # what the folder says, as a page shows it: "female, 34 years"
    suggests: str  # what is suggested: "male"
    why: str  # in a sentence
    probability: float  # that any label of this folder is wrong
    photographs: list[tuple[str, str]]  # path below the image folder, and what the folder says of it; a twin's too
    corrections: list[dict[str, str]]  # rows of a table of corrections, if the suggestion is right


def rank(faces: pd.DataFrame, findings: Iterable[Finding]) -> list[Suspect]:
    """A suspect for each folder that there are findings of, the most suspect first.

    What is suggested is all that is likely; else what is likeliest.
    """
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.folder, []).append(finding)
    rows = faces.groupby("folder", observed=True).indices
    of_folder = {folder: faces.iloc[some] for folder, some in rows.items()}
    suspects = [_suspect(of_folder, folder, some) for folder, some in found.items()]
    return sorted(suspects, key=lambda suspect: -suspect.probability)


def expected_errors(suspects: Sequence[Suspect], first: int) -> float:
    """How many of the first so many suspects have a wrong label, by their probabilities."""
    return sum(suspect.probability for suspect in suspects[:first])


def _suspect(rows_of: dict[str, pd.DataFrame], folder: str, findings: list[Finding]) -> Suspect:
    """One folder, of the rows of all of them, and all that was found of it."""
    findings = sorted(findings, key=lambda finding: (-finding.probability, -finding.nats))
    suggested = [finding for finding in findings if finding.probability >= LIKELY] or findings[:1]
    first = next(rows_of[folder].itertuples())
    shown = dict.fromkeys([folder, *(finding.beside for finding in suggested if finding.beside)])
    age = words(ATTRIBUTES["age"][first.age]) if math.isnan(first.years) else f"{first.years:.0f} years"
    return Suspect(
        folder=folder,
        person=first.person,
        says=f"{ATTRIBUTES['gender'][first.gender]}, {age}",
        suggests="; ".join(finding.suggests for finding in suggested),
        why="; ".join(map(_why, suggested)),
        probability=1 - math.prod(1 - finding.probability for finding in findings),
        photographs=[
            (f"{row.folder}/{row.file}", _caption(row, row.folder != folder))
            for each in shown
            for row in rows_of[each].sort_values("mask", kind="stable").itertuples()
        ],
        corrections=[row for finding in suggested for row in finding.corrections],
    )


def _caption(row, of_another: bool) -> str:
    caption = words(f"{row.photograph}: {ATTRIBUTES['mask'][row.mask]}")
    return f"{row.person}, {caption}" if of_another else caption


def _why(finding: Finding) -> str:
    return f"{finding.kind}: {abs(finding.nats):.1f} nats {'for' if finding.nats >= 0 else 'against'} it"
