"""What does each part of the recipe gain? One change at a time, with paired seeds, on real or drawn faces.

python benchmarks/recipes.py --data FACES --shared EPOCHS=6 WEIGHTS=none --only EMA=true "LR=1e-3 MIX=mixup"

FACES holds `train/`, and any number of eval folders that have a `gt.csv`, of other people than `train/`. Without
--data, hard faces are drawn (benchmarks/hard_faces.py). Every line is the shared settings with one change, trained by
train.py, answered by inference.py and scored by evaluation.py. Printed are the mean macro F1 over the seeds with the
lowest and highest and, pair by pair of seeds, the gain over the shared settings: its mean and standard deviation; and
the same of `ranking`, which varies less by chance.

All that was ever measured stands in measured.csv: it is not measured again for the same settings, seed and code, so a
benchmark that was stopped goes on. --jobs processes of one thread each share the machine.
"""

import argparse
import csv
import datetime
import hashlib
import json
import os
import pathlib
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import common
import hard_faces
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from toolkit.config import sources
from toolkit.config.settings import InferenceSettings, TrainSettings
from toolkit.labels import CLASSES, to_attributes
from toolkit.runs import fingerprint

PEOPLE, EVAL_PEOPLE = 600, 400  # that are drawn
DRAWN = {"NAME": "resnet18", "SIZE": "64x48", "EPOCHS": "6", "WEIGHTS": "none"}
DEFAULTS = ""  # the recipe that changes nothing
OF_INFERENCE = ("inference.py", "toolkit/serving/ensemble.py", "toolkit/serving/runtimes.py")  # code of answers
RECIPES = (
    "ADAPT_PRIORS=false",
    "TTA=true",
    "LOGIT_ADJUSTMENT=0",
    "HEAD=factored",
    "BATCH_SIZE=64",
    "LOSS=cross_entropy",
    "MIX=mixup",
    "MIX=cutmix",
    "AUGMENT=flip",
    "AUGMENT=strong",
    "SAMPLER=balanced",
    "LOSS=logit_adjusted",
    "CLASS_WEIGHTS=none",
    "EMA=true",
    "LR=2e-3",
    "LR=5e-4",
)
SCORES = ("macro_f1", "mask", "gender", "age")
RANKED = (("gender", 1), ("age", 0), ("age", 2))  # attribute and value
COLUMNS = ("date", "commit", "code", "machine", "data", "settings", "seed", "seconds", "set", *SCORES, "ranking")


def main() -> None:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        options.data = options.folder / "faces"
        hard_faces.make(options.data, PEOPLE, EVAL_PEOPLE)
        options.shared = {**DRAWN, **options.shared}
    bench = Benchmark(options.data.absolute(), options.folder.absolute())
    print(f"{as_text(options.shared)}; {len(options.seeds)} seeds; {bench.data}")
    recipes = [as_settings(recipe.split()) for recipe in (DEFAULTS, *options.only)]
    if options.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(options.jobs) as pool:
        answers = {
            (number, seed): pool.submit(bench.scores, {**options.shared, **recipe}, seed)
            for number, recipe in enumerate(recipes)
            for seed in options.seeds
        }
        for number, recipe in enumerate(recipes):
            pairs = [(answers[number, seed].result(), answers[0, seed].result()) for seed in options.seeds]
            print(as_line(as_text(recipe) or "the shared settings", pairs), flush=True)


def parse() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--folder", default="recipes", type=pathlib.Path, help="for measured.csv and the cache")
    parser.add_argument("--shared", nargs="*", default=[], help="settings of every line, NAME=value")
    parser.add_argument("--only", nargs="*", default=RECIPES, help="the changes, each as 'NAME=value NAME=value'")
    parser.add_argument("--seeds", default="1,2,3", type=common.words)
    parser.add_argument("--jobs", default=1, type=int)
    options = parser.parse_args()
    options.shared = as_settings(options.shared)
    return options


