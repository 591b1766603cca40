"""
Values as the JSON of OTLP's AnyValue, and what the data source cannot bear.

The data source makes table columns of attributes, one per key over the whole answer, and crashes
when a value is an array, a map, bytes or empty, or when one key is text here and a number there.
So compound values become their JSON text, nil is left out, and `harmonise` makes text of all values
of a key that has more than one kind.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from collector.query.traceql.values import Each, Nanos, Value
from collector.stores.base import dumps

AnyValue = dict[str, Any]
KeyValue = dict[str, Any]


def any_value(value: Value) -> AnyValue | None:
    """The JSON of a value, None for nil."""
    if type(value) is Each:
        value = value[0]
    if value is None:
        return None
    if isinstance(value, Nanos):
        return {"stringValue": str(value)}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if isinstance(value, int | float):
        return {"doubleValue": number(value)}
    if isinstance(value, str):
        return {"stringValue": str(value)}
    return {"stringValue": dumps(value).decode()}


def number(value: float) -> float | str:
    """A double in protobuf's JSON: NaN and infinities are text."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def key_value(key: str, value: AnyValue) -> KeyValue:
    """One attribute."""
    return {"key": key, "value": value}


def harmonise(attributes: Iterable[KeyValue]) -> None:
    """
    Make one kind of all values of a key: text, a number, or a bool.

    Args:
        attributes: all of one answer; changed in place.
    """
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    found = list(attributes)
    for attribute in found:
        kinds[attribute["key"]].add(_kind(attribute["value"]))
    for attribute in found:
        if len(kinds[attribute["key"]]) > 1:
            (value,) = attribute["value"].values()
            text = value if isinstance(value, str) else dumps(value).decode()
            attribute["value"] = {"stringValue": text}


def _kind(value: AnyValue) -> str:
    (kind,) = value
    return "number" if kind in ("intValue", "doubleValue") else kind
