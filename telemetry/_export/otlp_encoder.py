"""
Spans and log records as OTLP protobuf, written directly.

OpenTelemetry's encoder builds a Python object for each attribute and each value and lets protobuf
walk them; that costs more than all the rest of a record's way. Here a record becomes bytes in one
pass, natively where there was a compiler (native/telemetry), else in Python, where what repeats is made
once: the beginning of each attribute by its name, whole attributes whose text is short
(`currency=EUR`), resources and scopes. The tables cannot grow; a full one is emptied.

The bytes parse to the same message as upstream's (tests/telemetry/export/test_otlp_encoder.py), with two
differences: a lone surrogate becomes U+FFFD and an integer beyond 64 bits becomes text, where
upstream loses the batch. Metrics are few and stay with upstream's encoder.

A log record is either the SDK's or `LogFacts`: the same facts as a plain tuple, which is what our log
processor queues. Records of the SDK are read by their public properties; the compiled loop reads the
fields of a span where they are those of the releases that it knows, and else asks for the whole span.
"""

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from telemetry import _native, _otel_context

LogFacts = tuple[
    int,
    int,
    int,
    str,
    Any,
    dict[str, Any],
    int,
    int,
    int,
    str | None,
    Resource,
    InstrumentationScope,
]
"""Time, observed time, severity number and text, body, attributes, trace id, span id, flags, event
name, resource, scope."""

ATTRIBUTES: Final = 4096
"""How many whole attributes are remembered."""
NAMES: Final = 4096
SHARED: Final = 512
SHORT: Final = 64
"""The longest text that is remembered with its name."""
DEPTH: Final = 32

_SURROGATES = re.compile("[\ud800-\udfff]")
_VARINTS: Final = tuple(
    bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(16384)
)
_MASK64: Final = (1 << 64) - 1
_INT64: Final = 1 << 63
_double: Final = struct.Struct("<cd").pack
_fixed64: Final = struct.Struct("<cQ").pack
_fixed32: Final = struct.Struct("<cI").pack
_TRUE: Final = b"\x10\x01"
_FALSE: Final = b"\x10\x00"
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


