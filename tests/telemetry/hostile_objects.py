"""
Hostile objects: they break what code takes for granted.

That str() works, that len() is a number, that == answers, that a structure ends, that a value does
not log itself. Made anew for each call.
"""

import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import logging
import math
import os
import pathlib
import re
import sys
import threading
import types
import uuid
import weakref

import numpy as np
from opentelemetry import trace

import telemetry

OBJECTS = {}
STD = logging.getLogger("matrix.std")


def hostile(make):
    """Register a maker of a hostile object: a fresh one for each call."""
    OBJECTS[make.__name__] = make
    return make


class Boom(Exception):
    """What hostile methods raise."""


def boom(*_, **__):
    raise Boom("hostile")


def raising(*methods, base=object, **more):
    """An instance of a class whose `methods` raise."""
    return type("Raising", (base,), {**dict.fromkeys(methods, boom), **more})()


for method in [
    "__str__",
    "__repr__",
    "__len__",
    "__iter__",
    "__bool__",
    "__eq__",
    "__hash__",
    "__format__",
    "__int__",
    "__float__",
    "__index__",
    "__bytes__",
    "__contains__",
    "__getitem__",
    "__lt__",
    "__call__",
    "__dir__",
    "__enter__",
    "__reduce_ex__",
    "__array__",
    "__fspath__",
    "__dict__",
    "__class__",
    "__doc__",
    "__module__",
    "__sizeof__",
    "__await__",
    "keys",
    "items",
    "isoformat",
    "total_seconds",
    "tolist",
    "dtype",
    "shape",
    "__attrs_attrs__",
    "__dataclass_fields__",
    "__pydantic_fields__",
    "__struct_fields__",
    "_fields",
    "__traceback__",
    "__getattr__",
    "__getattribute__",
]:
    if method.startswith("__") and method.endswith("__") and "fields" not in method:
        OBJECTS[f"raises in {method}"] = functools.partial(raising, method)
    OBJECTS[f"property {method} raises"] = functools.partial(
        lambda name: type("Bad", (), {name: property(boom)})(), method
    )

TEXTY = ("__str__", "__repr__", "__format__")
OBJECTS["str subclass that raises"] = lambda: raising(*TEXTY, "__eq__", "__hash__", base=str)
OBJECTS["int subclass that raises"] = lambda: raising(*TEXTY, "__int__", "__index__", base=int)
OBJECTS["float subclass that raises"] = lambda: raising(*TEXTY, "__float__", base=float)
OBJECTS["dict subclass that raises"] = lambda: raising("items", "keys", "__iter__", base=dict)
OBJECTS["list subclass that raises"] = lambda: raising("__iter__", "__len__", base=list)
OBJECTS["bytes subclass that raises"] = lambda: raising("__bytes__", "__len__", base=bytes)
OBJECTS["exception whose str raises"] = lambda: raising("__str__", "__repr__", base=Exception)
OBJECTS["exception whose args lie"] = lambda: raising(
    base=ValueError, args=property(boom), __cause__=property(boom)
)


@hostile
def no_bool_no_eq():
    return raising("__bool__", "__eq__", "__hash__", "__len__", "__str__", "__repr__")


@hostile
def list_in_itself():
    it = []
    it.append(it)
    return it


@hostile
def dict_in_itself():
    it = {}
    it["me"] = it
    return it


@hostile
def cycle_of_three():
    a, b, c = [], {}, collections.deque()
    a.append(b)
    b["c"] = c
    c.append(a)
    return a


@hostile
def deep_list():
    it = []
    for _ in range(20_000):
        it = [it]
    return it


@hostile
def deep_dict():
    it = {}
    for _ in range(5_000):
        it = {"in": it}
    return it


@hostile
def wide_dict():
    return {f"key{number}": number for number in range(20_000)}


@hostile
def dict_with_odd_keys():
    return {None: 1, (1, 2): 2, math.nan: 3, b"x": 4, frozenset(): 5, "": 6, "a\0b": 7}


@hostile
def dict_with_raising_key():
    class Key:
        __str__ = __repr__ = boom

    return {Key(): 1}


@hostile
def ten_megabytes():
    return "x" * 10_000_000


@hostile
def a_megabyte_of_bytes():
    return b"\xff" * 1_000_000


@hostile
def lone_surrogate():
    return "a\ud800b\udfff"


@hostile
def control_characters():
    return "\x00\x07\x1b[31m\r\n\u2028\u202e"


@hostile
def format_bait():
    return "%s %d %(name)s %% {} {0.__class__} %"


@hostile
def generator():
    return (number for number in range(3))


@hostile
def infinite_generator():
    def forever():
        while True:
            yield 1

    return forever()


@hostile
def raising_generator():
    def broken():
        yield 1
        raise Boom

    return broken()


@hostile
def running_coroutine_function():
    async def work():
        return 1

    return work


@hostile
def closed_file():
    file = io.StringIO("x")
    file.close()
    return file


@hostile
def dead_weak_reference():
    class Thing:
        pass

    return weakref.proxy(Thing())


@hostile
def metaclass_that_raises():
    class Meta(type):
        __str__ = __repr__ = __eq__ = __len__ = __iter__ = __getattr__ = boom
        __hash__ = type.__hash__

    return Meta("Class", (), {})


