"""
The functions of templates: names and argument order as in Go's text/template and sprig.

Each takes plain values (text, int, float, bool, `Instant`, what `fromJson` reads) and returns one.
A `ValueError` or `TypeError` becomes the line's `TemplateFormatErr`. Results are bounded, so that
`repeat` of `repeat` cannot fill the memory.
"""

import json
import math
import re
import urllib.parse
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from collector.query.logql import regex, units

_LONGEST: Final = 256 * 1024
_ESCAPES: Final = re.compile(r"\\(.)")
_SIMPLE: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}
_VERB: Final = re.compile(r"%([-+ 0#]*)([0-9]{0,3})(?:\.([0-9]{1,2}))?([a-zA-Z%])")


class TemplateError(ValueError):
    """A template failed on one line."""


@dataclass(slots=True, frozen=True)
class Instant:
    """What `__timestamp__` is: nanoseconds since the epoch."""

    nanoseconds: int


def truthy(value: Any) -> bool:
    """Go's idea of true: not empty, not zero."""
    return bool(value)


def shown(value: Any) -> str:
    """A value as a template writes it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return units.print_number(value)
    if isinstance(value, Instant):
        return str(value.nanoseconds)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)[:_LONGEST]
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"
    return str(value)


def unescaped(written: str) -> str:
    """The value of a double-quoted literal inside a template."""

    def one(match: re.Match[str]) -> str:
        if match[1] not in _SIMPLE:
            raise ValueError(rf"the template has the escape \{match[1]}; it has \n \t \r \\ and \"")
        return _SIMPLE[match[1]]

    return _ESCAPES.sub(one, written[1:-1])


def _number(value: Any) -> float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    found = units.number(str(value))
    if found is None:
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return found


def _integer(value: object) -> int:
    """As sprig's `int`: what is no number is 0."""
    found = units.number(shown(value)) or 0.0
    return int(found) if abs(found) < 2**63 else 0


def _compare(left: Any, right: Any) -> int:
    """-1, 0 or 1; a text and a number never meet (Go refuses, and so do we)."""
    if isinstance(left, str) != isinstance(right, str):
        raise TypeError("incompatible types for comparison")
    return int(left > right) - int(left < right)


def _bounded(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError("the result is too long")
    return text


def _repeat(count: Any, text: Any) -> str:
    times = max(0, _integer(count))
    if times * max(1, len(shown(text))) > _LONGEST:
        raise ValueError("the result is too long")
    return shown(text) * times


def _substr(start: Any, end: Any, text: Any) -> str:
    first, last, whole = _integer(start), _integer(end), shown(text)
    if first < 0:
        return whole[: max(last, 0)]
    return whole[first:] if last < 0 or last > len(whole) else whole[first:last]


def _trunc(count: Any, text: Any) -> str:
    length, whole = _integer(count), shown(text)
    return whole[:length] if length >= 0 else whole[length:] if -length < len(whole) else whole


def _replaced(expression: Any, text: Any, replacement: Any, *, literal: bool) -> str:
    pattern = regex.compiled(shown(expression))
    given = shown(replacement)
    if literal:
        return _bounded(str(pattern.sub(lambda _: given, shown(text))))
    return _bounded(str(pattern.sub(lambda match: expanded(given, match), shown(text))))


_REFERENCE: Final = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+)|(\$))")


def expanded(replacement: str, match: Any) -> str:
    """A replacement with `$1`, `${name}` and `$$` filled in, as Go's `Expand` does."""

    def one(reference: re.Match[str]) -> str:
        if reference[3]:
            return "$"
        name = reference[1] or reference[2]
        try:
            found = match.group(int(name) if name.isdigit() else name)
        except (IndexError, KeyError):
            return ""
        return found or ""

    return _REFERENCE.sub(one, replacement)


