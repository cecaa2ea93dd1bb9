"""Compare backbones: train, infer and evaluate each with the same settings. Writes leaderboard.csv, leaderboard.md and
leaderboard.html, a page that compares them.

SM_CHANNEL_TRAIN=<image folder> SM_MODEL_DIR=<folder for runs> SM_CHANNEL_EVAL=<folder> SM_GROUND_TRUTH_DIR=<folder> \\
SM_OUTPUT_DATA_DIR=<folder> NAMES=resnet18,vgg16 epochs=1 python leaderboard.py

The same command goes on where it was stopped. If only the code or data of prediction and scoring changed, it does not
train again.
A backbone that fails does not stop the others. With other settings the table gets more rows, and a column for each
setting that differs; rows of other photographs or code are left out.
"""

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import json
import os
import pathlib

from pydantic import BaseModel, Field

import dataset
import loss
import model
from toolkit.config import defaults, presets, settings, sources
from toolkit.config.types import as_folder, as_text, is_path, the_word, weights_file
from toolkit.demo import synthetic
from toolkit.labels import ATTRIBUTES
from toolkit.runs import folders, run_table
from toolkit.runs.fingerprint import Fingerprint, digest_files, digests, make_fingerprint, matching
from toolkit.system import console, csv_files, distributed, files, subprocesses
from toolkit.system.console import InputError, listed, say

# The columns of the contest's baseline table, and more.
COLUMNS = (
    "model", "epoch", "batch size", "val_acc", "board_f1", "board_acc",
    "val_f1", "board_f1_interval", *ATTRIBUTES, "parameters", "photographs_per_second", "seconds", "note",
)  # fmt: skip
SCORES = ("val_acc", "board_f1", "board_acc", "val_f1")  # columns that are averaged over seeds
OTHER_NAMES = {"name": "model", "epochs": "epoch", "batch_size": "batch size"}  # {setting: its name in COLUMNS}
RUNS = "leaderboard"  # folder in SM_MODEL_DIR; inference.py with NAME unset takes no run from it
PROGRESS = "progress.json"  # one per backbone: its fingerprint, and its run and row once they are made
# The code that decides the scores of a trained run. settings.py has the defaults of inference.py.
SCORING = (
    "inference.py", "evaluation.py", "toolkit/config/settings.py", "toolkit/config/shared.py", "toolkit/scoring/*.py",
    "toolkit/serving/ensemble.py", "toolkit/serving/runtimes.py",
)  # fmt: skip


class Scored(Fingerprint):
    """The fingerprint of a row: that of its training, and that of its scoring."""

    scoring: dict = Field({})


class Row(BaseModel, extra="allow"):
    """A row of the table, with the keys COLUMNS."""

    model: str
    note: str


class Progress(BaseModel):
    """The content of PROGRESS."""

    fingerprint: Scored
    run: str = ""
    row: Row | None = None
    log: str = ""


class FailedError(Exception):
    """A script failed. Arguments: the last line that it printed, and the path of its log."""


def main(argv: list[str]) -> None:
    config, origin = sources.read(settings.LeaderboardSettings, argv, {"loss": loss.LOSSES})
    if distributed.is_idle_host():
        return
    names = backbones(config)
    resolved, _ = defaults.resolve(config, origin, loss.takes_weight(config.loss))
    loss.refuse_soft_targets(resolved)
    loss.refuse_class_weights(resolved)
    files.make_folders(config, "sm_model_dir", "sm_output_data_dir")
    synthetic.ensure_for(config)
    refuse_wrong_inputs(config)
    fingerprint = fingerprint_of(config)
    failed = {}
    for number, name in enumerate(names, 1):
        say(f"{name} ({number} of {len(names)})")
        progress = make_row(config, origin, fingerprint, name)
        if progress["row"]["note"]:
            failed[name] = progress["log"]
        rows, seeds = write(config, fingerprint)
    for table in (rows, seeds):
        if table:
            say(*run_table.as_markdown(table), "")
    made = [path.parent for path in config.sm_output_data_dir.glob(f"*/{PROGRESS}")]
    if left_out := sum("row" in read_progress(folder) for folder in made) - len(rows):
        say(f"note: {left_out} rows were made with other code, photographs or labels, and are left out")
    if failed:
        raise InputError(f"{', '.join(failed)} failed: see {', '.join(failed.values())}")


