"""Loaded nets that answer many requests at once: photographs are decoded in threads, and predicted in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from toolkit.serving.endpoint import Endpoint

if TYPE_CHECKING:
    from toolkit.serving.requests import RequestError


class Nets:
    """What answers the photographs of requests."""

    def __init__(self, endpoint: Endpoint, predict: Callable[..., Awaitable[dict]]):
        """`predict`: decoded photograph -> its record; photographs that wait together are one batch."""
        self.endpoint, self.predict, self.max_megapixels = endpoint, predict, endpoint.max_megapixels
        self.failed = False  # whether the last prediction raised

    async def record(self, content: bytes | RequestError) -> dict:
        """The answer to one photograph. Raises InputError on errors of the machine, and any error of `predict`."""
        from toolkit.serving.requests import make_error_record  # imports torch

        decode, threads = self.endpoint.decode, self.endpoint.threads
        photograph = await asyncio.get_running_loop().run_in_executor(threads, decode, content)
        return make_error_record(photograph) if isinstance(photograph, str) else await self._predict(photograph)

    async def check(self) -> None:
        """Raises an error if nothing can be predicted: after a failure it tries a black photograph."""
        if self.failed:
            await self._predict(self.endpoint.blank())

    async def _predict(self, photograph) -> dict:
        try:
            record = await self.predict(photograph)
        except Exception:
            self.failed = True
            raise
        self.failed = False
        return record
