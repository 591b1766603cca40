"""
OTLP over HTTP/1.1: a small ASGI app behind uvicorn's httptools protocol, on sockets of our own.

The app reads top to bottom: is it for us, is it a POST, can we read it, how large is it, read it,
take it, answer. Every answer that is not a success is a `google.rpc.Status` in the encoding of the
request. uvicorn's server object is not used: it would take signals, poll and log. What must be bounded
below ASGI, where middleware runs too late, is in `_http_connection`.
"""

import asyncio
import math
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
import uvicorn
from uvicorn.server import ServerState

from collector.errors import (
    UNAVAILABLE,
    CollectorError,
    NotFound,
    Retryable,
    TooLarge,
    Unauthenticated,
    Unsupported,
    WrongMethod,
    answer,
)
from collector.http.descriptors import share
from collector.http.server import UNIX, address_of, hide
from collector.model import Duration, Signal
from collector.otlp import Encoding, response, status
from collector.receivers.otlp.admission import Admission, MemoryCharge, reason_of, sender_of
from collector.receivers.otlp.auth import Access, Auth, exposed
from collector.receivers.otlp.compression import DECODED
from collector.receivers.otlp.cors import Cors
from collector.receivers.otlp.http_connection import Connection
from collector.receivers.otlp.resends import Try
from collector.receivers.otlp.sockets import listen_all, where
from collector.receivers.otlp.tls import Identity, Tls
from collector.stats import QuietLog

