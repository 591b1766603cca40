"""Texts that people paste as an id, and what they may mean."""

import re
from typing import Final

from telemetry.attributes import LOOKUP

KINDS: Final = ("trace_id", *LOOKUP)
"""The kinds of ids that `trace` finds."""

TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id_of(text: str) -> str | None:
    """The trace id that a text means: hex in any case, as a UUID, or inside a W3C traceparent."""
    lowered = text.strip().lower()
    if TRACE_ID.fullmatch(lowered):
        return lowered
    if _UUID.fullmatch(lowered):
        return lowered.replace("-", "")
    parent = _TRACEPARENT.fullmatch(lowered)
    return parent[1] if parent else None


def forms(text: str) -> list[str]:
    """The ids to look for: the text itself, and the trace id that it may mean."""
    plain = text.strip()
    if _TRACEPARENT.fullmatch(plain.lower()):
        plain = ""
    return list(dict.fromkeys(form for form in (plain, trace_id_of(text)) if form))
