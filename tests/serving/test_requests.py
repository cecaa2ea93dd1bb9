"""The handlers of inference.py, called by SageMaker's real handler service: the same answers as the script's."""

import base64
import csv
import inspect
import io
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch
from conftest import run_here, succeeded
from faults import ROOT, environment
from launcher import PYTHON, needed
from PIL import Image

import inference
from toolkit.labels import ATTRIBUTES, PROBABILITY_COLUMNS, to_attributes
from toolkit.system.console import InputError

FP32 = {"DEVICE": "cpu", "PRECISION": "fp32"}
ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"


@pytest.fixture(scope="module")
def send(trained):
    """Send one request to the handler service; its response as {"status", "phrase", "type", "body"}."""
    needed()
    variables = {"SAGEMAKER_PROGRAM": "inference.py", "PYTHONPATH": ROOT, "NAME": "resnet18", **FP32}
    process = subprocess.Popen(
        [PYTHON, ROOT / "tests" / "handler.py", trained], env=environment(**variables), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def one(body, content_type: str | None = "image/jpeg", accept: str | None = None, batch: bool = False) -> dict:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": accept}
        headers = {name: value for name, value in headers.items() if value}
        request = {"headers": headers, "body": base64.b64encode(body).decode(), "batch": batch}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield one
    process.stdin.close()
    assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def script(drawn, trained, tmp_path_factory) -> pd.DataFrame:
    """What the script writes for the same photographs."""
    out = tmp_path_factory.mktemp("script")
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": out}
    succeeded(run_here("inference.py", **folders, **FP32, PROBABILITIES="true", ADAPT_PRIORS="false"))
    return pd.read_csv(out / "output.csv").join(pd.read_csv(out / "probabilities.csv").drop(columns=["ImageID", "ans"]))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def predictions(answer: dict) -> list[dict]:
    assert (answer["status"], answer["type"]) == (200, "application/json"), answer["body"]
    return json.loads(answer["body"])["predictions"]


def same(found: list[dict], script: pd.DataFrame) -> None:
    """Assert that these records and the script give the same."""
    assert [record["class"] for record in found] == script["ans"].tolist()
    for record, expected in zip(found, script[list(PROBABILITY_COLUMNS)].to_numpy(), strict=True):
        assert record["probabilities"] == pytest.approx(expected, abs=3e-6)
        for attribute, value in to_attributes(record["class"]).items():
            assert record[attribute] == ATTRIBUTES[attribute][value]


def test_one_photograph_gets_the_same_answer_as_from_the_script(send, photographs, script):
    some = script.iloc[:3]
    found = [predictions(send(photographs[name])) for name in some["ImageID"]]
    same([record for (record,) in found], some)


def test_several_in_one_request_get_the_same_answers_as_from_the_script(send, photographs, script):
    contents = [photographs[name] for name in script["ImageID"]]
    instances = [text(content) if row % 2 else {"b64": text(content)} for row, content in enumerate(contents)]
    for content_type in ("application/json", "Application/JSON; charset=utf-8"):
        same(predictions(send({"instances": instances}, content_type)), script)


def test_csv_is_a_header_and_a_row_each(send, photographs, script):
    instances = [text(photographs[name]) for name in script["ImageID"][:2]]
    answer = send({"instances": [*instances, text(b"no photograph")]}, "application/json", "text/csv")
    assert (answer["status"], answer["type"]) == (200, "text/csv")
    *rows, bad = csv.DictReader(io.StringIO(answer["body"]))
    columns = ("class", *ATTRIBUTES, *PROBABILITY_COLUMNS, "error")
    assert tuple(bad) == columns and bad["error"].startswith("the photograph cannot be read") and bad["class"] == ""
    records = [{**row, "class": int(row["class"])} for row in rows]
    same([row | {"probabilities": [float(row[name]) for name in PROBABILITY_COLUMNS]} for row in records], script[:2])


def test_json_is_the_response_where_the_client_accepts_anything(send, photographs):
    for accept in (None, "*/*", "image/png, */*;q=0.1", "application/json, text/csv", "Application/*"):
        assert len(predictions(send(next(iter(photographs.values())), "image/png", accept))) == 1


LARGE = io.BytesIO()  # a file of 5 kB
Image.new("1", (8_000, 5_000)).save(LARGE, "PNG")
WRONG = {
    "empty": (b"", "image/jpeg", 400, "the photograph cannot be read: it is empty"),
    "no photograph": (b"hello", "image/png", 400, "the photograph cannot be read: no photograph of a format that"),
    "no JSON": (b"{", "application/json", 400, "found no JSON: Expecting property name"),
    "empty JSON": (b"", "application/json", 400, 'expected {"instances": ["<photograph in base64>", ...]}, found no'),
    "deep JSON": (b"[" * 100_000, "application/json", 400, "found no JSON: maximum recursion depth"),
    "other bytes": (b"\xff\xfe", "application/json; charset=utf-8", 400, "found no JSON"),
    "other JSON": ([1, 2], "application/json", 400, "with one photograph or more, found other JSON: [1, 2]"),
    "none": ({"instances": []}, "application/json", 400, 'found other JSON: {"instances": []}'),
    "no list": ({"instances": {"b64": "aa"}}, "application/json", 400, "found other JSON"),
    "no text": ({"instances": [{"b64": 5}]}, "application/json", 400, 'instance 0: expected a text, or {"b64": text}'),
    "no base64": ({"instances": ["YQ==", "$$"]}, "application/json", 400, "instance 1: expected base64: "),
    "letters of others": ({"instances": ["é"]}, "application/json", 400, "instance 0: expected base64: "),
    "too many": ({"instances": ["aa"] * 257}, "application/json", 413, "expected at most 256 photographs in a request"),
    "too many pixels": ({"instances": [text(LARGE.getvalue())] * 3}, "application/json", 413, "MEGAPIXELS=100 in all"),
    "CSV": (b"1,2", "text/csv", 415, "Content-Type text/csv: expected image/jpeg, image/png or another image, or appl"),
    "nothing": (b"x", None, 415, "Content-Type missing: expected image/jpeg"),
}  # fmt: skip


def test_a_wrong_request_gets_a_client_error_of_one_line(send, photographs):
    for case, (body, content_type, status, line) in WRONG.items():
        answer = send(body, content_type)
        assert answer["status"] == status and line in answer["body"].partition("\n")[0], (case, answer["body"])
        assert "\n" not in answer["phrase"]
    answer = send(next(iter(photographs.values())), accept="application/x-npy")
    assert answer["status"] == 406
    assert answer["body"].startswith("Accept application/x-npy: expected application/json or text/csv\n")


def test_a_batch_transform_gets_an_error_record_for_each_wrong_photograph(send, photographs, script):
    good = photographs[script["ImageID"][0]]
    for body, content_type, error in (
        (b"", "image/jpeg", "the photograph cannot be read: it is empty"),
        (good[: len(good) // 2], "image/jpeg", "the photograph cannot be read: "),
        (b"{", "application/json", 'expected {"instances": ["<photograph in base64>", ...]}, found no JSON: '),
    ):
        (record,) = predictions(send(body, content_type, batch=True))
        assert list(record) == ["error"] and record["error"].startswith(error)
    first, second, third = predictions(
        send({"instances": [text(b"x"), text(good), "$"]}, "application/json", batch=True)
    )
    same([second], script[:1])
    assert list(first) == list(third) == ["error"] and third["error"].startswith("instance 2: expected base64")


def test_requests_at_once_get_the_same_answers_as_one_after_another(trained, photographs, script, monkeypatch):
    for name, value in {**FP32, "TTA": "true"}.items():
        monkeypatch.setenv(name, value)
    endpoint, contents = inference.model_fn(str(trained)), [[photographs[name]] for name in script["ImageID"][:12]]
    expected = [inference.predict_fn(content, endpoint) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda content: inference.predict_fn(content, endpoint), contents)) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NAME": "vgg16"}, "NAME=vgg16: expected"),
        ({"PRECISION": "half", "TTA": "perhaps"}, "PRECISION=half: expected 'auto', 'bf16' or 'fp32'"),
        ({"ADAPT_PRIORS": "true"}, "ADAPT_PRIORS: has no effect on an endpoint; remove it"),
        ({"OLD_FROM": "58"}, "OLD_FROM=58: expected runs of HEAD=factored"),
        ({"DEVICE": ABSENT}, f"DEVICE={ABSENT}: expected a device that torch"),
    ],
)
def test_wrong_settings_are_refused_when_the_model_is_loaded(trained, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=expected):
        inference.model_fn(str(trained))


def test_without_sagemakers_package_a_wrong_request_raises_input_error():
    with pytest.raises(InputError, match="Content-Type text/csv: expected image/jpeg"):
        inference.input_fn(b"1,2", "text/csv")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a run with a model.safetensors in"):
        inference.model_fn(str(tmp_path))


def test_the_handlers_have_the_parameters_that_the_handler_service_counts():
    handlers = (inference.model_fn, inference.input_fn, inference.predict_fn, inference.output_fn)
    assert [len(inspect.signature(handler).parameters) for handler in handlers] == [1, 2, 2, 2]
