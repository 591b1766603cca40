"""
The OTLP exporter over gRPC: `otlp_grpc`, and `otlp`, as it was called before.

One unary call per batch, bytes in and bytes out: a batch that no processor changed goes out as it came.
Queue, retries and the deadline of an attempt stand around this exporter (delivery.py); what a code
amounts to is the table of OTLP 1.11, below.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Self

import grpc
import grpc.aio
import msgspec

from collector.errors import Denied, Permanent, Retryable, printable
from collector.exporters.otlp.common import SERVICES, Outcome, Tls, bad_headers, meaning
from collector.model import Batch, Duration, Host, OnRequest, Secret, Signal
from collector.otlp import encode, read_response, read_retry_info, read_status
from collector.sending_queue.config import RetryOnFailure, SendingQueue

LARGEST_ANSWER: Final = 4 << 20
"""OTLP 1.11: answers have at most 4 MiB."""
OUR_LIMIT: Final = "CLIENT: Received message larger than max"
"""How gRPC says that it did not read an answer."""
RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
ENDPOINT: Final = re.compile(
    r"(?:(?P<scheme>https?)://|dns://(?P<authority>[^/]*)/)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)"
    r":(?P<port>\d{1,5})/?"
)
CHANNEL: Final = (
    ("grpc.max_receive_message_length", LARGEST_ANSWER),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    ("grpc.primary_user_agent", "otelier-collector"),
    ("grpc.enable_http_proxy", 0),
    # Exporters do not share connections, or one with another header would wait for the first.
    ("grpc.use_local_subchannel_pool", 1),
)


class Keepalive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pings of the connection."""

    time: Duration = Duration(10)
    """Ping when the connection is quiet for so long; not under 10s."""
    timeout: Duration = Duration(10)
    """Close the connection when a ping is not answered for so long."""
    permit_without_stream: bool = False
    """Ping also while nothing is sent."""


class Otlp:
    """Sends batches to an OTLP/gRPC server."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the OTLP/gRPC exporter."""

        endpoint: str = ""
        """Where to send: `host:port`, over TLS unless `tls::insecure` is set. `http://host:port` is
        without TLS, `https://host:port` with it; `dns:///host:port` is taken, too."""
        compression: Literal["gzip", "none", ""] = "gzip"
        """How messages are compressed. zstd is available over HTTP only."""
        headers: dict[str, Secret] = {}
        """Added to each call, such as `authorization`; values are never shown."""
        timeout: Duration = Duration(5)
        """How long one attempt may take in all; 0 = no limit."""
        tls: Tls = Tls()
        """TLS, on unless `insecure` is set."""
        keepalive: OnRequest[Keepalive] = None
        """Pings, off until the key is there."""
        balancer_name: Literal["round_robin", "pick_first", ""] = "round_robin"
        """How calls are spread when the name has several addresses."""
        wait_for_ready: bool = False
        """Wait within `timeout` for a connection instead of failing at once."""
        authority: str = ""
        """The `:authority` of calls, when it is not the host."""
        user_agent: str = ""
        """Stands in front of the user agent."""
        sending_queue: SendingQueue | None = msgspec.field(default_factory=SendingQueue)
        """The queue in front, see "Delivery"; on, in memory, by default."""
        retry_on_failure: RetryOnFailure | None = msgspec.field(default_factory=RetryOnFailure)
        """How it tries again, see "Delivery"."""

        def check(self) -> Iterator[str]:
            """What the types cannot say."""
            found = ENDPOINT.fullmatch(self.endpoint)
            if not self.endpoint:
                yield 'requires a non-empty "endpoint"'
            elif "@" in self.endpoint:
                yield "endpoint: put the credential into `headers`, it would be shown here"
            elif found is None or not 0 < int(found["port"]) < 65536:
                yield f'endpoint: cannot use "{self.endpoint}": write host:port, like gateway:4317'
            if self.timeout < 0:
                yield "timeout must not be negative"
            if self.tls.insecure_skip_verify and not plaintext(self):
                yield (
                    "tls::insecure_skip_verify is not available over gRPC: give the certificate of "
                    "the other side as `ca_file` and its name as `server_name_override`, or use otlp_http"
                )
            if self.keepalive is not None and self.keepalive.time < 10:
                yield "keepalive::time must be at least 10s: servers send away clients that ping more"
            yield from bad_headers(self.headers)

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self._outcome = Outcome(host)
        self._channel: Any = None
        self._calls: dict[Signal, Any] = {}
        self._metadata = tuple((name.lower(), str(value)) for name, value in config.headers.items())
        gzip = config.compression == "gzip"
        self._compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression

    def describe(self) -> str:
        """Where it sends to."""
        kind = "plaintext" if plaintext(self.config) else "TLS"
        return f"{target_of(self.config)} over gRPC, {kind}"

    @property
    def durability(self) -> str:
        """What an answer means."""
        return meaning(self.config.sending_queue)

    async def __aenter__(self) -> Self:
        """
        Open the channel. It connects by itself: the other side may start later.

        Raises:
            StartFailed: a certificate cannot be used.
        """
        target, options = target_of(self.config), options_of(self.config)
        if plaintext(self.config):
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            roots, key, chain = self.config.tls.pem("tls")
            credentials = grpc.ssl_channel_credentials(roots, key, chain)
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._calls = {
            signal: self._channel.unary_unary(f"/{SERVICES[signal.value]}/Export")
            for signal in Signal
        }
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    async def __call__(self, batch: Batch) -> None:
        """
        Send a batch.

        Raises:
            Permanent: it can never be taken as it is.
            Retryable: not now, or there is no answer.
        """
        call = self._calls[batch.signal](
            encode(batch),
            metadata=self._metadata,
            compression=self._compression,
            wait_for_ready=self.config.wait_for_ready or None,
        )
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise error_of(self.config.endpoint, error) from error
        self._outcome.taken(batch, read_response(batch.signal, answer))


