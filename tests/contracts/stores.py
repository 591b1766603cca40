"""
What every store promises (collector/stores/base.py), as tests.

A store's own test file makes a class from `StoreContract` and gives it the fixture `store`: a
function that returns a new, unopened store on the same place each time it is called.
"""

import asyncio
import logging
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.documents.build import Binary, NonFinite, documents, moment
from collector.errors import Permanent, Retryable
from collector.model import Host, Signal
from collector.stats import Stats
from collector.stores.base import Query, Refused, Written, dumps, event_time
from telemetry.attributes import LOOKUP
from tests import strategies

T0 = 1_800_000_000_123_456_789
RECEIVED = datetime(2100, 1, 15, 8, 0, 0, 123000, UTC)  # no retention is over before
EVERYTHING = 10_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def host(stats=None):
    return Host("store", stats or Stats(), logging.getLogger("tests.store"))


def identity(number, time=T0):
    return f"{time // 10**9 & 0xFFFFFFFF:08x}{number:016x}"


def span(number, **fields):
    time = fields.get("start_unix_nano", T0 + number)
    return {
        "_id": identity(number, time),
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "name": "GET /",
        "start": moment(time),
        "start_unix_nano": time,
        "end_unix_nano": time + 1_500_000,
        "duration_ms": 1.5,
        "received_at": RECEIVED,
        "service": "web",
        "status": "UNSET",
        **fields,
    }


def log(number, **fields):
    time = fields.get("time_unix_nano", T0 + number)
    return {
        "_id": identity(number, time),
        "timestamp": moment(time),
        "time_unix_nano": time,
        "level": "INFO",
        "severity_number": 9,
        "received_at": RECEIVED,
        "service": "web",
        "message": "hello",
        **fields,
    }


def point(number, **fields):
    time = fields.get("time_unix_nano", T0 + number)
    return {
        "_id": identity(number, time),
        "timestamp": moment(time),
        "time_unix_nano": time,
        "name": "requests",
        "type": "sum",
        "received_at": RECEIVED,
        "service": "web",
        "value": number,
        **fields,
    }


MAKE = {Signal.TRACES: span, Signal.LOGS: log, Signal.METRICS: point}
each_signal = pytest.mark.parametrize("signal", list(Signal))

FULL = {
    Signal.TRACES: span(
        1,
        parent_span_id="00f067aa0ba902b7",
        trace_state="a=1",
        kind="SERVER",
        status="ERROR",
        status_message="boom",
        context={"correlation_id": "c-1", "user_id": "u-1"},
        attributes={"http.request.method": "GET", "http.response.status_code": 200, "ok": True},
        resource={"service.name": "web", "host.name": "h", "process.command_args": ["a", "b"]},
        resource_meta={"schema_url": "https://x", "entity_refs": [{"type": "service"}]},
        scope={"name": "lib", "version": "1", "attributes": {"a.b": 1, "a": 2}},
        events=[{"name": "e", "time_unix_nano": T0, "attributes": {"x.y": 1.5}}],
        links=[{"trace_id": TRACE, "span_id": "00f067aa0ba902b7", "attributes": {"k": "v"}}],
        flags=257,
        dropped_attributes_count=1,
        dropped_events_count=2**32 - 1,
    ),
    Signal.LOGS: log(
        1,
        time_source="observed",
        observed_unix_nano=T0,
        level="ERROR",
        severity_number=17,
        severity_text="ERROR",
        logger_name="app",
        function_name="f",
        line_number=42,
        file_path="/a.py",
        message='{"a":1}',
        body={"a": 1, "deep": {"x.y": [1, {"$z": None}]}},
        event="order.paid",
        context={"request_id": "r-1"},
        trace={"trace_id": TRACE, "span_id": "00f067aa0ba902b7", "execution_time_ms": 1.5},
        exception={"type": "ValueError", "message": "no", "stacktrace": "line\nline"},
        attributes={"a": {"b": 1}, "a.b": "c", "bytes": Binary(b"\x00\xff"), "none": None},
    ),
    Signal.METRICS: point(
        1,
        description="d",
        unit="s",
        metadata={"a.b": 1},
        type="histogram",
        temporality="delta",
        start_unix_nano=T0 - 1,
        count=2**64 - 1,
        sum=NonFinite("inf"),
        min=-0.5,
        max=NonFinite("nan"),
        bucket_counts=[0, 2**63, 1],
        explicit_bounds=[0.5, 1.0],
        positive={"offset": -3, "bucket_counts": [1, 2]},
        quantiles=[{"quantile": 0.5, "value": NonFinite("-inf")}],
        exemplars=[{"time_unix_nano": 2**64 - 1, "value": 7, "attributes": {"k.l": 2**63 - 1}}],
        attributes={},
    ),
}
"""One document of each signal with every field that there is."""


