"""
Documents as MongoDB keeps them, and back, exactly.

Attribute names have dots, and MongoDB filters by paths, so `{"http.route": "/a"}` is stored as
`{http: {route: "/a"}}` and people can write `find({"attributes.http.route": "/a"})`. That is not
always reversible (a map value, `http` beside `http.method`, a name with `$` or NUL). Then the
nested form is only for looking, and the exact value is kept beside it as JSON, in
`attributes_raw`. The same goes for `resource`, `metadata` and a structured `body`.

BSON limits: an unsigned integer above 2^63-1 becomes a Decimal128, which compares with integers;
a date has milliseconds, so `timestamp` and `start` are made again from their nanoseconds on
reading; times are always Int64. Each document is encoded and checked alone, before it enters a
bulk, because one bad value fails the whole call.

Documents of one batch share resource and scope, so these are encoded once.

The usual document is written by the native core (native/collector/bson.c), which asks `field` here
for each field that is not; without the core all are. The bytes are equal by test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import bson
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument

from collector.documents.build import CORE, Binary, Document, NonFinite, loads, moment, text
from collector.stores.base import ID, MAX_DOCUMENT_BYTES

INT64_MAX: Final = (1 << 63) - 1
_INT64_MIN: Final = -(1 << 63)
_MAX_DEPTH: Final = 48
_MAX_SEGMENTS: Final = 24
_SPECIAL: Final = ("\0", "\u2400", "\uff04", "\uff0e")


@dataclass(slots=True)
class Memo:
    """
    What documents of one batch share; it must not outlive them.

    Args:
        parts: resource and scope by the identity of their map, for encoding in Python.
        pieces: the same as bytes, for the native core.
    """

    parts: dict[int, Any] = attribute(default_factory=dict)
    pieces: dict[int, bytes] = attribute(default_factory=dict)


class Unfit(Exception):
    """A document that can never be stored; the text is the reason, a word."""


class _Unusual(Exception):
    """A value that the plain nested form cannot keep exactly."""


# --- names with dots ---


@lru_cache(maxsize=8192)
def path(name: str) -> tuple[str, ...] | None:
    """The fields that a name nests into; None when it needs an escape."""
    parts = tuple(name.split("."))
    if len(parts) > _MAX_SEGMENTS or any(special in name for special in _SPECIAL):
        return None
    if any(part.startswith("$") or not part.strip("_") for part in parts):
        return None  # an operator, nothing at all, or our own place for conflicts ("_")
    return parts


def _escaped(name: str) -> str:
    name = name.replace("\0", "\u2400").replace(".", "\uff0e")
    return "\uff04" + name[1:] if name.startswith("$") else name


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    The nested form, when it can be undone.

    Raises:
        _Unusual: it cannot.
    """
    root: dict[str, Any] = {}
    for name, value in values.items():
        if type(value) not in _PLAIN:
            value = _scalar(value)  # noqa: PLW2901 - the loop is hot
        parts = path(name)
        if parts is None:
            raise _Unusual
        node = root
        for part in parts[:-1]:
            node = node.setdefault(part, {})
            if type(node) is not dict:
                raise _Unusual
        if parts[-1] in node:
            raise _Unusual
        node[parts[-1]] = value
    return root


class _Branch(dict[str, Any]):
    """A map that comes from dots in names, not from a value."""


