"""
The prometheus exporter: metrics that Prometheus fetches at `/metrics`.

It keeps the latest state of every series in memory, under the names of OpenTelemetry's
compatibility page, and writes them when a scrape asks. Series that are not heard of for
`metric_expiration` are forgotten, and there is a limit to how many are kept, so that a client that
makes up names cannot fill the memory.

Prometheus has fewer names than OTLP: `user.id` and `user_id` are one label there, and an attribute
may be called `job` or `le`. A label that is taken is renamed (`exported_job`), and what would still
be the same series as another one is left out and counted, because a sum of two things, or a value
that jumps between them, is a wrong answer. So each series remembers whose it is, as a hash of what
OTLP says of it.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Self

import msgspec

from collector.exporters.prometheus.names import (
    RESERVED,
    joined,
    labels_of,
    metric_name,
)
from collector.exporters.prometheus.values import DELTA, NO_VALUE, Value
from collector.http.server import is_local, serving
from collector.http.visitors import NoVisitors
from collector.model import Batch, Duration, Host, Signal
from collector.otlp import attribute_text, points
from collector.pipeline.deduplication import Repeats
from collector.self_metrics.exposition import Family, Kind, Page, Sample, label_of
from collector.stats import QuietLog

KINDS: Final[dict[str, Kind]] = {
    "gauge": "gauge",
    "sum": "counter",
    "histogram": "histogram",
    "exponential_histogram": "histogram",
    "summary": "summary",
}
JOB: Final = ("service.name", "service.namespace", "service.instance.id")
TARGET_INFO: Final = "target_info"


class ResourceToTelemetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resource attributes as labels."""

    enabled: bool = False
    """Give each series all attributes of its resource as labels."""


@dataclass(slots=True)
class _Series:
    """One series: whose it is, where it is shown, and what it is now."""

    owner: int
    family: str
    kind: str
    labels: tuple[tuple[str, str], ...]
    value: Value
    seen: float


@dataclass(slots=True)
class _About:
    """What a family is, from the first metric that had its name."""

    kind: Kind
    help: str
    series: set[Any] = field(default_factory=set)


