"""Submissions and true classes: CSV files with the class of each photograph."""

import pathlib
from collections.abc import Mapping

from toolkit.labels import CLASSES
from toolkit.system import csv_files, spelling
from toolkit.system.console import InputError, listed, say


def read(path: pathlib.Path, setting: str) -> dict[str, int]:
    """The class 0..17 of each ImageID. Raises InputError on a repeated ImageID and on any other value."""
    table = csv_files.read(path, ("ImageID", "ans"), setting, key="ImageID")
    answers = {image: class_of(text) for image, text in zip(table["ImageID"], table["ans"], strict=True)}
    if None in answers.values():
        wrong = [
            f"{i} has {text!r}" for i, text in zip(table["ImageID"], table["ans"], strict=True) if answers[i] is None
        ]
        raise InputError(
            f"{path}: expected classes 0 to {CLASSES - 1} in ans, found {len(wrong)} others: {listed(wrong)}"
        )
    return answers


def class_of(text: str) -> int | None:
    """The class in a cell, in any form of a number ("5", "5.0", "5e+00"); None if it is no class."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number in range(CLASSES) else None


def answers_to(truth: Mapping[str, int], answers: Mapping[str, int], table: str = "output.csv") -> dict[str, int]:
    """The answers, in the order of `truth` and with its ImageIDs; a note says if `answers` spells some differently.

    `table`: name of the file of the answers. Raises InputError unless both have the same photographs.
    """
    found = spelling.match(truth, answers)
    missing, extra = sorted(truth.keys() - found.keys()), sorted(answers.keys() - set(found.values()))
    close = spelling.spellings(extra)
    spelling.refuse_several({image: close.get(spelling.common(image), []) for image in missing}, f"gt.csv, {table}")
    differing = {"missing": missing, "extra": extra}
    if found_instead := [f"{len(images)} {kind}: {listed(images)}" for kind, images in differing.items() if images]:
        raise InputError(f"{table}: expected the ImageIDs of gt.csv, found {'; '.join(found_instead)}")
    if respelled := spelling.describe(found):
        say(f"note: gt.csv and {table}: {respelled}")
    return {image: answers[found[image]] for image in truth}