def backbones(config: settings.LeaderboardSettings) -> list[str]:
    """The backbones in NAMES; all if unset. Raises InputError on unknown names, and on WEIGHTS that fit only one."""
    named = [name.strip() for name in config.names.split(",")] if config.names else list(model.BACKBONES)
    names = [the_word(name, model.names(name)) for name in named]
    if unknown := [name for name in names if name not in model.names(name)]:
        raise InputError(f"NAMES={','.join(names)}: expected names of backbones, found {', '.join(unknown)}")
    if is_path(config.weights) and len(names) > 1:
        raise InputError(
            f"WEIGHTS={config.weights}: expected imagenet or none, as one file fits one backbone; set NAMES"
        )
    return names


def refuse_wrong_inputs(config: settings.LeaderboardSettings) -> None:
    """Raises InputError if a table, folder or photograph is wrong or missing: scripts would notice after hours."""
    from toolkit.data import photo_file
    from toolkit.scoring import pseudo_labels, submission

    dataset.read_corrected(config.sm_channel_train, config.relabel)
    if folder := config.sm_channel_pseudo:
        probabilities = config.pseudo_probabilities or folder / pseudo_labels.TABLE
        pseudo_labels.read(dataset.image_folder(folder), probabilities, config.pseudo_from)
    truth = submission.read(config.sm_ground_truth_dir / "gt.csv", "SM_GROUND_TRUTH_DIR")
    info, paths = dataset.read_eval(config.sm_channel_eval)
    submission.answers_to(truth, dict.fromkeys(info["ImageID"], 0), "info.csv")
    # Only headers are read here; inference.py checks whether all pixels are there.
    reasons = [photo_file.why_unreadable(path, config.max_megapixels) for path in paths]
    if bad := [f"{name} ({reason})" for name, reason in zip(info["ImageID"], reasons, strict=True) if reason]:
        raise InputError(
            f"SM_CHANNEL_EVAL={config.sm_channel_eval}: {len(bad)} of {len(paths)} photographs cannot be read; mend "
            f"them: {listed(bad, most=len(bad))}"
        )


def fingerprint_of(config: settings.LeaderboardSettings) -> dict:
    """The fingerprint of the rows that this call makes: that of training and, under "scoring", that of scoring."""
    from toolkit.label_errors import corrections  # and with it pandas

    training = {key: value for key, value in config.deciding().items() if key in settings.TrainSettings.model_fields}
    weights = files.sha256(weights_file(config.weights)) if is_path(config.weights) else ""
    _, tables = corrections.read_corrections(config.relabel)
    images = [dataset.image_folder(config.sm_channel_train), config.sm_channel_pseudo]
    trained_on = digest_files(filter(None, images), filter(None, [*tables, config.pseudo_probabilities]))
    tables = [config.sm_channel_eval / "info.csv", config.sm_ground_truth_dir / "gt.csv"]
    scoring = {"data": digest_files([config.sm_channel_eval / "images"], tables), "code": digests(matching(SCORING))}
    return make_fingerprint(training, trained_on, weights) | {"scoring": scoring}


def training_part(fingerprint: dict) -> dict:
    """The part of a fingerprint that training depends on: all but "scoring"."""
    return {key: value for key, value in fingerprint.items() if key != "scoring"}


def make_row(config: settings.LeaderboardSettings, origin: dict, fingerprint: dict, name: str) -> dict:
    """Train, infer and evaluate a backbone, as far as that is not done. Returns the content of its progress.json.

    If a script failed, the row has a note, and `log` is the path of its log.
    """
    folder = folder_of(config, fingerprint, name)
    progress = read_progress(folder)
    if training_part(progress.get("fingerprint", {})) != training_part(fingerprint):
        progress = {}
    elif progress["fingerprint"] != fingerprint:
        progress.pop("row", None)
    progress["fingerprint"] = fingerprint
    if "row" in progress and not progress["row"]["note"]:
        say(f"  done before: macro F1 {progress['row']['board_f1']}")
        return progress
    files.write_json(folder / PROGRESS, progress)  # from now on the folder is taken, by these settings
    try:
        if "run" not in progress or not pathlib.Path(progress["run"], folders.RESULT).exists():
            progress |= train(config, origin, name, folder)
            files.write_json(folder / PROGRESS, progress)
        score(config, origin, folder, progress["run"])
        progress["row"] = read_row(config, name, folder, progress)
        say(f"  macro F1 {progress['row']['board_f1']}, accuracy {progress['row']['board_acc']} %")
    except FailedError as error:
        message, log = error.args
        say(f"  failed: {message}")
        progress |= {"row": {**dict.fromkeys(COLUMNS, ""), "model": name, "note": message}, "log": str(log)}
    files.write_json(folder / PROGRESS, progress)
    return progress


