"""
`localhost` is this machine, also where nothing resolves it (RFC 6761, section 6.3).

A bare root file system has no hosts file and no resolver, and `localhost` is then an unknown host.
The name is bound to 127.0.0.1 without asking. A client asks first, because a hosts file may say ::1,
and takes 127.0.0.1 when the name is unknown.
"""

import asyncio
import http.client
import socket
import ssl
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


async def open_connection(
    host: str, port: int, tls: ssl.SSLContext | None, server_name: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """
    A stream to a host, to 127.0.0.1 when the name is `localhost` and unknown here.

    Args:
        host: a name or an address.
        port: the port.
        tls: encrypts, if given.
        server_name: the name that the certificate must have; only with `tls`.

    Raises:
        OSError: nothing listens, or the name is unknown.
    """
    try:
        return await asyncio.open_connection(host, port, ssl=tls, server_hostname=server_name)
    except socket.gaierror:
        if not is_loopback_name(host):
            raise
        return await asyncio.open_connection(ADDRESS, port, ssl=tls, server_hostname=server_name)
