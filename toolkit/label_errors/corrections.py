"""Known label errors as tables of corrections, which are applied while the data set is read.

A row names a person (id or folder), a photograph ("mask3", or "all"), a field, the label that the folder gives
("given"), the right one ("correct"), a certainty ("sure" or "not sure") and a note. Fields, and their values:

    mask      worn, incorrect, not_worn
    gender    male, female
    age       under_30, 30_to_59, 60_and_over, or years
    leave_out no as `given` and yes as `correct`, or both empty: the photographs are not used

A row whose `correct` equals its `given` confirms a label that somebody has checked, and changes nothing. A row for one
photograph may hold the first digits of its file's SHA-256 in a column sha256: it then applies to that content only.

Blanks around a cell do not count, and a name is found where only zeros in front, letter case or Unicode form differ.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from toolkit import ROOT
from toolkit.config.types import corrections_named
from toolkit.data.checks import path_of
from toolkit.labels import ATTRIBUTES, age_band
from toolkit.system import csv_files, files, spelling
from toolkit.system.console import InputError, listed

COLUMNS = ("person", "photograph", "field", "given", "correct", "certainty", "note")
ALL_COLUMNS = (*COLUMNS, "sha256")
CERTAINTIES = ("sure", "not sure")
LEAVE_OUT = {"given": ("", "no"), "correct": ("", "yes", "no")}  # an empty `given` means no, an empty `correct` yes
OUTLIERS = ROOT / "outliers.csv"


@dataclass
class CorrectionReport:
    """What the corrections changed, and which of their rows did not apply."""

    files: dict[str, str] = field(default_factory=dict)  # name -> SHA-256 of each table that was read
    rows: int = 0
    changed: dict[str, int] = field(default_factory=dict)  # field -> number of photographs
    people: list[str] = field(default_factory=list)  # people with a changed photograph
    confirmed: int = 0  # rows whose `correct` equals `given`
    skipped: list[str] = field(default_factory=list)  # rows whose `given` is not the folder's label
    replaced: list[str] = field(default_factory=list)  # photographs whose content does not have the row's sha256
    unknown: list[str] = field(default_factory=list)  # people and photographs of outliers.csv that are not in the table
    respelled: dict[str, str] = field(default_factory=dict)  # name in a row -> the same in the table, where they differ

    def __str__(self) -> str:
        if not self.files:
            return "label corrections: none"
        lines = [f"label corrections ({', '.join(self.files)}, {self.rows} rows): {self._changes()}"]
        if self.confirmed:
            lines.append(f"  {self.confirmed} labels confirmed")
        if self.skipped:
            lines.append(f"  skipped {len(self.skipped)}: the folder has another label: {listed(self.skipped)}")
        if self.replaced:
            lines.append(f"  skipped {len(self.replaced)}: the file has another content: {listed(self.replaced)}")
        if self.respelled:
            lines.append(f"  {spelling.describe(self.respelled)}")
        if self.unknown:
            other = "; if these are not the contest's photographs, set RELABEL=none" if self.people else ""
            lines.append(f"  {len(self.unknown)} not in this data set: {listed(self.unknown)}{other}")
        return "\n".join(lines)

    def _changes(self) -> str:
        if not self.people:
            return "nothing to change"
        changes = ", ".join(f"{name} of {count} photographs" for name, count in self.changed.items())
        return f"{changes}; {len(self.people)} people: {listed(self.people, 30)}"


def read_corrections(relabel: str) -> tuple[pd.DataFrame, list[pathlib.Path]]:
    """The rows that RELABEL asks for, with ALL_COLUMNS and the path and line of each; and the files they are from.

    Raises InputError with a line for each row that is malformed or contradicts another row.
    """
    rows, paths, problems = {}, [], []
    for source in corrections_named(relabel):
        if source == "none":
            continue
        paths.append(OUTLIERS if source in ("sure", "all") else pathlib.Path(source))
        for row in _read_rows(paths[-1]):
            if problem := _problem_of(row):
                problems.append(f"{_location(row)}: {problem}")
            elif source != "sure" or row["certainty"] == "sure":
                rows[_location(row)] = row  # by location: "sure,all" reads outliers.csv twice
    # A person's own table overrules the rows of outliers.csv that are not sure.
    own_subjects = {subject_of(row) for row in rows.values() if row["path"] != str(OUTLIERS)}
    rows = [
        row
        for row in rows.values()
        if row["path"] != str(OUTLIERS) or row["certainty"] == "sure" or subject_of(row) not in own_subjects
    ]
    first_rows = {}
    for row in rows:
        # Rows on "all" masks of a person differ by `given`: one for the worn ones, one for the others.
        photographs = row["given"] if (row["field"], row["photograph"]) == ("mask", "all") else row["photograph"]
        key = (row["person"], photographs, row["field"], row["sha256"])
        problems += _contradictions(row, first_rows.setdefault(key, row))
    _refuse(problems)
    return pd.DataFrame(rows, columns=[*ALL_COLUMNS, "path", "line"]), list(dict.fromkeys(paths))


def is_named(table: pd.DataFrame, relabel: str) -> pd.Series:
    """Whether RELABEL's corrections name the person of each photograph of the table: bool, shape (n,).

    Raises InputError as `apply` does.
    """
    corrections = _as_spelled(table, read_corrections(relabel)[0], CorrectionReport())
    return table["person"].isin(corrections["person"]) | table["folder"].isin(corrections["person"])


def cells(row: Mapping[str, str], columns: Sequence[str] = ALL_COLUMNS) -> tuple[str, ...]:
    """The cells of a row {column: text}; "" for a missing one."""
    return tuple(row.get(name, "") for name in columns)


def subject_of(row: Mapping[str, str]) -> tuple[str, ...]:
    return cells(row, ("person", "photograph", "field"))


def to_csv(rows: Iterable[Mapping[str, str]], header: bool = True) -> str:
    """Rows as the text of a table of corrections."""
    lines = map(cells, rows)
    return csv_files.rows_as_text([ALL_COLUMNS, *lines] if header else lines)


def apply(table: pd.DataFrame, relabel: str, folder: pathlib.Path) -> tuple[pd.DataFrame, CorrectionReport]:
    """A copy of the table of photographs with RELABEL's corrections, and a report.

    A new column, corrected, says for each photograph what was corrected in its label: "male to female", or "".
    `table` has the columns folder, file, person, photograph, mask, gender, age (numbers) and years, as
    `dataset.read_faces` makes them; `folder` is the image folder. A row is skipped where its `given` is not the
    folder's label, or its `sha256` not the file's: so a data set that was corrected before stays as it is. Raises
    InputError as `read_corrections` does, if a table other than outliers.csv names people or photographs that are not
    there, and if two rows disagree about one photograph.
    """
    corrections, paths = read_corrections(relabel)
    if not paths:
        return table.assign(corrected=""), CorrectionReport()
    hashes = {name: files.sha256(path) for name, path in _by_name(paths).items()}
    report = CorrectionReport(hashes, len(corrections))
    corrected, leave_out = table.copy(), pd.Series(False, table.index)
    for row, photographs in _applicable_rows(table, corrections, folder, report):
        if row["correct"] == (row["given"] or "no"):
            report.confirmed += 1
        elif row["field"] == "leave_out":
            leave_out[photographs] = True
        else:
            _set_label(corrected, photographs, row["field"], row["correct"])
    labels = list(ATTRIBUTES)
    differs = (corrected[labels] != table[labels]) & ~leave_out.to_numpy()[:, None]
    report.changed = {name: int(count) for name, count in differs.sum().items() if count}
    if leave_out.any():
        report.changed["left out"] = int(leave_out.sum())
    corrected["corrected"] = _texts(table, corrected, differs.any(axis=1).to_numpy())
    report.people = sorted(table["person"][differs.any(axis=1) | leave_out].unique())
    return corrected[~leave_out].reset_index(drop=True), report


def _texts(before: pd.DataFrame, after: pd.DataFrame, differs: np.ndarray) -> list[str]:
    """What was corrected in each photograph's label; "" where differs (bool, shape (n,)) is false."""
    texts = [""] * len(before)
    for row in np.flatnonzero(differs):
        labels = ((values, before[name].iloc[row], after[name].iloc[row]) for name, values in ATTRIBUTES.items())
        texts[row] = ", ".join(f"{values[one]} to {values[other]}" for values, one, other in labels if one != other)
    return [text.replace("_", " ") for text in texts]


