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


def used_names(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of each name that a file takes from a module of this repository."""
    tree, modules = ast.parse(path.read_text()), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (ROOT / f"{node.module}.{alias.name}".replace(".", "/")).with_suffix(".py").is_file():
                    modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                elif (ROOT / node.module.replace(".", "/")).with_suffix(".py").is_file():
                    yield node.lineno, node.module, alias.name
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            modules |= {name: name for name in names if (ROOT / f"{name}.py").is_file()}
    local = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    modules = {name: module for name, module in modules.items() if name not in local}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield node.lineno, modules[node.value.id], node.attr


def closure(*scripts: str) -> set[str]:
    """All files that these scripts run, directly or through others, themselves too: paths below the root."""
    found, left = set(), [ROOT / script for script in scripts]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += [file for _, file in imported(path, for_types=False)]
    return {path.relative_to(ROOT).as_posix() for path in found}
