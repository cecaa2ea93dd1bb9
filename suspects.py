"""Find the people whose labels are most probably wrong, and let a person decide on them.

SM_CHANNEL_TRAIN=<image folder> SM_OUTPUT_DATA_DIR=<folder> SM_CHANNEL_MODEL=<folder of runs> python suspects.py

It takes a run of folds (FOLDS=5 python train.py): each person is judged by the net that never saw them. Without
SM_CHANNEL_MODEL it first trains folds, quickly. suspects.html shows the most probable errors first, down to 1 %, and
saves decisions as corrections.csv; with SERVE=true the page is served, and each decision is written to disk at once.
RELABEL=sure,corrections.csv applies the decisions, here and in train.py; here, those people are not shown again.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

import dataset
import model
from toolkit.config import settings, sources
from toolkit.demo import synthetic
from toolkit.labels import ATTRIBUTES, CLASSES, to_attributes
from toolkit.runs import folders, lookup
from toolkit.runs.weights import WEIGHTS, Header, read_header
from toolkit.system import console, csv_files, distributed, files, ports, subprocesses
from toolkit.system.console import InputError, listed, say

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.data.store import Store
    from toolkit.label_errors.evidence import Finding
    from toolkit.label_errors.ranking import Suspect

PAGE, TABLE, DECISIONS = "suspects.html", "suspects.csv", "corrections.csv"
EXPECTED_AMONG = (25, 50, 100, 200, 400)  # numbers of suspects for which the expected errors are printed


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.SuspectsSettings, argv)
    if distributed.is_idle_host():
        return
    refuse_unknown_name(config)
    files.make_folders(config, "sm_output_data_dir", "cache_dir")
    synthetic.ensure_for(config)
    table, is_reviewed = read_people(config)
    if is_reviewed.all():
        say("the tables of RELABEL name everybody, so nobody is left to review: nothing is written")
        return
    earlier = earlier_rows(config)  # before the folds are trained, which may take hours
    if config.serve:
        refuse_unservable(config)
    headers = read_folds(config) if config.sm_channel_model else train_folds(config)
    folds = held_out_folds(table, is_reviewed, headers)
    table, findings, agreement = collect_findings(config, headers, table, folds)
    suspects = list_suspects(config, table, findings)
    say(*expected_errors_table(suspects), agreement)
    write_table(config, suspects, findings)
    from toolkit.label_errors import ranking

    show = serve_page if config.serve else write_page
    facts = f"{facts_of(suspects, dataset.image_folder(config.sm_channel_train))} {agreement}"
    show(config, ranking.worth_looking(suspects), facts, earlier)


def refuse_unknown_name(config: settings.SuspectsSettings) -> None:
    """Raises InputError if folds must be trained (SM_CHANNEL_MODEL is unset) and NAME is no backbone."""
    name = config.training()["name"]
    if not config.sm_channel_model and name not in model.names(name):
        raise InputError(
            f"NAME={config.name}: expected a backbone to train, as SM_CHANNEL_MODEL is unset; found no such name; set "
            f"NAME to a backbone, or SM_CHANNEL_MODEL to a folder of runs"
        )


def refuse_unservable(config: settings.SuspectsSettings) -> None:
    """Raises InputError if the page could not be served: SERVE_PORT is in use, or its corrections.csv is damaged."""
    from toolkit.label_errors import decisions

    ports.bound("127.0.0.1", config.serve_port).close()
    decisions.read_rows(config.sm_output_data_dir / DECISIONS)


def read_people(config: settings.SuspectsSettings) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of photographs with the labels of their folders, and is_reviewed: bool, shape (n,).

    A person is reviewed if a row of RELABEL names them. The table lacks the photographs of people that corrections
    leave out. Prints how many people are left.
    """
    from toolkit.label_errors import corrections, evidence

    as_found, passed_over = dataset.read_table(config.sm_channel_train)
    images = dataset.image_folder(config.sm_channel_train)
    dataset.report_passed_over(images, passed_over)
    corrected, report = corrections.apply(as_found, config.relabel, images)
    table = evidence.with_correction_names(as_found)
    table = table[table["folder"].isin(corrected["folder"].unique())].reset_index(drop=True)
    is_reviewed = corrections.is_named(table, config.relabel).to_numpy()
    left = table["folder"][~is_reviewed].nunique()
    named = as_found["folder"].nunique() - left
    say(*str(report).split("\n"), f"{left} people to look at, without {named} whom a table of RELABEL names")
    return table, is_reviewed


