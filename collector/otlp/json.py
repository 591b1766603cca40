"""
OTLP/JSON <-> the wire.

OTLP/JSON is not protobuf's JSON: trace and span ids are hex (the generic codec reads them as
base64 without an error), enums are integers, unknown members are ignored. It is read here with
`json` (whose hook sees duplicate members) and written straight to protobuf bytes, so that limits,
repair and parsing are the same for both encodings. Writing goes through `ListFields`, from which
plain objects are made for msgspec to encode.

The tables come from the descriptors, once at import. One record that cannot be converted is
refused alone; its neighbours are kept.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from google.protobuf.descriptor import Descriptor

from collector.errors import Malformed
from collector.otlp.json_values import (
    PACKED,
    WIDE,
    WIRE_KINDS,
    Kind,
    Wrong,
    plainer,
    read_float,
    reader,
    replaced,
    word,
)
from collector.otlp.repair import (
    ANY_VALUE,
    ITEM_DEPTH,
    TEXT_LIMIT,
    Limits,
    encode_varint,
    framed,
    over,
    too_deep,
)
from collector.otlp.wrong_signal import NAMED, check_names

KEY_VALUE: Final = "opentelemetry.proto.common.v1.KeyValue"
ITEM_FIELDS: Final = {"spans", "metrics", "log_records"}
SNAKE_NAMED: Final = 5
"""How many misspelt names a warning lists."""


@dataclass(slots=True)
class Member:
    """
    One member of a JSON object, which is one field of a message.

    Args:
        name: as JSON has it.
        tag: the field's number and wire type.
        repeated: a list.
        packed: a list of numbers, which the wire has in one field.
        scalar: the value as wire bytes without tag and length; None for messages.
        child: the members of a message.
        items: whether this list holds spans, metrics or log records.
        plain: a value of the message as JSON has it, for writing.
    """

    name: str
    tag: int
    repeated: bool
    packed: bool
    scalar: Callable[[Any], bytes] | None
    child: "Table | None"
    items: bool
    plain: Callable[[Any], Any]
    double: int = 0
    """Of an integer, the tag of the double that may stand in its place; 0 for none."""


@dataclass(slots=True)
class Table:
    """
    One message type.

    Args:
        name: its full name.
        members: by JSON name.
        writers: by field number.
        snake: the names that the proto files have, where JSON has another.
    """

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    writers: dict[int, Member] = field(default_factory=dict)
    snake: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Read:
    """
    What became of a JSON body.

    Args:
        data: the request as protobuf bytes.
        refused: why records were left out, and how many.
        repaired: what was repaired and how often, by kind.
        misspelt: names in snake_case, which OTLP/JSON ignores.
        unknown: the first few names of members that nothing is known of.
        listed: whether there was a list of spans, metrics or log records.
    """

    data: bytes = b""
    refused: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    misspelt: dict[str, None] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    listed: bool = False


def table(descriptor: Descriptor, known: dict[str, Table]) -> Table:
    """The table of a message type; `known` holds those made before, because types are recursive."""
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    made = known[descriptor.full_name] = Table(descriptor.full_name)
    for one in descriptor.fields:
        child = None if one.message_type is None else table(one.message_type, known)
        scalar = None if child is not None else reader(one)
        packed = one.is_repeated and one.type not in (Kind.TYPE_STRING, Kind.TYPE_BYTES)
        kind = 2 if packed else WIRE_KINDS.get(one.type, 0)
        member = Member(
            name=one.json_name,
            tag=one.number << 3 | kind,
            repeated=one.is_repeated,
            packed=packed and child is None,
            scalar=scalar,
            child=child,
            items=one.name in ITEM_FIELDS and one.is_repeated,
            plain=plainer(one) if child is None else functools.partial(plain, table=child),
        )
        oneof = () if one.containing_oneof is None else one.containing_oneof.fields
        if one.type in WIDE:
            tags = [each.number << 3 | 1 for each in oneof if each.type == Kind.TYPE_DOUBLE]
            member.double = tags[0] if tags else 0
        made.members[one.json_name] = member
        made.writers[one.number] = member
        if one.name != one.json_name:
            made.snake.add(one.name)
    return made


# --- reading: JSON -> wire ---


def no_constant(text: str) -> NoReturn:
    """Refuse a bare NaN or Infinity."""
    raise Malformed(f'bare {text} is no JSON; write "{text}"')


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; two members of one name are an error, because it is unknown which is meant."""
    made = dict(pairs)
    if len(made) != len(pairs):
        name = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise Malformed(f"duplicate JSON member {name[:100]!a}")
    return made


def objects(body: bytes, limits: Limits) -> int:
    """
    How many objects Python makes of a body at most, at the price of a glance.

    Raises:
        TooLarge: more than the limits allow.
    """
    # Bytes that can open an object or list, or separate two values: an upper bound that costs
    # nothing, before Python makes an object of 64 bytes from each "{}".
    opened = body.count(b"{") + body.count(b"[")
    values = body.count(b",")
    if opened > limits.elements or values > 2 * limits.elements:
        raise over("elements", limits.elements)
    return opened + values


