"""
The OTLP receiver: gRPC and HTTP, one listener each over all signals.

    bytes -> `Admission` (decompress, decode, count) -> next[signal] -> answer

The success answer goes out after the pipeline has returned, never before: what it means is the
pipeline's promise, not the receiver's. The two transports are small; what they share is in
`admission`. HTTP stops first, as in the OpenTelemetry Collector, then gRPC, and both let requests in
work be answered.
"""

import contextlib
from collections.abc import Mapping
from typing import Final, Self

import msgspec

from collector.errors import StartFailed
from collector.model import Consume, Host, OnRequest, Signal
from collector.otlp import require_upb
from collector.receivers.otlp.admission import Admission
from collector.receivers.otlp.auth import Access, exposed, open_to_all
from collector.receivers.otlp.grpc import Grpc
from collector.receivers.otlp.grpc import Server as GrpcServer
from collector.receivers.otlp.http import Http
from collector.receivers.otlp.http import Server as HttpServer
from collector.receivers.otlp.limits import Limits

GRACE_S: Final = 5.0
"""How long requests in work may take when the receiver stops, per transport."""


class Protocols(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The transports; one that is not named is off, one that stands empty is on with defaults."""

    grpc: OnRequest[Grpc] = None
    """OTLP over gRPC, port 4317."""
    http: OnRequest[Http] = None
    """OTLP over HTTP, port 4318."""


class Otlp:
    """
    Receives traces, metrics and logs.

    Args:
        config: the settings.
        host: the service.
        next: the pipelines, by signal; a signal that is not in it is rejected.
    """

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the OTLP receiver."""

        protocols: Protocols = Protocols()
        """Which transports to serve: `grpc`, `http` or both."""
        limits: Limits = Limits()
        """How much at once, and in one request."""

        def check(self) -> list[str]:
            """What is wrong with these settings, one text each."""
            if self.protocols.grpc is None and self.protocols.http is None:
                return ["must specify at least one protocol when using the OTLP receiver"]
            return []

    def __init__(
        self,
        config: Config,
        host: Host,
        next: Mapping[Signal, Consume],  # noqa: A002 - the word of the protocol
    ) -> None:
        self.config = config
        self.host = host
        self.next = next
        self.endpoints: dict[str, str] = {}
        """Addresses after the start, with real ports, under "grpc" and "http"."""
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """
        Listen.

        Raises:
            StartFailed: an endpoint cannot be bound.
            ConfigError: protobuf runs without its C parser.
        """
        require_upb()
        protocols = self.config.protocols
        async with contextlib.AsyncExitStack() as stack:
            admission = self.admission = Admission(self.host, self.next, self.config.limits)
            stack.push_async_callback(admission.drain, GRACE_S)
            admission.resends.open()
            if protocols.grpc is not None:
                place, access = self._access("grpc", protocols.grpc)
                grpc = GrpcServer(protocols.grpc, admission, access, place)
                self.endpoints["grpc"] = await grpc.start()
                stack.push_async_callback(grpc.stop, GRACE_S)
                self.host.log.info("Starting GRPC server, endpoint %s", self.endpoints["grpc"])
            if protocols.http is not None:
                place, access = self._access("http", protocols.http)
                http = HttpServer(protocols.http, admission, access, place)
                self.endpoints["http"] = await http.start()
                stack.push_async_callback(http.stop, GRACE_S)
                self.host.log.info("Starting HTTP server, endpoint %s", self.endpoints["http"])
            self._stack = stack.pop_all()
        return self

    def _access(self, transport: str, config: Grpc | Http) -> tuple[str, Access]:
        """
        The path of a transport's settings, and who may send.

        Raises:
            StartFailed: every client may, without `dangerously_allow_unauthenticated`; or the extension does not run.
        """
        place = f"receivers::{self.host.id}::protocols::{transport}"
        for problem in exposed(config):
            raise StartFailed(f"{place}: {problem}")
        if config.tls is not None and config.tls.ca_file:
            self.host.log.warning("%s::tls::ca_file has no effect; mTLS is client_ca_file", place)
        if config.dangerously_allow_unauthenticated or open_to_all(config):
            self.host.stats.set(
                "otelier_receiver_unauthenticated", 1, receiver=self.host.id, transport=transport
            )
            self.host.log.warning("%s takes data from every client that reaches it", place)
        return place, Access(config.auth, self.host, place)

    async def __aexit__(self, *exc: object) -> None:
        """Take nothing new, answer what is in work, then close."""
        await self._stack.aclose()
