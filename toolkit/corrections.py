"""Known label errors as data: a table of corrections, and putting them right while the data set is read.

A row names a person (id or folder), a photograph ("mask3", or "all"), a field, what the folder says ("given"), what
is true ("correct"), "sure" or "not sure", and a note. Fields and what `given` and `correct` may hold:

    mask      worn, incorrect, not_worn
    gender    male, female
    age       under_30, 30_to_59, 60_and_over, or years
    leave_out nothing: the photographs are not used
"""

import pathlib
from dataclasses import dataclass, field

import pandas as pd

from toolkit import files
from toolkit.console import InputError, listed
from toolkit.labels import ATTRIBUTES, age_band

COLUMNS = ("person", "photograph", "field", "given", "correct", "certainty", "note")
CERTAINTIES = ("sure", "not sure")
TABLE = pathlib.Path(__file__).resolve().parent.parent / "outliers.csv"


@dataclass
class Report:
    """What the corrections did."""

    file: str | None = None
    sha256: str | None = None
    rows: int = 0
    changed: dict[str, int] = field(default_factory=dict)  # field -> photographs changed
    people: list[str] = field(default_factory=list)  # whose photographs were changed
    skipped: list[str] = field(default_factory=list)  # rows whose `given` is not what the folder says
    unknown: list[str] = field(default_factory=list)  # people (and photographs) that are not in this data set

    def __str__(self) -> str:
        if self.file is None:
            return "label corrections: none"
        lines = [f"label corrections ({pathlib.Path(self.file).name}, {self.rows} rows): {self._done()}"]
        if self.skipped:
            lines.append(f"  skipped {len(self.skipped)}, as the folder says otherwise: {listed(self.skipped)}")
        if self.unknown:
            lines.append(f"  {len(self.unknown)} not in this data set: {listed(self.unknown)}")
        return "\n".join(lines)

    def _done(self) -> str:
        if not self.people:
            return "nothing to change"
        changes = ", ".join(f"{name} of {count} photographs" for name, count in self.changed.items())
        return f"{changes}; {len(self.people)} people: {listed(self.people, 30)}"


def read(relabel: str) -> tuple[pd.DataFrame, pathlib.Path | None]:
    """The corrections that RELABEL asks for, and their file: "sure" or "all" of outliers.csv, "none", or a path.

    Raises InputError with a line for every row that cannot be understood.
    """
    if relabel == "none":
        return pd.DataFrame(columns=COLUMNS), None
    path = TABLE if relabel in ("sure", "all") else pathlib.Path(relabel)
    table = pd.DataFrame(files.read_csv(path, COLUMNS[:-1], "RELABEL"))
    problems, said = [], {}
    for number, row in enumerate(table.to_dict("records"), start=2):
        first = said.setdefault((row["person"], row["photograph"], row["field"]), row["correct"])
        if text := _wrong(row) or (
            "" if row["correct"] == first else f"contradicts an earlier line, which says {first}"
        ):
            problems.append(f"{path} line {number}: {text}")
    if problems:
        raise InputError("\n       ".join(problems))
    return (table[table["certainty"] == "sure"] if relabel == "sure" else table), path


def apply(faces: pd.DataFrame, relabel: str) -> tuple[pd.DataFrame, Report]:
    """The table of faces with the corrections that RELABEL asks for, and what they did.

    `faces` has the columns folder, person, photograph, mask, gender, age (numbers) and years, as `dataset.read_faces`
    gives them, and stays as it is. A row whose `given` is not what the folder says is skipped, so that a data set
    which was corrected before is not turned back.
    """
    table, path = read(relabel)
    if path is None:
        return faces, Report()
    report = Report(str(path), files.sha256(path), len(table))
    after, leave_out = faces.copy(), pd.Series(False, faces.index)
    people = faces.groupby("person", observed=True).indices
    folders = faces.groupby("folder", observed=True).indices
    for row in table.itertuples():
        rows = faces.index[people.get(row.person, folders.get(row.person, []))]
        what = row.person
        if row.photograph != "all" and len(rows):
            rows = rows[faces.loc[rows, "photograph"] == row.photograph]
            what = f"{row.person} {row.photograph}"
        if rows.empty:
            report.unknown.append(what)
        elif row.field == "leave_out":
            leave_out[rows] = True
        else:
            as_given = rows[_says(faces.loc[rows], row.field, row.given)]
            if as_given.empty:
                report.skipped.append(f"{what} (not {row.given})")
            _put(after, as_given, row.field, row.correct)
    compared = list(ATTRIBUTES)
    differs = (after[compared] != faces[compared]) & ~leave_out.to_numpy()[:, None]
    report.changed = {name: int(n) for name, n in differs.sum().items() if n}
    if leave_out.any():
        report.changed["left out"] = int(leave_out.sum())
    report.people = sorted(faces["person"][differs.any(axis=1) | leave_out].unique())
    report.unknown = list(dict.fromkeys(report.unknown))
    return after[~leave_out].reset_index(drop=True), report


def _wrong(row: dict) -> str:
    """What is wrong with a row of the table; empty where nothing is."""
    if row["certainty"] not in CERTAINTIES:
        return f"certainty: expected {' or '.join(CERTAINTIES)}, found {row['certainty']!r}"
    if row["field"] == "leave_out":
        return ""
    if row["field"] not in ATTRIBUTES:
        return f"field: expected {', '.join(ATTRIBUTES)} or leave_out, found {row['field']!r}"
    for column in ("given", "correct"):
        years = row["field"] == "age" and row[column].isdecimal()
        if row[column] not in ATTRIBUTES[row["field"]] and not years:
            return f"{column}: expected {', '.join(ATTRIBUTES[row['field']])}, found {row[column]!r}"
    return ""


def _says(faces: pd.DataFrame, attribute: str, value: str) -> pd.Series:
    if value in ATTRIBUTES[attribute]:
        return faces[attribute] == ATTRIBUTES[attribute].index(value)
    return faces["years"] == int(value)


def _put(faces: pd.DataFrame, rows: pd.Index, attribute: str, value: str) -> None:
    if value in ATTRIBUTES[attribute]:
        faces.loc[rows, attribute] = ATTRIBUTES[attribute].index(value)
        if attribute == "age":
            faces.loc[rows, "years"] = float("nan")  # the band is known, the year is not
    else:
        faces.loc[rows, "years"] = int(value)
        faces.loc[rows, "age"] = age_band(int(value))