def _searchable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A nested form for filters and people, whatever the names; a plain name is always findable."""
    root = _Branch()
    for name in sorted(values, key=lambda name: path(name) is None):
        parts = path(name) or (_escaped(name),)
        node = root
        for part in parts[:-1]:
            child = node.get(part)
            if type(child) is not _Branch:
                branch = _Branch()
                if part in node:
                    branch["_"] = child
                child = node[part] = branch
            node = child
        value = _cut(values[name], 0)
        taken = node.get(parts[-1])
        if type(taken) is _Branch:
            taken["_"] = value
        elif parts[-1] not in node:
            node[parts[-1]] = value
    return root


def _flat(nested: Mapping[str, Any], prefix: str, found: dict[str, Any]) -> dict[str, Any]:
    for name, value in nested.items():
        if isinstance(value, dict):
            _flat(value, f"{prefix}{name}.", found)
        else:
            found[prefix + name] = _value(value)
    return found


# --- values ---

_PLAIN: Final = frozenset({str, bool, float, NonFinite, Binary, type(None)})
"""Types that BSON keeps as they are."""


def integer(value: int) -> int | Decimal128:
    """An integer as BSON can hold it."""
    return value if _INT64_MIN <= value <= INT64_MAX else Decimal128(str(value))


def nanoseconds(value: int) -> Int64 | Decimal128:
    """A time: always 64 bits, so that the field has one type."""
    return Int64(value) if _INT64_MIN <= value <= INT64_MAX else Decimal128(str(value))


def _scalar(value: Any) -> Any:
    kind = type(value)
    if kind is int:
        return integer(value)
    if kind is list:
        return [item if type(item) in _PLAIN else _scalar_only(item) for item in value]
    raise _Unusual


def _scalar_only(value: Any) -> Any:
    if type(value) is int:
        return integer(value)
    raise _Unusual


def _structure(value: Any, depth: int) -> Any:
    """A structured value as it is, when BSON can keep it exactly."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return integer(value)
    if depth > _MAX_DEPTH:
        raise _Unusual
    if kind is list:
        return [_structure(item, depth + 1) for item in value]
    if any("\0" in name or name.startswith("$") for name in value):
        raise _Unusual
    return {name: _structure(item, depth + 1) for name, item in value.items()}


