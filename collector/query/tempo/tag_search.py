"""
`/api/search?tags=...`: the old search by tags, as a TraceQL tree.

`tags` is logfmt (`service.name=shop error=true`); a value is a part of the attribute's text, in any
case, and equals a number or a bool. Old clients send it; the tree goes the way of every query.
"""

import re
import shlex
from typing import Final

from collector.query.tempo.parameters import BadRequest, duration
from collector.query.traceql.check import check
from collector.query.traceql.tree import (
    KINDS,
    STATUSES,
    Attribute,
    Binary,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Query,
    Type,
)

MAX_TAGS: Final = 20
_NAMES: Final = {
    "name": "name",
    "root.name": "rootName",
    "root.service.name": "rootServiceName",
}
_META: Final = frozenset(r"\.+*?()|[]{}^$-")


def query(tags: str, least: str, most: str) -> Query:
    """
    The query that means the same.

    Args:
        tags: logfmt.
        least: the shortest trace, as a duration; empty for any.
        most: the longest.

    Raises:
        BadRequest: something in them is not understood.
    """
    parts = [_tag(key, value) for key, value in _pairs(tags)]
    for name, text, op in (("minDuration", least, ">="), ("maxDuration", most, "<=")):
        if text:
            nanoseconds = duration(text)
            if nanoseconds is None:
                raise BadRequest(f"{name}: write a duration such as 100ms")
            limit = Literal(Type.DURATION, nanoseconds)
            parts.append(Binary(op, Intrinsic("traceDuration"), limit))
    made: Expression | None = None
    for part in parts:
        made = part if made is None else Binary("&&", made, part)
    found = Query((Filter(made),))
    check(tags, found)
    return found


def _pairs(tags: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(tags[:8192])
    except ValueError:
        raise BadRequest("tags: a quote is not closed") from None
    if len(words) > MAX_TAGS:
        raise BadRequest(f"tags: more than {MAX_TAGS}")
    pairs = [word.partition("=") for word in words]
    if not all(key and middle for key, middle, _ in pairs):
        raise BadRequest("tags: write key=value, several with spaces between them")
    return [(key, value) for key, _, value in pairs]


def _tag(key: str, value: str) -> Expression:
    if key in ("status", "status.code") and value.lower() in STATUSES:
        return Binary("=", Intrinsic("status"), Literal(Type.STATUS, value.lower()))
    if key == "kind" and value.lower() in KINDS:
        return Binary("=", Intrinsic("kind"), Literal(Type.KIND, value.lower()))
    if key == "error" and value in ("true", "false"):
        op = "=" if value == "true" else "!="
        return Binary(op, Intrinsic("status"), Literal(Type.STATUS, "error"))
    field = Intrinsic(_NAMES[key]) if key in _NAMES else Attribute(None, key)
    pattern = "".join(f"\\{char}" if char in _META else char for char in value)
    made: Expression = Binary("=~", field, Literal(Type.STRING, f"(?is).*{pattern}.*"))
    other: Literal | None = None
    if re.fullmatch(r"-?[0-9]{1,18}", value):
        other = Literal(Type.INT, int(value))
    elif re.fullmatch(r"-?[0-9]{1,18}\.[0-9]{1,18}", value):
        other = Literal(Type.FLOAT, float(value))
    elif value in ("true", "false"):
        other = Literal(Type.BOOL, value == "true")
    if other is None or isinstance(field, Intrinsic):
        return made
    return Binary("||", made, Binary("=", field, other))
