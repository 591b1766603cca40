"""
Protobuf -> plain dicts, by schemas that are derived from the message descriptors.

`read(message_type, wire, message)` gives the fields that are present, under our names, with ids as
hex, enums as words, attribute lists as dicts and AnyValues as their values. Two ways lead there: the
native core walks the bytes (native/collector/decode.c), and without it `_walk` asks the protobuf message.
They are equal by test; `NATIVE` says which one runs. Deriving the schema means that no field number
of OTLP is written down in this project, and that new fields of OTLP arrive by themselves.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any, Final

from collector.documents.json import RESERVED, Binary, NonFinite

RENAMED: Final = {
    "start_time_unix_nano": "start_unix_nano",
    "end_time_unix_nano": "end_unix_nano",
    "observed_time_unix_nano": "observed_unix_nano",
    "event_name": "event",
    "filtered_attributes": "attributes",
    "quantile_values": "quantiles",
    "aggregation_temporality": "temporality",
    "is_monotonic": "monotonic",
    "as_int": "value",
    "as_double": "value",
}
WORDS: Final = {
    "opentelemetry.proto.trace.v1.Span.SpanKind": (
        "",
        "INTERNAL",
        "SERVER",
        "CLIENT",
        "PRODUCER",
        "CONSUMER",
    ),
    "opentelemetry.proto.trace.v1.Status.StatusCode": ("UNSET", "OK", "ERROR"),
    "opentelemetry.proto.metrics.v1.AggregationTemporality": ("", "delta", "cumulative"),
}
"""Enums that documents name; others stay numbers, as do values that are newer than this list."""

_UINT, _INT, _SINT, _BOOL, _ENUM, _FIXED64, _SFIXED64, _FIXED32, _DOUBLE = range(9)
_STRING, _HEX, _MESSAGE, _ATTRIBUTES, _ANY, _UINT32, _SINT32 = range(9, 16)

# google.protobuf.descriptor.FieldDescriptor.TYPE_* -> the core's kinds.
_KIND: Final = {
    1: _DOUBLE,
    3: _INT,
    4: _UINT,
    5: _INT,
    6: _FIXED64,
    7: _FIXED32,
    8: _BOOL,
    9: _STRING,
    12: _HEX,
    13: _UINT32,
    14: _ENUM,
    16: _SFIXED64,
    17: _SINT32,
    18: _SINT,
}
_COMMON: Final = "opentelemetry.proto.common.v1."

Field = tuple[int, str, int, bool, bool, Any]


def _load_core() -> ModuleType | None:
    if sys.byteorder != "little" or os.environ.get("OTELIER_PURE_PYTHON") == "1":
        return None
    try:
        core = importlib.import_module("collector._core")
    except ImportError:
        return None
    core.setup(Binary, NonFinite, RESERVED)
    return core


CORE: Final = _load_core()
"""The native core; None when it is not in use."""
NATIVE: Final = CORE is not None
"""Whether the native core is in use; `OTELIER_PURE_PYTHON=1` turns it off."""


def why_not_native() -> str:
    """Why Python does the work of the native core, with the fix; empty when it does not."""
    if NATIVE:
        return ""
    if sys.byteorder != "little":
        return "the native core is for little-endian machines"
    if os.environ.get("OTELIER_PURE_PYTHON") == "1":
        return "OTELIER_PURE_PYTHON=1 says so"
    return (
        "it was installed without a C compiler, or this Python cannot load it; install one with"
        " Python's headers (Debian: gcc libc6-dev python3-dev) and install otelier again"
    )


_fields: dict[str, list[Field]] = {}
_natives: dict[str, Any] = {}


def read(wire: bytes | None, message: Any) -> dict[str, Any]:
    """
    The fields of a message that are present, as a new dict that the caller may change.

    Args:
        wire: the bytes of the message, if they are at hand; they must parse as that message.
        message: the protobuf message itself.
    """
    if CORE is None:
        return _walk(message)
    found: dict[str, Any] = CORE.decode(
        native_schema(message.DESCRIPTOR), message.SerializeToString() if wire is None else wire
    )
    return found


def native_schema(descriptor: Any) -> Any:
    """The core's schema of a message type, made once."""
    made = _natives.get(descriptor.full_name)
    if made is None and CORE is not None:
        fields = [
            (*field[:5], native_schema(field[5]) if field[2] == _MESSAGE else field[5])
            for field in _schema(descriptor)
        ]
        made = _natives[descriptor.full_name] = CORE.schema(fields)
    return made


def _schema(descriptor: Any) -> list[Field]:
    """(number, key, kind, repeated, presence, descriptor of the message or words of the enum)."""
    fields = _fields.get(descriptor.full_name)
    if fields is None:
        fields = _fields[descriptor.full_name] = [_field(field) for field in descriptor.fields]
    return fields


def _field(field: Any) -> Field:
    kind = _KIND.get(field.type)
    extra = None
    if field.message_type is not None:
        name = field.message_type.full_name
        if name == _COMMON + "KeyValue":
            kind = _ATTRIBUTES
        elif name == _COMMON + "AnyValue":
            kind = _ANY
        else:
            kind, extra = _MESSAGE, field.message_type
    elif field.enum_type is not None:
        extra = WORDS.get(field.enum_type.full_name)
    if kind is None:
        message = f"OTLP field {field.full_name} has a type that documents do not know"
        raise TypeError(message)
    key = RENAMED.get(field.name, field.name)
    return field.number, key, kind, field.is_repeated, field.has_presence, extra


# --- the same in Python ---


def _walk(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    schema = {field[0]: field for field in _schema(message.DESCRIPTOR)}
    for descriptor, value in message.ListFields():
        _, key, kind, repeated, _, extra = schema[descriptor.number]
        if kind == _ATTRIBUTES:
            found[key] = attributes(value)
        elif repeated:
            found[key] = [_one(kind, extra, item) for item in value]
        else:
            found[key] = _one(kind, extra, value)
    return found


def _one(kind: int, extra: Any, value: Any) -> Any:
    if kind == _MESSAGE:
        return _walk(value)
    if kind == _ANY:
        return any_value(value)
    if kind == _HEX:
        return value.hex()
    if kind == _DOUBLE:
        return _double(value)
    if kind == _ENUM and extra is not None:
        return extra[value] if 0 <= value < len(extra) else str(value)
    return value


def attributes(pairs: Any) -> dict[str, Any]:
    """A repeated KeyValue as a dict; of equal keys the last wins (OTLP forbids them)."""
    return {pair.key: any_value(pair.value) for pair in pairs}


def any_value(value: Any) -> Any:
    """The Python value of an AnyValue; None when it is empty."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "double_value":
        return _double(found)
    if kind == "bytes_value":
        return Binary(found)
    if kind == "array_value":
        return [any_value(item) for item in found.values]
    if kind == "kvlist_value":
        inner = attributes(found.values)
        return inner if RESERVED.isdisjoint(inner) else {"$escape": inner}
    return found


def _double(value: float) -> float:
    # NaN and the infinities: JSON has no word for them, so they carry their own type.
    return value if value - value == 0.0 else NonFinite(value)
