"""Find the people whose labels are most likely wrong, and let a person decide on them.

SM_CHANNEL_TRAIN=<image folder> SM_OUTPUT_DATA_DIR=<folder> SM_CHANNEL_MODEL=<folder of runs> python suspects.py

asks the nets of a run of folds (FOLDS=5 python train.py), each about the people that it never saw; without
SM_CHANNEL_MODEL it trains folds first, quickly. suspects.html shows everybody, the most suspect first, and saves
decisions as corrections.csv; SERVE=true serves that page, and writes each decision to disk at once. What was decided
is read by RELABEL=sure,corrections.csv, here and in train.py, and those people do not come back.
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import TYPE_CHECKING

import numpy as np

import dataset
import model
from toolkit.config import settings, sources
from toolkit.labels import CLASSES
from toolkit.runs import checkpoint, folders
from toolkit.system import console, files, subprocesses
from toolkit.system.console import InputError, listed, say

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.label_errors.evidence import Finding
    from toolkit.label_errors.ranking import Suspect

PAGE, TABLE, DECISIONS = "suspects.html", "suspects.csv", "corrections.csv"
FIRST = (25, 50, 100, 200, 400)  # of how many suspects the expected errors are said


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.SuspectsSettings, argv)
    if not config.sm_channel_model and config.training()["name"] not in model.names():
        raise InputError(f"NAME={config.name}: expected a backbone, as SM_CHANNEL_MODEL is unset; found no such")
    for name in ("sm_output_data_dir", "cache_dir"):
        if folder := getattr(config, name):
            files.make_folder(folder, name.upper())
    sources.ensure_drawn_faces(config)
    faces, decided, corrected = read_faces(config)
    if decided.all():
        say("everybody was decided on before: nothing is written")
        return
    headers = find_folds(config) if config.sm_channel_model else train_folds(config, corrected)
    found = find(config, headers, faces, of_folds(faces, decided, headers))
    suspects = rank(config, faces, found)
    say(expectation(suspects))
    write_table(config, suspects, found)
    show(config, suspects)


def read_faces(config: settings.SuspectsSettings) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """The faces as their folders label them, which of them were decided on before, and the table of all, corrected.

    Those that are left out are not among them. Decisions are bool, shape (n,). Prints how many people are left.
    """
    from toolkit.label_errors import corrections, evidence

    as_found, _ = dataset.read_faces(config.sm_channel_train)
    images = dataset.image_folder(config.sm_channel_train)
    corrected, report = corrections.apply(as_found, config.relabel, images)
    faces = evidence.with_names(as_found)
    faces = faces[faces["folder"].isin(corrected["folder"].unique())].reset_index(drop=True)
    known = corrections.decided(config.relabel)
    decided = (faces["person"].isin(known) | faces["folder"].isin(known)).to_numpy()
    left = faces["folder"][~decided].nunique()
    say(f"{report}\n{left} people to look at, {as_found['folder'].nunique() - left} were decided on before")
    return faces, decided, corrected


def find_folds(config: settings.SuspectsSettings) -> dict[pathlib.Path, dict]:
    """The folder of each fold of the run that NAME means, and the header of its net."""
    headers = folders.named(config.sm_channel_model, config.name, folders.WEIGHTS, checkpoint.read_header)
    if len({folder.parent for folder in headers}) > 1 or not all(map(fold_of, headers)):
        raise InputError(
            f"SM_CHANNEL_MODEL={config.sm_channel_model}: expected one run of folds, whose nets each never saw some of "
            f"the people; found {listed(folder.name for folder in headers)}; NAME takes another run; "
            f"FOLDS=5 python train.py makes one; with SM_CHANNEL_MODEL unset they are trained here"
        )
    return headers


def fold_of(run: pathlib.Path) -> str:
    """The number of a run's fold, as its folder and out_of_fold.csv say it; "" if it is of none."""
    return run.name.removeprefix("fold-") if run.name.startswith("fold-") else ""


