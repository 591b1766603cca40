"""
What every store promises about lists: traces, services, operations, metrics.

Expected answers are worked out here from the documents by plain loops, so that stores agree with
them and with each other. As contracts/stores.py: a store's own test file makes a class from
`ListsContract` and gives it the fixture `store`.
"""

import random
from collections import Counter, defaultdict

import pytest

from collector.model import Signal
from collector.stores.base import Query, event_time
from collector.stores.query_match import matches, severity
from tests.contracts.stores import T0, log, point, span, without

SECOND = 10**9
SERVICES = ("web", "db", "worker\u00e9")
NAMES = ("GET /", "POST /orders", "SELECT")
KINDS = ("SERVER", "CLIENT", "CONSUMER", None)
LAST = 2**64 - 1
MATCHED = ("span_id", "service", "name", "status", "start_unix_nano", "duration_ms")


def made():
    """Spans of 30 traces, some without a root, with equal times and durations on purpose."""
    dice = random.Random(7)
    spans = []
    for number in range(150):
        start = T0 + dice.randrange(40) * SECOND
        duration = dice.choice((0.0, 1.5, 1.5, 250.25, 1000.0, 1000.5, 90_000.0))
        kind = dice.choice(KINDS)
        found = span(
            number,
            trace_id=f"{dice.randrange(30) + 1:032x}",
            start_unix_nano=start,
            duration_ms=duration,
            end_unix_nano=start + round(duration * 1e6),
            service=dice.choice(SERVICES),
            name=dice.choice(NAMES),
            status=dice.choice(("UNSET", "OK", "ERROR")),
            **({"kind": kind} if kind else {}),
        )
        if dice.random() < 0.8:
            found["parent_span_id"] = "00f067aa0ba902b7"
        spans.append(found)
    return spans


SPANS = [
    *made(),
    # times that a signed integer cannot hold
    span(900, start_unix_nano=LAST - 5 * SECOND, duration_ms=1.0, trace_id="f" * 32),
    span(901, start_unix_nano=LAST - 6 * SECOND, duration_ms=0.5, trace_id="f" * 32, kind="SERVER"),
]

TRACE_QUESTIONS = (
    {},
    {"service": "db"},
    {"name": "POST /orders"},
    {"status": "ERROR"},
    {"min_duration_ms": 1000.0},
    {"min_duration_ms": 1000.1, "status": "ERROR", "service": "web"},
    {"roots": True},
    {"since_unix_nano": T0 + 5 * SECOND, "until_unix_nano": T0 + 20 * SECOND},
    {"since_unix_nano": T0 + 20 * SECOND, "service": "worker\u00e9"},
    {"service": "nobody"},
    {"service": '{"$ne": null}'},
    {"service": "\ud800"},
    {"until_unix_nano": 0},
)


def expected(query, *, longest):
    """The list in one piece: (trace id, place, facts) by plain loops."""
    match = matches(query)
    places = [
        (each["duration_ms"] if longest else each["start_unix_nano"], each["_id"], each)
        for each in SPANS
        if match(each)
    ]
    places.sort(key=lambda place: place[:2], reverse=True)
    rows = {}
    for _, _, found in places:
        rows.setdefault(found["trace_id"], found)
    return [facts(trace_id, found) for trace_id, found in rows.items()]


def facts(trace_id, matched):
    spans = [each for each in SPANS if each["trace_id"] == trace_id]
    spans.sort(key=lambda each: (each["start_unix_nano"], each["_id"]))
    roots = [each for each in spans if "parent_span_id" not in each]
    head = roots[0] if roots else spans[0]
    start = spans[0]["start_unix_nano"]
    end = max(each["start_unix_nano"] + round(each["duration_ms"] * 1e6) for each in spans)
    total = Counter(each["service"] for each in spans)
    errors = Counter(each["service"] for each in spans if each["status"] == "ERROR")
    return {
        "trace_id": trace_id,
        "service": head["service"],
        "name": head["name"],
        "status": head["status"],
        "root": bool(roots),
        "start": start,
        "end": end,
        "duration_ms": (end - start) / 1e6,
        "spans": len(spans),
        "errors": sum(errors.values()),
        "services": sorted(
            ((name, count, errors[name]) for name, count in total.items()),
            key=lambda part: (-part[1], part[0]),
        ),
        "matched": {field: matched[field] for field in MATCHED},
    }


def shown(trace):
    return {
        "trace_id": trace.trace_id,
        "service": trace.service,
        "name": trace.name,
        "status": trace.status,
        "root": trace.root,
        "start": trace.start_unix_nano,
        "end": trace.end_unix_nano,
        "duration_ms": trace.duration_ms,
        "spans": trace.spans,
        "errors": trace.errors,
        "services": [(part.name, part.spans, part.errors) for part in trace.services],
        "matched": {field: getattr(trace.matched, field) for field in MATCHED},
    }


