"""
What every store promises beyond `find`: summaries, following, walking, taking over.

As contracts/stores.py: a store's own test file makes a class from `ReadingContract` and gives it the
fixture `store`.
"""

import asyncio
import contextlib
import datetime

import msgspec
import pytest

from collector.errors import Permanent, Retryable
from collector.model import Signal
from collector.stores.base import DailyStatistic, Failure, Query, Written, failure_of
from collector.stores.dead_letters import dead_letter
from tests.contracts.stores import RECEIVED, T0, TRACE, exactly, log, point, span, without

MANY = 10_000
GIVE_UP_S = 60.0


def ids(found):
    return [document["_id"] for document in found]


# --- the slowest ---

DURATIONS = (0.5, 5_000.0, 1.5, 1_000.0, 1_000.1, 70_000.0, 5_000.0, 999.9, 0.0)
SLOW = [
    span(
        number,
        duration_ms=duration,
        service=("web", "db")[number % 2],
        **({"parent_span_id": "00f067aa0ba902b7"} if number % 3 else {}),
    )
    for number, duration in enumerate(DURATIONS)
]
SLOWEST = sorted(SLOW, key=lambda span: (span["duration_ms"], span["_id"]), reverse=True)

SLOW_QUESTIONS = (
    ({}, lambda span: True),
    ({"min_duration_ms": 1_000.0}, lambda span: span["duration_ms"] >= 1_000),
    ({"min_duration_ms": 1_000.05}, lambda span: span["duration_ms"] > 1_000),
    ({"min_duration_ms": 1e9}, lambda span: False),
    ({"service": "db"}, lambda span: span["service"] == "db"),
    ({"roots": True}, lambda span: "parent_span_id" not in span),
    ({"since_unix_nano": T0 + 4}, lambda span: span["start_unix_nano"] >= T0 + 4),
    ({"where": (("nothing", "x"),)}, lambda span: False),
    ({"service": '{"$ne": null}'}, lambda span: False),
    ({"service": "\ud800"}, lambda span: False),
)

# --- failures ---


def failed(number, kind, message, **fields):
    told = {"exception": {"type": kind, "message": message}} if kind else {}
    words = "it failed" if kind else message
    return log(
        number, **{"level": "ERROR", "severity_number": 17, "message": words, **told, **fields}
    )


FAILED = [
    failed(1, "ValueError", "no margin", trace={"trace_id": TRACE}),
    failed(2, "ValueError", "no margin"),
    failed(3, "ValueError", "no margin", service="db"),
    failed(4, "KeyError", "no margin"),
    failed(5, None, "disk full", level="CRITICAL"),
    failed(6, "ValueError", "", event="order.failed"),
    failed(7, None, "x" * 1000 + "1", trace={"trace_id": "f" * 32}),
    failed(8, None, "x" * 1000 + "2", trace={"trace_id": "e" * 32}),
    failed(9, None, "$$ROOT", attributes={"audit.sequence": 1}),
    without(failed(10, None, "numberless"), "severity_number"),
    log(11, message="all is well"),
    log(12, level="WARNING", severity_number=13, exception={"type": "ValueError"}),
]
FAILED[6]["severity_number"] = FAILED[7]["severity_number"] = 21
BROKEN = [
    span(1, status="ERROR", attributes={"error.type": "ValueError"}, status_message="no margin"),
    span(2, status="ERROR", attributes={"error.type": "ValueError"}, status_message="no margin"),
    span(3, status="ERROR", name="GET /broken"),
    span(4, status="ERROR", attributes={"error.type": 7}, service="db"),
    span(5, status="OK", attributes={"error.type": "ValueError"}),
]


def counted(signal, documents):
    """The groups of some documents, counted here."""
    groups = {}
    nano = "start_unix_nano" if signal is Signal.TRACES else "time_unix_nano"
    for document in sorted(documents, key=lambda document: document[nano]):
        kind, message = failure_of(signal, document)
        trace = document.get("trace", document).get("trace_id", "")
        key = (kind, message, document["service"])
        old = groups.get(key)
        groups[key] = Failure(
            type=kind,
            message=message,
            service=document["service"],
            count=old.count + 1 if old else 1,
            first_unix_nano=old.first_unix_nano if old else document[nano],
            last_unix_nano=document[nano],
            trace_id=trace or (old.trace_id if old else ""),
        )
    return sorted(groups.values(), key=lambda group: -group.last_unix_nano)


# --- following ---


