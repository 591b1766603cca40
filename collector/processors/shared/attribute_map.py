"""
What the processors share: attributes as a map, taking items out, counters, threads for large work.

Attributes are edited where they are, in the protobuf. A key that occurs twice is read as its last
value, which is what the documents at rest do, and deleted as a whole.

Log records have no id of their own: theirs is made from the request's key and their place in it.
Whoever takes records out moves the others to new places, so `Sieve` gives the request a key that
is derived from the old one and from what was kept: the same request through the same processor
gets the same ids again, and two pipelines that keep different records of one request never give
one id to two records. A cut into consecutive parts needs no new key: `advanced` moves it to where
the part begins, and the ids stay those of the whole.
"""

import asyncio
import contextlib
import json
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final, ParamSpec, TypeVar

from collector.errors import Permanent
from collector.model import Batch, Host, Request, Signal
from collector.otlp import GROUPS, count, points, resources
from collector.processors.ottl.regex import TooSlow

INLINE: Final = 500
"""Batches of so many items are worked on in the event loop: a thread costs more than they do."""
DEEPEST: Final = 64
"""Values nested deeper than this are not looked into; the receiver lets none of them pass."""
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

P = ParamSpec("P")
R = TypeVar("R")


# --- attributes ---


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
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case bytes():
            return b64encode(value).decode()
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=text_of)
    return str(value)


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


# --- taking items out ---


def sift(found: Any, kept: Sequence[bool]) -> int:
    """
    Take out of a repeated field what is not kept, without copying the rest.

    Returns:
        How many were taken out.
    """
    gone = kept.count(False)
    if gone:
        places = iter(kept)
        # A stable sort moves pointers: what is kept stays in order in front, the rest is cut off.
        found.sort(key=lambda _: not next(places))
        del found[len(kept) - gone :]
    return gone


@dataclass(slots=True)
class Sieve:
    """
    Takes items out of a batch and keeps the batch consistent.

    Args:
        batch: it is changed.
    """

    batch: Batch
    gone: int = field(default=0, init=False)
    _marks: list[bytes] = field(default_factory=list, init=False)

    def take_out(self, scope: Any, kept: Sequence[bool]) -> int:
        """Take out of one scope group what is not kept; call it for each, in order."""
        found = getattr(scope, GROUPS[self.batch.signal][2])
        gone = sift(found, kept)
        self.gone += gone
        self._marks.append(bytes(kept) + b"|")
        return gone

    def finish(self) -> None:
        """Take out the groups that are empty now, and give log records their ids."""
        if not self.gone:
            return
        batch = self.batch
        _, scopes_name, items_name = GROUPS[batch.signal]
        groups = resources(batch)
        for group in groups:
            scopes = getattr(group, scopes_name)
            sift(scopes, [bool(getattr(scope, items_name)) for scope in scopes])
        sift(groups, [bool(getattr(group, scopes_name)) for group in groups])
        batch.changed()
        if batch.signal is Signal.LOGS:
            batch.request = derived(batch.request, b"".join(self._marks))


def derived(request: Request, *parts: bytes) -> Request:
    """A request whose key stands for the old key and `parts`."""
    digest = blake2b(request.key, digest_size=16)
    for part in parts:
        digest.update(b"\0" + part)
    return replace(request, key=digest.digest())


def advanced(request: Request, start: int) -> Request:
    """
    The request of a part that begins at the record number `start` of a logs request.

    The number of a log record is added to the first 8 bytes of the key (documents.py), so the
    records of the part keep the ids that they have in the whole.
    """
    number = int.from_bytes(request.key[:8]) + start & 0xFFFFFFFFFFFFFFFF
    return replace(request, key=number.to_bytes(8) + request.key[8:])


# --- counting, and work off the loop ---


def arrived(host: Host, batch: Batch) -> int:
    """Count the items that a processor was given, and say how many."""
    amount = count(batch.signal, batch.message)
    host.stats.add(
        "otelcol_processor_incoming_items", amount, processor=host.id, otel_signal=batch.signal
    )
    return amount


def handed_on(host: Host, signal: Signal, amount: int) -> None:
    """Count the items that a processor hands on."""
    host.stats.add(
        "otelcol_processor_outgoing_items", amount, processor=host.id, otel_signal=signal
    )


def dropped(host: Host, reason: str, amount: int) -> None:
    """Count items that a processor dropped on purpose."""
    if amount:
        host.stats.add("otelier_processor_dropped_items", amount, processor=host.id, reason=reason)


@contextlib.contextmanager
def in_time(host: Host, amount: int) -> Iterator[None]:
    """
    Refuse for good a batch on whose texts a pattern is too slow: it would be slow again.

    Raises:
        Permanent: instead of `TooSlow`.
    """
    try:
        yield
    except TooSlow:
        dropped(host, "pattern_too_slow", amount)
        text = f'processor "{host.id}": a pattern needs too long for the texts of this batch'
        raise Permanent(text) from None


async def offload(amount: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do the work here when it is small, else in a thread, so that the loop goes on."""
    if amount <= INLINE:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
