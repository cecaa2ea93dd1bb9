"""A person's decisions on suspects, as rows of a table of corrections.

Each suspect gets one of three answers: "y" (the suggestion is right), "n" (the folder is right) or "?" (cannot tell).
"""

import hashlib
import json
import pathlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence

from toolkit.label_errors.corrections import ALL_COLUMNS, COLUMNS, cells, subject_of, to_csv
from toolkit.label_errors.ranking import Suspect
from toolkit.system import csv_files, files, spelling
from toolkit.system.console import InputError, listed, say

ANSWERS = ("y", "n", "?")
CERTAINTY_AND_NOTE = {
    "n": ("sure", "looked at: the folder is right"),
    "?": ("not sure", "looked at: cannot tell"),
}


def rows_of_answer(suspect: Suspect, answer: str) -> list[dict[str, str]]:
    """The rows of a table of corrections for one of ANSWERS.

    For "n" and "?" they confirm the given label (`correct` equals `given`), so that nobody has to look again.
    """
    if answer == "y":
        return suspect.corrections
    certainty, note = CERTAINTY_AND_NOTE[answer]
    return [row | {"correct": row["given"], "certainty": certainty, "note": note} for row in suspect.corrections]


def read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a table of corrections; [] where there is no file.

    Raises InputError where it is no such table, or has a column that is not in ALL_COLUMNS: writing would drop it.
    """
    if not path.exists():
        return []
    table = csv_files.read(path, COLUMNS[:-1], "the folder of corrections")
    if more := [name for name in table if name not in ALL_COLUMNS]:
        raise InputError(
            f"{path}: expected the columns {', '.join(ALL_COLUMNS)}; found {listed(more)} too, which would be lost; "
            "take that out, or have the decisions in another file"
        )
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def match_answers(
    rows: Sequence[Mapping[str, str]], suspects: Sequence[Suspect]
) -> tuple[dict[int, tuple[str, list[Mapping[str, str]]]], list[Mapping[str, str]]]:
    """{number of a suspect: (answer, its rows)} for the answers that these rows hold; and the other rows.

    Notes are not compared: they hold results of nets, which differ each time, or a person's own words.
    """
    names = dict.fromkeys(row["person"] for suspect in suspects for row in suspect.corrections)
    found = spelling.match(dict.fromkeys(row["person"] for row in rows), names)  # a spreadsheet may have saved them
    rows = [{**row, "person": found.get(row["person"], row["person"])} for row in rows]
    known = {_key(row): row for row in rows}
    answers, used = {}, set()
    for number, suspect in enumerate(suspects):
        for answer in ANSWERS:
            keys = [_key(row) for row in rows_of_answer(suspect, answer)]
            if keys and known.keys() >= set(keys):
                answers[number] = answer, [known[key] for key in keys]
                used.update(keys)
                break
    return answers, [row for row in rows if _key(row) not in used]


def hash_of_list(suspects: Sequence[Suspect]) -> str:
    """16 hex digits that differ for other suspects: a page of an earlier list must not decide on this one."""
    content = [(suspect.folder, suspect.photographs, suspect.corrections) for suspect in suspects]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return cells(row, COLUMNS[: COLUMNS.index("note")])


class Decisions:
    """The answers so far, and their file, which is written before `decide` returns.

    The file begins with rows that are no answers to these suspects: those of earlier rounds, and those that it held
    before, unless an answer has the same subject. The answers follow, in the order of the suspects. What others have
    changed in the file meanwhile stays changed: it is read again before it is written.
    """

    def __init__(self, path: pathlib.Path, suspects: Sequence[Suspect], earlier: Sequence[Mapping[str, str]] = ()):
        """`earlier`: rows of earlier rounds, on other people. Raises InputError as `read_rows` does."""
        self.path, self.suspects = path, suspects
        self._in_file = read_rows(path)
        there = set(map(cells, self._in_file))
        self._not_in_file = [row for row in earlier if cells(row) not in there]  # yet
        self._take(self._in_file)
        self._lock, self._closed = threading.Lock(), False

    def _take(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Take the answers from these rows of the file. Other rows, and those not yet in the file, become _others."""
        matched, others = match_answers(rows, self.suspects)
        self.answers = {number: answer for number, (answer, _) in matched.items()}
        self._rows = {number: rows for number, (_, rows) in matched.items()}
        self._others = list({cells(row): row for row in [*self._not_in_file, *others]}.values())

    def decide(self, number: int, answer: str | None) -> str:
        """Write an answer to the file; None takes it back. Raises InputError if that fails: then nothing changes.

        Returns what others have changed in the file meanwhile, or "".
        """
        with self._lock:  # each request has a thread
            if self._closed:
                raise InputError("the server has ended")
            try:
                with files.locked(self.path.parent):
                    found = self._read_again()
                    rows_of = self._rows | {number: rows_of_answer(self.suspects[number], answer) if answer else []}
                    decided = [row for key in sorted(rows_of) for row in rows_of[key]]
                    # An older row with the subject of an answer would contradict it: RELABEL refuses contradictions.
                    subjects = set(map(subject_of, decided))
                    others = [row for row in self._others if subject_of(row) not in subjects]
                    files.write(self.path, to_csv([*others, *decided]))
            except OSError as error:  # the folder is gone
                raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
            self._rows, self._in_file = rows_of, [*others, *decided]
            # These rows come back when the answer is taken back.
            self._not_in_file = [row for row in self._others if subject_of(row) in subjects]
            self.answers = {key: value for key, value in (self.answers | {number: answer}).items() if value}
            return found

    def _read_again(self) -> str:
        """Take over what others have changed in the file, and say what. A file that is gone is written again, whole."""
        before, rows = Counter(map(cells, self._in_file)), read_rows(self.path)
        now = Counter(map(cells, rows))
        if now == before or not self.path.exists():
            return ""
        self._take(rows)
        added, removed = (sum(rows.values()) for rows in (now - before, before - now))
        found = f"{self.path} was changed meanwhile: {added} rows added, {removed} removed; they stay so"
        say(f"note: {found}")
        return found

    def close(self) -> None:
        """Wait until the file is written; later decisions are refused."""
        with self._lock:
            self._closed = True
