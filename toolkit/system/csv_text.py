"""CSV, from and to text: the one place that knows how people's programs save tables, and how ours are written.

What `as_text` writes `rows` reads again, cell by cell, whatever characters are in it.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence

DELIMITERS = (",", ";", "\t")  # spreadsheets take semicolons where a comma is the decimal point
QUOTED = re.compile('[",\r\n]')
# Spreadsheets write it as a first line for themselves.
NAMED_DELIMITER = re.compile(r"sep=(.)(?:\r\n|\r|\n)", re.IGNORECASE)
REMEDY = "save it as UTF-8 with commas"


def as_text(lines: Iterable[Iterable]) -> str:
    """These rows of cells as CSV; None and NaN become empty cells."""
    return "".join(",".join(map(_cell, cells)) + "\n" for cells in lines)


def _cell(value) -> str:
    text = "" if value is None or value != value else str(value)
    # csv.writer leaves a \r without quotes, which begins a new line for its own reader.
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def rows(content: bytes, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """(line, cells) of the header and of each row below it that has anything in a cell; lines are an editor's.

    The header's columns are stripped, and empty ones at its end are left out, as in the rows. Cells are separated as
    the first line says, or as it takes for the header to have these columns. Raises ValueError where the encoding is
    uncertain, and csv.Error.
    """
    text, first_line = _decoded(content), 1
    delimiters = DELIMITERS
    if named := NAMED_DELIMITER.match(text):
        text, first_line, delimiters = text[named.end() :], 2, named[1]
    csv.field_size_limit(sys.maxsize)
    for delimiter in delimiters:
        header = _strip(next(iter(_rows(text, first_line, delimiter)), (0, []))[1])
        if set(columns) <= set(header):
            break
    else:
        delimiter = delimiters[0]
    found = list(_rows(text, first_line, delimiter))
    if not found:
        return []
    header = _strip(found[0][1])
    return [(found[0][0], header), *((line, _cut(row, len(header))) for line, row in found[1:])]


def _rows(text: str, first_line: int, delimiter: str) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    line = first_line
    for row in reader:
        if any(cell.strip() for cell in row):
            yield line, row
        line = first_line + reader.line_num


def _strip(header: list[str]) -> list[str]:
    """The names of columns, without empty ones at the end."""
    names = [name.strip() for name in header]
    return _cut(names, len(names) - next((n for n, name in enumerate(reversed(names)) if name), 0))


def _cut(row: list[str], width: int) -> list[str]:
    """The row without empty cells beyond this width."""
    while len(row) > width and not row[-1].strip():
        row = row[:-1]
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
    """What Excel saves in Korea, where that is certain: nothing but ASCII and the 2,350 syllables of KS X 1001.

    Other encodings give such pairs of bytes hardly ever.
    """
    try:
        text = content.decode("cp949")
        text.encode("euc_kr")
    except UnicodeError:
        return None
    is_plain = all(character.isascii() or "가" <= character <= "힣" for character in text)
    return text if is_plain else None
