"""Signals end every script, whatever it does at that moment, and what it has started with it."""

import os
import signal
import subprocess
import sys
import time

import pytest
import zygote
from conftest import ROOT, environment
from faults import SMALL

from toolkit.config.settings import SCRIPTS
from toolkit.system import signals

SENT = """
import os, pathlib, signal, sys, time
sys.path.insert(0, sys.argv[1])
from toolkit.system import console
def send(number=signal.SIGTERM): os.kill(os.getpid(), number); time.sleep(0.01)
def main(argv):
    {}
    for _ in range(100): time.sleep(0.05)
    print("went on")
console.run(main)
"""
LOST = """try:
        send()
        time.sleep(1)
    except BaseException: pass"""
TAKEN_FOR_ANOTHER = """try:
        send()
        time.sleep(1)
    except BaseException: raise console.InputError("the file is damaged") from None"""
CLEANS_UP = """try:
        send()
        time.sleep(1)
    finally:
        time.sleep(0.3)
        print("cleaned up")"""
IN_A_CALLBACK = """import weakref
    class Thing: pass
    thing = Thing()
    reference = weakref.ref(thing, lambda _: (send(), time.sleep(0.1)))
    del thing"""
CASES = {
    "import swallows": 143, LOST: 143, TAKEN_FOR_ANOTHER: 143, CLEANS_UP: 143, IN_A_CALLBACK: 143,
    "send(signal.SIGINT)": 130, "send(signal.SIGHUP); send(signal.SIGHUP)": 129,
    "send(signal.SIGUSR1)": 128 + signal.SIGUSR1,
}  # fmt: skip


def heard() -> None:
    """What runs under nohup, or in the background, ignores them, and so do its children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_a_signal_that_python_or_a_library_swallows_is_raised_again_and_what_cleans_up_is_not_disturbed(tmp_path):
    swallows = "import os, signal, time\ntry:\n os.kill(os.getpid(), 15)\n time.sleep(.2)\nexcept BaseException: pass\n"
    (tmp_path / "swallows.py").write_text(swallows)
    processes = [
        subprocess.Popen(
            [zygote.python(), "-c", SENT.format(case), tmp_path],
            cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard,
        )
        for case in CASES
    ]  # fmt: skip
    for (case, status), process in zip(CASES.items(), processes, strict=True):
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == status, (case, errors)
        assert errors == ("interrupted\n" if status == 130 else "terminated\n"), case
        assert printed == ("cleaned up\n" if case == CLEANS_UP else "")


def test_ctrl_c_waits_for_the_end_of_a_step_where_a_notebook_has_imported_the_scripts():
    """There the handler is Python's own. Without this a step was cut short, saved, and then done again."""
    before, done = signal.signal(signal.SIGINT, signal.default_int_handler), []
    try:
        with pytest.raises(KeyboardInterrupt), signals.defer_signals():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("the step")
        assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with signals.defer_signals():
            pass
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_in_the_first_imports_of_a_script_prints_nothing(script, tmp_path):
    (tmp_path / "pydantic.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)")
    done = subprocess.run(
        [sys.executable, ROOT / script], env=environment(PYTHONPATH=tmp_path), capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_script_that_another_one_started_ends_with_it_and_has_saved(drawn, tmp_path):
    """leaderboard.py is killed. Otherwise its train.py, in a session of its own, would train on beside the next one."""
    given = {key: value for key, value in SMALL.items() if key != "NAME"} | {"NAMES": SMALL["NAME"], "EPOCHS": "1000"}
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "SM_CHANNEL_EVAL": drawn.eval}
    folders |= {"SM_GROUND_TRUTH_DIR": drawn.eval, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    process = subprocess.Popen(
        [zygote.python(), ROOT / "leaderboard.py"], cwd=ROOT, env=environment(**given, **folders)
    )
    log = tmp_path / "out" / SMALL["NAME"] / "train.log"
    while not list((tmp_path / "runs").rglob("state-*.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while not log.read_text().endswith("terminated\n") and time.monotonic() < until:
        time.sleep(0.02)
    assert "saved at epoch 1" in log.read_text() and log.read_text().endswith("terminated\n")


STARTING = """
import os, pathlib, signal, subprocess, sys
from toolkit.system import console, subprocesses
class Started(subprocess.Popen):
    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        print(self.pid, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass  # where a signal is raised
subprocess.Popen = Started
console.run(lambda argv: subprocesses.run(sys.argv[1], [], os.environ))
"""


def test_a_script_that_is_being_started_when_a_signal_comes_ends_with_its_starter(tmp_path):
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(60)\n")
    done = subprocess.run(
        [zygote.python(), "-c", STARTING, tmp_path / "sleeps.py"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 143 and done.stderr.endswith("terminated\n"), done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