class Follower:
    """Collects what `follow` gives, until a condition holds."""

    def __init__(self, store, query=None, after=""):
        self._steps = store.follow(query or Query(signal=Signal.LOGS), after)
        self.found = []
        self.gaps = []
        self.position = ""

    async def __aenter__(self):
        await self.step()
        return self

    async def __aexit__(self, *exc):
        await self._steps.aclose()

    async def step(self):
        async with asyncio.timeout(GIVE_UP_S):
            step = await anext(self._steps)
        self.found += step.logs
        self.gaps += [step.gap] if step.gap else []
        self.position = step.position

    async def until(self, count):
        while len(self.once()) < count:
            await self.step()
        return self

    def once(self):
        """What was found, each id once: right behind a position repeats may come."""
        return list({document["_id"]: document for document in self.found}.values())


ROW = DailyStatistic(
    day=datetime.date(2027, 1, 15),
    kind="analysis",
    band="LOW",
    model="m",
    tenant="$t",
    count=7,
    errors=1,
    fallbacks=2,
    scores=5,
    score_sum=2.5,
    score_min=0.25,
    score_max=1.0,
    durations=0,
)
ALWAYS = (datetime.date(1970, 1, 1), datetime.date(2500, 1, 1))


@pytest.mark.anyio
class FollowingContract:
    """What is promised to those who follow; `store` comes from the subclass."""

    async def test_following_gives_what_is_new_in_every_collection(self, store):
        """From now on: each new record once, of any level, event or age, and nothing that was there."""
        async with store() as opened:
            await opened.write(Signal.LOGS, [log(1), log(2, level="ERROR")])
            async with Follower(opened) as follower:
                new = [
                    log(3, level="DEBUG"),
                    log(4, level="ERROR"),
                    log(5, event="risk.score.evaluated"),
                    log(6, attributes={"audit.sequence": 1}),
                    log(7, time_unix_nano=1),
                ]
                await opened.write(Signal.LOGS, new[:3])
                await opened.write(Signal.LOGS, new[3:])
                await opened.write(Signal.TRACES, [span(8)])
                await follower.until(5)
                await opened.write(Signal.LOGS, [*new, log(9)])
                await follower.until(6)
        assert sorted(exactly(follower.once())) == sorted(exactly([*new, log(9)]))
        assert follower.gaps == []

    async def test_following_goes_on_behind_a_position(self, store):
        """What came while nobody followed is given when it goes on, also by another instance (D4)."""
        async with store() as opened:
            async with Follower(opened) as first:
                await opened.write(Signal.LOGS, [log(1), log(2, level="ERROR")])
                await first.until(2)
            await opened.write(Signal.LOGS, [log(3), log(4, level="DEBUG")])
        async with store() as again, Follower(again, after=first.position) as second:
            await again.write(Signal.LOGS, [log(5, level="CRITICAL")])
            await second.until(3)
            while {log(5)["_id"]} - set(ids(second.once())):
                await second.step()
        both = {*ids(first.once()), *ids(second.once())}
        assert both == {log(number)["_id"] for number in range(1, 6)}
        assert set(ids(second.once())) >= {log(number)["_id"] for number in (3, 4, 5)}
        assert first.gaps == second.gaps == []

    async def test_following_from_an_empty_store(self, store):
        """A store that holds nothing yet can be followed, and the first record ever is given."""
        async with store() as writer:
            async with Follower(writer) as follower:
                first = follower.position
                await writer.write(Signal.LOGS, [log(1)])
                await follower.until(1)
            async with Follower(writer, after=first) as again:
                await again.until(1)
        assert exactly(follower.found) == exactly(again.once()) == exactly([log(1)])

    @pytest.mark.parametrize(
        "asked",
        [
            {"min_severity": 17},
            {"service": "db"},
            {"name": "order.paid"},
            {"names": ("order.paid", "x")},
            {"text": "TIME"},
            {"where": (("http.route", "/a"),)},
            {"context": {"correlation_id": "c-1", "user_id": "u"}},
            {"trace_ids": (TRACE,)},
            {"id": "c-1"},
            {"task_ids": ("t-1",)},
            {"since_unix_nano": T0 + 100},
            {"collection": "error_logs"},
        ],
        ids=str,
    )
    async def test_following_takes_conditions(self, store, asked):
        """Every condition on log records narrows down what is followed."""
        wanted = log(
            200,
            level="ERROR",
            severity_number=17,
            service="db",
            event="order.paid",
            message="a timeout",
            attributes={"http.route": "/a"},
            context={"correlation_id": "c-1", "user_id": "u", "task_id": "t-1"},
            trace={"trace_id": TRACE},
        )
        query = Query(signal=Signal.LOGS, **asked)
        async with store() as opened, Follower(opened, query) as follower:
            await opened.write(Signal.LOGS, [log(1), wanted, log(2)])
            await follower.until(1)
            await opened.write(
                Signal.LOGS, [log(3), {**wanted, "_id": "f" * 24, "time_unix_nano": T0 + 300}]
            )
            await follower.until(2)
        assert ids(follower.once()) == [wanted["_id"], "f" * 24]

    @pytest.mark.parametrize(
        "after",
        ["x", "s:", "s:{}", "s:00$ne", "p:e30", "p:!", "r:x", "r:1.zz", "p:eyIkbmUiOiIxIn0="],
    )
    async def test_a_forged_position_is_refused(self, store, after):
        """A position that no step ever gave is a ValueError, or means that there is none."""
        async with store() as opened:
            steps = opened.follow(Query(signal=Signal.LOGS), after)
            with contextlib.suppress(StopAsyncIteration):
                try:
                    with pytest.raises(ValueError, match="position"):
                        await anext(steps)
                finally:
                    await steps.aclose()

    async def test_closing_a_store_ends_those_who_follow(self, store):
        """Whoever follows a store that closes is told so, and never hangs."""
        opened = store()
        async with opened:
            follower = Follower(opened)
            await follower.step()
        with pytest.raises(Retryable):
            await follower.until(1)
        with pytest.raises(Retryable):
            await Follower(opened).step()

    async def test_many_records_are_followed_without_loss(self, store):
        """Writes that run at the same time are all given, each at least once."""
        batches = [[log(number * 50 + each) for each in range(50)] for number in range(40)]
        async with store() as opened, Follower(opened) as follower:
            writes = [asyncio.create_task(opened.write(Signal.LOGS, batch)) for batch in batches]
            await follower.until(2000)
            await asyncio.gather(*writes)
        assert sorted(ids(follower.once())) == [log(number)["_id"] for number in range(2000)]
        assert follower.gaps == []


