"""
The OTLP exporter over HTTP: `otlp_http`, and `otlphttp`, as it was called before.

A batch that no processor changed goes out as the bytes that came in, so that a receiver further on can
recognise a repeat. One POST per batch; queue, retries and the deadline of an attempt stand around
this exporter (sending_queue/). What an answer amounts to is the table in `http/retry_after.py`.
"""

import asyncio
import gzip
from collections.abc import Callable, Iterator
from typing import Final, Literal, Self

import msgspec
import zstandard

from collector.errors import Denied, Retryable
from collector.exporters.otlp.common import SMALL, Outcome, Tls, bad_headers, meaning
from collector.http.client import Client
from collector.http.retry_after import failure_of, problem_of, reason_of
from collector.model import Batch, Duration, Host, Secret, Signal
from collector.otlp import encode, encode_json, read_response, read_status
from collector.sending_queue.config import RetryOnFailure, SendingQueue

AGENT: Final = "otelier-collector"
GZIP_LEVELS: Final = range(-1, 10)
ZSTD_LEVELS: Final = range(1, 23)


class CompressionParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hard to compress."""

    level: int = 0
    """gzip: 1 (fast) to 9 (small); zstd: 1 to 22; 0 is the default of the method."""


class OtlpHttp:
    """Sends batches to an OTLP/HTTP server."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the OTLP/HTTP exporter."""

        endpoint: str = ""
        """Where to send, such as `https://gateway:4318`; `/v1/traces`, `/v1/metrics` and `/v1/logs`
        are added."""
        traces_endpoint: str = ""
        """The whole address for traces; wins over `endpoint`."""
        metrics_endpoint: str = ""
        """The whole address for metrics; wins over `endpoint`."""
        logs_endpoint: str = ""
        """The whole address for logs; wins over `endpoint`."""
        encoding: Literal["proto", "json"] = "proto"
        """Protobuf, or OTLP/JSON."""
        compression: Literal["gzip", "zstd", "none", ""] = "gzip"
        """How bodies are compressed."""
        compression_params: CompressionParams = CompressionParams()
        """How hard."""
        headers: dict[str, Secret] = {}
        """Added to each request, such as `authorization`; values are never shown."""
        timeout: Duration = Duration(30)
        """How long one attempt may take in all; 0 = no limit."""
        tls: Tls = Tls()
        """For `https://`."""
        max_idle_conns: int = 100
        """How many idle connections are kept."""
        idle_conn_timeout: Duration = Duration(90)
        """How long a connection may be idle; 0 = for ever."""
        disable_keep_alives: bool = False
        """A new connection for each request."""
        sending_queue: SendingQueue | None = msgspec.field(default_factory=SendingQueue)
        """The queue in front, see "Delivery"; on, in memory, by default."""
        retry_on_failure: RetryOnFailure | None = msgspec.field(default_factory=RetryOnFailure)
        """How it tries again, see "Delivery"."""

        def check(self) -> Iterator[str]:
            """What the types cannot say."""
            urls = {name: getattr(self, name) for name in ("endpoint", *ENDPOINTS.values())}
            if not any(urls.values()):
                yield "at least one endpoint must be specified"
            for name, url in urls.items():
                if url and (problem := problem_of(url)):
                    yield f"{name}: {problem}"
            if self.timeout < 0:
                yield "timeout must not be negative"
            if self.max_idle_conns < 0 or self.idle_conn_timeout < 0:
                yield "max_idle_conns and idle_conn_timeout must not be negative"
            levels = ZSTD_LEVELS if self.compression == "zstd" else GZIP_LEVELS
            if self.compression_params.level and self.compression_params.level not in levels:
                yield f"compression_params.level must be from 1 to {levels[-1]}"
            yield from bad_headers(self.headers)

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self.urls = {signal: url_for(config, signal) for signal in Signal}
        self._outcome = Outcome(host)
        self._compress = compressor(config)
        self._client: Client | None = None
        kind = "application/x-protobuf" if config.encoding == "proto" else "application/json"
        self._headers = {"user-agent": AGENT, "content-type": kind}
        if self._compress is not None:
            self._headers["content-encoding"] = config.compression
        self._headers |= {name.lower(): str(value) for name, value in config.headers.items()}

    def describe(self) -> str:
        """Where it sends to."""
        return ", ".join(dict.fromkeys(url for url in self.urls.values() if url))

    @property
    def durability(self) -> str:
        """What an answer means."""
        return meaning(self.config.sending_queue)

    async def __aenter__(self) -> Self:
        """
        Read the certificates. Nothing is sent yet: the other side may start later.

        Raises:
            StartFailed: a certificate cannot be used.
        """
        config = self.config
        secure = any(url.startswith("https://") for url in self.urls.values())
        self._client = Client(
            config.tls.context("tls") if secure else None,
            config.tls.server_name_override,
            keep=0 if config.disable_keep_alives else config.max_idle_conns,
            idle_s=config.idle_conn_timeout,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def __call__(self, batch: Batch) -> None:
        """
        Send a batch.

        Raises:
            Permanent: it can never be taken as it is.
            Retryable: not now, or there is no answer.
        """
        url = self.urls[batch.signal]
        if not url or self._client is None:
            raise Denied(f"no endpoint for {batch.signal.value}; give {ENDPOINTS[batch.signal]}")
        json = self.config.encoding == "json"
        data = encode_json(batch, batch.signal) if json else encode(batch)
        if self._compress is not None:
            if len(data) <= SMALL:
                data = self._compress(data)
            else:
                data = await asyncio.to_thread(self._compress, data)
        try:
            answer = await self._client.post(url, self._headers, data)
        except OSError as error:
            raise Retryable(f"cannot send to {url}: {reason_of(error)}", 0.0) from error
        if 200 <= answer.status < 300:
            if not answer.cut and "content-encoding" not in answer.headers:
                taken = read_response(batch.signal, answer.body, json=answer.json)
                self._outcome.taken(batch, taken)
            return
        status = read_status(answer.body, json=answer.json)
        raise failure_of(url, answer, status.message, status.delay_s)


ENDPOINTS: Final = {
    Signal.TRACES: "traces_endpoint",
    Signal.METRICS: "metrics_endpoint",
    Signal.LOGS: "logs_endpoint",
}


def url_for(config: OtlpHttp.Config, signal: Signal) -> str:
    """Where a signal goes; empty when there is no address for it."""
    own: str = getattr(config, ENDPOINTS[signal])
    if own or not config.endpoint:
        return own
    return f"{config.endpoint.rstrip('/')}/v1/{signal.value}"


def compressor(config: OtlpHttp.Config) -> Callable[[bytes], bytes] | None:
    """What compresses a body, None for nothing."""
    level = config.compression_params.level
    if config.compression == "gzip":
        return lambda data: gzip.compress(data, level or 6, mtime=0)
    if config.compression == "zstd":
        return lambda data: zstandard.ZstdCompressor(level=level or 3).compress(data)
    return None
