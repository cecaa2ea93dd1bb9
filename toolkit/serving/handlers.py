"""Answers to the requests of an endpoint or a batch transform: the four handlers of SageMaker's handler service.

The service looks for them in inference.py, by name and number of parameters. They are called as
output_fn(predict_fn(input_fn(body, content_type), model_fn(model_dir)), accept), from several threads at once.
"""

from toolkit.config import settings, sources
from toolkit.serving.endpoint import Endpoint
from toolkit.serving.runtimes import LoadWeights


def load_endpoint(model_dir: str, load_weights: LoadWeights) -> Endpoint:
    """The handler `model_fn`: load the runs that NAME selects in `model_dir`. Settings come from the environment.

    Raises InputError on wrong settings and files.
    """
    config, _ = sources.read(settings.ServingSettings, ["--sm_channel_model", model_dir])
    return Endpoint.load(config, config.sm_channel_model, load_weights)


def input_fn(body: bytes | str, content_type: str | None) -> list:
    """The photographs of a request, each as the bytes of its file. requests.py says what a request may be."""
    from toolkit.serving import requests  # imports torch

    with requests.as_client_errors():
        return requests.parse(body, content_type)


def predict_fn(photographs: list, endpoint: Endpoint) -> list[dict]:
    """A record for each photograph: the same answer as inference.py gives with ADAPT_PRIORS=false."""
    from toolkit.serving import requests

    with requests.as_client_errors():
        photographs = requests.within_budget(photographs, endpoint.max_megapixels)
    return endpoint.answer(list(endpoint.threads.map(endpoint.decode, photographs)))


def output_fn(records: list[dict], accept: str | None) -> tuple[str, str]:
    """The body of the response, and its content type."""
    from toolkit.serving import requests

    with requests.as_client_errors():
        return requests.respond(records, accept)
