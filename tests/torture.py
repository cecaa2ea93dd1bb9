"""All faults, often: a table of what was tried, survived and lost. `make torture`.

python tests/torture.py [--share 0.1] [--only FOLDS signal] tries a tenth, and of that the rows with one of these words.
"""

import argparse
import contextlib
import errno
import io
import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import faults
import starts
import tiny
import torch
import torchvision  # noqa: F401 (forks need not import it)

import inference
import model
import train
from toolkit.demo import synthetic

ROW = "{:44} {:>6} {:>9} {:>6} {:>8}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", default=1.0, type=float, help="of the number of faults")
    parser.add_argument("--only", default=[""], nargs="+", help="words of the rows to be tried")
    parser.add_argument("--seed", default=None, type=int)
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("expected Linux: it forks, and finds processes in /proc")
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    torch.set_num_threads(1)  # a process with threads cannot be forked
    print(f"seed {seed}\n{ROW.format('fault', 'tried', 'survived', 'lost', 'seconds')}", flush=True)
    lost = 0
    with tempfile.TemporaryDirectory() as scratch:
        for what, outcomes in kinds(pathlib.Path(scratch), lambda number: max(round(number * options.share), 1), seed):
            if not any(word in what for word in options.only):
                continue
            began, outcomes = time.monotonic(), list(outcomes)
            bad = [outcome for outcome in outcomes if outcome]
            row = (what, len(outcomes), len(outcomes) - len(bad), len(bad), f"{time.monotonic() - began:.0f}")
            print(ROW.format(*row), flush=True)
            for outcome in bad[:5]:
                print(f"    {outcome}", flush=True)
            lost += len(bad)
    sys.exit(lost > 0)


def kinds(scratch: pathlib.Path, share, seed: int):
    """(what is tried, the outcome of every try: empty where it went as it should); tried once they are asked for."""
    with contextlib.redirect_stdout(io.StringIO()):
        synthetic.ensure(scratch / "data", people=24, eval_people=6)
    training_of = {"SM_CHANNEL_TRAIN": scratch / "data" / "train", **faults.SMALL}
    whole = scratch / "whole"
    undisturbed_run = undisturbed(whole, training_of)
    expected, _ = undisturbed_run
    weights = whole / training_of["NAME"] / "model.safetensors"

    for number, name, times in (
        (signal.SIGKILL, "kill -9", 200), (signal.SIGTERM, "signal SIGTERM", 40), (signal.SIGINT, "signal Ctrl-C", 40),
    ):  # fmt: skip
        yield (f"{name} in training", stops(folder(scratch), number, share(times), seed, undisturbed_run, training_of))
    yield "kill -9 in saves of resnet18", saves_of_a_large_net(folder(scratch), share(30), seed, training_of)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        yield (
            f"signal {name} at a script's start",
            starts.stopped(folder(scratch), scratch / "data", whole, number, share(1000), seed),
        )
    for what, given, lost in TRAININGS:
        for name, fault in FAULTS.items():
            if not lost or fault == faults.Fault():
                tries = share(20 if fault.error else 60)
                outcomes = calls_of_training(folder(scratch), tries, seed, fault, given, lost, scratch / "data")
                yield f"{name} at a call of {what}", outcomes
    for name, fault in FAULTS.items():
        tries = share(20 if fault.error else 60)
        outcomes = calls_of_inference(folder(scratch), tries, seed, fault, whole, scratch / "data")
        yield f"{name} at a call of inference", outcomes
    for what, flips, cuts in (("a flipped bit", share(1000), 0), ("a missing end", 0, share(200))):
        yield f"{what} in weights or state", quietly(faults.damaged_files, folder(scratch), weights, flips, cuts, seed)
    yield "a malicious file as weights or state", quietly(malicious, folder(scratch))
    draws = random.Random(seed)
    sizes = [draws.choice((300, 3_000, 100_000, 2_000_000, 5_000_000)) + draws.randrange(300) for _ in range(share(20))]
    yield "a full disk, at a save of any file", faults.full_disks(folder(scratch), sizes, expected, **training_of)
    yield "a mutated JPEG or PNG", photographs(folder(scratch), share(3000), seed)
    yield "runs that end in one instant", leaderboard(folder(scratch), share(50))
    yield "runs of one name that begin in one instant", together(folder(scratch), share(8), expected, training_of)


