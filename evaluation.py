"""Score a submission against the ground truth.

SM_GROUND_TRUTH_DIR=<folder with gt.csv> SM_OUTPUT_DATA_DIR=<folder with output.csv> python evaluation.py

It writes the scores to evaluation.json, and shows them in evaluation.html. The page also uses, if present, the
photographs (`images/` beside gt.csv), the probabilities (`probabilities.csv` beside output.csv) and more columns of
gt.csv: `person` for intervals over people, and any others (camera, say) for scores by group.
"""

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

from toolkit.config import settings, sources
from toolkit.demo import synthetic
from toolkit.labels import ATTRIBUTES, CLASSES
from toolkit.scoring import submission
from toolkit.system import console, files
from toolkit.system.console import say


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.EvaluationSettings, argv)
    # Wrong settings need not wait for numpy and jinja2.
    from toolkit.pages import evaluation as evaluation_page

    synthetic.ensure_for(config)
    folder, truth_folder = config.sm_output_data_dir, config.sm_ground_truth_dir
    truth = submission.read(truth_folder / "gt.csv", "SM_GROUND_TRUTH_DIR")
    answers = submission.answers_to(truth, submission.read(folder / "output.csv", "SM_OUTPUT_DATA_DIR"))
    predictions = evaluation_page.read(folder, truth_folder, truth, answers, config.report_photos)
    say(*report(predictions.scores))
    scores = folder / "evaluation.json"
    with files.locked(folder):
        files.write_json(scores, predictions.scores)
        evaluation_page.write(folder, truth_folder, predictions, config.pixelate)
    say(f"written: {scores.absolute()} and {evaluation_page.PAGE}")


def report(result: dict) -> list[str]:
    """The scores as aligned lines: one per class, attribute and gap between groups, then accuracy and macro F1."""
    from toolkit.scoring import groups

    lines = [f"{'class':>5}  {'':32} {'photographs':>11} {'precision':>9} {'recall':>9} {'F1':>9}"]
    for row in result["classes"]:
        numbers = f"{row['count']:11d} {row['precision']:9.4f} {row['recall']:9.4f} {row['f1']:9.4f}"
        lines.append(f"{row['class']:>5}  {row['name']:32} {numbers}")
    for name, attribute in result["attributes"].items():
        lines.append(f"{name:8} accuracy {attribute['accuracy']:8.4%}   macro F1 {attribute['macro_f1']:.4f}")
    lines += groups.widest({name: one for name, one in result["groups"].items() if name not in ATTRIBUTES})
    if result["classes_present"] < CLASSES:
        most = result["classes_present"] / CLASSES
        lines.append(
            f"{CLASSES - result['classes_present']} of {CLASSES} classes have no photographs: macro F1 is at most "
            f"{most:.4f}"
        )
    lines.append(f"accuracy {result['accuracy']:.4%}")
    lines.append(f"macro F1 {result['macro_f1']:.4f}")
    return lines


if __name__ == "__main__":
    console.run(main)
