"""
Settings -> the Export of a signal.

`otlp` over HTTP is our own client. Everything else (gRPC, console, another package's exporter) is
OpenTelemetry's exporter behind the same face; those keep their own retries, and then we make none.
"""

import importlib
import ipaddress
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, Final
from urllib.parse import urlsplit

from telemetry import _values
from telemetry._config import settings as _settings
from telemetry._export import otlp_http
from telemetry._export.queue import Export, Outcome, Result
from telemetry.errors import ConfigError, MissingDependency

CERTIFICATES: Final = ("certificate", "client_certificate", "client_key")
NAMES: Final = ("otlp", "otlp_proto_http", "otlp_proto_grpc")
PRIVATE: Final = (
    *(".local", ".localhost", ".internal", ".lan", ".home.arpa", ".svc", ".test", ".example"),
    *(".invalid", ".example.com", ".example.net", ".example.org"),
)
"""Ends of names that the public DNS does not have, or that stand for others in texts."""


class Stock:
    """
    An OpenTelemetry exporter as an Export.

    Args:
        exporter: a SpanExporter, LogRecordExporter or MetricExporter.
        signal: traces, metrics or logs.
        target: where it sends to, for messages.
    """

    def __init__(self, exporter: Any, signal: str, target: str) -> None:
        self.target = target
        self._exporter = exporter
        self._signal = signal

    def __call__(self, batch: list[Any], deadline: float) -> Outcome:
        """Export once; the exporter's own retries happen inside."""
        try:
            if self._signal == "metrics":
                left = max(deadline - time.monotonic(), 0.0)
                result = self._exporter.export(batch[0], timeout_millis=left * 1000)
            else:
                result = self._exporter.export(batch)
        except Exception as error:
            return Outcome(Result.REFUSED, f"{type(error).__name__}: {_values.text(error, 200)}")
        if getattr(result, "name", "") == "SUCCESS":
            return Outcome(Result.DELIVERED)
        return Outcome(Result.REFUSED, "the exporter reported a failure")

    def close(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()


class Several:
    """
    More than one Export for a signal: delivered when all of them delivered.

    A batch that one of them wants again goes again to that one only.

    Args:
        exports: in the order of the setting.
    """

    def __init__(self, exports: list[Export]) -> None:
        self.target = ", ".join(export.target for export in exports)
        self._exports = exports
        self._done: set[int] = set()
        self._batch: list[Any] = []

    def __call__(self, batch: list[Any], deadline: float) -> Outcome:
        """Send to each of them that does not have the batch yet."""
        if batch != self._batch:
            self._batch, self._done = batch, set()
        worst = Outcome(Result.DELIVERED)
        for index, export in enumerate(self._exports):
            if index in self._done:
                continue
            outcome = export(batch, deadline)
            if outcome.result is Result.DELIVERED:
                self._done.add(index)
            if outcome.result is not Result.DELIVERED or outcome.rejected:
                worst = outcome
        if worst.result is Result.DELIVERED:
            self._batch = []
        return worst

    def close(self) -> None:
        """Close all of them."""
        for export in self._exports:
            export.close()


def choose(signal: str, settings: _settings.Settings) -> Callable[[], Export] | None:
    """
    What makes the Export of a signal, or None when it goes nowhere.

    Classes are looked up now, so that a wrong name is a configuration error and nothing is
    imported in a thread while the process may fork; connections are made later, by the maker.
    """
    names: tuple[str, ...] = getattr(settings, f"{signal}_exporter")
    makers = [_maker(name, signal, settings) for name in names if name.lower() != "none"]
    if not makers:
        return None
    if len(makers) == 1:
        return makers[0]
    return lambda: Several([make() for make in makers])


def usable(settings: _settings.Settings) -> tuple[_settings.Settings, list[str]]:
    """
    The settings with which every signal has an exporter, and what had to be left out for that.

    A signal whose exporter cannot be made gets the default one, then the default protocol, then no
    certificates of its own: whatever is wrong about one of them costs the others nothing.
    """
    problems: list[str] = []
    for signal in _settings.SIGNALS:
        for names in ((f"{signal}_exporter",), ("protocol",), CERTIFICATES, ()):
            try:
                choose(signal, settings)
                break
            except (ConfigError, MissingDependency) as error:
                text = f"{error}; for {signal} the default is used"
                if text not in problems:
                    problems.append(text)
            if not names:
                nowhere: dict[str, Any] = {f"{signal}_exporter": ("none",)}
                settings = replace(settings, **nowhere)
                break
            overrides = dict(settings.overrides)
            values: dict[str, Any] = {}
            for name in names:
                if name.endswith("_exporter"):
                    values[name] = _settings.DEFAULTS[name]
                else:  # of this signal only
                    overrides[signal, name] = _settings.DEFAULTS[name]
            settings = replace(settings, **values, overrides=overrides)
    return settings, problems


def encoder(signal: str, settings: _settings.Settings) -> Callable[[list[Any]], bytes] | None:
    """How a signal's records become a request, if OTLP over HTTP is all that the signal goes to."""
    names = [name for name in getattr(settings, f"{signal}_exporter") if name.lower() != "none"]
    over_http = settings.of(signal, "protocol") != "grpc" or names == ["otlp_proto_http"]
    if len(names) != 1 or names[0] not in ("otlp", "otlp_proto_http") or not over_http:
        return None
    return otlp_http.codec(signal)[0]


def probe(signal: str, settings: _settings.Settings, deadline: float) -> Outcome:
    """Send an empty request of a signal: what the collector says to OTLP."""
    if settings.of(signal, "protocol") == "grpc":
        return _grpc_probe(signal, settings, deadline)
    export = _http_maker(signal, settings)()
    try:
        return export.send(b"", deadline)
    finally:
        export.close()


def _grpc_probe(signal: str, settings: _settings.Settings, deadline: float) -> Outcome:
    grpc = importlib.import_module("grpc")
    given = settings.given("endpoint") or (signal, "endpoint") in settings.overrides
    parts = urlsplit(settings.of(signal, "endpoint") if given else "http://localhost:4317")
    address = f"{parts.hostname}:{parts.port or 4317}"
    service = {"traces": "trace.v1.Trace", "logs": "logs.v1.Logs", "metrics": "metrics.v1.Metrics"}
    method = f"/opentelemetry.proto.collector.{service[signal]}Service/Export"
    headers = tuple(
        (name.lower(), value) for name, value in (settings.of(signal, "headers") or {}).items()
    )
    secure = parts.scheme == "https"
    channel = (
        grpc.secure_channel(address, grpc.ssl_channel_credentials())
        if secure
        else grpc.insecure_channel(address)
    )
    with channel:
        try:
            left = max(deadline - time.monotonic(), 0.0)
            channel.unary_unary(method)(b"", timeout=left, metadata=headers)
        except grpc.RpcError as error:
            return Outcome(Result.REFUSED, f"{error.code().name}: {error.details()}"[:300])
    return Outcome(Result.DELIVERED)


def endpoint(signal: str, settings: _settings.Settings) -> str:
    """The full URL that a signal is sent to over OTLP/HTTP."""
    url: str = settings.of(signal, "endpoint")
    own = (
        settings.sources.get("endpoint") != "argument"
        and (signal, "endpoint") in settings.overrides
    )
    return url if own else otlp_http.url_of(url, signal)


def in_the_open(settings: _settings.Settings) -> str:
    """What is sent to a public host without TLS, and what to do about it; empty when nothing is."""
    exposed: dict[str, list[str]] = {}
    for signal in _settings.SIGNALS:
        if not set(getattr(settings, f"{signal}_exporter")) & set(NAMES):
            continue
        grpc = settings.of(signal, "protocol") == "grpc"
        try:
            parts = urlsplit(
                settings.of(signal, "endpoint") if grpc else endpoint(signal, settings)
            )
            if parts.scheme == "http" and is_public(parts.hostname or ""):
                exposed.setdefault(parts.hostname or "", []).append(signal)
        except ValueError:
            continue  # no URL, as the exporter will say
    listed = "; ".join(f"{', '.join(signals)} to {host}" for host, signals in exposed.items())
    return (
        f"sent without TLS: {listed}: anybody on the way can read it; use https" if listed else ""
    )


def is_public(host: str) -> bool:
    """
    Whether a host is one of the internet: an address that is routed there, or a name in full.

    `collector.monitoring` is a service of a cluster, and looking a name up would take time.
    """
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.rstrip(".").lower()
        return name.count(".") > 1 and not name.endswith(PRIVATE)


def _maker(name: str, signal: str, settings: _settings.Settings) -> Callable[[], Export]:
    protocol = settings.of(signal, "protocol")
    if name == "otlp_proto_grpc" or (name == "otlp" and protocol == "grpc"):
        return _grpc_maker(signal, settings)
    if name in NAMES:
        return _http_maker(signal, settings)
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    if not found:
        variable = _settings.TABLE[f"{signal}_exporter"]["env"][0]
        raise ConfigError(
            [f"{variable}={name!r}: no such exporter is installed; use otlp, console or none"]
        )
    kind = found[0].load()
    return lambda: Stock(kind(), signal, name)


def _http_maker(signal: str, settings: _settings.Settings) -> Callable[[], otlp_http.OtlpHttp]:
    url = endpoint(signal, settings)
    of = settings.of
    options = {
        "headers": dict(of(signal, "headers") or {}),
        "compression": of(signal, "compression"),
        "certificate": of(signal, "certificate"),
        "client_certificate": of(signal, "client_certificate"),
        "client_key": of(signal, "client_key"),
    }
    for option in ("certificate", "client_certificate", "client_key"):
        if options[option]:
            try:
                with open(options[option], "rb"):  # noqa: PTH123 - only to see that it can be read
                    pass
            except OSError as error:
                text = f"{option}={options[option]!r} cannot be read: {error.strerror}; name a PEM file"
                raise ConfigError([text]) from None
    otlp_http.codec(signal)  # imports the encoders now, in this thread
    importlib.import_module(
        "encodings.idna"
    )  # for getaddrinfo: a fork in the middle of it is final
    return lambda: otlp_http.OtlpHttp(signal, url, **options)


def _grpc_maker(signal: str, settings: _settings.Settings) -> Callable[[], Export]:
    module = {"traces": "trace_exporter", "logs": "_log_exporter", "metrics": "metric_exporter"}
    name = {
        "traces": "OTLPSpanExporter",
        "logs": "OTLPLogExporter",
        "metrics": "OTLPMetricExporter",
    }
    try:
        imported = importlib.import_module(
            f"opentelemetry.exporter.otlp.proto.grpc.{module[signal]}"
        )
    except ImportError:
        raise MissingDependency("OTLP over gRPC", "otelier[grpc]") from None
    kind = getattr(imported, name[signal])
    # The exporter reads the variables itself; only what was given as an argument is passed on.
    options: dict[str, Any] = {
        option: getattr(settings, option)
        for option in ("endpoint", "headers", "timeout")
        if settings.sources.get(option) == "argument"
    }
    if options.get("headers"):
        options["headers"] = tuple(options["headers"].items())
    given = settings.given("endpoint") or (signal, "endpoint") in settings.overrides
    target = settings.of(signal, "endpoint") if given else "http://localhost:4317"
    return lambda: Stock(kind(**options), signal, f"{target} (grpc)")
