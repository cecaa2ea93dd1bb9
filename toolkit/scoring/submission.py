"""A submission, and the truth that it is held against: CSV files with the class of each photograph."""

import pathlib

from toolkit.labels import CLASSES
from toolkit.system import files
from toolkit.system.console import InputError, listed


def read(path: pathlib.Path, setting: str) -> dict[str, int]:
    """The class 0..17 of each ImageID. Raises InputError on a repeated ImageID and on any other value."""
    table = files.read_csv(path, ("ImageID", "ans"), setting, key="ImageID")
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
    """The class that a cell names, in whatever form numbers are written ("5", "5.0", "5e+00"), or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number in range(CLASSES) else None


def refuse_other_photographs(truth: dict[str, int], answers: dict[str, int]) -> None:
    """Raises InputError unless both are about the same photographs, in whatever order."""
    differences = {"missing": sorted(truth.keys() - answers.keys()), "extra": sorted(answers.keys() - truth.keys())}
    found = [f"{len(images)} {kind}: {listed(images)}" for kind, images in differences.items() if images]
    if found:
        raise InputError(f"output.csv: expected the ImageIDs of gt.csv, found {'; '.join(found)}")
