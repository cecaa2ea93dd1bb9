"""Names that tables and disks spell differently: a Mac decomposes letters, a spreadsheet drops leading zeros."""

import os
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping

from toolkit.system import files
from toolkit.system.console import InputError, listed, say

ONLY_IN = "zeros in front, blanks, letter case or Unicode form"  # how two spellings of a name may differ


def match(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """{name: its spelling in `others`}, for the names that are in `others`.

    A name that is there exactly is matched with itself. Of the rest, two names match if they differ only in ONLY_IN,
    and no third name fits either of them.
    """
    exactly = set(others)
    found = {name: name for name in names if name in exactly}
    mine, theirs = spellings(name for name in names if name not in found), spellings(exactly - found.keys())
    alone = (key for key in mine if len(mine[key]) == len(theirs.get(key, ())) == 1)
    return found | {mine[key][0]: theirs[key][0] for key in alone}


def spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """{what all spellings of a name have in common: the names with it}."""
    found = {}
    for name in dict.fromkeys(names):
        found.setdefault(common(name), []).append(name)
    return found


def common(name: str) -> str:
    """What all spellings of a name have in common."""
    text = " ".join(composed(composed(name).casefold()).split())
    return text.lstrip("0") if text.isdecimal() else text  # a spreadsheet reads a cell of digits as a number


def composed(name: str) -> str:
    """A name in the Unicode form NFC."""
    return unicodedata.normalize("NFC", name)


def describe(found: Mapping[str, str]) -> str:
    """The names of `match` that are spelled differently, as a part of a sentence; empty where there are none."""
    differing = [
        f"{name!r} is {other!r}" if composed(name) != composed(other) else f"{name!r} in its other Unicode form"
        for name, other in found.items()
        if name != other
    ]
    return f"{len(differing)} names differ only in {ONLY_IN}: {listed(differing)}" if differing else ""


def paths(folder: pathlib.Path, names: list[str], table: str | pathlib.Path) -> list[str | None]:
    """The path below a folder of each file that a table names, also where the disk spells it differently. Says so.

    A name that is missing gets the path where it should be, a name that leads out of the folder None. Raises InputError
    if a name may mean several files.
    """
    found = {name: path and str(path) for name, path in ((name, files.below(folder, name)) for name in names)}
    missing = [name for name in names if found[name] and not os.path.exists(found[name])]
    if missing:
        walked = os.walk(folder, followlinks=True)
        there = [os.path.relpath(os.path.join(parent, file), folder) for parent, _, files in walked for file in files]
        others = [name for name in there if name not in found]
        respelled, close = match(missing, others), spellings(others)
        refuse_several({name: close.get(common(name), []) for name in missing if name not in respelled}, str(table))
        if respelled:
            say(f"note: {table}: {describe(respelled)}")
        found |= {name: os.path.join(folder, other) for name, other in respelled.items()}
    return [found[name] for name in names]


def refuse_several(candidates: Mapping[str, list[str]], where: str) -> None:
    """Raises InputError that lists the names with candidates: each of them fits several, or shares its only one."""
    if unclear := [f"{name!r} may be {' or '.join(map(repr, some))}" for name, some in candidates.items() if some]:
        raise InputError(
            f"{where}: expected names that fit one, found {len(unclear)} that fit several, or one that others fit too "
            f"(they differ only in {ONLY_IN}): {listed(unclear)}; write them exactly as they are there"
        )