def read(body: bytes, top: Table) -> Read:
    """
    A JSON body as protobuf bytes.

    Args:
        body: the decompressed body.
        top: the table of the request.

    Raises:
        Malformed: this is no JSON, or no OTLP request.
    """
    result = Read()
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode(errors="replace")
        result.repaired["utf8"] += 1
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise Malformed(
            f"the body is no JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise Malformed("the body is JSON that is nested too deeply") from error
    except ValueError as error:
        raise Malformed(f"the body is no JSON: {error}") from error
    del text
    if not isinstance(value, dict):
        raise Malformed(f"the body must be a JSON object, not {word(value)}")
    out = bytearray()
    try:
        _Reader(result).message(value, top, 0, out)
    except Wrong as error:
        raise Malformed(f"the body is no OTLP request: {error}") from error
    if not result.listed:
        check_names(next(iter(top.members)), [*result.misspelt, *result.unknown])
    result.data = bytes(out)
    return result


class _Reader:
    """One run of `read`."""

    def __init__(self, result: Read) -> None:
        self.result = result

    def message(self, value: dict[str, Any], table: Table, depth: int, out: bytearray) -> None:
        """Append the members of an object to `out`."""
        members = table.members
        for name, inner in value.items():
            if inner is None:
                continue
            member = members.get(name)
            if member is None:
                if name in table.snake:
                    self.result.misspelt[name] = None
                elif len(self.result.unknown) < NAMED:
                    self.result.unknown.append(name)
                continue
            if member.repeated:
                self.repeated(inner, member, depth, out)
            elif member.child is not None:
                if table.name == ANY_VALUE and too_deep(member.tag >> 3, depth):
                    self.result.repaired["depth"] += 1
                    out += framed(0x0A, as_text({name: inner}))
                    continue
                self.child(inner, member, depth, out)
            else:
                self.scalar(inner, member, out)

    def child(self, value: Any, member: Member, depth: int, out: bytearray) -> None:
        """Append one message."""
        if not isinstance(value, dict):
            raise Wrong(f"{member.name} must be an object, not {word(value)}")
        inner = bytearray()
        self.message(value, member.child, depth + 1, inner)  # type: ignore[arg-type]
        out += encode_varint(member.tag)
        out += encode_varint(len(inner))
        out += inner

    def repeated(self, values: Any, member: Member, depth: int, out: bytearray) -> None:
        """Append a list."""
        if not isinstance(values, list):
            raise Wrong(f"{member.name} must be a list, not {word(values)}")
        if member.child is not None:
            if member.items and depth == ITEM_DEPTH - 1:
                self.result.listed = True
                self.items(values, member, depth, out)
                return
            pairs = member.child.name == KEY_VALUE
            for value in values:
                if not (pairs and text_pair(value, member.tag, out)):
                    self.child(value, member, depth, out)
        elif member.packed:
            out += framed(member.tag, b"".join(self.scalar_bytes(one, member) for one in values))
        else:
            for value in values:
                self.scalar(value, member, out)

    def items(self, values: list[Any], member: Member, depth: int, out: bytearray) -> None:
        """Append spans, metrics or log records; one that is wrong is refused alone."""
        for value in values:
            before = len(out)
            try:
                self.child(value, member, depth, out)
            except Wrong as error:
                del out[before:]
                self.result.refused[str(error)] += 1

    def scalar(self, value: Any, member: Member, out: bytearray) -> None:
        """Append one value that is no message."""
        try:
            data = self.scalar_bytes(value, member)
        except Wrong:
            if not member.double or isinstance(value, bool):
                raise
            # JavaScript writes 1e21 and 2**63 as integers: no int64, but a number all the same.
            data = read_float(value, PACKED[Kind.TYPE_DOUBLE].pack)
            self.result.repaired["integer"] += 1
            out += encode_varint(member.double) + data
            return
        out += encode_varint(member.tag)
        if member.tag & 7 == 2:
            out += encode_varint(len(data))
        out += data

    def scalar_bytes(self, value: Any, member: Member) -> bytes:
        """The wire bytes of one value."""
        try:
            return member.scalar(value)  # type: ignore[misc]
        except UnicodeEncodeError:
            self.result.repaired["utf8"] += 1
            return replaced(value)
        except Wrong as error:
            raise Wrong(f"{member.name}: {error}") from error


def text_pair(value: Any, tag: int, out: bytearray) -> bool:
    """Append the commonest thing, a short attribute that is text; False when it is anything else."""
    try:
        (key_name, key), (value_name, inner) = value.items()
        ((kind, text),) = inner.items()
        if key_name != "key" or value_name != "value" or kind != "stringValue":
            return False
        name, data = key.encode(), text.encode()
    except (AttributeError, TypeError, ValueError):
        return False
    size = len(name) + len(data) + 6
    if tag > 0x7F or size > 0x7F or type(key) is not str or type(text) is not str:
        return False
    out += b"%c%c\n%c%b\x12%c\n%c%b" % (tag, size, len(name), name, len(data) + 2, len(data), data)
    return True


def as_text(value: Any) -> bytes:
    """The JSON of a value that is nested too deeply, cut at 4 KiB."""
    try:
        return json.dumps(value, separators=(",", ":"))[:TEXT_LIMIT].encode()
    except RecursionError:
        return b"[nested too deeply]"


# --- writing: message -> JSON ---


def plain(message: Any, table: Table) -> dict[str, Any]:
    """A message as a plain object whose JSON is OTLP/JSON; absent fields are absent."""
    if table.name == KEY_VALUE and not message.key_strindex:
        pair: dict[str, Any] = {"key": message.key}
        if message.HasField("value"):
            pair["value"] = plain_any(message.value, table.members["value"])
        return pair
    made = {}
    writers = table.writers
    for descriptor, value in message.ListFields():
        member = writers[descriptor.number]
        if member.repeated:
            made[member.name] = [member.plain(one) for one in value]
        else:
            made[member.name] = member.plain(value)
    return made


def plain_any(value: Any, member: Member) -> Any:
    """The same for an AnyValue: `WhichOneof` is quicker than the list of its one field."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    return member.plain(value)
