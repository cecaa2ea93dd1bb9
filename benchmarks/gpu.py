"""What only a GPU can tell, in one command of at most 8 minutes: is all right there, and how fast is it?

python benchmarks/gpu.py --out DIR [--seconds 480] [--parts contest,guard] [--timm FILE] [--device cuda] [--quick]

The parts are in gpu_correctness.py, gpu_throughput.py and gpu_trials.py. They run in order of worth, each in a process
of its own: one that fails, hangs or runs out of memory leaves the others alone. As each measurement ends, a line of
JSON goes to DIR/gpu.jsonl; so a run that is cut off keeps what it has, and the same command goes on with what is
missing or failed. The table at the end is of the whole file (`--seconds 0` prints it alone). DIR/log.txt has what parts
print, and tracebacks.

`--timm` names train.py of timm's repository, which its package lacks. `--device cpu --quick` runs the same code on
little of everything, in some minutes on two cores.

On a machine without network that has torch, torchvision, timm, numpy, scipy, pandas, pillow, jinja2, tqdm, safetensors,
onnx, onnxscript and onnxruntime for Python 3.12, only pydantic and simplejpeg are missing. Elsewhere, once (4 MB):

    python -m pip download -d wheels --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 pydantic
    python -m pip download -d wheels --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
--no-deps simplejpeg

There, in the working tree, with the folder wheels in it:

    python3 -m pip install --no-index --no-deps --target packages wheels/*.whl
    PYTHONPATH=$PWD/packages python3 benchmarks/gpu.py --out DIR

To go on on another machine, put gpu.jsonl into its DIR first. Photographs are drawn in each run, on all cores.
"""

import argparse
import contextlib
import dataclasses
import datetime
import gc
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

BEGAN = time.monotonic()  # the imports below may take long on a fresh machine
# So torch looks for GPUs without initialising CUDA: after that, forks of this process could not use them.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gpu_correctness  # noqa: E402
import gpu_throughput  # noqa: E402
import gpu_trials  # noqa: E402
import torch  # noqa: E402

from toolkit.config.types import as_text  # noqa: E402
from toolkit.system.console import first_line  # noqa: E402

