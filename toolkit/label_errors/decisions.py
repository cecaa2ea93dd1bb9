"""What a person decides of suspects: rows of a table of corrections, and a page on this machine that writes them.

The page asks of each suspect whether the suggestion is right, and knows three answers: "y", "n" and "?".
"""

import contextlib
import errno
import hashlib
import http
import http.server
import json
import pathlib
import re
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from toolkit.label_errors.corrections import ALL_COLUMNS, COLUMNS, as_csv, asked
from toolkit.label_errors.ranking import Suspect
from toolkit.system import files
from toolkit.system.console import InputError, listed, say
from toolkit.system.signals import Terminated

ANSWERS = ("y", "n", "?")  # the suggestion is right, the folder is right, cannot tell
NOT_THE_SUGGESTION = {  # certainty and note
    "n": ("sure", "looked at: the folder is right"),
    "?": ("not sure", "looked at: cannot tell"),
}
LOCK = f".suspects{files.LOCK}"
MOST_BYTES = 1000  # of a decision that is sent
IDLE_SECONDS = 60  # after which a connection is closed
JSON, HTML, JPEG = "application/json", "text/html; charset=utf-8", "image/jpeg"
PHOTOGRAPHS = re.compile(r"photographs/(\d{1,9})\.jpg")


def rows(suspect: Suspect, answer: str) -> list[dict[str, str]]:
    """The rows of a table of corrections that hold this answer of ANSWERS.

    Where the suggestion is not right they say that what is given is correct, so that it need not be looked at again.
    """
    if answer == "y":
        return suspect.corrections
    certainty, note = NOT_THE_SUGGESTION[answer]
    return [row | {"correct": row["given"], "certainty": certainty, "note": note} for row in suspect.corrections]