def train_folds(config: settings.SuspectsSettings, faces: pd.DataFrame) -> dict[pathlib.Path, dict]:
    """The same of folds that are trained on these faces; those of before, where labels and settings are the same."""
    given = config.training()
    digest = hashlib.sha256(repr(sorted(given.items())).encode())
    for array in (dataset.paths(faces), dataset.labels(faces)):
        digest.update(array.tobytes())
    place = files.make_folder(config.sm_output_data_dir / f"folds-{digest.hexdigest()[:12]}", "SM_OUTPUT_DATA_DIR")
    if not (place / given["name"] / folders.RESULT).exists():
        say(f"training {config.folds} folds for {config.epochs} epochs")
        own = ("sm_channel_train", "relabel", "device", "precision", "cache_gib", "cache_dir")
        given |= {name: getattr(config, name) for name in own}
        if status := subprocesses.run("train.py", given | {"sm_model_dir": place, "report_photos": False}):
            raise InputError(f"folds could not be trained: train.py ended with {status}; what it said stands above")
    return folders.named(place, given["name"], folders.WEIGHTS, checkpoint.read_header)


def of_folds(faces: pd.DataFrame, decided: np.ndarray, headers: dict[pathlib.Path, dict]) -> np.ndarray:
    """The fold whose net never saw the person, of each photograph: texts, shape (n,), "" of whom no net is asked."""
    from toolkit.runs.cross_validation import OUT_OF_FOLD

    run = next(iter(headers)).parent
    if not (run / folders.RESULT).exists():
        raise InputError(
            f"{run}: expected a finished run of folds, found no {folders.RESULT}; train.py goes on with it"
        )
    seen = files.read_csv(run / OUT_OF_FOLD, ("person", "fold"), "SM_CHANNEL_MODEL")
    fold = {}
    for person, number in zip(seen["person"], seen["fold"], strict=True):
        if fold.setdefault(person, number) != number:
            raise InputError(f"{run / OUT_OF_FOLD}: expected nobody in two folds, found {person} in several")
    if missing := set(fold.values()) - set(map(fold_of, headers)):
        raise InputError(
            f"{run}: expected the nets of all folds, found none of {listed(sorted(missing))}; name the run"
        )
    known = faces["person"].isin(fold).to_numpy()
    if not (known & ~decided).any():
        raise InputError(
            f"expected people of the folds in {run}, found none of them among those to look at; is SM_CHANNEL_TRAIN "
            f"the data set that they were trained on?"
        )
    if others := list(faces["person"][~known & ~decided].unique()):
        say(f"note: {len(others)} people are in no fold, and not looked at: {listed(others)}")
    return np.where(known & ~decided, faces["person"].map(fold).astype(str), "").astype(str)


def find(config: settings.SuspectsSettings, headers: dict, faces: pd.DataFrame, folds: np.ndarray) -> list[Finding]:
    """All that the nets and the photographs say against the labels of people of these folds."""
    from toolkit.data.disk_cache import open_store
    from toolkit.label_errors import evidence

    size = tuple(next(iter(headers.values()))["size"])
    paths, asked = dataset.paths(faces, config.sm_channel_train), folds != ""
    with open_store(paths, size, config.cache_gib, config.cache_dir) as store:
        dataset.refuse_bad_photographs(faces, config.sm_channel_train, store.wait())
        say(str(store))
        left = faces[asked].reset_index(drop=True)
        found = evidence.find(left, ask(config, headers, folds, store)[asked])
        copies = evidence.find_twins(faces, store)  # of those who were decided on, too
        return found + [one for one in copies if one.folder in set(left["folder"])]