async def pages(store, query, **options):
    found, sizes, after = [], [], None
    while True:
        page = await store.traces(query, after=after, **options)
        found += map(shown, page.traces)
        sizes.append(len(page.traces))
        after = page.behind
        if after is None:
            return found, sizes


LOGS = [
    log(1, service="web"),
    log(2, service="web", level="ERROR", severity_number=17),
    log(3, service="mailer", level="CRITICAL", severity_number=21),
    without(log(4, service="mailer", level="ERROR"), "severity_number"),
    log(5, service="mailer", level="WARNING", severity_number=13),
]

POINTS = [
    point(1, name="requests", unit="1", type="sum", monotonic=True, temporality="cumulative"),
    point(2, name="requests", service="db", unit="{request}", type="sum", description="Requests."),
    point(3, name="latency", type="histogram", unit="s", temporality="delta"),
    point(4, name="\u00e9 $ne", type="gauge", service="db"),
]


def service_rows(query, documents):
    match = matches(query)
    groups = defaultdict(list)
    for each in documents:
        if match(each):
            groups[each["service"]].append(each)
    rows = []
    for name in sorted(groups):
        times = [event_time(query.signal, each) for each in groups[name]]
        failed = [
            each.get("status") == "ERROR" or (query.signal is Signal.LOGS and severity(each) >= 17)
            for each in groups[name]
        ]
        requests = [each.get("kind") in ("SERVER", "CONSUMER") for each in groups[name]]
        rows.append((name, len(times), sum(requests), sum(failed), min(times), max(times)))
    return rows


def operation_rows(query, kinds):
    match = matches(query)
    groups = defaultdict(list)
    for each in SPANS:
        if match(each) and (not kinds or each.get("kind") in kinds):
            groups[each["service"], each["name"], each.get("kind", "")].append(each)
    rows = []
    for key in sorted(groups):
        durations = sorted(each["duration_ms"] for each in groups[key])
        count = len(durations)
        # the least duration that so many percent of the spans do not exceed
        ranks = [
            min(d for d in durations if 100 * sum(e <= d for e in durations) >= percent * count)
            for percent in (50, 95, 99, 100)
        ]
        failed = sum(each["status"] == "ERROR" for each in groups[key])
        last = max(each["start_unix_nano"] for each in groups[key])
        rows.append((*key, len(durations), failed, *ranks, last))
    return rows


