"""Every script gets a signal at a random instant of its first seconds, as real processes that import all anew."""

import contextlib
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from faults import ROOT, SMALL, environment

FIRST_SECONDS = 5.0
AT_ONCE = 2  # processes: more would only be slower
HANGS_SECONDS = 60.0


def commands(data: pathlib.Path, runs: pathlib.Path, out: pathlib.Path) -> dict[str, dict]:
    """{script: its settings} of all scripts. `runs` has a finished run; what they write goes to the folder `out`."""
    train, evaluated, truth = data / "train", data / "eval", data / "eval"
    runs_here = {"SM_CHANNEL_MODEL": runs, "DEVICE": "cpu", "NAME": SMALL["NAME"]}
    small = {key: value for key, value in SMALL.items() if key not in ("NAME", "CHECKPOINT_SECONDS")}
    long = small | {"EPOCHS": "10000", "SM_CHANNEL_TRAIN": train}
    answer = {"SM_OUTPUT_DATA_DIR": out}
    boards = {"SM_CHANNEL_EVAL": evaluated, "SM_GROUND_TRUTH_DIR": truth, "SM_MODEL_DIR": out / "runs"}
    scripts = {
        "train.py": long | {"SM_MODEL_DIR": out, "NAME": SMALL["NAME"]},
        "inference.py": {"SM_CHANNEL_EVAL": evaluated, **runs_here, **answer},
        "evaluation.py": {"SM_GROUND_TRUTH_DIR": truth, **answer},
        "dataset.py": {"SM_CHANNEL_TRAIN": train, **answer},
        "suspects.py": long | {"NAME": SMALL["NAME"], **answer},
        "leaderboard.py": long | {"NAMES": SMALL["NAME"], **boards, **answer},
        "export.py": {**runs_here, **answer},
        "serve.py": runs_here | {"SERVE_PORT": 0},
    }  # fmt: skip
    return {script: {**settings, "TMPDIR": out} for script, settings in scripts.items()}


def stopped(scratch: pathlib.Path, data: pathlib.Path, runs: pathlib.Path, number: int, times: int, seed: int):
    """The outcome of every try, the scripts in turn: see `outcome`."""
    draws = random.Random(seed)

    def settings_of(script: str, out: pathlib.Path) -> dict:
        out.mkdir()
        (out / "output.csv").write_bytes((data / "eval" / "gt.csv").read_bytes())  # for evaluation.py
        return commands(data, runs, out)[script]

    def try_one(index: int, script: str, share: float) -> str:
        out = scratch / f"{int(number)}-{index}"
        return outcome(script, settings_of(script, out), out, number, share * lengths[script])

    lengths = {}
    for script in commands(data, runs, scratch):
        out = scratch / f"{int(number)}-{script}"
        lengths[script] = length(script, settings_of(script, out), out)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(try_one, range(times), itertools.cycle(lengths), iter(draws.random, None))


def start(script: str, settings: dict, out: pathlib.Path) -> subprocess.Popen:
    """In a session of its own; what it prints is in the file log."""
    with (out / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, ROOT / script], cwd=out, env=environment(**settings), stdout=log, stderr=log,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip


def length(script: str, settings: dict, out: pathlib.Path) -> float:
    """Seconds that the script takes undisturbed, at most FIRST_SECONDS."""
    began, process = time.monotonic(), start(script, settings, out)
    try:
        assert process.wait(FIRST_SECONDS) == 0, (out / "log").read_text()
        return time.monotonic() - began
    except subprocess.TimeoutExpired:
        return FIRST_SECONDS
    finally:
        kill_all(out)


def outcome(script: str, settings: dict, out: pathlib.Path, number: int, seconds: float) -> str:
    """Send the script the signal after so many seconds; empty where it then ended by it, or had just done all.

    Without a traceback, within HANGS_SECONDS, and with all that it had started.
    """
    process = start(script, settings, out)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(number)
    sent = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(HANGS_SECONDS)
    code, took = process.returncode, time.monotonic() - sent
    left, text = kill_all(out), (out / "log").read_text(errors="replace")
    shutil.rmtree(out)
    # Before the script's own first lines have run, it is Python that answers: not ours to mend.
    before_ours = r"in <module>\n(    (import signal|from __future__ .*)\n|(?!    ))"
    text = re.sub(rf'"{re.escape(str(ROOT / script))}", line \d+, {before_ours}', "", text)
    if "KeyboardInterrupt" in text and f'"{ROOT / script}"' not in text:
        return ""
    what = f"{script}, {seconds:.2f} s: exit {code} {took:.1f} s later"
    at_end = took < 1 or script == "serve.py"  # which ends so when it serves
    if code not in (-number, 128 + number) and not (code == 0 and at_end):
        return f"{what}: {text[-500:]}"
    if "Traceback" in text or "Exception ignored" in text:
        return f"{what}, with a traceback: {text[-500:]}"
    return f"{what}, and left {left} processes" if left and code is not None else ""


def kill_all(out: pathlib.Path) -> int:
    """Kill all processes that know this folder by their command line or environment. How many there were."""
    found = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another person's
            known = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if re.search(re.escape(os.fsencode(out)) + rb"\b", known):
                os.kill(int(process.name), signal.SIGKILL)
                found += 1
    return found
