"""
The typed tree of a LogQL query.

Nodes are frozen and compare by value, so that "printing and parsing again gives the same tree" is
an equation. Positions are not part of a node: what can be wrong with a node is found while parsing,
where the place is known. Texts are kept as written by the user, without quotes and escapes; times
are whole nanoseconds.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MatchOp = Literal["=", "!=", "=~", "!~"]
LineOp = Literal["|=", "!=", "|~", "!~", "|>", "!>"]
CompareOp = Literal["==", "!=", ">", ">=", "<", "<="]
NumberKind = Literal["number", "duration", "size"]
BinaryOp = Literal[
    "+", "-", "*", "/", "%", "^", "==", "!=", ">", ">=", "<", "<=", "and", "or", "unless"
]

COMPARISONS: Final = frozenset({"==", "!=", ">", ">=", "<", "<="})
SETS: Final = frozenset({"and", "or", "unless"})


@dataclass(slots=True, frozen=True)
class Matcher:
    """`name op "value"`: in a selector, a label filter, behind `drop` and `keep`."""

    name: str
    op: MatchOp
    value: str


@dataclass(slots=True, frozen=True)
class LineFilter:
    """`|= "a" or "b"`; `ips` says which operands are `ip("...")`."""

    op: LineOp
    texts: tuple[str, ...]
    ips: tuple[bool, ...]


@dataclass(slots=True, frozen=True)
class Extraction:
    """`label="expression"` behind `json` or `logfmt`; a bare name is both."""

    label: str
    expression: str


@dataclass(slots=True, frozen=True)
class Json:
    """`| json`, everything, or only some `fields`."""

    fields: tuple[Extraction, ...] = ()


@dataclass(slots=True, frozen=True)
class Logfmt:
    """`| logfmt --strict --keep-empty`, everything, or only some `fields`."""

    strict: bool = False
    keep_empty: bool = False
    fields: tuple[Extraction, ...] = ()


@dataclass(slots=True, frozen=True)
class Regexp:
    """`| regexp "..."`: named groups become labels."""

    expression: str


@dataclass(slots=True, frozen=True)
class Pattern:
    """`| pattern "<ip> - <_>"`."""

    expression: str


@dataclass(slots=True, frozen=True)
class Unpack:
    """`| unpack`."""


@dataclass(slots=True, frozen=True)
class Decolorize:
    """`| decolorize`: ANSI colours go from the line."""


@dataclass(slots=True, frozen=True)
class LineFormat:
    """`| line_format "{{.a}}"`."""

    template: str


@dataclass(slots=True, frozen=True)
class Format:
    """One `name=other` (rename) or `name="template"` of `label_format`."""

    name: str
    value: str
    rename: bool


@dataclass(slots=True, frozen=True)
class LabelFormat:
    """`| label_format a=b, c="{{.d}}"`."""

    formats: tuple[Format, ...]


@dataclass(slots=True, frozen=True)
class Drop:
    """`| drop a, b="x"`."""

    items: tuple["str | Matcher", ...]


@dataclass(slots=True, frozen=True)
class Keep:
    """`| keep a, b="x"`."""

    items: tuple["str | Matcher", ...]


@dataclass(slots=True, frozen=True)
class NumberFilter:
    """`took >= 250ms`: `value` in the unit of its kind (a number, nanoseconds, bytes)."""

    name: str
    op: CompareOp
    value: float
    kind: NumberKind


@dataclass(slots=True, frozen=True)
class IpFilter:
    """`addr = ip("10.0.0.0/8")`."""

    name: str
    op: Literal["=", "!="]
    value: str


@dataclass(slots=True, frozen=True)
class Both:
    """Two label filters that must hold."""

    left: "LabelFilter"
    right: "LabelFilter"


@dataclass(slots=True, frozen=True)
class Either:
    """Two label filters of which one must hold."""

    left: "LabelFilter"
    right: "LabelFilter"


LabelFilter: TypeAlias = Matcher | NumberFilter | IpFilter | Both | Either
Stage: TypeAlias = (
    LineFilter
    | Json
    | Logfmt
    | Regexp
    | Pattern
    | Unpack
    | Decolorize
    | LineFormat
    | LabelFormat
    | Drop
    | Keep
    | LabelFilter
)


@dataclass(slots=True, frozen=True)
class LogQuery:
    """`{selector} stages`: lines."""

    matchers: tuple[Matcher, ...]
    stages: tuple[Stage, ...] = ()


@dataclass(slots=True, frozen=True)
class Unwrap:
    """`| unwrap convert(label) | filters`: the number of a sample."""

    label: str
    convert: Literal["", "duration", "duration_seconds", "bytes"] = ""
    filters: tuple[LabelFilter, ...] = ()


@dataclass(slots=True, frozen=True)
class LogRange:
    """`query | unwrap x [5m] offset 1m`: the samples of a window."""

    query: LogQuery
    window: int
    offset: int = 0
    unwrap: Unwrap | None = None


@dataclass(slots=True, frozen=True)
class Grouping:
    """`by (labels)` or `without (labels)`."""

    without: bool
    labels: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class RangeAggregation:
    """`op(parameter, window) grouping`; the parameter is that of `quantile_over_time`."""

    op: str
    window: LogRange
    parameter: float | None = None
    grouping: Grouping | None = None


@dataclass(slots=True, frozen=True)
class VectorAggregation:
    """`op grouping (parameter, of)`; the parameter is that of `topk` and `bottomk`."""

    op: str
    of: "Metric"
    parameter: int | None = None
    grouping: Grouping | None = None


@dataclass(slots=True, frozen=True)
class Matching:
    """`on (labels)` or `ignoring (labels)`, and `group_left (include)` or `group_right`."""

    on: bool
    labels: tuple[str, ...]
    group: Literal["", "left", "right"] = ""
    include: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Binary:
    """`left op [bool] [matching] right`."""

    op: BinaryOp
    left: "Metric"
    right: "Metric"
    returns_bool: bool = False
    matching: Matching | None = None


@dataclass(slots=True, frozen=True)
class Scalar:
    """A number."""

    value: float


@dataclass(slots=True, frozen=True)
class Vector:
    """`vector(n)`: a series without labels."""

    value: float


@dataclass(slots=True, frozen=True)
class LabelReplace:
    """`label_replace(of, "target", "replacement", "source", "regex")`."""

    of: "Metric"
    target: str
    replacement: str
    source: str
    expression: str


Metric: TypeAlias = RangeAggregation | VectorAggregation | Binary | Scalar | Vector | LabelReplace
Query: TypeAlias = LogQuery | Metric
