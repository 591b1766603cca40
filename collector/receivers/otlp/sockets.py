"""
The sockets of an endpoint, the same for both transports.

`localhost` is 127.0.0.1 and, where there is one, ::1. With `transport: unix` the endpoint is a path.
"""

import contextlib
import socket

from collector.errors import StartFailed
from collector.http.server import UNIX, listen


def where(endpoint: str, transport: str) -> str:
    """The endpoint as one text, whichever way a socket in the file system is written."""
    if transport == "unix" and not endpoint.startswith("unix:"):
        return UNIX + endpoint
    if endpoint.startswith("unix:") and not endpoint.startswith(UNIX):
        return UNIX + endpoint.removeprefix("unix:")
    return endpoint


def listen_all(endpoint: str, key: str) -> list[socket.socket]:
    """
    The sockets of an endpoint: one, or 127.0.0.1 and ::1 for `localhost`.

    Raises:
        StartFailed: it cannot be bound; the message begins with `key`.
    """
    try:
        listeners = [listen(endpoint)]
    except StartFailed as error:
        raise StartFailed(f"{key}: {error}") from error
    if endpoint.lower().partition(":")[0] == "localhost":
        port = listeners[0].getsockname()[1]
        with contextlib.suppress(StartFailed):  # no IPv6 here: 127.0.0.1 is enough
            listeners.append(listen(f"[::1]:{port}"))
    return listeners
