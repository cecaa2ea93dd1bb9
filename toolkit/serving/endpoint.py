"""Loaded runs that answer requests: from the bytes of photographs to the records of an answer."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.config.settings import ServerSettings, ServingSettings
from toolkit.data.framing import Framing
from toolkit.serving import model_archive
from toolkit.serving.ensemble import Ensemble
from toolkit.serving.runtimes import LoadWeights
from toolkit.system.console import say

if TYPE_CHECKING:
    from torch import nn

    from toolkit.data.store import DecodingThreads
    from toolkit.models.onnx_file import OnnxModel
    from toolkit.serving.requests import RequestError

    Photograph = dict[Framing, np.ndarray] | str  # uint8, shape (height, width, 3), by framing; or what is wrong


@dataclass(frozen=True)
class Endpoint:
    """Runs whose models are loaded. `decode` may be called from several threads at once, and so may `answer`."""

    ensemble: Ensemble
    models: dict[pathlib.Path, nn.Module | OnnxModel]  # by run folder
    threads: DecodingThreads  # all requests call `decode` in these

    @classmethod
    def load(cls, config: ServingSettings, folder: pathlib.Path, load_weights: LoadWeights) -> Endpoint:
        """The runs that NAME selects in the folder. Raises InputError on wrong settings and files."""
        ensemble = Ensemble.find(config, folder, load_weights)
        from toolkit.data.store import DecodingThreads  # imports torch: not before wrong settings are refused

        runtime, models = ensemble.runtime, {}
        for run, header in ensemble.headers.items():
            models[run] = runtime.prepare_for_requests(runtime.load(run), header.framing.size)
        say(f"running on {runtime}")
        return cls(ensemble, models, DecodingThreads())

    @classmethod
    def warm(cls, config: ServerSettings, load_weights: LoadWeights) -> Endpoint:
        """Load the runs of SM_CHANNEL_MODEL, and answer SERVE_BATCH black photographs: a first batch is slow."""
        with model_archive.unpacked(config.sm_channel_model) as runs:
            endpoint = cls.load(config, runs, load_weights)
        endpoint.answer([endpoint.blank()] * config.serve_batch)
        return endpoint

    @property
    def max_megapixels(self) -> float:
        """The limit of a photograph, and of all photographs of a request together."""
        return self.ensemble.config.max_megapixels

    def decode(self, content: bytes | RequestError) -> Photograph:
        """A photograph of a request, in the framings of all runs. Raises InputError on errors of the machine."""
        from toolkit.data import decode, photo_file  # which take torch, as requests do
        from toolkit.serving.requests import UNREADABLE, RequestError

        if isinstance(content, RequestError):
            return str(content)
        try:
            framings = self.ensemble.by_framing()
            return {framing: decode.decode_bytes(content, framing, self.max_megapixels) for framing in framings}
        except Exception as error:  # Pillow may raise anything on a damaged file
            return f"{UNREADABLE}: {photo_file.reason_or_raise(error, 'the photograph')}"

    def answer(self, photographs: Sequence[Photograph]) -> list[dict]:
        """A record for each: the same answer as inference.py gives with ADAPT_PRIORS=false.

        Raises InputError where memory does not suffice, or a net gives NaN.
        """
        from toolkit.serving import requests

        readable = [photograph for photograph in photographs if not isinstance(photograph, str)]
        answers = self._predict(readable) if readable else iter(())
        return [
            requests.make_error_record(one) if isinstance(one, str) else requests.make_record(*next(answers))
            for one in photographs
        ]

    def _predict(self, photographs: list[dict[Framing, np.ndarray]]):
        """The class and the probabilities, shape (18,), of each."""
        from toolkit.serving.requests import DecodedPhotographs

        ensemble, probabilities = self.ensemble, {}
        for framing, runs in ensemble.by_framing().items():
            store = DecodedPhotographs(np.stack([photograph[framing] for photograph in photographs]))
            for run in runs:
                probabilities[run] = ensemble.predict(run, self.models[run], store)
        answer = ensemble.decide(probabilities, [])
        return zip(answer.classes.tolist(), answer.probabilities, strict=True)

    def blank(self) -> Photograph:
        """A black photograph: what an endpoint warms up with."""
        return {framing: np.zeros((*framing.size, 3), np.uint8) for framing in self.ensemble.by_framing()}
