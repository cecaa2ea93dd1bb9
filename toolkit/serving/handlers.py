"""Answers to the requests of an endpoint or a batch transform: the four handlers of SageMaker's handler service.

The service looks for them in inference.py, by name and number of parameters. They are called as
output_fn(predict_fn(input_fn(body, content_type), model_fn(model_dir)), accept), from several threads at once.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.config import settings, sources
from toolkit.serving.ensemble import Ensemble
from toolkit.serving.runtimes import LoadWeights
from toolkit.system.console import say

if TYPE_CHECKING:
    from torch import nn

    from toolkit.models.onnx_file import OnnxModel


@dataclass(frozen=True)
class Endpoint:
    """Runs whose models are loaded and wait for requests."""

    ensemble: Ensemble
    models: dict[pathlib.Path, nn.Module | OnnxModel]  # by run folder


def load_endpoint(model_dir: str, load_weights: LoadWeights) -> Endpoint:
    """The runs that NAME selects in the folder of a model, which is `model_fn`. Settings come from the environment.

    Raises InputError on wrong settings and files.
    """
    config, _ = sources.read(settings.ServingSettings, ["--sm_channel_model", model_dir])
    ensemble = Ensemble.find(config, config.sm_channel_model, load_weights)
    runtime, models = ensemble.runtime, {}
    for run, header in ensemble.headers.items():
        models[run] = runtime.prepare_for_requests(runtime.load(run), header.framing.size)
    say(f"running on {runtime}")
    return Endpoint(ensemble, models)


def input_fn(body: bytes | str, content_type: str | None) -> list:
    """The photographs of a request, each as the bytes of its file. requests.py says what a request may be."""
    from toolkit.serving import requests  # imports torch

    with requests.as_client_errors():
        return requests.parse(body, content_type)


def predict_fn(photographs: list, endpoint: Endpoint) -> list[dict]:
    """A record for each photograph: the same answer as inference.py gives with ADAPT_PRIORS=false."""
    from toolkit.data.photo_file import Reading
    from toolkit.serving import requests

    ensemble, unreadable, probabilities = endpoint.ensemble, {}, {}
    reading = Reading.of(ensemble.config)
    for framing, runs in ensemble.by_framing().items():
        store = requests.RequestStore(photographs, framing, reading=reading)
        unreadable |= store.fill()
        for run in runs:
            probabilities[run] = ensemble.predict(run, endpoint.models[run], store)
    answer = ensemble.decide(probabilities, list(unreadable))
    with requests.as_client_errors():
        return requests.make_records(answer.classes, answer.probabilities, unreadable)


def output_fn(records: list[dict], accept: str | None) -> tuple[str, str]:
    """The body of the response, and its content type."""
    from toolkit.serving import requests

    with requests.as_client_errors():
        return requests.respond(records, accept)
