"""
Attributes as a map: read and edited where they are, in the protobuf.

A key that occurs twice is read as its last value, which is what the documents at rest do, and
deleted as a whole.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from collector.model import Signal
from collector.otlp import attribute_text, points

DEEPEST: Final = 64
"""Values nested deeper than this are not looked into; the receiver lets none of them pass."""
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1


def find(attributes: Any, key: str) -> Any:
    """The KeyValue of a key, the last one when there are several; None when there is none."""
    found = None
    for pair in attributes:
        if pair.key == key:
            found = pair
    return found


def get(attributes: Any, key: str) -> Any:
    """The AnyValue of a key, or None."""
    pair = find(attributes, key)
    return None if pair is None else pair.value


def put(attributes: Any, key: str) -> Any:
    """The AnyValue of a key, to be set; the pair is added when there is none."""
    pair = find(attributes, key)
    return (attributes.add(key=key) if pair is None else pair).value


def remove(attributes: Any, drops: Callable[[str], Any]) -> int:
    """Delete every pair whose key `drops` wants gone; how many there were."""
    doomed = [place for place, pair in enumerate(attributes) if drops(pair.key)]
    for place in reversed(doomed):
        del attributes[place]
    return len(doomed)


def value_of(value: Any, depth: int = 0) -> Any:
    """An AnyValue as Python: str, bool, int, float, bytes, list, dict, None."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        if depth >= DEEPEST:
            return None
        return [value_of(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        if depth >= DEEPEST:
            return None
        return {pair.key: value_of(pair.value, depth + 1) for pair in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def set_value(target: Any, value: Any, depth: int = 0) -> None:
    """
    Set an AnyValue.

    Raises:
        TypeError: a type that OTLP does not have.
        ValueError: an int beyond 64 bits, text that is no Unicode, nested too deeply.
    """
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    match value:
        case None:
            target.Clear()
        case str():
            target.string_value = value
        case bool():
            target.bool_value = value
        case int():
            target.int_value = value
        case float():
            target.double_value = value
        case bytes():
            target.bytes_value = value
        case Mapping():
            target.Clear()
            target.kvlist_value.SetInParent()
            for key, inner in value.items():
                set_value(target.kvlist_value.values.add(key=key).value, inner, depth + 1)
        case list() | tuple():
            target.Clear()
            target.array_value.SetInParent()
            for inner in value:
                set_value(target.array_value.values.add(), inner, depth + 1)
        case _:
            raise TypeError(f"{type(value).__name__} is no type of an attribute")


def text_of(value: Any) -> str:
    """A Python value of an attribute as text, as the OpenTelemetry Collector would write it."""
    return attribute_text(value)


def bytes_of(value: Any) -> bytes:
    """A Python value of an attribute as the bytes that are hashed."""
    match value:
        case bytes():
            return value
        case bool():
            return b"\x01" if value else b"\x00"
        case int():
            return struct.pack("<q", value)
        case float():
            return struct.pack("<d", value)
    return text_of(value).encode()


class Attributes(MutableMapping[str, Any]):
    """
    Attributes as a dict of Python values; writes go to the message at once.

    Args:
        pairs: the repeated KeyValue of a message.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Any) -> None:
        self._pairs = pairs

    def __getitem__(self, key: str) -> Any:
        pair = find(self._pairs, key)
        if pair is None:
            raise KeyError(key)
        return value_of(pair.value)

    def __setitem__(self, key: str, value: Any) -> None:
        set_value(put(self._pairs, key), value)

    def __delitem__(self, key: str) -> None:
        if not remove(self._pairs, key.__eq__):
            raise KeyError(key)

    def __iter__(self) -> Any:
        return iter(dict.fromkeys(pair.key for pair in self._pairs))

    def __len__(self) -> int:
        return len({pair.key for pair in self._pairs})

    def __repr__(self) -> str:
        return repr(dict(self))


def attribute_lists(signal: Signal, item: Any) -> Iterable[Any]:
    """The attributes of an item: one list, or one for each data point of a metric."""
    if signal is Signal.METRICS:
        return (point.attributes for point in points(item))
    return (item.attributes,)
