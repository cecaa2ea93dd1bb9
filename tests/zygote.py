"""A server that has torch imported and forks: a script that is started through it saves the six seconds of imports.

`start` begins the server and writes a program that is called like python. It hands its command line, environment,
folder and open files to the server, which runs them in a fork: a real process, of which only the interpreter is not
new. Signals to the program reach the fork, and a fork whose program was killed is killed too. Tests of the start itself
use sys.executable. Linux only, as pidfds are; elsewhere `python` is sys.executable.
"""

import array
import atexit
import contextlib
import importlib
import json
import os
import pathlib
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = "ZYGOTE_FOLDER"  # the variable that tells test processes where the server is
# Importing them has no side effect, which tests/test_house.py tries with new interpreters.
MODULES = (
    "torchvision", "torch.distributed", "dataset", "model", "loss", "toolkit.pages.report", "inference", "export",
)  # fmt: skip
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROGRAM = """#!{python} -ISE
import json, os, resource, signal, socket, sys, time
sent = socket.socket(socket.AF_UNIX)
until = time.monotonic() + 120
while True:
    try:
        sent.connect({address!r})
        break
    except (FileNotFoundError, ConnectionRefusedError):  # it still imports
        if time.monotonic() > until:
            sys.exit("no server of tests/zygote.py answers")
        time.sleep(0.05)
ignored = [number for number in {forwarded!r} if signal.getsignal(number) == signal.SIG_IGN]
for number in {forwarded!r}:
    if number not in ignored:
        signal.signal(number, lambda number, _: sent.sendall(bytes([number])))
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
job = dict(argv=sys.argv[1:], env=dict(os.environ), cwd=os.getcwd(), limit=limit, ignored=ignored)
content = json.dumps(job).encode("utf-8", "surrogateescape")
socket.send_fds(sent, [len(content).to_bytes(8, "little")], [0, 1, 2])
sent.sendall(content)
status = int.from_bytes(sent.recv(4), "little", signed=True)
if status < 0:
    if -status in {forwarded!r}:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def python() -> str:
    """The program to start scripts with; this interpreter where no server was started."""
    folder = os.environ.get(FOLDER)
    return os.path.join(folder, "python") if folder else sys.executable


def start(folder: pathlib.Path) -> subprocess.Popen:
    """The server, with its program in this folder. It is ready seconds later; the program waits for it."""
    program, address = folder / "python", str(folder / "socket")
    forwarded = tuple(map(int, FORWARDED))
    program.write_text(PROGRAM.format(python=sys.executable, address=address, forwarded=forwarded))
    program.chmod(0o755)
    os.environ[FOLDER] = str(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, __file__, address], cwd=ROOT, env=environment, start_new_session=True)


def serve(address: str) -> None:
    """Run what programs ask for, until the process that started this one is gone."""
    sys.path.insert(0, str(ROOT))
    for name in MODULES:
        with contextlib.suppress(Exception):  # what is broken fails in the tests that import it
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # a process with threads cannot be forked
    parent = os.getppid()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    with selectors.DefaultSelector() as selector:

        def on_program(_) -> None:
            program, _ = listening.accept()
            pid = begin(program)
            ended = os.pidfd_open(pid)
            selector.register(program, selectors.EVENT_READ, lambda program: forward(program, pid, selector))
            selector.register(ended, selectors.EVENT_READ, lambda ended: end(program, pid, ended, selector))

        selector.register(listening, selectors.EVENT_READ, on_program)
        while os.getppid() == parent:
            for key, _ in selector.select(1):
                if key.fileobj in selector.get_map():
                    key.data(key.fileobj)


def begin(program: socket.socket) -> int:
    """The number of a fork that runs what the program asks for."""
    length, files, _, _ = socket.recv_fds(program, 8, 3)
    content = b""
    # A program that is killed in this moment sends no more, and its fork ends over what is missing.
    while len(content) < int.from_bytes(length, "little") and (more := program.recv(2**16)):
        content += more
    pid = os.fork()
    if pid == 0:
        run(content, files)
    for file in files:
        os.close(file)
    return pid


def run(content: bytes, files: array.array) -> None:
    """In the fork: become the process that was asked for, and end."""
    status = 1
    try:
        job = json.loads(content.decode("utf-8", "surrogateescape"))
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 256)
        os.setsid()
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        resource.setrlimit(resource.RLIMIT_FSIZE, tuple(job["limit"]))
        for number in FORWARDED:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in job["ignored"] else default)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        interpret([word for word in job["argv"] if word != "-u"])
        status = 0
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            print(stopped.code, file=sys.stderr)
        status = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status & 0xFF)


def interpret(words: list[str]) -> None:
    """As python does with its words."""
    sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if words[0] == "-c":  # sys.executable stays a new interpreter: pytest's own processes begin here
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, os.getcwd())
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        return
    sys.executable = python()  # scripts that start scripts come here too
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    script = pathlib.Path(words[0]).resolve()
    if ROOT not in script.parents:
        forget_the_repository()
    sys.argv = words
    sys.path.insert(0, str(script.parent))
    runpy.run_path(words[0], run_name="__main__")


def forget_the_repository() -> None:
    """For a copy of the repository elsewhere, which imports modules of its own."""
    sys.path.remove(str(ROOT))
    own = {"toolkit", *(path.stem for path in ROOT.glob("*.py"))}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def forward(program: socket.socket, pid: int, selector) -> None:
    """The signals that the program got; where the program is gone, the end."""
    try:
        numbers = program.recv(16)
    except ConnectionError:
        numbers = b""
    for number in numbers or [signal.SIGKILL]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    if not numbers:
        selector.unregister(program)


def end(program: socket.socket, pid: int, ended: int, selector) -> None:
    """Tell the program how its fork ended."""
    _, status = os.waitpid(pid, 0)
    selector.unregister(ended)
    os.close(ended)
    with contextlib.suppress(KeyError):  # the program may have gone before
        selector.unregister(program)
    with contextlib.suppress(OSError):
        program.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))
    program.close()


if __name__ == "__main__":
    serve(sys.argv[1])