@pytest.mark.anyio
class ReadingContract(FollowingContract):
    """The promises; `store` comes from the subclass."""

    # --- the slowest ---

    async def test_the_slowest_come_first_whatever_is_asked(self, store):
        """`slowest` gives the spans that match, by duration and then `_id`, and nothing else."""
        async with store() as opened:
            await opened.write(Signal.TRACES, SLOW)
            await opened.write(Signal.LOGS, [log(1)])
            for asked, wanted in SLOW_QUESTIONS:
                found = await opened.slowest(Query(signal=Signal.TRACES, **asked))
                assert exactly(found) == exactly(filter(wanted, SLOWEST)), asked
            assert await opened.slowest(Query(signal=Signal.LOGS)) == []

    @pytest.mark.parametrize("limit", [1, 2, 4])
    async def test_the_slowest_in_pages(self, store, limit):
        """Page behind page gives each span once, also where durations are equal or a second."""
        async with store() as opened:
            await opened.write(Signal.TRACES, SLOW)
            pages = []
            after = None
            while page := await opened.slowest(Query(signal=Signal.TRACES, limit=limit), after):
                pages += page
                after = (page[-1]["duration_ms"], page[-1]["_id"])
        assert exactly(pages) == exactly(SLOWEST)

    # --- failures ---

    async def test_failures_are_counted_by_type_message_and_service(self, store):
        """`failures` counts log records and spans, with first and last time and a trace, latest first."""
        errors = [each for each in FAILED if each["level"] in ("ERROR", "CRITICAL")]
        async with store() as opened:
            await opened.write(Signal.LOGS, FAILED)
            await opened.write(Signal.TRACES, BROKEN)
            found = await opened.failures(Query(signal=Signal.LOGS, min_severity=17))
            assert found == counted(Signal.LOGS, errors)
            found = await opened.failures(
                Query(signal=Signal.LOGS, min_severity=17, since_unix_nano=T0 + 2, service="web")
            )
            later = [each for each in errors if each["time_unix_nano"] >= T0 + 2]
            assert found == counted(
                Signal.LOGS, [each for each in later if each["service"] == "web"]
            )
            spans = await opened.failures(Query(signal=Signal.TRACES, status="ERROR"))
            assert spans == counted(Signal.TRACES, BROKEN[:4])
            (newest,) = await opened.failures(Query(signal=Signal.LOGS, min_severity=17, limit=1))
            assert newest.message == "numberless"
            for asked in ({"service": '{"$ne": ""}'}, {"service": "\ud800"}):
                assert await opened.failures(Query(signal=Signal.LOGS, **asked)) == []

    async def test_a_failure_question_that_has_no_index_is_refused(self, store):
        """Groups of failures cannot be narrowed by text or attributes, and say so."""
        async with store() as opened:
            for asked in ({"text": "x"}, {"where": (("a", "b"),)}):
                with pytest.raises(ValueError, match="failures: a question with"):
                    await opened.failures(Query(signal=Signal.LOGS, **asked))

    # --- moving ---

    async def test_a_collection_by_name_wins_over_the_routes(self, store):
        """`write` into a named collection keeps documents there, the trail too; once each."""
        record, trail = log(1, event="risk.score.evaluated"), log(2, trace={"trace_id": TRACE})
        async with store() as opened:
            assert await opened.write(Signal.LOGS, [record], collection="lead_events") == Written(1)
            for written in (Written(1), Written(0, duplicates=1)):
                assert await opened.write(Signal.LOGS, [trail], collection="trace_logs") == written
            assert await opened.find(Query(signal=Signal.LOGS, collection="analytics")) == []
            found = await opened.find(Query(signal=Signal.LOGS, collection="lead_events"))
            assert exactly(found) == exactly([record])
            assert exactly(await opened.find(Query(signal=Signal.LOGS))) == exactly([record])
            found = await opened.find(Query(signal=Signal.LOGS, collection="trace_logs"))
            assert exactly(found) == exactly([trail])
            assert await opened.sizes() == {"lead_events": 1, "trace_logs": 1}

    async def test_a_walk_meets_every_document_once(self, store):
        """Walking through each collection of `sizes` gives each document once, in any step size."""
        logs = [
            log(
                number,
                level=("INFO", "ERROR")[number % 2],
                received_at=RECEIVED + datetime.timedelta(days=number % 3),
            )
            for number in range(10)
        ]
        stored = {
            "info_logs": [each for each in logs if each["level"] == "INFO"],
            "error_logs": [each for each in logs if each["level"] == "ERROR"],
            "spans": [span(number) for number in range(7)],
            "metrics": [point(number) for number in range(3)],
        }
        async with store() as opened:
            await opened.write(Signal.LOGS, logs)
            await opened.write(Signal.TRACES, stored["spans"])
            await opened.write(Signal.METRICS, stored["metrics"])
            assert await opened.sizes() == {name: len(each) for name, each in stored.items()}
            for limit in (1, 3, MANY):
                for name, documents in stored.items():
                    found, position = [], ""
                    while position is not None:
                        step = await opened.walk(name, limit=limit, after=position)
                        found += step.documents
                        position = step.position
                    assert sorted(exactly(found)) == sorted(exactly(documents))
            assert (await opened.walk("nothing_events", limit=1)).documents == []
            with pytest.raises(ValueError, match="position"):
                await opened.walk("spans", limit=1, after="x")

    async def test_documents_are_fetched_by_id(self, store):
        """`fetch` gives the documents of one collection that have one of the ids."""
        async with store() as opened:
            await opened.write(Signal.LOGS, [log(number) for number in range(1500)])
            await opened.write(Signal.TRACES, [span(1)])
            wanted = [log(number)["_id"] for number in range(1, 1500, 2)]
            found = await opened.fetch("info_logs", [*wanted, "f" * 24, "no id"])
            assert sorted(ids(found)) == wanted
            assert exactly(await opened.fetch("spans", ids([span(1)]))) == exactly([span(1)])
            assert await opened.fetch("error_logs", wanted) == []
            assert await opened.fetch("info_logs", []) == []

    async def test_letters_and_statistics_are_taken_over_once(self, store):
        """Letters stay as they are; of two rows the one that counts more stays, whichever comes first."""
        letters = [
            dead_letter(Signal.LOGS, "info_logs", log(number), "too_large") for number in range(3)
        ]
        more = msgspec.structs.replace(ROW, count=9, score_sum=4.0, tenant="other")
        less = msgspec.structs.replace(more, count=8, score_sum=3.0)
        async with store() as opened:
            for _ in range(2):
                await opened.take_over(letters=letters, statistics=[ROW, less])
                await opened.take_over(statistics=[more])
                await opened.take_over(statistics=[less])
            kept = await opened.dead_letters(limit=MANY)
            assert sorted(kept, key=lambda each: each.id) == sorted(
                letters, key=lambda each: each.id
            )
            assert await opened.daily_statistics(*ALWAYS) == [ROW, more]
        async with store(read_only=True) as reader:
            with pytest.raises(Permanent):
                await reader.take_over(statistics=[ROW])
