"""
One JSON value <-> one field of an OTLP message: what is special about OTLP/JSON is in here.

Ids are hex, other bytes base64, enums integers (names are taken too), 64-bit integers text or
numbers, and the doubles that JSON cannot say are text. `reader` and `plainer` choose a function per
field, once, from the descriptor.
"""

import base64
import binascii
import functools
import math
import re
import struct
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from collector.otlp.repair import encode_varint

HEX_IDS: Final = {"trace_id", "span_id", "parent_span_id"}
WRONG_ID: Final = b"\0"
"""Stands for an id that is no hex text: no id has this length, so the record is judged by it."""
SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,5})?")
INTEGER: Final = re.compile(r"-?[0-9]{1,20}")

Kind = FieldDescriptor
INTEGERS: Final = {
    Kind.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    Kind.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    Kind.TYPE_SFIXED32: (-(1 << 31), (1 << 31) - 1),
    Kind.TYPE_UINT32: (0, (1 << 32) - 1),
    Kind.TYPE_FIXED32: (0, (1 << 32) - 1),
    Kind.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    Kind.TYPE_SINT64: (-(1 << 63), (1 << 63) - 1),
    Kind.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    Kind.TYPE_UINT64: (0, (1 << 64) - 1),
    Kind.TYPE_FIXED64: (0, (1 << 64) - 1),
}
WIDE: Final = {
    Kind.TYPE_INT64,
    Kind.TYPE_SINT64,
    Kind.TYPE_SFIXED64,
    Kind.TYPE_UINT64,
    Kind.TYPE_FIXED64,
}
PACKED: Final = {
    Kind.TYPE_SFIXED32: struct.Struct("<i"),
    Kind.TYPE_FIXED32: struct.Struct("<I"),
    Kind.TYPE_SFIXED64: struct.Struct("<q"),
    Kind.TYPE_FIXED64: struct.Struct("<Q"),
    Kind.TYPE_DOUBLE: struct.Struct("<d"),
    Kind.TYPE_FLOAT: struct.Struct("<f"),
}
WIRE_KINDS: Final = {
    Kind.TYPE_SFIXED32: 5,
    Kind.TYPE_FIXED32: 5,
    Kind.TYPE_FLOAT: 5,
    Kind.TYPE_SFIXED64: 1,
    Kind.TYPE_FIXED64: 1,
    Kind.TYPE_DOUBLE: 1,
    Kind.TYPE_STRING: 2,
    Kind.TYPE_BYTES: 2,
    Kind.TYPE_MESSAGE: 2,
}


class Wrong(ValueError):
    """A member whose value does not fit; the record that holds it is refused."""


def word(value: Any) -> str:
    """What JSON calls the type of a value."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def reader(one: FieldDescriptor) -> Callable[[Any], bytes]:
    """The function that turns a JSON value of this field into wire bytes."""
    if one.type == Kind.TYPE_STRING:
        return read_string
    if one.type == Kind.TYPE_BYTES:
        if one.name in HEX_IDS:
            owner = one.full_name.split(".")[-2]
            wrong = WRONG_ID if owner in ("Span", "LogRecord") else b""
            return functools.partial(read_id, wrong=wrong)
        return read_bytes
    if one.type == Kind.TYPE_BOOL:
        return read_bool
    if one.enum_type is not None:
        numbers = {value.name: value.number for value in one.enum_type.values}
        return functools.partial(read_enum, numbers=numbers)
    if one.type in (Kind.TYPE_DOUBLE, Kind.TYPE_FLOAT):
        return functools.partial(read_float, pack=PACKED[one.type].pack)
    low, high = INTEGERS[one.type]
    if one.type in PACKED:
        write: Callable[[int], bytes] = PACKED[one.type].pack
    elif one.type in (Kind.TYPE_SINT32, Kind.TYPE_SINT64):
        write = zigzag
    else:
        write = signed_varint
    return functools.partial(read_int, low=low, high=high, write=write)


def read_string(value: Any) -> bytes:
    """A string; a lone surrogate raises UnicodeEncodeError."""
    if type(value) is not str:
        raise Wrong(f"expected a string, found {word(value)}")
    return value.encode()


def replaced(text: str) -> bytes:
    """UTF-8 of a text with lone surrogates, which become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def read_id(value: Any, wrong: bytes) -> bytes:
    """A trace or span id: hex in any case; anything else is `wrong`."""
    if type(value) is not str:
        raise Wrong(f"expected hex text, found {word(value)}")
    try:
        return binascii.unhexlify(value)
    except ValueError:
        return wrong


def read_bytes(value: Any) -> bytes:
    """Base64, the usual alphabet or the one for URLs, with or without padding."""
    if type(value) is not str:
        raise Wrong(f"expected base64 text, found {word(value)}")
    plain = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise Wrong("not base64") from error


def read_bool(value: Any) -> bytes:
    """True or false."""
    if type(value) is not bool:
        raise Wrong(f"expected a boolean, found {word(value)}")
    return b"\1" if value else b"\0"


def read_enum(value: Any, numbers: dict[str, int]) -> bytes:
    """An enum by number, as OTLP/JSON has it, or by name; a name of the future is 0, unspecified."""
    if type(value) is str and not INTEGER.fullmatch(value):
        return signed_varint(numbers.get(value, 0))
    low, high = INTEGERS[Kind.TYPE_INT32]
    return read_int(value, low, high, signed_varint)


def read_float(value: Any, pack: Callable[[float], bytes]) -> bytes:
    """A number, or its text, or "NaN", "Infinity", "-Infinity"."""
    if type(value) is str:
        if value in SPECIAL:
            value = SPECIAL[value]
        else:
            if not NUMBER.fullmatch(value):
                raise Wrong("expected a number")
            value = float(value)
    if type(value) not in (int, float):
        raise Wrong(f"expected a number, found {word(value)}")
    try:
        return pack(value)
    except OverflowError as error:
        raise Wrong("the number is out of range") from error


def read_int(value: Any, low: int, high: int, write: Callable[[int], bytes]) -> bytes:
    """An integer as number or text."""
    if type(value) is str:
        if not INTEGER.fullmatch(value):
            raise Wrong("expected an integer")
        value = int(value)
    elif type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise Wrong(f"expected an integer, found {word(value)}")
    if not low <= value <= high:
        raise Wrong("the integer is out of range")
    return write(value)


def signed_varint(number: int) -> bytes:
    """An integer; negative ones take ten bytes."""
    return encode_varint(number & 0xFFFFFFFFFFFFFFFF)


def zigzag(number: int) -> bytes:
    """A sint32 or sint64."""
    return encode_varint(number << 1 if number >= 0 else (-number << 1) - 1)


def plainer(one: FieldDescriptor) -> Callable[[Any], Any]:
    """The function that turns a field's value into what its JSON has."""
    if one.type == Kind.TYPE_BYTES:
        return bytes.hex if one.name in HEX_IDS else plain_bytes
    if one.type in WIDE:
        return str
    if one.type in (Kind.TYPE_DOUBLE, Kind.TYPE_FLOAT):
        return plain_float
    return same


def plain_bytes(value: bytes) -> str:
    """Base64."""
    return base64.b64encode(value).decode()


def plain_float(value: float) -> float | str:
    """A number, or the text of what JSON has no number for."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def same(value: Any) -> Any:
    """The value itself."""
    return value
