"""Known label errors as data: tables of corrections, and putting them right while the data set is read.

A row names a person (id or folder), a photograph ("mask3", or "all"), a field, what the folder says ("given"), what
is true ("correct"), "sure" or "not sure", and a note. Fields and what `given` and `correct` may hold:

    mask      worn, incorrect, not_worn
    gender    male, female
    age       under_30, 30_to_59, 60_and_over, or years
    leave_out nothing, or no and yes: the photographs are not used

Where `correct` is what is `given`, somebody looked and confirms the label: the row changes nothing. A row of a single
photograph may say in a column sha256 how the hash of its file begins; then it is for that content alone.
"""

import contextlib
import csv
import io
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from toolkit import ROOT
from toolkit.config.types import corrections_named
from toolkit.labels import ATTRIBUTES, age_band
from toolkit.system import files
from toolkit.system.console import InputError, listed

COLUMNS = ("person", "photograph", "field", "given", "correct", "certainty", "note")
ALL_COLUMNS = (*COLUMNS, "sha256")
CERTAINTIES = ("sure", "not sure")
LEAVE_OUT = {"given": ("", "no"), "correct": ("", "yes", "no")}  # nothing is what most rows hold: no, and yes
TABLE = ROOT / "outliers.csv"


@dataclass
class Report:
    """What the corrections did."""

    files: dict[str, str] = field(default_factory=dict)  # name -> SHA-256 of every table that was used
    rows: int = 0
    changed: dict[str, int] = field(default_factory=dict)  # field -> photographs changed
    people: list[str] = field(default_factory=list)  # whose photographs were changed
    confirmed: int = 0  # rows whose label somebody found right
    skipped: list[str] = field(default_factory=list)  # rows whose `given` is not what the folder says
    replaced: list[str] = field(default_factory=list)  # photographs whose content is not what `sha256` says
    unknown: list[str] = field(default_factory=list)  # people and photographs of outliers.csv that are not here

    def __str__(self) -> str:
        if not self.files:
            return "label corrections: none"
        lines = [f"label corrections ({', '.join(self.files)}, {self.rows} rows): {self._done()}"]
        if self.confirmed:
            lines.append(f"  {self.confirmed} labels confirmed")
        if self.skipped:
            lines.append(f"  skipped {len(self.skipped)}, as the folder says otherwise: {listed(self.skipped)}")
        if self.replaced:
            lines.append(f"  skipped {len(self.replaced)}, as each is another photograph now: {listed(self.replaced)}")
        if self.unknown:
            lines.append(f"  {len(self.unknown)} not in this data set: {listed(self.unknown)}")
        return "\n".join(lines)

    def _done(self) -> str:
        if not self.people:
            return "nothing to change"
        changes = ", ".join(f"{name} of {count} photographs" for name, count in self.changed.items())
        return f"{changes}; {len(self.people)} people: {listed(self.people, 30)}"


def read(relabel: str) -> tuple[pd.DataFrame, list[pathlib.Path]]:
    """The corrections that RELABEL asks for, with the path and line that each one stands at, and their files.

    Raises InputError with a line for every row that cannot be understood or contradicts another one.
    """
    rows, paths, problems, said = {}, [], [], {}
    for source in corrections_named(relabel):
        if source == "none":
            continue
        paths.append(TABLE if source in ("sure", "all") else pathlib.Path(source))
        for row in _rows_of(paths[-1]):
            if text := _wrong(row):
                problems.append(f"{_place(row)}: {text}")
            elif source != "sure" or row["certainty"] == "sure":
                rows[_place(row)] = row  # by its place: "sure,all" has no row twice
    own = {asked(row) for row in rows.values() if row["path"] != str(TABLE)}
    rows = {  # what outliers.csv is not sure of, somebody may have looked at
        place: row
        for place, row in rows.items()
        if row["path"] != str(TABLE) or row["certainty"] == "sure" or asked(row) not in own
    }
    for row in rows.values():  # a person's masks are told apart by what is given: "all" that are worn, say
        which = row["given"] if (row["field"], row["photograph"]) == ("mask", "all") else row["photograph"]
        problems += _contradictions(row, said.setdefault((row["person"], which, row["field"], row["sha256"]), row))
    _refuse(problems)
    return pd.DataFrame(list(rows.values()), columns=[*ALL_COLUMNS, "path", "line"]), list(dict.fromkeys(paths))


def decided(relabel: str) -> set[str]:
    """Whom RELABEL's corrections are about: ids or folders, as the rows name them. Raises as `read` does."""
    return set(read(relabel)[0]["person"])


def asked(row: Mapping[str, str]) -> tuple[str, ...]:
    """What a row says something of: person, photograph and field; what it lacks of them is empty, as in `as_csv`."""
    return tuple(row.get(name, "") for name in ("person", "photograph", "field"))


