"""Does suspects.py find wrong labels sooner than other tools, and what do they cost? Errors injected into drawn faces.

python benchmarks/labels.py [--folder labels] [--people 500] [--seeds 1,2,3,4,5] [--part ranking | training]

Drawn faces made hard (benchmarks/hard_faces.py) are put into folders with wrong labels (benchmarks/wrong_labels.py).

ranking: train.py makes folds of them, as suspects.py would (3 folds, 4 epochs, resnet18 from scratch at 64x48), and at
3 % also weak ones (1 epoch at 32x32), as real faces are harder to tell than drawn ones. On the same probabilities
people are ranked by suspects.py, by cleanlab (all 18 classes at once or the attribute alone; a person counts as the
worst photograph, or as their mean), by the formula of FiftyOne's mistakenness, and by how many photographs get another
answer than the label. Each method is asked for each kind of error: people with an error of another kind are left out.
Printed are means over the seeds, with the lowest and highest.

training: scores on other people, whose labels are right, after training with right labels, with wrong ones, and with
wrong ones of which the first 5 % of suspects were reviewed by somebody who knows the truth (8 epochs at 48x36).

What was measured stays in the folder, and is not measured again. cleanlab is for this benchmark only:
pip install "cleanlab>=2.8"
"""

import argparse
import contextlib
import io
import json
import pathlib
import shutil
import statistics
import sys
from functools import partial

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import hard_faces  # noqa: E402
import scripts  # noqa: E402
import wrong_labels  # noqa: E402
from wrong_labels import Shares  # noqa: E402

import dataset  # noqa: E402
import suspects  # noqa: E402
from toolkit.config.settings import SuspectsSettings  # noqa: E402
from toolkit.data.store import Store  # noqa: E402
from toolkit.label_errors import corrections, evidence, ranking  # noqa: E402
from toolkit.scoring import metrics  # noqa: E402