def _cut(value: Any, depth: int) -> Any:
    """A structured value for looking: names escaped, what lies too deep as JSON."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return integer(value)
    if depth > _MAX_DEPTH:
        return text(value)
    if kind is list:
        return [_cut(item, depth + 1) for item in value]
    return {_escaped(name): _cut(item, depth + 1) for name, item in value.items()}


def _value(value: Any) -> Any:
    """A value from BSON as documents have it."""
    kind = type(value)
    if kind is Int64:
        return int(value)
    if kind is Decimal128:
        return int(value.to_decimal())
    if kind is bytes:
        return Binary(value)
    if kind is float:
        return value if value - value == 0.0 else NonFinite(value)
    if kind is list:
        return [_value(item) for item in value]
    if kind is dict:
        return {name: _value(item) for name, item in value.items()}
    return value


# --- fields ---


def _values(key: str, value: Any, out: dict[str, Any], _memo: Memo) -> None:
    try:
        out[key] = _nested(value)
    except _Unusual:
        out[key] = _searchable(value)
        out[f"{key}_raw"] = text({key: value})


def _body(key: str, value: Any, out: dict[str, Any], _memo: Memo) -> None:
    try:
        out[key] = _structure(value, 0)
    except _Unusual:
        out[key] = _cut(value, 0)
        out[f"{key}_raw"] = text({key: value})


def _resource(key: str, value: Any, out: dict[str, Any], memo: Memo) -> None:
    known = memo.parts.get(id(value))
    if known is None:
        known = {}
        _values(key, value, known, memo)
        known[key] = RawBSONDocument(bson.encode(known[key]))
        memo.parts[id(value)] = known
    out.update(known)


def _scope(key: str, value: Any, out: dict[str, Any], memo: Memo) -> None:
    known = memo.parts.get(id(value))
    if known is None:
        known = memo.parts[id(value)] = RawBSONDocument(bson.encode(_fields(value, memo)))
    out[key] = known


def _items(key: str, value: Any, out: dict[str, Any], memo: Memo) -> None:
    out[key] = [_fields(item, memo) for item in value]


def _time(key: str, value: Any, out: dict[str, Any], _memo: Memo) -> None:
    out[key] = nanoseconds(value)


_FIELDS: Final[dict[str, Callable[[str, Any, dict[str, Any], Memo], None]]] = {
    "attributes": _values,
    "metadata": _values,
    "resource": _resource,
    "scope": _scope,
    "body": _body,
    **dict.fromkeys(("events", "links", "exemplars"), _items),
    **dict.fromkeys(
        ("time_unix_nano", "observed_unix_nano", "start_unix_nano", "end_unix_nano"), _time
    ),
}
"""Fields that are not stored as they are."""

_SIMPLE: Final = frozenset({"context", "trace", "exception"})
"""Maps with names of ours and values of text or float."""


def _fields(document: Mapping[str, Any], memo: Memo) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in document.items():
        field = _FIELDS.get(key)
        if field is not None:
            field(key, value, out, memo)
        elif type(value) in (str, float) or key in _SIMPLE:
            out[key] = value
        elif type(value) is int:
            out[key] = integer(value)
        elif type(value) in (list, dict):
            out[key] = _structure(value, 0)
        else:
            out[key] = value
    return out


def field(key: str, value: Any, memo: Memo) -> bytes:
    """One field alone, as the BSON of a document that has no other."""
    return bson.encode(_fields({key: value}, memo))


def _roles() -> dict[str, int | str]:
    """How the core writes the fields of `_FIELDS`; `body` is a structure, as is any other map."""
    roles: dict[Any, int] = {_values: 1, _resource: 2, _scope: 2, _items: 3, _time: 4, _body: 0}
    dates = {"timestamp": "time_unix_nano", "start": "start_unix_nano"}
    return {"_id": 5, **dates, **{key: roles[write] for key, write in _FIELDS.items()}}


def _nothing(_document: Document, _pieces: dict[int, bytes], _memo: Memo) -> bytes | None:
    return None


_native: Callable[[Document, dict[int, bytes], Memo], bytes | None] = _nothing
if CORE is not None:
    CORE.bson_setup(field, _roles(), datetime, UTC)
    _native = CORE.bson


def in_python(document: Document, memo: Memo) -> bytes:
    """What `encode` gives, without the native core and without a look at the size."""
    _id = document.get("_id")
    if not isinstance(_id, str) or not ID.fullmatch(_id):
        raise Unfit("invalid_id")
    out = _fields(document, memo)
    out["_id"] = ObjectId(_id)
    return bson.encode(out)


def encode(document: Document, memo: Memo) -> bytes:
    """
    A document as BSON.

    Args:
        document: one of a batch.
        memo: the same for all documents of one batch, which must outlive it.

    Raises:
        Unfit: with the reason.
    """
    try:
        data = _native(document, memo.pieces, memo)
    except Exception:  # Python says why
        data = None
    try:
        if data is None:
            data = in_python(document, memo)
    except Unfit:
        raise
    except Exception as error:  # whatever it is, it must not take the neighbours with it
        raise Unfit("cannot_encode") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Unfit("too_large")
    return data


_MAPS: Final = frozenset({"attributes", "resource", "metadata"})
_RAW: Final = frozenset({"attributes_raw", "resource_raw", "metadata_raw", "body_raw"})


def _restored(found: Mapping[str, Any]) -> Document:
    out: Document = {}
    for key, value in found.items():
        kind = type(value)
        if kind is str:
            if key not in _RAW:
                out[key] = value
        elif key in _MAPS or key == "body":
            if raw := found.get(f"{key}_raw"):
                out[key] = loads(raw.encode())[key]
            else:
                out[key] = _value(value) if key == "body" else _flat(value, "", {})
        elif kind is dict:
            out[key] = _restored(value)
        elif kind is list:
            out[key] = [_restored(item) if type(item) is dict else _value(item) for item in value]
        else:
            out[key] = _value(value)
    return out


def restore(found: Mapping[str, Any]) -> Document:
    """The document that `encode` was given, from what pymongo decoded."""
    document = _restored(found)
    document["_id"] = str(found["_id"])
    if "start" in document:
        document["start"] = moment(document["start_unix_nano"])
    elif "timestamp" in document:
        document["timestamp"] = moment(document["time_unix_nano"])
    return document
