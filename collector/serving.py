"""
Run an ASGI app on a socket of its own, inside the loop that is already running.

uvicorn wants to own the process: it takes the signals, sets up logging and ends the program when a
port is in use. Here it owns one socket and nothing else. The socket is bound before uvicorn sees
it, so that a port in use is an error of ours, port 0 can be asked for its number, and clients that
come during start-up wait in the backlog. uvicorn has no deadline for the head of a request; a
client that opens a connection and sends nothing (or one byte a second) is closed here.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Generator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from collector.errors import StartFailed

HEAD_TIMEOUT_S: Final = 10.0
BACKLOG: Final = 128

REASONS: Final = {
    errno.EADDRINUSE: "the address is in use; stop the other process or choose another endpoint",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another endpoint",
    errno.EACCES: "not permitted; choose a port above 1023",
}


def listen(endpoint: str) -> socket.socket:
    """
    A listening socket on `host:port`; `localhost` means 127.0.0.1, port 0 any free one.

    Raises:
        StartFailed: the endpoint is malformed or cannot be bound; the message names the fix.
    """
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise StartFailed(f'cannot listen on "{endpoint}": write host:port, like localhost:4318')
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise StartFailed(f'cannot listen on "{endpoint}": unknown host: {error}') from error
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = REASONS.get(error.errno or 0, os.strerror(error.errno or 0))
        raise StartFailed(f'cannot listen on "{endpoint}": {reason}') from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The `host:port` that a socket is bound to."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Patient(HttpToolsProtocol):
    """uvicorn's protocol, with a deadline for the head of each request."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        self.deadline = self.loop.call_later(HEAD_TIMEOUT_S, transport.close)

    def on_message_begin(self) -> None:
        """Start the clock of the next request on the same connection."""
        super().on_message_begin()
        self.stop_clock()
        self.deadline = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def on_headers_complete(self) -> None:
        """Stop the clock: the head is here."""
        self.stop_clock()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock: nobody is there any more."""
        self.stop_clock()
        super().connection_lost(exc)

    def stop_clock(self) -> None:
        """Forget the deadline."""
        if self.deadline is not None:
            self.deadline.cancel()


class Embedded(uvicorn.Server):
    """A uvicorn server that leaves the signals to the process that it is a guest of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take no signal."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: Any, endpoint: str, *, connections: int = 64, grace_s: int = 2
) -> AsyncIterator[str]:
    """
    Serve `app` while the block runs; the value is the address, with the real port.

    Args:
        app: an ASGI application; lifespan events are not sent.
        endpoint: `host:port`.
        connections: how many at once; one more is answered 503.
        grace_s: how long open requests may take when the block ends.

    Raises:
        StartFailed: the endpoint cannot be bound.
    """
    listener = listen(endpoint)
    address = address_of(listener)
    server = Embedded(
        uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            limit_concurrency=connections,
            timeout_graceful_shutdown=grace_s,
        )
    )
    running = asyncio.create_task(server.serve([listener]), name=f"serve {address}")
    try:
        yield address
    finally:
        server.should_exit = True
        try:
            await running
        finally:
            listener.close()