def exactly(found):
    """Documents as text in which 1, 1.0 and True differ, and NaN equals itself."""
    return [dumps(document, ordered=True) for document in found]


async def everything(store, signal):
    """All documents of a signal, page by page."""
    found = []
    after = None
    while True:
        page = await store.find(Query(signal=signal, limit=EVERYTHING, after=after))
        found += page
        if len(page) < EVERYTHING:
            return found
        after = (event_time(signal, page[-1]), page[-1]["_id"])


def without(document, key):
    return {name: value for name, value in document.items() if name != key}


HOSTILE = (
    *("a.b", "$where", "$ref", "$id", "nul\0", "", "_id", "__proto__", "a..b", ".", "_", "a._"),
    *(
        "a",
        "a.b.c",
        "ünïcode",
        "\u2400",
        "\uff04where",
        "\uff0e",
        '"quoted"',
        "back\\slash",
        "line\nbreak",
        "0",
    ),
    *(
        "$binary",
        "$escape",
        "attributes",
        "attributes_raw",
        "'; DROP TABLE logs; --",
        ".".join("x" * 99),
    ),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0.0, -1.5, 1e16, 1e-9, 5e-324, NonFinite("nan"), NonFinite("-inf")]),
    st.text(max_size=5),
    st.sampled_from(HOSTILE),
    st.binary(max_size=4).map(Binary),
)
names = st.sampled_from(HOSTILE) | st.text(max_size=5)
# A map with one of our own marks as a key is escaped by `documents`; see tests/strategies.py.
inner_names = names.filter(lambda name: name not in ("$binary", "$escape", "$numberDouble"))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(inner_names, inner, max_size=3),
    max_leaves=6,
)
requests = st.sampled_from(list(Signal)).flatmap(
    lambda signal: st.tuples(st.just(signal), strategies.requests(signal))
)
hostile_maps = st.dictionaries(names, values, max_size=6)


