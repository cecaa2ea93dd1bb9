"""serve.py as a process: the same answers as the script's, whatever comes at once; and a page for a person."""

import asyncio
import contextlib
import csv
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.parse
import venv
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import zygote
from browser import DESK, PHONE, opened, reads_well
from conftest import ROOT, flags, refused, run_here
from faults import environment, finish, start
from PIL import Image
from playwright.sync_api import expect
from starlette.requests import Request
from test_requests import FP32, WRONG, text

import deployment
import inference
import model
import serve
from toolkit.config.settings import ServingSettings
from toolkit.data import photo_file, store
from toolkit.labels import ATTRIBUTES, PROBABILITY_COLUMNS, to_attributes
from toolkit.serving import web
from toolkit.serving.batcher import Batcher
from toolkit.serving.counters import Counters
from toolkit.serving.endpoint import Endpoint
from toolkit.serving.nets import Nets
from toolkit.system.console import InputError


@contextlib.contextmanager
def serving(runs, **settings):
    """serve.py as a process, at any free port; the process and its address."""
    process = start("serve.py", SM_CHANNEL_MODEL=runs, SERVE_PORT=0, **FP32, **settings)
    lines = []
    while not (found := re.search(r"at (http://\S+);", "".join(lines[-1:]))):
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    try:
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(trained):
    """The address of a server, which ends as it should when all tests here are done."""
    with serving(trained, NAME="resnet18", SERVE_WAIT_MS=20) as (process, address):
        yield address
        process.send_signal(signal.SIGTERM)
        printed = finish(process)
        assert process.returncode == 0 and re.search(r"^answered [\d,]+ photographs", printed, re.M), printed
        assert "Traceback" not in printed and "\nterminated" not in printed


@pytest.fixture(scope="module")
def expected(drawn, trained, tmp_path_factory) -> dict[str, tuple[int, np.ndarray]]:
    """{photograph: class and probabilities} as the script finds them."""
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained}
    folders["SM_OUTPUT_DATA_DIR"] = tmp_path_factory.mktemp("script")
    found = inference.main(flags(**folders, **FP32, ADAPT_PRIORS="false"))
    return dict(zip(found.images, zip(found.classes, found.probabilities, strict=True), strict=True))


def send(address: str, body, content_type: str | None = "image/jpeg", accept: str | None = None, to="/invocations"):
    """POST one request; the status, the content type and the body of the response."""
    server = urllib.parse.urlsplit(address)
    with contextlib.closing(http.client.HTTPConnection(server.hostname, server.port, timeout=60)) as connection:
        body = body if isinstance(body, bytes) or hasattr(body, "__next__") else json.dumps(body).encode()
        headers = {name: value for name, value in {"Content-Type": content_type, "Accept": accept}.items() if value}
        connection.request("POST", to, body, headers)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()