def undisturbed(runs: pathlib.Path, variables: dict) -> tuple[dict[str, bytes], float]:
    """The results of a run that nobody disturbs, and its seconds."""
    began = time.monotonic()
    process = faults.Forked(train.main, runs.with_suffix(".log"), SM_MODEL_DIR=runs, **variables)
    assert process.wait(600) == 0, process.log.read_text()
    return faults.results(runs / variables["NAME"]), time.monotonic() - began


numbers = itertools.count()


def folder(scratch: pathlib.Path) -> pathlib.Path:
    path = scratch / f"part-{next(numbers)}"
    path.mkdir()
    return path


def quietly(tries, *given) -> list[str]:
    """The outcomes, without what is printed on the way."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = list(tries(*given))
    yield from outcomes


def saves_of_a_large_net(scratch, times, seed, variables):
    """Its saves take longer than its steps: most kills fall into one."""
    variables = {**variables, "NAME": "resnet18", "EPOCHS": "1"}
    yield from stops(scratch, signal.SIGKILL, times, seed, undisturbed(scratch / "whole", variables), variables)


def stops(scratch, number, times, seed, undisturbed_run, variables):
    """An outcome for each stop: those of a run that lost something count as lost."""
    slowest = 0.0
    for outcome, stopped, seconds in faults.stopped_runs(scratch, number, times, seed, *undisturbed_run, **variables):
        slowest = max(slowest, seconds)
        yield from [outcome] * max(stopped, bool(outcome))
    if number != signal.SIGKILL and slowest > 5:
        yield f"one took {slowest:.1f} s to stop"


# A net of one convolution, and a state after each epoch.
TINY = {"NAME": "tiny", "EPOCHS": "2", "SIZE": "32x32", "WEIGHTS": "none", "DEVICE": "cpu", "LOSSES": os.devnull}
FOLDS = {"FOLDS": "2", "FINAL": "true", "EPOCHS": "1"}
RESULTS = ("model.safetensors", "history.csv", "validation.csv", "out_of_fold.csv")
TRAININGS = (("a run", {}, ""), ("FOLDS", FOLDS, ""), ("a run, the machine lost", {}, "runs"),
             ("FOLDS, the machine lost", FOLDS, "runs"))  # fmt: skip
FAULTS = {
    "kill -9": faults.Fault(), "EIO": faults.Fault(errno.EIO), "ENOSPC": faults.Fault(errno.ENOSPC),
    "lasting EROFS": faults.Fault(errno.EROFS, lasts=True),
}  # fmt: skip


def on_a_disk_of_their_own(data: pathlib.Path, stack: contextlib.ExitStack) -> pathlib.Path:
    """A copy of the photographs in the memory's file system; `data` itself where there is none beside its disk."""
    memory = pathlib.Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == data.stat().st_dev:
        print("note: there is no /dev/shm: photographs lie on the disk of the runs", flush=True)
        return data
    copied = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)), "data")
    return shutil.copytree(data, copied)


def calls_of_training(scratch, most, seed, fault, given, lost, data):
    """With `lost`, the folder of runs goes after the kill, and the checkpoints stay."""
    here = scratch / "here"
    for name in ("runs", "checkpoints"):
        (here / name).mkdir(parents=True)
    places = {"SM_MODEL_DIR": here / "runs"} | ({"SM_CHECKPOINT_DIR": here / "checkpoints"} if lost else {})

    def read() -> dict:
        left = [path for path in here.rglob(".*") if path.is_relative_to(here / "checkpoints")]
        return faults.tree(here / "runs", *RESULTS) | dict.fromkeys(map(str, left), "")

    with contextlib.ExitStack() as stack:
        data = on_a_disk_of_their_own(data / "train", stack)
        given = {"SM_CHANNEL_TRAIN": data, **TINY, **given, **places}
        yield from faults.failing_calls(tiny.main, here, most, seed, read, fault, lost=lost, data=data, **given)


