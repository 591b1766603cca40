"""
The connector spanmetrics: from spans to RED metrics (rate, errors, duration).

Each span counts once in `<namespace>.calls` and once in `<namespace>.duration`, by service, name,
kind, status and the dimensions that the configuration adds. Names, attributes and units are the
OpenTelemetry Collector's, so its dashboards work. Every so often, and at the stop, all series go to
the pipelines of metrics behind it, with the resource that the spans had.

It works in memory: a restart begins at zero, which is what a cumulative sum says by its start time.
A request that comes again is not counted again.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

import msgspec

from collector.connectors.shared.flush import Flushing
from collector.connectors.shared.series import (
    BUCKETS,
    CUMULATIVE,
    DELTA,
    Key,
    Table,
    attributes_of,
    pick,
)
from collector.model import Batch, Consume, Duration, Host, Signal
from collector.otlp import new_message
from collector.pipeline.deduplication import Repeats

SCOPE: Final = "spanmetricsconnector"
KINDS: Final = tuple(
    f"SPAN_KIND_{word}"
    for word in ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
)
CODES: Final = ("STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR")
STANDARD: Final = ("service.name", "span.name", "span.kind", "status.code")
NANOS: Final = {"ms": 1e6, "s": 1e9}


class Dimension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attribute to split series by."""

    name: str
    """Its name, looked for in the span and then in the resource."""
    default: str | None = None
    """Its value where it is missing; without one the series has no such attribute then."""


class Explicit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A histogram with given bounds."""

    buckets: tuple[Duration, ...] = BUCKETS
    """Upper bounds, growing."""


class Histogram(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The histogram of durations."""

    disable: bool = False
    """Count calls only."""
    unit: Literal["ms", "s"] = "ms"
    """Of the durations."""
    explicit: Explicit = Explicit()
    """Its bounds."""
    dimensions: tuple[Dimension, ...] = ()
    """Further dimensions of the durations alone."""


