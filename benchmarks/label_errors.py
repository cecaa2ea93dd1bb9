"""Does suspects.py find wrong labels sooner than other tools, and what do they cost? On faces with known errors.

python benchmarks/label_errors.py [--folder label_errors] [--people 500] [--seeds 1,2,3,4,5] [--part ranking | training]
python benchmarks/label_errors.py --data FACES --net NAME=efficientnet_lite0 WEIGHTS=imagenet SIZE=128x96 EPOCHS=6

Hard synthetic faces (benchmarks/hard_faces.py) get wrong labels (benchmarks/wrong_labels.py); so do, with --data, the
faces in FACES/train, which lies on the same file system: then only the ranking is measured, with 3 % of errors and one
kind of net.

ranking: train.py trains folds on them, as suspects.py would (3 folds, 4 epochs, resnet18 from scratch at 64x48), and
for 3 % of errors also weak ones (1 epoch at 32x32), as real faces are harder. From the same out-of-fold probabilities
people are ranked by suspects.py, by cleanlab (all 18 classes or the attribute alone; a person counts as the worst
photograph or as the mean), by the formula of FiftyOne's mistakenness, and by the share of photographs whose predicted
class is not the label. Each method is scored on each kind of error, without the people who have an error of another
kind. Printed: means over the seeds (lowest-highest).

training: scores on other people with right labels, after training on right labels, on wrong ones, and on wrong ones of
which the first 5 % of suspects were reviewed by somebody who knows the truth (8 epochs at 48x36).

Measurements stay in the folder and are not repeated. cleanlab is for this benchmark only: pip install "cleanlab>=2.8"
"""

import contextlib
import io
import json
import pathlib
import shutil
import statistics
from functools import partial

import common
import hard_faces
import numpy as np
import wrong_labels
from wrong_labels import ErrorRates

import dataset
import suspects
from toolkit.config.settings import SuspectsSettings
from toolkit.data.store import Store
from toolkit.label_errors import corrections, evidence, ranking
from toolkit.scoring import metrics

ERROR_RATES = {
    "3": ErrorRates(0.03, 0.01, 0.01),
    "1": ErrorRates(0.01, 0.005, 0.005),
    "20": ErrorRates(0.12, 0.04, 0.04),
}
REVIEWED = 0.05  # share of people
EVAL_PEOPLE = 300
SETTINGS = {"NAME": "resnet18", "WEIGHTS": "none", "SIZE": "64x48", "EPOCHS": "4", "REPORT_PHOTOS": "false"}
LONGER = {"SIZE": "48x36", "EPOCHS": "8"}  # after 4 epochs, runs differ by chance as much as by wrong labels
NETS = {"quick": {}, "weak": {"SIZE": "32x32", "EPOCHS": "1"}}
ROW = "{:28}" + "{:>22}" * 3


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--folder", default="label_errors", type=pathlib.Path)
    parser.add_argument("--people", default=500, type=int)
    parser.add_argument("--seeds", default="1,2,3,4,5", type=common.numbers)
    parser.add_argument("--part", choices=("ranking", "training"))
    parser.add_argument("--data", type=pathlib.Path, help="real faces")
    parser.add_argument("--net", nargs="*", default=[], help="settings of the folds, NAME=value; only with --data")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(exist_ok=True)
    if options.data:
        NETS["given"] = dict(word.split("=", 1) for word in options.net)
        compare_rankings(folder, options.data.absolute() / "train", "3", "given", options.seeds)
        return
    hard_faces.make(folder / "faces", options.people, EVAL_PEOPLE)
    if options.part != "training":
        for rate, net in (("3", "quick"), ("1", "quick"), ("3", "weak")):
            compare_rankings(folder, folder / "faces" / "train", rate, net, options.seeds)
    if options.part != "ranking":
        compare_training(folder, "20", options.seeds)


