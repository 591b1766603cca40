"""
OTLP over HTTP: one request, one deadline, one outcome. The queue decides about a next try.

Spans and log records are encoded by `_wire`, metrics by OpenTelemetry. The client is not theirs: the stock exporter retries inside, which
would be a second retry layer; its timeout counts per received chunk, so that a dripping server
holds it for ever; it never reads `partial_success`; and it says no more than "failure". Here the
deadline covers connecting, sending and every read, 413 is not taken for 400, and Retry-After is
handed on. One connection per queue is kept open and made anew after a fork, after an error and
after standing idle.
"""

import gzip
import http.client
import io
import platform
import socket
import ssl
import time
import urllib.request
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from telemetry import _values
from telemetry._export import loopback
from telemetry._export.queue import Outcome, Result

CONNECT_S: Final = 5.0
IDLE_S: Final = 20.0
ANSWER_BYTES: Final = 64 * 1024
RETRYABLE: Final = (429, 502, 503, 504)
PATHS: Final = {"traces": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}


class OtlpHttp:
    """
    Export over one OTLP/HTTP connection, as protobuf.

    Args:
        signal: traces, metrics or logs.
        url: the full URL of the signal.
        headers: sent with every request.
        compression: none, gzip or deflate.
        certificate: file of certificate authorities; the system's by default.
        client_certificate: file of our certificate, for mTLS.
        client_key: file of our key, for mTLS.
    """

    def __init__(
        self,
        signal: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        compression: str = "none",
        certificate: str | None = None,
        client_certificate: str | None = None,
        client_key: str | None = None,
    ) -> None:
        self.target = url
        self._encode, self._read_answer = codec(signal)
        parts = urlsplit(url)
        self._https = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if self._https else 80)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._compression = compression
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "User-Agent": f"otelier-python/{platform.python_version()}",
            **({} if compression == "none" else {"Content-Encoding": compression}),
            **(headers or {}),
        }
        self._proxy = self._find_proxy(parts.scheme)
        self._tls: ssl.SSLContext | None = None
        if self._https:
            self._tls = ssl.create_default_context(cafile=certificate)
            if client_certificate:
                self._tls.load_cert_chain(client_certificate, client_key)
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0

    def __call__(self, batch: list[Any], deadline: float) -> Outcome:
        """Encode and send once; nothing is raised."""
        try:
            body = self._encode(batch)
        except Exception as error:
            return Outcome(Result.UNREADABLE, f"cannot be encoded: {_values.text(error, 200)}")
        return self.send(body, deadline)

    def send(self, body: bytes, deadline: float) -> Outcome:
        """Send a request that was encoded before, once; nothing is raised."""
        if self._compression == "gzip":
            body = gzip.compress(body, 5)
        elif self._compression == "deflate":
            body = zlib.compress(body, 5)
        reused = self._connection is not None
        try:
            try:
                return self._post(body, deadline)
            except (http.client.BadStatusLine, ConnectionError):
                self.close()
                if not reused:
                    raise
                return self._post(body, deadline)  # the server had closed the idle connection
        except Exception as error:
            self.close()
            return Outcome(
                Result.UNREACHABLE, f"{type(error).__name__}: {_values.text(error, 200)}"
            )

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, body: bytes, deadline: float) -> Outcome:
        connection = self._connected(deadline)
        path = self.target if self._proxy and not self._https else self._path
        connection.request("POST", path, body, self._headers)
        connection.response_class = _answer_until(deadline)
        with connection.getresponse() as answer:
            content = answer.read(ANSWER_BYTES)
            if answer.will_close or not answer.isclosed():
                self.close()
        self._used_at = time.monotonic()
        if 200 <= answer.status < 300:
            rejected, message = self._read_answer(content)
            return Outcome(Result.DELIVERED, _values.bounded(message, 200), None, rejected)
        reason = f"HTTP {answer.status} {_values.bounded(answer.reason, 100)}"
        if answer.status in RETRYABLE:
            return Outcome(Result.RETRY, reason, _retry_after(answer.headers.get("Retry-After")))
        if answer.status == 413:
            return Outcome(Result.TOO_LARGE, reason)
        return Outcome(Result.REFUSED, reason)

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        if self._connection is not None and time.monotonic() - self._used_at > IDLE_S:
            self.close()
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        if self._connection is None:
            host, port = self._proxy or (self._host, self._port)
            if self._tls is not None:
                self._connection = http.client.HTTPSConnection(host, port, context=self._tls)
            else:
                self._connection = http.client.HTTPConnection(host, port)
            if self._proxy and self._https:
                self._connection.set_tunnel(self._host, self._port)
            self._connection.timeout = min(left, CONNECT_S)
            loopback.connect(self._connection)
        self._connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        return self._connection

    def _find_proxy(self, scheme: str) -> tuple[str, int] | None:
        url = urllib.request.getproxies_environment().get(scheme)
        if not url or _bypassed(self._host):
            return None
        parts = urlsplit(url if "//" in url else f"//{url}")
        return (parts.hostname, parts.port or 80) if parts.hostname else None


