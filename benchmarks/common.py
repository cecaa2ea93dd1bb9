"""What benchmarks share: the repository on Python's path, flags, turns, medians, and scripts as people run them.

The imports of a benchmark begin with `import common`, and after that line they find the repository.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def parser(docstring: str) -> argparse.ArgumentParser:
    """--help shows the docstring as it is written."""
    return argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)


def words(text: str) -> list[str]:
    """The value of a flag, such as resnet18,alexnet."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def in_turns(ways: dict[Hashable, Callable], turns: int, warm_up: int = 0) -> dict[Hashable, list]:
    """What each way returns in each turn. A machine that slows down then slows down all ways alike.

    The results of the first `warm_up` turns are left out.
    """
    found = {way: [] for way in ways}
    for _ in range(warm_up + turns):
        for way, measure in ways.items():
            found[way].append(measure())
    return {way: values[warm_up:] for way, values in found.items()}


def seconds(work: Callable) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def summary(values: list[float]) -> list[float]:
    """The median, the lowest and the highest."""
    return [statistics.median(values), min(values), max(values)]


def as_text(values: list[float], form: str = ".2f") -> str:
    """Such as "0.52 (0.50-0.61)": the median with the lowest and the highest."""
    return "{} ({}-{})".format(*(format(value, form) for value in summary(values)))


def run_script(script: str, *flags: str, **variables) -> str:
    """What train.py, say, prints. If it fails, this process ends with its error message."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = [sys.executable, ROOT / script, *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def run_code(code: str, *words, stdin: str | None = None) -> subprocess.CompletedProcess:
    """What a new Python does with this code, in the folder of the repository, and what it prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, input=stdin, check=True, capture_output=True, text=True)


def commit() -> str:
    """The commit that is checked out, with a + behind it if files differ from it."""
    git = ["git", "-C", ROOT]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout
    return f"{name}+" if changed else name
