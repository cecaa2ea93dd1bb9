"""Servers that benchmarks compare, each of the same folder of runs: serve.py, deployment.py and TorchServe."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import common

MOST_SECONDS = 300  # until it answers
READY = {"deployment.py": "' is ready"}  # all replicas: the first one answers before
HEADERS = {"Content-Type": "image/jpeg"}
# All replicas from the start: Ray would add some after half a minute of load.
RAY = "import deployment; deployment.main([], min_replicas={workers}, max_replicas={workers})"
TORCHSERVE = """
inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{other}
metrics_address=http://127.0.0.1:{third}
default_workers_per_model={workers}
default_service_handler=sagemaker_pytorch_serving_container.handler_service:handle
decode_input_request=false
"""


@contextlib.contextmanager
def started(name: str, runs: pathlib.Path, folder: pathlib.Path, photograph: bytes, **settings):
    """A server that has answered this photograph: its process and its port. `folder`: for its own files.

    `settings`: of serve.py. Ray and TorchServe get as many workers as there are cores.
    """
    ports, workers = free_ports(), os.cpu_count()
    environment = os.environ | {key.upper(): str(value) for key, value in settings.items()}
    environment |= {"SM_CHANNEL_MODEL": str(runs), "SERVE_PORT": str(ports[0]), "DEVICE": "cpu"}
    command, stop = [sys.executable, str(common.ROOT / "serve.py")], signal.SIGTERM
    if name == "deployment.py":
        command, stop = [sys.executable, "-c", RAY.format(workers=workers)], signal.SIGINT
        # On a busy machine Ray takes longer to start than the half a minute that it gives itself.
        waits = {"RAY_raylet_start_wait_time_s": str(MOST_SECONDS), "RAY_agent_register_timeout_ms": "300000"}
        environment |= {"PYTHONPATH": str(common.ROOT), **waits}
    elif name == "torchserve":
        environment |= {"SAGEMAKER_PROGRAM": "inference.py", "PYTHONPATH": str(common.ROOT), "OMP_NUM_THREADS": "1"}
        properties = TORCHSERVE.format(port=ports[0], other=ports[1], third=ports[2], workers=workers)
        (folder / "ts.properties").write_text(properties)
        (folder / "store").mkdir(exist_ok=True)
        programs = common.ROOT / ".venv" / "sagemaker" / "bin"
        command = [
            str(programs / "torchserve"), "--start", "--foreground", "--disable-token-auth",
            "--model-store", str(folder / "store"), "--models", f"model={runs}",
            "--ts-config", str(folder / "ts.properties"),
        ]  # fmt: skip
        environment["PATH"] = f"{programs}:{environment['PATH']}"
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        wait_for(process, ports[0], photograph, folder / f"{name}.log", READY.get(name, ""))
        yield process, ports[0]
    finally:
        process.send_signal(stop)
        process.wait(120)


def free_ports(number: int = 3) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [found.getsockname()[1] for found in sockets]


def wait_for(process: subprocess.Popen, port: int, photograph: bytes, log: pathlib.Path, ready: str) -> None:
    """Wait until the server answers and its log has these words.

    Raises RuntimeError if it ends, or takes longer than MOST_SECONDS.
    """
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", photograph, HEADERS)
    until = time.monotonic() + MOST_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):  # also of HTTP
            urllib.request.urlopen(request, timeout=60)
            if ready in log.read_text():
                return
        time.sleep(0.5)
    raise RuntimeError(f"no answer: {log.read_text()[-3000:]}")


def processes(root: int) -> Iterator[int]:
    """This process, its children, and their children."""
    yield root
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))


def cpu_seconds(root: int) -> float:
    """The CPU time of a process and its children so far. Linux only, as the functions beside it."""
    total = 0
    for pid in processes(root):
        with contextlib.suppress(OSError):
            total += sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def resident_mib(root: int) -> int:
    """Their resident memory; shared memory counts once for each process."""
    total = 0
    for pid in processes(root):
        with contextlib.suppress(OSError):
            found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
            total += int(found[1]) if found else 0
    return total >> 10