def plaintext(config: Otlp.Config) -> bool:
    """Whether calls go out without TLS."""
    if config.endpoint.startswith("https://"):
        return False
    return config.tls.insecure or config.endpoint.startswith("http://")


def target_of(config: Otlp.Config) -> str:
    """The endpoint as gRPC writes it."""
    for scheme in ("http://", "https://"):
        if config.endpoint.startswith(scheme):
            return config.endpoint.removeprefix(scheme).rstrip("/")
    return config.endpoint


def options_of(config: Otlp.Config) -> list[tuple[str, Any]]:
    """The settings as gRPC's channel arguments."""
    found: dict[str, Any] = dict(CHANNEL)
    found["grpc.lb_policy_name"] = config.balancer_name or "pick_first"
    if config.user_agent:
        found["grpc.primary_user_agent"] = config.user_agent
    if config.authority:
        found["grpc.default_authority"] = config.authority
    if config.tls.server_name_override:
        found["grpc.ssl_target_name_override"] = config.tls.server_name_override
    if config.keepalive is not None:
        found["grpc.keepalive_time_ms"] = int(config.keepalive.time * 1000)
        found["grpc.keepalive_timeout_ms"] = int(config.keepalive.timeout * 1000)
        found["grpc.keepalive_permit_without_calls"] = int(config.keepalive.permit_without_stream)
        found["grpc.http2.max_pings_without_data"] = 0
    return list(found.items())


def error_of(endpoint: str, error: Any) -> Permanent | Retryable:
    """What a failed call amounts to."""
    code = error.code()
    details = error.details() or ""
    said = f"{endpoint} answered {code.name}: {printable(details)[:1024]}"
    delay = delay_of(error.trailing_metadata() or ())
    if code in RETRYABLE:
        return Retryable(said, delay if delay is not None else 0.0)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if delay is not None:
            return Retryable(said, delay)
        # An answer that is too large for us: the request may be stored, in parts it would be again.
        return Denied(said) if OUR_LIMIT in details else Permanent(said)
    return Permanent(said) if code is grpc.StatusCode.INVALID_ARGUMENT else Denied(said)


def delay_of(metadata: Any) -> float | None:
    """The wait that a server asks for with RetryInfo; what it says is not trusted to be readable."""
    pairs: Mapping[str, Any] = {str(key): value for key, value in metadata}
    details = pairs.get("grpc-status-details-bin")
    if isinstance(details, bytes):
        found = read_status(details).delay_s
        if found is not None:
            return found
    alone = pairs.get("google.rpc.retryinfo-bin")
    return read_retry_info(alone) if isinstance(alone, bytes) else None
