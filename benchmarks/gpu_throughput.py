"""How fast it is on a GPU, and what would make it faster: parts of gpu.py.

Rates are photographs per second: lists of the median, the smallest and the largest over the turns. "limit" is the same
net in the same form on one batch that is there already, and nothing else; see throughput.py for the other ways.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import common
import photographs
import timed
import torch
import torchvision
from throughput import LR, Bench
from torch import nn

import dataset
import model
from toolkit.config.types import as_text
from toolkit.data import decode, photo_file
from toolkit.data.framing import Framing
from toolkit.data.store import CHUNK, Store, cpu_count
from toolkit.labels import CLASSES
from toolkit.runs.weights import WEIGHTS

LOOP_TURNS = 2  # of the loops that read files: their workers need a second to begin with
FIRST_STEPS = 4  # that tell how many make a measurement


def tiny(outputs: int) -> nn.Module:
    """A net for --quick."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(16, outputs),
    )  # fmt: skip


model.OWN["tiny"] = tiny


def draw(setup) -> None:
    """All photographs, and a few in another folder: in each run anew."""
    scale, began = setup.scale, time.monotonic()
    photographs.make(setup.scratch, scale.people, scale.copies)
    photographs.make(setup.scratch / "few", scale.few)
    setup.add("photographs", {"drawn": 7 * (scale.people + scale.few)}, time.monotonic() - began)


def machine(setup) -> None:
    def versions() -> dict:
        import timm

        found = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
        found |= {"python": platform.python_version(), "cpus": cpu_count()}
        if setup.device == "cuda":
            found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
            found |= {"gpu_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)}
        return found

    def ceilings() -> dict:
        """What the hardware gives: a product of bf16 matrices, and copies."""
        side = 8192 if setup.device == "cuda" else 128
        one, other = (torch.randn(side, side, device=setup.device, dtype=torch.bfloat16) for _ in range(2))
        host = torch.empty(2**30 if setup.device == "cuda" else 2**20, dtype=torch.uint8)
        host = host.pin_memory() if setup.device == "cuda" else host
        there = host.to(setup.device)
        product = median_seconds(setup, lambda: one @ other)
        within = median_seconds(setup, lambda: there.clone())
        to_gpu = median_seconds(setup, lambda: there.copy_(host))
        return {
            "bf16_tflops": 2 * side**3 / product / 1e12,
            "copy_gb_per_s": 2 * len(host) / within / 1e9,  # read and written
            "to_gpu_gb_per_s": len(host) / to_gpu / 1e9,
        }

    setup.measure("versions", versions)
    setup.measure("ceilings", ceilings)


def decoding(setup) -> None:
    """Photographs per second into the store, by threads, and by processes that give no pixels back."""
    table, _ = dataset.read_faces(setup.scratch)
    paths, framing = dataset.paths(table, setup.scratch), Framing(setup.scale.size)

    def by_threads(count: int | None = None) -> dict:
        store = Store(paths, framing)
        if count:
            store._useful_threads = lambda: count
        taken = seconds_to(setup, store.fill)
        return {"threads": store.threads, "rate": len(store) / taken}

    def by_processes() -> dict:
        with multiprocessing.get_context("fork").Pool(cpu_count()) as pool:
            work = functools.partial(size_of, framing)
            taken = seconds_to(setup, lambda: sum(pool.imap_unordered(work, paths, CHUNK)))
        return {"processes": cpu_count(), "rate": len(paths) / taken}

    setup.measure("as it is", by_threads)
    for count in (1, 2, 3, 4, 6, 8, 16):
        setup.measure(f"{count} threads", by_threads, count)
    setup.measure("processes", by_processes)


def size_of(framing: Framing, path: bytes) -> int:
    """Bytes of a photograph's pixels."""
    return decode.decode_bytes(photo_file.read(path), framing).size


def now(setup) -> float:
    if setup.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_to(setup, work: Callable) -> float:
    began = now(setup)
    work()
    return now(setup) - began


def median_seconds(setup, work: Callable, times: int = 10) -> float:
    """Of single calls, after three that warm up."""
    return statistics.median([seconds_to(setup, work) for _ in range(3 + times)][3:])


@contextlib.contextmanager
def backends(**values):
    """Settings of torch.backends: names have __ for dots."""
    before = {}
    for name, value in values.items():
        *outer, last = name.split("__")
        owner = functools.reduce(getattr, outer, torch.backends)
        before[name] = owner, last, getattr(owner, last)
        setattr(owner, last, value)
    try:
        yield
    finally:
        for owner, last, value in before.values():
            setattr(owner, last, value)


no_tf32 = functools.partial(backends, cuda__matmul__allow_tf32=False, cudnn__allow_tf32=False)


def run_timed(script: str, **flags) -> tuple[str, dict]:
    """A script as people start it: what it printed, and its seconds and memory (timed.py)."""
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    began = time.monotonic()
    done = subprocess.run([sys.executable, timed.__file__, script, *words], capture_output=True, text=True)
    took = time.monotonic() - began
    print(done.stdout, done.stderr, flush=True)
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}")
    *_, last = done.stdout.strip().splitlines()
    return done.stdout, {"seconds": took, **json.loads(last)}