QUESTIONS = (
    (Signal.TRACES, {}, [0, 1, 2, 3, 4]),
    (Signal.TRACES, {"id": f"{1:032x}"}, [1]),
    (Signal.TRACES, {"id": "same"}, [2, 3]),
    (Signal.TRACES, {"id": "nobody"}, []),
    (Signal.TRACES, {"trace_ids": (f"{1:032x}", f"{4:032x}", "none")}, [1, 4]),
    (Signal.TRACES, {"context": {"correlation_id": "same"}}, [2]),
    (Signal.TRACES, {"context": {"task_id": "same", "user_id": "u"}}, [3]),
    (Signal.TRACES, {"context": {"user_id": "u"}}, [3]),
    (Signal.TRACES, {"context": {"nothing": "u"}}, []),
    (Signal.TRACES, {"context": {"$where": "1", "a.b": "c"}}, []),
    (Signal.TRACES, {"service": "db"}, [4]),
    (Signal.TRACES, {"status": "ERROR"}, [1]),
    (Signal.TRACES, {"name": "SELECT"}, [4]),
    (Signal.TRACES, {"min_duration_ms": 20.0}, [2, 4]),
    (Signal.TRACES, {"min_duration_ms": 20.1}, [4]),
    (Signal.TRACES, {"since_unix_nano": T0 + 1, "until_unix_nano": T0 + 3}, [1, 2]),
    (Signal.TRACES, {"since_unix_nano": -5, "until_unix_nano": 2**80}, [0, 1, 2, 3, 4]),
    (Signal.TRACES, {"since_unix_nano": 2**80}, []),
    (Signal.TRACES, {"until_unix_nano": -1}, []),
    (Signal.TRACES, {"limit": 2}, [0, 1]),
    (Signal.TRACES, {"limit": 2, "newest_first": True}, [4, 3]),
    (Signal.TRACES, {"status": "UNSET", "service": "web", "newest_first": True}, [3, 2, 0]),
    (Signal.TRACES, {"text": "GET"}, []),
    (Signal.TRACES, {"min_severity": 0}, []),
    (Signal.TRACES, {"task_ids": ("same", "other")}, [3]),
    (Signal.TRACES, {"names": ("SELECT", "x")}, [4]),
    (Signal.TRACES, {"names": ("$ne",)}, []),
    (Signal.TRACES, {"roots": True, "service": "db"}, [4]),
    (Signal.LOGS, {}, [0, 1, 2, 3, 4, 5]),
    (Signal.LOGS, {"id": TRACE}, [3]),
    (Signal.LOGS, {"trace_ids": (TRACE,)}, [3]),
    (Signal.LOGS, {"min_severity": 0}, [0, 1, 2, 3, 4, 5]),
    (Signal.LOGS, {"min_severity": 5}, [0, 1, 2, 3, 4, 5]),
    (Signal.LOGS, {"min_severity": 9}, [1, 2, 3, 4, 5]),
    (Signal.LOGS, {"min_severity": 10}, [2, 3, 4, 5]),
    (Signal.LOGS, {"min_severity": 13}, [2, 3, 4, 5]),
    (Signal.LOGS, {"min_severity": 17}, [3, 4, 5]),
    (Signal.LOGS, {"min_severity": 21}, [4]),
    (Signal.LOGS, {"min_severity": 25}, []),
    (Signal.LOGS, {"min_severity": 2**40}, []),
    (Signal.LOGS, {"name": "order.paid"}, [2]),
    (Signal.LOGS, {"text": "TIMEOUT"}, [1, 3]),
    (Signal.LOGS, {"text": "überlast"}, [4]),
    (Signal.LOGS, {"text": '100% "(a+)+$" \\d\n'}, [2]),
    (Signal.LOGS, {"text": ".*"}, []),
    (Signal.LOGS, {"text": "a\0b"}, [5]),
    (Signal.LOGS, {"text": ""}, [0, 1, 2, 3, 4, 5]),
    (Signal.LOGS, {"text": "x" * 100_000}, []),
    (Signal.LOGS, {"text": "timeout", "limit": 1, "newest_first": True}, [3]),
    (Signal.LOGS, {"names": ("order.paid", "x")}, [2]),
    (Signal.LOGS, {"task_ids": ("x",)}, []),
    (Signal.LOGS, {"roots": True}, []),
    (Signal.LOGS, {"status": "ERROR"}, []),
    (Signal.LOGS, {"min_duration_ms": 0.0}, []),
    (Signal.METRICS, {}, [0, 1]),
    (Signal.METRICS, {"name": "latency"}, [1]),
    (Signal.METRICS, {"service": "web", "name": "requests"}, [0]),
    (Signal.METRICS, {"id": "same"}, []),
    (Signal.METRICS, {"trace_ids": (TRACE,)}, []),
    (Signal.METRICS, {"task_ids": ("same",)}, []),
    (Signal.METRICS, {"names": ("latency",)}, [1]),
)  # fmt: skip
STORED = {
    Signal.TRACES: [
        span(0),
        span(1, status="ERROR"),
        span(2, context={"correlation_id": "same"}, duration_ms=20.0),
        span(3, context={"task_id": "same", "user_id": "u"}),
        span(4, service="db", name="SELECT", status="OK", duration_ms=1e6),
    ],
    Signal.LOGS: [
        log(0, level="DEBUG", severity_number=5),
        log(1, message="read timeout"),
        log(2, level="WARNING", severity_number=13, event="order.paid", message='100% "(a+)+$" \\d\n'),
        log(3, level="ERROR", severity_number=17, trace={"trace_id": TRACE}, message="Timeout!"),
        log(4, level="CRITICAL", severity_number=21, message="ÜBERLAST"),
        without(log(5, level="ERROR", message="xa\0bx"), "severity_number"),
    ],
    Signal.METRICS: [point(0), point(1, name="latency")],
}  # fmt: skip

