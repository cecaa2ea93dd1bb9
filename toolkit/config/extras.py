"""Packages that only some settings need: requirements-extras.txt. They are imported where they are used."""

import importlib
import importlib.util
import pathlib

from toolkit.system.console import InputError

INSTALL = "pip install -r requirements-extras.txt"


def need(setting: str, *packages: str) -> None:
    """Import these packages, which `setting` needs. Raises InputError that says how to install what is missing."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"{setting}: expected the package {package}, which cannot be imported ({error}); {INSTALL}"
            ) from None


def need_folder(setting: str, package: str) -> pathlib.Path:
    """The folder of a package from which `setting` needs a file, but no code. Raises InputError if it is missing."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise InputError(f"{setting}: expected the package {package}, which is not installed; {INSTALL}")
    return pathlib.Path(found.origin).parent
