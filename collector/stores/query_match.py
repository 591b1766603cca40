"""
The exact meaning of a query: which documents match.

A store narrows a query down with what it has (indexes, SQL, BSON filters), and may find too much;
it asks `matches` about each document last. So all stores give equal answers, and a store in memory
needs nothing else.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from collector.documents.build import LOG, Document, NonFinite, text
from collector.model import Signal
from collector.stores.base import Query, event_time
from telemetry.attributes import LOOKUP

_EMPTY: Final[Document] = {}

LEAST: Final = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
"""The severity of a record that has a level but no number of its own."""


def severity(document: Document) -> int:
    """The severity number of a log record, else the one that its level stands for."""
    number: int = document.get("severity_number") or LEAST.get(document.get("level", ""), 0)
    return number


def places(key: str) -> list[tuple[str | None, str]]:
    """Where a `Query.where` key points: (section or None for the top, name), each worth a look."""
    found: list[tuple[str | None, str]] = [("attributes", key), ("resource", key)]
    if promoted := LOG.get(key):
        found.append((promoted.section, promoted.key))
    head, _, rest = key.partition(".")
    if rest and head in ("attributes", "resource", "context"):
        found.append((head, rest))
    return found


def comparable(value: Any) -> str | None:
    """The text that a `Query.where` value is compared with, None for what never matches."""
    if isinstance(value, str):
        return value
    if isinstance(value, NonFinite):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - NaN
    if isinstance(value, bool | int | float):
        return text(value)
    return None


def at(document: Document, section: str | None, name: str) -> Any:
    """The value of a field at the top (section None) or in a sub-document, None without one."""
    if section is None:
        return document.get(name)
    return document.get(section, _EMPTY).get(name)


def trace_id_of(signal: Signal, document: Document) -> str | None:
    """The trace that a document belongs to; metric points belong to none."""
    found: str | None = at(document, None if signal is Signal.TRACES else "trace", "trace_id")
    return found


def matches(query: Query) -> Callable[[Document], bool]:
    """The exact meaning of a query's conditions (not of its order, limit and `after`)."""
    signal = query.signal
    logs = signal is Signal.LOGS
    equal = [("context", key, value) for key, value in query.context.items()]
    named = {
        "service": query.service,
        "status": query.status,
        "event" if logs else "name": query.name,
    }
    where = [(places(key), value) for key, value in query.where]
    traces, tasks, names = map(frozenset, (query.trace_ids, query.task_ids, query.names))
    contains = re.compile(re.escape(query.text or ""), re.IGNORECASE).search
    since, until = query.since_unix_nano, query.until_unix_nano

    def match(document: Document) -> bool:
        if query.id is not None and query.id != trace_id_of(signal, document):
            context = document.get("context", _EMPTY)
            if not any(context.get(key) == query.id for key in LOOKUP):
                return False
        if traces and trace_id_of(signal, document) not in traces:
            return False
        if tasks and document.get("context", _EMPTY).get("task_id") not in tasks:
            return False
        if names and document.get("event" if logs else "name") not in names:
            return False
        if query.roots and (signal is not Signal.TRACES or "parent_span_id" in document):
            return False
        if any(at(document, section, name) != value for section, name, value in equal):
            return False
        if any(value is not None and document.get(key) != value for key, value in named.items()):
            return False
        if query.min_severity is not None and not (
            logs and severity(document) >= query.min_severity
        ):
            return False
        if query.min_duration_ms is not None and not (
            document.get("duration_ms", -1.0) >= query.min_duration_ms
        ):
            return False
        when = event_time(signal, document)
        if (since is not None and when < since) or (until is not None and when >= until):
            return False
        if query.text is not None and not (logs and contains(document.get("message", ""))):
            return False
        return all(
            any(comparable(at(document, section, name)) == value for section, name in spots)
            for spots, value in where
        )

    return match
