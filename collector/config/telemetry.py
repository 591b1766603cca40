"""
`service.telemetry`: what the collector reports about itself.

The keys are the OpenTelemetry Collector's, so that its configurations load. Those that have no
effect yet are accepted with a warning that names them; IN_EFFECT is the list of the others.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from collector.model import Duration, OnRequest

_AnyCase = msgspec.Meta(extra={"case": "any"})


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thinning out of equal log lines."""

    enabled: bool = True
    """Whether equal lines are thinned out."""
    tick: Duration = Duration(10)
    """The window that is counted in."""
    initial: int = 10
    """How many equal lines of a window are always written."""
    thereafter: int = 100
    """After that, every so many-th line is written."""


class Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The collector's own log."""

    level: Annotated[
        Literal["debug", "info", "warn", "error", "dpanic", "panic", "fatal"], _AnyCase
    ] = "info"
    """The lowest level that is written."""
    encoding: Literal["console", "json"] = "console"
    """Lines for people, or one JSON object per line."""
    development: bool = False
    """Accepted from the OpenTelemetry Collector."""
    disable_caller: bool = False
    """Leave out file and line of the caller."""
    disable_stacktrace: bool = False
    """Leave out stack traces."""
    sampling: Sampling | None = msgspec.field(default_factory=Sampling)
    """Thinning out of equal lines."""
    output_paths: tuple[str, ...] = ("stderr",)
    """Where lines go."""
    error_output_paths: tuple[str, ...] = ("stderr",)
    """Where errors of the log itself go."""
    initial_fields: dict[str, Any] = {}
    """Fields added to each line."""
    processors: tuple[dict[str, Any], ...] = ()
    """Where the log is sent as OTLP, in the schema of OpenTelemetry's own configuration."""


class PrometheusReader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics that Prometheus fetches at `/metrics`."""

    host: str = "localhost"
    """Address to listen on. Loopback unless you say otherwise."""
    port: int = 8888
    """Port to listen on; 0 takes a free one."""
    without_scope_info: bool = False
    """Accepted: there are no scopes to show."""
    without_units: bool = False
    """Leave units out of the names."""
    without_type_suffix: bool = False
    """Leave `_total` out of the names of counters."""


class PullExporter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who fetches."""

    prometheus: OnRequest[PrometheusReader] = None
    """Prometheus."""


class Pull(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics that are fetched."""

    exporter: PullExporter = PullExporter()
    """Who fetches."""


class Reader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics can be read, or are sent to."""

    pull: Pull | None = None
    """Metrics that are fetched."""
    periodic: dict[str, Any] | None = None
    """Accepted from the OpenTelemetry Collector; nothing is sent."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The collector's own metrics."""

    level: Annotated[Literal["none", "basic", "normal", "detailed"], _AnyCase] = "normal"
    """How much is measured."""
    address: str = ""
    """Has no effect in the OpenTelemetry Collector since v0.123 either; use readers."""
    readers: tuple[Reader, ...] | None = None
    """Where metrics can be read; unless given, `collector run` shows them on localhost:8888."""
    views: tuple[dict[str, Any], ...] = ()
    """Changes of single metrics."""


class Traces(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The collector's own traces."""

    level: Annotated[Literal["none", "basic", "normal", "detailed"], _AnyCase] = "basic"
    """How much is traced."""
    propagators: tuple[str, ...] = ()
    """How context crosses processes: tracecontext, b3."""
    processors: tuple[dict[str, Any], ...] = ()
    """Where spans are sent, in the schema of OpenTelemetry's own configuration."""


class ServiceTelemetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `service.telemetry`."""

    logs: Logs = Logs()
    """The collector's own log."""
    metrics: Metrics = Metrics()
    """The collector's own metrics."""
    traces: Traces = Traces()
    """The collector's own traces."""
    resource: dict[str, Any] = {}
    """Attributes of the collector itself."""


IN_EFFECT: Final = frozenset({"logs.level", "metrics.level", "metrics.readers"})
"""The keys that do something today."""