def read_folds(config: settings.SuspectsSettings) -> dict[pathlib.Path, Header]:
    """{folder of a fold: header of its weights} of the run of folds that NAME selects. Raises InputError on others."""
    found = lookup.find_runs(config.sm_channel_model, config.name, WEIGHTS, read_header)
    headers = {run: header for run, header in found.items() if run.name != folders.FINAL or len(found) == 1}
    if len(headers) < len(found):
        say(f"note: {folders.FINAL} is not used: it was trained on everybody")
    if len({folder.parent for folder in headers}) > 1 or not all(map(fold_of, headers)):
        raise InputError(
            f"SM_CHANNEL_MODEL={config.sm_channel_model}: expected one run of folds, whose nets each never saw some of "
            f"the people; found {listed(folder.name for folder in headers)}; NAME takes another run; "
            f"FOLDS=5 python train.py makes one; with SM_CHANNEL_MODEL unset they are trained here"
        )
    return headers


def fold_of(run: pathlib.Path) -> str:
    """The number of a run's fold, as in out_of_fold.csv; "" for a run that is no fold."""
    return run.name.removeprefix("fold-") if run.name.startswith("fold-") else ""


def train_folds(config: settings.SuspectsSettings) -> dict[pathlib.Path, Header]:
    """Train folds on the corrected labels, or find finished folds with the same settings, files and code.

    Returns the same as `read_folds`. Raises InputError if train.py fails.
    """
    runs = files.make_folder(config.sm_output_data_dir / "folds", "SM_OUTPUT_DATA_DIR")
    shared = ("sm_channel_train", "relabel", "max_megapixels", "on_bad_image")
    shared += ("device", "precision", "cache_gib", "cache_dir")
    training = config.training() | {name: getattr(config, name) for name in shared}
    words = sources.as_flags(training | {"sm_model_dir": runs, "report_photos": False})
    ended = subprocesses.run("train.py", words, sources.without_settings(os.environ))
    if ended.status:
        raise InputError(f"folds could not be trained: train.py ended with {ended.status}; its messages stand above")
    return lookup.find_runs(runs, pathlib.Path(ended.outcome["folder"]).name, WEIGHTS, read_header)


def held_out_folds(table: pd.DataFrame, is_reviewed: np.ndarray, headers: dict[pathlib.Path, Header]) -> np.ndarray:
    """The fold that held out the person of each photograph: text, shape (n,); "" for people who are not judged.

    These are reviewed, or in no fold. Raises InputError if the run is not finished, lacks folds or has other people.
    """
    from toolkit.runs.cross_validation import OUT_OF_FOLD

    run = next(iter(headers)).parent
    if not (run / folders.RESULT).exists():
        raise InputError(
            f"{run}: expected a finished run of folds, found no {folders.RESULT}; train.py goes on with it"
        )
    out_of_fold = csv_files.read(run / OUT_OF_FOLD, ("person", "fold"), "SM_CHANNEL_MODEL")
    fold = {}
    for person, number in zip(out_of_fold["person"], out_of_fold["fold"], strict=True):
        if fold.setdefault(person, number) != number:
            raise InputError(f"{run / OUT_OF_FOLD}: expected each person in one fold, found {person} in several")
    if missing := set(fold.values()) - set(map(fold_of, headers)):
        raise InputError(
            f"{run}: expected the nets of all folds, found none of fold {listed(sorted(missing))}; set NAME to the run"
        )
    has_fold = table["person"].isin(fold).to_numpy()
    if not (has_fold & ~is_reviewed).any():
        raise InputError(
            f"expected people of the folds in {run}, found none of them among those to look at; is SM_CHANNEL_TRAIN "
            f"the data set that they were trained on?"
        )
    if others := list(table["person"][~has_fold & ~is_reviewed].unique()):
        say(f"note: {len(others)} people are in no fold, and not looked at: {listed(others)}")
    return np.where(has_fold & ~is_reviewed, table["person"].map(fold).astype(str), "").astype(str)


