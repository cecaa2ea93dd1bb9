"""Score a submission against the ground truth.

SM_GROUND_TRUTH_DIR=<folder with gt.csv> SM_OUTPUT_DATA_DIR=<folder with output.csv> python evaluation.py

evaluation.json has the scores, and evaluation.html shows them. Where they lie there, the page has photographs
(`images/` beside gt.csv), what the net gave each class (`probabilities.csv` beside output.csv), and whose they are (a
column `person` of gt.csv).
"""

from toolkit.config import settings, sources
from toolkit.labels import PROBABILITY_COLUMNS
from toolkit.scoring import submission
from toolkit.system import console, files
from toolkit.system.console import InputError, say


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.EvaluationSettings, argv)
    from toolkit.scoring import metrics  # numpy, which wrong settings need not wait for

    sources.ensure_drawn_faces(config)
    truth = submission.read(config.sm_ground_truth_dir / "gt.csv", "SM_GROUND_TRUTH_DIR")
    answers = submission.read(config.sm_output_data_dir / "output.csv", "SM_OUTPUT_DATA_DIR")
    submission.refuse_other_photographs(truth, answers)
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

    from toolkit.pages import page
    from toolkit.pages.answers import Answers, tell

    images = config.sm_ground_truth_dir / "images"
    given = Answers(
        names=list(truth),
        true=np.array(list(truth.values())),
        said=np.array([answers[image] for image in truth]),
        people=read_people(config),
        probabilities=read_probabilities(config, [(image, answers[image]) for image in truth]),
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
    """Whose each photograph is, in the order of gt.csv, where its column `person` says so of all of them."""
    people = files.read_csv(config.sm_ground_truth_dir / "gt.csv", ("ImageID",), "SM_GROUND_TRUTH_DIR").get("person")
    return people if people and all(person.strip() for person in people) else None


def read_probabilities(config: settings.EvaluationSettings, answers: list[tuple[str, int]]):
    """What the net gave each class of these photographs: float64, shape (n, 18), NaN for bad ones; None if not known.

    A probabilities.csv of other photographs or answers lay there before, or output.csv was changed since.
    """
    import numpy as np

    path = config.sm_output_data_dir / "probabilities.csv"
    if not path.exists():
        return None
    try:
        table = files.read_csv(path, ("ImageID", *PROBABILITY_COLUMNS, "ans"), "SM_OUTPUT_DATA_DIR", key="ImageID")
        pairs = zip(table["ImageID"], table["ans"], strict=True)
        row = {(image, submission.class_of(ans)): number for number, (image, ans) in enumerate(pairs)}
        columns = [[float(cell or "nan") for cell in table[name]] for name in PROBABILITY_COLUMNS]
        found = np.array(columns).T[[row[answer] for answer in answers]]
        if (found < 0).any() or (found > 1).any():
            raise ValueError("found others than 0 to 1")
        return found
    except (InputError, ValueError, KeyError) as error:  # the scores need none of it
        say(f"note: {path} is passed over: expected those of the answers in output.csv, from 0 to 1 ({error})")
        return None


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
