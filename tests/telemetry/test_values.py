"""Any Python value becomes a bounded attribute value, and none raises."""

import dataclasses
import datetime as dt
import decimal
import enum
import io
import math
import pathlib
import uuid
from collections import OrderedDict, deque
from typing import NamedTuple

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_value

from telemetry import _values


class Raising:
    def __str__(self):
        raise RuntimeError("str")

    def __repr__(self):
        raise RuntimeError("repr")

    def __len__(self):
        raise RuntimeError("len")

    def __iter__(self):
        raise RuntimeError("iter")

    def __bool__(self):
        raise RuntimeError("bool")


class RaisingError(Exception):
    def __str__(self):
        raise RuntimeError("str")


class RaisingList(list):
    def __len__(self):
        raise RuntimeError("len")

    def __iter__(self):
        raise RuntimeError("iter")


class RaisingDict(dict):
    def items(self):
        raise RuntimeError("items")


class RaisingAttribute:
    def __getattr__(self, name):
        raise RuntimeError(name)


class EndlessSequence(list):
    def __iter__(self):
        while True:
            yield 1


class EvilText(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("str")

    def __len__(self):
        raise RuntimeError("len")


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


@dataclasses.dataclass
class Point:
    x: float
    y: object


class Model(pydantic.BaseModel):
    name: str
    score: float


class Struct(msgspec.Struct):
    a: int


class Pair(NamedTuple):
    left: int
    right: str


CYCLE: list = []
CYCLE.append(CYCLE)
CYCLIC_DICT: dict = {}
CYCLIC_DICT["self"] = CYCLIC_DICT
CLOSED = io.StringIO()
CLOSED.close()
DEEP: object = "bottom"
for _ in range(10_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (0.5, 0.5),
        ("text", "text"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (10**5000, "<integer of 16610 bits>"),
        (math.inf, math.inf),
        (decimal.Decimal("1.50"), 1.5),
        (decimal.Decimal(12), 12),
        (decimal.Decimal("1e400"), math.inf),
        (np.float32(0.5), 0.5),
        (np.float64(0.25), 0.25),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(4.5), 4.5),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.0], [2.0]]), [[1.0], [2.0]]),
        (np.zeros((100, 100)), [0.0] * 128),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00+00:00"),
        (dt.timedelta(minutes=1.5), 90.0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Point(1.0, [2]), {"x": 1.0, "y": [2]}),
        (Model(name="m", score=0.5), {"name": "m", "score": 0.5}),
        (Struct(a=1), {"a": 1}),
        (Pair(1, "b"), {"left": 1, "right": "b"}),
        ({1}, [1]),
        (deque([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "one", None: 2}, {"1": "one", "None": 2}),
        (ValueError("bad"), "ValueError: bad"),
        (RaisingError(), "<unprintable RaisingError>"),
        (Raising(), "<unprintable Raising>"),
        ([1, Raising()], [1, "<unprintable Raising>"]),
        (RaisingList([1]), "<unprintable RaisingList>"),
        (RaisingDict(a=1), "<unprintable RaisingDict>"),
        (EvilText("evil"), "evil"),
        (EndlessSequence(), [1] * 128),
        (CYCLE, ["<cycle>"]),
        (CYCLIC_DICT, {"self": "<cycle>"}),
        (dict.fromkeys(range(500), 0), dict.fromkeys(map(str, range(128)), 0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_value_has_one_shape(value, expected):
    """Numbers stay numbers, structures stay structures, and what is broken is named."""
    cleaned = _values.clean(value)
    assert cleaned == expected
    assert type(cleaned) is type(expected)


def test_nan_stays_a_number():
    """A score that is not a number is still a float on the wire."""
    assert math.isnan(_values.clean(float("nan")))


def test_an_array_of_another_type_keeps_its_numbers():
    """Everything that numpy calls a number arrives as int or float."""
    for kind in ("int8", "uint16", "int32", "float16", "float32", "longdouble"):
        assert _values.clean({"scores": np.array([1, 2], dtype=kind)}) == {"scores": [1, 2]}


def test_long_text_is_cut_with_a_mark():
    """A 10 MB text becomes 16 KiB that say how long it was."""
    mark = "... [cut from 10000000 characters]"
    assert _values.clean("x" * 10_000_000) == "x" * (16 * 1024 - len(mark)) + mark


@pytest.mark.parametrize(
    "value", [DEEP, [[["x" * 100] * 128] * 128] * 128, {"a": DEEP}], ids=["deep", "wide", "both"]
)
def test_depth_and_size_are_bounded(value):
    """Deep and wide structures cost little: the whole is bounded, not only each level."""
    assert _values.weigh(_values.clean(value)) < 200_000


def test_an_iterator_is_not_consumed():
    """A generator belongs to the application: logging it takes nothing out of it."""
    numbers = (number for number in range(3))
    assert str(_values.clean(numbers)).startswith("<generator object")
    assert list(numbers) == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [CLOSED, RaisingAttribute(), object(), lambda: 1, type, Raising],
    ids=lambda value: type(value).__name__,
)
def test_other_objects_become_text(value):
    """What has no better shape arrives as its text."""
    assert type(_values.clean(value)) is str


def test_an_exception_is_told_in_full():
    """Type, message and traceback, with the module for those that are not builtins."""
    try:
        raise decimal.InvalidOperation("no")
    except decimal.InvalidOperation as error:
        kind, message, stack = _values.exception(error)
    assert (kind, message) == ("decimal.InvalidOperation", "no")
    assert stack.endswith("decimal.InvalidOperation: no\n")
    assert _values.exception(RaisingError())[1] == "<unprintable RaisingError>"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.builds(Raising)
    | st.builds(RaisingError),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner)
    ),
    max_leaves=50,
)


@settings(deadline=None)
@given(ANYTHING)
def test_everything_can_be_encoded(value):
    """Whatever comes in, OpenTelemetry's own encoder takes what comes out."""
    _encode_value(_values.clean(value)).SerializeToString()
