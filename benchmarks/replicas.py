"""Is a request lost where a replica of deployment.py dies under load?

python benchmarks/replicas.py [--clients 32] [--seconds 60] [--of Nets]

A local Ray with a replica a core, an untrained net, and the clients of benchmarks/serving.py, which compare each answer
with that of inference.py. At a third of the time a replica is killed (SIGKILL). "wrong" counts false
answers and statuses other than 200, "lost" connections that ended without an answer.
"""

import os
import pathlib
import signal
import tempfile
import threading
import time

import common
import photographs
import servers
import serving


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--clients", default=32, type=int)
    parser.add_argument("--seconds", default=60.0, type=float)
    parser.add_argument("--of", default="Nets", choices=("Nets", "Front"), help="the deployment whose replicas die")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        paths, runs = photographs.make_few(folder / "faces"), serving.make_run(folder / "runs", "resnet18", "128x96")
        _, _, expected = serving.from_files(runs, paths, "torch")
        with servers.started("deployment.py", runs, folder, expected[0][0]) as (process, port):
            print("replicas:", replicas(process.pid, options.of), flush=True)
            killing = threading.Thread(target=kill, args=(process.pid, options.of, options.seconds / 3))
            killing.start()
            rate, (p50, _, p99), wrong, lost = serving.load(port, options.clients, options.seconds, expected)
            killing.join()
            answers = f"{rate * options.seconds:.0f} answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
            print(f"{answers}: {wrong} wrong, {lost} lost")
            print("replicas:", replicas(process.pid, options.of))


def replicas(root: int, deployment: str) -> list[int]:
    """The processes of a deployment, below this one."""
    title = f"ray::ServeReplica:default:{deployment}".encode()
    titles = {pid: pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in servers.processes(root)}
    return [pid for pid, found in titles.items() if found.startswith(title)]


def kill(root: int, deployment: str, seconds: float) -> None:
    time.sleep(seconds)
    victim = replicas(root, deployment)[0]
    os.kill(victim, signal.SIGKILL)
    print(f"killed {victim}", flush=True)


if __name__ == "__main__":
    main()