class Exemplars(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Examples: values that name the trace that they are from."""

    enabled: bool = False
    """Whether to keep any."""
    max_per_data_point: int = 5
    """How many a series keeps between two flushes, the latest ones."""


@dataclass(slots=True)
class _Resource:
    """The series of one resource."""

    tenant: str
    resource: Any
    calls: Table
    durations: Table
    last: int = 0


class SpanMetrics:
    """Counts spans and their durations."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the spanmetrics connector."""

        namespace: str = "traces.span.metrics"
        """What the names of the metrics begin with."""
        dimensions: tuple[Dimension, ...] = ()
        """Attributes to split by, beside service.name, span.name, span.kind and status.code."""
        calls_dimensions: tuple[Dimension, ...] = ()
        """Further dimensions of the calls alone."""
        exclude_dimensions: tuple[str, ...] = ()
        """Of the four standard dimensions, those to leave out."""
        histogram: Histogram = Histogram()
        """The durations."""
        exemplars: Exemplars = Exemplars()
        """Values that name the trace that they are from."""
        aggregation_temporality: Literal[
            "AGGREGATION_TEMPORALITY_CUMULATIVE", "AGGREGATION_TEMPORALITY_DELTA"
        ] = "AGGREGATION_TEMPORALITY_CUMULATIVE"
        """Sums since the start, or since the last flush."""
        aggregation_cardinality_limit: int = 2000
        """Series that each metric of a resource may have; further ones are counted together."""
        dimensions_cache_size: int = 0
        """Accepted, and without effect, as in the OpenTelemetry Collector."""
        metrics_flush_interval: Duration = Duration(60)
        """How often metrics are handed on."""
        metrics_expiration: Duration = Duration(0)
        """Series without a span for so long are forgotten; 0 = never."""
        resource_metrics_cache_size: int = 1000
        """Resources that are remembered; the one without spans for longest is forgotten."""
        resource_metrics_key_attributes: tuple[str, ...] = ()
        """The attributes that distinguish resources; empty means all."""

        def check(self) -> Iterator[str]:
            """What the types cannot say."""
            bounds = self.histogram.explicit.buckets
            if not bounds or list(bounds) != sorted(set(bounds)) or bounds[0] <= 0:
                yield "histogram::explicit::buckets must be growing durations above 0"
            if self.metrics_flush_interval <= 0:
                yield "metrics_flush_interval must be greater than 0"
            if self.metrics_expiration < 0:
                yield "metrics_expiration must not be negative"
            for name in ("aggregation_cardinality_limit", "resource_metrics_cache_size"):
                if getattr(self, name) <= 0:
                    yield f"{name} must be positive"
            if self.exemplars.max_per_data_point <= 0:
                yield "exemplars::max_per_data_point must be positive"
            unknown = [name for name in self.exclude_dimensions if name not in STANDARD]
            if unknown:
                yield f"exclude_dimensions: {unknown[0]} is none of {', '.join(STANDARD)}"
            for extra in (self.calls_dimensions, self.histogram.dimensions):
                names = [each.name for each in (*self.dimensions, *extra)]
                repeated = [name for name in names if names.count(name) > 1 or name in STANDARD]
                if repeated:
                    yield f"duplicate dimension name {repeated[0]}"

    connects: ClassVar = frozenset({(Signal.TRACES, Signal.METRICS)})

    def __init__(self, config: Config, host: Host, next: Mapping[Signal, Consume]) -> None:  # noqa: A002 - the word of the protocol
        self.config = config
        self.host = host
        self._repeats = Repeats()
        self._resources: OrderedDict[Any, _Resource] = OrderedDict()
        delta = config.aggregation_temporality.endswith("DELTA")
        self._temporality = DELTA if delta else CUMULATIVE
        self._nanos = NANOS[config.histogram.unit]
        self._bounds = tuple(each * 1e9 / self._nanos for each in config.histogram.explicit.buckets)
        self._standard = tuple(name not in config.exclude_dimensions for name in STANDARD)
        self._dimensions = pairs(config.dimensions)
        self._calls_dimensions = pairs(config.calls_dimensions)
        self._duration_dimensions = pairs(config.histogram.dimensions)
        self._flushing = Flushing(host, next, config.metrics_flush_interval, self.messages)

    async def __aenter__(self) -> Self:
        """Begin to flush."""
        self._flushing.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Flush for the last time."""
        await self._flushing.stop()

    async def __call__(self, batch: Batch) -> None:
        """Count the spans of a batch."""
        if self._repeats.known(batch):
            return
        now = batch.request.received_at_unix_nano
        for group in batch.message.resource_spans:
            found = self._resource(batch.request.tenant, group.resource, now)
            attributes = attributes_of(group.resource)
            service = attributes.get("service.name", "")
            for scope in group.scope_spans:
                for span in scope.spans:
                    self._count(found, service, attributes, span, now)
            lost = found.calls.overflowed
            if lost:
                found.calls.overflowed = 0
                self.host.stats.add("otelier_connector_overflow", lost, connector=self.host.id)
        self._repeats.add(batch)

    def _resource(self, tenant: str, resource: Any, now: int) -> _Resource:
        wanted = self.config.resource_metrics_key_attributes
        named = sorted(
            (pair.key, pair.value.SerializeToString(deterministic=True))
            for pair in resource.attributes
            if not wanted or pair.key in wanted
        )
        key = (tenant, tuple(named))
        found = self._resources.get(key)
        if found is None:
            kept = type(resource)()
            kept.CopyFrom(resource)
            limit = self.config.aggregation_cardinality_limit
            examples = self.config.exemplars
            number = examples.max_per_data_point if examples.enabled else 0
            found = _Resource(
                tenant, kept, Table(None, limit, number), Table(self._bounds, limit, number)
            )
            self._resources[key] = found
            if len(self._resources) > self.config.resource_metrics_cache_size:
                self._resources.popitem(last=False)
                self.host.stats.add("otelier_connector_forgotten", connector=self.host.id)
        self._resources.move_to_end(key)
        found.last = now
        return found

    def _count(
        self, found: _Resource, service: str, resource: dict[str, Any], span: Any, now: int
    ) -> None:
        values = (
            service,
            span.name,
            KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0],
            CODES[span.status.code] if 0 <= span.status.code < len(CODES) else CODES[0],
        )
        base: Key = tuple(
            pair for pair, wanted in zip(zip(STANDARD, values, strict=True), self._standard, strict=True) if wanted
        )  # fmt: skip
        calls = durations = base
        if self._dimensions or self._calls_dimensions or self._duration_dimensions:
            own = attributes_of(span)
            base = (*base, *pick(self._dimensions, own, resource))
            calls = (*base, *pick(self._calls_dimensions, own, resource))
            durations = (*base, *pick(self._duration_dimensions, own, resource))
        taken = max(0, span.end_time_unix_nano - span.start_time_unix_nano) / self._nanos
        example = (taken, span.end_time_unix_nano, span.trace_id, span.span_id)
        shown = example if self.config.exemplars.enabled else None
        found.calls.add(calls, now, 1.0, shown)
        if not self.config.histogram.disable:
            found.durations.add(durations, now, taken, shown)

    def messages(self, now: int) -> Iterator[tuple[str, Any]]:
        """All series as of now, one message for each tenant."""
        self._expire(now)
        made: dict[str, Any] = {}
        for found in self._resources.values():
            if not found.calls.series:
                continue
            message = made.get(found.tenant)
            if message is None:
                message = made[found.tenant] = new_message(Signal.METRICS)
            group = message.resource_metrics.add()
            group.resource.CopyFrom(found.resource)
            scope = group.scope_metrics.add()
            scope.scope.name = SCOPE
            calls = scope.metrics.add(name=f"{self.config.namespace}.calls", unit="{calls}")
            found.calls.write(calls, now, self._temporality)
            if not self.config.histogram.disable:
                unit = self.config.histogram.unit
                name = f"{self.config.namespace}.duration"
                found.durations.write(
                    scope.metrics.add(name=name, unit=unit), now, self._temporality
                )
        yield from made.items()

    def _expire(self, now: int) -> None:
        patience = int(self.config.metrics_expiration * 1e9)
        if not patience:
            return
        for key, found in list(self._resources.items()):
            found.calls.expire(now - patience)
            found.durations.expire(now - patience)
            if found.last < now - patience:
                del self._resources[key]


def pairs(dimensions: tuple[Dimension, ...]) -> tuple[tuple[str, str | None], ...]:
    """Names and defaults of dimensions."""
    return tuple((each.name, each.default) for each in dimensions)
