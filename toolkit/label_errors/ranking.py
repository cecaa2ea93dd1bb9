"""Suspects: folders in the order of the probability that their labels are wrong."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from toolkit.data.checks import path_of
from toolkit.label_errors.evidence import Finding
from toolkit.labels import ATTRIBUTES, readable

LIKELY = 0.5  # findings of at least this probability are suggested together
LEAST_PROBABILITY = 0.01  # of an error: the page leaves out people below it
MOST_TIMES = 1000  # larger ratios are shown as "over 1,000", as nets are overconfident


@dataclass(frozen=True)
class Suspect:
    """A folder of one person, and what is most probably wrong with its labels."""

    folder: str
    person: str  # id; a few people have two folders
    label: str  # the folder's label as a page shows it: "female, 34 years"
    kinds: tuple[str, ...]  # of evidence, for what is suggested
    suggestion: str  # "looks male"
    evidence: str  # "gender: the photographs fit this 200 times as well as the folder's label"
    probability: float  # that any label of this folder is wrong
    photographs: list[tuple[str, str]]  # path below the image folder, and caption; also those of a duplicate's original
    corrections: list[dict[str, str]]  # rows of a table of corrections that apply the suggestion


def rank_suspects(table: pd.DataFrame, findings: Iterable[Finding]) -> list[Suspect]:
    """A suspect for each folder with findings, the most probable error first.

    It suggests all LIKELY findings of the folder, or, where there are none, its most probable one.
    """
    findings_of: dict[str, list[Finding]] = {}
    for finding in findings:
        findings_of.setdefault(finding.folder, []).append(finding)
    row_numbers = table.groupby("folder", observed=True).indices
    rows_of = {folder: table.iloc[rows] for folder, rows in row_numbers.items()}
    suspects = [_suspect(rows_of, folder, some) for folder, some in findings_of.items()]
    return sorted(suspects, key=lambda suspect: -suspect.probability)


def expected_errors(suspects: Sequence[Suspect], first: int) -> float:
    """The expected number of folders with a wrong label among the first suspects: the sum of their probabilities."""
    return sum(suspect.probability for suspect in suspects[:first])


def worth_looking(suspects: Sequence[Suspect]) -> list[Suspect]:
    """The suspects with a probability of at least LEAST_PROBABILITY, which a person should look at."""
    return [suspect for suspect in suspects if suspect.probability >= LEAST_PROBABILITY]


def _suspect(rows_of: dict[str, pd.DataFrame], folder: str, findings: list[Finding]) -> Suspect:
    """`rows_of`: the rows of the table of photographs, by folder. p(any error) = 1 - prod over kinds of (1 - p)."""
    findings = sorted(findings, key=lambda finding: (-finding.probability, -finding.nats))
    suggested = [finding for finding in findings if finding.probability >= LIKELY] or findings[:1]
    first = next(rows_of[folder].itertuples())
    shown = dict.fromkeys([folder, *(finding.duplicate_of for finding in suggested if finding.duplicate_of)])
    age = readable(ATTRIBUTES["age"][first.age]) if math.isnan(first.years) else f"{first.years:.0f} years"
    return Suspect(
        folder=folder,
        person=first.person,
        label=f"{ATTRIBUTES['gender'][first.gender]}, {age}",
        kinds=tuple(finding.kind for finding in suggested),
        suggestion="; ".join(_suggestion(finding) for finding in suggested),
        evidence="; ".join(map(_evidence, suggested)),
        probability=1 - math.prod(1 - finding.probability for finding in findings),
        photographs=[
            (path_of(row.folder, row.file), _caption(row, row.folder != folder))
            for each in shown
            for row in rows_of[each].sort_values("mask", kind="stable").itertuples()
        ],
        corrections=[row for finding in suggested for row in finding.corrections],
    )


def _caption(row, is_of_another: bool) -> str:
    caption = readable(f"{row.photograph}: {ATTRIBUTES['mask'][row.mask]}")
    return f"{row.person}, {caption}" if is_of_another else caption


def _suggestion(finding: Finding) -> str:
    """The suggestion; with "perhaps" if the photographs fit the folder's label better (a weak net, or a rare label)."""
    return finding.suggestion if finding.nats > 0 else f"perhaps {finding.suggestion}"


def _evidence(finding: Finding) -> str:
    """The likelihood ratio in words."""
    times = math.exp(min(abs(finding.nats), 50))
    number = f"over {MOST_TIMES:,}" if times > MOST_TIMES else f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    if finding.nats >= 0:
        return f"{finding.kind}: the photographs fit this {number} times as well as the folder's label"
    return f"{finding.kind}: the photographs fit the folder's label {number} times as well"
