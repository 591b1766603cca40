"""
Tree -> text, with the parentheses that the precedence table needs and no others.

What comes out parses to an equal tree. Messages, labels of an answer and tests use it; a query that
was printed looks the way the reference writes it, with spaces around operators.
"""

from typing import Final

from collector.query.traceql.lexer import SCOPES, UNIT_NS
from collector.query.traceql.tree import (
    Aggregate,
    Attribute,
    Binary,
    By,
    Coalesce,
    Compare,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    Rank,
    ScalarFilter,
    Select,
    SpansetOperation,
    Stage,
    Type,
    Unary,
    Wrapped,
)

LOGICAL, COMPARISON, ADDITIVE, NOT, MULTIPLICATIVE, POWER = range(1, 7)
"""How tightly operators bind; `&&` and `||` stand on one level, left to right."""

BINARY: Final = {
    "&&": LOGICAL,
    "||": LOGICAL,
    **dict.fromkeys(("=", "!=", "<", "<=", ">", ">=", "=~", "!~"), COMPARISON),
    **dict.fromkeys(("+", "-"), ADDITIVE),
    **dict.fromkeys(("*", "/", "%"), MULTIPLICATIVE),
    "^": POWER,
}
"""Operators between expressions."""

STRUCTURAL: Final = tuple(
    prefix + op
    for prefix, ops in (("", ">> > << < ~"), ("!", ">> > << < ~"), ("&", ">> > << < ~"))
    for op in ops.split()
)
"""Operators between spansets that look at who is whose parent."""

SPANSET: Final = {
    "&&": LOGICAL,
    "||": LOGICAL,
    **dict.fromkeys(STRUCTURAL, COMPARISON),
}
"""Operators between spansets."""

_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN_STOPS: Final = frozenset('{}()=~!<>&|^,"\\')
_LEAF: Final = 7


def quoted(text: str) -> str:
    """A string as TraceQL writes it."""
    made = (
        _ESCAPES.get(char) or (char if char.isprintable() else f"\\U{ord(char):08x}")
        for char in text
    )
    return f'"{"".join(made)}"'


def duration(nanoseconds: int) -> str:
    """Nanoseconds as Go prints them: `1.5s`, `80ms`, `1h30m0s`, `0s`."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 1_000_000_000:
        for unit in ("ms", "µs", "ns"):
            if rest >= UNIT_NS[unit]:
                return f"{sign}{_decimal(rest, UNIT_NS[unit])}{unit}"
        return "0s"
    minutes, left = divmod(rest, UNIT_NS["m"])
    seconds = f"{_decimal(left, UNIT_NS['s'])}s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def literal(value: Literal) -> str:
    """A literal."""
    if value.type is Type.STRING:
        return quoted(str(value.value))
    if value.type is Type.DURATION and isinstance(value.value, int):
        return duration(value.value)
    if value.type is Type.BOOL:
        return "true" if value.value else "false"
    if value.type is Type.NIL:
        return "nil"
    return repr(value.value) if value.type in (Type.INT, Type.FLOAT) else str(value.value)


def attribute(found: Attribute) -> str:
    """An attribute with its scope, its name quoted where it must be."""
    name = found.name
    plain = name and not any(
        char in _PLAIN_STOPS or not char.isprintable() or char.isspace() for char in name
    )
    if found.scope is None:
        # `.5` would be a number, and `parent.span.x` the attribute x.
        plain = plain and name[0] not in "0123456789"
        plain = plain and not (found.parent and name.startswith(tuple(f"{s}." for s in SCOPES)))
    head = f"parent.{found.scope}." if found.parent and found.scope else f"{found.scope}."
    if found.scope is None:
        head = "parent." if found.parent else "."
    return head + (name if plain else quoted(name))


def expression(found: Expression) -> str:
    """An expression between braces or of scalars."""
    return _with_strength(found)[0]


def _with_strength(found: Expression) -> tuple[str, int]:
    """The text, and how tightly its loosest part binds."""
    match found:
        case Literal():
            text = literal(found)
            return text, ADDITIVE if text.startswith("-") else _LEAF
        case Attribute():
            return attribute(found), _LEAF
        case Intrinsic():
            return found.name, _LEAF
        case Aggregate():
            return (
                f"{found.name}({expression(found.expression) if found.expression else ''})",
                _LEAF,
            )
        case Unary():
            own = NOT if found.op == "!" else ADDITIVE
            text, strength = _with_strength(found.operand)
            # A bare number behind `-` would become a negative literal.
            bare = strength > own and not (found.op == "-" and isinstance(found.operand, Literal))
            return f"{found.op}{text}" if bare else f"{found.op}({text})", own
        case Binary():
            own = BINARY[found.op]
            left, left_strength = _with_strength(found.left)
            right, right_strength = _with_strength(found.right)
            if left_strength < own or (found.op == "^" and left_strength == own):
                left = f"({left})"
            prefixed = isinstance(found.right, Unary) or right.startswith("-")
            if (
                right_strength < own
                or (right_strength == own and found.op != "^")
                or (prefixed and own > COMPARISON)
            ):
                right = f"({right})"
            return f"{left} {found.op} {right}", own


def spanset(found: Filter | SpansetOperation | Wrapped) -> str:
    """A spanset: filters and what joins them."""
    match found:
        case Filter():
            return f"{{ {expression(found.expression)} }}" if found.expression else "{ }"
        case Wrapped():
            return f"({' | '.join(map(stage, found.stages))})"
        case SpansetOperation():
            own = SPANSET[found.op]
            left, right = spanset(found.left), spanset(found.right)
            if isinstance(found.left, SpansetOperation) and SPANSET[found.left.op] < own:
                left = f"({left})"
            if isinstance(found.right, SpansetOperation) and SPANSET[found.right.op] <= own:
                right = f"({right})"
            return f"{left} {found.op} {right}"


def stage(found: Stage) -> str:
    """One stage of a pipeline."""
    match found:
        case By():
            return f"by({expression(found.expression)})"
        case Coalesce():
            return "coalesce()"
        case Select():
            return f"select({', '.join(map(expression, found.fields))})"
        case ScalarFilter():
            return f"{expression(found.left)} {found.op} {expression(found.right)}"
    return spanset(found)


def metrics(found: Metrics | Compare) -> str:
    """A metrics function."""
    if isinstance(found, Compare):
        parts = [spanset(found.selection), str(found.top)]
        if found.start_unix_nano or found.end_unix_nano:
            parts += [str(found.start_unix_nano), str(found.end_unix_nano)]
        return f"compare({', '.join(parts)})"
    inside = [expression(found.measured)] if found.measured else []
    inside += [repr(number) for number in found.quantiles]
    by = f" by ({', '.join(map(expression, found.by))})" if found.by else ""
    return f"{found.function}({', '.join(inside)}){by}"


def query(found: Query) -> str:
    """A whole query."""
    parts = [*map(stage, found.stages)]
    if found.metrics is not None:
        parts.append(metrics(found.metrics))
    parts += [_rank(rank) for rank in found.ranks]
    text = " | ".join(parts)
    if found.hints:
        hints = ", ".join(f"{name} = {literal(value)}" for name, value in found.hints)
        text += f" with ({hints})"
    return text


def _rank(found: Rank) -> str:
    return f"{found.function}({found.count})"