def collect_findings(
    config: settings.SuspectsSettings, headers: dict[pathlib.Path, Header], table: pd.DataFrame, folds: np.ndarray
) -> tuple[pd.DataFrame, list[Finding], str]:
    """The table without photographs that ON_BAD_IMAGE leaves out, the findings, and how good the nets are.

    The findings are the evidence against the labels of all judged people, from the nets and from the photographs.
    """
    from toolkit.data.disk_cache import open_store
    from toolkit.data.photo_file import Reading
    from toolkit.label_errors import duplicates, evidence

    framing = next(iter(headers.values())).framing  # the same for all folds of a run
    paths = dataset.paths(table, config.sm_channel_train)
    with open_store(paths, framing, config.cache_gib, config.cache_dir, Reading.of(config)) as store:
        bad = dataset.find_bad(table, store, config.sm_channel_train, config.on_bad_image)
        if bad.left_out:
            folds = np.delete(folds, list(bad.left_out))
            table, store = dataset.without_rows(table, store, list(bad.left_out))
        say(str(store))
        is_judged = folds != ""
        probabilities = held_out_probabilities(config, headers, folds, store)
        judged = table[is_judged].reset_index(drop=True)
        label_errors = evidence.find_label_errors(judged, probabilities[is_judged])
        # The original of a duplicate may be a person who was reviewed before: so the whole table is compared.
        copies, to_judge = duplicates.find_duplicates(table, store), set(judged["folder"])
        label_errors += [finding for finding in copies if finding.folder in to_judge]
        return table, label_errors, agreement_with_labels(judged, probabilities[is_judged])


def agreement_with_labels(judged: pd.DataFrame, probabilities: np.ndarray) -> str:
    """How often the nets agree with the labels of people whom they have not seen, in a sentence."""
    of_attributes = to_attributes(probabilities.argmax(1))
    agree = {name: (of_attributes[name] == judged[name]).mean() for name in ATTRIBUTES}
    shares = ", ".join(f"{name} {share:.0%}" for name, share in agree.items())
    return f"The nets agree with the labels of people they have not seen on {shares}; weak nets overestimate errors."


def held_out_probabilities(
    config: settings.SuspectsSettings, headers: dict[pathlib.Path, Header], folds: np.ndarray, store: Store
) -> np.ndarray:
    """Probabilities of each photograph by the net of the fold that held its person out: float64, shape (n, 18).

    Means over the photograph and its mirror image; NaN where the fold is "".
    """
    from toolkit.data.loader import Loader
    from toolkit.models import placement
    from toolkit.models.predict import Mirrored, predict
    from toolkit.system import device

    machine = device.choose(config.device, config.precision)
    say(f"running on {machine}")
    probabilities = np.full((len(folds), CLASSES), np.nan)
    for run, header in headers.items():
        rows = np.flatnonzero(folds == fold_of(run))
        loader = Loader(store, machine, header.mean, header.std)
        fold_model = placement.to_device(model.load(run / WEIGHTS)[0], machine)
        sides = [predict(side, loader, rows)[:, :CLASSES].numpy() for side in (fold_model, Mirrored(fold_model))]
        probabilities[rows] = np.mean([header.decision.probabilities(logits) for logits in sides], 0)
    if not np.isfinite(probabilities[folds != ""]).all():
        raise InputError(f"{run.parent}: expected finite numbers of its nets, found others; train them again")
    return probabilities


def list_suspects(config: settings.SuspectsSettings, table: pd.DataFrame, findings: list[Finding]) -> list[Suspect]:
    """Suspects, the most probable error first. Corrections of single photographs get the sha256 of their files."""
    from toolkit.label_errors.ranking import rank_suspects

    suspects, images = rank_suspects(table, findings), dataset.image_folder(config.sm_channel_train)
    for row in (row for suspect in suspects for row in suspect.corrections):
        if file := row.pop("file", None):
            row["sha256"] = files.sha256(images / file)[:16]
    return suspects