TO_PRINT = 5  # seconds that are kept for the table
LEAST = 8  # seconds in which a part can measure anything
SLOWER = 10  # times as long as a GPU a CPU may take for the little of --quick


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything."""

    nets: tuple[str, ...] = ("resnet18", "resnet50", "vgg16", "convnext_tiny")
    script_net: str = "resnet18"  # of scripts that are started
    size: tuple[int, int] = (224, 168)
    small: tuple[int, int] = (128, 96)
    batches: tuple[int, ...] = (64, 256, 32)
    people: int = 540
    copies: int = 5  # links to the same photographs: 18,900 with them, as in the contest
    few: int = 40  # people of another folder, for what is no matter of speed
    epochs: int = 10
    inferred: int = 12_600  # files
    turns: int = 4
    seconds: float = 0.4  # of a measurement in a turn


QUICK = Scale(
    nets=("tiny",), size=(48, 36), small=(32, 32), batches=(8, 4), people=10, copies=1, few=6, epochs=1, inferred=30,
    turns=1, seconds=0.02,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setup:
    """Where and on what a part measures."""

    device: str
    scale: Scale
    out: pathlib.Path
    scratch: pathlib.Path  # with images/ and few/images/
    timm: pathlib.Path | None
    part: str = ""

    @property
    def results(self) -> pathlib.Path:
        return self.out / "gpu.jsonl"

    def rows(self) -> dict[tuple[str, str], dict]:
        """The last line of each measurement, by part and name. A line that was cut off is none."""
        found = {}
        for line in self.results.read_text().splitlines() if self.results.exists() else ():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                found[row["part"], row["name"]] = row
        return found

    def add(self, name: str, values: dict, seconds: float) -> None:
        of_all = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "device": self.device}
        if self.device == "cuda" and torch.cuda.is_initialized():
            of_all["device"] = torch.cuda.get_device_name()
        row = {"part": self.part, "name": name, **values, "took": round(seconds, 1), **of_all}
        with self.results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def measure(self, name: str, function: Callable[..., dict], *args) -> None:
        """Add what the function returns; where it fails, the reason. Does nothing if there is a result already."""
        found = self.rows().get((self.part, name), {"failed": ""})
        if "failed" not in found:
            return
        began = time.monotonic()
        try:
            values = function(*args)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            values = {"failed": f"{type(error).__name__}: {first_line(error)}"}
        self.add(name, values, time.monotonic() - began)
        # Of an error that is handled no frame holds tensors any more.
        gc.collect()
        torch.cuda.empty_cache()


def parts(scale: Scale) -> dict[str, tuple[Callable, float]]:
    """In order of worth, what a part calls with its setup, and the most seconds that it may take."""
    first, second = scale.nets[0], scale.nets[min(1, len(scale.nets) - 1)]

    def rates(*nets: str, size: tuple[int, int] = scale.size) -> dict:
        return {f"rates {net} {as_text(size)}": (gpu_throughput.rates(net, size), 60) for net in nets}

    return {
        "machine": (gpu_throughput.machine, 40),
        "decoding": (gpu_throughput.decoding, 60),
        "contest": (gpu_throughput.contest("contest"), 120),
        "inference": (gpu_throughput.infer, 80),
        "steps": (gpu_correctness.steps, 40),
        "guard": (gpu_correctness.guard, 20),
        "resume": (gpu_correctness.resume, 120),
        "rescue": (gpu_correctness.rescue, 40),
        **rates(first),
        f"loops {first}": (gpu_throughput.loops(first), 70),
        **rates(second),
        f"forms {first}": (gpu_trials.forms(first), 60),
        f"cudnn.benchmark {first}": (gpu_trials.with_cudnn_benchmark(first), 30),
        f"compile {first}": (gpu_trials.compiled(first), 90),
        "contest, batch 256": (gpu_throughput.contest("large", batch_size=256, lr=2.8e-3), 80),
        "learning": (gpu_trials.learning, 100),
        f"loops {second}": (gpu_throughput.loops(second), 70),
        "memory": (gpu_correctness.memory, 30),
        "export": (gpu_correctness.export, 60),
        "start": (gpu_trials.start, 40),
        **rates(first, size=scale.small),
        f"forms {second}": (gpu_trials.forms(second), 80),
        f"cudnn.benchmark {second}": (gpu_trials.with_cudnn_benchmark(second), 30),
        **rates(second, size=scale.small),
        f"compile {second}": (gpu_trials.compiled(second), 120),
        **rates(*scale.nets[2:]),
        **rates(*scale.nets[2:], size=scale.small),
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", default=480, type=float)
    parser.add_argument("--parts", default=[], type=lambda text: text.split(","))
    parser.add_argument("--timm", type=pathlib.Path)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    until, scale = BEGAN + options.seconds - TO_PRINT, QUICK if options.quick else Scale()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {name: part for name, part in parts(scale).items() if not options.parts or name in options.parts}
    with tempfile.TemporaryDirectory() as scratch:
        setup = Setup(options.device, scale, options.out.absolute(), pathlib.Path(scratch), options.timm)
        for name, (function, most) in {"draw": (gpu_throughput.draw, 90), **chosen}.items():
            here, left = dataclasses.replace(setup, part=name), until - time.monotonic()
            is_through = "failed" not in here.rows().get((name, "all"), {"failed": "not begun"})
            if left < LEAST:
                print(f"{name}: no time left", flush=True)
            elif name == "draw" or not is_through:
                run(here, function, min(SLOWER * most if options.quick else most, left))
    report(setup.rows())


def run(setup: Setup, function: Callable, seconds: float) -> None:
    """A part, in a process of its own, for at most so long. The line "all" says that it is through, or how it ended.

    A fork: the imports of this process, which never touches the GPU, are those of all parts.
    """
    began = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=child, args=(setup, function))
    process.start()
    process.join(seconds)
    ended = process.exitcode
    with contextlib.suppress(ProcessLookupError):  # whatever it started and left behind, too
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    took = time.monotonic() - began
    failed = any("failed" in row for (part, name), row in setup.rows().items() if part == setup.part and name != "all")
    if ended != 0:
        how = f"cut off after {took:.0f} s" if ended is None else f"the process ended with {ended}"
        setup.add("all", {"failed": how}, took)
    elif not failed:
        setup.add("all", {}, took)
    print(f"{setup.part}: {took:.1f} s{'' if ended == 0 and not failed else ', failed'}", flush=True)


def child(setup: Setup, function: Callable) -> None:
    os.setsid()  # a group of its own, which ends as a whole
    with (setup.out / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    print(f"\n{setup.part}", flush=True)
    function(setup)


TARGETS = (  # what, part, name, the value of a row, the least or the most that is wanted
    ("contest run, seconds", "contest", "train.py", lambda row: row["seconds"], "<=", 120),
    ("inference of all files, seconds", "inference", "files", lambda row: row["seconds"], "<=", 12),
    *(
        (f"{net}: ours augmented / limit, {batch}", f"rates {net} 224x168", batch,
         lambda row: row["ours, augmented"][0] / row["limit"][0], ">=", 0.95)
        for net in ("resnet18", "resnet50") for batch in ("batch 64", "batch 256")
    ),
)  # fmt: skip


def report(rows: dict[tuple[str, str], dict]) -> None:
    """The table, and what became of the targets."""
    part = None
    for (of_part, name), row in rows.items():
        values = {key: value for key, value in row.items() if key not in ("part", "name", "took", "date", "device")}
        if not values:
            continue
        if of_part != part:
            part = of_part
            print(f"\n{part}, on {row['device']}")
        print(f"  {name:22} {as_line(values)}")
    print("\ntargets")
    for what, part, name, value, sign, wanted in TARGETS:
        with contextlib.suppress(KeyError):  # not measured
            found = value(rows[part, name])
            good = found <= wanted if sign == "<=" else found >= wanted
            print(f"  {what:44} {found:8.3f}  wanted {sign} {wanted}: {'reached' if good else 'missed'}")
    for net in ("resnet18", "resnet50"):
        with contextlib.suppress(KeyError):
            ours = rows[f"rates {net} 224x168", "batch 64"]["ours, augmented"][0]
            for (part, name), row in rows.items():
                if part == f"loops {net}" and "rate" in row:
                    print(f"  {net}: {'ours augmented / ' + name:35} {ours / statistics.median(row['rate']):8.3f}")


def as_line(values: dict) -> str:
    """Values as text: of three numbers, a median with the smallest and the largest."""
    cells = []
    for key, value in values.items():
        if isinstance(value, dict):
            cells.append(f"{key}: ({as_line(value)})")
        elif isinstance(value, list) and len(value) == 3 and not any(isinstance(one, str) for one in value):
            cells.append(f"{key} {value[0]:.5g} ({value[1]:.5g}-{value[2]:.5g})")
        else:
            cells.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(cells)


if __name__ == "__main__":
    main(sys.argv[1:])