WHERE = (
    ("http.request.method", "GET", [0]),
    ("attributes.http.request.method", "GET", [0]),
    ("resource.http.request.method", "GET", []),
    ("http.request", "GET", []),
    ("host.name", "h1", [1]),
    ("resource.host.name", "h1", [1]),
    ("code", "200", [0, 1]),
    ("code", "200.0", [2]),
    ("code", "2e2", []),
    ("ok", "true", [0]),
    ("ok", "1", []),
    ("ok", "True", []),
    ("big", "9223372036854775807", [0]),
    ("big", "9223372036854775808", []),
    ("float", "1e16", [0]),
    ("nan", "NaN", [0]),
    ("none", "null", []),
    ("list", "a", []),
    ("map", "a", []),
    ("map.a", "a", []),
    ("http", "scalar", [1]),
    ("http.x", "y", [1]),
    ("", "empty", [1]),
    ("$where", "1", [1]),
    ("a\0b", "nul", [1]),
    ("a..b", "dots", [1]),
    ("_id", "x", [1]),
    ("__proto__", "x", [1]),
    ("twice", "in resource", [2]),
    ("twice", "in attributes", [2]),
    ("context.user_id", "u", [2]),
    ("user.id", "u", [2]),
    ("exception.type", "ValueError", [2]),
    ("code.line.number", "42", [2]),
    ("message", "hello", []),
    ("service", "web", []),
    ("x" * 5000, "y", []),
    (".".join("x" * 200), "deep", [2]),
)