@hostile
def instance_of_such_a_class():
    class Meta(type):
        __instancecheck__ = __subclasscheck__ = __repr__ = boom

        @property
        def __name__(cls):
            raise Boom

    return Meta("Class", (), {})()


@hostile
def claims_to_be_everything():
    class Liar:
        __class__ = property(lambda self: dict)
        __len__ = lambda self: -1  # noqa: E731 - a hostile class in one line
        __str__ = lambda self: 5  # noqa: E731

    return Liar()


@hostile
def length_is_huge():
    class Huge(collections.abc.Sequence):
        def __len__(self):
            return sys.maxsize

        def __getitem__(self, index):
            return index

    return Huge()


@hostile
def mapping_without_end():
    class Endless(collections.abc.Mapping):
        def __len__(self):
            return 1

        def __getitem__(self, key):
            return key

        def __iter__(self):
            number = 0
            while True:
                yield number
                number += 1

    return Endless()


@hostile
def new_attribute_each_time():
    class Hydra:
        def __getattr__(self, name):
            return type(self)()

    return Hydra()


@hostile
def str_that_logs_itself():
    class Chatty:
        def __str__(self):
            telemetry.get_logger("chatty").warning("me", me=self)
            return "chatty"

    return Chatty()


@hostile
def str_that_logs_itself_by_logging():
    class Chatty:
        def __str__(self):
            STD.warning("me %s", self, extra={"me": self})
            return "chatty"

    return Chatty()


@hostile
def str_that_tracks_itself():
    class Chatty:
        def __str__(self):
            telemetry.track("chatty.event", me=self)
            telemetry.audit("chatty.event", actor=self, me=self)
            return "chatty"

    return Chatty()


@hostile
def str_that_opens_spans_of_itself():
    class Chatty:
        def __str__(self):
            with telemetry.span("chatty", me=self) as current:
                current.set_attribute("again", self)
            return "chatty"

    return Chatty()


@hostile
def str_that_binds_itself():
    class Chatty:
        def __str__(self):
            with telemetry.log_context(me=self, tenant_id=self):
                telemetry.bind_context(user_id=self)
            return "chatty"

    return Chatty()


@hostile
def str_that_times_itself():
    class Chatty:
        def __str__(self):
            with telemetry.LogContext("chatty", me=self) as flow:
                flow.add_metric("me", self)
            return "chatty"

    return Chatty()


@hostile
def exception_with_itself_as_cause():
    error = ValueError("own cause")
    error.__cause__ = error.__context__ = error
    return error


@hostile
def exception_group():
    return ExceptionGroup("many", [ValueError(str(number)) for number in range(1000)])


@hostile
def exception_without_room():
    class Slotted(Exception):
        __slots__ = ()

        def __setattr__(self, name, value):
            raise Boom

    return Slotted("no room")


@hostile
def lying_exc_info():
    return (None, "not an exception", 5)


@hostile
def enum_that_raises():
    class Odd(enum.Enum):
        A = "a"

        __str__ = boom

        @property
        def value(self):
            raise Boom

    return Odd.A


for number, value in enumerate(
    (
        None,
        True,
        0,
        -1,
        2**63,
        -(2**63) - 1,
        10**5000,
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        1e308,
        1j,
        "",
        "\0",
        "a" * 257,
        b"",
        b"\xff\xfe",
        bytearray(b"x"),
        memoryview(b"xyz"),
        memoryview(np.arange(6).reshape(2, 3)),
        (),
        [],
        {},
        set(),
        frozenset({1, "a", None}),
        range(10**12),
        slice(1, 2),
        ...,
        NotImplemented,
        object(),
        object,
        type,
        len,
        sys,
        print,
        lambda: 1,
        decimal.Decimal("NaN"),
        decimal.Decimal("sNaN"),
        decimal.Decimal("1e999999"),
        fractions.Fraction(1, 3),
        dt.datetime.min.replace(tzinfo=dt.UTC),
        dt.datetime.max.replace(tzinfo=dt.UTC),
        dt.timedelta.max,
        dt.time(),
        uuid.UUID(int=0),
        pathlib.PurePath("a/b"),
        re.compile("(a+)+$"),
        types.SimpleNamespace(a=1),
        types.MappingProxyType({"a": 1}),
        collections.ChainMap({"a": 1}),
        collections.Counter("aab"),
        collections.defaultdict(list),
        threading.Lock(),
        logging.getLogger("hostile"),
        np.float32(1.5),
        np.float64("nan"),
        np.longdouble(1) / 3,
        np.int8(-1),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.complex64(1j),
        np.datetime64("NaT"),
        np.str_("a"),
        np.bytes_(b"a"),
        np.array(5),
        np.array([]),
        np.zeros((3, 4, 5)),
        np.zeros(1_000_000),
        np.array([object()]),
        np.array([{"a": 1}, None], dtype=object),
        np.ma.masked,
        np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        trace.INVALID_SPAN,
        trace.SpanKind.SERVER,
        os.environ,
        sys.stderr,
    )
):
    OBJECTS[f"{number}: {type(value).__name__}"] = functools.partial(lambda it: it, value)