def as_csv(rows: Iterable[Mapping[str, str]], head: bool = True) -> str:
    """Rows {column: text} as the text of a table that `read` reads; what a row lacks of ALL_COLUMNS stays empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([ALL_COLUMNS] if head else [])
    writer.writerows([row.get(name, "") for name in ALL_COLUMNS] for row in rows)
    return text.getvalue()


def apply(faces: pd.DataFrame, relabel: str, folder: pathlib.Path) -> tuple[pd.DataFrame, Report]:
    """The table of faces with the corrections that RELABEL asks for, and what they did.

    `faces` has the columns folder, file, person, photograph, mask, gender, age (numbers) and years, as
    `dataset.read_faces` gives them, and stays as it is; `folder` is the image folder itself. A row whose `given` is not
    what the folder says, or whose `sha256` not that of the photograph, is skipped, so that a data set which was
    corrected before is not turned back. Raises InputError as `read` does, where a file that was named by path is about
    people or photographs that are not there, and where two rows say different things of one photograph.
    """
    table, paths = read(relabel)
    if not paths:
        return faces, Report()
    report = Report({name: files.sha256(path) for name, path in _by_name(paths).items()}, len(table))
    after, leave_out = faces.copy(), pd.Series(False, faces.index)
    for row, photographs in _applying(faces, table, folder, report):
        if row["correct"] == (row["given"] or "no"):
            report.confirmed += 1
        elif row["field"] == "leave_out":
            leave_out[photographs] = True
        else:
            _put(after, photographs, row["field"], row["correct"])
    compared = list(ATTRIBUTES)
    differs = (after[compared] != faces[compared]) & ~leave_out.to_numpy()[:, None]
    report.changed = {name: int(n) for name, n in differs.sum().items() if n}
    if leave_out.any():
        report.changed["left out"] = int(leave_out.sum())
    report.people = sorted(faces["person"][differs.any(axis=1) | leave_out].unique())
    return after[~leave_out].reset_index(drop=True), report


def _applying(faces, table: pd.DataFrame, folder: pathlib.Path, report: Report) -> list[tuple[dict, pd.Index]]:
    """The rows that apply, each with the photographs it is about; `report` gets those that do not."""
    people, folders = (faces.groupby(column, observed=True).indices for column in ("person", "folder"))
    once = table.drop_duplicates(["person", "photograph", "field", "given", "correct", "sha256"])
    found, unknown = [], {}
    for row in once.to_dict("records"):
        rows, what = faces.index[people.get(row["person"], folders.get(row["person"], []))], row["person"]
        if row["photograph"] != "all" and len(rows):
            rows, what = rows[faces.loc[rows, "photograph"] == row["photograph"]], f"{what} {row['photograph']}"
        if rows.empty:
            unknown.setdefault(row["path"], []).append(what)
        elif (rows := _of_content(faces, rows, folder, row["sha256"])).empty:
            report.replaced.append(what)
        elif (rows := rows[_says(faces.loc[rows], row["field"], row["given"])]).empty:
            report.skipped.append(f"{what} (not {row['given']})")
        else:
            found.append((row, rows))
    unknown = {path: list(dict.fromkeys(missing)) for path, missing in unknown.items()}
    report.unknown = unknown.pop(str(TABLE), [])
    _refuse(
        f"{path}: expected people and photographs of this data set, found {len(missing)} that are not in it: "
        f"{listed(missing)}; is it the corrections of another data set? take these rows out, or the file out of RELABEL"
        for path, missing in unknown.items()
    )
    problems, said = [], {}
    for row, rows in found:  # whether it names a photograph or all, and a person by id or by folder
        for number in rows:
            problems += _contradictions(row, said.setdefault((number, row["field"]), row))
    _refuse(problems)
    return found


def _rows_of(path: pathlib.Path) -> list[dict]:
    """The rows of a file, every cell as it stands there, with ALL_COLUMNS and its place."""
    table = pd.DataFrame(files.read_csv(path, COLUMNS[:-1], "RELABEL")).reindex(columns=ALL_COLUMNS, fill_value="")
    return table.assign(path=str(path), line=range(2, len(table) + 2)).to_dict("records")


def _wrong(row: dict) -> str:
    """What is wrong with a row of the table; empty where nothing is."""
    if row["certainty"] not in CERTAINTIES:
        return f"certainty: expected {' or '.join(CERTAINTIES)}, found {row['certainty']!r}"
    if row["field"] not in (*ATTRIBUTES, "leave_out"):
        return f"field: expected {', '.join(ATTRIBUTES)} or leave_out, found {row['field']!r}"
    for column in ("given", "correct"):
        expected = LEAVE_OUT[column] if row["field"] == "leave_out" else ATTRIBUTES[row["field"]]
        years = row["field"] == "age" and row[column].isdecimal()
        if row[column] not in expected and not years:
            return f"{column}: expected {', '.join(name or 'nothing' for name in expected)}, found {row[column]!r}"
    if row["sha256"] and row["photograph"] == "all":
        return f"sha256: expected nothing in a row for all photographs, found {row['sha256']!r}"
    if row["sha256"] and not re.fullmatch("[0-9a-fA-F]{8,64}", row["sha256"]):
        return f"sha256: expected 8 to 64 hex digits, found {row['sha256']!r}"
    return ""


def _contradictions(row: dict, earlier: dict) -> list[str]:
    if (row["correct"] or "yes") == (said := earlier["correct"] or "yes"):
        return []
    return [f"{_place(row)}: contradicts an earlier line, which says {said}: {_place(earlier)}; take one of them out"]


def _refuse(problems: Iterable[str]) -> None:
    if lines := "\n       ".join(dict.fromkeys(problems)):
        raise InputError(lines)


def _place(row: dict) -> str:
    return f"{row['path']} line {row['line']}"


def _by_name(paths: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Files by their names, or by their paths where several have one name."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _of_content(faces: pd.DataFrame, rows: pd.Index, folder: pathlib.Path, beginning: str) -> pd.Index:
    """Those photographs whose file's SHA-256 begins so; one that cannot be read is named by who decodes it."""
    if not beginning:
        return rows
    hashes = pd.Series("", rows)
    for row in rows:
        with contextlib.suppress(OSError):
            hashes[row] = files.sha256(folder / faces.at[row, "folder"] / faces.at[row, "file"])
    return rows[hashes.str.startswith(beginning.lower())]


def _says(faces: pd.DataFrame, attribute: str, value: str) -> pd.Series:
    if attribute == "leave_out":  # whatever a folder says, its photographs are there
        return pd.Series(True, faces.index)
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
