"""
Any Python value -> a bounded attribute value. Cannot raise, cannot grow, cannot change the value.

`clean` turns what applications put into log fields into what OTLP can carry: str, bool, int,
float, bytes, None, lists and string-keyed dicts of these. Numbers stay numbers (numpy scalars,
Decimal, IntEnum), because scores that arrive as text cannot be compared. Bounds are on depth,
number of values and length of text, so that one careless `logger.info(order=everything)` costs
little. Iterators are never consumed: they belong to the application.

Everything runs under one guard, since `__str__`, `__len__`, `__iter__` and properties are the
application's code. numpy is recognised by shape and never imported.
"""

import dataclasses
import datetime as dt
import enum
import itertools
import math
import os
import re
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, Final, TypeGuard, TypeVar

from telemetry._attribute_loops import estimated_bytes
from telemetry._native import core

T = TypeVar("T")
Value = str | bool | int | float | bytes | None | Sequence["Value"] | Mapping[str, "Value"]
"""What OTLP can carry as an attribute value."""

DEPTH: Final = 8
ITEMS: Final = 128
NODES: Final = 1024
TEXT: Final = 16 * 1024
ID_TEXT: Final = 256
BODY_TEXT: Final = 64 * 1024
STACK_TEXT: Final = 32 * 1024

NESTED: Final = 2
"""So deep may conversions be inside of each other, where a value's own `__str__` asks for one."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_INT64 = 2**63
_SMALL: Final = frozenset((int, float, bool, type(None)))
_COPIED: Final = frozenset((dict, list, tuple))
_copied: Final[Callable[[object], Any] | None] = getattr(core, "copied", None)
_CONTAINERS = (list, tuple, set, frozenset, deque, range, Sequence, AbstractSet)


def text(value: object, limit: int = TEXT) -> str:
    """`value` as text of at most `limit` characters that UTF-8 can carry."""
    if type(value) is str and len(value) <= limit and value.isascii():
        return value
    try:
        whole = str.__str__(value) if isinstance(value, str) else nested(str, value)
        return bounded(whole, limit)
    except Exception:
        return unprintable(value)


class Recursion(threading.local):
    """
    How deep this thread is inside of itself.

    A value's own `__str__` may log, track or time the value, and so ask for its text again: what
    calls the application's code counts its depth here, and stops.
    """

    depth = 0


_recursion = Recursion()


def nested(call: Callable[..., T], *args: Any) -> T:
    """Let the application's code say something about a value; raises what it raises."""
    if _recursion.depth >= NESTED:
        raise RecursionError("a value that asks what it says before it has said it")
    _recursion.depth += 1
    try:
        return call(*args)
    finally:
        _recursion.depth -= 1


def bounded(whole: str, limit: int = TEXT) -> str:
    """The first `limit` characters, with a mark when something was cut; no lone surrogates."""
    if len(whole) > limit:
        mark = f"... [cut from {len(whole)} characters]"
        whole = whole[: max(limit - len(mark), 0)] + mark
    if not whole.isascii():
        whole = _SURROGATES.sub("\ufffd", whole)
    return whole


def is_a(value: object, kind: type[T]) -> TypeGuard[T]:
    """`isinstance`, also for values whose `__class__` raises."""
    try:
        return isinstance(value, kind)
    except Exception:
        return False


def seconds(value: object, default: float) -> float:
    """`value` as a time to wait: a finite number, not below 0; the default for what is none."""
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is caught
    except Exception:
        return default
    return min(max(number, 0.0), 1e6) if number == number else default  # noqa: PLR0124 - NaN


def whole(given: object) -> int | None:
    """A count, 0 or more, or None: numpy and Decimal will do, and a float that is whole."""
    value = clean(given)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value) or value < 0 or value != int(value):
        return None
    return int(value)


def money(given: object) -> Decimal | None:
    """An amount of money, 0 or more, exact where it came exact; else None."""
    value = given if type(given) is Decimal else clean(given)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    money = value if isinstance(value, Decimal) else Decimal(str(value))
    return money if money.is_finite() and money >= 0 else None


def unprintable(value: object) -> str:
    """What is said about a value whose own `__str__` fails."""
    return f"<unprintable {type(value).__name__}>"


def clean(value: object) -> Value:
    """`value` as an attribute value, whatever it is."""
    kind = type(value)
    if kind is str:
        return bounded(value)  # type: ignore[arg-type]  # `kind` says that it is a str
    if kind is bool or kind is float or value is None:
        return value  # type: ignore[return-value]  # `kind` says that it is one of the three
    if kind is int and -_INT64 <= value < _INT64:  # type: ignore[operator]  # as above
        return value  # type: ignore[return-value]  # as above
    if _copied is not None and kind in _COPIED:
        own: Value = _copied(value)
        if own is not None:
            return own
    try:
        return nested(_clean, value, DEPTH, [NODES], set())
    except Exception:
        return unprintable(value)