def _printf(form: Any, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        dot = f".{precision}" if precision else ""
        if verb in "sv":
            return f"%{flags.replace('0', '')}{width}{dot}s" % shown(value)
        if verb == "q":
            return json.dumps(shown(value), ensure_ascii=False)
        if verb in "dxXo":
            return f"%{flags}{width}{verb}" % int(_number(value))
        if verb in "fFeEgG":
            return f"%{flags}{width}{dot}{verb}" % float(_number(value))
        if verb == "t":
            return shown(bool(value))
        raise ValueError(f"printf has no %{verb}")

    return _bounded(_VERB.sub(one, shown(form)))


def _duration(text: Any) -> float:
    found = units.duration(shown(text))
    if found is None:
        raise ValueError(f"{shown(text)[:40]!r} is no duration")
    return found / 1e9


def _bytes(text: Any) -> float:
    found = units.size(shown(text))
    if found is None:
        raise ValueError(f"{shown(text)[:40]!r} is no size")
    return float(found)


def _instant(value: Any) -> int:
    if not isinstance(value, Instant):
        raise TypeError("this needs a time: __timestamp__")
    return value.nanoseconds


def _whole(value: float) -> int:
    return int(value)


def _aligned(count: Any, text: Any, *, left: bool) -> str:
    width, whole = _integer(count), shown(text)
    if width > _LONGEST:
        raise ValueError("the result is too long")
    return (
        whole[:width]
        if len(whole) > width
        else (whole.rjust(width) if left else whole.ljust(width))
    )


def _default(other: Any, value: Any = "") -> Any:
    return value if truthy(value) else other


FUNCTIONS: Final[dict[str, tuple[int, int, Callable[..., Any]]]] = {
    # text
    "lower": (1, 1, lambda a: shown(a).lower()),
    "upper": (1, 1, lambda a: shown(a).upper()),
    "title": (1, 1, lambda a: re.sub(r"\b\w", lambda m: m[0].upper(), shown(a))),
    "ToLower": (1, 1, lambda a: shown(a).lower()),
    "ToUpper": (1, 1, lambda a: shown(a).upper()),
    "trim": (1, 1, lambda a: shown(a).strip()),
    "TrimSpace": (1, 1, lambda a: shown(a).strip()),
    "trimAll": (2, 2, lambda cut, a: shown(a).strip(shown(cut))),
    "trimPrefix": (2, 2, lambda cut, a: shown(a).removeprefix(shown(cut))),
    "trimSuffix": (2, 2, lambda cut, a: shown(a).removesuffix(shown(cut))),
    "replace": (3, 3, lambda old, new, a: _bounded(shown(a).replace(shown(old), shown(new)))),
    "contains": (2, 2, lambda part, a: shown(part) in shown(a)),
    "hasPrefix": (2, 2, lambda part, a: shown(a).startswith(shown(part))),
    "hasSuffix": (2, 2, lambda part, a: shown(a).endswith(shown(part))),
    "substr": (3, 3, _substr),
    "trunc": (2, 2, _trunc),
    "repeat": (2, 2, _repeat),
    "indent": (2, 2, lambda n, a: _bounded(re.sub("(?m)^", " " * min(_integer(n), 100), shown(a)))),
    "alignLeft": (2, 2, lambda n, a: _aligned(n, a, left=False)),
    "alignRight": (2, 2, lambda n, a: _aligned(n, a, left=True)),
    "regexReplaceAll": (3, 3, lambda e, a, r: _replaced(e, a, r, literal=False)),
    "regexReplaceAllLiteral": (3, 3, lambda e, a, r: _replaced(e, a, r, literal=True)),
    "count": (2, 2, lambda e, a: sum(1 for _ in regex.compiled(shown(e)).finditer(shown(a)))),
    "urlencode": (1, 1, lambda a: urllib.parse.quote_plus(shown(a))),
    "urldecode": (1, 1, lambda a: urllib.parse.unquote_plus(shown(a))),
    "b64enc": (1, 1, lambda a: b64encode(shown(a).encode()).decode()),
    "b64dec": (1, 1, lambda a: b64decode(shown(a), validate=True).decode(errors="replace")),
    "printf": (1, 16, _printf),
    "print": (0, 16, lambda *a: "".join(map(shown, a))),
    "default": (1, 2, _default),
    "fromJson": (1, 1, lambda a: json.loads(shown(a))),
    "index": (2, 2, lambda of, key: of[key if isinstance(of, Mapping) else _integer(key)]),
    "len": (1, 1, len),
    # numbers
    "int": (1, 1, _integer),
    "float64": (1, 1, lambda a: float(_number(a))),
    "add": (1, 16, lambda *a: sum(map(_integer, a))),
    "sub": (2, 2, lambda a, b: _integer(a) - _integer(b)),
    "mul": (2, 2, lambda a, b: _integer(a) * _integer(b)),
    "div": (2, 2, lambda a, b: int(_integer(a) / _integer(b))),
    "mod": (2, 2, lambda a, b: int(math.fmod(_integer(a), _integer(b)))),
    "addf": (1, 16, lambda *a: float(sum(map(_number, a)))),
    "subf": (2, 2, lambda a, b: float(_number(a) - _number(b))),
    "mulf": (2, 2, lambda a, b: float(_number(a) * _number(b))),
    "divf": (2, 2, lambda a, b: float(_number(a) / _number(b))),
    "round": (2, 2, lambda a, n: round(float(_number(a)), min(max(_integer(n), 0), 15))),
    "floor": (1, 1, lambda a: float(_number(a) // 1)),
    "ceil": (1, 1, lambda a: float(-(-_number(a) // 1))),
    "max": (1, 16, lambda *a: max(map(_integer, a))),
    "min": (1, 16, lambda *a: min(map(_integer, a))),
    "duration": (1, 1, _duration),
    "duration_seconds": (1, 1, _duration),
    "bytes": (1, 1, _bytes),
    # truth
    "eq": (2, 16, lambda a, *b: any(_compare(a, other) == 0 for other in b)),
    "ne": (2, 2, lambda a, b: _compare(a, b) != 0),
    "lt": (2, 2, lambda a, b: _compare(a, b) < 0),
    "le": (2, 2, lambda a, b: _compare(a, b) <= 0),
    "gt": (2, 2, lambda a, b: _compare(a, b) > 0),
    "ge": (2, 2, lambda a, b: _compare(a, b) >= 0),
    "not": (1, 1, lambda a: not truthy(a)),
    "and": (1, 16, lambda *a: next((one for one in a if not truthy(one)), a[-1])),
    "or": (1, 16, lambda *a: next((one for one in a if truthy(one)), a[-1])),
    # time
    "unixEpoch": (1, 1, lambda a: str(_whole(_instant(a) // 1_000_000_000))),
    "unixEpochMillis": (1, 1, lambda a: str(_instant(a) // 1_000_000)),
    "unixEpochNanos": (1, 1, lambda a: str(_instant(a))),
}
"""Name -> fewest arguments, most arguments, the function."""
