"""
Values of spans, and when two of them compare.

A value is what a document holds: text, bool, int, float, list, or None for nil. Three types of our
own keep apart what Python would mix up: `Nanos` (a duration, printed with units), `Word` (a status
or a kind, never equal to text) and `Each` (one value per event or link, any of which may satisfy a
comparison). Bytes and maps are present and compare with nothing.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

from collector.query.traceql import printer
from collector.query.traceql.tree import (
    Attribute,
    Field,
    Intrinsic,
    Literal,
    Type,
)
from collector.query.traceql.view import Document, Span
from telemetry.attributes import CONTEXT

Value = Any
Reader = Callable[[Span], Value]


class Nanos(int):
    """A duration in nanoseconds."""

    __slots__ = ()

    def __str__(self) -> str:
        return printer.duration(self)


class Word(str):
    """A status or a kind, in lower case."""

    __slots__ = ()


class Each(tuple[Any, ...]):
    """The values of one attribute in all events (links) of a span that have it; never empty."""

    __slots__ = ()


_FAMILY: Final[dict[type, str]] = {
    bool: "bool",
    int: "number",
    float: "number",
    Nanos: "number",
    str: "text",
    Word: "word",
}
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EMPTY: Final[Document] = {}


def family(value: Value) -> str | None:
    """Values of one family compare with each other; None for what compares with nothing."""
    kind = _FAMILY.get(type(value))
    return "number" if kind is None and isinstance(value, float) else kind  # a NaN of a document


def holds(op: str, left: Value, right: Value) -> bool:
    """
    Whether a comparison holds; never an error.

    Args:
        op: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        left: nil compares with nothing; of an array any element may satisfy the comparison, but
            `!=` holds only when no element is equal.
        right: the same.
    """
    if left is None or right is None:
        return False
    if type(left) is Each:
        return any(holds(op, value, right) for value in left)
    if type(right) is Each:
        return any(holds(op, left, value) for value in right)
    if type(left) is list:
        return _elements(left, lambda value: holds(op, value, right), op, right)
    if type(right) is list:
        return _elements(right, lambda value: holds(op, left, value), op, left)
    kind = family(left)
    if kind is None or kind != family(right):
        return False
    return _OPERATORS[op](left, right)


def _elements(array: list[Value], test: Callable[[Value], bool], op: str, other: Value) -> bool:
    if op != "!=":
        return any(map(test, array))
    # An element of another type can neither be equal nor different.
    alike = [value for value in array if _alike(value, other)]
    return bool(alike) and all(map(test, alike))


def _alike(value: Value, other: Value) -> bool:
    kind = family(value)
    if type(other) is list:
        return any(_alike(value, element) for element in other)
    return kind is not None and kind == family(other)


def matching(positive: bool, match: Callable[[str], bool], value: Value) -> bool:
    """Whether `=~` (or, not positive, `!~`) holds for a value; only text matches or does not."""
    if type(value) is str:
        return match(value) is positive
    if type(value) is Each:
        return any(matching(positive, match, element) for element in value)
    if type(value) is list:
        texts = [element for element in value if type(element) is str]
        return (any if positive else all)(match(text) is positive for text in texts) and bool(texts)
    return False


def constant(found: Literal) -> Value:
    """The value of a literal."""
    if found.type is Type.DURATION and isinstance(found.value, int):
        return Nanos(found.value)
    if found.type in (Type.STATUS, Type.KIND):
        return Word(found.value)
    return found.value


def reader(field: Field) -> Reader:
    """How to read a field of a span; nil is None."""
    if isinstance(field, Intrinsic):
        return INTRINSIC[field.plain]
    return _attribute(field)


def _attribute(field: Attribute) -> Reader:
    name = field.name
    if field.scope is not None:
        return _SCOPED[field.scope](name)
    readers = [make(name) for make in _SCOPED.values()]

    def unscoped(span: Span) -> Value:
        for read in readers:
            value = read(span)
            if value is not None:
                return value
        return None

    return unscoped


def _span_attribute(name: str) -> Reader:
    key = CONTEXT.get(name)  # documents keep these in a place of their own

    def read(span: Span) -> Value:
        document = span.document
        value = document.get("attributes", _EMPTY).get(name)
        if value is None and key is not None:
            value = document.get("context", _EMPTY).get(key)
        return value

    return read


def _resource_attribute(name: str) -> Reader:
    return lambda span: span.document.get("resource", _EMPTY).get(name)


def _scope_attribute(name: str) -> Reader:
    return lambda span: span.document.get("scope", _EMPTY).get("attributes", _EMPTY).get(name)


def _of_each(section: str, get: Callable[[Document, Span], Value]) -> Reader:
    def read(span: Span) -> Value:
        found = (get(item, span) for item in span.document.get(section, ()))
        present = [value for value in found if value is not None]
        return Each(present) if present else None

    return read


def _event_attribute(name: str) -> Reader:
    return _of_each("events", lambda event, _: event.get("attributes", _EMPTY).get(name))


def _link_attribute(name: str) -> Reader:
    return _of_each("links", lambda link, _: link.get("attributes", _EMPTY).get(name))


_SCOPED: Final[dict[str, Callable[[str], Reader]]] = {
    "span": _span_attribute,
    "resource": _resource_attribute,
    "event": _event_attribute,
    "link": _link_attribute,
    "instrumentation": _scope_attribute,
}


def _root_name(span: Span) -> Value:
    root = span.trace.root
    return None if root is None else root.document["name"]


def _root_service(span: Span) -> Value:
    root = span.trace.root
    return None if root is None else root.document["service"]


def _tree_number(name: str) -> Reader:
    def read(span: Span) -> Value:
        return getattr(span, name) if span.trace.tree else 0

    return read


INTRINSIC: Final[dict[str, Reader]] = {
    "duration": lambda span: Nanos(span.duration),
    "name": lambda span: span.document["name"],
    "status": lambda span: Word(span.document["status"].lower()),
    "statusMessage": lambda span: span.document.get("status_message", ""),
    "kind": lambda span: Word(span.document.get("kind", "UNSPECIFIED").lower()),
    "rootName": _root_name,
    "rootServiceName": _root_service,
    "traceDuration": lambda span: Nanos(span.trace.duration),
    "nestedSetLeft": _tree_number("left"),
    "nestedSetRight": _tree_number("right"),
    "nestedSetParent": _tree_number("parent_left"),
    "trace:id": lambda span: span.document["trace_id"],
    "span:id": lambda span: span.document["span_id"],
    "span:parentID": lambda span: span.document.get("parent_span_id"),
    "span:childCount": lambda span: len(span.children) if span.trace.tree else 0,
    "event:name": _of_each("events", lambda event, _: event.get("name")),
    "event:timeSinceStart": _of_each(
        "events", lambda event, span: Nanos(event.get("time_unix_nano", span.start) - span.start)
    ),
    "link:traceID": _of_each("links", lambda link, _: link.get("trace_id")),
    "link:spanID": _of_each("links", lambda link, _: link.get("span_id")),
    "instrumentation:name": lambda span: span.document.get("scope", _EMPTY).get("name"),
    "instrumentation:version": lambda span: span.document.get("scope", _EMPTY).get("version"),
}
"""How each intrinsic is read, by its plain name."""

WHOLE_TRACE: Final = frozenset(
    {
        "rootName",
        "rootServiceName",
        "traceDuration",
        "nestedSetLeft",
        "nestedSetRight",
        "nestedSetParent",
        "span:childCount",
    }
)
"""Intrinsics that only the whole trace knows."""
