"""How many photographs do servers answer a second, and how soon, beside inference.py on the same cores?

python benchmarks/serving.py [--servers serve.py,deployment.py,torchserve] [--clients 8,32,128] [--seconds 60] ...

An untrained net, JPEGs of 384x512 of drawn faces. Each client sends one photograph after another on one connection, and
compares the answer with that of inference.py: "wrong" counts classes that differ, probabilities that do by over 1e-6,
and statuses other than 200. Clients are one process, on the same cores. Turns of inference.py (decoding and predicting
from files, without its start) and of all servers and numbers of clients alternate. The first ratio is that of the
rates. "CPU ms" is what a photograph costs all processes of the server; the last ratio is that of these costs, for where
other programs run beside. deployment.py wants Ray, TorchServe `make sagemaker` and Java 17.
"""

import asyncio
import contextlib
import io
import json
import multiprocessing
import pathlib
import re
import tempfile
import time

import common
import numpy as np
import photographs
import servers
import torch

import export
import inference
import model
from toolkit.config.types import height_and_width
from toolkit.data.framing import Framing
from toolkit.labels import CLASSES
from toolkit.runs.weights import Header, save_weights
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection

TOLERANCE = 1.5e-6  # of probabilities, of which a response has six digits
ROW = "| {:>13} | {:>7} | {:>9} | {:>7} | {:>7} | {:>7} | {:>5} | {:>5} | {:>7} | {:>5} | {:>6} | {:>5} |"
HEAD = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
COLUMNS = (
    "server", "clients", "answers/s", "p50 ms", "p95 ms", "p99 ms", "wrong", "lost", "RSS MiB", "ratio", "CPU ms",
    "ratio",
)  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--servers", default="serve.py", type=common.words)
    parser.add_argument("--clients", default="8,32,128", type=common.numbers)
    parser.add_argument("--seconds", default=60.0, type=float, help="of each turn")
    parser.add_argument("--turns", default=3, type=int)
    parser.add_argument("--name", default="resnet18")
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--runtime", default="torch", choices=("torch", "onnx"))
    parser.add_argument("--batch", default="32", help="SERVE_BATCH")
    parser.add_argument("--wait", default="5", help="SERVE_WAIT_MS")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.name} at {options.size}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        paths = photographs.make_few(folder / "faces")
        run = make_run(folder / "runs", options.name, options.size, options.runtime)
        settings = {"runtime": options.runtime, "serve_batch": options.batch, "serve_wait_ms": options.wait}
        print(ROW.format(*COLUMNS), flush=True)
        for _ in range(options.turns):
            rate, cost, expected = from_files(run, paths, options.runtime)
            print(ROW.format("inference.py", "", f"{rate:.0f}", *[""] * 7, f"{1000 * cost:.1f}", ""), flush=True)
            for name in options.servers:
                with servers.started(name, run, folder, expected[0][0], **settings) as (process, port):
                    for clients in options.clients:
                        measure(name, process, port, clients, options.seconds, rate, cost, expected)


def measure(name: str, process, port: int, clients: int, seconds: float, rate: float, cost: float, expected) -> None:
    """Print one row. `rate`, `cost`: photographs a second and seconds of CPU a photograph of inference.py."""
    before = servers.cpu_seconds(process.pid)
    found = load(port, clients, seconds, expected)
    spent = (servers.cpu_seconds(process.pid) - before) / (found[0] * seconds)
    cells = [f"{number:.0f}" for number in (found[0], *found[1], *found[2:], servers.resident_mib(process.pid))]
    cells += [f"{found[0] / rate:.2f}", f"{1000 * spent:.1f}", f"{cost / spent:.2f}"]
    print(ROW.format(name, clients, *cells), flush=True)


def make_run(runs: pathlib.Path, name: str, size: str, runtime: str = "torch") -> pathlib.Path:
    """The folder of runs, with an untrained net in it, and its ONNX file for that runtime."""
    torch.manual_seed(0)
    framing, scores = Framing(height_and_width(size)), {"epoch": 1, "macro_f1": 0.0}
    net, _ = model.build(name, framing.size)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Linear):  # so that faces get different answers
            torch.nn.init.normal_(layer.weight)
    even = (1 / CLASSES,) * CLASSES
    decision = Decision(30.0, 0.5, PriorCorrection(even, even, (1.0,) * CLASSES))  # logits are far too large
    header = Header(name, name, "flat", framing, model.MEAN, model.STD, decision, scores)
    (runs / "net").mkdir(parents=True)
    save_weights(runs / "net" / "model.safetensors", net.state_dict(), header)
    if runtime == "onnx":
        with contextlib.redirect_stdout(io.StringIO()):
            export.main(["--sm_channel_model", str(runs), "--name", "net"])
    return runs


def from_files(runs: pathlib.Path, paths: list[pathlib.Path], runtime: str) -> tuple[float, float, list]:
    """Photographs a second of inference.py, decoding included; seconds of CPU of one; what it says of each path.

    The last is [(bytes, class, probabilities)].
    """
    words = ["--sm_channel_model", str(runs), "--device", "cpu", "--runtime", runtime]
    config, _ = inference.sources.read(inference.settings.PhotographSettings, words)
    many = list(map(str, paths)) * 3
    with contextlib.redirect_stdout(io.StringIO()):
        ensemble = inference.Ensemble.find(config, config.sm_channel_model, model.load)
        inference.predict(config, ensemble, many[:64], many[:64])
        began, spent = time.perf_counter(), time.process_time()
        probabilities, _, _ = inference.predict(config, ensemble, many, many)
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        answer = ensemble.decide(probabilities, [])
    answers = zip(answer.classes, answer.probabilities, strict=True)
    contents = [path.read_bytes() for path in paths]
    return (
        len(many) / seconds,
        spent / len(many),
        [(content, *one) for content, one in zip(contents, answers, strict=False)],
    )


def load(port: int, clients: int, seconds: float, expected: list) -> tuple:
    """Answers a second, [p50, p95, p99] in ms, wrong answers, lost requests; of clients in a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(asyncio_load, (port, clients, seconds, expected))


def asyncio_load(*arguments) -> tuple:
    return asyncio.run(_load(*arguments))


async def _load(port: int, clients: int, seconds: float, expected: list) -> tuple:
    until = time.perf_counter() + seconds
    found = await asyncio.gather(*(_client(port, number, until, expected) for number in range(clients)))
    durations = sorted(duration for one in found for duration in one[0])
    at = lambda share: 1000 * durations[min(int(share * len(durations)), len(durations) - 1)]  # noqa: E731
    wrong, lost = (sum(one[column] for one in found) for column in (1, 2))
    return len(durations) / seconds, [at(0.5), at(0.95), at(0.99)], wrong, lost


async def _client(port: int, number: int, until: float, expected: list) -> tuple[list[float], int, int]:
    """Seconds of each answered request; wrong answers; requests without an answer."""
    durations, wrong, lost, writer = [], 0, 0, None
    while (began := time.perf_counter()) < until:
        content, right, p = expected[number % len(expected)]
        number += 1
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD.format(len(content)).encode() + content)
            header = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(re.search(rb"content-length: (\d+)", header)[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            lost, writer = lost + 1, None
            await asyncio.sleep(0.1)
            continue
        durations.append(time.perf_counter() - began)
        if b" 200 " not in header[:16]:
            wrong += 1
            continue
        (record,) = json.loads(body)["predictions"]
        wrong += record["class"] != right or np.abs(np.array(record["probabilities"]) - p).max() > TOLERANCE
    return durations, int(wrong), lost


if __name__ == "__main__":
    main()