MEDIA_TYPES: Final[dict[bytes, Encoding]] = {
    b"application/x-protobuf": "protobuf",
    b"application/json": "json",
}
CONTENT_TYPES: Final[dict[Encoding, bytes]] = {name: kind for kind, name in MEDIA_TYPES.items()}
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PERMISSION_DENIED: Final = 7
"""A code of google.rpc.Code that no error of ours stands for."""
PREFLIGHT: Final = b"access-control-request-method"
SETTLE: Final = 10
"""Rounds of the event loop in which an accepted connection is made, or an aborted one is gone."""

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OTLP over HTTP, protobuf and JSON."""

    endpoint: str = "localhost:4318"
    """Address to listen on, `host:port`. Loopback unless you say otherwise; port 0 takes a free one."""
    transport: Literal["tcp", "unix"] = "tcp"
    """Kind of socket; with unix the endpoint is a path."""
    tls: Tls | None = None
    """Encryption, and certificates of clients."""
    auth: Auth | None = None
    """The credential that every request needs."""
    cors: Cors | None = None
    """Which web pages may send from a browser; none unless you say so."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that a Host header may carry, without port. On loopback, only these and loopback
    names are served; elsewhere any name is, unless this is set. With a token any name will do."""
    dangerously_allow_unauthenticated: bool = False
    """Listen beyond loopback without token or mTLS: every client that reaches the port can send."""
    max_request_body_size: int = 20 << 20
    """Largest body in bytes, as it comes and when it is decompressed; more is answered 413."""
    compression_algorithms: tuple[str, ...] = ("", *DECODED)
    """Content encodings to take: gzip, zstd, zlib, deflate, snappy, x-snappy-framed. An empty list takes plain bodies only."""
    read_header_timeout: Duration = Duration(10)
    """How long the head of a request may take; then the connection is closed."""
    read_timeout: Duration = Duration(60)
    """How long the body of a request may take; then 408."""
    idle_timeout: Duration = Duration(60)
    """How long a connection may be idle between two requests."""
    keep_alives_enabled: bool = True
    """Whether a connection may carry more than one request."""
    response_headers: Mapping[str, str] = {}
    """Headers to add to every answer."""
    traces_url_path: str = "/v1/traces"
    """Where traces are sent to."""
    metrics_url_path: str = "/v1/metrics"
    """Where metrics are sent to."""
    logs_url_path: str = "/v1/logs"
    """Where logs are sent to."""

    def check(self) -> list[str]:
        """What is wrong with these settings, one text each."""
        problems = exposed(self)
        if self.max_request_body_size <= 0:
            problems.append("max_request_body_size must be greater than zero")
        problems += [
            f'compression_algorithms: "{name}" is not supported, use gzip, zstd, zlib, deflate, snappy or x-snappy-framed'
            for name in self.compression_algorithms
            if name not in ENCODINGS
        ]
        problems += [
            f"{name} must be greater than zero"
            for name in ("read_header_timeout", "read_timeout", "idle_timeout")
            if getattr(self, name) <= 0
        ]
        if len(set(self.paths())) < len(Signal):
            problems.append("traces_url_path, metrics_url_path and logs_url_path must differ")
        return problems

    def paths(self) -> dict[str, Signal]:
        """The signal of each path; a missing first slash is added."""
        return {
            "/" + path.removeprefix("/"): signal
            for path, signal in (
                (self.traces_url_path, Signal.TRACES),
                (self.metrics_url_path, Signal.METRICS),
                (self.logs_url_path, Signal.LOGS),
            )
        }


ENCODINGS: Final = frozenset(Http().compression_algorithms)


class Refused(Exception):
    """
    An HTTP status that no error of ours stands for.

    Args:
        status_code: the status.
        code: the gRPC code of the body.
        reason: the word under which it is counted.
        message: what is wrong and what to do.
    """

    def __init__(self, status_code: int, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.reason = reason
        self.code = code


class Gone(Exception):
    """The client left before its request was complete: there is no one to answer."""


class App:
    """
    The ASGI app: one request in, one answer out.

    Args:
        config: the settings.
        intake: where bodies go.
        access: who may send.
        hosts: names that a Host header may have; None takes any.
    """

    def __init__(
        self, config: Http, admission: Admission, access: Access, hosts: frozenset[str] | None
    ) -> None:
        self.config = config
        self.admission = admission
        self.access = access
        self.hosts = hosts
        self.paths = config.paths()
        self.encodings = frozenset(config.compression_algorithms) - {""}
        self.headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in config.response_headers.items()
        ]
        if not config.keep_alives_enabled:
            self.headers.append((b"connection", b"close"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = scope["headers"]
        encoding = MEDIA_TYPES.get(media_type(headers))
        extra: list[tuple[bytes, bytes]] = []
        spoken: Encoding = encoding or "json"
        code = 200
        attempt: Try | None = None
        try:
            extra += self.visitor(scope)
            if scope["method"] == "OPTIONS" and header(headers, PREFLIGHT):
                await reply(send, 204, [*self.headers, *extra], b"", b"")
                return
            with self.admission.charge() as charge:
                body, attempt = await self.request(scope, receive, encoding, charge)
        except Gone:
            return
        except CollectorError as error:
            extra += headers_of(error)
            code, body = self.error(error, spoken, scope)
        except Refused as error:
            self.admission.refused("http", error.reason, sender(scope), str(error))
            if error.status_code == 421:
                extra.append((b"connection", b"close"))
            code, body = error.status_code, status(error.code, str(error), None, spoken)
        except Exception as error:
            # Nothing of ours may become a 500, which makes senders drop the data.
            self.admission.log.exception("Answering a request failed")
            extra.append((b"retry-after", b"1"))
            internal = Retryable(f"internal error: {type(error).__name__}")
            code, body = self.error(internal, spoken, scope)
        await reply(send, code, [*self.headers, *extra], CONTENT_TYPES[spoken], body)
        if attempt is not None:
            if attempt.exchange is None or attempt.exchange.broken():
                attempt.fail()
            else:
                attempt.answered()

    def error(self, error: CollectorError, spoken: Encoding, scope: Scope) -> tuple[int, bytes]:
        """Status and body for an error of ours, which is counted."""
        self.admission.refused("http", reason_of(error), sender(scope), str(error))
        http, grpc = answer(error)
        delay_s = error.delay_s if isinstance(error, Retryable) else None
        return http, status(grpc, str(error), delay_s, spoken)

    async def request(
        self, scope: Scope, receive: Receive, encoding: Encoding | None, charge: MemoryCharge
    ) -> tuple[bytes, Try]:
        """The body of the answer to a good request, and what is called when it was written."""
        headers = scope["headers"]
        self.access.check(lambda name: values_of(headers, name.encode("latin-1")))
        signal = self.paths.get(scope["path"])
        if signal is None:
            raise NotFound(f"no such path; send to {', '.join(self.paths)}")
        if scope["method"] != "POST":
            raise WrongMethod(f"{scope['method']} is not allowed; use POST")
        if signal not in self.admission.next:
            raise NotFound(f"{signal.value} are part of no pipeline of this collector")
        if encoding is None:
            raise Unsupported(
                "unsupported content type; send application/x-protobuf or application/json"
            )
        compression = self.compression(headers)
        cap = self.config.max_request_body_size
        if announced(headers) > cap:
            raise TooLarge(f"the body is larger than {cap} bytes")
        self.admission.admit(signal)
        try:
            async with asyncio.timeout(self.config.read_timeout):
                body = await read(receive, cap, charge)
        except TimeoutError as error:
            text = f"the body took longer than {self.config.read_timeout:g} s"
            raise Refused(408, UNAVAILABLE, "too_slow", text) from error
        taken = await self.admission.take(
            signal,
            body,
            charge,
            encoding=encoding,
            transport="http",
            compression=compression,
            cap=cap,
            sender=sender(scope),
            exchange=scope["otelier.exchange"],
        )
        return response(signal, taken.rejected, taken.message, encoding), taken.attempt

    def visitor(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """
        Refuse web pages of other sites: by name (DNS rebinding) and by Origin.

        Returns:
            What the answer to an allowed page carries.

        Raises:
            Refused: it is none.
        """
        headers = scope["headers"]
        names = values_of(headers, b"host")
        host = names[0].decode("latin-1").lower() if len(names) == 1 else ""
        if self.hosts is not None and host_name(host) not in self.hosts:
            raise Refused(
                421, PERMISSION_DENIED, "wrong_host", "this Host is not served here; use localhost"
            )
        given = header(headers, b"origin")
        origin = given.decode("latin-1").lower()
        if not origin or origin.partition("://")[2] == host:
            return []
        cors = self.config.cors
        if cors is None or not cors.allows(origin):
            raise Refused(
                403,
                PERMISSION_DENIED,
                "foreign_origin",
                "requests from other origins are not allowed",
            )
        extra = cors.permission(given)
        if scope["method"] == "OPTIONS" and header(headers, PREFLIGHT):
            wanted = header(headers, b"access-control-request-headers")
            refused = cors.refuses(wanted.decode("latin-1"))
            if refused:
                text = f"pages may not send the header {refused}; name it in cors::allowed_headers"
                raise Refused(403, PERMISSION_DENIED, "foreign_header", text)
            extra += cors.preflight(wanted)
        return extra

    def compression(self, headers: list[tuple[bytes, bytes]]) -> str:
        """The content encoding of the body, empty for none."""
        found = [value for name, value in headers if name == b"content-encoding"]
        text = b",".join(found).decode("latin-1").strip().lower()
        if text in ("", "identity"):
            return ""
        if text not in self.encodings:
            taken = ", ".join(sorted(self.encodings)) or "none"
            raise Unsupported(f"unsupported content encoding; one of: identity, {taken}")
        return text


async def read(receive: Receive, cap: int, charge: MemoryCharge) -> bytes:
    """The body as it comes, up to a cap."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        piece = message.get("body", b"")
        size += len(piece)
        if size > cap:
            raise TooLarge(f"the body is larger than {cap} bytes")
        charge.add(len(piece))
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