@pytest.mark.anyio
class ListsContract:
    """The promises; `store` comes from the subclass."""

    @pytest.mark.parametrize("longest", [False, True])
    async def test_traces_stand_where_their_first_matching_span_stands(self, store, longest):
        """A list has each trace with a matching span once, in order, with the facts of the whole trace."""
        async with store() as opened:
            await opened.write(Signal.TRACES, SPANS)
            for asked in TRACE_QUESTIONS:
                query = Query(signal=Signal.TRACES, limit=1000, **asked)
                found, sizes = await pages(opened, query, longest=longest)
                assert found == expected(query, longest=longest), asked
                assert len(sizes) == 1
            assert (await opened.traces(Query(signal=Signal.LOGS))).traces == []

    @pytest.mark.parametrize("longest", [False, True])
    @pytest.mark.parametrize("limit", [1, 4])
    async def test_traces_in_pages_are_the_same_list(self, store, limit, longest):
        """Page behind page gives each trace once, though its other spans match on later pages, too."""
        async with store() as opened:
            await opened.write(Signal.TRACES, SPANS)
            for asked in ({}, {"service": "db"}, {"status": "ERROR"}):
                query = Query(signal=Signal.TRACES, limit=limit, **asked)
                found, sizes = await pages(opened, query, longest=longest)
                assert found == expected(query, longest=longest), asked
                assert set(sizes[:-1]) == {limit}

    async def test_a_page_of_traces_ends_early_behind_many_spans(self, store):
        """A page looks at no more spans than it may, says so, and the next one goes on behind them."""
        query = Query(signal=Signal.TRACES, limit=1000)
        async with store() as opened:
            await opened.write(Signal.TRACES, SPANS)
            page = await opened.traces(query, most=10)
            assert page.cut
            assert 0 < len(page.traces) <= 10
            found, sizes = await pages(opened, query, most=10)
        assert found == expected(query, longest=False)
        assert len(sizes) == 16  # 152 spans, ten at a time

    async def test_services_are_counted_with_first_and_last_time(self, store):
        """`services` counts spans and log records of each service, requests and errors among them."""
        async with store() as opened:
            await opened.write(Signal.TRACES, SPANS)
            await opened.write(Signal.LOGS, LOGS)
            for signal, documents in ((Signal.TRACES, SPANS), (Signal.LOGS, LOGS)):
                for asked in ({}, {"since_unix_nano": T0 + 3}, {"service": "web"}):
                    query = Query(signal=signal, **asked)
                    found = await opened.services(query)
                    rows = [
                        (
                            row.name, row.count, row.requests, row.errors,
                            row.first_unix_nano, row.last_unix_nano,
                        )
                        for row in found.rows
                    ]  # fmt: skip
                    assert rows == service_rows(query, documents), asked
                    assert found.from_unix_nano is None
            assert (await opened.services(Query(signal=Signal.METRICS))).rows == []

    @pytest.mark.parametrize("kinds", [(), ("SERVER", "CONSUMER")])
    async def test_operations_are_counted_with_exact_percentiles(self, store, kinds):
        """`operations` counts spans by service, name and kind, with ranks of their durations."""
        async with store() as opened:
            await opened.write(Signal.TRACES, SPANS)
            for asked in ({}, {"service": "db"}, {"until_unix_nano": 0}, {"service": "\ud800"}):
                query = Query(signal=Signal.TRACES, **asked)
                found = await opened.operations(query, kinds=kinds)
                rows = [
                    (
                        row.service, row.name, row.kind, row.count, row.errors,
                        row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms, row.last_unix_nano,
                    )
                    for row in found.rows
                ]  # fmt: skip
                assert rows == operation_rows(query, kinds), asked

    async def test_metrics_are_listed_as_their_last_point_describes_them(self, store):
        """`metric_names` gives each name once, with its services and what the last point says."""
        async with store() as opened:
            await opened.write(Signal.METRICS, POINTS)
            found = (await opened.metric_names(Query(signal=Signal.METRICS))).rows
            rows = [
                (
                    row.name, row.type, row.unit, row.description, row.monotonic, row.temporality,
                    row.services, row.points, row.last_unix_nano - T0,
                )
                for row in found
            ]  # fmt: skip
            assert rows == [
                ("latency", "histogram", "s", "", False, "delta", ["web"], 1, 3),
                ("requests", "sum", "{request}", "Requests.", False, "", ["db", "web"], 2, 2),
                ("\u00e9 $ne", "gauge", "", "", False, "", ["db"], 1, 4),
            ]
            web = await opened.metric_names(Query(signal=Signal.METRICS, service="web"))
            assert [(row.name, row.unit) for row in web.rows] == [
                ("latency", "s"),
                ("requests", "1"),
            ]

    async def test_counts_are_of_the_newest_when_there_are_too_many(self, store):
        """A count that may not read everything reads the newest, and says from when on."""
        newest = sorted(SPANS, key=lambda each: (each["start_unix_nano"], each["_id"]))[-20:]
        oldest = newest[0]["start_unix_nano"]
        query = Query(signal=Signal.TRACES)
        async with store() as opened:
            await opened.write(Signal.TRACES, SPANS)
            await opened.write(Signal.METRICS, POINTS)
            services = await opened.services(query, most=20)
            assert (sum(row.count for row in services.rows), services.from_unix_nano) == (
                20,
                oldest,
            )
            operations = await opened.operations(query, most=20)
            assert sum(row.count for row in operations.rows) == 20
            assert operations.from_unix_nano == oldest
            entries = await opened.operations(query, most=20, kinds=("SERVER",))
            servers = sum(each.get("kind") == "SERVER" for each in newest)
            assert sum(row.count for row in entries.rows) == servers
            assert entries.from_unix_nano == oldest
            metrics = await opened.metric_names(Query(signal=Signal.METRICS), most=1)
            assert [row.name for row in metrics.rows] == ["\u00e9 $ne"]
            assert metrics.from_unix_nano == T0 + 4

    async def test_a_list_that_cannot_be_narrowed_like_this_is_refused(self, store):
        """Lists know no text and no attributes, and say so."""
        async with store() as opened:
            for asked in ({"where": (("a", "b"),)}, {"context": {"user_id": "u"}}):
                query = Query(signal=Signal.TRACES, **asked)
                for ask in (opened.traces, opened.services, opened.operations):
                    with pytest.raises(ValueError, match="lists: a question with"):
                        await ask(query)

    async def test_an_empty_store_has_empty_lists(self, store):
        """Nothing stored is an empty list, never an error."""
        async with store() as opened:
            page = await opened.traces(Query(signal=Signal.TRACES))
            assert (page.traces, page.behind, page.cut) == ([], None, False)
            assert (await opened.services(Query(signal=Signal.TRACES))).rows == []
            assert (await opened.services(Query(signal=Signal.LOGS))).rows == []
            assert (await opened.operations(Query(signal=Signal.TRACES))).rows == []
            assert (await opened.metric_names(Query(signal=Signal.METRICS))).rows == []
