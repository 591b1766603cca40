"""What a store answers besides documents: groups of failures, steps of following, steps of a walk."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from collector.documents.build import Document
from collector.model import Signal

MESSAGE: Final = 400
"""Characters of a message that distinguish failures."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Failures of one type with one message in one service."""

    type: str
    """The exception's class of a log record, `error.type` of a span; empty without one."""
    message: str
    """What it says, the first `MESSAGE` characters."""
    service: str
    """Where it happened."""
    count: int
    """How often."""
    first_unix_nano: int
    """When for the first time, of those that were asked for."""
    last_unix_nano: int
    """When for the last time."""
    trace_id: str = ""
    """A trace in which it happened, the last one that has an id; empty without any."""


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """What is new since the step before."""

    logs: list[Document] = []
    """New log records that match, in the order in which they were stored."""
    position: str
    """Where to go on; a text that only the store understands."""
    gap: str = ""
    """Says what may be missing before these; empty when nothing is."""


class Walked(msgspec.Struct, frozen=True, kw_only=True):
    """Some documents of one collection, on a walk through all of them."""

    documents: list[Document]
    """At most as many as were asked for."""
    position: str | None
    """Where to go on; None at the end."""


def failure_of(signal: Signal, document: Document) -> tuple[str, str]:
    """Type and message of a failed span, or of a log record about a failure."""
    if signal is Signal.TRACES:
        kind = document.get("attributes", {}).get("error.type")
        messages = [document.get("status_message"), document.get("name")]
    else:
        found = document.get("exception", {})
        kind = found.get("type")
        messages = [found.get("message"), document.get("message"), document.get("event")]
    return _first_text([kind]), _first_text(messages)[:MESSAGE]


def _first_text(values: Sequence[Any]) -> str:
    return next((value for value in values if type(value) is str and value), "")
