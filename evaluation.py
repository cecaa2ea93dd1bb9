"""Score a submission against the ground truth.

SM_GROUND_TRUTH_DIR=<folder with gt.csv> SM_OUTPUT_DATA_DIR=<folder with output.csv> python evaluation.py
"""

import pathlib

import pandas as pd

from toolkit import console, environment, files, metrics, sample, settings
from toolkit.console import InputError, listed, say
from toolkit.labels import CLASSES


def main(argv: list[str]) -> None:
    config, _ = environment.read(settings.EvaluationSettings, argv)
    if config.demo:
        sample.ensure(settings.DEMO_DATA)
    truth = read_answers(config.sm_ground_truth_dir / "gt.csv", "SM_GROUND_TRUTH_DIR")
    answers = read_answers(config.sm_output_data_dir / "output.csv", "SM_OUTPUT_DATA_DIR")
    refuse_other_photographs(truth, answers)
    matrix = metrics.confusion(truth, answers[truth.index])
    result = metrics.scores(matrix)
    path = config.sm_output_data_dir / "evaluation.json"
    say(report(result))
    files.write_json(path, {**result, "confusion": matrix.tolist()})
    say(f"written: {path.absolute()}")


def read_answers(path: pathlib.Path, setting: str) -> pd.Series:
    """Classes 0..17 (int64) by ImageID. Raises InputError on a repeated ImageID and on any other value."""
    table = files.read_csv(path, ("ImageID", "ans"), setting, key="ImageID")
    classes = pd.to_numeric(table["ans"], errors="coerce")
    wrong = ~classes.isin(range(CLASSES))
    if wrong.any():
        shown = listed(f"{image} has {answer!r}" for image, answer in table[wrong][["ImageID", "ans"]].values)
        raise InputError(f"{path}: expected classes 0 to {CLASSES - 1} in ans, found {wrong.sum()} others: {shown}")
    return pd.Series(classes.to_numpy("int64"), index=table["ImageID"])


def refuse_other_photographs(truth: pd.Series, answers: pd.Series) -> None:
    """Raises InputError unless both are about the same photographs, in whatever order."""
    missing, extra = truth.index.difference(answers.index), answers.index.difference(truth.index)
    found = [f"{len(ids)} {kind}: {listed(ids)}" for ids, kind in ((missing, "missing"), (extra, "extra")) if len(ids)]
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