SHARES = {"3": Shares(0.03, 0.01, 0.01), "1": Shares(0.01, 0.005, 0.005), "20": Shares(0.12, 0.04, 0.04)}
REVIEWED = 0.05  # of all people
EVAL_PEOPLE = 300
SETTINGS = {"NAME": "resnet18", "PRETRAINED": "false", "SIZE": "64x48", "EPOCHS": "4", "REPORT_PHOTOS": "false"}
LONGER = {"SIZE": "48x36", "EPOCHS": "8"}  # runs of 4 epochs differ by chance as much as wrong labels cost
NETS = {"quick": {}, "weak": {"SIZE": "32x32", "EPOCHS": "1"}}
ROW = "{:28}" + "{:>22}" * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="labels", type=pathlib.Path)
    parser.add_argument("--people", default=500, type=int)
    parser.add_argument("--seeds", default="1,2,3,4,5", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--part", choices=("ranking", "training"))
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(exist_ok=True)
    hard_faces.make(folder / "faces", options.people, EVAL_PEOPLE)
    if options.part != "training":
        for rate, net in (("3", "quick"), ("1", "quick"), ("3", "weak")):
            compare_rankings(folder, rate, net, options.seeds)
    if options.part != "ranking":
        compare_training(folder, "20", options.seeds)


class Case:
    """Faces of which some have wrong labels, and the folds that were trained on them."""

    def __init__(self, folder: pathlib.Path, rate: str, seed: int, net: str = "quick"):
        self.folder, self.seed, self.net = folder / f"{rate}-{seed}", seed, net
        self.right = folder / "faces" / "train"
        self.config = SuspectsSettings(
            sm_channel_train=self._images(SHARES[rate]), sm_output_data_dir=self.folder, relabel="none", device="cpu"
        )
        self.wrong = {kind: set(ids) for kind, ids in json.loads((self.folder / "wrong.json").read_text()).items()}
        self.faces, self.p, self.findings = self._asked()

    def _images(self, shares: Shares) -> pathlib.Path:
        if not (self.folder / "wrong.json").exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # of one that was stopped
            wrong = wrong_labels.make(self.folder / "images", self.right / "images", shares, self.seed)
            (self.folder / "wrong.json").write_text(json.dumps({kind: sorted(ids) for kind, ids in wrong.items()}))
        return self.folder / "images"

    def _asked(self):
        """The faces, their probabilities by nets that never saw them, and what suspects.py makes of those."""
        runs = self.folder / f"runs-{self.net}"
        if not (runs / SETTINGS["NAME"] / "result.json").exists():
            self.train(runs, FOLDS="3", **NETS[self.net])
        config = self.config.model_copy(update={"sm_channel_model": runs})
        with contextlib.redirect_stdout(io.StringIO()):
            headers = suspects.find_folds(config)
            faces, decided, _ = suspects.read_faces(config)
            folds = suspects.of_folds(faces, decided, headers)
            size = tuple(next(iter(headers.values()))["size"])
            store = Store(dataset.paths(faces, config.sm_channel_train), size)
            store.fill()
            p = suspects.ask(config, headers, folds, store)
        return faces, p, evidence.find(faces, p)

    def train(self, runs: pathlib.Path, **settings) -> None:
        runs.mkdir(exist_ok=True)
        where = {"SM_CHANNEL_TRAIN": self.config.sm_channel_train, "RELABEL": "none", "SEED": self.seed}
        scripts.run("train.py", **SETTINGS | where | {"SM_MODEL_DIR": runs} | settings)

    def ids(self) -> list[str]:
        """Of each folder, in the order of the findings."""
        return list(dict.fromkeys(finding.folder.partition("_")[0] for finding in self.findings))

    def reviewed(self) -> pathlib.Path:
        """A table of the corrections that a person who knows the truth agrees to, of the first suspects."""
        truth, _ = dataset.read_faces(self.right)
        first = ranking.rank(self.faces, self.findings)[: round(REVIEWED * len(self.ids()))]
        rows = [row for suspect in first if self._is_right(suspect, truth) for row in suspect.corrections]
        path = self.folder / "reviewed.csv"
        path.write_text(corrections.as_csv(rows))
        return path

    def _is_right(self, suspect, truth) -> bool:
        """Whether its labels are those of the truth, once they are corrected as it is suggested."""
        given = self.faces[self.faces["folder"] == suspect.folder].reset_index(drop=True)
        (self.folder / "one.csv").write_text(corrections.as_csv(suspect.corrections))
        after, _ = corrections.apply(given, str(self.folder / "one.csv"), self.folder / "images")
        true = truth[truth["person"] == suspect.person]
        true = {row.photograph: row.mask for row in true.itertuples()}, true["gender"].iloc[0], true["age"].iloc[0]
        if suspect.person in self.wrong["mask"]:  # its photographs bear each other's names
            true[0].update({wrong_labels.EXCHANGED[name]: true[0][name] for name in wrong_labels.EXCHANGED})
        found = {row.photograph: row.mask for row in after.itertuples()}, after["gender"].iloc[0], after["age"].iloc[0]
        return found == true


def compare_rankings(folder: pathlib.Path, rate: str, net: str, seeds: list[int]) -> None:
    """Print how soon each method finds each kind of error, and how many suspects.py expected."""
    cases = [Case(folder, rate, seed, net) for seed in seeds]
    of_each = ", ".join(f"{name} {share:.1%}" for name, share in vars(SHARES[rate]).items())
    print(f"\n{len(cases[0].ids())} people, {net} nets, wrong labels: {of_each}; n = {len(cases)}")
    for kind in ("mask", "gender", "age"):
        print(ROW.format(kind, "average precision", "in the first 5 %", "people to find 90 %"))
        for name, method in METHODS.items():
            found = [scores(method(case, kind), case, kind) for case in cases]
            print(ROW.format(name, *(spread(values) for values in zip(*found, strict=True))), flush=True)
        numbers = [
            (sum(one.probability for one in case.findings if one.kind == kind), len(case.wrong[kind])) for case in cases
        ]
        expected, there = (statistics.mean(side) for side in zip(*numbers, strict=True))
        print(f"errors that suspects.py expects: {expected:.1f}, injected: {there:.1f}\n", flush=True)


def scores(suspicions: np.ndarray, case: Case, kind: str) -> tuple[float, float, float]:
    """Average precision, recall among the first 5 %, and how many people one looks at to find 90 % of this kind.

    `suspicions` has a number for each folder, in the order of case.ids(). Equal ones come in random order.
    """
    from sklearn.metrics import average_precision_score

    ids = np.array(case.ids())
    others = set().union(*(some for name, some in case.wrong.items() if name != kind))
    asked = ~np.isin(ids, list(others))
    true, values = np.isin(ids, list(case.wrong[kind]))[asked], suspicions[asked]
    order = np.lexsort((np.random.default_rng(0).random(len(values)), -values))
    found = np.cumsum(true[order])
    enough = int(np.searchsorted(found, np.ceil(0.9 * true.sum()))) + 1
    return average_precision_score(true, values), found[round(0.05 * len(values)) - 1] / true.sum(), enough


def spread(values) -> str:
    form = "{:.0f}" if min(values) > 1 else "{:.2f}"
    return "{} ({}-{})".format(*(form.format(value) for value in (statistics.mean(values), min(values), max(values))))


def ours(case: Case, kind: str) -> np.ndarray:
    of_kind = [finding for finding in case.findings if finding.kind == kind]
    return np.array([finding.probability + 1e-9 * finding.nats for finding in of_kind])


def by_photograph(of_photograph, per_factor: bool, whole, case: Case, kind: str) -> np.ndarray:
    """The worst or the mean of a person's photographs: (labels, probabilities) -> how suspicious each is."""
    if per_factor:
        labels, p = case.faces[kind].to_numpy(), case.p @ metrics.members(kind)
    else:
        labels, p = dataset.labels(case.faces), case.p
    values = of_photograph(labels.astype(int), p / p.sum(1, keepdims=True))
    groups = case.faces.assign(value=values).groupby("folder", observed=True)["value"]
    return whole(groups).to_numpy()


def cleanlab(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    from cleanlab.rank import get_label_quality_scores

    return 1 - get_label_quality_scores(labels, p)


def mistakenness(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """FiftyOne's compute_mistakenness of classifications with logits."""
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(1)
    return (np.where(p.argmax(1) == labels, -1, 1) * np.exp(-entropy) + 1) / 2


def differs(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    return (p.argmax(1) != labels).astype(float)


def worst(groups):
    return groups.max()


def mean(groups):
    return groups.mean()


METHODS = {
    "suspects.py": ours,
    "cleanlab, 18 classes, worst": partial(by_photograph, cleanlab, False, worst),
    "cleanlab, 18 classes, mean": partial(by_photograph, cleanlab, False, mean),
    "cleanlab, attribute, worst": partial(by_photograph, cleanlab, True, worst),
    "cleanlab, attribute, mean": partial(by_photograph, cleanlab, True, mean),
    "mistakenness, worst": partial(by_photograph, mistakenness, False, worst),
    "mistakenness, mean": partial(by_photograph, mistakenness, False, mean),
    "prediction differs": partial(by_photograph, differs, False, mean),
}


def compare_training(folder: pathlib.Path, rate: str, seeds: list[int]) -> None:
    """Print scores on clean people, and how much of what wrong labels cost comes back with a review of the first."""
    rows = []
    for seed in seeds:
        case = Case(folder, rate, seed)
        reviewed = case.reviewed()
        sides = {"right": {"SM_CHANNEL_TRAIN": case.right}, "wrong": {}, "reviewed": {"RELABEL": reviewed}}
        rows.append([scored(case, folder, name, settings) for name, settings in sides.items()])
        told = (f"{name} {score['macro F1']:.4f}" for name, score in zip(sides, rows[-1], strict=True))
        print(f"seed {seed}: macro F1 with labels {', '.join(told)}", flush=True)
    wrong = sum(vars(SHARES[rate]).values())
    print(f"\nwrong labels of {wrong:.0%} of people; the first {REVIEWED:.0%} of all are reviewed")
    draws = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
    for name in rows[0][0]:
        right, wrong, after = np.array([[score[name] for score in row] for row in rows]).T
        share = (after - wrong)[draws].mean(1) / (right - wrong)[draws].mean(1)
        low, high = np.quantile(share, (0.025, 0.975))
        means = f"right {right.mean():.4f}, wrong {wrong.mean():.4f}, reviewed {after.mean():.4f}"
        back = (after.mean() - wrong.mean()) / (right.mean() - wrong.mean())
        told = f"{back:.0%} comes back (95 % of draws of seeds: {low:.0%} to {high:.0%})"
        print(f"{name:18} {means}: {told if right.mean() > wrong.mean() else 'nothing was lost'}")


def scored(case: Case, folder: pathlib.Path, name: str, settings: dict) -> dict[str, float]:
    """On other people, as many of each class, after one run."""
    runs, out, data = case.folder / f"trained-{name}", case.folder / f"scored-{name}", folder / "faces" / "equal"
    if not (out / "evaluation.json").exists():
        if not (runs / SETTINGS["NAME"] / "result.json").exists():
            case.train(runs, **LONGER | settings)
        scripts.run("inference.py", SM_CHANNEL_EVAL=data, SM_CHANNEL_MODEL=runs, SM_OUTPUT_DATA_DIR=out)
        scripts.run("evaluation.py", SM_GROUND_TRUTH_DIR=data, SM_OUTPUT_DATA_DIR=out, REPORT_PHOTOS="false")
    found = json.loads((out / "evaluation.json").read_text())
    by_attribute = {f"accuracy of {kind}": one["accuracy"] for kind, one in found["attributes"].items()}
    return {"macro F1": found["macro_f1"], **by_attribute}


if __name__ == "__main__":
    main()
