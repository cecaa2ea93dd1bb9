"""Which modules of this repository a file imports, read from its syntax: also inside functions."""

import ast
import functools
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


def used_names(path: pathlib.Path) -> Iterator[tuple[int, pathlib.Path, str]]:
    """(line, file, name) of each name that a file takes from a module of this repository."""
    folders = {ROOT, path.parent} if path.parent == ROOT / "benchmarks" else {ROOT}  # they import each other

    def file_of(module: str) -> pathlib.Path | None:
        files = (folder / f"{module.replace('.', '/')}.py" for folder in folders)
        return next(filter(pathlib.Path.is_file, files), None)

    tree, modules = ast.parse(path.read_text()), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if file := file_of(f"{node.module}.{alias.name}"):
                    modules[alias.asname or alias.name] = file
                elif file := file_of(node.module):
                    yield node.lineno, file, alias.name
        elif isinstance(node, ast.Import):
            modules |= {alias.name: file for alias in node.names if (file := file_of(alias.name))}
    local = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    modules = {name: file for name, file in modules.items() if name not in local}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield node.lineno, modules[node.value.id], node.attr


@functools.cache
def names_in(path: pathlib.Path) -> set[str]:
    """What a module defines or imports outside its functions and classes, also below `if` and `try`."""
    found = {"__file__"}
    for statement in ast.parse(path.read_text()).body:
        for node in [statement] if isinstance(statement, ast.FunctionDef | ast.ClassDef) else ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                found.add(node.asname or node.name.partition(".")[0])
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def closure(*scripts: str) -> set[str]:
    """All files that these scripts run, directly or through others, themselves too: paths below the root."""
    found, left = set(), [ROOT / script for script in scripts]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += [file for _, file in imported(path, for_types=False)]
    return {path.relative_to(ROOT).as_posix() for path in found}