def folder_of(config: settings.LeaderboardSettings, fingerprint: dict, name: str) -> pathlib.Path:
    """The folder of a backbone with these settings: its name or, if other settings use that, name-2 and so on."""
    free = None
    for folder in map(config.sm_output_data_dir.joinpath, folders.numbered(as_folder(name))):
        before = training_part(read_progress(folder).get("fingerprint", {}))
        if before == training_part(fingerprint):
            return folder
        if free is None and not are_same(before, fingerprint, "photographs", "code"):
            free = folder
        if not folder.exists():
            return files.make_folder(free, "SM_OUTPUT_DATA_DIR")


def are_same(one: dict, other: dict, *keys: str) -> bool:
    """Whether two fingerprints have the same under these keys."""
    return all(one.get(key) == other[key] for key in keys)


def read_progress(folder: pathlib.Path) -> dict:
    """The content of a backbone's progress.json; {} if the file is missing, damaged or foreign."""
    try:
        progress = files.read_json(folder / PROGRESS, Progress)
    except (OSError, InputError):
        return {}
    if not set(COLUMNS) <= (progress.get("row") or {}).keys():
        progress.pop("row", None)  # of another version
    return progress


def train(config: settings.LeaderboardSettings, origin: dict, name: str, folder: pathlib.Path) -> dict:
    """Train one backbone. Returns {"run": its folder}. Raises FailedError."""
    own = settings.TrainSettings.model_fields.keys() - {"name"}
    # Values of a preset are not passed on: train.py reads the preset itself.
    own = [key for key in own if origin[key] != "default" and not presets.is_preset(origin[key])]
    given = {key: getattr(config, key) for key in own}
    given |= {"name": name, "sm_channel_train": config.sm_channel_train, "sm_model_dir": config.sm_model_dir / RUNS}
    if config.sm_checkpoint_dir:
        given["sm_checkpoint_dir"] = config.sm_checkpoint_dir / RUNS
    return {"run": run_script("train.py", given, folder)["folder"]}


def score(config: settings.LeaderboardSettings, origin: dict, folder: pathlib.Path, run_folder: str) -> None:
    """Write output.csv and evaluation.json into the backbone's folder. Raises FailedError."""
    shared = ("max_megapixels", "device", "precision", "cache_gib", "cache_dir")
    given = {key: getattr(config, key) for key in shared if origin[key] != "default"}
    given |= {"sm_channel_eval": config.sm_channel_eval, "sm_channel_model": run_folder, "sm_output_data_dir": folder}
    run_script("inference.py", given, folder)
    given = {"sm_ground_truth_dir": config.sm_ground_truth_dir}
    given |= {key: getattr(config, key) for key in ("report_photos", "pixelate") if origin[key] != "default"}
    run_script("evaluation.py", {**given, "sm_output_data_dir": folder}, folder)


def read_row(config: settings.LeaderboardSettings, name: str, folder: pathlib.Path, progress: dict) -> dict:
    """The row of a backbone that was trained and scored."""
    board = json.loads((folder / "evaluation.json").read_text())
    result = folders.read_result(pathlib.Path(progress["run"]))
    return {
        "model": name,
        "epoch": config.epochs,
        "batch size": config.batch_size,
        "val_acc": "" if result["accuracy"] is None else f"{result['accuracy']:.4%}".rstrip("%"),  # VAL_RATIO=0
        "board_f1": f"{board['macro_f1']:.4f}",
        "board_acc": f"{board['accuracy']:.4%}".rstrip("%"),
        "val_f1": "" if result["macro_f1"] is None else f"{result['macro_f1']:.4f}",
        "board_f1_interval": " to ".join(f"{bound:.3f}" for bound in board["intervals"]["macro_f1"] or ()),
        **{attribute: f"{board['attributes'][attribute]['accuracy']:.4%}".rstrip("%") for attribute in ATTRIBUTES},
        "parameters": result.get("parameters", ""),  # of an older version
        "photographs_per_second": result.get("photographs_per_second", ""),
        "seconds": result["seconds"],
        "note": "",
    }


