"""
The typed tree of a query: frozen values that compare by meaning.

Offsets are kept for messages and take no part in comparisons, so that a tree that was printed and
parsed again equals the first one. A literal carries its type, because 1, 1.0 and true are equal in
Python and different in TraceQL. Intrinsics keep the spelling of the user (`duration` and
`span:duration`): labels and columns of an answer are called as they were written.
"""

import enum
from dataclasses import dataclass, field
from typing import Final


class Type(enum.StrEnum):
    """What a value is; ANY is an attribute, whose type only the data knows."""

    NIL = "nil"
    BOOL = "bool"
    STRING = "string"
    INT = "int"
    FLOAT = "float"
    DURATION = "duration"
    STATUS = "status"
    KIND = "kind"
    ANY = "any"


NUMERIC: Final = frozenset({Type.INT, Type.FLOAT, Type.DURATION})
STATUSES: Final = ("ok", "error", "unset")
KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")

INTRINSICS: Final = {
    "duration": Type.DURATION,
    "name": Type.STRING,
    "status": Type.STATUS,
    "statusMessage": Type.STRING,
    "kind": Type.KIND,
    "rootName": Type.STRING,
    "rootServiceName": Type.STRING,
    "traceDuration": Type.DURATION,
    "nestedSetLeft": Type.INT,
    "nestedSetRight": Type.INT,
    "nestedSetParent": Type.INT,
    "trace:duration": Type.DURATION,
    "trace:rootName": Type.STRING,
    "trace:rootService": Type.STRING,
    "trace:id": Type.STRING,
    "span:duration": Type.DURATION,
    "span:name": Type.STRING,
    "span:kind": Type.KIND,
    "span:status": Type.STATUS,
    "span:statusMessage": Type.STRING,
    "span:id": Type.STRING,
    "span:parentID": Type.STRING,
    "span:childCount": Type.INT,
    "event:name": Type.STRING,
    "event:timeSinceStart": Type.DURATION,
    "link:traceID": Type.STRING,
    "link:spanID": Type.STRING,
    "instrumentation:name": Type.STRING,
    "instrumentation:version": Type.STRING,
}
"""Every intrinsic with its type."""

SAME: Final = {
    "span:duration": "duration",
    "span:name": "name",
    "span:kind": "kind",
    "span:status": "status",
    "span:statusMessage": "statusMessage",
    "trace:duration": "traceDuration",
    "trace:rootName": "rootName",
    "trace:rootService": "rootServiceName",
}
"""Intrinsics with two spellings: the new one, and the old one that answers use."""


@dataclass(slots=True, frozen=True)
class Literal:
    """A value in the text; a duration is in nanoseconds, status and kind are their words."""

    type: Type
    value: str | int | float | bool | None
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Attribute:
    """An attribute; `scope` is None for the unscoped `.name`, `parent` is for `parent.name`."""

    scope: str | None
    name: str
    parent: bool = False
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Intrinsic:
    """A property that every span has, as it was written: a key of `INTRINSICS`."""

    name: str
    offset: int = field(default=0, compare=False, repr=False)

    @property
    def plain(self) -> str:
        """The old spelling where there are two."""
        return SAME.get(self.name, self.name)


@dataclass(slots=True, frozen=True)
class Unary:
    """`-operand` or `!operand`."""

    op: str
    operand: "Expression"
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Binary:
    """Two expressions and what joins them; the offset is the operator's."""

    op: str
    left: "Expression"
    right: "Expression"
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Aggregate:
    """`count()` or `avg|min|max|sum(expression)`, a number of a spanset."""

    name: str
    expression: "Expression | None" = None
    offset: int = field(default=0, compare=False, repr=False)


Expression = Literal | Attribute | Intrinsic | Unary | Binary | Aggregate
Field = Attribute | Intrinsic


@dataclass(slots=True, frozen=True)
class Filter:
    """`{ expression }`; None is `{ }`, which every span matches."""

    expression: Expression | None = None
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class SpansetOperation:
    """Two spansets joined by `&&`, `||` or a structural operator."""

    op: str
    left: "Spanset"
    right: "Spanset"
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Wrapped:
    """A pipeline in parentheses as an operand."""

    stages: tuple["Stage", ...]
    offset: int = field(default=0, compare=False, repr=False)


Spanset = Filter | SpansetOperation | Wrapped


@dataclass(slots=True, frozen=True)
class By:
    """`by(expression)`: one spanset per value."""

    expression: Expression
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Coalesce:
    """`coalesce()`: one spanset again."""

    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Select:
    """`select(fields)`: what the answer shows of each span."""

    fields: tuple[Field, ...]
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class ScalarFilter:
    """`count() > 2`: keeps the spansets for which the comparison of two numbers holds."""

    op: str
    left: Expression
    right: Expression
    offset: int = field(default=0, compare=False, repr=False)


Stage = Filter | SpansetOperation | Wrapped | By | Coalesce | Select | ScalarFilter

OVER_TIME: Final = ("min_over_time", "max_over_time", "avg_over_time", "sum_over_time")
FUNCTIONS: Final = (
    "rate",
    "count_over_time",
    *OVER_TIME,
    "quantile_over_time",
    "histogram_over_time",
)
"""The metrics functions but `compare`."""


@dataclass(slots=True, frozen=True)
class Metrics:
    """
    One metrics function.

    Args:
        function: a word of `FUNCTIONS`.
        measured: what is measured, None for `rate` and `count_over_time`.
        quantiles: of `quantile_over_time`, each from 0 to 1.
        by: one series for each combination of their values.
    """

    function: str
    measured: Field | None = None
    quantiles: tuple[float, ...] = ()
    by: tuple[Field, ...] = ()
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Compare:
    """`compare({selection}, top, start, end)`; times in nanoseconds, 0 for the whole range."""

    selection: Filter
    top: int = 10
    start_unix_nano: int = 0
    end_unix_nano: int = 0
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Rank:
    """`topk(n)` or `bottomk(n)`."""

    function: str
    count: int
    offset: int = field(default=0, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Query:
    """
    A whole query.

    Args:
        stages: the pipeline; the first one is a spanset.
        metrics: what is computed of the spans that come out, None for a search.
        ranks: what is kept of the series.
        hints: `with (name = value)`.
    """

    stages: tuple[Stage, ...]
    metrics: Metrics | Compare | None = None
    ranks: tuple[Rank, ...] = ()
    hints: tuple[tuple[str, Literal], ...] = ()
