"""Packages that only some settings need: imported where they are used, and named where they are not there."""

import importlib

from toolkit.system.console import InputError


def need(setting: str, *packages: str) -> None:
    """Raises InputError that says what to install, where one of these packages, which `setting` needs, is not there."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"{setting}: expected the package {package}, which cannot be imported ({error}); "
                f"pip install -r requirements-extras.txt"
            ) from None
