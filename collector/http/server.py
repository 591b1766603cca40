"""
Run an ASGI app on a socket of its own, inside the loop that is already running.

uvicorn wants to own the process: it takes the signals, sets up logging and ends the program when a
port is in use. Here it owns one socket and nothing else. The socket is bound before uvicorn sees
it, so that a port in use is an error of ours, port 0 can be asked for its number, and clients that
come during start-up wait in the backlog. What happens on a connection, with its deadlines and
limits, is in `server_connection`.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any, Final

import uvicorn

from collector.errors import StartFailed
from collector.http.loopback import ADDRESS as LOOPBACK
from collector.http.loopback import is_loopback_name
from collector.http.server_connection import Connection as Connection

UNIX: Final = "unix://"
BACKLOG: Final = 128
WEBSOCKET_BYTES: Final = 64 << 10
"""The largest message that a client may send over a WebSocket; ours only listen."""

REASONS: Final = {
    errno.EADDRINUSE: "the address is in use; stop the other process or choose another endpoint",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another endpoint",
    errno.EACCES: "not permitted; choose a port above 1023",
}
UNIX_REASONS: Final = {
    errno.EADDRINUSE: "another process listens there; stop it or choose another path",
    errno.EEXIST: "there is a file that is no socket; remove it or choose another path",
    errno.ENOENT: "there is no such folder; create it",
    errno.EACCES: "not permitted; choose a folder that this user may write",
}


def listen(endpoint: str) -> socket.socket:
    """
    A listening socket on `host:port`; `localhost` means 127.0.0.1, port 0 any free one.

    `unix:///path` is a socket in the file system, for this user and group; a file that an earlier
    process left behind is replaced, one that a process listens on is not.

    Raises:
        StartFailed: the endpoint is malformed or cannot be bound; the message names the fix.
    """
    if endpoint.startswith(UNIX):
        return listen_unix(Path(endpoint.removeprefix(UNIX)))
    if "@" in endpoint:
        raise StartFailed("cannot listen: an endpoint has no user or password; write host:port")
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise StartFailed(f'cannot listen on "{endpoint}": write host:port, like localhost:4318')
    host = host.strip("[]")
    if is_loopback_name(host):
        host = LOOPBACK
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


def listen_unix(path: Path) -> socket.socket:
    """
    A listening socket in the file system.

    Raises:
        StartFailed: there is something else, or the folder is not ours; the message names the fix.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        make_way(path)
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, ValueError) as error:
        listener.close()
        number = getattr(error, "errno", None) or 0
        reason = UNIX_REASONS.get(number, os.strerror(number) if number else str(error))
        raise StartFailed(f'cannot listen on "{UNIX}{path}": {reason}') from error
    return listener


def make_way(path: Path) -> None:
    """
    Remove a socket that no process listens on any more.

    Raises:
        OSError: a process listens on it, or it is no socket.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "a process listens")


def hide(listener: socket.socket) -> None:
    """Remove the file of a listening socket, if it has one, before the socket is closed."""
    if listener.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            Path(listener.getsockname()).unlink()


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach an endpoint: loopback, or a socket in the file system."""
    if endpoint.startswith(UNIX):
        return True
    host = endpoint.rpartition(":")[0].strip("[]").lower()
    if is_loopback_name(host):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(listener: socket.socket) -> str:
    """The `host:port` that a socket is bound to, or its `unix:///path`."""
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bounded(most: int) -> type[Connection]:
    """Connections of which there are at most so many."""
    return type("Connection", (Connection,), {"most": most})


class Embedded(uvicorn.Server):
    """A uvicorn server that leaves the signals to the process that it is a guest of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take no signal."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: Any,
    endpoint: str,
    *,
    connections: int = 64,
    grace_s: int = 2,
    websockets: bool = False,
) -> AsyncIterator[str]:
    """
    Serve `app` while the block runs; the value is the address, with the real port.

    Args:
        app: an ASGI application; lifespan events are not sent.
        endpoint: `host:port`, or `unix:///path`.
        connections: how many at once; one more costs the one that is idle longest its place.
        grace_s: how long open requests may take when the block ends.
        websockets: whether a connection may become a WebSocket; its messages are small.

    Raises:
        StartFailed: the endpoint cannot be bound.
    """
    listener = listen(endpoint)
    address = address_of(listener)
    server = Embedded(
        uvicorn.Config(
            app,
            http=bounded(connections - 1),
            ws="websockets-sansio" if websockets else "none",
            ws_max_size=WEBSOCKET_BYTES,
            ws_per_message_deflate=False,
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
        hide(listener)
        server.should_exit = True
        try:
            await running
        finally:
            listener.close()
