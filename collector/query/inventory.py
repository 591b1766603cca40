"""
`services`, `operations` and `metrics`: what there is, counted over a time range.

The store counts the newest documents of the range, a bounded number of them; an answer says from
which time on it has counted when that is not all. `operations` and `metrics` answer in pages: they are
counted anew for each page, and the cursor is the place of the last row in the order asked for.
"""

import asyncio
import base64
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgspec

from collector.model import Signal
from collector.query.parameters import bad_cursor, choice, read_question
from collector.query.searched import Searched
from collector.stores.base import (
    ENTRIES,
    MOST_COUNTED,
    Counted,
    MetricName,
    Operation,
    Query,
    ServiceCount,
    Store,
)

MOST_SERVICES: Final = 1000
MOST_OPERATIONS: Final = 1000
MOST_METRICS: Final = 5000

_SINCE: Final = "At or after: an age (15m, 1h, 7d) or an ISO 8601 time; 1h unless given."
_UNTIL: Final = "Before: an age or a time, as for since."
_SERVICE: Final = "The service equals this."

SERVICES: Final[dict[str, str]] = {
    "since": _SINCE,
    "until": _UNTIL,
    "limit": "How many services, 1000 unless given.",
}
"""Every parameter of the question about services, with its help."""

OPERATIONS: Final[dict[str, str]] = {
    "since": _SINCE,
    "until": _UNTIL,
    "service": _SERVICE,
    "kind": "entry (spans of kind SERVER and CONSUMER, the default) or all.",
    "order": "count (the most frequent first, the default), errors, slow (by p95) or name.",
    "limit": "How many operations, 100 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about operations, with its help."""

METRICS: Final[dict[str, str]] = {
    "since": _SINCE,
    "until": _UNTIL,
    "service": _SERVICE,
    "limit": "How many metrics, 1000 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about metrics, with its help."""

_CURSOR: Final = re.compile(r"([0-9]{1,20})_([0-9]{1,20})_([A-Za-z0-9_-]{1,8192})")
_LETTERS: Final = 60
_NONE: Final = re.compile("(?!)")
T = TypeVar("T")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `query` for the store, the order, and behind which row."""

    query: Query
    order: str = "name"
    kinds: tuple[str, ...] = ()
    limit: int
    after: list[Any] | None = None


class Service(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What a service has sent.

    Args:
        name: of the service.
        spans: how many.
        requests: how many of them have kind SERVER or CONSUMER.
        errors: how many of them have status ERROR.
        logs: how many log records.
        error_logs: how many of them have level ERROR or above.
        first_unix_nano, last_unix_nano: the times of the first and the last of all these.
    """

    name: str
    spans: int = 0
    requests: int = 0
    errors: int = 0
    logs: int = 0
    error_logs: int = 0
    first_unix_nano: int
    last_unix_nano: int


class Services(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The services by name.

    Args:
        services: at most `MOST_SERVICES`.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where was looked.
    """

    services: list[Service] = []
    cut: list[str] = []
    searched: Searched


class Rated(Operation, frozen=True, kw_only=True, omit_defaults=True):
    """
    An operation, and how often it runs.

    Args:
        rate_per_s: per second of the time that was counted.
    """

    rate_per_s: float


class Operations(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A page of operations.

    Args:
        operations: in the order asked for.
        since_unix_nano, until_unix_nano: the time that was counted.
        next: the cursor of the page behind this one; absent on the last page.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where was looked.
    """

    operations: list[Rated] = []
    since_unix_nano: int
    until_unix_nano: int
    next: str | None = None
    cut: list[str] = []
    searched: Searched


class Metrics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A page of metrics by name.

    Args:
        metrics: as their last points describe them.
        next: the cursor of the page behind this one; absent on the last page.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where was looked.
    """

    metrics: list[MetricName] = []
    next: str | None = None
    cut: list[str] = []
    searched: Searched


def services_question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    asked = read_question(
        pairs, SERVICES, _NONE, now_unix_nano=now_unix_nano, since="1h",
        rows=min(MOST_SERVICES, max_rows), max_rows=max_rows,
    )  # fmt: skip
    query = Query(
        signal=Signal.TRACES,
        since_unix_nano=asked.since_unix_nano,
        until_unix_nano=asked.until_unix_nano,
    )
    return Question(query=query, limit=asked.limit)


def operations_question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    return _paged(pairs, OPERATIONS, now_unix_nano, 100, min(MOST_OPERATIONS, max_rows))


def metrics_question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    return _paged(pairs, METRICS, now_unix_nano, 1000, min(MOST_METRICS, max_rows))


async def services(store: Store, asked: Question) -> Services:
    """The services that have sent spans or log records."""
    about_logs = msgspec.structs.replace(asked.query, signal=Signal.LOGS)
    spans, logs = await asyncio.gather(store.services(asked.query), store.services(about_logs))
    by_name = {row.name: row for row in logs.rows}
    names = sorted({*by_name, *(row.name for row in spans.rows)})
    of_spans = {row.name: row for row in spans.rows}
    rows = [_service(name, of_spans.get(name), by_name.get(name)) for name in names]
    cut = [*_cut(spans, "spans"), *_cut(logs, "log records")]
    if len(rows) > asked.limit:
        cut.append(f"there are {len(rows)} services; the first {asked.limit} by name are shown")
    return Services(
        services=rows[: asked.limit], cut=cut, searched=Searched(store=store.describe())
    )


def _service(name: str, spans: ServiceCount | None, logs: ServiceCount | None) -> Service:
    both = [each for each in (spans, logs) if each is not None]
    return Service(
        name=name,
        spans=spans.count if spans else 0,
        requests=spans.requests if spans else 0,
        errors=spans.errors if spans else 0,
        logs=logs.count if logs else 0,
        error_logs=logs.errors if logs else 0,
        first_unix_nano=min(each.first_unix_nano for each in both),
        last_unix_nano=max(each.last_unix_nano for each in both),
    )


async def operations(store: Store, asked: Question) -> Operations:
    """One page of operations with their rates and durations."""
    query = asked.query
    found = await store.operations(query, kinds=asked.kinds)
    since, until = query.since_unix_nano or 0, query.until_unix_nano or 0
    since = max(since, found.from_unix_nano or 0)
    seconds = max(until - since, 1) / 1e9

    def place(row: Operation) -> list[Any]:
        key = {"count": -row.count, "errors": -row.errors, "slow": -row.p95_ms}.get(asked.order, 0)
        return [key, *_cut_off(row.service, row.name, row.kind)]

    page, behind = _page(found.rows, place, asked)
    return Operations(
        operations=[
            Rated(**msgspec.structs.asdict(row), rate_per_s=row.count / seconds) for row in page
        ],
        since_unix_nano=since,
        until_unix_nano=until,
        next=behind,
        cut=_cut(found, "spans"),
        searched=Searched(store=store.describe()),
    )


async def metrics(store: Store, asked: Question) -> Metrics:
    """One page of the names of metrics."""
    found = await store.metric_names(asked.query)
    page, behind = _page(found.rows, lambda row: _cut_off(row.name), asked)
    return Metrics(
        metrics=page,
        next=behind,
        cut=_cut(found, "metric points"),
        searched=Searched(store=store.describe()),
    )


def _paged(
    pairs: Iterable[tuple[str, str]],
    known: dict[str, str],
    now_unix_nano: int,
    rows: int,
    most: int,
) -> Question:
    asked = read_question(
        pairs, known, _CURSOR, now_unix_nano=now_unix_nano, since="1h",
        rows=min(rows, most), max_rows=most,
    )  # fmt: skip
    given = asked.given
    spans = known is OPERATIONS
    order = choice(given, "order", "count", "errors", "slow", "name") if spans else "name"
    entry = spans and choice(given, "kind", "entry", "all") == "entry"
    return Question(
        query=Query(
            signal=Signal.TRACES if spans else Signal.METRICS,
            service=given.get("service"),
            since_unix_nano=asked.since_unix_nano,
            until_unix_nano=asked.until_unix_nano,
        ),
        order=order,
        kinds=ENTRIES if entry else (),
        limit=asked.limit,
        after=None if asked.behind is None else _read_place(asked.behind[0], spans=spans),
    )


def _cut_off(*names: str) -> list[str]:
    """Names as a place in an order: their beginnings, so that a cursor stays short, then a hash."""
    digest = blake2b("\0".join(names).encode("utf-8", "replace"), digest_size=8)
    return [*(name[:_LETTERS] for name in names), digest.hexdigest()]


def _page(rows: Sequence[T], place: Any, asked: Question) -> tuple[list[T], str | None]:
    """The rows of one page in order, and the cursor of the next."""
    ordered = sorted(rows, key=place)
    if asked.after is not None:
        ordered = [row for row in ordered if place(row) > asked.after]
    page = ordered[: asked.limit]
    if len(ordered) == len(page):
        return page, None
    packed = base64.urlsafe_b64encode(msgspec.json.encode(place(page[-1]))).decode().rstrip("=")
    times = f"{asked.query.since_unix_nano}_{asked.query.until_unix_nano}"
    return page, f"{times}_{packed}"


def _read_place(text: str, *, spans: bool) -> list[Any]:
    """The place of the last row that a cursor holds."""
    kind: Any = tuple[float, str, str, str, str] if spans else tuple[str, str]
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return list(msgspec.json.decode(packed, type=kind))
    except ValueError as error:
        raise bad_cursor() from error


def _cut(found: Counted[Any], what: str) -> list[str]:
    """What to say when not everything was counted."""
    if found.from_unix_nano is None:
        return []
    since = datetime.fromtimestamp(found.from_unix_nano // 10**9, UTC)
    return [
        f"only the newest {MOST_COUNTED} {what} are counted, from {since:%Y-%m-%d %H:%M:%S} UTC on"
    ]
