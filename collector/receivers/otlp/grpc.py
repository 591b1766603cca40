"""
OTLP over gRPC: one generic handler, bytes in and bytes out.

Identity serializers leave decoding to `Admission`, which is the same for both transports. A call is
served as a stream of one message, which on the wire is the same: only so is a handler entered
before the message is read, to check the credential, to ask whether it would be taken at all, and to
read it within a deadline. Every exception is turned into a code here, once: what escapes from a handler is UNKNOWN for the client,
and OTLP clients drop the batch on UNKNOWN. A `Retryable` answer carries RetryInfo
in `grpc-status-details-bin`, where the specification wants it, and in `google.rpc.retryinfo-bin`,
where Python clients look. The bound on calls is `Admission`'s: gRPC's own answers
RESOURCE_EXHAUSTED, which is final.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import grpc.aio
import msgspec

from collector.errors import CollectorError, Malformed, Retryable, StartFailed, answer
from collector.http.descriptors import share
from collector.http.server import UNIX, address_of, hide
from collector.model import Duration, Signal
from collector.otlp import response, retry_info, shorten, status
from collector.receivers.otlp.admission import Admission, reason_of, sender_of
from collector.receivers.otlp.auth import Access, Auth, exposed
from collector.receivers.otlp.sockets import listen_all, where
from collector.receivers.otlp.tls import Identity, Tls
from collector.stats import QuietLog

KEY: Final = "protocols::grpc"
STREAMS: Final = 1_000
"""Calls at once on one connection."""
HANDSHAKE_MS: Final = 10_000
"""How long a new connection may take until it speaks HTTP/2."""
SERVICES: Final = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
MEBIBYTE: Final = 1 << 20


class ServerParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the server pings, and when it ends connections; 0 is gRPC's default."""

    max_connection_idle: Duration = Duration(0)
    """A connection without calls is closed after so long."""
    max_connection_age: Duration = Duration(0)
    """Every connection is closed after so long, so that clients spread over servers again."""
    max_connection_age_grace: Duration = Duration(0)
    """How long calls may go on behind max_connection_age."""
    time: Duration = Duration(0)
    """Ping a client that is quiet for so long."""
    timeout: Duration = Duration(0)
    """Close a connection whose ping is not answered for so long."""


class EnforcementPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which pings of clients are too many; a client that sends more is sent away."""

    min_time: Duration = Duration(0)
    """The shortest time between two pings; 0 is gRPC's default, five minutes."""
    permit_without_stream: bool = False
    """Whether a client may ping when it has no call."""


class Keepalive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pings and the age of connections."""

    server_parameters: ServerParameters = ServerParameters()
    """What the server does."""
    enforcement_policy: EnforcementPolicy = EnforcementPolicy()
    """What clients may do."""


class Grpc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OTLP over gRPC."""

    endpoint: str = "localhost:4317"
    """Address to listen on, `host:port`. Loopback unless you say otherwise; port 0 takes a free one."""
    transport: Literal["tcp", "unix"] = "tcp"
    """Kind of socket; with unix the endpoint is a path."""
    tls: Tls | None = None
    """Encryption, and certificates of clients."""
    auth: Auth | None = None
    """The credential that every call needs."""
    dangerously_allow_unauthenticated: bool = False
    """Listen beyond loopback without token or mTLS: every client that reaches the port can send."""
    max_recv_msg_size_mib: int = 20
    """Largest message in MiB, as it comes and when it is decompressed; 0 means 20, too."""
    max_concurrent_streams: int = 0
    """Calls at once on one connection; 0 means 1000."""
    read_timeout: Duration = Duration(60)
    """How long the message of a call may take; then the call ends as UNAVAILABLE."""
    keepalive: Keepalive = Keepalive()
    """Pings and the age of connections."""

    def check(self) -> list[str]:
        """What is wrong with these settings, one text each."""
        problems = exposed(self)
        if self.read_timeout <= 0:
            problems.append("read_timeout must be greater than zero")
        if not 0 <= self.max_recv_msg_size_mib <= 1024:
            problems.append("max_recv_msg_size_mib must be between 0 and 1024")
        if self.max_concurrent_streams < 0:
            problems.append("max_concurrent_streams must not be negative")
        return problems

    def message_limit(self) -> int:
        """The largest message in bytes."""
        return (self.max_recv_msg_size_mib or 20) * MEBIBYTE

    def options(self) -> list[tuple[str, int]]:
        """The settings as gRPC's channel arguments."""
        server, policy = self.keepalive.server_parameters, self.keepalive.enforcement_policy
        limits = {
            "grpc.max_concurrent_streams": self.max_concurrent_streams or STREAMS,
            "grpc.max_connection_idle_ms": int(server.max_connection_idle * 1000),
            "grpc.max_connection_age_ms": int(server.max_connection_age * 1000),
            "grpc.max_connection_age_grace_ms": int(server.max_connection_age_grace * 1000),
            "grpc.keepalive_time_ms": int(server.time * 1000),
            "grpc.keepalive_timeout_ms": int(server.timeout * 1000),
            "grpc.http2.min_ping_interval_without_data_ms": int(policy.min_time * 1000),
            "grpc.keepalive_permit_without_calls": int(policy.permit_without_stream),
        }
        return [
            # A second collector on the same port must fail, not share it in silence.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.message_limit()),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            *((name, value) for name, value in limits.items() if value),
        ]


