"""Packages that only some settings need: requirements-extras.txt. They are imported where they are used."""

import importlib

from toolkit.system.console import InputError


def need(setting: str, *packages: str) -> None:
    """Import these packages, which `setting` needs. Raises InputError that says how to install what is missing."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"{setting}: expected the package {package}, which cannot be imported ({error}); "
                f"pip install -r requirements-extras.txt"
            ) from None
