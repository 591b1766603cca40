"""
`localhost` is this machine, also where nothing resolves it (RFC 6761, section 6.3).

A bare root file system has no hosts file and no resolver. The name is looked up first, because a
hosts file may say ::1; 127.0.0.1 is taken when it is unknown.
"""

import http.client
import socket
from typing import Final

ADDRESS: Final = "127.0.0.1"


def is_loopback_name(host: str) -> bool:
    """Whether a name means this machine by definition: `localhost`, and what ends in `.localhost`."""
    name = host.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def connect(connection: http.client.HTTPConnection) -> None:
    """
    Connect, to 127.0.0.1 when the name is `localhost` and unknown here.

    Raises:
        OSError: as `connect()` of the connection.
    """
    try:
        connection.connect()
    except socket.gaierror:
        if not is_loopback_name(connection.host):
            raise
        connection.host = ADDRESS
        connection.connect()


def known(host: str) -> str:
    """The host itself; 127.0.0.1 for a `localhost` that is unknown here."""
    if is_loopback_name(host):
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror:
            return ADDRESS
    return host
