"""
The connector count: how many spans, events, metrics, data points and log records came by.

Each batch becomes one message of differences, with the resources of the batch, and is handed on at
once: there is no state, so what is counted is as safe as what it is counted from. Without settings
it emits the OpenTelemetry Collector's default metrics; a section of its own replaces the default of
that section. Conditions are those of the filter processor; one that holds is enough.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, ClassVar, Final

import msgspec

from collector.connectors.shared.series import DELTA, Key, attributes_of, pick, put
from collector.model import Batch, Consume, Host, Request, Signal
from collector.otlp import GROUPS, new_message, points, resources
from collector.pipeline.deduplication import Repeats
from collector.processors.ottl.conditions import Condition, parse
from collector.processors.ottl.paths import Place
from collector.processors.ottl.regex import TooSlow

SCOPE: Final = "countconnector"
LARGEST: Final = 10_000
"""Series that one batch may make; further combinations are counted together."""


class CountedAttribute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attribute to count by."""

    key: str
    """Its name."""
    default_value: str | int | float | bool | None = None
    """Its value where it is missing; without one the item is not counted."""


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric."""

    description: str = ""
    """Its description."""
    conditions: tuple[str, ...] = ()
    """What is counted; empty means everything."""
    attributes: tuple[CountedAttribute, ...] = ()
    """What to count by."""


SECTIONS: Final[dict[str, tuple[Signal, str, str, Counted]]] = {
    "spans": (
        Signal.TRACES, "span", "trace.span.count",
        Counted(description="The number of spans observed."),
    ),
    "spanevents": (
        Signal.TRACES, "spanevent", "trace.span.event.count",
        Counted(description="The number of span events observed."),
    ),
    "metrics": (
        Signal.METRICS, "metric", "metric.count",
        Counted(description="The number of metrics observed."),
    ),
    "datapoints": (
        Signal.METRICS, "datapoint", "metric.datapoint.count",
        Counted(description="The number of data points observed."),
    ),
    "logs": (
        Signal.LOGS, "log", "log.record.count",
        Counted(description="The number of log records observed."),
    ),
}  # fmt: skip
"""Section -> signal, context of its conditions, name and settings of its default metric."""


class _Counter:
    """One metric of the configuration, ready to run."""

    def __init__(self, name: str, section: str, config: Counted) -> None:
        self.name = name
        self.signal, self.context, _, _ = SECTIONS[section]
        self.config = config
        self.conditions = tuple(parsed(text, section) for text in config.conditions)
        self.attributes = tuple((each.key, each.default_value) for each in config.attributes)

    def key(self, place: Place, own: Any, resource: dict[str, Any]) -> Key | None:
        """The series that an item counts in, None when it is not counted."""
        if self.conditions and not any(each.test(place) for each in self.conditions):
            return None
        if not self.attributes:
            return ()
        attributes = attributes_of(own) if hasattr(own, "attributes") else {}
        scope = attributes_of(place.scope.scope)
        found = tuple(pick(self.attributes, attributes, scope, resource))  # type: ignore[arg-type]
        return found if len(found) == len(self.attributes) else None


class Count:
    """Counts what comes by."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the count connector."""

        spans: dict[str, Counted] = {}
        """Metrics about spans, by name; empty means `trace.span.count`."""
        spanevents: dict[str, Counted] = {}
        """Metrics about events of spans; empty means `trace.span.event.count`."""
        metrics: dict[str, Counted] = {}
        """Metrics about metrics; empty means `metric.count`."""
        datapoints: dict[str, Counted] = {}
        """Metrics about data points; empty means `metric.datapoint.count`."""
        logs: dict[str, Counted] = {}
        """Metrics about log records; empty means `log.record.count`."""

        def check(self) -> Iterator[str]:
            """Whether the conditions can be understood."""
            for section in SECTIONS:
                for name, config in getattr(self, section).items():
                    if not name:
                        yield f"{section}: metric name missing"
                    if any(not each.key for each in config.attributes):
                        yield f"{section}: attribute key missing in {name}"
                    for text in config.conditions:
                        try:
                            parsed(text, section)
                        except ValueError as error:
                            yield f"{section}: {name}: cannot use condition {text!r}: {error}"

    connects: ClassVar = frozenset((signal, Signal.METRICS) for signal in Signal)

    def __init__(self, config: Config, host: Host, next: Mapping[Signal, Consume]) -> None:  # noqa: A002 - the word of the protocol
        self.host = host
        self.next = next
        self._repeats = Repeats()
        made = [
            _Counter(name, section, each)
            for section, (_, _, default, standard) in SECTIONS.items()
            for name, each in (getattr(config, section) or {default: standard}).items()
        ]
        self._counters: Mapping[Signal, list[_Counter]] = {
            signal: [each for each in made if each.signal is signal] for signal in Signal
        }

    async def __call__(self, batch: Batch) -> None:
        """Count a batch and hand on the numbers; returning means that they were taken."""
        if self._repeats.known(batch):
            return
        message = self.counted(batch)
        if message.resource_metrics:
            wire: bytes = message.SerializeToString()
            # From what was counted, not from when: a batch that comes again makes the same key.
            digest = blake2b(batch.request.key, digest_size=16, person=b"count")
            digest.update(self.host.id.encode() + b"\0" + batch.signal.encode())
            if batch.wire is None:
                digest.update(batch.message.SerializeToString(deterministic=True))
            origin = Request(
                batch.request.received_at_unix_nano,
                digest.digest(),
                batch.request.tenant,
                "connector",
            )
            await self.next[Signal.METRICS](Batch(Signal.METRICS, message, origin, wire))
        self._repeats.add(batch)

    def counted(self, batch: Batch) -> Any:
        """The numbers of one batch, as a metrics request."""
        message = new_message(Signal.METRICS)
        counters = self._counters[batch.signal]
        _, scopes_name, items_name = GROUPS[batch.signal]
        now = batch.request.received_at_unix_nano
        place = Place()
        for place.group in resources(batch):
            resource = attributes_of(place.group.resource)
            sums: list[dict[Key, int]] = [{} for _ in counters]
            scopes = getattr(place.group, scopes_name)
            for place.scope in scopes:
                found_items = getattr(place.scope, items_name)
                for place.item in found_items:
                    for counter, found in zip(counters, sums, strict=True):
                        self._count(counter, found, place, resource)
            if any(sums):
                group = message.resource_metrics.add()
                group.resource.CopyFrom(place.group.resource)
                scope = group.scope_metrics.add()
                scope.scope.name = SCOPE
                for counter, found in zip(counters, sums, strict=True):
                    if found:
                        write(scope, counter, found, now)
        return message

    def _count(
        self, counter: _Counter, found: dict[Key, int], place: Place, resource: dict[str, Any]
    ) -> None:
        parts: Any = (place.item,)
        if counter.context == "spanevent":
            parts = place.item.events
        elif counter.context == "datapoint":
            parts = points(place.item)
        for part in parts:
            place.part = part
            try:
                key = counter.key(place, part, resource)
            except TooSlow:
                self.host.stats.add(
                    "otelier_connector_errors", connector=self.host.id, reason="pattern_too_slow"
                )
                continue
            if key is None:
                continue
            if key not in found and len(found) >= LARGEST:
                key = (("otel.metric.overflow", True),)
            found[key] = found.get(key, 0) + 1


def parsed(text: str, section: str) -> Condition:
    """
    A condition of a section.

    Raises:
        ValueError: it cannot be understood.
    """
    signal, context, _, _ = SECTIONS[section]
    return parse(text, signal, context)


def write(scope: Any, counter: _Counter, found: dict[Key, int], now: int) -> None:
    """One metric with its series."""
    metric = scope.metrics.add(name=counter.name, description=counter.config.description, unit="1")
    metric.sum.aggregation_temporality = DELTA
    metric.sum.is_monotonic = True
    for key, number in found.items():
        point = metric.sum.data_points.add(
            start_time_unix_nano=now, time_unix_nano=now, as_int=number
        )
        put(point.attributes, key)
