"""Which modules of this repository a file imports, read from its syntax: also inside functions."""

import ast
import pathlib
from collections.abc import Iterator

from faults import ROOT


def imported(path: pathlib.Path, for_types: bool = True) -> Iterator[tuple[int, pathlib.Path]]:
    """(line, file) of each import of a module of this repository. `for_types`: also what only a type checker reads."""
    skipped = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not for_types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: an import without a module's whole name"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names if node not in skipped else ():
            if (file := ROOT / f"{name.replace('.', '/')}.py").is_file():
                yield node.lineno, file


def closure(*scripts: str) -> set[str]:
    """All files that these scripts run, directly or through others, themselves too: paths below the root."""
    found, left = set(), [ROOT / script for script in scripts]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += [file for _, file in imported(path, for_types=False)]
    return {path.relative_to(ROOT).as_posix() for path in found}
