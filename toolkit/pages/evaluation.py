"""evaluation.html: a submission against the ground truth, with all that is known of the photographs."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.pages.parts import render
from toolkit.pages.parts.predictions import NO_PHOTOGRAPHS, Predictions, template_context
from toolkit.scoring import submission
from toolkit.system import csv_files, spelling
from toolkit.system.console import InputError, say

PAGE = "evaluation.html"


def read(
    output_folder: pathlib.Path,
    truth_folder: pathlib.Path,
    truth: Mapping[str, int],
    predicted: Mapping[str, int],
    with_photographs: bool,
) -> Predictions:
    """All that is known of a submission.

    `truth` and `predicted` are the class of each ImageID, as in gt.csv and output.csv. Further columns of gt.csv,
    probabilities.csv beside output.csv, and a folder `images` beside gt.csv are used where they are there.
    """
    images = truth_folder / "images"
    shows_photographs = with_photographs and images.is_dir()
    columns = csv_files.read(truth_folder / "gt.csv", ("ImageID", "ans"), "SM_GROUND_TRUTH_DIR")
    people = columns.get("person")
    return Predictions(
        names=list(truth),
        true=np.array(list(truth.values())),
        predicted=np.array([predicted[image] for image in truth]),
        people=people if people and all(person.strip() for person in people) else None,
        probabilities=read_probabilities(
            output_folder / "probabilities.csv", [(image, predicted[image]) for image in truth]
        ),
        paths=spelling.paths(images, list(truth), truth_folder / "gt.csv") if shows_photographs else None,
        why_no_photographs=f"No photographs are shown: no folder {images}." if with_photographs else NO_PHOTOGRAPHS,
        columns={name: column for name, column in columns.items() if name not in ("ImageID", "ans", "person")},
    )


def write(output_folder: pathlib.Path, truth_folder: pathlib.Path, predictions: Predictions, pixelate: bool) -> None:
    """Write evaluation.html into the folder of output.csv."""
    render.write(
        output_folder / PAGE,
        "predictions.html",
        title="Evaluation of a submission",
        facts=f"{output_folder / 'output.csv'} against {truth_folder / 'gt.csv'}",
        pixelate=pixelate,
        **template_context(predictions),
    )


def read_probabilities(path: pathlib.Path, predicted: Sequence[tuple[str, int]]) -> np.ndarray | None:
    """The probabilities of these (ImageID, class): float64, shape (n, 18), NaN for photographs that cannot be read.

    None where probabilities.csv is missing, or does not belong to output.csv: one of the two is of an earlier call, or
    was changed by hand. That is printed.
    """
    if not path.exists():
        return None
    try:
        table = csv_files.read(path, ("ImageID", *PROBABILITY_COLUMNS, "ans"), "SM_OUTPUT_DATA_DIR", key="ImageID")
        pairs = zip(table["ImageID"], table["ans"], strict=True)
        found = spelling.match([image for image, _ in predicted], table["ImageID"])
        rows = {(image, submission.class_of(ans)): row for row, (image, ans) in enumerate(pairs)}
        columns = [[float(cell or "nan") for cell in table[name]] for name in PROBABILITY_COLUMNS]
        probabilities = np.array(columns).T[[rows[found[image], ans] for image, ans in predicted]]
        if (probabilities < 0).any() or (probabilities > 1).any():
            raise ValueError("found others than 0 to 1")
        return probabilities
    except (InputError, ValueError, KeyError) as error:  # the scores need no probabilities
        say(f"note: {path} is ignored: expected probabilities, from 0 to 1, of the classes in output.csv ({error})")
        return None