def _applicable_rows(
    table: pd.DataFrame, corrections: pd.DataFrame, folder: pathlib.Path, report: CorrectionReport
) -> list[tuple[dict, pd.Index]]:
    """The rows that apply, each with the index of its photographs; `report` takes the others."""
    corrections = _as_spelled(table, corrections, report)
    people, folders = (table.groupby(column, observed=True).indices for column in ("person", "folder"))
    unique = corrections.drop_duplicates(["person", "photograph", "field", "given", "correct", "sha256"])
    applicable, unknown = [], {}
    for row in unique.to_dict("records"):
        name = row["person"]
        photographs = table.index[people.get(name, folders.get(name, []))]
        if row["photograph"] != "all" and len(photographs):
            name = f"{name} {row['photograph']}"
            photographs = photographs[table.loc[photographs, "photograph"] == row["photograph"]]
        if photographs.empty:
            unknown.setdefault(row["path"], []).append(name)
        elif (photographs := _with_content(table, photographs, folder, row["sha256"])).empty:
            report.replaced.append(name)
        elif (photographs := photographs[_has_label(table.loc[photographs], row["field"], row["given"])]).empty:
            report.skipped.append(f"{name} (not {row['given']})")
        else:
            applicable.append((row, photographs))
    unknown = {path: list(dict.fromkeys(names)) for path, names in unknown.items()}
    report.unknown = unknown.pop(str(OUTLIERS), [])
    _refuse(
        f"{path}: expected people and photographs of this data set, found {len(names)} that are not in it: "
        f"{listed(names)}; is it the corrections of another data set? take these rows out, or the file out of RELABEL"
        for path, names in unknown.items()
    )
    # `read_corrections` compares rows with the same names. One row may name a folder and another the id, or one "all"
    # and another a photograph: only the table says that they are about the same photograph.
    problems, first_rows = [], {}
    for row, photographs in applicable:
        for number in photographs:
            problems += _contradictions(row, first_rows.setdefault((number, row["field"]), row))
    _refuse(problems)
    return applicable


