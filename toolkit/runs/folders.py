"""Find the folder of a run that can go on, or make a new one, and lock it until the run ends."""

import contextlib
import errno
import glob
import itertools
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel, Field, FiniteFloat

from toolkit.config.types import Whole
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoint, Checkpoints, remove_checkpoints
from toolkit.runs.fingerprint import Fingerprint, differences, is_record_of
from toolkit.runs.weights import WEIGHTS
from toolkit.system import files, world
from toolkit.system.console import InputError, listed, say

# What lies in the folder of a run, beside WEIGHTS.
RESULT = "result.json"  # the scores: a run is finished when it has them
EXPORTED = "model.onnx"  # the same net, where export.py has written it
SETTINGS = "settings.json"
FINAL = "final"  # the net of everybody in a run of folds, beside fold-0, fold-1, ...
BOARD = "tensorboard"  # a folder; written anew whenever a run goes on
# In SM_CHECKPOINT_DIR, beside the checkpoints of a finished run: a copy of its result. Only this marks it as finished.
FINISHED = "finished.json"
FOLDS = "folds.json"  # of a run of folds: its fingerprint
FOLDS_LOCK = f".folds{files.LOCK}"  # held for hours; each net of the run takes the usual lock for a moment
NET = re.compile(rf"fold-\d+|{FINAL}")  # the name of a net of a run of folds
MARKERS = (".sagemaker-uploading", ".sagemaker-uploaded")  # endings of files that SageMaker puts beside checkpoints


class RecordedSettings(BaseModel, extra="allow"):
    """The settings of a run that are used when its folder is read again."""

    sm_channel_train: str = ""
    sm_checkpoint_dir: str | None = None
    val_ratio: FiniteFloat = 0.0
    folds: Whole = 0


class RecordedLabels(BaseModel):
    """How many photographs of each class have pseudo-labels."""

    photographs: list[Whole] = []


class SettingsFile(Fingerprint):
    """The content of SETTINGS: a fingerprint that also has settings that are `runtime_only`, and more."""

    settings: RecordedSettings = RecordedSettings()
    data: str = ""
    started: str = ""
    run: dict = Field({})
    pseudo_labels: RecordedLabels = RecordedLabels()


class ResultFile(BaseModel, extra="allow"):
    """The content of RESULT, which is also the run's row of leaderboard.csv."""

    run: str = ""
    started: str = ""
    finished: str = ""
    kept_epoch: Whole | FiniteFloat = 0
    macro_f1: FiniteFloat | None = None
    accuracy: FiniteFloat | None = None
    val_loss: FiniteFloat | None = None
    seconds: FiniteFloat = 0.0


def read_settings(run: pathlib.Path) -> dict:
    """The content of a run's settings.json, as `SettingsFile`; {} if it is missing, damaged or foreign."""
    try:
        return files.read_json(run / SETTINGS, SettingsFile)
    except (OSError, InputError):
        return {}


def read_result(run: pathlib.Path) -> dict:
    """The content of a run's result.json, as `ResultFile`. Raises OSError, and InputError if it is damaged."""
    return files.read_json(run / RESULT, ResultFile)


@dataclass
class Run:
    """A run whose folders this process has locked; those of a finished run are not locked."""

    folder: pathlib.Path
    checkpoints: Checkpoints  # their folder may be another one
    checkpoint: Checkpoint | None  # what the run goes on from; None for a new run

    @property
    def is_finished(self) -> bool:
        """Whether it was finished before: there is nothing to train."""
        return (self.folder / RESULT).exists()

    def finish(self) -> None:
        """Remove its checkpoints, now that it has its result.

        Those in SM_CHECKPOINT_DIR stay until the next run of that name begins: the machine, and the result on it, may
        be lost before the result is stored elsewhere.
        """
        if any((self.checkpoints.folder / name).exists() for name in CHECKPOINTS):
            mark_finished(self.checkpoints.folder, self.folder)
        remove_checkpoints(self.folder)


@contextlib.contextmanager
def open_run(
    runs: pathlib.Path, checkpoints: pathlib.Path | None, name: str, fingerprint: dict, resume: str
) -> Iterator[Run | None]:
    """The unfinished run with this fingerprint, else a finished one, else a new one; with `resume` "never" a new one.

    A new run gets runs/name, or name-2, name-3, ... where that is taken. Its checkpoint is saved there too, or under
    that name in `checkpoints`; an unfinished run may have it in either place. Both folders must exist. No other process
    can open the run until the block ends. If the block ends with an error before a new run has a checkpoint or weights,
    its folders are removed. When a new run begins, `checkpoints` loses what it keeps of finished runs of that name.
    Raises InputError if a checkpoint exists but cannot be read now. Ranks other than 0 get None.
    """
    if world.rank():
        yield None
        return
    if checkpoints is None or checkpoints.samefile(runs):
        checkpoints = runs
    with contextlib.ExitStack() as stack:
        run = _find_unfinished(runs, checkpoints, name, fingerprint, stack) if resume == "auto" else None
        if run is None and resume == "auto" and (finished := find_finished(runs, name, fingerprint)):
            files.sweep(finished)
            yield Run(finished, Checkpoints(finished), None)
            return
        if run is None:
            if checkpoints != runs:
                clear_finished(checkpoints, name)
            run = _make_new(runs, checkpoints, name, stack)
        try:
            yield run
        except BaseException:
            has_any = (run.folder / WEIGHTS).exists() or any(path.exists() for path in run.checkpoints.paths)
            if not run.checkpoint and not has_any:  # a new one: its folders were empty
                for folder in {run.folder, run.checkpoints.folder}:
                    shutil.rmtree(folder, ignore_errors=True)
            raise
    with contextlib.suppress(OSError):  # it still has checkpoints, or SageMaker's files
        run.checkpoints.folder.rmdir()


