"""
The fields that lines have: structured metadata, and what `json` or `logfmt` would find in them.

A sample of lines is looked at, the newest ones. A line that begins like a JSON object is parsed as
one, any other as logfmt; what is a stream label already is left out. The type of a field is what
all its values are, text when they differ.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from collector.query.logql import tree, units
from collector.query.logql.evaluation import extract
from collector.query.logql.evaluation.line import DETAILS, ERROR, Line

MAX_FIELDS: Final = 1000
MAX_VALUES: Final = 1000
_json: Final = extract.parser(tree.Json())
_logfmt: Final = extract.parser(tree.Logfmt())


@dataclass(slots=True)
class Field:
    """
    One field of the sample.

    Args:
        parser: that finds it, "" for structured metadata and what the query itself parsed.
        values: that it has, at most `MAX_VALUES`.
    """

    parser: str
    values: set[str] = field(default_factory=set)


def fields(lines: Iterable[Line], limit: int = MAX_FIELDS) -> dict[str, Field]:
    """
    The fields of lines by name.

    Args:
        lines: the sample.
        limit: of fields.
    """
    found: dict[str, Field] = {}
    for line in lines:
        for name, value in {**line.metadata, **line.parsed}.items():
            _see(found, name, value, "", limit)
        taken = set(line.parsed) | set(line.metadata) | set(line.stream)
        is_json = line.text.lstrip().startswith("{")
        parse = _json if is_json else _logfmt
        if parse is None:
            continue
        before = dict(line.parsed)
        line.parsed = {}
        parse(line)
        for name, value in line.parsed.items():
            if name not in taken:
                _see(found, name, value, "json" if is_json else "logfmt", limit)
        line.parsed = before
    return found


def _see(found: dict[str, Field], name: str, value: str, parser: str, limit: int) -> None:
    if name in (ERROR, DETAILS):
        return
    one = found.get(name)
    if one is None:
        if len(found) >= limit:
            return
        one = found[name] = Field(parser)
    if len(one.values) < MAX_VALUES:
        one.values.add(value)


def described(found: dict[str, Field]) -> list[dict[str, Any]]:
    """What `detected_fields` says, sorted by name."""
    return [
        {
            "label": name,
            "type": kind(one.values),
            "cardinality": len(one.values),
            "parsers": [one.parser] if one.parser else None,
            **({"jsonPath": [name]} if one.parser == "json" else {}),
        }
        for name, one in sorted(found.items())
    ]


def kind(values: Iterable[str]) -> str:
    """The type of a field: the narrowest one that all its values have."""
    found = list(values)
    for word, reads in _KINDS:
        if all(map(reads, found)):
            return word
    return "string"


def _is_integer(text: str) -> bool:
    return text.lstrip("+-").isdigit() and text.isascii()


_KINDS: Final[tuple[tuple[str, Callable[[str], bool]], ...]] = (
    ("int", _is_integer),
    ("float", lambda text: units.number(text) is not None),
    ("boolean", lambda text: text in ("true", "false")),
    ("duration", lambda text: units.duration(text) is not None),
    ("bytes", lambda text: units.size(text) is not None),
)
