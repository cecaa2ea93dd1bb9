"""Score a submission against the ground truth.

SM_GROUND_TRUTH_DIR=<folder with gt.csv> SM_OUTPUT_DATA_DIR=<folder with output.csv> python evaluation.py

evaluation.json has the scores, and evaluation.html shows them. Where they lie there, the page has photographs
(`images/` beside gt.csv), what the net gave each class (`probabilities.csv` beside output.csv), and whose they are (a
column `person` of gt.csv).
"""

import pathlib

from toolkit import console, environment, files, settings
from toolkit.console import InputError, listed, say
from toolkit.labels import CLASSES, PROBABILITY_COLUMNS


def main(argv: list[str]) -> None:
    config, _ = environment.read(settings.EvaluationSettings, argv)
    from toolkit import metrics  # numpy, which wrong settings need not wait for

    if config.demo:
        from toolkit import sample

        sample.ensure(settings.DEMO_DATA)
    truth = read_answers(config.sm_ground_truth_dir / "gt.csv", "SM_GROUND_TRUTH_DIR")
    answers = read_answers(config.sm_output_data_dir / "output.csv", "SM_OUTPUT_DATA_DIR")
    refuse_other_photographs(truth, answers)
    matrix = metrics.confusion(list(truth.values()), [answers[image] for image in truth])
    result = metrics.scores(matrix)
    path = config.sm_output_data_dir / "evaluation.json"
    say(report(result))
    with files.locked(path.parent):
        files.write_json(path, {**result, "confusion": matrix.tolist()})
        write_page(config, truth, answers)
    say(f"written: {path.absolute()} and evaluation.html")


def write_page(config: settings.EvaluationSettings, truth: dict[str, int], answers: dict[str, int]) -> None:
    """evaluation.html, of all that is known of the photographs."""
    import numpy as np

    from toolkit import page
    from toolkit.answers import Answers, tell

    images = config.sm_ground_truth_dir / "images"
    given = Answers(
        names=list(truth),
        true=np.array(list(truth.values())),
        said=np.array([answers[image] for image in truth]),
        people=read_people(config),
        probabilities=read_probabilities(config, list(truth)),
        files=[images / image for image in truth] if config.report_photos and images.is_dir() else None,
    )
    page.write(
        config.sm_output_data_dir / "evaluation.html",
        "answers.html",
        title="Evaluation of a submission",
        facts=f"{config.sm_output_data_dir / 'output.csv'} against {config.sm_ground_truth_dir / 'gt.csv'}",
        told=tell(given),
    )


def read_people(config: settings.EvaluationSettings) -> list[str] | None:
    """Whose each photograph is, in the order of gt.csv, where its column `person` says so."""
    return files.read_csv(config.sm_ground_truth_dir / "gt.csv", ("ImageID",), "SM_GROUND_TRUTH_DIR").get("person")


def read_probabilities(config: settings.EvaluationSettings, images: list[str]):
    """What the net gave each class of these photographs: float64, shape (n, 18), NaN for bad ones; None if not known.

    A probabilities.csv of other photographs is of another answer, which lay there before.
    """
    import numpy as np

    path = config.sm_output_data_dir / "probabilities.csv"
    if not path.exists():
        return None
    try:
        table = files.read_csv(path, ("ImageID", *PROBABILITY_COLUMNS), "SM_OUTPUT_DATA_DIR", key="ImageID")
        row = {image: number for number, image in enumerate(table["ImageID"])}
        columns = [[float(cell or "nan") for cell in table[name]] for name in PROBABILITY_COLUMNS]
        return np.array(columns).T[[row[image] for image in images]]
    except (InputError, ValueError, KeyError) as error:  # the scores need none of it
        say(f"note: {path} is passed over: expected numbers for each photograph of gt.csv ({error})")
        return None


def read_answers(path: pathlib.Path, setting: str) -> dict[str, int]:
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


def report(result: dict) -> str:
    """The scores as aligned lines: a line a class, a line an attribute, then accuracy and macro F1."""
    lines = [f"{'class':>5}  {'':32} {'photographs':>11} {'precision':>9} {'recall':>9} {'F1':>9}"]
    for row in result["classes"]:
        numbers = f"{row['count']:11d} {row['precision']:9.4f} {row['recall']:9.4f} {row['f1']:9.4f}"
        lines.append(f"{row['class']:>5}  {row['name']:32} {numbers}")
    for name, attribute in result["attributes"].items():
        lines.append(f"{name:8} accuracy {attribute['accuracy']:8.4%}   macro F1 {attribute['macro_f1']:.4f}")
    lines.append(f"accuracy {result['accuracy']:.4%}")
    lines.append(f"macro F1 {result['macro_f1']:.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    console.run(main)
