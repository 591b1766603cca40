"""
How much a request is, said on its bytes before anything is parsed.

Protobuf turns two bytes into a hundred (4 MiB of empty log records need 272 MiB), so a limit on
bytes is none on memory. `survey` walks the wire once, in the order of the bytes, and counts the
messages that a parser would have to make; it stops at the first count over its limit. From the
same walk comes whether anything is large enough to need `limits`, so that honest requests pay
for nothing else. The walk is in the native core (0.1 ms for a thousand spans); without a compiler,
and for the wire types that OTLP does not use, the functions here give the same answer.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from collector.errors import Malformed
from collector.model import Signal
from collector.otlp.repair import ANY_VALUE, Broken, Limits, Shape, over, skip, varint

DEEPEST: Final = 100
"""Messages inside messages that are looked into; no parser goes deeper."""
KEY_VALUE: Final = "opentelemetry.proto.common.v1.KeyValue"
DATA_FIELDS: Final = (5, 7, 9, 10, 11)
"""gauge, sum, histogram, exponential_histogram and summary of a Metric."""
REQUEST, GROUP, SCOPE, METRIC, DATA, INSIDE = range(6)
"""Where in the tree a message is."""


class Survey(NamedTuple):
    """
    What a request holds.

    Args:
        resources, scopes: groups of either kind.
        items: spans, metrics or log records.
        points: of all metrics.
        elements: messages of any kind.
        fields: that are no messages.
        largest: bytes of the largest span, log record, data point, resource or scope, or of a text
            beside them.
        attributes: the longest list of attributes, or entries of a map.
        key: bytes of the longest attribute name.
        value: bytes of the longest text, or bytes, in a value.
    """

    resources: int = 0
    scopes: int = 0
    items: int = 0
    points: int = 0
    elements: int = 0
    fields: int = 0
    largest: int = 0
    attributes: int = 0
    key: int = 0
    value: int = 0


class _Over(Exception):
    """A count is over its limit."""


def survey(signal: Signal, data: bytes, shape: Shape, limits: Limits) -> Survey:
    """
    Count what a request holds, and refuse one that holds too much.

    Args:
        signal: what the request is about.
        data: the request.
        shape: its shape.
        limits: what it may hold.

    Raises:
        TooLarge: more than the limits allow; the text names the limit.
        Malformed: the frame of the request is broken.
    """
    found = native(signal, data, shape, limits)
    if found is None:
        found = walked(signal, data, shape, limits)
    for what, amount, limit in (
        ("items", max(found.items, found.points), limits.items),
        ("resources", found.resources, limits.groups),
        ("scopes", found.scopes, limits.groups),
        ("elements", found.elements, limits.elements),
        ("fields", found.fields, 4 * limits.elements),
    ):
        if amount > limit:
            raise over(what, limit)
    return found


def walked(signal: Signal, data: bytes, shape: Shape, limits: Limits) -> Survey:
    """
    The survey in Python.

    Raises:
        Malformed: the frame of the request is broken.
    """
    walk = _Walk(signal is Signal.METRICS, data, limits)
    try:
        walk.message(0, len(data), shape, REQUEST, 0)
    except Broken as error:
        raise Malformed(f"the body is no protobuf message: {error}") from error
    except _Over:
        pass
    return Survey(*(getattr(walk, name) for name in Survey._fields))


class _Walk:
    """One run of the walk; `fields` of `repair` written out, because it sees every field."""

    def __init__(self, metrics: bool, data: bytes, limits: Limits) -> None:
        self.metrics = metrics
        self.data = data
        self.limits = limits
        self.resources = self.scopes = self.items = self.points = 0
        self.elements = self.fields = self.largest = self.attributes = self.key = self.value = 0

    def message(self, pos: int, end: int, shape: Shape, level: int, depth: int) -> None:
        """Walk over one message."""
        data, children = self.data, shape.children
        most_elements, most_fields = self.limits.elements, 4 * self.limits.elements
        attributes = 0
        while pos < end:
            tag = data[pos]
            if tag >= 0x80:
                tag, pos = varint(data, pos, end)
            else:
                pos += 1
            if tag < 8 or tag > 0xFFFFFFFF:
                raise Broken("a field without a number")
            if tag & 7 != 2:
                pos = skip(data, pos, end, tag)
                self.fields += 1
                if self.fields > most_fields:
                    raise _Over
                continue
            if pos < end and data[pos] < 0x80:
                size = data[pos]
                pos += 1
            else:
                size, pos = varint(data, pos, end)
            start = pos
            pos += size
            if pos > end:
                raise Broken("cut short")
            child = children.get(tag >> 3)
            if child is None:
                self.fields += 1
                if self.fields > most_fields:
                    raise _Over
                if shape.any:
                    if size > self.value and tag >> 3 in (1, 7):
                        self.value = size
                elif shape.name == KEY_VALUE:
                    if size > self.key and tag >> 3 == 1:
                        self.key = size
                elif level != INSIDE and size > self.largest:
                    self.largest = size
                continue
            self.elements += 1
            if self.elements > most_elements:
                raise _Over
            place = INSIDE if level == INSIDE else self.place(level, tag >> 3, size)
            if child.name == KEY_VALUE:
                attributes += 1
                self.attributes = max(self.attributes, attributes)
            if depth == DEEPEST or not size:
                continue
            try:
                self.message(start, pos, child, place, depth + 1)
            except Broken:
                # What is broken inside of an item is judged with that item: the frame is whole.
                if level > SCOPE or place in (GROUP, SCOPE):
                    raise

    def place(self, level: int, number: int, size: int) -> int:
        """Count a message that stands in the frame of the request; where in the tree it is."""
        limits = self.limits
        if (level, number) == (REQUEST, 1):
            self.resources += 1
            place, over = GROUP, self.resources > limits.groups
        elif (level, number) == (GROUP, 2):
            self.scopes += 1
            place, over = SCOPE, self.scopes > limits.groups
        elif (level, number) == (SCOPE, 2):
            self.items += 1
            place, over = METRIC if self.metrics else INSIDE, self.items > limits.items
        elif level == METRIC and number in DATA_FIELDS:
            place, over = DATA, False
        elif (level, number) == (DATA, 1):
            self.points += 1
            place, over = INSIDE, self.points > limits.items
        else:
            place, over = INSIDE, False
        if place == INSIDE and level not in (METRIC, REQUEST) and size > self.largest:
            self.largest = size
        if over:
            raise _Over
        return place


def _load() -> Any:
    if sys.byteorder != "little" or os.environ.get("OTELIER_PURE_PYTHON") == "1":
        return None
    try:
        core = importlib.import_module("collector._core")
    except ImportError:
        return None
    return core if hasattr(core, "survey") else None  # one that was compiled before it could


_CORE: Final = _load()
NATIVE: Final = _CORE is not None
"""Whether the native core is in use; `OTELIER_PURE_PYTHON=1` turns it off."""
_numbered: Final[dict[str, int]] = {}
_types: Final[list[tuple[int, list[tuple[int, int]]]]] = []
_compiled: Final[dict[str, Any]] = {}


def native(signal: Signal, data: bytes, shape: Shape, limits: Limits) -> Survey | None:
    """The survey by the native core; None when it cannot judge, or is not there."""
    if _CORE is None:
        return None
    shapes = _compiled.get(shape.name)
    if shapes is None:
        _number(shape)
        shapes = _compiled[shape.name] = _CORE.shapes(_types)
    count: Callable[..., tuple[int, ...] | None] = _CORE.survey
    found = count(
        shapes,
        _numbered[shape.name],
        signal is Signal.METRICS,
        data,
        limits.groups,
        limits.items,
        limits.elements,
    )
    return None if found is None else Survey(*found)


def _number(shape: Shape) -> None:
    """Give a message type, and those below it, a place in the core's table."""
    if shape.name in _numbered:
        return
    _numbered[shape.name] = len(_types)
    children: list[tuple[int, int]] = []
    _types.append((1 if shape.name == KEY_VALUE else 2 if shape.name == ANY_VALUE else 0, children))
    for number, child in shape.children.items():
        _number(child)
        children.append((number, _numbered[child.name]))
