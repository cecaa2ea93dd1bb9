"""Compare backbones: train, infer and evaluate each with the same settings, into leaderboard.csv, leaderboard.md and
leaderboard.html, a page that compares them.

SM_CHANNEL_TRAIN=<image folder> SM_MODEL_DIR=<folder for runs> SM_CHANNEL_EVAL=<folder> SM_GROUND_TRUTH_DIR=<folder> \\
SM_OUTPUT_DATA_DIR=<folder> NAMES=resnet18,vgg16 epochs=1 python leaderboard.py

It goes on where it was stopped, and a backbone that fails does not stop the others.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re

import numpy as np

import dataset
import loss
import model
from toolkit import ROOT
from toolkit.config import settings, sources
from toolkit.runs import folders
from toolkit.system import console, files, subprocesses
from toolkit.system.console import InputError, say

# The columns of the seed's table, and more.
COLUMNS = (
    "model", "epoch", "batch size", "val_acc", "board_f1", "board_acc",
    "val_f1", "parameters", "photographs_per_second", "seconds", "note",
)  # fmt: skip
PROGRESS = "progress.json"
SCORED_BY = ("inference.py", "evaluation.py")


def main(argv: list[str]) -> None:
    config, origin = sources.read(settings.LeaderboardSettings, argv, {"loss": loss.LOSSES})
    names = [name.strip() for name in config.names.split(",")] if config.names else list(model.BACKBONES)
    refuse_unknown(names)
    loss.refuse_shares_for(config)
    for name in ("sm_model_dir", "sm_output_data_dir"):
        files.make_folder(getattr(config, name), name.upper())
    sources.ensure_drawn_faces(config)
    identity = identity_of(config)
    for number, name in enumerate(names, 1):
        say(f"{name} ({number} of {len(names)})")
        make_row(config, origin, identity, name)
        rows = write(config, identity)
    say(as_markdown(rows))
    if left_out := len(list(config.sm_output_data_dir.glob(f"*/{PROGRESS}"))) - len(rows):
        say(f"note: {left_out} backbones were compared with other settings, code or photographs, and are left out")
    if failed := [row["model"] for row in rows if row["note"] and row["model"] in names]:
        raise InputError(f"{', '.join(failed)} failed: see train.log in {config.sm_output_data_dir}/<name>")


def refuse_unknown(names: list[str]) -> None:
    """Raises InputError where a name is of no backbone."""
    if unknown := [name for name in names if name not in model.names()]:
        raise InputError(f"NAMES={','.join(names)}: expected names of backbones, found {', '.join(unknown)}")


def identity_of(config: settings.LeaderboardSettings) -> dict:
    """What rows must have in common to stand in one table: settings, code, photographs, labels and corrections."""
    from toolkit.label_errors import corrections  # and with it pandas

    of_training = {key: value for key, value in config.deciding().items() if key in settings.TrainSettings.model_fields}
    digest = hashlib.sha256()
    for folder in (dataset.image_folder(config.sm_channel_train), config.sm_channel_eval / "images"):
        for path, below, names in os.walk(folder, followlinks=True):
            below.sort()
            for name in sorted(names):
                line = f"{os.path.relpath(path, folder)}/{name}"
                with contextlib.suppress(FileNotFoundError):  # a link to nothing
                    stat = os.stat(os.path.join(path, name))
                    line += f" {stat.st_size} {stat.st_mtime_ns}"
                digest.update(os.fsencode(line) + b"\n")
    _, corrected = corrections.read(config.relabel)
    tables = (config.sm_channel_eval / "info.csv", config.sm_ground_truth_dir / "gt.csv", *corrected)
    for file in (*tables, *(ROOT / script for script in SCORED_BY)):
        digest.update(b"\n" + (file.read_bytes() if file.is_file() else b""))
    return folders.identity(of_training, digest.hexdigest())


def make_row(config: settings.LeaderboardSettings, origin: dict, identity: dict, name: str) -> None:
    """Train, infer and evaluate, as far as it was not done before; progress.json has the row, or why there is none."""
    folder = files.make_folder(config.sm_output_data_dir / name, "SM_OUTPUT_DATA_DIR")
    notes = read_notes(folder, identity)
    if notes.get("row", {"note": "none"})["note"] == "":
        say(f"  done before: macro F1 {notes['row']['board_f1']}")
        return
    try:
        if "run" not in notes or not pathlib.Path(notes["run"], folders.RESULT).exists():
            notes |= trained(config, origin, name, folder)
            files.write_json(folder / PROGRESS, notes)
        notes["row"] = scored(config, origin, name, folder, notes)
        say(f"  macro F1 {notes['row']['board_f1']}, accuracy {notes['row']['board_acc']} %")
    except ChildProcessError as error:
        say(f"  failed: {error}")
        notes["row"] = {**dict.fromkeys(COLUMNS, ""), "model": name, "note": str(error)}
    files.write_json(folder / PROGRESS, notes)


def read_notes(folder: pathlib.Path, identity: dict) -> dict:
    """How far a backbone came before with the same identity."""
    try:
        notes = json.loads((folder / PROGRESS).read_text())
        return notes if notes["identity"] == identity else {"identity": identity}
    except (OSError, ValueError, KeyError, TypeError):
        return {"identity": identity}


def trained(config: settings.LeaderboardSettings, origin: dict, name: str, folder: pathlib.Path) -> dict:
    """Train; the folder of the run, its weights' number and its speed."""
    own = settings.TrainSettings.model_fields.keys() - {"name", "sm_channel_train", "sm_model_dir"}
    given = {key: getattr(config, key) for key in own if origin[key] != "default"}
    given |= {"name": name, "sm_channel_train": config.sm_channel_train, "sm_model_dir": config.sm_model_dir}
    said = run("train.py", given, folder)
    found = [re.findall(what, said) for what in (r"run folder: (.+)", r" of ([\d,]+) weights", r"(\d+) photographs/s")]
    if not all(found[:2]):
        raise ChildProcessError("train.py: did not say its run folder and number of weights")
    return {
        "run": found[0][0],
        "parameters": int(found[1][0].replace(",", "")),
        "photographs_per_second": int(found[2][-1]) if found[2] else "",  # it was stopped when all was done
    }