class _Timed(io.RawIOBase):
    """The reading side of a socket, as a socket and as its file, under one deadline for all reads."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw: Any = sock.makefile("rb", buffering=0)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole answer in time")
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _answer_until(deadline: float) -> type[http.client.HTTPResponse]:
    """A response class whose reads end at the deadline."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            timed: Any = _Timed(sock, deadline)  # has all of a socket that HTTPResponse uses
            super().__init__(timed, *args, **kwargs)

    return Answer


def _bypassed(host: str) -> bool:
    """Whether NO_PROXY names the host."""
    bypass: Callable[[str], bool] = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # not in the stubs
    return bool(bypass(host))


def url_of(base: str, signal: str) -> str:
    """The URL of a signal below a base URL."""
    return base.rstrip("/") + PATHS[signal]


def _retry_after(value: str | None) -> float | None:
    """Both forms of Retry-After, in seconds."""
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


STEP: Final = 64
STEP_PAUSE_S: Final = 0.0002
Encode = Callable[[list[Any]], bytes]
ReadAnswer = Callable[[bytes], tuple[int, str]]


def codec(signal: str) -> tuple[Encode, ReadAnswer]:
    """How a batch becomes a request, and what an answer says about rejected records."""
    # Each signal's messages are imported when the signal is exported, not before.
    if signal == "traces":
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

        from telemetry._export.otlp_encoder import OtlpEncoder  # noqa: PLC0415

        read = _reader(trace_service_pb2.ExportTraceServiceResponse, "rejected_spans")
        return _in_steps(OtlpEncoder().spans), read
    if signal == "logs":
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415

        from telemetry._export.otlp_encoder import OtlpEncoder  # noqa: PLC0415

        read = _reader(logs_service_pb2.ExportLogsServiceResponse, "rejected_log_records")
        return _in_steps(OtlpEncoder().logs), read
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import (  # noqa: PLC0415
        encode_metrics,
    )
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415

    read = _reader(metrics_service_pb2.ExportMetricsServiceResponse, "rejected_data_points")
    return lambda batch: encode_metrics(batch[0]).SerializeToString(), read


def _in_steps(encode: Encode) -> Encode:
    """
    Encode a few records at a time, and let the application's threads have the GIL in between.

    Else each of its threads that wakes up meanwhile waits for 5 ms. Protobuf messages that follow
    each other are one message.
    """

    def encode_in_steps(batch: list[Any]) -> bytes:
        parts = []
        for start in range(0, len(batch), STEP):
            if start:
                time.sleep(STEP_PAUSE_S)
            parts.append(encode(batch[start : start + STEP]))
        return b"".join(parts)

    return encode_in_steps


def _reader(kind: Any, field: str) -> ReadAnswer:
    def read(content: bytes) -> tuple[int, str]:
        try:
            partial = kind.FromString(content).partial_success
            return int(getattr(partial, field)), str(partial.error_message)
        except Exception:
            return 0, ""  # a 2xx is a success, whatever stands below it

    return read
