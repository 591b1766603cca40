"""
`traces`: the recent or the slowest traces, with what a reader needs to choose one.

A trace is listed when one of its spans meets all conditions, at the place of the first span that
does: the newest one, or the longest. A page goes on behind that place; the cursor keeps the time
range, too, so that pages that are asked for one after the other are pages of one list.
"""

import math
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from collector.model import Signal
from collector.query.parameters import age_s, bad_cursor, choice, flag, read_question
from collector.query.searched import Searched
from collector.stores.base import MOST_WALKED, ListedTrace, Place, Query, Store

DEFAULT_LIMIT: Final = 20
MOST: Final = 1000
"""Traces of one page."""

PARAMETERS: Final[dict[str, str]] = {
    "since": "A span started at or after: an age (15m, 1h, 7d) or an ISO 8601 time; 1h unless given.",
    "until": "It started before: an age or a time, as for since.",
    "service": "A span of this service.",
    "operation": "A span of this name.",
    "errors": "true: a span with status ERROR.",
    "min_duration": "A span that took at least so long: 500ms, 2s, 1m30s.",
    "order": "recent (the newest matching span first, the default) or slowest (the longest first).",
    "limit": "How many traces, 20 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about traces, with its help; all conditions are about one span."""

_CURSOR: Final = re.compile(
    r"([0-9]{1,20})_([0-9]{1,20})_([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)_([0-9a-f]{24})"
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `query` for the spans, the order, and behind which place."""

    query: Query
    longest: bool
    after: Place | None = None


class Traces(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A page of traces.

    Args:
        traces: in order.
        next: the cursor of the page behind this one; absent on the last page.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where was looked.
    """

    traces: list[ListedTrace] = []
    next: str | None = None
    cut: list[str] = []
    searched: Searched


def question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    asked = read_question(
        pairs, PARAMETERS, _CURSOR, now_unix_nano=now_unix_nano, since="1h",
        rows=DEFAULT_LIMIT, max_rows=min(max_rows, MOST),
    )  # fmt: skip
    given, behind = asked.given, asked.behind
    longest = choice(given, "order", "recent", "slowest") == "slowest"
    after: Place | None = None
    if behind is not None:
        if not longest and not behind[0].isdigit():
            raise bad_cursor()
        after = (float(behind[0]) if longest else int(behind[0]), behind[1])
        if not math.isfinite(after[0]):
            raise bad_cursor()
    return Question(
        query=Query(
            signal=Signal.TRACES,
            service=given.get("service"),
            name=given.get("operation"),
            status="ERROR" if flag(given, "errors") else None,
            min_duration_ms=age_s(given, "min_duration", 0.0) * 1000 or None,
            since_unix_nano=asked.since_unix_nano,
            until_unix_nano=asked.until_unix_nano,
            limit=asked.limit,
        ),
        longest=longest,
        after=after,
    )


async def traces(store: Store, asked: Question) -> Traces:
    """One page of the list."""
    query = asked.query
    found = await store.traces(query, longest=asked.longest, after=asked.after)
    behind = None
    if found.behind is not None:
        place, identity = found.behind
        behind = f"{query.since_unix_nano}_{query.until_unix_nano}_{place!r}_{identity}"
    cut = [f"{MOST_WALKED} spans were looked at for this page; go on with the next one"]
    return Traces(
        traces=found.traces,
        next=behind,
        cut=cut if found.cut else [],
        searched=Searched(store=store.describe()),
    )