def ask(config: settings.SuspectsSettings, headers: dict, folds: np.ndarray, store) -> np.ndarray:
    """The probabilities by the nets, each of the people whom it never saw: float64, shape (n, 18), NaN of the others.

    They are means over each photograph and its mirror image.
    """
    from toolkit.scoring.decision import Decision
    from toolkit.system import device
    from toolkit.training import step

    machine = device.choose(config.device, config.precision)
    say(f"running on {machine}")
    p = np.full((len(folds), CLASSES), np.nan)
    for run, header in headers.items():
        rows = np.flatnonzero(folds == fold_of(run))
        shown = step.Faces(store, machine, header["mean"], header["std"])
        net, decision = machine.place(model.load(run / folders.WEIGHTS)[0]), Decision.of_header(header["decision"])
        sides = [step.predict(each, shown, rows)[:, :CLASSES].numpy() for each in (net, step.Mirrored(net))]
        p[rows] = np.mean([decision.probabilities(logits) for logits in sides], 0)
    if not np.isfinite(p[folds != ""]).all():
        raise InputError(f"{run.parent}: expected finite numbers of its nets, found others; train them anew")
    return p


def rank(config: settings.SuspectsSettings, faces: pd.DataFrame, found: list[Finding]) -> list[Suspect]:
    """Everybody, the most suspect first. Corrections of single photographs get the checksums of their files."""
    from toolkit.label_errors import ranking

    suspects, images = ranking.rank(faces, found), dataset.image_folder(config.sm_channel_train)
    for row in (row for suspect in suspects for row in suspect.corrections):
        if file := row.pop("file", None):
            row["sha256"] = files.sha256(images / file)[:16]
    return suspects


def expectation(suspects: list[Suspect]) -> str:
    """How many errors there are, and among the first so many people: so that one knows where to stop."""
    from toolkit.label_errors.ranking import expected_errors

    counts = [n for n in FIRST if n < len(suspects)] + [len(suspects)]
    lines = [f"{'people':>10} {'errors among them, expected':>28}"]
    return "\n".join([*lines, *(f"first {n:4} {expected_errors(suspects, n):28.1f}" for n in counts)])


def write_table(config: settings.SuspectsSettings, suspects: list[Suspect], found: list[Finding]) -> None:
    """suspects.csv: a row for each folder, the most suspect first, with what was found of each kind."""
    from toolkit.label_errors.evidence import KINDS

    by_kind = {(finding.folder, finding.kind): finding for finding in found}
    table = {name: [getattr(suspect, name) for suspect in suspects] for name in ("folder", "says", "suggests")}
    table["probability"] = [round(suspect.probability, 6) for suspect in suspects]
    for kind in KINDS:
        of_kind = [by_kind[suspect.folder, kind] for suspect in suspects]
        table[f"{kind}_nats"] = [round(finding.nats, 3) for finding in of_kind]
        table[f"{kind}_probability"] = [round(finding.probability, 6) for finding in of_kind]
    files.write_csv(config.sm_output_data_dir / TABLE, table)


def show(config: settings.SuspectsSettings, suspects: list[Suspect]) -> None:
    """suspects.html, or that page served until Ctrl-C."""
    from toolkit.label_errors import corrections, decisions
    from toolkit.label_errors.ranking import expected_errors
    from toolkit.pages import suspects as page

    images = dataset.image_folder(config.sm_channel_train)
    facts = (
        f"{len(suspects):,} people in {images}; expected wrong labels: {expected_errors(suspects, len(suspects)):.1f}."
    )
    kept = [
        row for path in corrections.read(config.relabel)[1] if path != corrections.TABLE for row in decisions.read(path)
    ]
    if config.serve:
        path = (config.sm_output_data_dir / DECISIONS).absolute()
        shown, photographs = page.served(path, suspects, facts), page.photographs(suspects, images)
        decisions.serve(path, suspects, kept, shown, photographs, config.serve_port)
    else:
        path = config.sm_output_data_dir / PAGE
        page.write(path, suspects, images, facts, kept, key=f"suspects of {images.resolve()}")
        say(f"written: {path.absolute()}")


if __name__ == "__main__":
    console.run(main)