def calls_of_inference(scratch, most, seed, fault, runs, data):
    """Over an answer of other settings, of which a part must never lie beside a part of the new one unnoticed."""
    here = scratch / "here"
    here.mkdir()
    given = {"SM_CHANNEL_EVAL": data / "eval", "SM_CHANNEL_MODEL": runs, "SM_OUTPUT_DATA_DIR": here, "DEVICE": "cpu"}
    process = faults.Forked(inference.main, scratch / "log", **given, PROBABILITIES="true")
    assert process.wait(120) == 0, (scratch / "log").read_text()
    whole = [(here / "output.csv").read_bytes()]

    def check() -> str:
        output = (here / "output.csv").read_bytes()
        return "" if output in whole else "output.csv is neither the old nor the new one"

    def read() -> dict:
        whole.append((here / "output.csv").read_bytes())
        return faults.tree(here, "output.csv", "inference.json")

    given |= {"ADAPT_PRIORS": "false", "TTA": "true"}
    yield from faults.failing_calls(inference.main, here, most, seed, read, fault, check, data=data, **given)


def malicious(scratch):
    readers = {
        "model.safetensors": faults.load_weights,
        faults.CHECKPOINTS[0]: lambda path: faults.Checkpoints(path.parent).load(),
        "net.pth": lambda path: model.build("resnet18", (32, 32), str(path)),
    }
    for kind, content in faults.malicious_files(scratch / "executed").items():
        for name, read in readers.items():
            (scratch / name).write_bytes(content)
            taken = None
            with contextlib.suppress(faults.InputError):
                taken = read(scratch / name)
            yield f"{kind}: {name} was taken" if taken or (scratch / "executed").exists() else ""


def photographs(scratch, number, seed):
    """Decoded by a process of their own; whichever it does not answer for is lost."""
    faults.mutated_photographs(scratch, number, seed)
    done = subprocess.run(
        [sys.executable, faults.ROOT / "tests" / "decode_all.py", scratch], capture_output=True, text=True, timeout=600
    )
    if done.stderr or done.returncode:
        yield f"exit {done.returncode}: {done.stderr[-300:]}"
    answered = done.stdout.count("\n")
    yield from [""] * answered + ["no answer"] * (number - answered)


def leaderboard(scratch, number):
    """All wait for one file, so that they end together; then every line must be there, and whole."""
    code = (
        "import pathlib, sys, time; from toolkit.runs import run_table; folder = pathlib.Path(sys.argv[1])\n"
        "while not (folder.parent / 'go').exists(): time.sleep(0.001)\n"
        "run_table.finish(folder, {'run': folder.name, 'started': folder.name, 'macro_f1': 0.5})"
    )
    processes = []
    for run in range(number):
        (scratch / f"run-{run}").mkdir()
        command = [sys.executable, "-c", code, scratch / f"run-{run}"]
        processes.append(subprocess.Popen(command, cwd=faults.ROOT, stdout=subprocess.DEVNULL))
    time.sleep(5)
    (scratch / "go").touch()
    codes = [process.wait(120) for process in processes]
    lines = (scratch / "leaderboard.csv").read_text().splitlines()[1:]
    for run, code in enumerate(codes):
        whole = lines.count(f"run-{run},run-{run},0.5") == 1 and len(lines) == number
        yield "" if whole and code == 0 else f"exit {code}, {len(lines)} lines"


def together(scratch, number, expected, variables):
    runs = scratch / "runs"
    processes = [
        faults.Forked(train.main, scratch / f"log-{run}", SM_MODEL_DIR=runs, RESUME="never", **variables)
        for run in range(number)
    ]
    codes = [process.wait(300) for process in processes]
    names = [path for path in runs.iterdir() if path.is_dir()]
    for code, path in itertools.zip_longest(codes, names):
        yield f"exit {code}" if code or path is None else faults.differing(path, expected)


if __name__ == "__main__":
    main()
