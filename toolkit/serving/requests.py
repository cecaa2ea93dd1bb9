"""Requests to an endpoint or a batch transform: from a body to photographs, and from predictions to a response."""

import base64
import contextlib
import http
import json
import os

import numpy as np
import torch

from toolkit.data import photo_file
from toolkit.labels import ATTRIBUTES, CLASSES, PROBABILITY_COLUMNS, to_attributes
from toolkit.system import csv_files
from toolkit.system.console import InputError

MOST_PHOTOGRAPHS = 256  # in one request
IMAGES = ("image/", "application/x-image")  # SageMaker's own algorithms call any image application/x-image
JSON, CSV = "application/json", "text/csv"
UNREADABLE = "the photograph cannot be read"
INSTANCES = '{"instances": ["<photograph in base64>", ...]}'


class RequestError(InputError):
    """A request that cannot be answered, through the client's fault."""

    def __init__(self, status: http.HTTPStatus, text: str):
        super().__init__(text)
        self.status = status

    def __reduce__(self):  # so that another process of deployment.py can read it
        return RequestError, (self.status, str(self))


@contextlib.contextmanager
def as_client_errors():
    """Raises SageMaker's exception for a 4xx response in place of a RequestError.

    Its handler service answers any other exception with 500. Without its package a RequestError stays as it is.
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
    """Whether the request belongs to a batch transform, where an error response would lose the whole input file."""
    return os.environ.get("SAGEMAKER_BATCH", "").lower() == "true"


class DecodedPhotographs:
    """Decoded photographs in place of a store: uint8, shape (n, height, width, 3)."""

    def __init__(self, pixels: np.ndarray):
        self.pixels, self.size = torch.from_numpy(pixels), pixels.shape[1:3]

    def __len__(self) -> int:
        return len(self.pixels)

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        return self.pixels[index]


def parse(body: bytes | bytearray | str, content_type: str | None) -> list[bytes | RequestError]:
    """The photographs of a request: the body itself is one, or it is JSON with several.

    Raises RequestError. In a batch transform a RequestError takes the place of what is wrong.
    """
    media_type = _media_type(content_type)
    if media_type.startswith(IMAGES):
        return [bytes(body)]
    if media_type != JSON:
        raise RequestError(
            http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {content_type or 'missing'}: expected image/jpeg, image/png or another image, or {JSON} "
            f"with {INSTANCES}",
        )
    instances = _or_error(_parse_json, body)
    if isinstance(instances, RequestError):
        return [instances]
    return [_or_error(_decode_base64, number, instance) for number, instance in enumerate(instances)]


def within_budget(photographs: list[bytes | RequestError], max_megapixels: float) -> list[bytes | RequestError]:
    """The same photographs. Raises RequestError if together they have more pixels than `max_megapixels`.

    A file of a few kB can have that many, and all photographs of a request are in memory at once. In a batch transform
    one RequestError takes the place of all photographs.
    """
    found = sum(_pixels(one, max_megapixels) for one in photographs if isinstance(one, bytes)) / 1e6
    if found <= max_megapixels:
        return photographs
    error = RequestError(
        http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"expected at most MAX_MEGAPIXELS={max_megapixels:g} in all photographs of a request together, found "
        f"{found:.0f}; send several requests",
    )
    if is_batch_transform():
        return [error]
    raise error


def _pixels(content: bytes, max_megapixels: float) -> int:
    """The number of pixels by the header; 0 if the file is no photograph or too large: decoding refuses it."""
    with contextlib.suppress(Exception), photo_file.opened(content, max_megapixels) as photo:  # Pillow may raise any
        return photo.width * photo.height
    return 0


def make_record(number: int, p: np.ndarray) -> dict:
    """The answer to one photograph as JSON types, from its class and probabilities of shape (18,)."""
    names = {attribute: ATTRIBUTES[attribute][value] for attribute, value in to_attributes(number).items()}
    return {"class": number, **names, "probabilities": p.round(6).tolist()}


def make_error_record(error: str) -> dict:
    """The record of a photograph that has no answer."""
    return {"error": error}


def respond(records: list[dict], accept: str | None) -> tuple[str, str]:
    """The body of a response and its content type, the first in `accept` that is possible.

    Raises RequestError if no content type is possible and, except in a batch transform, if the only photograph is
    unreadable.
    """
    if len(records) == 1 and "error" in records[0] and not is_batch_transform():
        raise _bad_request(records[0]["error"])
    for media_type in map(_media_type, (accept or JSON).split(",")):
        if media_type in (JSON, "application/*", "*/*"):
            return json.dumps({"predictions": records}, allow_nan=False), JSON
        if media_type in (CSV, "text/*"):
            return _as_csv(records), CSV
    raise RequestError(http.HTTPStatus.NOT_ACCEPTABLE, f"Accept {accept}: expected {JSON} or {CSV}")


def _media_type(header: str | None) -> str:
    """A Content-Type without its parameters, such as the charset."""
    return (header or "").partition(";")[0].strip().lower()


def _or_error(function, *arguments):
    """What the function returns; in a batch transform also the RequestError that it raises."""
    try:
        return function(*arguments)
    except RequestError as error:
        if is_batch_transform():
            return error
        raise


def _parse_json(body: bytes | bytearray | str) -> list:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError also for bytes that are not UTF-8
        raise _bad_request(f"expected {INSTANCES}, found no JSON: {error}") from None
    instances = request.get("instances") if isinstance(request, dict) else None
    if not isinstance(instances, list) or not instances:
        raise _bad_request(
            f"expected {INSTANCES} with one photograph or more, found other JSON: {json.dumps(request)[:80]}"
        )
    if len(instances) > MOST_PHOTOGRAPHS:
        raise RequestError(
            http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"expected at most {MOST_PHOTOGRAPHS} photographs in a request, found {len(instances)}; send several "
            f"requests",
        )
    return instances


def _decode_base64(number: int, instance) -> bytes:
    text = instance.get("b64") if isinstance(instance, dict) else instance
    if not isinstance(text, str):
        raise _bad_request(f'instance {number}: expected a text, or {{"b64": text}}, found {json.dumps(instance)[:80]}')
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # line breaks every 76 characters are usual
    except ValueError as error:
        raise _bad_request(f"instance {number}: expected base64: {error}") from None


def _bad_request(text: str) -> RequestError:
    return RequestError(http.HTTPStatus.BAD_REQUEST, text)


def _as_csv(records: list[dict]) -> str:
    """A header and a row per record. `error` is empty in a row with an answer; else it is the only cell filled."""
    rows = [("class", *ATTRIBUTES, *PROBABILITY_COLUMNS, "error")]
    for record in records:
        values = [record.get(column) for column in ("class", *ATTRIBUTES)]
        rows.append([*values, *record.get("probabilities", [None] * CLASSES), record.get("error")])
    return csv_files.rows_as_text(rows)