def varint(number: int) -> bytes:
    """A number from 0 to 2^64 - 1."""
    if number < 16384:
        return _VARINTS[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def utf8(text: str) -> bytes:
    """Text as UTF-8, whatever is in it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def _sized(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


def _framed(tag: bytes, parts: list[bytes]) -> list[bytes]:
    """As `_sized`, of parts that stay apart."""
    return [tag + varint(sum(map(len, parts))), *parts]


def any_value(value: Any, depth: int = DEPTH) -> bytes:
    """
    A value as the content of an AnyValue.

    Raises:
        ValueError: it is of a kind that OTLP does not have, or nested too deep.
    """
    kind = type(value)
    if kind is str:
        return _sized(b"\x0a", utf8(value))
    if value is None:
        return b""
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is int or (isinstance(value, int) and not isinstance(value, bool)):
        if -_INT64 <= value < _INT64:
            return b"\x18" + varint(value & _MASK64)
        return _sized(b"\x0a", f"<integer of {value.bit_length()} bits>".encode())
    if isinstance(value, float):
        return _double(b"\x21", value)
    if isinstance(value, str):
        return _sized(b"\x0a", utf8(value))
    if isinstance(value, bytes):
        return _sized(b"\x3a", value)
    if depth <= 0:
        raise ValueError("nested too deep")
    if isinstance(value, Mapping):
        pairs = (
            _sized(b"\x0a", _pair(str(name), inner, depth - 1)) for name, inner in value.items()
        )
        return _sized(b"\x32", b"".join(pairs))
    if isinstance(value, Sequence):
        inners = (_sized(b"\x0a", any_value(inner, depth - 1)) for inner in value)
        return _sized(b"\x2a", b"".join(inners))
    raise ValueError(f"a {kind.__name__} is no attribute value")


def _pair(name: str, value: Any, depth: int) -> bytes:
    return _sized(b"\x0a", utf8(name)) + _sized(b"\x12", any_value(value, depth))


class OtlpEncoder:
    """
    Encodes records.

    Args:
        core: the compiled loops over records and attributes; None for those here.
    """

    def __init__(self, core: Any = _native.core) -> None:
        self._core = core
        self._names: dict[str, bytes] = {}
        self._whole: dict[tuple[str, str], bytes] = {}
        self._shared: dict[int, tuple[Any, bytes]] = {}

    # --- requests ---

    def spans(self, spans: Iterable[ReadableSpan]) -> bytes:
        """An ExportTraceServiceRequest."""
        if self._core is not None:
            return self._joined(
                self._core.spans(tuple(spans), _slow, utf8, self._details, self._span)
            )
        groups: dict[tuple[int, int], list[bytes]] = {}
        heads: dict[tuple[int, int], tuple[Any, Any]] = {}
        for span in spans:
            resource, scope = span.resource, span.instrumentation_scope
            key = (id(resource), id(scope))
            group = groups.get(key)
            if group is None:
                group = groups[key] = []
                heads[key] = (resource, scope)
            encoded = self._span(span)
            group += (b"\x12", varint(len(encoded)), encoded)
        return self._request(groups, heads)

    def logs(self, records: Iterable[ReadableLogRecord | LogFacts]) -> bytes:
        """An ExportLogsServiceRequest."""
        if self._core is not None:
            all_facts = tuple(
                record if type(record) is tuple else _counted_facts(record) for record in records
            )
            return self._joined(self._core.lines(all_facts, _slow, any_value, utf8))
        groups: dict[tuple[int, int], list[bytes]] = {}
        heads: dict[tuple[int, int], tuple[Any, Any]] = {}
        for record in records:
            facts: Any = record if type(record) is tuple else _counted_facts(record)
            resource, scope = facts[10], facts[11]
            key = (id(resource), id(scope))
            group = groups.get(key)
            if group is None:
                group = groups[key] = []
                heads[key] = (resource, scope)
            encoded = self._log(facts)
            group += (b"\x12", varint(len(encoded)), encoded)
        return self._request(groups, heads)

    def _joined(self, found: list[tuple[Any, Any, bytes]]) -> bytes:
        """A request of what the compiled loops have encoded by resource and scope."""
        groups: dict[tuple[int, int], list[bytes]] = {}
        heads: dict[tuple[int, int], tuple[Any, Any]] = {}
        for resource, scope, encoded in found:
            key = (id(resource), id(scope))
            heads[key] = (resource, scope)
            groups.setdefault(key, []).append(encoded)
        return self._request(groups, heads)

    def _request(
        self,
        groups: dict[tuple[int, int], list[bytes]],
        heads: dict[tuple[int, int], tuple[Any, Any]],
    ) -> bytes:
        by_resource: dict[int, list[bytes]] = {}
        resources: dict[int, Any] = {}
        for key, parts in groups.items():
            resource, scope = heads[key]
            content = [_sized(b"\x0a", self._once(scope, _scope)), *parts]
            if scope is not None and scope.schema_url:
                content.append(_sized(b"\x1a", utf8(scope.schema_url)))
            resources[id(resource)] = resource
            by_resource.setdefault(id(resource), []).extend(_framed(b"\x12", content))
        out: list[bytes] = []
        for key, scopes in by_resource.items():  # type: ignore[assignment]  # the other kind of key
            resource = resources[key]  # type: ignore[index]
            content = [_sized(b"\x0a", self._once(resource, _resource)), *scopes]
            if resource is not None and resource.schema_url:
                content.append(_sized(b"\x1a", utf8(resource.schema_url)))
            out += _framed(b"\x0a", content)
        return b"".join(out)  # the records are copied here, and nowhere before

    def _once(self, shared: Any, encode: Callable[[Any], bytes]) -> bytes:
        """The bytes of an object that many records have."""
        found = self._shared.get(id(shared))
        if found is not None and found[0] is shared:
            return found[1]
        encoded = encode(shared)
        if len(self._shared) >= SHARED:
            self._shared.clear()
        self._shared[id(shared)] = (shared, encoded)  # held, so that its id stays its own
        return encoded

    # --- records ---

    def _log(self, facts: Any) -> bytes:
        time, observed, number, level, body, attributes, trace_id, span_id, flags, event = facts[
            :10
        ]
        dropped = facts[12] if len(facts) > 12 else 0
        parts: list[bytes] = []
        if time:
            parts.append(_fixed64(b"\x09", time))
        if number:
            parts += (b"\x10", varint(number))
        if level:
            parts.append(_sized(b"\x1a", utf8(level)))
        parts.append(_sized(b"\x2a", any_value(body)))
        self._attributes(parts, b"\x32", attributes)
        if dropped:
            parts += (b"\x38", varint(dropped))
        if flags:
            parts.append(_fixed32(b"\x45", flags))
        if trace_id:
            parts += (b"\x4a\x10", trace_id.to_bytes(16, "big"))
        if span_id:
            parts += (b"\x52\x08", span_id.to_bytes(8, "big"))
        if observed:
            parts.append(_fixed64(b"\x59", observed))
        if event:
            parts.append(_sized(b"\x62", utf8(event)))
        return b"".join(parts)

    def _span(self, span: Any) -> bytes:
        context, parent, status = span.context, span.parent, span.status
        parts: list[bytes] = [
            b"\x0a\x10",
            context.trace_id.to_bytes(16, "big"),
            b"\x12\x08",
            context.span_id.to_bytes(8, "big"),
        ]
        if context.trace_state:
            state = ",".join(f"{name}={value}" for name, value in context.trace_state.items())
            parts.append(_sized(b"\x1a", utf8(state)))
        flags = _HAS_IS_REMOTE
        if parent is not None:
            parts += (b"\x22\x08", parent.span_id.to_bytes(8, "big"))
            if parent.is_remote:
                flags |= _IS_REMOTE
        if span.name:
            parts.append(_sized(b"\x2a", utf8(span.name)))
        parts += (b"\x30", _VARINTS[span.kind.value + 1])  # OTLP begins at 1
        if span.start_time:
            parts.append(_fixed64(b"\x39", span.start_time))
        if span.end_time:
            parts.append(_fixed64(b"\x41", span.end_time))
        if attributes := _otel_context.attributes_of(span):
            self._attributes(parts, b"\x4a", attributes)
        if dropped := span.dropped_attributes:
            parts += (b"\x50", varint(dropped))
        parts.append(self._details(span))
        if status is not None:
            content = _sized(b"\x12", utf8(status.description)) if status.description else b""
            if status.status_code.value:
                content += b"\x18" + _VARINTS[status.status_code.value]
            parts.append(_sized(b"\x7a", content))
        parts.append(b"\x85" + _fixed32(b"\x01", flags))
        return b"".join(parts)

    def _details(self, span: Any) -> bytes:
        """The events and links of a span."""
        parts: list[bytes] = []
        parts += [_sized(b"\x5a", self._event(event)) for event in span.events]
        if dropped := span.dropped_events:
            parts += (b"\x60", varint(dropped))
        parts += [_sized(b"\x6a", self._link(link)) for link in span.links]
        if dropped := span.dropped_links:
            parts += (b"\x70", varint(dropped))
        return b"".join(parts)

    def _event(self, event: Any) -> bytes:
        parts = [_fixed64(b"\x09", event.timestamp), _sized(b"\x12", utf8(event.name))]
        self._attributes(parts, b"\x1a", event.attributes or {})
        if event.dropped_attributes:
            parts += (b"\x20", varint(event.dropped_attributes))
        return b"".join(parts)

    def _link(self, link: Any) -> bytes:
        context = link.context
        flags = _HAS_IS_REMOTE | (_IS_REMOTE if context.is_remote else 0)
        parts = [
            b"\x0a\x10",
            context.trace_id.to_bytes(16, "big"),
            b"\x12\x08",
            context.span_id.to_bytes(8, "big"),
        ]
        self._attributes(parts, b"\x22", link.attributes or {})
        if link.dropped_attributes:
            parts += (b"\x28", varint(link.dropped_attributes))
        parts.append(_fixed32(b"\x35", flags))
        return b"".join(parts)

    def _attributes(self, parts: list[bytes], tag: bytes, attributes: Mapping[str, Any]) -> None:
        """Append each attribute under a tag; one that cannot be encoded is left out, as upstream does."""
        if self._core is not None:
            own = attributes if type(attributes) is dict else dict(attributes)
            parts.append(self._core.attributes(own, tag[0], _slow))
            return
        names, whole = self._names, self._whole
        for name, value in attributes.items():
            kind = type(value)
            if kind is str:
                known = whole.get((name, value))
                if known is not None:
                    parts += (tag, known)
                    continue
            begin = names.get(name)
            if begin is None:
                begin = self._named(name)
            if kind is str:
                raw = utf8(value)
                size = len(raw)
                if size < 100:  # each length is one byte
                    content = begin + _VARINTS[size + 2] + b"\x0a" + _VARINTS[size] + raw
                else:
                    content = begin + _sized(b"", _sized(b"\x0a", raw))
            elif kind is float:
                content = begin + b"\x09" + _double(b"\x21", value)
            elif kind is bool:
                content = begin + b"\x02" + (_TRUE if value else _FALSE)
            elif kind is int and 0 <= value < 16384:
                number = _VARINTS[value]
                content = begin + _VARINTS[len(number) + 1] + b"\x18" + number
            else:
                try:
                    content = begin + _sized(b"", any_value(value))
                except Exception:  # noqa: S112 - of a kind that OTLP does not have
                    continue
            encoded = varint(len(content)) + content
            parts += (tag, encoded)
            if kind is str and len(value) <= SHORT:
                if len(whole) >= ATTRIBUTES:
                    whole.clear()
                whole[name, value] = encoded

    def _named(self, name: Any) -> bytes:
        begin = _sized(b"\x0a", utf8(str(name))) + b"\x12"
        if len(self._names) >= NAMES:
            self._names.clear()
        self._names[name] = begin
        return begin


def _slow(name: Any, value: Any) -> bytes | None:
    """A pair of the kinds that the compiled loop leaves to us; None if OTLP has no such kind."""
    try:
        return _pair(str(name), value, DEPTH)
    except Exception:
        return None


def facts_of(readable: Any) -> tuple[LogFacts, int]:
    """The facts of an SDK record, in a copy, and how many of its attributes limits have dropped."""
    record = readable.log_record
    number = record.severity_number
    return (
        record.timestamp or 0,
        record.observed_timestamp or 0,
        0 if number is None else getattr(number, "value", 0),
        record.severity_text or "",
        record.body,
        dict(_otel_context.attributes_of(record)),
        record.trace_id or 0,
        record.span_id or 0,
        int(record.trace_flags or 0),
        record.event_name,
        readable.resource,
        readable.instrumentation_scope,
    ), readable.dropped_attributes


def _counted_facts(readable: Any) -> tuple[Any, ...]:
    """As `facts_of`, with the count as a 13th part if there is one."""
    facts, dropped = facts_of(readable)
    return (*facts, dropped) if dropped else facts


def _resource(resource: Resource | None) -> bytes:
    return b"" if resource is None else _plain(b"\x0a", resource.attributes)


def _scope(scope: InstrumentationScope | None) -> bytes:
    if scope is None:
        return b""
    parts = [_sized(b"\x0a", utf8(scope.name))] if scope.name else []
    if scope.version:
        parts.append(_sized(b"\x12", utf8(scope.version)))
    parts.append(_plain(b"\x1a", scope.attributes or {}))
    return b"".join(parts)


def _plain(tag: bytes, attributes: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    OtlpEncoder()._attributes(parts, tag, attributes)  # noqa: SLF001 - tables for one object are not kept
    return b"".join(parts)