def _as_spelled(table: pd.DataFrame, corrections: pd.DataFrame, report: CorrectionReport) -> pd.DataFrame:
    """The corrections, with names as the table spells them. Raises InputError if several names of the table fit one."""
    corrections = corrections.copy()
    for column, there in (("person", ("person", "folder")), ("photograph", ("photograph",))):
        names = [str(name) for each in there for name in table[each].unique()]
        close, known, several = spelling.spellings(names), {*names, "all"}, {}
        for name in (name for name in corrections[column].unique() if name not in known):
            found = close.get(spelling.common(name), [])
            # Spreadsheets drop zeros and add none: the 001720 of outliers.csv is not the 1720 of another data set.
            found = [other for other in found if len(other) >= len(name) or not name.isdecimal()]
            if found:
                report.respelled[name] = found[0]
            if len(found) > 1:
                several[name] = found
        paths = dict.fromkeys(corrections["path"][corrections[column].isin(several)])
        spelling.refuse_several(several, listed(paths))
        corrections[column] = corrections[column].replace(report.respelled)
    return corrections


def _read_rows(path: pathlib.Path) -> list[dict]:
    """The rows of a file, every cell as text, with ALL_COLUMNS, path and line."""
    table = csv_files.read(path, COLUMNS[:-1], "RELABEL")
    rows = pd.DataFrame(table).reindex(columns=ALL_COLUMNS, fill_value="")
    rows = rows.apply(lambda column: column.str.strip()).replace({"photograph": "(?i)^all$"}, "all", regex=True)
    return rows.assign(path=str(path), line=table.lines).to_dict("records")


