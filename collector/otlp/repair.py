"""
OTLP on the level of the wire: what can be said about a request before, or without, parsing it.

How much it is, `sizing` counts. *What can be saved* (`salvage`) is answered here: upb, the
parser in C, refuses a whole request for one string that is not UTF-8 or one value nested deeper
than 100 messages. Only then is the request walked item by item, each bad one is repaired or refused
alone, and its neighbours are kept as they are. Good requests never pay for that.

The walks know the messages by `Shape`, a table made from the descriptors, so a field that OTLP
adds needs no code here.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from collector.errors import Malformed, TooLarge

DEEPEST: Final = 100
"""Messages inside messages that upb parses; the request itself is 0."""
ITEM_DEPTH: Final = 3
"""The depth of a span, metric or log record: request, resource group, scope group, item."""
TEXT_LIMIT: Final = 4096
"""A value that is nested too deeply keeps so many characters of its deeper part, as text."""
ANY_VALUE: Final = "opentelemetry.proto.common.v1.AnyValue"
ARRAY_FIELD: Final = 5
MAP_FIELD: Final = 6


class Broken(ValueError):
    """These bytes are no protobuf message."""


@dataclass(slots=True)
class Shape:
    """
    What the walks must know about a message type.

    Args:
        name: its full name.
        strings: numbers of the fields that must be UTF-8.
        children: numbers of the fields that are messages, and their shapes.
        any: whether it is AnyValue.
    """

    name: str
    strings: set[int] = field(default_factory=set)
    children: dict[int, "Shape"] = field(default_factory=dict)
    any: bool = False


def shape(descriptor: Descriptor, known: dict[str, Shape]) -> Shape:
    """The shape of a message type; `known` holds those made before, because types are recursive."""
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    made = known[descriptor.full_name] = Shape(
        descriptor.full_name, any=descriptor.full_name == ANY_VALUE
    )
    for one in descriptor.fields:
        if one.type == FieldDescriptor.TYPE_STRING:
            made.strings.add(one.number)
        elif one.message_type is not None:
            made.children[one.number] = shape(one.message_type, known)
    return made


@dataclass(slots=True, frozen=True)
class Limits:
    """
    What one request may hold; too many are refused before anything is parsed.

    Args:
        items: spans, metric points or log records.
        groups: resources, and scopes.
        attributes: per item, resource or scope; the rest is cut off and counted.
        elements: messages of any kind.
        key: bytes of an attribute's name; the rest is cut off and counted.
        value: bytes of a text, or of bytes, in an attribute; the rest is cut off and counted.
        record: bytes of a span, log record, data point, resource or scope; what is larger is cut
            until it fits, or refused alone.
    """

    items: int = 50_000
    groups: int = 10_000
    attributes: int = 1_000
    elements: int = 1_000_000
    key: int = 1 << 10
    value: int = 64 << 10
    record: int = 1 << 20


def varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """The number at `pos` and the position behind it."""
    result = shift = 0
    while pos < end and shift < 70:
        byte = data[pos]
        pos += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, pos
        shift += 7
    raise Broken("a number without end")


def skip(data: bytes, pos: int, end: int, tag: int) -> int:
    """The position behind the value of a field that is not a length-delimited one."""
    kind = tag & 7
    if kind == 0:
        return varint(data, pos, end)[1]
    if kind == 1:
        pos += 8
    elif kind == 5:
        pos += 4
    elif kind == 3:
        open_groups = [tag >> 3]
        while open_groups:
            tag, pos = varint(data, pos, end)
            if tag & 7 == 3:
                open_groups.append(tag >> 3)
                if len(open_groups) > DEEPEST:
                    raise Broken("groups nested too deeply")
            elif tag & 7 == 4:
                if open_groups.pop() != tag >> 3:
                    raise Broken("a group that ends as another one")
            elif tag & 7 == 2:
                size, pos = varint(data, pos, end)
                pos += size
            else:
                pos = skip(data, pos, end, tag)
    else:
        raise Broken("an unknown wire type")
    if pos > end:
        raise Broken("cut short")
    return pos


def fields(data: bytes, pos: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """
    The fields of a message: (tag, where the field starts, where its value starts, where it ends).

    Raises:
        Broken: the bytes are no message.
    """
    while pos < end:
        start = pos
        tag = data[pos]
        pos += 1
        if tag >= 0x80:
            tag, pos = varint(data, start, end)
        if tag < 8 or tag > 0xFFFFFFFF:
            raise Broken("a field without a number")
        if tag & 7 == 2:
            if pos < end and data[pos] < 0x80:
                size = data[pos]
                pos += 1
            else:
                size, pos = varint(data, pos, end)
            value = pos
            pos += size
            if pos > end:
                raise Broken("cut short")
        else:
            value = pos
            pos = skip(data, pos, end, tag)
        yield tag, start, value, pos


def over(what: str, limit: int) -> TooLarge:
    """The refusal of a request with too many of something."""
    return TooLarge(f"more than {limit} {what} in one request; send smaller batches")


@dataclass(slots=True)
class Saved:
    """
    What `salvage` made of a request.

    Args:
        data: the request, now without what could not be parsed.
        refused: how many items are gone.
        repaired: what was repaired and how often, by kind (`utf8`, `depth`).
    """

    data: bytes
    refused: int = 0
    repaired: Counter[str] = field(default_factory=Counter)


def salvage(
    data: bytes,
    shape: Shape,
    parse: Callable[[bytes], Any],
    text: Callable[[bytes], str],
) -> Saved:
    """
    Repair a request that upb refuses: item by item, so that only the bad ones change.

    Args:
        data: the request.
        shape: its shape.
        parse: parses a request; raises DecodeError.
        text: renders an AnyValue (its bytes) as text, for values that are nested too deeply.

    Raises:
        Malformed: what is around the items is broken.
    """
    return _Salvage(parse, text).request(data, shape)


class _Salvage:
    """One run of `salvage`: what it was given, and what it has counted so far."""

    def __init__(self, parse: Callable[[bytes], Any], text: Callable[[bytes], str]) -> None:
        self.parse = parse
        self.text = text
        self.refused = 0
        self.repaired: Counter[str] = Counter()

    def request(self, data: bytes, shape: Shape) -> Saved:
        """Repair the whole request."""
        try:
            saved = self.group(data, 0, len(data), shape, 0)
        except Broken as error:
            raise Malformed(f"the body is no protobuf message: {error}") from error
        return Saved(saved, self.refused, self.repaired)

    def group(self, data: bytes, start: int, end: int, shape: Shape, depth: int) -> bytes:
        """The request, a resource group or a scope group, with its items repaired."""
        number = 1 if depth == 0 else 2
        out = bytearray()
        for tag, begin, inner, stop in fields(data, start, end):
            if tag != number << 3 | 2:
                out += self.value(data, (tag, begin, inner, stop), shape, depth)
                continue
            child = shape.children[number]
            if depth + 1 < ITEM_DEPTH:
                out += framed(tag, self.group(data, inner, stop, child, depth + 1))
                continue
            item = data[inner:stop]
            if not self.parses(item):
                try:
                    item = self.message(item, 0, len(item), child, ITEM_DEPTH)
                except Broken:
                    self.refused += 1
                    continue
                if not self.parses(item):
                    self.refused += 1
                    continue
            out += framed(tag, item)
        return bytes(out)

    def parses(self, item: bytes) -> bool:
        """Whether upb takes this item, at the depth that it has in a request."""
        try:
            self.parse(framed(0x0A, framed(0x12, framed(0x12, item))))
        except DecodeError:
            return False
        return True

    def message(self, data: bytes, start: int, end: int, shape: Shape, depth: int) -> bytes:
        """One message with its strings and its depth repaired."""
        out = bytearray()
        for one in fields(data, start, end):
            out += self.value(data, one, shape, depth)
        return bytes(out)

    def value(self, data: bytes, one: tuple[int, int, int, int], shape: Shape, depth: int) -> bytes:
        """One field (as `fields` yields it), repaired: its bytes with tag and length."""
        tag, begin, inner, stop = one
        if tag & 7 != 2:
            return data[begin:stop]
        number = tag >> 3
        if number in shape.strings:
            try:
                data[inner:stop].decode()
            except UnicodeDecodeError:
                self.repaired["utf8"] += 1
                return framed(tag, data[inner:stop].decode(errors="replace").encode())
            return data[begin:stop]
        child = shape.children.get(number)
        if child is None:
            return data[begin:stop]
        if shape.any and too_deep(number, depth):
            self.repaired["depth"] += 1
            return framed(0x0A, self.text(data[begin:stop]).encode())
        return framed(tag, self.message(data, inner, stop, child, depth + 1))


def too_deep(number: int, depth: int) -> bool:
    """Whether an AnyValue at this depth may not hold this list or map, because upb refuses it."""
    return depth + (2 if number == ARRAY_FIELD else 3) > DEEPEST


def encode_varint(number: int) -> bytes:
    """A number as the wire has it."""
    if number < 0x80:
        return number.to_bytes(1, "little")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def framed(tag: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return encode_varint(tag) + encode_varint(len(value)) + value