class Server:
    """
    The listener and its handler.

    Args:
        config: the settings.
        intake: where messages go.
        access: who may send.
        place: the path of the settings, for messages.
    """

    def __init__(self, config: Grpc, admission: Admission, access: Access, place: str) -> None:
        self.config = config
        self.admission = admission
        self.access = access
        self.place = place
        self._server: Any = None

    async def start(self) -> str:
        """
        Bind and serve; the address, with the real port.

        Raises:
            StartFailed: the endpoint or the certificate cannot be used; the message names the key
                and the fix.
        """
        tls = self.config.tls
        warn = QuietLog(self.admission.log).warning
        identity = Identity(tls, f"{self.place}::tls", warn) if tls is not None else None
        connections = share(self.admission.limits.max_connections)
        server = grpc.aio.server(
            options=[
                *self.config.options(),
                ("grpc.max_allowed_incoming_connections", connections),
            ]
        )
        server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(
                    service,
                    {"Export": grpc.stream_unary_rpc_method_handler(self.handler(signal))},
                )
                for signal, service in SERVICES.items()
            )
        )
        address = self.bind(server, identity)
        await server.start()
        self._server = server
        return address

    def bind(self, server: Any, identity: Identity | None) -> str:
        """Add the ports; the first address, with the real port."""
        key = f"{self.place}::endpoint"
        # gRPC reports a port in use as a RuntimeError and several lines on stderr: bind first, to
        # have an error of ours, and let go again.
        listeners = listen_all(where(self.config.endpoint, self.config.transport), key)
        addresses = [address_of(listener) for listener in listeners]
        for listener in listeners:
            hide(listener)
            listener.close()
        try:
            for address in addresses:
                path = address.removeprefix(UNIX) if address.startswith(UNIX) else ""
                target = f"unix:{path}" if path else address
                if identity is None:
                    server.add_insecure_port(target)
                else:
                    server.add_secure_port(target, identity.credentials())
                if path:
                    Path(path).chmod(0o660)
        except RuntimeError as error:
            raise StartFailed(f"{key}: cannot listen on {address}: {error}") from error
        return addresses[0]

    async def stop(self, grace_s: float) -> None:
        """Take no new call; those in work may finish, later ones end as UNAVAILABLE."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def handler(self, signal: Signal) -> Callable[[Any, Any], Awaitable[bytes]]:
        """The `Export` of one service."""

        async def export(_: Any, context: Any) -> bytes:
            error: CollectorError
            try:
                return await self.export(signal, context)
            except CollectorError as known:
                error = known
            except Exception as unknown:
                self.admission.log.exception("Answering a call failed")
                error = Retryable(f"internal error: {type(unknown).__name__}")
            self.admission.refused("grpc", reason_of(error), sender(context), str(error))
            # Outside of the try: abort raises a bare Exception, which must not be caught again.
            await abort(context, error)
            raise AssertionError from error  # abort never returns

        return export

    async def export(self, signal: Signal, context: Any) -> bytes:
        """The response to a good request."""
        self.access.check(lambda name: values_of(context, name))
        self.admission.admit(signal)
        with self.admission.charge() as charge:
            try:
                async with asyncio.timeout(self.config.read_timeout):
                    body = await context.read()
            except TimeoutError as error:
                text = f"the message took longer than {self.config.read_timeout:g} s"
                raise Retryable(text) from error
            if body is grpc.aio.EOF:
                raise Malformed("the call ended without a message")
            charge.add(len(body))
            taken = await self.admission.take(
                signal,
                body,
                charge,
                encoding="protobuf",
                transport="grpc",
                cap=self.config.message_limit(),
                sender=sender(context),
                exchange=Call(),
            )
        taken.attempt.answered()
        return response(signal, taken.rejected, taken.message, "protobuf")


class Call:
    """
    How a call fares: gRPC cancels the handler when the client leaves, and then the try has failed.

    What happens to an answer that was handed to gRPC is not to be had from it.
    """

    def broken(self) -> bool:
        """The handler would have been cancelled."""
        return False

    def delivered(self) -> bool | None:
        """It was handed over while the client was there."""
        return True


def sender(context: Any) -> str:
    """Who sent a call, for the log."""
    agent = b"".join(values_of(context, "user-agent")).decode("latin-1")
    return sender_of(str(context.peer()).partition(":")[2].rpartition(":")[0], agent)


def values_of(context: Any, header: str) -> list[bytes]:
    """The values of one header of a call."""
    return [
        value.encode() if isinstance(value, str) else value
        for name, value in context.invocation_metadata() or ()
        if name == header
    ]


async def abort(context: Any, error: CollectorError) -> None:
    """End a call with the code, the text and the details of an error."""
    code = answer(error)[1]
    delay_s = error.delay_s if isinstance(error, Retryable) else None
    metadata = [("grpc-status-details-bin", status(code, str(error), delay_s, "protobuf"))]
    if delay_s is not None:
        metadata.append(("google.rpc.retryinfo-bin", retry_info(delay_s)))
    await context.abort(CODES[code], shorten(str(error)), tuple(metadata))