def _problem_of(row: dict) -> str:
    """What is wrong with a row; "" where nothing is."""
    if row["certainty"] not in CERTAINTIES:
        return f"certainty: expected {' or '.join(CERTAINTIES)}, found {row['certainty']!r}"
    if row["field"] not in (*ATTRIBUTES, "leave_out"):
        return f"field: expected {', '.join(ATTRIBUTES)} or leave_out, found {row['field']!r}"
    for column in ("given", "correct"):
        expected = LEAVE_OUT[column] if row["field"] == "leave_out" else ATTRIBUTES[row["field"]]
        is_years = row["field"] == "age" and row[column].isdecimal()
        if row[column] not in expected and not is_years:
            return f"{column}: expected {', '.join(name or 'nothing' for name in expected)}, found {row[column]!r}"
    if row["sha256"] and row["photograph"] == "all":
        return f"sha256: expected nothing in a row for all photographs, found {row['sha256']!r}"
    if row["sha256"] and not re.fullmatch("[0-9a-fA-F]{8,64}", row["sha256"]):
        return f"sha256: expected 8 to 64 hex digits, found {row['sha256']!r}"
    return ""


def _contradictions(row: dict, earlier: dict) -> list[str]:
    correct = earlier["correct"] or "yes"
    if (row["correct"] or "yes") == correct:
        return []
    return [
        f"{_location(row)}: contradicts an earlier line, which says {correct}: {_location(earlier)}; "
        "take one of them out"
    ]


def _refuse(problems: Iterable[str]) -> None:
    """Raises InputError with these lines, each once; nothing where there are none."""
    if lines := dict.fromkeys(problems):
        raise InputError(*lines)


def _location(row: dict) -> str:
    return f"{row['path']} line {row['line']}"


def _by_name(paths: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Files by name, or by path where several have the same name."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _with_content(table: pd.DataFrame, photographs: pd.Index, folder: pathlib.Path, sha256: str) -> pd.Index:
    """The photographs whose SHA-256 begins with these digits; all of them for ""."""
    if not sha256:
        return photographs
    hashes = pd.Series("", photographs)
    for number in photographs:
        path = folder / path_of(table.at[number, "folder"], table.at[number, "file"])
        with contextlib.suppress(FileNotFoundError):  # the decoder reports it; other errors are raised
            hashes[number] = files.sha256(path)
    return photographs[hashes.str.startswith(sha256.lower())]


def _has_label(table: pd.DataFrame, attribute: str, value: str) -> pd.Series:
    """Whether each photograph has this label: bool, shape (n,). `value` is a name or, for age, years."""
    if attribute == "leave_out":  # folders do not label it
        return pd.Series(True, table.index)
    if value in ATTRIBUTES[attribute]:
        return table[attribute] == ATTRIBUTES[attribute].index(value)
    return table["years"] == int(value)


def _set_label(table: pd.DataFrame, photographs: pd.Index, attribute: str, value: str) -> None:
    if value in ATTRIBUTES[attribute]:
        table.loc[photographs, attribute] = ATTRIBUTES[attribute].index(value)
        if attribute == "age":
            table.loc[photographs, "years"] = float("nan")  # the row gives the band, not the year
    else:
        table.loc[photographs, "years"] = int(value)
        table.loc[photographs, "age"] = age_band(int(value))