def scored(config: settings.LeaderboardSettings, origin: dict, name: str, folder: pathlib.Path, notes: dict) -> dict:
    """Infer and evaluate; the row."""
    shared = ("device", "precision", "cache_gib", "cache_dir")
    given = {key: getattr(config, key) for key in shared if origin[key] != "default"}
    given |= {"sm_channel_eval": config.sm_channel_eval, "sm_channel_model": notes["run"], "sm_output_data_dir": folder}
    infer, evaluate = SCORED_BY
    run(infer, given, folder)
    given = {"sm_ground_truth_dir": config.sm_ground_truth_dir, "report_photos": config.report_photos}
    run(evaluate, {**given, "sm_output_data_dir": folder}, folder)
    board = json.loads((folder / "evaluation.json").read_text())
    result = json.loads(pathlib.Path(notes["run"], folders.RESULT).read_text())
    return {
        "model": name,
        "epoch": config.epochs,
        "batch size": config.batch_size,
        "val_acc": f"{result['accuracy']:.4%}".rstrip("%"),
        "board_f1": f"{board['macro_f1']:.4f}",
        "board_acc": f"{board['accuracy']:.4%}".rstrip("%"),
        "val_f1": f"{result['macro_f1']:.4f}",
        "parameters": notes["parameters"],
        "photographs_per_second": notes["photographs_per_second"],
        "seconds": result["seconds"],
        "note": "",
    }


def run(script: str, given: dict, folder: pathlib.Path) -> str:
    """Run a script with these settings; what it said, which also goes to a log. Raises ChildProcessError."""
    log = folder / f"{pathlib.Path(script).stem}.log"
    status = subprocesses.run(script, given, log)
    said = log.read_text(errors="replace")
    if status:
        last = said.strip().splitlines()[-1:] or [f"exit status {status}"]
        raise ChildProcessError(f"{script}: {last[0]}")
    return said


def write(config: settings.LeaderboardSettings, identity: dict) -> list[dict]:
    """Write the table and the page of all that was made with this identity, by this call or before; its rows."""
    folder = config.sm_output_data_dir
    with files.locked(folder):
        notes = [note for name in model.names() if "row" in (note := read_notes(folder / name, identity))]
        rows = [note["row"] for note in notes]
        files.write_csv(folder / "leaderboard.csv", {name: [row[name] for row in rows] for name in COLUMNS})
        files.write(folder / "leaderboard.md", as_markdown(rows) + "\n")
        if done := [note for note in notes if not note["row"]["note"]]:
            write_page(config, rows, done)
    return rows


def write_page(config: settings.LeaderboardSettings, rows: list[dict], done: list[dict]) -> None:
    """leaderboard.html, of all rows, and the runs and answers behind those that are done."""
    from toolkit.pages import comparison
    from toolkit.scoring import submission

    truth = submission.read(config.sm_ground_truth_dir / "gt.csv", "SM_GROUND_TRUTH_DIR")
    compared = []
    for note in done:
        name = note["row"]["model"]
        with contextlib.suppress(InputError):  # its files were moved since: its row stands alone
            answers = submission.read(config.sm_output_data_dir / name / "output.csv", "SM_OUTPUT_DATA_DIR")
            submission.refuse_other_photographs(truth, answers)
            said = np.array([answers[image] for image in truth])
            compared.append(comparison.Compared(name, comparison.read_history(pathlib.Path(note["run"])), said))
    images = config.sm_channel_eval / "images" if config.report_photos else None
    page = config.sm_output_data_dir / "leaderboard.html"
    comparison.write(page, rows, compared, truth, images)


def as_markdown(rows: list[dict]) -> str:
    lines = [COLUMNS, ["--"] * len(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    console.run(main)
