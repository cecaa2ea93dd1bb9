"""CSV files: the one place that knows how other programs save tables, and how we write ours.

`read` returns every cell exactly as `write` was given it, whatever characters it has.
"""

import codecs
import csv
import io
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from toolkit.system import files
from toolkit.system.console import InputError, listed

DELIMITERS = (",", ";", "\t")  # spreadsheets take semicolons where a comma is the decimal point
NAMED_DELIMITER = re.compile(r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE)  # a first line that spreadsheets write
QUOTED = re.compile('[",\r\n]')  # a cell with one of these is written in quotes
LONGEST_CELL = 2**31 - 1  # characters: the csv module takes a C long, which has 32 bits on Windows
REMEDY = "save it as UTF-8 with commas"


class Table(dict):
    """{column: texts}, and where the rows are."""

    lines: list[int]  # of each row in its file, as an editor counts them


def read(path: pathlib.Path, columns: tuple[str, ...], setting: str, key: str | None = None) -> Table:
    """A CSV table as {column: texts}, each cell exactly as in the file. Without pandas, which is slow to import.

    `setting` is named when the file is missing. Raises InputError unless the table has these columns and, with a `key`,
    at least one row and no value twice in that column.
    """
    try:
        with files.opened(path) as file:
            rows = _rows(file.read(), columns)
    except FileNotFoundError:
        raise InputError(f"{path}: expected this file, found none; is {setting} the right folder?") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}; {REMEDY}") from None
    header = rows.pop(0)[1] if rows else []
    if missing := [column for column in columns if column not in header]:
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)}; found {listed(header, 30) or 'nothing'}; "
            f"missing {', '.join(missing)}{f'; {REMEDY}' if len(header) == 1 else ''}"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path}: expected every column once, and a name for each; found {listed(header, 30)}")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path} line {line}: expected {len(header)} cells, as in the header, found {len(row)}: {listed(row)}"
            )
    table = Table({name: [row[column] for _, row in rows] for column, name in enumerate(header)})
    table.lines = [line for line, _ in rows]
    if key and not rows:
        raise InputError(f"{path}: expected a row for each photograph, found none")
    if key and len(set(table[key])) < len(rows):
        repeated = [value for value, count in Counter(table[key]).items() if count > 1]
        raise InputError(f"{path}: expected every {key} once, found {len(repeated)} repeated: {listed(repeated)}")
    return table


def write(path: pathlib.Path, table) -> None:
    """Write `as_text`. Raises InputError as `files.replacing` does."""
    files.write(path, as_text(table))


def as_text(table) -> str:
    """Columns {name: values}, or a pandas table, as CSV with a header; NaN becomes an empty cell."""
    # As Python's own numbers: the text of a tensor's element would be `tensor(1)`.
    columns = [column.tolist() if hasattr(column, "tolist") else column for _, column in table.items()]
    return rows_as_text([[name for name, _ in table.items()], *zip(*columns, strict=True)])


def rows_as_text(lines: Iterable[Iterable]) -> str:
    """Rows of cells as CSV; None and NaN become empty cells."""
    return "".join(",".join(map(_cell, cells)) + "\n" for cells in lines)


def _cell(value) -> str:
    text = "" if value is None or value != value else str(value)
    # Not csv.writer: it writes \r without quotes, and csv.reader then takes it for a new line.
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def _rows(content: bytes, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """(line, cells) of the header and of each row below it that is not empty; lines as an editor counts them.

    Names in the header are stripped. Empty cells to the right of its last name are left out. The delimiter is the one
    in a first line `sep=`, else the first of DELIMITERS with which the header has these columns. Raises ValueError if
    the encoding is uncertain, and csv.Error on wrong quotes.
    """
    text, first_line = _decoded(content), 1
    delimiters = DELIMITERS
    if named := NAMED_DELIMITER.match(text):
        text, first_line, delimiters = text[named.end() :], 2, named[1]
    csv.field_size_limit(LONGEST_CELL)
    for delimiter in delimiters:
        header = _strip(next(iter(_split(text, first_line, delimiter)), (0, []))[1])
        if set(columns) <= set(header):
            break
    else:
        delimiter = delimiters[0]
    found = list(_split(text, first_line, delimiter))
    if not found:
        return []
    header = _strip(found[0][1])
    return [(found[0][0], header), *((line, _cut(row, len(header))) for line, row in found[1:])]


def _split(text: str, first_line: int, delimiter: str) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    line = first_line
    for row in reader:
        if any(cell.strip() for cell in row):
            yield line, row
        line = first_line + reader.line_num


def _strip(header: list[str]) -> list[str]:
    """The names of columns, without empty ones at the end."""
    return _cut([name.strip() for name in header], 0)


def _cut(row: list[str], width: int) -> list[str]:
    """The row, from which empty cells beyond this width are removed."""
    while len(row) > width and not row[-1].strip():
        row.pop()
    return row


def _decoded(content: bytes) -> str:
    """Text of UTF-8, UTF-16 with its mark, or Korean of CP949. Raises ValueError on anything else."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if (text := _as_korean(content)) is not None:
            return text
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is no UTF-8") from None


def _as_korean(content: bytes) -> str | None:
    """The text, if Excel in Korea surely saved it: only ASCII and the 2,350 syllables of KS X 1001; else None.

    Text in other encodings hardly ever has only such pairs of bytes.
    """
    try:
        text = content.decode("cp949")
        text.encode("euc_kr")
    except UnicodeError:
        return None
    is_plain = all(character.isascii() or "가" <= character <= "힣" for character in text)
    return text if is_plain else None
