"""Ports of this machine that a script serves at."""

import contextlib
import errno
import socket
from collections.abc import Iterator

from toolkit.system.console import InputError


@contextlib.contextmanager
def refused_with_advice(port: int) -> Iterator[None]:
    """Turns the error of a block that takes a port into an InputError that names SERVE_PORT."""
    try:
        yield
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "one that is in use" if in_use else getattr(error, "strerror", None) or error
        raise InputError(
            f"SERVE_PORT={port}: expected a free port, found {reason}; name another, or 0, which takes a free one"
        ) from None


def bound(host: str, port: int) -> socket.socket:
    """A socket with that address, which refuses connections until its `listen` is called.

    `port` 0 takes a free one. Raises InputError where it is in use, or the host is none of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"SERVE_HOST={host}: expected an address of this machine: {reason}") from None
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # at once after the last server here has ended
    with refused_with_advice(port):
        found.bind(address)
    return found


def address(listening: socket.socket) -> str:
    """The address of a server, as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
