"""
What the paths of conditions read: `span.attributes["key"]`, `log.severity_number`, `resource...`.

A `Place` is where a condition is asked: resource group, scope group, item, and the event or data
point inside it. One table per context says which fields there are; a path without a context
(`name`) is about the context of its condition, or about the signal's items.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from collector.otlp import points
from collector.processors.ottl.regex import Budget
from collector.processors.shared.attribute_map import (
    get,
    value_of,
)


@dataclass(slots=True)
class Place:
    """
    Where a condition is asked; set anew for each item.

    Args:
        group: the resource group.
        scope: the scope group.
        item: the span, metric or log record.
        part: the event or the data point.
        budget: the time of the batch.
        counts: what happened on the way, for the counters.
    """

    group: Any = None
    scope: Any = None
    item: Any = None
    part: Any = None
    budget: Budget = field(default_factory=Budget)
    counts: Counter[str] = field(default_factory=Counter)

    def points(self) -> Any:
        """The data points of the metric."""
        return points(self.item)


Getter = Callable[[Place], Any]
Read = Callable[[Any], Any]

CONTEXTS: Final = {
    "traces": ("resource", "scope", "spanevent", "span"),
    "metrics": ("resource", "scope", "datapoint", "metric"),
    "logs": ("resource", "scope", "log"),
}
"""Of each signal; the last one is what a path without a context is about."""
ORDER: Final = ("resource", "scope", "log", "span", "metric", "spanevent", "datapoint")
"""From the whole to the part."""
SPELLINGS: Final = {"instrumentation_scope": "scope", "log_record": "log"}

KIND_NAMES: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
TYPES: Final = ("", "gauge", "sum", "histogram", "exponential_histogram", "summary")
SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

ENUMS: Final[dict[str, int]] = {
    **{f"SPAN_KIND_{name.upper()}": number for number, name in enumerate(KIND_NAMES)},
    **{f"STATUS_CODE_{name}": number for number, name in enumerate(("UNSET", "OK", "ERROR"))},
    "SEVERITY_NUMBER_UNSPECIFIED": 0,
    **{
        f"SEVERITY_NUMBER_{name}{step or ''}": 1 + 4 * place + max(0, step - 1)
        for place, name in enumerate(SEVERITIES)
        for step in (0, 2, 3, 4)
    },
    **{f"METRIC_DATA_TYPE_{name.upper() or 'NONE'}": number for number, name in enumerate(TYPES)},
    "AGGREGATION_TEMPORALITY_UNSPECIFIED": 0,
    "AGGREGATION_TEMPORALITY_DELTA": 1,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
}


def named(name: str) -> Read:
    """Reads a field."""
    return lambda owner: getattr(owner, name)


def hexed(name: str) -> Read:
    """Reads an id as hex."""
    return lambda owner: getattr(owner, name).hex()


def of_data(name: str) -> Read:
    """Reads a field of a metric's data, None when its type has no such field."""

    def read(metric: Any) -> Any:
        kind = metric.WhichOneof("data")
        return None if kind is None else getattr(getattr(metric, kind), name, None)

    return read


def optional(name: str) -> Read:
    """Reads a field that some types of data points lack."""
    return lambda point: getattr(point, name, None)


def number_of(kind: str) -> Read:
    """Reads the value of a number point when it is of this kind."""
    return lambda point: (
        getattr(point, kind)
        if kind in point.DESCRIPTOR.fields_by_name and point.WhichOneof("value") == kind
        else None
    )


def kind_name(span: Any) -> str:
    """The kind of a span in words."""
    return KIND_NAMES[span.kind] if 0 <= span.kind < len(KIND_NAMES) else ""