def get(address: str, path: str) -> tuple[int, str]:
    to = urllib.parse.urlsplit(address)
    with contextlib.closing(http.client.HTTPConnection(to.hostname, to.port, timeout=60)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def predictions(response: tuple[int, str, str]) -> list[dict]:
    status, content_type, body = response
    assert (status, content_type) == (200, "application/json"), body
    return json.loads(body)["predictions"]


def same(record: dict, expected: tuple[int, np.ndarray]) -> None:
    number, probabilities = expected
    assert int(record["class"]) == number
    np.testing.assert_allclose(np.array(record["probabilities"], float), probabilities, atol=1e-6)
    for attribute, value in to_attributes(int(number)).items():
        assert record[attribute] == ATTRIBUTES[attribute][value]


def test_requests_at_once_get_the_answers_of_the_script_from_few_batches(server, photographs, expected):
    def counted(name: str) -> float:
        return float(re.search(rf"^serve_{name} (\S+)$", get(server, "/metrics")[1], re.M)[1])

    before = {name: counted(name) for name in ("photographs_total", "batches_total", "request_seconds_count")}
    names = list(photographs) * 2
    with ThreadPoolExecutor(16) as clients:
        for name, response in zip(names, clients.map(lambda name: send(server, photographs[name]), names), strict=True):
            (record,) = predictions(response)
            same(record, expected[name])
    asked, batches, requests = (counted(name) - value for name, value in before.items())
    assert asked == requests == len(names) and batches < asked / 2
    assert counted("requests_under_way") == 0


def test_several_in_one_request_and_csv(server, photographs, expected):
    contents = map(text, photographs.values())
    instances = [content if row % 2 else {"b64": content} for row, content in enumerate(contents)]
    found = predictions(send(server, {"instances": instances}, "application/json"))
    for record, name in zip(found, photographs, strict=True):
        same(record, expected[name])
    body = {"instances": [*instances[:2], text(b"no photograph")]}
    status, content_type, answer = send(server, body, "application/json", "text/csv")
    assert status == 200 and content_type.startswith("text/csv")
    *rows, bad = csv.DictReader(io.StringIO(answer))
    assert bad["error"].startswith("the photograph cannot be read") and bad["class"] == ""
    for row, name in zip(rows, photographs, strict=False):
        same(row | {"probabilities": [row[column] for column in PROBABILITY_COLUMNS]}, expected[name])


def test_a_wrong_request_gets_a_client_error_of_one_line(server, photographs):
    large, one = b"x" * (web.MOST_MIB * 2**20 + 1), next(iter(photographs.values()))
    cases = {
        **{case: (send(server, body, kind), status, line) for case, (body, kind, status, line) in WRONG.items()},
        "no such type": (send(server, one, accept="application/x-npy"), 406, "expected application/json or text/csv"),
        "too large": (send(server, large), 413, "expected a body of at most 6 MiB"),
        "too large, in parts": (send(server, iter([large[: 2**22]] * 2)), 413, "expected a body of at most 6 MiB"),
    }  # fmt: skip
    for case, ((status, content_type, body), expected, line) in cases.items():
        assert (status, content_type) == (expected, "application/json"), (case, body)
        (told,) = json.loads(body).values()
        assert line in told and "\n" not in told, case
    assert get(server, "/invocations")[0] == 405
    assert send(server, one, to="/") == send(server, one)  # as Amazon's containers of Ray Serve ask
    assert get(server, "/model") == (404, '{"error":"Not Found: photographs are answered at POST /invocations; / has a '
                                          'page for people"}')  # fmt: skip
    assert get(server, "/ping") == (200, "")
    assert json.loads(get(server, "/execution-parameters")[1])["MaxPayloadInMB"] == 6


def test_a_container_is_there_once_the_net_is_warm_and_sigterm_waits_for_what_has_come(
    trained, photographs, expected, tmp_path
):
    """Does the Dockerfile's steps, and starts its entry point with the argument `serve`, as SageMaker does."""
    steps = re.findall(r"^([A-Z]+) (.+)$", (ROOT / "Dockerfile").read_text(), re.M)
    fresh = fresh_environment(tmp_path / "venv")
    for step, words in steps:
        *sources, to = words.split()
        for path in [path for source in sources for path in ROOT.glob(source)] if step == "COPY" else ():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / to)
        if step == "RUN":
            subprocess.run(words, shell=True, cwd=tmp_path, env=environment(**fresh), check=True)
    variables = dict(word.split("=") for word in dict(steps)["ENV"].split())
    assert variables.keys() == {"SM_CHANNEL_MODEL", "SERVE_HOST"}
    program, *words = json.loads(dict(steps)["ENTRYPOINT"])
    assert program == "python"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables |= {"SM_CHANNEL_MODEL": trained, "SERVE_PORT": port, **FP32}
    process = subprocess.Popen(
        [zygote.python(), *words, "serve"], cwd=tmp_path, env=environment(**variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        with contextlib.suppress(ConnectionError):
            assert get(address, "/ping") == (200, "")
            break
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    name, content = next(iter(photographs.items()))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Type", "image/jpeg")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content[:100])
        while "serve_requests_under_way 1\n" not in get(address, "/metrics")[1]:
            assert time.monotonic() < until
        process.send_signal(signal.SIGTERM)
        while True:  # until it takes no others
            try:
                get(address, "/ping")
            except ConnectionError:
                break
            assert time.monotonic() < until
        connection.send(content[100:])
        response = connection.getresponse()
        assert response.status == 200
        same(json.loads(response.read())["predictions"][0], expected[name])
    printed = finish(process)
    assert process.returncode == 0 and "answered 1 photographs in 1 batches" in printed, printed


def fresh_environment(folder) -> dict[str, str]:
    """Variables with which pip installs into a new virtual environment, which finds here what it would download."""
    venv.create(folder)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (pathlib.Path(packages) / "around.pth").write_text(sysconfig.get_path("purelib"))
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    here = {"PIP_CONFIG_FILE": os.devnull, "PIP_CONSTRAINT": "", "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "1"}
    return {"PATH": path, "PIP_PYTHON": f"{folder}/bin/python", **here}


@pytest.fixture
def service(trained):
    """The same in this process, without a port."""
    config = ServingSettings(sm_channel_model=trained, name="resnet18", device="cpu", precision="fp32")
    endpoint, counters = Endpoint.load(config, trained, model.load), Counters()
    with Batcher(endpoint.answer, 4, 0.0, counters) as batcher:
        nets = Nets(endpoint, lambda photograph: asyncio.wrap_future(batcher.submit(photograph)))
        yield web.Service(nets, counters, "")


def ask(service: web.Service, body: bytes) -> tuple[int, str]:
    status, answer = respond(service, body, "image/jpeg")
    return status, answer.get("error", "")


def respond(service: web.Service, body: bytes, content_type: str | None) -> tuple[int, dict]:
    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode())] if content_type else []
    response = asyncio.run(
        service.invocations(Request({"type": "http", "method": "POST", "headers": headers}, receive))
    )
    return response.status_code, json.loads(response.body)


def test_requests_decode_in_no_more_threads_than_are_of_use(opened_at_once, service, monkeypatch):
    monkeypatch.setattr(store, "useful_threads", lambda _: 1)
    file = io.BytesIO()
    Image.new("RGB", (36, 48)).save(file, "PNG")
    contents = [file.getvalue()] * 150

    async def records() -> list[dict]:
        return await asyncio.gather(*map(service.nets.record, contents))

    answers = [*inference.predict_fn(contents, service.nets.endpoint), *asyncio.run(records())]
    assert {record["class"] for record in answers} == {answers[0]["class"]} and len(answers) == 2 * len(contents)
    assert opened_at_once == [1] * 3 * len(contents)  # one more time for the number of pixels


def test_errors_of_the_machine_are_no_fault_of_the_photograph(service, photographs, monkeypatch, capsys):
    good = next(iter(photographs.values()))

    def fails(*_):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(photo_file, "opened", fails)
        status, told = ask(service, good)
        assert status == 500 and "MemoryError: no room" in told and "no fault of the photograph" in told
    with monkeypatch.context() as patch:
        patch.setattr(service.nets.endpoint.ensemble, "predict", fails)
        assert ask(service, good) == (500, "MemoryError: the server's log says more")
        assert "MemoryError: no room" in capsys.readouterr().err
        assert asyncio.run(service.ping(None)).status_code == 503
    assert asyncio.run(service.ping(None)).status_code == 200 and not service.nets.failed
    with monkeypatch.context() as patch:
        patch.setattr(web, "MOST_SECONDS", 0)
        status, told = ask(service, good)
        assert status == 503 and "send it again" in told
        patch.setattr(web, "MOST_REQUESTS", 0)
        assert ask(service, good)[0] == 503
    assert ask(service, good) == (200, "") and service.under_way == 0
    assert service.counters.by_status == {200: 1, 500: 2, 503: 2}


def test_with_ray_serve_another_replica_is_asked_where_one_dies_and_bodies_are_those_of_serve_py(
    service, photographs, monkeypatch
):
    """Replicas here are the nets of this process: benchmarks/replicas.py has a cluster, and kills."""
    ray = pytest.importorskip("ray.exceptions")
    errors = [ray.ActorDiedError(), ray.ActorUnavailableError("gone", None)]

    async def record(content):
        if errors:
            raise errors.pop()
        return await service.nets.record(content)

    handle = SimpleNamespace(record=SimpleNamespace(remote=record), check=SimpleNamespace(remote=service.nets.check))
    front = web.Service(deployment.Front(handle, service.nets.max_megapixels, ""), Counters(predicts=False), "")
    assert asyncio.run(front.ping(None)).status_code == 200 and "batches" not in front.counters.text(0)
    handle.check.remote = asyncio.Event().wait  # as where no replica is left, or photographs wait before it
    assert asyncio.run(front.ping(None)).status_code == 200  # one has just answered
    with monkeypatch.context() as patch:
        patch.setattr(web, "PING_SECONDS", 0.01)
        patch.setattr(deployment, "FRESH_SECONDS", 0)
        assert asyncio.run(front.ping(None)).status_code == 503
    bodies = {name: (content, "image/jpeg") for name, content in list(photographs.items())[:2]}
    bodies |= {name: (body, content_type) for name, (body, content_type, *_) in WRONG.items()}
    for name, (body, content_type) in bodies.items():
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert respond(front, body, content_type) == respond(service, body, content_type), name
        assert not errors
    errors += [ray.ActorDiedError() for _ in range(5)]
    assert ask(front, next(iter(photographs.values())))[0] == 503 and len(errors) == 2  # it may be what kills them
    errors.clear()
    for error in InputError("too little memory"), MemoryError("no room"):
        errors.append(ray.RayTaskError("record", "Traceback ...", error).as_instanceof_cause())
        told = str(error) if isinstance(error, InputError) else "MemoryError: the server's log says more"
        assert ask(front, next(iter(photographs.values()))) == (500, told)


def test_wrong_settings_are_refused_before_the_net_is_loaded(trained):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here("serve.py", SM_CHANNEL_MODEL=trained, SERVE_PORT=port)
        refused(done, f"SERVE_PORT={port}: expected a free port, found one that is in use; name another, or 0")
    for host in ("no.such.host.invalid", "192.168..1"):
        refused(run_here("serve.py", SM_CHANNEL_MODEL=trained, SERVE_HOST=host), f"SERVE_HOST={host}: expected an addr")
    refused(run_here("serve.py", SM_CHANNEL_MODEL=trained, POOL="person"), "POOL: has no effect on a server; remove it")
    with pytest.raises(inference.InputError, match="SERVE_BATCH=0: expected a number greater than or equal to 1"):
        serve.main(["serve", "--sm_channel_model", str(trained), "--serve_batch", "0"])


@pytest.mark.parametrize(("window", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone", "desk"])
def test_a_person_drops_photographs_on_the_page_and_sees_the_answers(
    browser, server, photographs, expected, tmp_path, window, scheme
):
    name, content = next(iter(photographs.items()))
    (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.png").write_bytes(b"no photograph")
    number = int(expected[name][0])
    with opened(browser, f"{server}/", viewport=window, color_scheme=scheme) as shown:
        expect(shown.locator("#status")).to_have_text("none yet")
        reads_well(shown)
        # A browser lets no script choose a file, so it is dropped as a page of another program would drop it.
        shown.evaluate(
            """([bytes, name]) => {
              const given = new DataTransfer();
              const content = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
              given.items.add(new File([content], name, {type: "image/jpeg"}));
              dispatchEvent(new DragEvent("drop", {dataTransfer: given, bubbles: true}));
            }""",
            [text(content), name],
        )
        row = shown.locator("#list li")
        expect(shown.locator("#status")).to_have_text("1 answered")
        expect(row.locator("img")).to_have_js_property("complete", True)
        told = row.inner_text()
        for attribute, value in to_attributes(number).items():
            assert ATTRIBUTES[attribute][value].replace("_", " ") in told
        lines = row.locator("tbody tr").all_inner_texts()  # the most probable classes, and the answer if it is another
        assert f"{100 * expected[name][1].max():.1f} %" in lines[0] and len(lines) in (3, 4)
        (answer,) = (line for line in lines if "(the answer)" in line)
        assert f"{100 * expected[name][1][number]:.1f} %" in answer
        shown.set_input_files("#file", tmp_path / name)
        expect(shown.locator("#status")).to_have_text("2 answered")
        reads_well(shown)
    with opened_with_refusals(browser, f"{server}/") as shown:
        shown.set_input_files("#file", tmp_path / "notes.png")
        expect(shown.get_by_role("alert")).to_contain_text("the photograph cannot be read: no photograph of a format")
        expect(shown.locator("#list img")).to_have_count(0)


@contextlib.contextmanager
def opened_with_refusals(browser, address: str):
    """The page where 4xx answers are expected, which Chromium writes to the console as errors."""
    page = browser.new_page()
    page.goto(address)
    yield page
    page.close()