def read(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a table of corrections; none where there is no file.

    Raises InputError on what is no such table, or has a column that ALL_COLUMNS has not: it would be lost.
    """
    if not path.exists():
        return []
    table = files.read_csv(path, COLUMNS[:-1], "the folder of corrections")
    if more := [name for name in table if name not in ALL_COLUMNS]:
        raise InputError(
            f"{path}: expected the columns {', '.join(ALL_COLUMNS)}; found {listed(more)} too, which would be lost; "
            "take that out, or have the decisions in another file"
        )
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def sort_out(
    table: Sequence[Mapping[str, str]], suspects: Sequence[Suspect]
) -> tuple[dict[int, tuple[str, list[Mapping[str, str]]]], list[Mapping[str, str]]]:
    """{number of a suspect: the answer that rows of a table hold, and these rows}, and the rows that are no answer.

    Notes may differ: they tell what nets said, which is another thing each time, or what a person wrote.
    """
    there = {_decided(row): row for row in table}
    answers, used = {}, set()
    for number, suspect in enumerate(suspects):
        for answer in ANSWERS:
            own = [_decided(row) for row in rows(suspect, answer)]
            if own and there.keys() >= set(own):
                answers[number] = answer, [there[row] for row in own]
                used.update(own)
                break
    return answers, [row for row in table if _decided(row) not in used]


def _decided(row: Mapping[str, str]) -> tuple[str, ...]:
    return _cells(row)[: COLUMNS.index("note")]


def _cells(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in ALL_COLUMNS)


def edition(suspects: Sequence[Suspect]) -> str:
    """A short text that is another one for other suspects: a page of an earlier list must decide nothing in this."""
    told = [(suspect.folder, suspect.photographs, suspect.corrections) for suspect in suspects]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class Decisions:
    """What was decided, and its file, which holds at any time all that `put` has returned from.

    First stand the rows that are no answers of these suspects: those of `kept`, which are of an earlier round and on
    other people, and those that the file has, unless an answer says something of the same. Then come the answers, in
    the order of the suspects.
    """

    def __init__(self, path: pathlib.Path, suspects: Sequence[Suspect], kept: Sequence[Mapping[str, str]] = ()):
        self.path, self.suspects = path, suspects
        found, own = sort_out(read(path), suspects)
        others = list({_cells(row): row for row in [*kept, *own]}.values())
        self.answers = {number: answer for number, (answer, _) in found.items()}
        self._rows = {number: own for number, (_, own) in found.items()}
        self._others, self._lock, self._closed = others, threading.Lock(), False

    def put(self, number: int, answer: str | None) -> None:
        """Have the file say so; None takes the answer back. Raises InputError where it cannot, and nothing changes."""
        with self._lock:
            if self._closed:
                raise InputError("the server has ended")
            after = self._rows | {number: rows(self.suspects[number], answer) if answer else []}
            decided = [row for key in sorted(after) for row in after[key]]
            again = set(map(asked, decided))  # what was said of that before has been thought over
            table = as_csv([*(row for row in self._others if asked(row) not in again), *decided])
            try:
                with files.locked(self.path.parent):
                    files.write(self.path, table)
            except OSError as error:  # the folder is gone
                raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
            self._rows = after
            self.answers = {key: value for key, value in (self.answers | {number: answer}).items() if value}

    def close(self) -> None:
        """Wait for what is being written; nothing is written from then on."""
        with self._lock:
            self._closed = True


def serve(
    path: pathlib.Path,
    suspects: Sequence[Suspect],
    kept: Sequence[Mapping[str, str]],
    page: bytes,
    photographs: Callable[[int], bytes],
    port: int,
) -> None:
    """Show a page on this machine, and write each decision to the file `path` as it is made, until Ctrl-C.

    `page` is HTML, `photographs` gives a suspect's as a JPEG. `port` 0 takes one that is free. Raises InputError where
    the port is taken or the file is no table of corrections, and Terminated.
    """
    with contextlib.ExitStack() as stack:
        try:  # a lock of its own: others who write to that folder need not wait for hours
            stack.enter_context(files.locked(path.parent, until=lambda: True, name=LOCK))
        except InterruptedError:
            raise InputError(f"{path}: another suspects.py serves a page that writes it; end that one first") from None
        decisions = Decisions(path, suspects, kept)
        with Server(decisions, page, photographs, port) as server:
            say(f"look at {server.address} on this machine; Ctrl-C ends it, and all that was decided is in {path}")
            try:
                server.serve_forever()
            except Terminated:
                raise
            except KeyboardInterrupt:
                pass
            finally:
                decisions.close()
    say(f"{len(decisions.answers):,} of {len(suspects):,} decided: {path}")


class Server(http.server.ThreadingHTTPServer):
    """Answers this machine only: the page, its photographs, and what was decided."""

    def __init__(self, decisions: Decisions, page: bytes, photographs: Callable[[int], bytes], port: int):
        """Raises InputError where the port cannot be had."""
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "one that is in use" if taken else getattr(error, "strerror", None) or error
            raise InputError(
                f"SERVE_PORT={port}: expected a free port, found {reason}; name another, or 0, which takes a free one"
            ) from None
        self.decisions, self.page, self.photographs = decisions, page, photographs
        self.edition = edition(decisions.suspects)
        self.folder = f"/{secrets.token_urlsafe(12)}/"  # others at this machine can reach the port, but not guess this
        self.address = f"http://127.0.0.1:{self.server_port}{self.folder}"

    def handle_error(self, request, client_address) -> None:
        """A browser that went away in the middle is no news."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _RequestError(Exception):
    def __init__(self, status: http.HTTPStatus, text: str):
        super().__init__(text)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the head of an answer is not held back until its body comes
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer(self._shown)

    def do_POST(self) -> None:
        self._answer(self._decide)

    def log_message(self, *_) -> None:
        """Nothing: a line a photograph would push all else off the terminal."""

    def _shown(self) -> tuple[bytes, str]:
        server = self.server
        if not self.path:
            return server.page, HTML
        if self.path == "decisions":
            return json.dumps(server.decisions.answers).encode(), JSON
        photographs = PHOTOGRAPHS.fullmatch(self.path)  # by number: no path of a file is ever taken from a request
        if photographs and int(photographs[1]) < len(server.decisions.suspects):
            return server.photographs(int(photographs[1])), JPEG
        raise _RequestError(http.HTTPStatus.NOT_FOUND, "there is no such page")

    def _decide(self) -> tuple[bytes, str]:
        """A page of another site can send neither JSON nor this Origin: only this page's decisions count."""
        if self.path != "decisions":
            raise _RequestError(http.HTTPStatus.NOT_FOUND, "there is no such page")
        if self.headers.get("Origin", f"http://{self.headers['Host']}") != f"http://{self.headers['Host']}":
            raise _RequestError(http.HTTPStatus.FORBIDDEN, "a page of another site may decide nothing here")
        if self.headers.get_content_type() != JSON:
            raise _RequestError(http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected {JSON}")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > MOST_BYTES:
            raise _RequestError(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MOST_BYTES} bytes")
        self.server.decisions.put(*self._decision(self.rfile.read(int(length))))
        return b"{}", JSON

    def _decision(self, body: bytes) -> tuple[int, str | None]:
        """The suspect's number and the answer."""
        try:
            decision = json.loads(body)
            number, answer = decision["number"], decision["answer"]
            known = type(number) is int and 0 <= number < len(self.server.decisions.suspects)
            if not known or answer not in (*ANSWERS, None):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _RequestError(http.HTTPStatus.BAD_REQUEST, "expected a number and one of the answers") from None
        if decision.get("edition") != self.server.edition:
            raise _RequestError(http.HTTPStatus.CONFLICT, "this page is of an earlier list: load it anew")
        return number, answer

    def _answer(self, to_request: Callable[[], tuple[bytes, str]]) -> None:
        status = http.HTTPStatus.OK
        try:
            self._refuse_others()
            body, kind = to_request()
        except (_RequestError, InputError) as error:
            status = error.status if isinstance(error, _RequestError) else http.HTTPStatus.INTERNAL_SERVER_ERROR
            body, kind = json.dumps({"error": str(error)}).encode(), JSON
            self.close_connection = True  # what was not read of the request must not be taken for the next one
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Connection": "close" if self.close_connection else "keep-alive",
            "Cache-Control": "no-store",  # another data set may have this address tomorrow, and faces stay off the disk
            "Cross-Origin-Resource-Policy": "same-origin",  # nor may a page of another site show them
            "Content-Security-Policy": "frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _refuse_others(self) -> None:
        """A name that somebody else's page has made to mean this machine is not ours (DNS rebinding)."""
        port, folder = self.server.server_port, self.server.folder
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            raise _RequestError(http.HTTPStatus.FORBIDDEN, "expected the address that suspects.py has said")
        if not self.path.startswith(folder):
            raise _RequestError(http.HTTPStatus.NOT_FOUND, "expected the address that suspects.py has said")
        self.path = self.path.removeprefix(folder)
