"""benchmarks/gpu.py on a CPU: it is written for machines that are at hand for minutes."""

import json
import subprocess

import zygote
from conftest import ROOT
from faults import environment

# A few drawn faces in place of many large ones, and two parts that end badly.
PROGRAM = f"""
import os, pathlib, signal, sys, time
sys.path[:0] = [{str(ROOT / "benchmarks")!r}, {str(ROOT)!r}]
import gpu, gpu_correctness, gpu_throughput
train, out = sys.argv[1:]

def draw(setup):
    images = setup.scratch / "few" / "images"
    images.mkdir(parents=True)
    for person in sorted(pathlib.Path(train).iterdir())[:8]:
        (images / person.name).symlink_to(person)

def dies(setup):
    setup.measure("before", lambda: {{"number": 1}})
    setup.measure("fails", lambda: {{}}[0])
    os.kill(os.getpid(), signal.SIGSEGV)

gpu_throughput.draw = draw
own = {{"dies": (dies, 6), "hangs": (lambda setup: time.sleep(60), 0.02), "guard": (gpu_correctness.guard, 6)}}
gpu.parts = lambda scale: own
for _ in range(2):
    gpu.main(["--out", out, "--device", "cpu", "--quick", "--seconds", "120"])
"""


def test_what_fails_dies_or_hangs_leaves_a_line_and_the_others_alone(drawn, tmp_path):
    command = [zygote.python(), "-c", PROGRAM, drawn.train, tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    names = [(row["part"], row["name"]) for row in rows]
    found = dict(zip(names, rows, strict=True))
    assert found["dies", "before"]["number"] == 1
    assert found["dies", "fails"]["failed"] == "KeyError: 0"
    assert found["dies", "all"]["failed"] == "the process ended with -11"
    assert found["hangs", "all"]["failed"].startswith("cut off after")
    guarded = [row for row in rows if row["part"] == "guard" and row["name"] != "all"]
    assert len(guarded) == 4 and all(row["ok"] for row in guarded)
    assert "dies, on cpu" in done.stdout and "before                 number 1\n" in done.stdout
    # The second time, what was missing or had failed is measured again, and nothing else.
    second = len(names) - names[::-1].index(("draw", "all")) - 1
    assert names[second:] == [("draw", "all"), ("dies", "fails"), ("dies", "all"), ("hangs", "all")]