class Case:
    """A data set with wrong labels, and what the folds that are trained on it find."""

    def __init__(self, folder: pathlib.Path, right_images: pathlib.Path, rate: str, seed: int, net: str = "quick"):
        self.folder, self.right_images, self.seed, self.net = folder / f"{rate}-{seed}", right_images, seed, net
        images = self._make_images(ERROR_RATES[rate])
        self.config = SuspectsSettings(
            sm_channel_train=images, sm_output_data_dir=self.folder, relabel="none", device="cpu"
        )
        self.wrong = {kind: set(ids) for kind, ids in json.loads((self.folder / "wrong.json").read_text()).items()}
        self.table, self.probabilities = self._predict()
        self.findings = evidence.find_label_errors(self.table, self.probabilities)

    def _make_images(self, rates: ErrorRates) -> pathlib.Path:
        if not (self.folder / "wrong.json").exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # of a benchmark that was stopped
            wrong = wrong_labels.make(self.folder / "images", self.right_images / "images", rates, self.seed)
            (self.folder / "wrong.json").write_text(json.dumps({kind: sorted(ids) for kind, ids in wrong.items()}))
        return self.folder / "images"

    def _predict(self):
        """The table of photographs, and their out-of-fold probabilities, as suspects.py takes them."""
        runs = self.folder / f"runs-{self.net}"
        if not (runs / "folds" / "result.json").exists():
            self.train(runs, FOLDS="3", RUN="folds", **NETS[self.net])
        config = self.config.model_copy(update={"sm_channel_model": runs})
        with contextlib.redirect_stdout(io.StringIO()):
            headers = suspects.read_folds(config)
            table, is_reviewed = suspects.read_people(config)
            folds = suspects.held_out_folds(table, is_reviewed, headers)
            framing = next(iter(headers.values())).framing
            store = Store(dataset.paths(table, config.sm_channel_train), framing)
            store.fill()
            return table, suspects.held_out_probabilities(config, headers, folds, store)

    def train(self, runs: pathlib.Path, **settings) -> None:
        runs.mkdir(exist_ok=True)
        where = {"SM_CHANNEL_TRAIN": self.config.sm_channel_train, "RELABEL": "none", "SEED": self.seed}
        common.run_script("train.py", **SETTINGS | where | {"SM_MODEL_DIR": runs} | settings)

    def ids(self) -> list[str]:
        """The person of each folder, in the order of the findings."""
        return list(dict.fromkeys(finding.folder.partition("_")[0] for finding in self.findings))

    def review(self) -> pathlib.Path:
        """The table of corrections of a person who knows the truth and reviews the first suspects."""
        truth, _ = dataset.read_faces(self.right_images)
        first = ranking.rank_suspects(self.table, self.findings)[: round(REVIEWED * len(self.ids()))]
        rows = [row for suspect in first if self._is_right(suspect, truth) for row in suspect.corrections]
        path = self.folder / "reviewed.csv"
        path.write_text(corrections.to_csv(rows))
        return path

    def _is_right(self, suspect, truth) -> bool:
        """Whether the suggested corrections give the true labels."""
        given = self.table[self.table["folder"] == suspect.folder].reset_index(drop=True)
        (self.folder / "one.csv").write_text(corrections.to_csv(suspect.corrections))
        corrected, _ = corrections.apply(given, str(self.folder / "one.csv"), self.folder / "images")
        true_masks, *true = _labels(truth[truth["person"] == suspect.person])
        if suspect.person in self.wrong["mask"]:  # its two photographs have each other's names
            exchanged = wrong_labels.EXCHANGED
            true_masks = true_masks | {exchanged[name]: true_masks[name] for name in exchanged}
        return _labels(corrected) == (true_masks, *true)


def _labels(table) -> tuple:
    """{photograph: mask}, gender and age band of one person's rows."""
    masks = {row.photograph: row.mask for row in table.itertuples()}
    return masks, table["gender"].iloc[0], table["age"].iloc[0]


def compare_rankings(folder: pathlib.Path, right_images: pathlib.Path, rate: str, net: str, seeds: list[int]) -> None:
    """Print how soon each method finds each kind of error, and how many errors suspects.py expects."""
    cases = [Case(folder, right_images, rate, seed, net) for seed in seeds]
    rates = ", ".join(f"{kind} {share:.1%}" for kind, share in vars(ERROR_RATES[rate]).items())
    print(f"\n{len(cases[0].ids())} people, {net} nets, wrong labels: {rates}; n = {len(cases)}")
    for kind in ("mask", "gender", "age"):
        print(ROW.format(kind, "average precision", "in the first 5 %", "people to find 90 %"))
        for name, method in METHODS.items():
            scores = [ranking_scores(method(case, kind), case, kind) for case in cases]
            print(ROW.format(name, *(mean_and_range(values) for values in zip(*scores, strict=True))), flush=True)
        counts = [
            (sum(one.probability for one in case.findings if one.kind == kind), len(case.wrong[kind])) for case in cases
        ]
        expected, injected = map(statistics.mean, zip(*counts, strict=True))
        print(f"errors that suspects.py expects: {expected:.1f}, injected: {injected:.1f}\n", flush=True)


