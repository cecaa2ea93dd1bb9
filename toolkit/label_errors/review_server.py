"""The server of the suspects page on this machine, which writes each decision to the disk at once.

It answers only requests that are sent to the loopback address under a secret path, and takes decisions only from its
own page: the photographs show people, and a page of another site in the same browser could send requests, too.
"""

import contextlib
import http
import http.server
import json
import pathlib
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence

from toolkit.label_errors.decisions import ANSWERS, Decisions, hash_of_list
from toolkit.label_errors.ranking import Suspect
from toolkit.system import files, ports
from toolkit.system.console import InputError, say
from toolkit.system.signals import Terminated, answered

LOCK = f".suspects{files.LOCK}"
MAX_BODY_BYTES = 1000  # of a decision
IDLE_SECONDS = 60  # then a connection is closed
JSON, HTML, JPEG = "application/json", "text/html; charset=utf-8", "image/jpeg"
PHOTOGRAPHS = re.compile(r"photographs/(\d{1,9})\.jpg")


def serve(
    path: pathlib.Path,
    suspects: Sequence[Suspect],
    earlier: Sequence[Mapping[str, str]],
    page: bytes,
    photographs: Callable[[int], bytes],
    port: int,
) -> None:
    """Serve a page and write each decision to the file `path`, until Ctrl-C.

    `earlier`: rows of earlier rounds, which the file keeps; `page`: HTML; `photographs`: the number of a suspect -> a
    JPEG; `port`: 0 takes a free one. Raises InputError where the port is in use or the file is no table of corrections,
    and Terminated.
    """
    with contextlib.ExitStack() as stack:
        try:  # a lock of its own, for hours: with the usual one all others who write to the folder would wait
            stack.enter_context(files.locked(path.parent, give_up=lambda: True, name=LOCK))
        except InterruptedError:
            raise InputError(f"{path}: another suspects.py serves a page that writes it; end that one first") from None
        decisions = Decisions(path, suspects, earlier)
        with Server(decisions, page, photographs, port) as server:
            say(f"open {server.address} on this machine; Ctrl-C ends the server; decisions are in {path}")
            try:
                server.serve_forever()
            except Terminated:
                raise
            except KeyboardInterrupt:
                answered()
            finally:
                decisions.close()
    say(f"{len(decisions.answers):,} of {len(suspects):,} decided: {path}")


class Server(http.server.ThreadingHTTPServer):
    """Serves the page, the photographs and the decisions at `address`."""

    def __init__(self, decisions: Decisions, page: bytes, photographs: Callable[[int], bytes], port: int):
        """Raises InputError where the port cannot be used."""
        with ports.refused_with_advice(port):
            super().__init__(("127.0.0.1", port), _Handler)
        self.decisions, self.page, self.photographs = decisions, page, photographs
        self.list_hash = hash_of_list(decisions.suspects)
        self.secret_path = f"/{secrets.token_urlsafe(12)}/"  # other users of this machine reach the port, too
        self.address = f"http://127.0.0.1:{self.server_port}{self.secret_path}"

    def handle_error(self, request, client_address) -> None:
        """A browser that closes the connection early is no error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _RequestError(Exception):
    def __init__(self, status: http.HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # with it the headers of an answer would wait for the body
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, *_) -> None:
        """Nothing: a line for each photograph would hide all other lines."""

    def _get(self) -> tuple[bytes, str]:
        server = self.server
        if not self.path:
            return server.page, HTML
        if self.path == "decisions":
            return json.dumps(server.decisions.answers).encode(), JSON
        photographs = PHOTOGRAPHS.fullmatch(self.path)  # by number: no request names a file
        if photographs and int(photographs[1]) < len(server.decisions.suspects):
            return server.photographs(int(photographs[1])), JPEG
        raise _RequestError(http.HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self) -> tuple[bytes, str]:
        """Take a decision from this server's page; a page of another site can send neither JSON nor this Origin."""
        if self.path != "decisions":
            raise _RequestError(http.HTTPStatus.NOT_FOUND, "there is no such page")
        own_origin = f"http://{self.headers['Host']}"
        if self.headers.get("Origin", own_origin) != own_origin:
            raise _RequestError(http.HTTPStatus.FORBIDDEN, "a page of another site may decide nothing here")
        if self.headers.get_content_type() != JSON:
            raise _RequestError(http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected {JSON}")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > MAX_BODY_BYTES:
            raise _RequestError(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY_BYTES} bytes")
        decisions = self.server.decisions
        found = decisions.decide(*self._read_decision(self.rfile.read(int(length))))
        return json.dumps({"found": found, "answers": decisions.answers} if found else {}).encode(), JSON

    def _read_decision(self, body: bytes) -> tuple[int, str | None]:
        """The suspect's number and the answer."""
        try:
            decision = json.loads(body)
            number, answer = decision["number"], decision["answer"]
            is_known = type(number) is int and 0 <= number < len(self.server.decisions.suspects)
            if not is_known or answer not in (*ANSWERS, None):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _RequestError(http.HTTPStatus.BAD_REQUEST, "expected a number and one of the answers") from None
        if decision.get("list_hash") != self.server.list_hash:
            raise _RequestError(http.HTTPStatus.CONFLICT, "this page has an earlier list: reload it")
        return number, answer

    def _answer(self, respond: Callable[[], tuple[bytes, str]]) -> None:
        """Send what `respond` returns: body and content type; or its error, as JSON."""
        status = http.HTTPStatus.OK
        try:
            self._check_address()
            body, content_type = respond()
        except (_RequestError, InputError) as error:
            status = error.status if isinstance(error, _RequestError) else http.HTTPStatus.INTERNAL_SERVER_ERROR
            body, content_type = json.dumps({"error": str(error)}).encode(), JSON
            self.close_connection = True  # else the unread rest of the request would be read as the next one
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close" if self.close_connection else "keep-alive",
            "Cache-Control": "no-store",  # tomorrow's data set may have this address, and faces stay off the disk
            "Cross-Origin-Resource-Policy": "same-origin",  # pages of other sites cannot show the photographs
            "Content-Security-Policy": "frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _check_address(self) -> None:
        """Refuse other names of this machine (DNS rebinding: a page of another site points its own name here)."""
        port, secret_path = self.server.server_port, self.server.secret_path
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            raise _RequestError(http.HTTPStatus.FORBIDDEN, "expected the address that suspects.py has printed")
        if not self.path.startswith(secret_path):
            raise _RequestError(http.HTTPStatus.NOT_FOUND, "expected the address that suspects.py has printed")
        self.path = self.path.removeprefix(secret_path)
