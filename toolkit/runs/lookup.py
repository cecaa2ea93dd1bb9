"""Find the runs that NAME selects, for inference.py, export.py and suspects.py."""

import contextlib
import glob
import math
import pathlib
import re
from collections.abc import Callable

from toolkit.config.types import as_folder
from toolkit.runs.folders import EXPORTED, FINAL, NET, RESULT, read_result
from toolkit.runs.weights import WEIGHTS, Header
from toolkit.system.console import InputError, listed, say


def find_runs(
    folder: pathlib.Path, names: str | None, file: str, read_header: Callable[[pathlib.Path], Header]
) -> dict[pathlib.Path, Header]:
    """The runs in `folder` that `names` selects (None, one name, or several with commas): {run: header of its `file`}.

    Prints them, and notes on newer runs. Raises InputError if there is none, and as `read_header` does.
    """
    headers = {}
    for name in [name.strip() for name in (names or "").split(",") if name.strip()] or [None]:
        chosen, runs = resolve(folder, name, file)
        found = {run: read_header(run / file) for run in runs}
        own_names = [chosen.name, *(name for header in found.values() for name in (header.run, header.backbone))]
        if name and chosen != folder / name and name not in own_names:
            raise InputError(
                f"NAME={name}: SM_CHANNEL_MODEL={chosen} is itself a run, {', '.join(own_names)}; leave NAME unset"
            )
        for run, header in found.items():
            _describe(run, header)
        _note_unfinished(chosen, runs)
        if newer := newer_runs(chosen, file):
            say(f"note: there are newer runs of that name: {listed(newer)}; NAME={newer[-1]} takes the last")
        if name is None and chosen != folder:
            _note_others(chosen, file)
        headers |= found
    return headers


def _describe(run: pathlib.Path, header: Header) -> None:
    scores = header.scores
    if header.is_of_everybody:
        found = f"trained on everybody, decides by {header.decided_by}"
    else:
        found = f"validation macro F1 {scores['macro_f1']:.4f}"
    say(f"run {run.absolute()}: {header.backbone} at {header.framing}, epoch {scores['epoch']}, {found}")
    if _is_unfinished(run):
        say("note: this run did not finish, or is still running: these are its weights so far")


def _note_unfinished(chosen: pathlib.Path, runs: list[pathlib.Path]) -> None:
    """Print a note if a run of folds is not finished: its later nets do not answer yet."""
    if runs != [chosen] and not (chosen / RESULT).exists() and any((run / WEIGHTS).exists() for run in runs):
        say(f"note: {chosen.absolute()} did not finish, or is still running: {len(runs)} of its nets answer")


def _note_others(chosen: pathlib.Path, file: str) -> None:
    """Print which run beside the chosen one has a better validation macro F1, and which is newer."""
    times = _times(chosen.parent, "*", file)
    scores = {run: _validation_score(chosen.parent / run) for run in times}
    best = max(scores, key=lambda run: (scores[run] > -1, scores[run]))  # nan is never the best
    if scores[best] > scores[chosen.name]:
        say(f"note: {best} has a better validation macro F1 than this run, {scores[best]:.4f}; NAME={best} takes it")
    if (newest := max(times, key=times.get)) != chosen.name:
        say(f"note: {newest} is newer, but did not finish, or is still running; NAME={newest} takes its weights so far")


def _validation_score(run: pathlib.Path) -> float:
    """The macro F1 of a finished run, or run of folds; NaN if it is not known."""
    with contextlib.suppress(OSError, InputError):
        score = read_result(run).get("macro_f1")
        return math.nan if score is None else score
    return math.nan


def _is_unfinished(run: pathlib.Path) -> bool:
    # A model.onnx may have been copied elsewhere alone: without weights beside it, a missing result means nothing.
    return (run / WEIGHTS).exists() and not (run / RESULT).exists()


def resolve(folder: pathlib.Path, name: str | None, file: str = WEIGHTS) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder that `name` selects, and the runs in it: itself, or the nets of a run of folds, in their order.

    A run is a folder that has this `file`. The first of these that exists is taken: `folder` itself, if it is a run or
    a run of folds (then `name` may select one net); folder/name, a run, a run of folds, or one net (resnet50/final);
    without a name, the newest finished run in `folder`, or else the newest run. Raises InputError if there is none, or
    if some nets lack the file.
    """
    if runs := runs_in(folder, file):
        net = [run for run in runs if run.name == name]
        return (folder / name, net) if net else (folder, _refuse_missing(folder, runs, file))
    times = _times(folder, "*", file)
    if name is None and times:
        name = max(times, key=lambda run: ((folder / run / RESULT).exists(), times[run]))
    if name in times:
        return folder / name, _refuse_missing(folder / name, runs_in(folder / name, file), file)
    group, _, net_name = (name or "").partition("/")
    if group.strip(".") and NET.fullmatch(net_name) and (folder / name / file).is_file():
        return folder / name, [folder / name]
    if name and as_folder(name) in times:  # timm/resnet18
        return resolve(folder, as_folder(name), file)
    if name:
        (folder / name / file).exists()  # raises PermissionError: then it is not missing
    what = f"NAME={name}: expected {folder / str(name) / file}" if name else f"expected a run with a {file} in {folder}"
    found = f"the runs {listed(sorted(times, key=times.get, reverse=True))}" if times else "no run"
    hint = "; export.py makes that file" if file == EXPORTED else ""
    raise InputError(f"{what}, found {found}; SM_CHANNEL_MODEL={folder}{hint}")


def runs_in(folder: pathlib.Path, file: str = WEIGHTS) -> list[pathlib.Path]:
    """[folder] if it is a run; for a run of folds its folds, by number, and then the final net; else [].

    The final net counts only when it is finished: it has no validation people, so until then its weights are those of
    the last epoch so far, at a high learning rate.
    """
    if (folder / file).is_file():
        return [folder]
    fold_of = {path.parent: path.parent.name.removeprefix("fold-") for path in folder.glob(f"fold-*/{file}")}
    folds = sorted((run for run in fold_of if fold_of[run].isdecimal()), key=lambda run: int(fold_of[run]))
    final = folder / FINAL
    return [*folds, final] if folds and (final / file).is_file() and not _is_unfinished(final) else folds


def _refuse_missing(folder: pathlib.Path, runs: list[pathlib.Path], file: str) -> list[pathlib.Path]:
    """Returns `runs`. Raises InputError if another net in the folder has weights, but not this file."""
    if missing := [run.name for run in runs_in(folder) if run not in runs]:
        raise InputError(f"{folder}: expected a {file} for every net, found none in {listed(missing)}; run export.py")
    return runs


def newer_runs(folder: pathlib.Path, file: str = WEIGHTS) -> list[str]:
    """The runs of the same name (name-2 and so on) that are newer than this one, from the oldest to the newest."""
    folder = folder.absolute()
    times = _times(folder.parent, f"{glob.escape(folder.name)}*", file)
    later = re.compile(re.escape(folder.name) + r"-\d+")
    return sorted((run for run in times if later.fullmatch(run) and times[run] > times[folder.name]), key=times.get)


def _times(folder: pathlib.Path, pattern: str, file: str) -> dict[str, float]:
    """{name of a run: when its newest `file` was written} of the runs in a folder."""
    runs_of = {}
    for child in folder.glob(pattern):
        with contextlib.suppress(PermissionError):  # the folder of another person
            runs_of[child.name] = runs_in(child, file) if child.is_dir() else []
    return {name: max((run / file).stat().st_mtime for run in runs) for name, runs in runs_of.items() if runs}