class Prometheus:
    """Shows metrics to Prometheus."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the prometheus exporter."""

        endpoint: str = "localhost:8889"
        """Address to listen on. Loopback unless you say otherwise; port 0 takes a free one."""
        namespace: str = ""
        """What all names begin with."""
        const_labels: dict[str, str] = {}
        """Labels that every series gets."""
        send_timestamps: bool = False
        """Write when each value was measured."""
        metric_expiration: Duration = Duration(300)
        """Series without news for so long are forgotten."""
        resource_to_telemetry_conversion: ResourceToTelemetry = ResourceToTelemetry()
        """Resource attributes as labels; otherwise they are in `target_info`."""
        enable_open_metrics: bool = False
        """Write OpenMetrics, with exemplars, for clients that ask for it."""
        add_metric_suffixes: bool = True
        """Unit and type become part of the names."""
        translation_strategy: Literal[
            "", "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes"
        ] = ""
        """The newer way to say `add_metric_suffixes`; wins over it."""
        without_scope_info: bool = False
        """Leave out the labels `otel_scope_name` and `otel_scope_version`."""
        max_series: int = 100_000
        """Series that are kept; points of further ones are counted and left out."""

        def check(self) -> Iterator[str]:
            """What the types cannot say."""
            if self.metric_expiration <= 0:
                yield "metric_expiration must be greater than 0"
            if self.max_series <= 0:
                yield "max_series must be positive"
            for name in self.const_labels:
                if name != label_of(name):
                    yield f'const_labels: "{name}" is no name of a label'
            if self.namespace and not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:.]*", self.namespace):
                yield f'namespace: "{self.namespace}" cannot begin a name'

    def __init__(
        self, config: Config, host: Host, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self.host = host
        self.endpoints: dict[str, str] = {}
        self._clock = clock
        strategy = config.translation_strategy
        self._suffixes = (
            config.add_metric_suffixes if not strategy else strategy.endswith("WithSuffixes")
        )
        self._constant = dict(config.const_labels)
        self._families: dict[str, _About] = {}
        self._lines = {TARGET_INFO}
        self._series: dict[Any, _Series] = {}
        self._targets: dict[tuple[tuple[str, str], ...], float] = {}
        self._repeats = Repeats()
        self._quiet_log = QuietLog(host.log, clock)
        self._stack = AsyncExitStack()

    signals: ClassVar = frozenset({Signal.METRICS})
    durability: Final = "in memory, until it is fetched"

    async def __aenter__(self) -> Self:
        """
        Begin to answer.

        Raises:
            StartFailed: the endpoint cannot be bound.
        """
        page = Page(self.families, openmetrics=self.config.enable_open_metrics)
        self.endpoints["http"] = await self._stack.enter_async_context(
            serving(NoVisitors(page, self.config.endpoint), self.config.endpoint)
        )
        if not is_local(self.config.endpoint):
            self.host.log.warning(
                "metrics at %s can be read from other machines, without a credential",
                self.endpoints["http"],
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Answer no more."""
        await self._stack.aclose()

    async def __call__(self, batch: Batch) -> None:
        """Take the points of a batch."""
        if self._repeats.known(batch):
            return
        now = self._clock()
        for group in batch.message.resource_metrics:
            resource = {pair.key: attribute_text(pair.value) for pair in group.resource.attributes}
            target = self._target(resource)
            if target:
                self._remember_target(target, resource, now)
            sender = attribute_set(group.resource.attributes)
            for scope in group.scope_metrics:
                scoped = dict(target)
                if not self.config.without_scope_info and scope.scope.name:
                    scoped["otel_scope_name"] = scope.scope.name
                    scoped["otel_scope_version"] = scope.scope.version
                shared = joined(self._constant, scoped)
                if self.config.resource_to_telemetry_conversion.enabled:
                    shared = joined(shared, labels_of(resource.items()))
                source = (sender, scope.scope.name, scope.scope.version)
                for metric in scope.metrics:
                    self._take(metric, shared, source, now)
        self._repeats.add(batch)

    def _target(self, resource: dict[str, str]) -> dict[str, str]:
        """`job` and `instance`, as Prometheus calls a service and one process of it."""
        found = {}
        if name := resource.get("service.name"):
            space = resource.get("service.namespace")
            found["job"] = f"{space}/{name}" if space else name
        if instance := resource.get("service.instance.id"):
            found["instance"] = instance
        return found

    def _remember_target(
        self, target: dict[str, str], resource: dict[str, str], now: float
    ) -> None:
        others = {key: text for key, text in resource.items() if key not in JOB}
        if others and not self.config.resource_to_telemetry_conversion.enabled:
            named = joined(joined(self._constant, target), labels_of(others.items()))
            labels = tuple(named.items())
            if labels in self._targets or len(self._targets) < self.config.max_series:
                self._targets[labels] = now

    def _take(self, metric: Any, shared: dict[str, str], source: object, now: float) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        delta = getattr(data, "aggregation_temporality", 0) == DELTA
        monotonic = kind == "sum" and data.is_monotonic
        name = metric_name(
            metric.name,
            metric.unit,
            monotonic=monotonic,
            gauge=kind == "gauge",
            namespace=self.config.namespace,
            suffixes=self._suffixes,
        )
        shown: Kind = "gauge" if kind == "sum" and not monotonic else KINDS[kind]
        about = self._about(name, shown, metric.description)
        if about is None:
            text = f"{name} ({shown}) has lines with the names of another metric"
            self._leave_out(len(points(metric)), "type", text)
            return
        reserved = RESERVED.get(shown, "")
        if reserved in shared:
            shared = joined({}, shared, reserved)
        for point in data.data_points:
            own = labels_of((pair.key, attribute_text(pair.value)) for pair in point.attributes)
            labels = tuple(joined(shared, own, reserved).items())
            key = (name, frozenset(labels))
            owner = hash((metric.name, metric.unit, source, attribute_set(point.attributes)))
            found = self._series.get(key)
            if found is not None and found.owner != owner and not self._inherits(found, point, now):
                text = f"{name}{dict(labels)} is already the series of another metric or sender"
                self._leave_out(1, "same_series", text)
                continue
            if point.flags & NO_VALUE:
                self._series.pop(key, None)
                about.series.discard(key)
                continue
            if found is None:
                if len(self._series) >= self.config.max_series:
                    text = f"there are {self.config.max_series} series already (max_series)"
                    self._leave_out(1, "max_series", text)
                    continue
                found = self._series[key] = _Series(owner, name, kind, labels, Value(), now)
                about.series.add(key)
            elif found.kind != kind or found.owner != owner:
                found.kind, found.owner, found.value = kind, owner, Value()
            elif not delta and point.time_unix_nano < found.value.time:
                continue  # older than what is shown
            found.seen = now
            found.value.take(kind, point, delta=delta)
        if not about.series:
            self._end_family(name)

    def _inherits(self, series: _Series, point: Any, now: float) -> bool:
        """Whether a series may change hands: its process has been replaced, or is silent."""
        if point.start_time_unix_nano > series.value.time:
            return True
        return series.seen < now - self.config.metric_expiration / 2

    def _about(self, name: str, kind: Kind, text: str) -> _About | None:
        """The family of a name; None when another one has lines with the same names."""
        about = self._families.get(name)
        if about is not None:
            return about if about.kind == kind else None
        lines = line_names(name, kind, openmetrics=self.config.enable_open_metrics)
        if not lines.isdisjoint(self._lines):
            return None
        self._lines.update(lines)
        about = self._families[name] = _About(kind, text)
        return about

    def _end_family(self, name: str) -> None:
        kind = self._families.pop(name).kind
        self._lines -= line_names(name, kind, openmetrics=self.config.enable_open_metrics)

    def _leave_out(self, amount: int, reason: str, text: str) -> None:
        self.host.stats.add(
            "otelier_prometheus_points_left_out", amount, exporter=self.host.id, reason=reason
        )
        self._quiet_log.warning("points are left out: %s", text)

    def _forget(self, key: Any) -> None:
        series = self._series.pop(key)
        about = self._families[series.family]
        about.series.discard(key)
        if not about.series:
            self._end_family(series.family)

    def families(self) -> Iterator[Family]:
        """What is shown now, families and series in the order in which they came."""
        before = self._clock() - self.config.metric_expiration
        for key in [key for key, each in self._series.items() if each.seen < before]:
            self._forget(key)
        for labels in [labels for labels, seen in self._targets.items() if seen < before]:
            del self._targets[labels]
        if self._targets:
            info = Family(TARGET_INFO, "gauge", "Target metadata")
            info.samples = [Sample(labels, 1) for labels in self._targets]
            yield info
        made = {name: Family(name, each.kind, each.help) for name, each in self._families.items()}
        for series in self._series.values():
            stamp = series.value.time / 1e9 if self.config.send_timestamps else None
            samples = series.value.samples(series.kind, series.labels, stamp)
            made[series.family].samples.extend(samples)
        yield from made.values()


def attribute_set(attributes: Any) -> frozenset[bytes]:
    """What attributes say: equal for equal ones in any order, not for a `7` and a `"7"`."""
    return frozenset(pair.SerializeToString(deterministic=True) for pair in attributes)


def line_names(name: str, kind: Kind, *, openmetrics: bool) -> set[str]:
    """The names that belong to a family: its own, and those that its lines have."""
    endings = {"histogram": ("", "_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
    names = {name + ending for ending in endings.get(kind, ("",))}
    if openmetrics and kind == "counter":
        base = name.removesuffix("_total")
        names |= {base, f"{base}_total"}
    return names