def _find_unfinished(
    runs: pathlib.Path, checkpoints: pathlib.Path, name: str, fingerprint: dict, stack: contextlib.ExitStack
) -> Run | None:
    """The newest unfinished run with this name and fingerprint, locked. Says why others do not go on."""
    for kept in newest_first(state_places(runs, checkpoints, name), name, CHECKPOINTS):
        folder = runs / kept.name
        if (folder / RESULT).exists():
            _finish_again(folder, kept)
        elif run := _reopen(folder, kept, checkpoints / kept.name, fingerprint, stack):
            return run
    return None


def _finish_again(folder: pathlib.Path, kept: pathlib.Path) -> None:
    """Remove the checkpoints in `kept` if their run has its result: its process was killed before it did so."""
    found = None if (kept / FINISHED).exists() else Checkpoints(kept)
    if found and any(is_same_run(folder, kept, each) for each in found.headers.values()):
        Run(folder, found, None).finish()


def _reopen(
    folder: pathlib.Path, kept: pathlib.Path, place: pathlib.Path, fingerprint: dict, stack: contextlib.ExitStack
) -> Run | None:
    """The run of `folder` with checkpoints in `kept`, locked; None if it cannot go on. New ones shall go to `place`."""
    with contextlib.ExitStack() as attempt:
        try:
            for made in (folder, place):  # the machine may be a new one, and so may SM_CHECKPOINT_DIR
                made.mkdir(exist_ok=True)
            _lock(dict.fromkeys((folder, place, kept)), attempt)
        except (InterruptedError, FileExistsError):
            say(f"note: the run {folder.name} is in use by another process, or belongs to another person")
            return None
        # Read only after locking: before that, another process might have saved a newer checkpoint.
        found = Checkpoints(kept)
        checkpoint, why_not = _load_matching(found, fingerprint)
        if checkpoint and not is_same_run(folder, kept, checkpoint):
            why_not = [f"{folder} holds another run of that name"]
        if not why_not:
            stack.push(attempt.pop_all())  # released by the caller's stack, and not at the end of this block
            (kept / FINISHED).unlink(missing_ok=True)
            # The next checkpoints go to `place`, unless that would overwrite another run's.
            return Run(folder, Checkpoints(place) if is_empty(place) else found, checkpoint)
        if not (kept / FINISHED).exists():
            say(f"note: the run {folder.name} did not finish, but does not go on: {listed(why_not, most=20)}")
    for made in (folder, place):
        with contextlib.suppress(OSError):  # not empty, so it was not made here
            made.rmdir()
    return None