def fields(mapping: Mapping[str, object]) -> dict[str, Value]:
    """A mapping of attributes, each value cleaned, at most `ITEMS` of them."""
    result: dict[str, Value] = {}
    for key, value in itertools.islice(mapping.items(), ITEMS):
        result[key if type(key) is str else text(key, ID_TEXT)] = clean(value)
    return result


def exception(error: BaseException) -> tuple[str, str, str]:
    """Type, message and rendered traceback of an exception, all bounded."""
    kind = type(error)
    module = kind.__module__
    name = (
        kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
    )
    try:
        stack = "".join(nested(traceback.format_exception, error))
        if len(stack) > STACK_TEXT:
            half = STACK_TEXT // 2
            stack = f"{stack[:half]}\n... [cut from {len(stack)} characters]\n{stack[-half:]}"
        stack = bounded(stack, STACK_TEXT * 2)
    except Exception:
        stack = unprintable(error)
    return name, text(error), stack


def weigh(value: object) -> int:
    """About how many bytes `value` takes on the wire; cheap, never exact."""
    kind = type(value)
    if kind is dict:
        return estimated_bytes(value, weigh)  # type: ignore[arg-type]  # `kind` says that it is a dict
    if kind in _SMALL:
        return 12
    if isinstance(value, (str, bytes)):
        return len(value) + 8
    if isinstance(value, (list, tuple)):
        return 8 + sum(map(weigh, value))
    if isinstance(value, Mapping):
        return weigh(dict(value))
    return 12


def _clean(value: Any, depth: int, nodes: list[int], above: set[int]) -> Value:
    nodes[0] -= 1
    if nodes[0] < 0:
        return "..."
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return bounded(str.__str__(value))
    if isinstance(value, int):
        return _whole(int(value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(memoryview(value)[:TEXT])
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, (uuid.UUID, os.PathLike)):
        return bounded(str(value))
    if isinstance(value, BaseException):
        return bounded(f"{type(value).__name__}: {value}")
    return _structure(value, depth, nodes, above)


def _structure(value: Any, depth: int, nodes: list[int], above: set[int]) -> Value:
    """Arrays, containers and objects with fields; everything else as text."""
    if id(value) in above:
        return "<cycle>"
    if depth <= 0:
        return bounded(f"<{type(value).__name__}>")
    above.add(id(value))
    try:
        array = _array(value)
        if array is not None:
            return _clean(array[0], depth, nodes, above)
        pairs = _pairs(value)
        if pairs is not None:
            return {
                text(key, ID_TEXT): _clean_guarded(inner, depth - 1, nodes, above)
                for key, inner in itertools.islice(pairs, min(ITEMS, max(nodes[0], 0)))
            }
        if isinstance(value, _CONTAINERS):
            inners = itertools.islice(value, min(ITEMS, max(nodes[0], 0)))
            return [_clean_guarded(inner, depth - 1, nodes, above) for inner in inners]
    finally:
        above.discard(id(value))
    return bounded(str(value))


def _clean_guarded(value: Any, depth: int, nodes: list[int], above: set[int]) -> Value:
    """One bad element does not take its neighbours along."""
    try:
        return _clean(value, depth, nodes, above)
    except Exception:
        return unprintable(value)


def _array(value: Any) -> tuple[Any] | None:
    """The plain Python values of a numpy scalar or array, in a 1-tuple because None is a value."""
    kind = type(value)
    if not (hasattr(kind, "dtype") and hasattr(kind, "tolist") and hasattr(kind, "shape")):
        return None
    if value.shape == ():
        item = value.item()
        # longdouble has no Python twin: its item() is a numpy scalar again
        return (float(item),) if hasattr(type(item), "dtype") else (item,)
    if math.prod(value.shape) > ITEMS:
        return (value.reshape(-1)[:ITEMS].tolist(),)
    return (value.tolist(),)


def _pairs(value: Any) -> Any:
    """An iterator over (name, value) of a mapping or an object with declared fields, else None."""
    if isinstance(value, Mapping):
        return iter(value.items())
    kind = type(value)
    if isinstance(value, type):
        return None
    names: Any = None
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        # pydantic models, msgspec structs, attrs classes and named tuples, without importing them
        for declared in ("__pydantic_fields__", "__struct_fields__", "_fields"):
            names = getattr(kind, declared, None)
            if names is not None:
                break
        else:
            attrs = getattr(kind, "__attrs_attrs__", None)
            names = None if attrs is None else [attribute.name for attribute in attrs]
    if names is None:
        return None
    return ((name, getattr(value, name, None)) for name in names)


def _whole(value: int) -> Value:
    if -_INT64 <= value < _INT64:
        return value
    if value.bit_length() > 4096:
        return f"<integer of {value.bit_length()} bits>"
    return str(value)


def _decimal(value: Decimal) -> Value:
    if value.is_finite() and value.adjusted() < 19 and value == value.to_integral_value():
        return _whole(int(value))
    return float(value)
