"""model_card.md of a run: what the net is, on whom it was trained, and for whom it is often wrong."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from toolkit.labels import ATTRIBUTES, CLASSES
from toolkit.runs import folders
from toolkit.runs.weights import Header
from toolkit.scoring import groups, metrics
from toolkit.system import files

CARD = "model_card.md"


@dataclass(frozen=True)
class Facts:
    """The contents of the card, besides scores."""

    folder: pathlib.Path  # of the run, with its settings.json
    header: Header
    trained: pd.DataFrame  # the table of photographs with labels that it was trained on
    pseudo_labels: int  # photographs that joined them
    validated_on: str  # "10 people who were held out"


def write(facts: Facts, scores: Mapping | None) -> None:
    """Write the card. `scores` is that of `Predictions`; None where nobody was held out."""
    files.write(facts.folder / CARD, "\n".join(_lines(facts, scores)) + "\n")


def _lines(facts: Facts, scores: Mapping | None) -> Iterable[str]:
    header, record = facts.header, json.loads((facts.folder / folders.SETTINGS).read_text())
    attributes = " x ".join(f"{name} ({', '.join(map(_plain, values))})" for name, values in ATTRIBUTES.items())
    yield f"# Model card: {_plain(facts.folder.name)}"
    yield f"\n{header.backbone} at {header.framing}, weights from {header.pretrained}. From a photograph of a face"
    yield f"it guesses one of {CLASSES} classes: {attributes}."
    yield f"\n## Trained on\n\n{len(facts.trained):,} photographs of {facts.trained['person'].nunique():,} people."
    if facts.pseudo_labels:
        yield f"Photographs with pseudo-labels, besides these: {facts.pseudo_labels:,}."
    corrected = int((facts.trained["corrected"] != "").sum())
    tables = ", ".join(_plain(name) for name in header.corrections) or "none"
    yield f"Tables of label corrections: {tables}; they changed {corrected:,} labels of these photographs."
    for name in _columns(facts.trained):
        yield from _counts(name, facts.trained)
    yield from _scores(facts, scores)
    yield from _fit(facts, scores)
    code = hashlib.sha256(json.dumps(record["code"], sort_keys=True).encode()).hexdigest()[:16]
    yield "\n## Made by\n"
    yield f"- code {code}: a hash of the hashes of its files in `{folders.SETTINGS}`"
    yield f"- data {record['data']}: a hash of photographs and labels; with the split: {record['photographs']}"
    yield f"- started {record['started']}, on {header.machine}; all settings are in `{folders.SETTINGS}`"


def _columns(table: pd.DataFrame) -> list[str]:
    """The columns by which people are counted."""
    known = ("folder", "file", "person", "photograph", "corrected", "mask")
    return [name for name in table if name not in known]


def _counts(name: str, table: pd.DataFrame) -> Iterable[str]:
    people, names = table.groupby("person", observed=True)[name].first(), dict(enumerate(ATTRIBUTES.get(name, ())))
    if name == "years" and people.notna().any():
        yield f"\nYears of age: {people.min():.0f} to {people.max():.0f}."
    elif name != "years" and people.nunique() <= groups.MAX_GROUPS:
        counts = (people if names else people.astype(str)).value_counts().sort_index().items()
        shown = (f"{_plain(names.get(value, value))} ({count:,})" for value, count in counts)
        yield f"\nPeople by {_plain(name)}: {', '.join(shown)}."


def _scores(facts: Facts, scores: Mapping | None) -> Iterable[str]:
    yield "\n## Scores\n"
    if scores is None:
        yield "None: nobody was held out."
        return
    yield f"On {scores['count']:,} photographs of {facts.validated_on}; in brackets 95 % intervals over people.\n"
    interval = scores["intervals"]
    yield f"- macro F1 {scores['macro_f1']:.4f}{_interval(interval['macro_f1'])}"
    if scores["classes_present"] < CLASSES:
        present, over_present = scores["classes_present"], scores["macro_f1_present"]
        yield f"- macro F1 can be at most {present / CLASSES:.3f}, as {CLASSES - present} classes have no photographs"
        yield f"- macro F1 over the other {present} classes {over_present:.4f}"
    yield f"- accuracy {scores['accuracy']:.4f}{_interval(interval['accuracy'])}"
    for name, one in scores["attributes"].items():
        yield f"- accuracy of {name} {one['accuracy']:.4f}"
    for name, found in scores["groups"].items():
        if name not in ATTRIBUTES and "mask" not in name:
            yield f"\n| {_plain(name)} | people | photographs | accuracy | macro F1 over its classes |"
            yield "|--|--|--|--|--|"
            yield from (_row(group) for group in found["groups"])


def _row(group: Mapping) -> str:
    accuracy = f"{group['accuracy']:.3f}{_interval(group['accuracy_interval'])}"
    macro_f1 = f"{group['macro_f1']:.3f}{_interval(group['macro_f1_interval'])}"
    return f"| {_plain(group['group'])} | {group['people']:,} | {group['photographs']:,} | {accuracy} | {macro_f1} |"


def _fit(facts: Facts, scores: Mapping | None) -> Iterable[str]:
    yield "\n## Fit and unfit\n"
    yield "- Fit: counting how many wear a mask, in photographs like those it was scored on."
    yield "- Unfit: to decide anything about a person. It guesses how somebody looks to whoever wrote the labels."
    years = facts.trained["years"] if "years" in facts.trained else pd.Series(dtype=float)
    if years.notna().any():
        yield f"- Unfit: for ages below {years.min():.0f} and above {years.max():.0f}. It saw none."
    if scores is None:
        yield "- Nothing is known of how often it is wrong."
        return
    absent = [row["name"] for row in scores["classes"] if not row["count"]]
    if absent:
        yield f"- Nothing is known of how often it is wrong on: {'; '.join(map(_plain, absent))}."
    few = [
        f"{'' if name in ATTRIBUTES or ' x ' in name else name + ' '}{group['group']} ({group['people']})"
        for name, found in scores["groups"].items()
        if "mask" not in name
        for group in found["groups"]
        if group["people"] < metrics.FEW_PEOPLE
    ]
    if few:
        yield f"- Little is known, from fewer than {metrics.FEW_PEOPLE} people, of: {_plain(', '.join(few))}."
    gaps = {name: one for name, one in scores["groups"].items() if one["gap"] and one["gap"]["interval"][0] > 0}
    yield from (f"- Wrong more often: by {_plain(line)}." for line in groups.widest(gaps))


def _interval(pair: Sequence[float] | None) -> str:
    return f" ({pair[0]:.3f} to {pair[1]:.3f})" if pair else ""


def _plain(text: object) -> str:
    """A text from outside, escaped so that Markdown makes no table, link or HTML of it."""
    return "".join(" " if char in "\r\n_" else f"\\{char}" if char in "\\`*|[]<>#" else char for char in str(text))