def as_settings(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def as_text(values: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(values.items()))


def as_line(name: str, pairs: list[tuple[dict, dict]]) -> str:
    """One row of the table, from {set: macro F1} of each seed with the change and without it."""
    cells = []
    for part in pairs[0][0]:
        values, gains = [new[part] for new, _ in pairs], [new[part] - old[part] for new, old in pairs]
        spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
        mean = statistics.mean(values)
        cells.append(
            f"{part} {mean:.3f} ({min(values):.3f}-{max(values):.3f}) {statistics.mean(gains):+.3f} +- {spread:.3f}"
        )
    return f"{name:40} {' | '.join(cells)}"


def ranking(answers: pathlib.Path, truth: pathlib.Path) -> float:
    """The mean area under the ROC curve of gender, of "under 30" and of "60 and over".

    No decision is part of it: macro F1 depends on some dozens of photographs at the borders of rare classes.
    """
    probabilities = pd.read_csv(answers / "probabilities.csv", index_col="ImageID")
    classes = pd.read_csv(truth / "gt.csv", index_col="ImageID").loc[probabilities.index, "ans"].to_numpy()
    given, of_class = to_attributes(classes), to_attributes(np.arange(CLASSES))
    values = probabilities.to_numpy()[:, :CLASSES]
    return statistics.mean(
        roc_auc_score(given[name] == value, values[:, of_class[name] == value].sum(1)) for name, value in RANKED
    )


class Benchmark:
    """A folder of faces, and measured.csv."""

    def __init__(self, data: pathlib.Path, folder: pathlib.Path):
        self.data, self.folder, self.table = data, folder, folder / "measured.csv"
        self.evals = sorted(path.parent for path in data.glob("*/gt.csv"))
        self.writing = threading.Lock()
        code = fingerprint.make_fingerprint({}, "")["code"] | fingerprint.digests(OF_INFERENCE)
        self.code = hashlib.sha256(json.dumps(code).encode()).hexdigest()[:12]

    def scores(self, values: dict[str, str], seed: str) -> dict[str, float]:
        """{set: macro F1} and, of eval folders, {"set ranking": ranking}: of before, where they were measured."""
        key = {"code": self.code, "data": str(self.data), "settings": as_text(values), "seed": seed}
        if not (rows := self.measured(key)):
            began = time.monotonic()
            machine, found = self.measure(values, seed)
            of_all = {
                **key,
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "commit": common.commit(),
                "machine": machine,
                "seconds": round(time.monotonic() - began),
            }
            rows = [{**of_all, "set": part, **scores} for part, scores in found.items()]
            self.add(rows)
        rankings = {f"{row['set']} ranking": float(row["ranking"]) for row in rows if row.get("ranking")}
        return {row["set"]: float(row["macro_f1"]) for row in rows} | rankings

    def measured(self, key: dict[str, str]) -> list[dict]:
        with self.writing:
            if not self.table.exists():
                return []
            with self.table.open(newline="") as file:
                return [row for row in csv.DictReader(file) if all(row[name] == key[name] for name in key)]

    def add(self, rows: list[dict]) -> None:
        with self.writing:
            is_new = not self.table.exists()
            with self.table.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if is_new:
                    writer.writeheader()
                writer.writerows(rows)

    def measure(self, values: dict[str, str], seed: str) -> tuple[str, dict[str, dict[str, float]]]:
        """Train, answer, evaluate: the machine, and {set: {score: value}}."""
        # NAME and BATCH_SIZE mean another thing in inference.py.
        both = (InferenceSettings.model_fields.keys() & TrainSettings.model_fields.keys()) - {"name", "batch_size"}
        training = {name: value for name, value in values.items() if name.lower() in sources.names_of(TrainSettings)}
        inference = {name: value for name, value in values.items() if name.lower() in both or name not in training}
        shared = {"CACHE_DIR": self.folder / "cache", "REPORT_PHOTOS": "false"}
        with tempfile.TemporaryDirectory() as runs:
            common.run_script(
                "train.py", SM_CHANNEL_TRAIN=self.data / "train", SM_MODEL_DIR=runs, SEED=seed, **shared, **training
            )
            (result,) = pathlib.Path(runs).glob("*/result.json")
            of_training = json.loads(result.read_text())
            found = {"validation": {name: of_training[name] for name in SCORES}}
            for folder in self.evals:
                out = pathlib.Path(runs, "answers", folder.name)
                common.run_script(
                    "inference.py", SM_CHANNEL_EVAL=folder, SM_CHANNEL_MODEL=result.parent, SM_OUTPUT_DATA_DIR=out,
                    **shared, **inference,
                )  # fmt: skip
                common.run_script("evaluation.py", SM_GROUND_TRUTH_DIR=folder, SM_OUTPUT_DATA_DIR=out, **shared)
                scores = json.loads((out / "evaluation.json").read_text())
                attributes = {name: attribute["accuracy"] for name, attribute in scores["attributes"].items()}
                found[folder.name] = {
                    "macro_f1": scores["macro_f1"], **attributes, "ranking": ranking(out, folder),
                }  # fmt: skip
            machine = json.loads((result.parent / "settings.json").read_text())["run"]["machine"]
        return machine, found


if __name__ == "__main__":
    main()