@pytest.mark.anyio
class StoreContract:
    """The promises; `store` comes from the subclass."""

    # --- durability, idempotence, isolation ---

    @each_signal
    async def test_documents_come_back_equal_after_a_restart(self, store, signal):
        """What was written is found, whole and equal, by another instance on the same place (A, L)."""
        written = [FULL[signal], MAKE[signal](2), MAKE[signal](3)]
        async with store() as first:
            assert await first.write(signal, written) == Written(3)
            assert exactly(await first.find(Query(signal=signal))) == exactly(written)
        async with store() as second:
            assert exactly(await second.find(Query(signal=signal))) == exactly(written)

    @each_signal
    async def test_the_same_documents_again_are_duplicates(self, store, signal):
        """A second write of stored documents succeeds, stores nothing and counts them, also after a restart."""
        written = [MAKE[signal](number) for number in range(5)]
        async with store() as first:
            assert await first.write(signal, written[:3]) == Written(3)
            assert await first.write(signal, written[:3]) == Written(0, duplicates=3)
        async with store() as second:
            assert await second.write(signal, written) == Written(2, duplicates=3)
            assert exactly(await second.find(Query(signal=signal))) == exactly(written)

    async def test_one_id_twice_in_a_write_is_stored_once(self, store):
        """Of two documents with the same id in one write, the first is stored, the second is a duplicate."""
        async with store() as opened:
            twice = [log(1, message="first"), log(1, message="second"), log(2)]
            assert await opened.write(Signal.LOGS, twice) == Written(2, duplicates=1)
            found = await opened.find(Query(signal=Signal.LOGS))
            assert exactly(found) == exactly([twice[0], twice[2]])

    async def test_a_document_that_cannot_be_stored_does_not_take_its_neighbours_along(self, store):
        """Bad ids, values without an encoding and oversize documents are refused alone, with a reason."""
        good = [log(1), log(2)]
        bad_id = {**log(3), "_id": "not an id"}
        surrogate = log(4, message="\ud800")
        foreign = log(5, attributes={"x": object()})
        large = log(6, message="x" * (16 * 1024 * 1024))
        async with store() as opened:
            mixed = [good[0], bad_id, surrogate, foreign, large, good[1]]
            assert await opened.write(Signal.LOGS, mixed) == Written(
                2,
                refused=(
                    Refused(bad_id, "invalid_id"),
                    Refused(surrogate, "cannot_encode"),
                    Refused(foreign, "cannot_encode"),
                    Refused(large, "too_large"),
                ),
            )
            assert exactly(await opened.find(Query(signal=Signal.LOGS))) == exactly(good)

    async def test_a_deep_value_comes_back_equal(self, store):
        """Maps and lists nested as deep as the receiver lets them (64 levels) survive (B14)."""
        deep = "end"
        for _ in range(32):
            deep = {"k": [deep]}
        async with store() as opened:
            stored = [log(1, attributes={"deep": deep, "a.b": 1}), log(2, body=deep)]
            assert await opened.write(Signal.LOGS, stored) == Written(2)
            assert exactly(await opened.find(Query(signal=Signal.LOGS))) == exactly(stored)

    async def test_nothing_to_write_is_success(self, store):
        """A write without documents stores nothing and says so."""
        async with store() as opened:
            assert await opened.write(Signal.TRACES, []) == Written(0)

    async def test_many_writes_at_once_are_all_stored_and_counted(self, store):
        """Concurrent writes that overlap store each document once, and their counts add up."""
        batches = [[span(number * 5 + offset) for offset in range(10)] for number in range(40)]
        async with store() as opened:
            counts = await asyncio.gather(
                *(opened.write(Signal.TRACES, batch) for batch in batches)
            )
            found = await opened.find(Query(signal=Signal.TRACES, limit=EVERYTHING))
        assert sum(written.stored for written in counts) == 205
        assert sum(written.duplicates for written in counts) == 195
        assert exactly(found) == exactly([span(number) for number in range(205)])

    async def test_a_closed_store_refuses_for_now(self, store):
        """A store that is closed answers Retryable, it never hangs."""
        opened = store()
        async with opened:
            pass
        with pytest.raises(Retryable):
            await opened.write(Signal.LOGS, [log(1)])
        with pytest.raises(Retryable):
            await opened.find(Query(signal=Signal.LOGS))

    async def test_closing_under_load_loses_nothing_acknowledged(self, store):
        """Writes and questions that meet a closing store end: stored and acknowledged, or Retryable."""
        opened = store()
        async with opened:
            await opened.write(Signal.TRACES, [span(100)])
            writes = [
                asyncio.create_task(opened.write(Signal.TRACES, [span(number)]))
                for number in range(30)
            ]
            questions = [
                asyncio.create_task(opened.find(Query(signal=Signal.TRACES))) for _ in range(30)
            ]
            await asyncio.wait([*writes, *questions], return_when=asyncio.FIRST_COMPLETED)
        answers = await asyncio.gather(*writes, *questions, return_exceptions=True)
        assert [each for each in answers if isinstance(each, BaseException)] == [
            each for each in answers if isinstance(each, Retryable)
        ]
        acknowledged = [span(number) for number in range(30) if answers[number] == Written(1)]
        async with store() as again:
            ids = {document["_id"] for document in await everything(again, Signal.TRACES)}
        assert {document["_id"] for document in [*acknowledged, span(100)]} <= ids

    # --- as an exporter ---

    async def test_a_batch_is_stored_as_its_documents_and_a_resend_is_counted(self, store):
        """Consuming a batch stores `documents(batch)`; the same batch again counts as duplicates."""
        message = strategies.MESSAGES[Signal.LOGS]()
        records = message.resource_logs.add().scope_logs.add().log_records
        records.add(time_unix_nano=T0).body.string_value = "one"
        records.add(time_unix_nano=T0).body.string_value = "one"
        batch = strategies.batch(Signal.LOGS, message)
        stats = Stats()
        async with store(stats=stats) as opened:
            await opened(batch)
            assert stats.snapshot() == {}
            await opened(batch)
            found = await opened.find(Query(signal=Signal.LOGS))
        assert exactly(found) == exactly(documents(batch))
        assert stats.snapshot() == {'otelier_store_duplicates{exporter="store"}': 2}

    # --- reading ---

    async def test_each_condition_of_a_query_narrows_it_down(self, store):
        """Every field of Query selects exactly the documents that its description says."""
        answers = []
        async with store() as opened:
            for signal, stored in STORED.items():
                await opened.write(signal, stored)
            for signal, asked, _ in QUESTIONS:
                found = await opened.find(Query(signal=signal, **asked))
                ids = [document["_id"] for document in STORED[signal]]
                answers.append((signal, asked, [ids.index(document["_id"]) for document in found]))
        assert answers == list(QUESTIONS)

    @pytest.mark.parametrize("key", LOOKUP)
    async def test_an_id_is_found_wherever_it_stands(self, store, key):
        """`id` finds spans and log records by each id of LOOKUP."""
        async with store() as opened:
            for signal in (Signal.TRACES, Signal.LOGS):
                wanted = MAKE[signal](1, context={key: "wanted"})
                await opened.write(signal, [wanted, MAKE[signal](2, context={key: "other"})])
                found = await opened.find(Query(signal=signal, id="wanted"))
                assert exactly(found) == exactly([wanted])

    async def test_where_compares_attributes_by_name_and_text(self, store):
        """`where` finds attributes and resource attributes of exactly that name, whatever the name is."""
        stored = [
            log(
                0,
                attributes={
                    "http.request.method": "GET",
                    "code": 200,
                    "ok": True,
                    "float": 1e16,
                    "big": 2**63 - 1,
                    "nan": NonFinite("nan"),
                    "none": None,
                    "list": ["a"],
                    "map": {"a": "a"},
                },
            ),
            log(
                1,
                resource={"host.name": "h1"},
                attributes={
                    "http": "scalar",
                    "http.x": "y",
                    "": "empty",
                    "$where": 1,
                    "code": "200",
                    "a\0b": "nul",
                    "a..b": "dots",
                    "_id": "x",
                    "__proto__": "x",
                },
            ),
            log(
                2,
                attributes={"code": 200.0, "twice": "in attributes", ".".join("x" * 200): "deep"},
                resource={"twice": "in resource"},
                context={"user_id": "u"},
                exception={"type": "ValueError"},
                line_number=42,
            ),
        ]
        ids = [document["_id"] for document in stored]
        answers = []
        async with store() as opened:
            await opened.write(Signal.LOGS, stored)
            for key, value, _ in WHERE:
                found = await opened.find(Query(signal=Signal.LOGS, where=((key, value),)))
                answers.append((key, value, [ids.index(document["_id"]) for document in found]))
            both = (("code", "200"), ("http", "scalar"))
            found = await opened.find(Query(signal=Signal.LOGS, where=both))
            assert exactly(found) == exactly([stored[1]])
        assert answers == list(WHERE)

    async def test_values_of_a_query_are_only_values(self, store):
        """Operators, SQL, patterns and broken Unicode in a query find nothing and change nothing (B47-B50)."""
        poison = [
            *(
                '{"$ne": null}',
                "$where",
                "' OR 1=1 --",
                "'; DROP TABLE logs; --",
                '"',
                "%",
                "*",
                "\0",
            ),
            *(".*", "$attributes.x", "(a+)+$", "\ud800", "a" * 100_000, ""),
        ]
        stored = [log(1, context={"user_id": "u"}, attributes={"k": "v"})]
        async with store() as opened:
            await opened.write(Signal.LOGS, stored)
            for text in poison:
                for asked in (
                    {"id": text},
                    {"trace_ids": (text,)},
                    {"service": text},
                    {"name": text},
                    {"status": text},
                    {"context": {"user_id": text}},
                    {"context": {text: "u"}},
                    {"where": (("k", text),)},
                    {"where": ((text, "v"),)},
                    {"where": ((f"attributes.{text}", "v"),)},
                    {"where": ((f"context.{text}", "u"),)},
                ):
                    assert await opened.find(Query(signal=Signal.LOGS, **asked)) == []
            assert exactly(await opened.find(Query(signal=Signal.LOGS))) == exactly(stored)

    async def test_hostile_text_that_was_stored_is_found_as_text(self, store):
        """A service, an id or an attribute with operators and SQL in it is found by exactly that text."""
        texts = ['{"$ne": null}', "$where", "' OR 1=1 --", "%", "\0", "a\\'b", "ünïcode"]
        async with store() as opened:
            for number, text in enumerate(texts):
                found = log(
                    number, service=text, context={"order_id": text}, attributes={"k": text}
                )
                await opened.write(Signal.LOGS, [found])
                for asked in ({"id": text}, {"service": text}, {"where": (("k", text),)}):
                    answer = await opened.find(Query(signal=Signal.LOGS, **asked))
                    assert exactly(answer) == exactly([found])

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_pages_follow_each_other_without_gap_or_repeat(self, store, newest_first):
        """Paging with `after` walks all documents in order of time, then id, over all levels."""
        levels = [("DEBUG", 5), ("INFO", 9), ("WARNING", 13), ("ERROR", 17), ("CRITICAL", 21)]
        stored = [
            # Three documents share each nanosecond, and many a millisecond.
            log(
                number,
                time_unix_nano=T0 + number // 3,
                level=levels[number % 5][0],
                severity_number=levels[number % 5][1],
            )
            for number in range(30)
        ]
        found = []
        after = None
        async with store() as opened:
            await opened.write(Signal.LOGS, stored[::-1])
            while True:
                query = Query(signal=Signal.LOGS, limit=7, after=after, newest_first=newest_first)
                page = await opened.find(query)
                if not page:
                    break
                found.append(exactly(page))
                after = (page[-1]["time_unix_nano"], page[-1]["_id"])
        order = exactly(stored[::-1] if newest_first else stored)
        assert found == [order[start : start + 7] for start in range(0, 30, 7)]

    async def test_times_up_to_the_last_nanosecond_of_otlp_are_ordered(self, store):
        """Unsigned 64-bit times are stored exactly, ordered and compared, from 1970 to 2554 (B31, B33)."""
        times = [0, 1, T0, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
        stored = [log(number, time_unix_nano=time) for number, time in enumerate(times)]
        async with store() as opened:
            await opened.write(Signal.LOGS, stored[::-1])
            everything = await opened.find(Query(signal=Signal.LOGS))
            assert exactly(everything) == exactly(stored)
            for number, time in enumerate(times):
                late = await opened.find(Query(signal=Signal.LOGS, since_unix_nano=time))
                early = await opened.find(Query(signal=Signal.LOGS, until_unix_nano=time))
                behind = await opened.find(
                    Query(signal=Signal.LOGS, after=(time, stored[number]["_id"]))
                )
                assert exactly(late) == exactly(stored[number:])
                assert exactly(early) == exactly(stored[:number])
                assert exactly(behind) == exactly(stored[number + 1 :])

    async def test_a_store_without_documents_answers_with_an_empty_list(self, store):
        """Nothing stored, nothing found, no error, for every signal."""
        async with store() as opened:
            answers = [await opened.find(Query(signal=signal, id="x")) for signal in Signal]
        assert answers == [[], [], []]

    @pytest.mark.parametrize(
        "wrong", [{"limit": 0}, {"limit": 10_001}, {"after": (1, "$")}, {"after": (1, "é" * 24)}]
    )
    async def test_a_query_that_no_store_can_answer_is_refused_when_it_is_made(self, wrong):
        """Limits outside 1 to 10000 and cursors that are none raise ValueError."""
        with pytest.raises(ValueError, match=r"limit|after"):
            Query(signal=Signal.LOGS, **wrong)

    # --- read-only ---

    async def test_a_read_only_store_sees_what_a_writer_writes(self, store):
        """A read-only instance answers while another one writes, and writes nothing itself."""
        async with store() as writer:
            await writer.write(Signal.LOGS, [log(1)])
            async with store(read_only=True) as reader:
                assert exactly(await reader.find(Query(signal=Signal.LOGS))) == exactly([log(1)])
                await writer.write(Signal.LOGS, [log(2)])
                found = await reader.find(Query(signal=Signal.LOGS))
                assert exactly(found) == exactly([log(1), log(2)])
                with pytest.raises(Permanent):
                    await reader.write(Signal.LOGS, [log(3)])
                assert len(await reader.find(Query(signal=Signal.LOGS))) == 2

    # --- whatever the client sends ---

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        fields=st.lists(
            st.fixed_dictionaries(
                {"attributes": hostile_maps},
                optional={
                    "resource": hostile_maps,
                    "body": values.filter(
                        lambda value: value is not None and type(value) is not str
                    ),
                    "events": st.lists(
                        st.fixed_dictionaries({"attributes": hostile_maps}), max_size=2
                    ),
                    "scope": st.fixed_dictionaries({"name": names, "attributes": hostile_maps}),
                },
            ),
            min_size=1,
            max_size=5,
        )
    )
    async def test_any_attributes_come_back_equal_and_are_found(self, store, fields):
        """Names with dots, `$`, NUL or nothing at all and values of every kind survive and are findable (B33-B36)."""
        first = uuid.uuid4().int >> 70
        stored = [log(first + number, **each) for number, each in enumerate(fields)]
        async with store() as opened:
            assert await opened.write(Signal.LOGS, stored) == Written(len(stored))
            everything = await opened.find(Query(signal=Signal.LOGS, limit=EVERYTHING))
            ids = {document["_id"] for document in stored}
            found = [document for document in everything if document["_id"] in ids]
            assert exactly(found) == exactly(stored)
            for document in stored:
                for key, value in document["attributes"].items():
                    if type(value) is str:
                        query = Query(signal=Signal.LOGS, where=((key, value),), limit=EVERYTHING)
                        assert document["_id"] in {each["_id"] for each in await opened.find(query)}

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(asked=requests)
    async def test_any_request_comes_back_as_its_documents(self, store, asked):
        """Whatever OTLP request arrives, `find` returns its documents."""
        signal, message = asked
        unique = uuid.uuid4()
        batch = strategies.batch(signal, message, key=unique.bytes, tenant=unique.hex)
        expected = {}
        for document in documents(batch):
            expected.setdefault(document["_id"], document)
        async with store() as opened:
            await opened(batch)
            found = await opened.find(Query(signal=signal, limit=EVERYTHING))
        mine = {document["_id"]: document for document in found if document["_id"] in expected}
        assert {key: exactly([each]) for key, each in mine.items()} == {
            key: exactly([each]) for key, each in expected.items()
        }
