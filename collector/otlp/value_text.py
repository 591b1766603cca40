"""
The text of an attribute's value, wherever only text fits: one form for all of them.

Labels of Prometheus, keys of series in connectors, lines of the file and debug exporters, hashes
and patterns of processors. The form is OpenTelemetry's for protocols without such values
(specification, "Mapping AnyValue to non-OTLP protocols"): texts as they are, bytes as base64, NaN and
infinities as words, lists and maps as compact JSON, nothing as an empty text.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

DEEPEST: Final = 64
"""Levels of lists and maps that are written; what lies deeper is null."""
ESCAPE: Final = "$escape"
"""Documents wrap a map whose keys read like their own words in this one."""


def attribute_text(value: Any) -> str:
    """
    The text of a value.

    Args:
        value: an AnyValue, or what stands for one in Python: str, bool, int, float, bytes, list,
            dict, None.
    """
    if isinstance(value, str):
        return value
    found = _plain(value, 0)
    if isinstance(found, str):
        return found
    return "" if found is None else msgspec.json.encode(found).decode()


def _plain(value: Any, depth: int) -> Any:
    """A value as what JSON has words for."""
    if hasattr(value, "WhichOneof"):
        kind = value.WhichOneof("value")
        if kind == "array_value":
            value = value.array_value.values
        elif kind == "kvlist_value":
            value = {pair.key: pair.value for pair in value.kvlist_value.values}
        else:
            value = None if kind is None else getattr(value, kind)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if depth >= DEEPEST:
        return None
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(value.get(ESCAPE), Mapping):
            value = value[ESCAPE]
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    return [_plain(item, depth + 1) for item in value]
