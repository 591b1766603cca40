"""
Documents as JSON and back, exactly.

msgspec writes everything that JSON has a word for. The two things that it has none for arrive here
as types of their own, made where the value is converted, so that encoding never has to look:
`Binary` and `NonFinite` are written in MongoDB's Extended JSON. A map of the user's that would read
like one of those is wrapped where it is converted. Reading looks for `"$` in the bytes and takes
the slow way only then.
"""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec


class Binary(bytes):
    """Bytes in a document; a type of its own so that the JSON encoder asks us."""

    __slots__ = ()


class NonFinite(float):
    """NaN or an infinity in a document; a type of its own so that the JSON encoder asks us."""

    __slots__ = ()


RESERVED: Final = frozenset({"$binary", "$numberDouble", "$escape"})
"""A map of the user's with one of these keys stands as {"$escape": map} in a document."""


def _hook(value: object) -> Any:
    if isinstance(value, NonFinite):
        word = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - NaN
        return {"$numberDouble": word}
    if isinstance(value, Binary):
        return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": "00"}}
    message = f"a document cannot hold a {type(value).__name__}"
    raise TypeError(message)


_encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder(enc_hook=_hook).encode
_encode_ordered: Final[Callable[[Any], bytes]] = msgspec.json.Encoder(
    enc_hook=_hook, order="sorted"
).encode
_decode: Final[Callable[[bytes], Any]] = msgspec.json.Decoder().decode

_DATES: Final = ("received_at", "timestamp", "start")
_MAPS: Final = frozenset({"attributes", "resource", "metadata"})


def dumps(document: Any, *, ordered: bool = False) -> bytes:
    """
    A document, or any value inside one, as one line of JSON.

    Args:
        document: dates are written as ISO 8601 with zone, bytes and non-finite numbers as
            Extended JSON.
        ordered: sort the keys of every map, for text that must not depend on their order.
    """
    return _encode_ordered(document) if ordered else _encode(document)


def text(value: Any) -> str:
    """The JSON of a value as text."""
    return _encode(value).decode()


def loads(data: bytes) -> dict[str, Any]:
    """
    The document that `dumps` wrote.

    Raises:
        msgspec.DecodeError: this is no JSON.
    """
    document: dict[str, Any] = _decode(data)
    if b'"$' in data:
        document = _structure(document)
    for key in _DATES:
        if key in document:
            document[key] = datetime.fromisoformat(document[key])
    return document


def _structure(value: Any) -> Any:
    """Our own part of a document, where a `$` key is always ours, and maps of the user's begin."""
    if isinstance(value, dict):
        if len(value) == 1 and "$numberDouble" in value:
            return NonFinite(value["$numberDouble"])
        return {
            key: {name: _value(item) for name, item in part.items()}
            if key in _MAPS
            else _value(part)
            if key == "body"
            else _structure(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_structure(item) for item in value]
    return value


def _value(value: Any) -> Any:
    """A value of the user's; a map that reads like one of ours is ours, theirs are escaped."""
    if isinstance(value, dict):
        if len(value) == 1:
            if "$numberDouble" in value:
                return NonFinite(value["$numberDouble"])
            if "$binary" in value:
                return Binary(base64.b64decode(value["$binary"]["base64"]))
            if "$escape" in value:
                inner = value["$escape"]
                return {"$escape": {name: _value(item) for name, item in inner.items()}}
        return {name: _value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value
