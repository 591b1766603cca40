"""
`slow`: the slowest operations, or the slowest traces by their root spans, the longest first.

A page goes on behind the duration and the id of the last span of the page before; the cursor keeps
the time range, too.
"""

import math
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from collector.model import Signal
from collector.query.parameters import age_s, bad_cursor, flag, read_question
from collector.query.searched import Searched
from collector.stores.base import Document, Query, Store

DEFAULT_LIMIT: Final = 20

PARAMETERS: Final[dict[str, str]] = {
    "since": "Started at or after: an age (15m, 1h, 7d) or an ISO 8601 time; 1h unless given.",
    "until": "Started before: an age or a time, as for since.",
    "service": "The service equals this.",
    "name": "The name of the span equals this.",
    "min_duration": "At least so long: 500ms, 2s, 1m30s. From 1s on an index answers.",
    "traces": "true: whole traces by their root spans; false (the default): every span.",
    "limit": "How many, 20 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about slow operations, with its help."""

_CURSOR: Final = re.compile(
    r"([0-9]{1,20})_([0-9]{1,20})_([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)_([0-9a-f]{24})"
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `query` for the store, and behind which span."""

    query: Query
    limit: int
    after: tuple[float, str] | None = None


class Slow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A page of spans, the longest first.

    Args:
        spans: the documents.
        next: the cursor of the page behind this one; absent on the last page.
        searched: where was looked.
    """

    spans: list[Document] = []
    next: str | None = None
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
        rows=DEFAULT_LIMIT, max_rows=max_rows,
    )  # fmt: skip
    given, behind = asked.given, asked.behind
    after = None if behind is None else (float(behind[0]), behind[1])
    if after is not None and not math.isfinite(after[0]):
        raise bad_cursor()
    least = age_s(given, "min_duration", 0.0) * 1000
    return Question(
        query=Query(
            signal=Signal.TRACES,
            service=given.get("service"),
            name=given.get("name"),
            min_duration_ms=least or None,
            roots=flag(given, "traces"),
            since_unix_nano=asked.since_unix_nano,
            until_unix_nano=asked.until_unix_nano,
        ),
        limit=asked.limit,
        after=after,
    )


async def slow(store: Store, asked: Question) -> Slow:
    """One page of the slowest."""
    query = msgspec.structs.replace(asked.query, limit=asked.limit + 1)
    found = await store.slowest(query, asked.after)
    page = found[: asked.limit]
    behind = None
    if len(found) > len(page):
        last = page[-1]
        times = f"{query.since_unix_nano}_{query.until_unix_nano}"
        behind = f"{times}_{last['duration_ms']!r}_{last['_id']}"
    return Slow(spans=page, next=behind, searched=Searched(store=store.describe()))
