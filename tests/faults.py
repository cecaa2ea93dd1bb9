"""Faults on purpose, of any number: the tests try each a few times, `make torture` often (torture.py).

Each function tries one kind of fault again and again, with real files and real processes, and gives an outcome for
every try: an empty text where all went as it should, else what did not.
"""

import hashlib
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import zygote
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoint, Checkpoints  # noqa: E402
from toolkit.runs.weights import load_weights  # noqa: E402
from toolkit.system.console import InputError  # noqa: E402

# A small net with batch norm, some two dozen steps, and a state after each.
SMALL = {
    "NAME": "shufflenet_v2_x0_5", "PRETRAINED": "false", "SIZE": "32x32", "DEVICE": "cpu",
    "EPOCHS": "3", "BATCH_SIZE": "16", "CHECKPOINT_SECONDS": "0",
}  # fmt: skip
TORCHRUN = ("-m", "torch.distributed.run")


def environment(**variables) -> dict[str, str]:
    """Of a script that is started: these settings, none of the surrounding ones, and one thread."""
    keep = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    own = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**keep, **own, **{key: str(value) for key, value in variables.items()}}


def start(script: str, *, launcher=(), largest_file: int | None = None, **variables) -> subprocess.Popen:
    """A process of that script; `largest_file` in bytes is what the disk takes.

    It is a fork of a Python that has torch imported, and so is what a launcher starts unless PYTHON_EXEC names another.
    """
    if launcher:
        variables = {"PYTHON_EXEC": zygote.python(), **variables}

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores it
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        [zygote.python(), *launcher, ROOT / script], cwd=ROOT, env=environment(**variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=prepare,
    )  # fmt: skip


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    """What it printed, once it has ended; killed with all that it started where that takes longer."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0] + "\nstill running: killed"


def results(run: pathlib.Path) -> dict[str, bytes]:
    """What a run has made, but for times: weights bit by bit, tables byte by byte."""
    state, _ = load_weights(run / "model.safetensors")
    weights = {name: value.numpy().tobytes() for name, value in state.items()}
    return {**weights, **{name: (run / name).read_bytes() for name in ("history.csv", "validation.csv")}}


def differing(run: pathlib.Path, expected: dict[str, bytes]) -> str:
    found = results(run)
    names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return f"other results: {', '.join(names[:3])}" if names else ""


CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")  # audit events


class Fault(NamedTuple):
    """What happens at a call that changes files: the process dies by SIGKILL, or the call raises an error."""

    error: int = 0  # its errno; 0 for SIGKILL
    lasts: bool = False  # so do all calls that follow

    @property
    def codes(self) -> tuple[int, ...]:
        """The exit statuses of a script that met it as it should: it may do without what failed, too."""
        return (0, 2) if self.error else (-signal.SIGKILL,)

    def meet(self, path: str) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error), path)
        os.kill(os.getpid(), signal.SIGKILL)


def fail_at(fault: Fault, call: int, folders: tuple[pathlib.Path, ...], counted: pathlib.Path) -> None:
    """Meet the fault at this process's `call`th call that changes what lies below the folders; for 0 count them in a
    file. Errors that do not last (a failing disk) are met at calls that read, too.
    """
    calls, counter = 0, 0 if call else os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    reads = bool(fault.error) and not fault.lasts

    def on_call(path: str) -> None:
        nonlocal calls
        if os.path.isabs(path) and not any(path.startswith(f"{folder}/") for folder in folders):
            return
        calls += 1
        if not call:
            os.pwrite(counter, str(calls).encode(), 0)
        elif calls == call or (fault.lasts and calls > call):
            fault.meet(path)

    def on_event(event: str, given: tuple) -> None:
        if event in CHANGES and isinstance(given[0], str | bytes | os.PathLike):
            writes = event != "open" or given[2] & (os.O_WRONLY | os.O_RDWR)
            path = os.fsdecode(given[0])  # shutil.rmtree gives names in a folder that is open
            if writes or (reads and os.path.isabs(path)):
                on_call(path)

    def fsync(descriptor: int, really=os.fsync) -> None:
        on_call(os.readlink(f"/proc/self/fd/{descriptor}"))
        really(descriptor)

    sys.addaudithook(on_event)
    os.fsync = fsync  # of which there is no event


class Forked:
    """A process of a script that need not import torch: a fork of this one, which has, and whose torch has one thread.

    `main` takes flags; what it says goes to the log. It first calls `prepare`.
    """

    def __init__(
        self,
        main: Callable[[list[str]], None],
        log: pathlib.Path,
        prepare: Callable[[], None] | None = None,
        **variables,
    ):
        if sys.platform == "darwin":
            pytest.skip("on macOS a fork of a process that has computed with Accelerate crashes or hangs")
        self.log, self.returncode, self.pid = log, None, os.fork()
        if self.pid == 0:
            self._run(main, prepare, variables)

    def _run(self, main: Callable, prepare: Callable | None, variables: dict) -> None:
        from toolkit.system import console

        code = 1
        try:
            with self.log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                sys.stdout, sys.stderr, sys.argv = os.fdopen(1, "w"), os.fdopen(2, "w"), ["script"]
                os.environ.clear()
                os.environ.update(environment(**variables))
                signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
                if prepare:
                    prepare()
                console.run(main)
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        finally:
            sys.stdout.flush()
            os._exit(code)

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(60)

    def wait(self, seconds: float) -> int | None:
        """The exit status, negative for a signal; None where it runs on."""
        until = time.monotonic() + seconds
        while self.returncode is None and time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.002)
        return self.returncode


def stopped_runs(
    scratch: pathlib.Path, number: int, stops: int, seed: int, expected: dict, longest: float, **variables
):
    """Runs that get a signal at random instants and are started again until they end, until `stops` were sent.

    A signal comes at most `longest` seconds after a start, as long as a whole run: with less, a busy machine never gets
    to a save. Gives the outcome of every run, how often it was stopped, and the longest that it took to stop, in
    seconds.
    """
    import train

    instants, sent = random.Random(seed), 0
    while sent < stops:
        runs, log, here, slowest, outcome = scratch / f"{number}-{sent}", scratch / "log", 0, 0.0, ""
        log.unlink(missing_ok=True)
        while not outcome:
            process = Forked(train.main, log, SM_MODEL_DIR=runs, **variables)
            if process.wait(instants.uniform(0.02, longest)) is None:
                os.kill(process.pid, number)
                here += 1
            began = time.monotonic()
            code = process.wait(60)
            slowest = max(slowest, time.monotonic() - began) if code else slowest
            if code not in (0, -number if number == signal.SIGKILL else 128 + number):
                outcome = f"exit {code}: {log.read_text()[-500:]}"
                process.kill()
            if code == 0:
                break
        there = sorted(path.name for path in runs.iterdir())
        if not outcome and there != sorted([variables["NAME"], "leaderboard.csv", "leaderboard.html"]):
            outcome = f"found {there}"
        sent += here
        yield outcome or differing(runs / variables["NAME"], expected), here, slowest
        shutil.rmtree(runs)


def failing_calls(
    main: Callable,
    folder: pathlib.Path,
    most: int,
    seed: int,
    read: Callable[[], dict],
    fault: Fault,
    check=lambda: "",
    lost: str = "",
    data: pathlib.Path | None = None,
    **variables,
):
    """A process that meets a fault at one call that changes files below `folder`, for each of them in turn or `most`,
    and is then started again: an outcome each. Errors that do not last are met below `data`, too.

    `folder` may hold something already. `check` looks at what was killed; the folder `lost` in it is then lost with the
    machine; `read` gives what must be there at the end as if nothing had happened.
    """
    log, counted, before = folder.with_suffix(".log"), folder.with_suffix(".calls"), folder.with_suffix(".before")
    shutil.copytree(folder, before)
    watched = (folder, data) if data else (folder,)

    def ended(call: int | None) -> int | None:
        prepare = None if call is None else partial(fail_at, fault, call, watched, counted)
        process = Forked(main, log, prepare, **variables)
        code = process.wait(600)
        process.kill()
        return code

    assert ended(0) == 0, log.read_text()
    expected, calls = read(), int(counted.read_text())
    for call in sorted(random.Random(seed).sample(range(1, calls + 1), min(most, calls))):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        log.unlink()
        first, outcome, printed = ended(call), check(), log.read_text()
        if lost:
            shutil.rmtree(folder / lost, ignore_errors=True)
        again = ended(None)
        if first not in fault.codes or again != 0 or "Traceback" in printed:
            outcome = f"exit {first}, then {again}: {log.read_text()[-1500:]}"
        elif not outcome and (found := read()) != expected:
            differing = dict(found.items() ^ expected.items())
            outcome = f"exit {first}, other results or files: {', '.join(sorted(differing)[:5])}: {printed[-500:]}"
        yield outcome and f"at call {call} of {calls}: {outcome}"


def tree(folder: pathlib.Path, *compared: str) -> dict[str, str]:
    """{path below the folder: a digest of the files whose names are `compared`, "" of others}."""
    found = {}
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.name in compared else b""
        if content and path.suffix == ".safetensors":  # whose header has no order
            state, _ = load_weights(path)
            content = b"".join(state[name].numpy().tobytes() for name in sorted(state))
        found[path.relative_to(folder).as_posix()] = content and hashlib.sha256(content).hexdigest()
    return found


def damaged_files(scratch: pathlib.Path, weights: pathlib.Path, flips: int, truncations: int, seed: int):
    """Weights and the newer of two states, with a bit flipped or cut short: refused, and the older state used."""
    import torch

    draws, states = random.Random(seed), scratch / "states"
    states.mkdir()
    for epoch in (1, 2):
        tensors = {"model.weight": torch.randn(200, 200), "best.weight": torch.randn(10)}
        Checkpoints(states).save(Checkpoint({"settings": {"lr": 0.1}}, "now", epoch=epoch, tensors=tensors))
    newer = Checkpoints(states).newest_first()[0]
    for number in range(flips + truncations):
        path = (weights, newer)[number % 2]
        content = whole = path.read_bytes()
        if number < flips:  # half of them in the header, which is small and says what all the rest means
            place = draws.randrange(len(content) if number % 4 < 2 else 8 + int.from_bytes(content[:8], "little"))
            content = bytearray(content)
            content[place] ^= 1 << draws.randrange(8)
        else:
            content = content[: draws.randrange(len(content))]
        path.write_bytes(content)
        outcome = "taken as whole"
        if path == weights:
            try:
                load_weights(path)
            except InputError as error:
                outcome = "" if str(path) in str(error) and "\n" not in str(error) else str(error)
        else:
            state = Checkpoints(states).load()
            outcome = "" if state and state.epoch == 1 else "taken as whole" if state else "both are lost"
        path.write_bytes(whole)
        yield outcome


def malicious_files(marker: pathlib.Path) -> dict[str, bytes]:
    """Four kinds of files that make `marker` when they are unpickled without care."""
    import io
    import pickle
    import tarfile
    import zipfile

    import torch

    class Malicious:
        def __reduce__(self):
            return (os.system, (f"touch '{marker}'",))

    plain = pickle.dumps(Malicious())
    zipped, legacy, tarred = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weight": Malicious()}, zipped)
    torch.save({"weight": Malicious()}, legacy, _use_new_zipfile_serialization=False)
    with tarfile.open(fileobj=tarred, mode="w") as archive:  # torch's first format
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(plain)
            archive.addfile(info, io.BytesIO(plain))
    assert zipfile.is_zipfile(zipped)
    return {
        "pickle": plain, "zip": zipped.getvalue(), "legacy": legacy.getvalue(), "tar": tarred.getvalue(),
    }  # fmt: skip


def full_disks(scratch: pathlib.Path, sizes: list[int], expected: dict, **variables):
    """A run that was killed goes on where no file can be larger than `sizes`; then where there is room again."""
    runs, name = scratch / "runs", variables["NAME"]
    process = start("train.py", SM_MODEL_DIR=runs, **variables)
    wait_for(runs / name / CHECKPOINTS[1], process)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    for size in sizes:
        here = scratch / str(size)
        shutil.copytree(runs, here)
        before = Checkpoints(here / name).load().steps
        process = start("train.py", SM_MODEL_DIR=here, largest_file=size, **variables)
        printed = finish(process)
        after = Checkpoints(here / name).load()
        words = ("cannot be written", "expected room for", str(here))
        if process.returncode != 2 or "Traceback" in printed or not all(word in printed for word in words):
            yield f"exit {process.returncode}: {printed[-300:]}"
        elif after is None or after.steps < before:
            yield "the state before is lost"
        else:
            process = start("train.py", SM_MODEL_DIR=here, **variables)
            printed = finish(process)
            yield differing(here / name, expected) if process.returncode == 0 else printed[-300:]
        shutil.rmtree(here)


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def mutated_photographs(folder: pathlib.Path, number: int, seed: int) -> list[pathlib.Path]:
    """JPEGs and PNGs with bytes changed, cut, doubled, moved, and sides of any length in their headers."""
    draws, originals = random.Random(seed), []
    picture = np.random.default_rng(seed).integers(0, 255, (16, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for mode in ("RGB", "L", "CMYK", "P", "RGBA", "1", "I;16"):
        for extension in ("jpg", "png"):
            path = folder / f"original.{extension}"
            try:
                photo = Image.fromarray(picture[..., 0].astype(np.uint16) * 256) if mode == "I;16" else None
                (photo or Image.fromarray(picture).convert(mode)).save(path)
            except (OSError, KeyError):  # no JPEG of this mode
                path.unlink(missing_ok=True)
                continue
            originals.append((extension, path.read_bytes()))
            path.unlink()
    paths = []
    for index in range(number):
        extension, content = originals[index % len(originals)]
        content = bytearray(content)
        for _ in range(draws.randint(1, 4)):
            place, end = sorted(draws.randrange(len(content) + 1) for _ in range(2))
            how = draws.randrange(5)
            if how == 0 and place < len(content):
                content[place] = draws.randrange(256)
            elif how == 1 and len(content) > 40:  # the header
                content[draws.randrange(40)] = draws.randrange(256)
            elif how == 2:
                content = content[: max(end, 1)]
            elif how == 3:
                content[place:place] = content[place:end][:1000]
            else:
                content[place : place + draws.randint(1, 60)] = draws.randbytes(draws.randint(0, 60))
        paths.append(folder / f"{index}.{extension}")
        paths[-1].write_bytes(content)
    return paths