FIELDS: Final[dict[str, dict[str, Read]]] = {
    "resource": {
        "dropped_attributes_count": lambda group: group.resource.dropped_attributes_count,
        "schema_url": named("schema_url"),
    },
    "scope": {
        "name": lambda scope: scope.scope.name,
        "version": lambda scope: scope.scope.version,
        "schema_url": named("schema_url"),
    },
    "span": {
        "name": named("name"),
        "kind": named("kind"),
        "kind.string": kind_name,
        "status.code": lambda span: span.status.code,
        "status.message": lambda span: span.status.message,
        "trace_id.string": hexed("trace_id"),
        "span_id.string": hexed("span_id"),
        "parent_span_id.string": hexed("parent_span_id"),
        "trace_state": named("trace_state"),
        "start_time_unix_nano": named("start_time_unix_nano"),
        "end_time_unix_nano": named("end_time_unix_nano"),
        "dropped_attributes_count": named("dropped_attributes_count"),
    },
    "spanevent": {"name": named("name"), "time_unix_nano": named("time_unix_nano")},
    "log": {
        "severity_number": named("severity_number"),
        "severity_text": named("severity_text"),
        "event_name": named("event_name"),
        "time_unix_nano": named("time_unix_nano"),
        "observed_time_unix_nano": named("observed_time_unix_nano"),
        "trace_id.string": hexed("trace_id"),
        "span_id.string": hexed("span_id"),
        "flags": named("flags"),
        "dropped_attributes_count": named("dropped_attributes_count"),
    },
    "metric": {
        "name": named("name"),
        "description": named("description"),
        "unit": named("unit"),
        "type": lambda metric: TYPES.index(metric.WhichOneof("data") or ""),
        "aggregation_temporality": of_data("aggregation_temporality"),
        "is_monotonic": of_data("is_monotonic"),
    },
    "datapoint": {
        "value_int": number_of("as_int"),
        "value_double": number_of("as_double"),
        "time_unix_nano": named("time_unix_nano"),
        "start_time_unix_nano": named("start_time_unix_nano"),
        "flags": named("flags"),
        "count": optional("count"),
        "sum": optional("sum"),
    },
}
VALUES: Final[dict[str, dict[str, Read]]] = {
    "resource": {"attributes": lambda group: group.resource.attributes},
    "scope": {"attributes": lambda scope: scope.scope.attributes},
    "span": {"attributes": named("attributes")},
    "spanevent": {"attributes": named("attributes")},
    "log": {"attributes": named("attributes"), "body": named("body")},
    "metric": {"metadata": named("metadata")},
    "datapoint": {"attributes": named("attributes")},
}
"""What takes keys in brackets: lists of attributes, and the body."""
OWNERS: Final[dict[str, Getter]] = {
    "resource": lambda place: place.group,
    "scope": lambda place: place.scope,
    "span": lambda place: place.item,
    "log": lambda place: place.item,
    "metric": lambda place: place.item,
    "spanevent": lambda place: place.part,
    "datapoint": lambda place: place.part,
}


def getter(
    names: Sequence[str], keys: Sequence[str | int], signal: str, context: str
) -> tuple[str, Getter]:
    """
    What a path reads, and the context that it names.

    Args:
        names: the words between the dots.
        keys: what stands in brackets behind them.
        signal: traces, metrics or logs.
        context: of the condition; empty when it is to be found out.

    Raises:
        ValueError: there is no such path.
    """
    first = SPELLINGS.get(names[0], names[0])
    rest = ".".join(names[1:])
    if rest and first in ORDER:
        owner = first
    else:
        owner, rest = context or CONTEXTS[signal][-1], ".".join(names)
    shown = ".".join(names)
    known = CONTEXTS[signal]
    if owner not in known or (context and ORDER.index(owner) > ORDER.index(context)):
        usable = [
            each for each in known if not context or ORDER.index(each) <= ORDER.index(context)
        ]
        raise ValueError(f'"{shown}" cannot be read here; there are: {", ".join(sorted(usable))}')
    reach = OWNERS[owner]
    if rest in VALUES[owner]:
        read = VALUES[owner][rest]
        if rest != "body" and not keys:
            raise ValueError(f'"{shown}" needs a key, as in {shown}["key"]')
        return owner, _value(reach, read, keys, attributes=rest != "body")
    if rest not in FIELDS[owner] or keys:
        fields = sorted([*FIELDS[owner], *(f'{name}["key"]' for name in VALUES[owner])])
        raise ValueError(f'unknown path "{shown}"; {owner} has: {", ".join(fields)}')
    read = FIELDS[owner][rest]
    return owner, lambda place: read(reach(place))


def _value(reach: Getter, read: Read, keys: Sequence[str | int], *, attributes: bool) -> Getter:
    """Reads a value below attributes or body."""
    if attributes and not isinstance(keys[0], str):
        raise ValueError("the key of an attribute is a text")
    first = keys[0] if attributes else None
    inner = keys[1:] if attributes else keys

    def run(place: Place) -> Any:
        found = read(reach(place))
        if first is not None:
            found = get(found, str(first))
            if found is None:
                return None
        value = value_of(found)
        for key in inner:
            value = step(value, key)
        return value

    return run


def step(value: Any, key: str | int) -> Any:
    """One step into a map or a list; None when there is nothing."""
    if isinstance(key, str):
        return value.get(key) if isinstance(value, dict) else None
    return value[key] if isinstance(value, list) and key < len(value) else None