def run_script(script: str, given: dict, folder: pathlib.Path):
    """Run a script with these settings and its log in `folder`. Returns what its main returns. Raises FailedError."""
    log = folder / f"{pathlib.Path(script).stem}.log"
    ended = subprocesses.run(script, sources.as_flags(given), sources.without_settings(os.environ), log)
    if ended.status:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or [f"exit status {ended.status}"]
        raise FailedError(f"{script}: {last[0]}", log)
    return ended.outcome


def write(config: settings.LeaderboardSettings, fingerprint: dict) -> tuple[list[dict], list[dict]]:
    """Write tables and page of all comparable rows, made now or before. Returns these rows, and means over seeds."""
    folder = config.sm_output_data_dir
    with files.locked(folder):
        made = comparable(folder, fingerprint)
        rows, differing = with_settings(made)
        of_seeds = [*OTHER_NAMES.values(), *(name for name in differing if name != "seed")]
        seeds = run_table.over_seeds(rows, of_seeds, SCORES)
        columns = rows[0] if rows else COLUMNS
        csv_files.write(folder / "leaderboard.csv", {name: [row[name] for row in rows] for name in columns})
        tables = ["\n".join(run_table.as_markdown(table)) for table in (rows, seeds) if table]
        files.write(folder / "leaderboard.md", "\n\n".join(tables) + "\n")
        if not all(progress["row"]["note"] for progress in made.values()):
            write_page(config, rows, seeds, made)
    return rows, seeds


def comparable(folder: pathlib.Path, fingerprint: dict) -> dict[pathlib.Path, dict]:
    """{folder: content of progress.json} of rows with this code and data: as in model.names(), failed ones last."""
    found = {path.parent: read_progress(path.parent) for path in sorted(folder.glob(f"*/{PROGRESS}"))}
    same = ("photographs", "code", "scoring")  # rows of one table may differ in settings only
    rows = {
        path: one for path, one in found.items() if "row" in one and are_same(one["fingerprint"], fingerprint, *same)
    }
    order = {name: number for number, name in enumerate(model.names())}

    def place(path: pathlib.Path) -> tuple[bool, int]:
        row = rows[path]["row"]
        return bool(row["note"]), order.get(row["model"], len(order))

    return {path: rows[path] for path in sorted(rows, key=place)}


def with_settings(made: dict[pathlib.Path, dict]) -> tuple[list[dict], list[str]]:
    """The rows with a column for each setting that differs between them, and the names of these columns."""
    given = [{name: as_text(value) for name, value in one["fingerprint"]["settings"].items()} for one in made.values()]
    # As trained, with the defaults that depend on the backbone; a row that failed may have no run.
    trained = [run_table.settings_of(pathlib.Path(one["run"])) if "run" in one else {} for one in made.values()]
    found = dict.fromkeys(run_table.differing(given) + run_table.differing(trained))
    differing = [name for name in found if name not in OTHER_NAMES]
    several = any(path.name != as_folder(one["row"]["model"]) for path, one in made.items())  # rows of one backbone
    rows = []
    for (path, one), of_call, of_run in zip(made.items(), given, trained, strict=True):
        values = {name: (of_call | of_run).get(name, "") for name in differing}
        folder = {"folder": path.name} if several else {}
        first = {name: one["row"][name] for name in OTHER_NAMES.values()}
        rows.append({**first, **values, **folder, **one["row"]})
    return rows, differing


def write_page(
    config: settings.LeaderboardSettings, rows: list[dict], seeds: list[dict], made: dict[pathlib.Path, dict]
) -> None:
    """leaderboard.html: all rows, and the training curves and predictions of the backbones that are done."""
    from toolkit.pages import comparison as comparison_page
    from toolkit.scoring import submission

    truth = submission.read(config.sm_ground_truth_dir / "gt.csv", "SM_GROUND_TRUTH_DIR")
    compared = []
    for folder, progress in made.items():
        if progress["row"]["note"]:  # it failed
            continue
        with contextlib.suppress(InputError):  # its files are gone: it keeps its row, but no curves
            run = pathlib.Path(progress.get("run", folder))  # somebody may have edited the file
            compared.append(comparison_page.read_run(folder, run, truth))
    images = config.sm_channel_eval / "images" if config.report_photos else None
    page = config.sm_output_data_dir / "leaderboard.html"
    links = [comparison_page.links_of(folder, one.get("run"), page.parent) for folder, one in made.items()]
    comparison = comparison_page.Comparison(rows, seeds, links, compared)
    comparison_page.write(page, comparison, truth, images, config.pixelate)


if __name__ == "__main__":
    console.run(main)
