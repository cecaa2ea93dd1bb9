"""Requests to an endpoint or a batch transform: what they ask, and what they are answered.

SageMaker's handler service calls the handlers of inference.py, which stand on this.
"""

import base64
import contextlib
import csv
import http
import io
import json
import os

import numpy as np

from toolkit.data import decode
from toolkit.data.store import Store
from toolkit.labels import ATTRIBUTES, CLASSES, PROBABILITY_COLUMNS, to_attributes
from toolkit.system.console import InputError

MOST_PHOTOGRAPHS = 256  # of one request
IMAGES = ("image/", "application/x-image")  # the second is what SageMaker's own algorithms call any of them
JSON, CSV = "application/json", "text/csv"
UNREADABLE = "the photograph cannot be read"
INSTANCES = '{"instances": ["<photograph in base64>", ...]}'


class RequestError(InputError):
    """A request that cannot be answered, by the fault of who sent it."""

    def __init__(self, status: http.HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


@contextlib.contextmanager
def told_to_the_client():
    """A RequestError leaves the block as that exception of which SageMaker's handler service makes a 4xx answer.

    Any other one it answers with 500. Where that package is not there, nothing changes.
    """
    try:
        yield
    except RequestError as error:
        try:
            from sagemaker_inference.errors import BaseInferenceToolkitError
        except ImportError:
            raise error from None
        raise BaseInferenceToolkitError(error.status.value, str(error), error.status.phrase) from None


def is_batch_transform() -> bool:
    """Whether a whole input would be lost with one bad photograph."""
    return os.environ.get("SAGEMAKER_BATCH", "").lower() == "true"


class Received(Store):
    """Photographs that are not in files: their bytes, or what is wrong with them, take the place of paths."""

    def decode(self, photograph: int) -> np.ndarray:
        content = self.paths[photograph]
        if isinstance(content, RequestError):
            raise content
        return decode.decode_bytes(content, self.size)


def photographs(body: bytes | bytearray | str, content_type: str | None) -> list[bytes | RequestError]:
    """The photographs of a request: one that is the body itself, or several in JSON.

    Raises RequestError; what a batch transform has wrong gets an answer in its place.
    """
    kind = _kind(content_type)
    if kind.startswith(IMAGES):
        return [bytes(body)]
    if kind != JSON:
        raise RequestError(
            http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {content_type or 'missing'}: expected image/jpeg, image/png or another image, or {JSON} "
            f"with {INSTANCES}",
        )
    instances = _or_error(_instances, body)
    if isinstance(instances, RequestError):
        return [instances]
    return [_or_error(_content, number, instance) for number, instance in enumerate(instances)]


def records(classes: np.ndarray, probabilities: np.ndarray, bad: dict[int, str]) -> list[dict]:
    """The answer for each photograph, of plain types: shapes (n,), (n, 18); {row: reason} of those without one.

    Raises RequestError where there is one photograph and it is bad, but for a batch transform.
    """
    if bad and len(classes) == 1 and not is_batch_transform():
        raise _bad(f"{UNREADABLE}: {bad[0]}")
    found = []
    for row, (number, chances) in enumerate(zip(classes.tolist(), probabilities.round(6).tolist(), strict=True)):
        names = {attribute: ATTRIBUTES[attribute][value] for attribute, value in to_attributes(number).items()}
        answer = {"class": number, **names, "probabilities": chances}
        found.append({"error": f"{UNREADABLE}: {bad[row]}"} if row in bad else answer)
    return found


def answer(predictions: list[dict], accept: str | None) -> tuple[str, str]:
    """The body of an answer, and its content type: the first of `accept` that there is. Raises RequestError."""
    for kind in map(_kind, (accept or JSON).split(",")):
        if kind in (JSON, "application/*", "*/*"):
            return json.dumps({"predictions": predictions}, allow_nan=False), JSON
        if kind in (CSV, "text/*"):
            return _as_csv(predictions), CSV
    raise RequestError(http.HTTPStatus.NOT_ACCEPTABLE, f"Accept {accept}: expected {JSON} or {CSV}")


def _kind(content_type: str | None) -> str:
    """Without its parameters."""
    return (content_type or "").partition(";")[0].strip().lower()


def _or_error(function, *arguments):
    """What the function returns; in a batch transform also the RequestError that it raises."""
    try:
        return function(*arguments)
    except RequestError as error:
        if is_batch_transform():
            return error
        raise


def _instances(body: bytes | bytearray | str) -> list:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:  # also of bytes that are no UTF-8
        raise _bad(f"expected {INSTANCES}, found no JSON: {error}") from None
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise _bad(f"expected {INSTANCES} with one photograph or more, found other JSON: {json.dumps(request)[:80]}")
    if len(instances) > MOST_PHOTOGRAPHS:
        raise RequestError(
            http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"expected at most {MOST_PHOTOGRAPHS} photographs in a request, found {len(instances)}; send several",
        )
    return instances


def _content(number: int, instance) -> bytes:
    text = instance.get("b64") if isinstance(instance, dict) else instance
    if not isinstance(text, str):
        raise _bad(f'instance {number}: expected a text, or {{"b64": text}}, found {json.dumps(instance)[:80]}')
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise _bad(f"instance {number}: expected base64: {error}") from None


def _bad(text: str) -> RequestError:
    return RequestError(http.HTTPStatus.BAD_REQUEST, text)


def _as_csv(predictions: list[dict]) -> str:
    """A header and a row each; `error` is empty where there is an answer, all else where there is none."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", *ATTRIBUTES, *PROBABILITY_COLUMNS, "error"))
    for prediction in predictions:
        values = [prediction.get(column, "") for column in ("class", *ATTRIBUTES)]
        chances = prediction.get("probabilities", [""] * CLASSES)
        writer.writerow([*values, *chances, prediction.get("error", "")])
    return text.getvalue()