async def reply(
    send: Send, code: int, headers: list[tuple[bytes, bytes]], kind: bytes, body: bytes
) -> None:
    """Send one answer."""
    head = [*headers]
    if code != 204:
        head += [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": code, "headers": head})
    await send({"type": "http.response.body", "body": body})


def sender(scope: Scope) -> str:
    """Who sent a request, for the log."""
    client = scope.get("client")
    agent = header(scope["headers"], b"user-agent").decode("latin-1")
    return sender_of(client[0] if client else "a unix socket", agent)


def header(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The value of a header, empty when it is absent."""
    return next((value.strip() for key, value in headers if key == name), b"")


def values_of(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of a header, one for each time that it was sent."""
    return [value.strip() for key, value in headers if key == name]


def headers_of(error: CollectorError) -> list[tuple[bytes, bytes]]:
    """What the answer to an error carries beside its body."""
    if isinstance(error, Retryable):
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.delay_s)))]
    if isinstance(error, WrongMethod):
        return [(b"allow", b"POST")]
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b"Bearer")]
    return []


def media_type(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The content type in lower case, without its parameters."""
    return header(headers, b"content-type").partition(b";")[0].strip().lower()


def announced(headers: list[tuple[bytes, bytes]]) -> int:
    """The Content-Length, 0 when there is none; httptools has checked that it is a number."""
    text = header(headers, b"content-length")
    return int(text) if text.isdigit() else 0


def host_name(host: str) -> str:
    """A Host header without its port; empty when it is no host and port."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    if not (port.isascii() and port.isdigit()):
        return ""
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


class Server:
    """
    The listener: sockets, connections, and a stop that lets them finish.

    Args:
        config: the settings.
        intake: where bodies go.
        access: who may send.
        place: the path of the settings, for messages.
    """

    def __init__(self, config: Http, admission: Admission, access: Access, place: str) -> None:
        self.config = config
        self.admission = admission
        self.access = access
        self.place = place
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._listeners: list[socket.socket] = []

    def hosts(self, address: str, names: set[str]) -> frozenset[str] | None:
        """The names that a Host header may have; None for any, where a page can do no harm."""
        config = self.config
        if config.auth is not None or address.startswith(UNIX):
            return None
        if not names <= LOOPBACK and not config.allowed_hosts:
            return None
        own = host_name(config.endpoint.lower())
        return LOOPBACK | {own} | {name.lower() for name in config.allowed_hosts}

    async def start(self) -> str:
        """
        Bind and serve; the address, with the real port.

        Raises:
            StartFailed: the endpoint or the certificate cannot be used; the message names the key
                and the fix.
        """
        tls, warn = self.config.tls, QuietLog(self.admission.log).warning
        identity = Identity(tls, f"{self.place}::tls", warn) if tls is not None else None
        endpoint = where(self.config.endpoint, self.config.transport)
        listeners = listen_all(endpoint, f"{self.place}::endpoint")
        address = address_of(listeners[0])
        names = {one.getsockname()[0] for one in listeners}
        app = App(self.config, self.admission, self.access, self.hosts(address, names))
        settings = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=math.ceil(self.config.idle_timeout),
        )
        settings.load()
        loop = asyncio.get_running_loop()
        most = share(self.admission.limits.max_connections)

        def connect() -> Connection:
            made = Connection(settings, self._state, {}, loop)
            made.head_timeout_s = self.config.read_header_timeout
            made.most = most
            return made

        self._listeners = listeners
        secure: dict[str, Any] = {}
        if identity is not None:
            secure["ssl"] = identity.server_context()
            secure["ssl_handshake_timeout"] = self.config.read_header_timeout
        for listener in listeners:
            self._servers.append(await loop.create_server(connect, sock=listener, **secure))
        return address

    async def stop(self, grace_s: float) -> None:
        """Take no new request, let those in work be answered, then close."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
        # What was accepted already becomes a connection first: asyncio forgets the sockets of
        # connections that it has not made when the server closes.
        for _ in range(SETTLE):
            await asyncio.sleep(0)
        for server, listener in zip(self._servers, self._listeners, strict=True):
            hide(listener)
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=grace_s)
        for connection in list(self._state.connections):
            # Never cancelled: that would be answered as a 500. Closing it ends its task.
            connection.transport.abort()
        for _ in range(SETTLE):
            await asyncio.sleep(0)
        for server in self._servers:
            await server.wait_closed()