def ranking_scores(suspicion: np.ndarray, case: Case, kind: str) -> tuple[float, float, float]:
    """Average precision, recall in the first 5 %, and how many people one looks at to find 90 % of this kind of error.

    `suspicion`: a number for each folder, in the order of case.ids(); the highest comes first, ties in random order.
    """
    from sklearn.metrics import average_precision_score

    ids = np.array(case.ids())
    others = set().union(*(some for name, some in case.wrong.items() if name != kind))
    is_scored = ~np.isin(ids, list(others))
    is_wrong, values = np.isin(ids, list(case.wrong[kind]))[is_scored], suspicion[is_scored]
    order = np.lexsort((np.random.default_rng(0).random(len(values)), -values))
    found = np.cumsum(is_wrong[order])
    enough = int(np.searchsorted(found, np.ceil(0.9 * is_wrong.sum()))) + 1
    recall = found[round(0.05 * len(values)) - 1] / is_wrong.sum()
    return average_precision_score(is_wrong, values), recall, enough


def mean_and_range(values) -> str:
    form = "{:.0f}" if min(values) > 1 else "{:.2f}"
    return "{} ({}-{})".format(*(form.format(value) for value in (statistics.mean(values), min(values), max(values))))


def ours(case: Case, kind: str) -> np.ndarray:
    of_kind = [finding for finding in case.findings if finding.kind == kind]
    return np.array([finding.probability + 1e-9 * finding.nats for finding in of_kind])


def by_photograph(score, of_attribute: bool, combine, case: Case, kind: str) -> np.ndarray:
    """The score (labels, probabilities) -> suspicion of each photograph, combined for each folder."""
    if of_attribute:
        labels, p = case.table[kind].to_numpy(), case.probabilities @ metrics.membership(kind)
    else:
        labels, p = dataset.labels(case.table), case.probabilities
    values = score(labels.astype(int), p / p.sum(1, keepdims=True))
    return combine(case.table.assign(value=values).groupby("folder", observed=True)["value"]).to_numpy()


def cleanlab(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    from cleanlab.rank import get_label_quality_scores

    return 1 - get_label_quality_scores(labels, p)


def mistakenness(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """FiftyOne's compute_mistakenness with logits: (m * exp(-H(p)) + 1) / 2; m = -1 if argmax p = label, else 1."""
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
    """Print scores on people with right labels, and the share of the loss by wrong labels that a review regains.

    share = (reviewed - wrong) / (right - wrong), of means over seeds.
    """
    rows = []
    for seed in seeds:
        case = Case(folder, folder / "faces" / "train", rate, seed)
        right, reviewed = {"SM_CHANNEL_TRAIN": case.right_images}, {"RELABEL": case.review()}
        variants = {"right": right, "wrong": {}, "reviewed": reviewed}
        rows.append([train_and_score(case, folder, name, settings) for name, settings in variants.items()])
        line = (f"{name} {scores['macro F1']:.4f}" for name, scores in zip(variants, rows[-1], strict=True))
        print(f"seed {seed}: macro F1 with labels {', '.join(line)}", flush=True)
    wrong_share = sum(vars(ERROR_RATES[rate]).values())
    print(f"\nwrong labels of {wrong_share:.0%} of people; the first {REVIEWED:.0%} of all are reviewed")
    draws = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
    for name in rows[0][0]:
        right, wrong, reviewed = np.array([[scores[name] for scores in row] for row in rows]).T
        shares = (reviewed - wrong)[draws].mean(1) / (right - wrong)[draws].mean(1)
        low, high = np.quantile(shares, (0.025, 0.975))
        means = f"right {right.mean():.4f}, wrong {wrong.mean():.4f}, reviewed {reviewed.mean():.4f}"
        share = (reviewed.mean() - wrong.mean()) / (right.mean() - wrong.mean())
        regained = f"{share:.0%} regained (95 % of bootstrap samples of seeds: {low:.0%} to {high:.0%})"
        print(f"{name:18} {means}: {regained if right.mean() > wrong.mean() else 'nothing was lost'}")


def train_and_score(case: Case, folder: pathlib.Path, name: str, settings: dict) -> dict[str, float]:
    """The scores of one run on other people, of whom there are as many of each class."""
    runs, out, data = case.folder / f"trained-{name}", case.folder / f"scored-{name}", folder / "faces" / "equal"
    if not (out / "evaluation.json").exists():
        if not (runs / SETTINGS["NAME"] / "result.json").exists():
            case.train(runs, **LONGER | settings)
        common.run_script("inference.py", SM_CHANNEL_EVAL=data, SM_CHANNEL_MODEL=runs, SM_OUTPUT_DATA_DIR=out)
        common.run_script("evaluation.py", SM_GROUND_TRUTH_DIR=data, SM_OUTPUT_DATA_DIR=out, REPORT_PHOTOS="false")
    scores = json.loads((out / "evaluation.json").read_text())
    of_attributes = {f"accuracy of {kind}": one["accuracy"] for kind, one in scores["attributes"].items()}
    return {"macro F1": scores["macro_f1"], **of_attributes}


if __name__ == "__main__":
    main()