def expected_errors_table(suspects: list[Suspect]) -> list[str]:
    """Lines with the expected errors among the first suspects: they tell a person where to stop."""
    from toolkit.label_errors.ranking import expected_errors

    counts = [n for n in EXPECTED_AMONG if n < len(suspects)] + [len(suspects)]
    lines = [f"{'people':>10} {'errors among them, expected':>28}"]
    return [*lines, *(f"first {n:4} {expected_errors(suspects, n):28.1f}" for n in counts)]


def write_table(config: settings.SuspectsSettings, suspects: list[Suspect], findings: list[Finding]) -> None:
    """suspects.csv: a row for each folder, the most probable error first, with the evidence of each kind."""
    from toolkit.label_errors.evidence import KINDS

    by_kind = {(finding.folder, finding.kind): finding for finding in findings}
    table = {name: [getattr(suspect, name) for suspect in suspects] for name in ("folder", "label", "suggestion")}
    table["probability"] = [round(suspect.probability, 6) for suspect in suspects]
    for kind in KINDS:
        of_kind = [by_kind[suspect.folder, kind] for suspect in suspects if (suspect.folder, kind) in by_kind]
        if not of_kind:
            say(f"note: {kind} differs between photographs of a person, and is not judged")
            continue
        table[f"{kind}_nats"] = [round(finding.nats, 3) for finding in of_kind]
        table[f"{kind}_probability"] = [round(finding.probability, 6) for finding in of_kind]
    csv_files.write(config.sm_output_data_dir / TABLE, table)


def write_page(config: settings.SuspectsSettings, suspects: list[Suspect], facts: str, earlier: list[dict]) -> None:
    """suspects.html, with these facts in its first line, and the rows of earlier decisions."""
    from toolkit.pages import suspects as suspects_page

    images, path = dataset.image_folder(config.sm_channel_train), config.sm_output_data_dir / PAGE
    # The browser keeps decisions under this key: a page that is made again for the same images finds them.
    key = f"suspects of {images.resolve()}"
    suspects_page.write(path, suspects, images, facts, earlier, key)
    say(f"written: {path.absolute()}")


def serve_page(config: settings.SuspectsSettings, suspects: list[Suspect], facts: str, earlier: list[dict]) -> None:
    """Serve the page until Ctrl-C; each decision is written to corrections.csv."""
    from toolkit.label_errors import review_server
    from toolkit.pages import suspects as suspects_page

    images, path = dataset.image_folder(config.sm_channel_train), (config.sm_output_data_dir / DECISIONS).absolute()
    page = suspects_page.render_served(path, suspects, images, facts)
    photographs = suspects_page.photographs(suspects, images)
    review_server.serve(path, suspects, earlier, page, photographs, config.serve_port)


def facts_of(suspects: list[Suspect], images: pathlib.Path) -> str:
    """The first line of the page: how many people and expected errors there are, and how many of them it leaves out."""
    from toolkit.label_errors import ranking

    count, shown = len(suspects), len(ranking.worth_looking(suspects))
    first = f"{count:,} people in {images}; expected wrong labels: {ranking.expected_errors(suspects, count):.1f}."
    if shown == count:
        return first
    rest = ranking.expected_errors(suspects[shown:], count)
    return f"{first} {count - shown:,} people have less than 1 % each, {rest:.1f} errors together: see {TABLE}."


def earlier_rows(config: settings.SuspectsSettings) -> list[dict[str, str]]:
    """The rows of RELABEL's tables except outliers.csv: corrections.csv repeats them, so that it holds all rounds."""
    from toolkit.label_errors import corrections, decisions

    _, paths = corrections.read_corrections(config.relabel)
    return [row for path in paths if path != corrections.OUTLIERS for row in decisions.read_rows(path)]


if __name__ == "__main__":
    console.run(main)