def contest(run: str, **given) -> Callable:
    """train.py as a contest would have it, with these settings."""

    def part(setup) -> None:
        scale = setup.scale

        def trained() -> dict:
            said, values = run_timed(
                "train.py", sm_channel_train=setup.scratch / "images", sm_model_dir=setup.scratch / "runs", run=run,
                name=scale.script_net, size=as_text(scale.size), epochs=scale.epochs, weights="none",
                device=setup.device, **given,
            )  # fmt: skip
            rates = [float(rate) for rate in re.findall(r"([\d.]+) photographs/s", said)]
            score = json.loads((setup.scratch / "runs" / run / "result.json").read_text())["macro_f1"]
            return values | {"macro_f1": score, "rate": common.summary(rates)}

        setup.measure("train.py", trained)

    return part


def infer(setup) -> None:
    """inference.py from files to output.csv, as people start it; and its prediction alone, beside the limit."""
    scale = setup.scale

    @functools.cache
    def bench() -> Bench:
        return Bench(scale.nets[0], scale.size, setup.scratch, most=scale.inferred, where=setup.device)

    @functools.cache
    def trained() -> nn.Module:
        return bench().trained()

    def from_files() -> dict:
        run = setup.scratch / "runs" / "contest"
        if not (run / WEIGHTS).exists():  # in a run that had no contest
            bench().write_run(trained())
            run = setup.scratch / "run"
        table, _ = dataset.read_faces(setup.scratch)
        names = dataset.paths(table).astype(str)[: scale.inferred]
        (setup.scratch / "info.csv").write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in names))
        _, values = run_timed(
            "inference.py", sm_channel_eval=setup.scratch, sm_channel_model=run, device=setup.device,
            sm_output_data_dir=setup.scratch / "out",
        )  # fmt: skip
        return {"photographs": len(names), **values}

    def decoded() -> dict:
        ways = {"ours": bench().infer_decoded(trained()), "limit": bench().infer_limit(trained())}
        return in_turns(ways, scale.turns)

    setup.measure("files", from_files)
    setup.measure("files, again", from_files)
    setup.measure("decoded", decoded)


def rates(net: str, size: tuple[int, int]) -> Callable:
    """Ours, bare and augmented, beside the limit, for each batch size."""

    def part(setup) -> None:
        bench = make_bench(setup, net, size)

        def of(batch: int) -> dict:
            one = bench()
            one.batch, one.steps = batch, FIRST_STEPS
            augmented = one.train_ours("light")
            peak = peak_gib(setup, augmented)
            ways = {"ours": one.train_ours("none"), "ours, augmented": augmented, "limit": one.train_limit()}
            choose_steps(setup, one, ways["limit"])
            found = in_turns(ways, setup.scale.turns)
            ratio = found["ours, augmented"][0] / found["limit"][0]
            return {**found, "augmented / limit": ratio, "peak_gib": peak}

        for batch in setup.scale.batches:
            setup.measure(f"batch {batch}", of, batch)

    return part


def make_bench(setup, net: str, size: tuple[int, int] | None = None) -> Callable[[], Bench]:
    """A function that gives the bench, made when it is called first, on all photographs."""
    return functools.cache(lambda: Bench(net, size or setup.scale.size, setup.scratch, where=setup.device))


