"""
Which collection a document belongs to: one function for every store.

Spans and metric points have one collection each. A log record goes, in this order, to `audit_logs`
when it is marked as an audit record, to the collection that the configuration names for its event,
and else to that of its level. Nothing that depends on arrival takes part, so a resend finds its
counterpart. A record is in exactly one of these collections, so a question that asks all of them finds it
once.

`trace_logs` is no part of that: it is the trail, one small document per finished request, task or
timed block, derived from what is stored elsewhere. It answers "which traces does this correlation
id have" without a walk over all logs. A request leaves a span and a log record, and both say the
same: their trail has the id of the span that both belong to, so the second one is a duplicate.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Final

from collector.documents.build import Document, moment
from collector.model import Signal
from telemetry.attributes import (
    AUDIT_SEQUENCE,
    AUDIT_STREAM,
    HTTP_ROUTE,
    RISK_INFERENCE_FINISHED,
    RISK_SCORE_EVALUATED,
)

LEVELS: Final = {
    "DEBUG": "debug_logs",
    "INFO": "info_logs",
    "WARNING": "warning_logs",
    "ERROR": "error_logs",
    "CRITICAL": "critical_logs",
}
"""Where a log record of a level is kept."""

SPANS: Final = "spans"
METRICS: Final = "metrics"
AUDIT: Final = "audit_logs"
ANALYTICS: Final = "analytics"
INFERENCES: Final = "ml_inferences"
TRAIL: Final = "trace_logs"
LETTERS: Final = "dead_letters"
STATISTICS: Final = "daily_statistics"

BY_LEVEL: Final = "level"
"""The target of an event that is kept like any other record."""

EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        RISK_SCORE_EVALUATED: ANALYTICS,
        RISK_INFERENCE_FINISHED: INFERENCES,
        "gen_ai.client.inference.operation.details": INFERENCES,
    }
)
"""Event -> collection, unless the configuration says otherwise."""

LOGS: Final = (*LEVELS.values(), AUDIT, ANALYTICS, INFERENCES)
"""The collections of log records that there always are."""

OWN_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,50}_events")
"""What a collection of the user's is called, so that a reader knows it by its name."""

_PATTERN: Final = re.compile(r"[^\s*]+\*?|\*")


def is_log_collection(name: str) -> bool:
    """Whether a collection of this name holds log records."""
    return name in LOGS or OWN_NAME.fullmatch(name) is not None


class Routing:
    """
    The routes of log records.

    Args:
        events: name of an event, or its beginning and `*`, -> collection or `level`. They come on
            top of `EVENTS`; the exact name wins, then the longest beginning.

    Raises:
        ValueError: a name that can be no event, or no collection for events.
    """

    def __init__(self, events: Mapping[str, str]) -> None:
        for pattern, name in events.items():
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(
                    f"events: {pattern!r} is no event; write its name, or its beginning and *"
                )
            if name not in (AUDIT, ANALYTICS, INFERENCES, BY_LEVEL) and not OWN_NAME.fullmatch(
                name
            ):
                raise ValueError(
                    f"events.{pattern}: {name!r} is no collection for events; write {ANALYTICS}, "
                    f"{INFERENCES}, {AUDIT}, {BY_LEVEL}, or a name of your own that ends in _events"
                )
        merged = {**EVENTS, **events}
        self._exact = {event: name for event, name in merged.items() if not event.endswith("*")}
        self._beginnings = sorted(
            ((event[:-1], name) for event, name in merged.items() if event.endswith("*")),
            key=lambda pair: -len(pair[0]),
        )
        own = {name for name in merged.values() if name != BY_LEVEL} - set(LOGS)
        self.logs = (*LOGS, *sorted(own))

    def of_event(self, event: str) -> str | None:
        """The collection of an event; None when its level decides."""
        name = self._exact.get(event)
        if name is None:
            for beginning, target in self._beginnings:
                if event.startswith(beginning):
                    name = target
                    break
        return None if name == BY_LEVEL else name

    def collection(self, signal: Signal, document: Document) -> str:
        """The collection that a document belongs to."""
        if signal is not Signal.LOGS:
            return SPANS if signal is Signal.TRACES else METRICS
        attributes = document.get("attributes")
        if attributes and (AUDIT_STREAM in attributes or AUDIT_SEQUENCE in attributes):
            return AUDIT
        event = document.get("event")
        if event is not None and (name := self.of_event(event)):
            return name
        return LEVELS.get(document.get("level", ""), "info_logs")


ENTRIES: Final = ("SERVER", "CONSUMER")
"""The kinds of spans that leave a trail."""


def trail(signal: Signal, document: Document) -> Document | None:
    """
    The document for `trace_logs`, None when this one ends no request, task or timed block.

    Args:
        signal: what the document is.
        document: a SERVER or CONSUMER span, or a log record with `trace.execution_time_ms`.
    """
    if signal is Signal.TRACES:
        if document.get("kind") not in ENTRIES:
            return None
        end = max(document["end_unix_nano"], document["start_unix_nano"])
        failed = document["status"] == "ERROR"
        route = document.get("attributes", {}).get(HTTP_ROUTE)
        found: Document = {
            "timestamp": moment(end),
            "time_unix_nano": end,
            "level": "ERROR" if failed else "INFO",
            "message": document["name"],
            "trace": {
                "trace_id": document.get("trace_id", ""),
                "span_id": document.get("span_id", ""),
                "execution_time_ms": document["duration_ms"],
                "status": "error" if failed else "success",
            },
        }
        if type(route) is str:
            found["attributes"] = {HTTP_ROUTE: route}
    elif signal is Signal.LOGS and "execution_time_ms" in document.get("trace", ()):
        found = {key: document[key] for key in _KEPT if key in document}
    else:
        return None
    found["received_at"] = document["received_at"]
    found["service"] = document["service"]
    if "context" in document:
        found["context"] = document["context"]
    trace = found["trace"]
    if trace.get("trace_id") and trace.get("span_id"):
        block = f"{found['service']}\0{trace['trace_id']}{trace['span_id']}"
        found["_id"] = blake2b(block.encode(), digest_size=12).hexdigest()
    else:
        found["_id"] = document["_id"]
    return found


_KEPT: Final = (
    *("timestamp", "time_unix_nano", "level", "severity_number", "message"),
    *("logger_name", "event", "trace"),
)
