"""
Names and values of attributes, for the editor's suggestions.

They are read from the newest spans of the range, at most `SPANS` of them and `SECONDS` long: an
incomplete list in time helps, a complete one too late does not. What the user has typed so far
narrows the values down as far as it can be understood.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any, Final

from collector.query.tempo.candidates import Bounds, Reader
from collector.query.tempo.parameters import Range
from collector.query.tempo.values import any_value
from collector.query.traceql.errors import ParseError
from collector.query.traceql.lexer import SCOPES, tokens
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import Plan, plan
from collector.query.traceql.tree import KINDS, STATUSES, Attribute, Filter, Intrinsic, Query
from collector.query.traceql.values import Each, Value, reader
from collector.query.traceql.view import Document, Span
from collector.stores.base import Store
from telemetry.attributes import CONTEXT

SPANS: Final = 20_000
SECONDS: Final = 3.0
MAX_VALUES: Final = 1000
"""Values or names of one list."""
MAX_TEXT: Final = 1024
"""Characters of a value; longer ones are no suggestions."""

ORDER: Final = ("resource", "span", "event", "link", "instrumentation")
INTRINSICS: Final = (
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
)
_LISTED: Final = (
    "name",
    "statusMessage",
    "event:name",
    "instrumentation:name",
    "instrumentation:version",
)
_OF_ROOTS: Final = {"rootName": "name", "rootServiceName": "resource.service.name"}
_ATTRIBUTE_OF: Final = {key: name for name, key in CONTEXT.items()}
_EMPTY: Final[Document] = {}


def bounds() -> Bounds:
    """Of one list."""
    return Bounds(spans=SPANS, seconds=SECONDS)


async def scopes(
    store: Store, asked: Range, *, scope: str, text: str, limit: int
) -> dict[str, list[str]]:
    """
    Names of attributes.

    Args:
        store: where the spans are.
        asked: when they started.
        scope: only this one; empty for all.
        text: a query that narrows them down, as far as it is understood.
        limit: the most names of a scope.

    Returns:
        Sorted names by scope, without scopes that have none.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    if scope != "intrinsic":
        await _look(store, lenient(text), asked, lambda span: _names(span.document, found))
    made = {key: sorted(found[key])[:limit] for key in ORDER if found[key]}
    made["intrinsic"] = [*INTRINSICS]
    return {key: names for key, names in made.items() if scope in ("", "none", "all", key)}


def _names(document: Document, found: defaultdict[str, set[str]]) -> None:
    found["resource"].update(document.get("resource", _EMPTY))
    attributes = document.get("attributes", _EMPTY)
    found["span"].update(attributes)
    found["span"].update(
        _ATTRIBUTE_OF[key] for key in document.get("context", _EMPTY) if key not in attributes
    )
    for event in document.get("events", ()):
        found["event"].update(event.get("attributes", _EMPTY))
    for link in document.get("links", ()):
        found["link"].update(link.get("attributes", _EMPTY))
    found["instrumentation"].update(document.get("scope", _EMPTY).get("attributes", _EMPTY))


async def values(
    store: Store, name: str, asked: Range, *, text: str, limit: int
) -> list[dict[str, str]]:
    """
    Values of one attribute or intrinsic.

    Args:
        store: where the spans are.
        name: as TraceQL writes it; one that is none has no values.
        asked: when the spans started.
        text: a query that narrows them down, as far as it is understood.
        limit: the most values.

    Returns:
        {"type", "value"} of each, sorted.
    """
    field = _field(name)
    if field is None:
        return []
    query = lenient(text)
    if isinstance(field, Intrinsic):
        words = {"status": STATUSES, "kind": KINDS}.get(field.plain)
        if words:
            return [{"type": "keyword", "value": word} for word in words]
        if field.plain in _OF_ROOTS:
            query = parse("{ nestedSetParent < 0 }")
            field = _field(_OF_ROOTS[field.plain]) or field
        elif field.plain not in _LISTED:
            return []
    read = reader(field)
    found: set[tuple[str, str]] = set()

    def note(span: Span) -> None:
        for value in _each(read(span)):
            if (typed := _typed(value)) is not None and len(found) < MAX_VALUES:
                found.add(typed)

    await _look(store, query, asked, note)
    return [{"type": kind, "value": value} for kind, value in sorted(found)[:limit]]


def _each(value: Value) -> Iterable[Value]:
    if isinstance(value, Each):
        return [item for one in value for item in _each(one)]
    return value if isinstance(value, list) else (value,)


def _typed(value: Value) -> tuple[str, str] | None:
    """The type's name and the text of a value; nothing for nil, empty, long and compound ones."""
    if isinstance(value, list | dict | bytes) or value == "":
        return None
    match any_value(value):
        case {"stringValue": text} if len(text) <= MAX_TEXT:
            return "string", text
        case {"boolValue": flag}:
            return "bool", "true" if flag else "false"
        case {"intValue": text}:
            return "int", text
        case {"doubleValue": number}:
            return "float", str(number)
    return None


def _field(name: str) -> Attribute | Intrinsic | None:
    """What a name stands for; a bare name is an attribute of any scope."""
    try:
        (stage,) = parse(f"{{ {name} = nil }}").stages
    except (ParseError, ValueError):
        known = [*(f"{scope}." for scope in SCOPES), "."]
        return None if name.startswith(tuple(known)) or not name else Attribute(None, name)
    left = getattr(getattr(stage, "expression", None), "left", None)
    return left if isinstance(left, Attribute | Intrinsic) else None


async def _look(store: Store, query: Query, asked: Range, use: Any) -> None:
    """Call `use` with the newest spans that pass a query's conditions."""
    planned: Plan = plan(query)
    reading = Reader(store, bounds())
    async with aclosing(reading.candidates(planned.scans, asked.start, asked.end)) as pages:
        async for page, _ in pages:
            for span in page:
                use(span)


def lenient(text: str) -> Query:
    """
    What can be understood of a half-typed query: every complete condition of its first `{ }`.

    Conditions joined by `||` or a filter that is still open say nothing yet: all spans are meant.
    """
    try:
        found = parse(text or "{}")
        return Query(found.stages)
    except ParseError:
        pass
    everything = Query((Filter(),))
    try:
        read = tokens(text[:4096])
    except ParseError:
        return everything
    depth, begin, parts = 0, None, []
    for token in read:
        if token.kind != "op":
            continue
        if token.value in ("{", "("):
            depth += 1
            begin = token.offset + 1 if token.value == "{" and begin is None else begin
        elif token.value in ("}", ")"):
            depth -= 1
        if begin is not None and depth <= 1 and token.value in ("&&", "}"):
            parts.append(text[begin : token.offset])
            begin = token.offset + len(token.value)
            if token.value == "}":
                return _joined(parts)
        elif depth <= 1 and token.value == "||":
            return everything
    return everything


def _joined(parts: list[str]) -> Query:
    """The complete ones of some conditions, as one query."""
    complete = []
    for part in parts:
        try:
            parse(f"{{ {part} }}")
        except ParseError:
            continue
        if part.strip():
            complete.append(f"({part})")
    try:
        return parse(f"{{ {' && '.join(complete)} }}")
    except ParseError:
        return Query((Filter(),))
