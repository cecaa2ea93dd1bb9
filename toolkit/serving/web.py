"""The HTTP side of serve.py and deployment.py: a page for a person, SageMaker's contract, counts for Prometheus."""

import asyncio
import http
import socket
import time
import traceback

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from toolkit.serving import counters, requests
from toolkit.serving.counters import Counters
from toolkit.serving.nets import Nets
from toolkit.serving.requests import RequestError
from toolkit.system import signals
from toolkit.system.console import InputError

MOST_MIB = 6  # of a request's body, as on SageMaker
MOST_SECONDS = 60  # from the first byte of a request to its answer, as on SageMaker
PING_SECONDS = 2  # that a check may take, as on SageMaker
MOST_REQUESTS = 256  # that are answered at once: each may have MOST_MIB in memory
# Load balancers keep idle connections for a minute. If the server closed one first, a request could get lost.
KEEP_ALIVE_SECONDS = 75
EXECUTION_PARAMETERS = {  # what a batch transform asks for
    "MaxConcurrentTransforms": 32,
    "BatchStrategy": "SINGLE_RECORD",
    "MaxPayloadInMB": MOST_MIB,
}


class BusyError(Exception):
    """A request that cannot be answered now, through nobody's fault."""


class Service:
    """The answers to HTTP requests."""

    def __init__(self, nets: Nets, counts: Counters, page: str):
        """`nets`: or an object with the same `record`, `check` and `max_megapixels`; `page`: HTML."""
        self.nets, self.counters, self.page = nets, counts, page
        self.under_way = 0  # requests

    def application(self) -> Starlette:
        answers = {
            "/": lambda _: HTMLResponse(self.page),
            "/ping": self.ping,
            "/metrics": lambda _: PlainTextResponse(self.counters.text(self.under_way), media_type=counters.MEDIA_TYPE),
            "/execution-parameters": lambda _: JSONResponse(EXECUTION_PARAMETERS),
        }
        routes = [Route(path, answer) for path, answer in answers.items()]
        # Amazon's containers of Ray Serve forward requests for /invocations to /.
        routes += [Route(path, self.invocations, methods=["POST"]) for path in ("/invocations", "/")]
        return Starlette(routes=routes, exception_handlers={HTTPException: _on_wrong_address})

    async def ping(self, _: Request) -> Response:
        """200, or 503 if nothing can be predicted."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self.nets.check()
        except TimeoutError:
            return _respond_to(BusyError(f"nothing was answered within {PING_SECONDS} s"))
        except Exception as error:
            return _respond_to(BusyError(str(error)))
        return Response()

    async def invocations(self, request: Request) -> Response:
        """The answer to the photographs of a request, or one line on what is wrong; as JSON or CSV, errors as JSON."""
        started = time.monotonic()
        self.under_way += 1
        try:
            response = await self._answer(request)
        except Exception as error:
            response = _respond_to(error)
        finally:
            self.under_way -= 1
        self.counters.add_request(response.status_code, time.monotonic() - started)
        return response

    async def _answer(self, request: Request) -> Response:
        """Raises RequestError, BusyError, InputError and ClientDisconnect."""
        if self.under_way > MOST_REQUESTS:
            raise BusyError(f"{MOST_REQUESTS} requests are being answered; send it again")
        try:
            async with asyncio.timeout(MOST_SECONDS):
                body = await _read_body(request)
                photographs = await asyncio.to_thread(requests.parse, body, request.headers.get("content-type"))
                photographs = await asyncio.to_thread(requests.within_budget, photographs, self.nets.max_megapixels)
                records = await asyncio.gather(*map(self.nets.record, photographs))
        except TimeoutError:
            raise BusyError(f"not answered within {MOST_SECONDS} s; send it again") from None
        content, media_type = requests.respond(records, request.headers.get("accept"))
        return Response(content, media_type=media_type)


def serve(service: Service, listening: socket.socket) -> None:
    """Answer requests at this socket until Ctrl-C or SIGTERM; requests that came before are still answered."""
    config = uvicorn.Config(
        service.application(), log_level="warning", access_log=False, server_header=False, lifespan="off",
        ws="none", timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=MOST_SECONDS,
    )  # fmt: skip
    # uvicorn raises the signal again when all is answered; this is how a server ends.
    try:
        uvicorn.Server(config).run([listening])
    except KeyboardInterrupt:
        signals.answered()


async def _read_body(request: Request) -> bytes:
    """Raises RequestError where it is larger than MOST_MIB."""
    too_large = RequestError(
        http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected a body of at most {MOST_MIB} MiB; send a smaller one"
    )
    if int(request.headers.get("content-length", "0")) > MOST_MIB << 20:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_MIB << 20:
            raise too_large
    return bytes(body)


async def _on_wrong_address(_: Request, error: HTTPException) -> Response:
    text = f"{error.detail}: photographs are answered at POST /invocations; / has a page for people"
    return JSONResponse({"error": text}, error.status_code, error.headers)


def _respond_to(error: Exception) -> Response:
    if isinstance(error, RequestError):
        return JSONResponse({"error": str(error)}, error.status)
    if isinstance(error, BusyError):
        return JSONResponse({"error": str(error)}, http.HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})
    if isinstance(error, ClientDisconnect):
        return Response(status_code=http.HTTPStatus.BAD_REQUEST)  # nobody reads it
    if not isinstance(error, InputError):
        traceback.print_exception(error)
        error = f"{type(error).__name__}: the server's log says more"
    return JSONResponse({"error": str(error)}, http.HTTPStatus.INTERNAL_SERVER_ERROR)