def choose_steps(setup, bench: Bench, measure: Callable[[], float]) -> None:
    """So many that a measurement takes about as long as the scale says, and has photographs enough."""
    measure()  # the first one chooses algorithms
    per_second = measure() / bench.batch
    most = len(bench.everything) // bench.batch
    bench.steps = max(min(round(per_second * setup.scale.seconds), most), FIRST_STEPS)


def in_turns(ways: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    found = common.in_turns(ways, turns, warm_up=1)
    return {way: common.summary(values) for way, values in found.items()}


def peak_gib(setup, work: Callable) -> float | None:
    if setup.device != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() / 2**30


def loops(net: str) -> Callable:
    """The loops that people write, which read files at each epoch; timm's own parts in such a loop; timm's script."""

    def part(setup) -> None:
        bench = make_bench(setup, net)

        def loop(careful: bool, loader: Callable = lambda bench: None) -> dict:
            one = bench()
            one.batch, one.steps = setup.scale.batches[0], FIRST_STEPS
            choose_steps(setup, one, one.train_limit())
            measure = one.train_loop(careful, loader(one))
            return {"rate": common.summary([measure() for _ in range(LOOP_TURNS)])}

        setup.measure("plain", loop, False)
        setup.measure("careful", loop, True)
        setup.measure("timm's loader, careful", loop, True, timm_loader)
        if setup.timm:
            setup.measure("timm's script", timm_script, setup, net)

    return part


def timm_loader(bench: Bench):
    """As timm's script makes it: batches of bytes, normalised on the GPU while the net works on the one before."""
    from timm.data import create_loader

    return create_loader(
        bench.plain_loader([]).dataset, (3, *bench.size), bench.batch, is_training=True, scale=(0.8, 1.0),
        color_jitter=0.0, interpolation="bilinear", mean=model.MEAN, std=model.STD, num_workers=cpu_count(),
        pin_memory=bench.cuda, device=bench.machine.device, persistent_workers=True,
    )  # fmt: skip


def timm_script(setup, net: str) -> dict:
    """The rate over the second half of an epoch of timm's train.py, with the flags that make it fastest."""
    size, batch = setup.scale.size, setup.scale.batches[0]
    name = setup.scale.script_net if net in model.OWN else net
    folder = setup.scratch / f"timm {net}"
    table, _ = dataset.read_faces(setup.scratch)
    paths, labels = dataset.paths(table, setup.scratch), dataset.labels(table)
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        for side in ("train", "validation") if number < 2 * batch else ("train",):
            place = folder / side / f"{label:02}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(path, os.fsencode(place / f"{number}.jpg"))
    flags = {
        "data-dir": folder, "model": name, "num-classes": CLASSES, "input-size": ("3", *map(str, size)),
        "batch-size": batch, "epochs": 1, "warmup-epochs": 0, "workers": cpu_count(), "device": setup.device,
        "opt": "adamw", "lr": LR, "color-jitter": 0, "scale": ("0.8", "1.0"), "amp-dtype": "bfloat16",
        "log-interval": 1, "output": folder / "out",
    }  # fmt: skip
    words = [f"--{name}" for name in ("amp", "channels-last", "pin-mem")]
    for name, value in flags.items():
        words += [f"--{name}", *(value if isinstance(value, tuple) else [str(value)])]
    done = subprocess.run([sys.executable, setup.timm.absolute(), *words], cwd=folder, capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    # Train: 0 [  20/294 (  7%)]  Loss: ...  Time: 0.033s, 1920.12/s  (0.040s, 1580.34/s): now, and the mean so far
    lines = re.findall(r"Train: 0 \[ *(\d+)/.*?\( *[\d.]+s, +([\d.]+)/s\)", done.stdout + done.stderr)
    if done.returncode or len(lines) < 4:
        raise RuntimeError(f"timm's script ended with {done.returncode}; see log.txt")
    until = {int(step) + 1: (int(step) + 1) * batch / float(rate) for step, rate in lines}  # steps: seconds
    # Not the last step, whose batch may be short.
    last, half = sorted(until)[-2], sorted(until)[len(until) // 2]
    rate = (last - half) * batch / (until[last] - until[half])
    return {"rate": [rate]}