def state_places(runs: pathlib.Path, checkpoints: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Where states of unfinished runs may lie: in `checkpoints`, in `runs`, and where earlier runs had them."""
    found = [checkpoints, runs]
    for folder in newest_first((runs,), name, (SETTINGS,)):
        if place := read_settings(folder).get("settings", {}).get("sm_checkpoint_dir"):
            found.append(pathlib.Path(place))
    return list(dict.fromkeys(found))


def mark_finished(kept: pathlib.Path, run: pathlib.Path) -> None:
    """Mark the run as finished in `kept`, its folder in SM_CHECKPOINT_DIR, unless both are the same folder."""
    if kept != run and not (kept / FINISHED).exists():
        files.write(kept / FINISHED, (run / RESULT).read_bytes())


def clear_finished(checkpoints: pathlib.Path, name: str) -> None:
    """Remove what `checkpoints` keeps of finished runs, and runs of folds, of this name."""
    for folder in newest_first((checkpoints,), name, (FINISHED,)):
        with contextlib.ExitStack() as stack, contextlib.suppress(InterruptedError):
            _lock((folder,), stack)
            _lock((folder,), stack, FOLDS_LOCK)
            if not (folder / FINISHED).exists():  # meanwhile it goes on again
                continue
            remove_checkpoints(folder)
            for net in (path for path in folder.iterdir() if NET.fullmatch(path.name)):
                (net / RESULT).unlink(missing_ok=True)  # first: without it nobody takes the rest for a whole net
                shutil.rmtree(net)
            for file in (FOLDS, FINISHED):  # FINISHED last: a folder with it may be removed
                (folder / file).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds SageMaker's files
            folder.rmdir()


def find_finished(runs: pathlib.Path, name: str, fingerprint: dict) -> pathlib.Path | None:
    """The newest of the folders name, name-2, ... that holds a finished run, or run of folds, with this fingerprint."""
    for folder in newest_first((runs,), name, (RESULT,)):
        record = read_settings(folder)
        if "settings" in record and is_record_of(record, fingerprint):
            try:
                read_result(folder)
                return folder
            except InputError as error:
                say(f"note: {error}; that run is passed over")
    return None


def newest_first(places: Iterable[pathlib.Path], name: str, files: Iterable[str]) -> list[pathlib.Path]:
    """The folders name, name-2, ... in these places that hold one of these files, the one with the newest first."""
    pattern = re.compile(re.escape(name) + r"(-\d+)?")
    times = {}
    paths = (folder.glob(f"{glob.escape(name)}*/{file}") for folder in dict.fromkeys(places) for file in files)
    for file in itertools.chain.from_iterable(paths):
        with contextlib.suppress(FileNotFoundError):  # that run has just finished
            if pattern.fullmatch(file.parent.name):
                times[file.parent] = max(times.get(file.parent, 0), file.stat().st_mtime)
    return sorted(times, key=times.get, reverse=True)


def _load_matching(checkpoints: Checkpoints, fingerprint: dict) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint or None, and the reasons why the run cannot go on from it; [] if it can."""
    # If all headers differ, gigabytes of tensors need not be read. If only some do, one may be damaged (a flipped bit
    # in its fingerprint), and only the checksum of the whole file shows that.
    differing = [differences(header.fingerprint, fingerprint) for header in checkpoints.headers.values()]
    if differing and all(differing):
        return None, differing[0]
    newest = checkpoints.load()
    return newest, differences(newest.fingerprint, fingerprint) if newest else ["no checkpoint of it is whole"]


def is_same_run(run_folder: pathlib.Path, checkpoint_folder: pathlib.Path, checkpoint: Checkpoint) -> bool:
    """Whether the run's folder belongs to the run of this checkpoint, or is still empty."""
    if checkpoint_folder == run_folder or is_empty(run_folder):
        return True
    return read_settings(run_folder).get("started") == checkpoint.started


def _make_new(runs: pathlib.Path, checkpoints: pathlib.Path, name: str, stack: contextlib.ExitStack) -> Run:
    for folder in map(runs.joinpath, numbered(name)):
        folders = dict.fromkeys((folder, checkpoints / folder.name))
        if claim(folders, partial(are_free, folders), stack):
            return Run(folder, Checkpoints(checkpoints / folder.name), None)


def numbered(name: str) -> Iterator[str]:
    """name, name-2, name-3, ..."""
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def are_free(folders: Iterable[pathlib.Path], new: bool, alone: bool) -> bool:
    # An empty folder is left by a run that was killed before its first save. It is taken over only where locks work:
    # without them, a run that has just begun may be in it.
    return new or (alone and all(is_empty(folder) for folder in folders))


def claim(
    folders: Iterable[pathlib.Path],
    usable: Callable[[bool, bool], bool],
    stack: contextlib.ExitStack,
    lock: str = files.LOCK,
) -> bool:
    """Make and lock these folders until the stack is closed. False if another process has one, or if not `usable`.

    `usable(new, alone)` is called when they are locked. `new`: all of them were made by this call. `alone`: no other
    process can hold their locks. If the answer is False, folders that this call made are removed.
    """
    made = {folder: _make(folder) for folder in folders}
    with contextlib.ExitStack() as attempt, contextlib.suppress(InterruptedError):
        alone = _lock(folders, attempt, lock)
        if usable(all(made.values()), alone):
            stack.push(attempt.pop_all())
            return True
    for folder in filter(made.get, made):
        with contextlib.suppress(OSError):  # another process uses it by now
            folder.rmdir()
    return False


def _make(folder: pathlib.Path) -> bool:
    """Make a folder. Returns False if it exists already."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def is_empty(folder: pathlib.Path, *more: str) -> bool:
    """Whether a run could begin here: all files are such as a run writes before its first checkpoint, or in `more`."""
    names = [file.name for file in folder.iterdir()]
    return all(name in (SETTINGS, BOARD, *more) or name.endswith((files.LOCK, *MARKERS)) for name in names)


def _lock(folders: Iterable[pathlib.Path], stack: contextlib.ExitStack, name: str = files.LOCK) -> bool:
    """Lock all folders until the stack is closed. Returns False if locks do not work here: others may hold them, too.

    Raises InterruptedError if another process holds one, or if a folder is gone or belongs to another person.
    """
    alone = True
    for folder in folders:
        try:
            alone &= stack.enter_context(files.locked(folder, give_up=lambda: True, name=name))
        except OSError as error:
            # A failed run has just removed it, it is a file, or it is not ours to write to: the next name may work.
            # Other errors would be the same there.
            gone_or_not_ours = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)
            if error.errno in (*gone_or_not_ours, errno.EROFS):
                raise InterruptedError from None
            raise
    return alone
