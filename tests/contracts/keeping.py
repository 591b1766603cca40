"""
What every store promises about where documents are kept, for how long, and what is made of them.

As contracts/stores.py: a store's own test file makes a class from `KeepingContract` and gives it the
fixture `store`, which also takes keys of the store's configuration.
"""

import asyncio
import datetime
import time
from collections import Counter
from itertools import chain

import pytest

from collector.cli.dead_letters import rewrite
from collector.documents.build import documents, dumps, moment
from collector.errors import Permanent
from collector.model import Signal
from collector.stats import Stats
from collector.stores.base import DailyStatistic, Query, Refused, Written
from tests import strategies
from tests.contracts.stores import (
    T0,
    exactly,
    identity,
    log,
    point,
    span,
    without,
)

DAY = 86_400
NOW = moment(time.time_ns() // 10**6 * 10**6)


async def until(condition, give_up_s=75.0):
    """Wait for something that the store does by itself."""
    deadline = time.monotonic() + give_up_s
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def ids(found):
    return [document["_id"] for document in found]


def evaluated(number, band="LOW", score=0.5, *, tenant=None, day=0, **attributes):
    """An analysis: a fact of the statistics."""
    time = T0 + day * DAY * 10**9 + number
    values = {"risk.band": band, "risk.score.final": score, "risk.evaluation.duration_s": 0.25}
    values |= attributes
    fields = {"context": {"tenant_id": tenant}} if tenant else {}
    values = {name: value for name, value in values.items() if value is not None}
    return log(
        number, time_unix_nano=time, event="risk.score.evaluated", attributes=values, **fields
    )


def recount(facts):
    """The statistics of facts, counted here."""
    rows = {}
    for fact in facts:
        attributes = fact["attributes"]
        context = fact.get("context", {})
        inference = fact["event"] == "risk.inference.finished"
        score = attributes.get("risk.inference.score" if inference else "risk.score.final")
        seconds = "risk.inference.duration_s" if inference else "risk.evaluation.duration_s"
        models = [
            attributes.get(f"risk.{key}")
            for key in ("model.name", "ensemble.name", "model.version")
        ]
        key = (
            moment(fact["time_unix_nano"]).date(),
            "inference" if inference else "analysis",
            context.get("tenant_id") or context.get("organization_id") or "",
            next((model for model in models if type(model) is str), ""),
            attributes.get("risk.band", ""),
        )
        row = rows.setdefault(key, Counter(scores=[], durations=[]))
        row["count"] += 1
        row["errors"] += "error.type" in attributes
        row["fallbacks"] += attributes.get("risk.fallback", "none") != "none"
        row["scores"] += [score] if type(score) in (int, float) else []
        row["durations"] += [attributes[seconds]] if seconds in attributes else []
    return [
        DailyStatistic(
            day=day,
            kind=kind,
            tenant=tenant,
            model=model,
            band=band,
            count=row["count"],
            errors=row["errors"],
            fallbacks=row["fallbacks"],
            scores=len(row["scores"]),
            score_sum=float(sum(row["scores"])),
            score_min=min(row["scores"], default=None),
            score_max=max(row["scores"], default=None),
            durations=len(row["durations"]),
            duration_s_sum=float(sum(row["durations"])),
            duration_s_max=max(row["durations"], default=None),
        )
        for (day, kind, tenant, model, band), row in sorted(rows.items())
    ]


FACTS = [
    *(evaluated(number, ("LOW", "HIGH")[number % 2], number / 4) for number in range(10)),
    *(evaluated(number, tenant="t-1") for number in range(10, 13)),
    evaluated(13, **{"risk.model.name": "m", "risk.fallback": "ml_timeout"}),
    evaluated(14, **{"risk.ensemble.name": "e", "risk.fallback": "none", "risk.score.final": 3}),
    evaluated(15, None, None, **{"error.type": "ValueError", "risk.model.version": "v1"}),
    evaluated(16, day=1),
    evaluated(17, day=-400),
    evaluated(18, score="high", **{"risk.model.name": 7}),
    {**evaluated(19), "context": {"organization_id": "o-1"}},
    log(
        20,
        event="risk.inference.finished",
        attributes={"risk.model.name": "m", "risk.inference.duration_s": 0.5},
    ),
    log(
        21,
        event="risk.inference.finished",
        attributes={"risk.model.name": "m", "risk.inference.score": 2, "error.type": "timeout"},
    ),
]
ALWAYS = (datetime.date(1970, 1, 1), datetime.date(2500, 1, 1))


@pytest.mark.anyio
class KeepingContract:
    """The promises; `store` comes from the subclass."""

    # --- places ---

    async def test_r5_each_record_is_kept_where_its_event_belongs(self, store):
        """Audit marks, event names and levels choose one collection each, and `find` sees every record once (R5, O6)."""
        stream = {"audit.stream": "s", "audit.sequence": 1}
        written = {
            "debug_logs": [log(0, level="DEBUG", severity_number=5)],
            "info_logs": [
                log(1),
                log(2, event="order.paid"),
                log(3, event="quiet.thing"),
                log(4, level="STRANGE"),
            ],
            "warning_logs": [log(5, level="WARNING", severity_number=13)],
            "error_logs": [log(6, level="ERROR", severity_number=17, event="level.kept")],
            "critical_logs": [log(7, level="CRITICAL", severity_number=21)],
            "audit_logs": [
                log(8, event="order.opened", attributes=stream),
                log(9, attributes={"audit.sequence": 2}, level="DEBUG", severity_number=5),
                log(10, event="risk.score.evaluated", attributes={"audit.stream": "s"}),
                log(11, event="login.failed"),
            ],
            "analytics": [log(12, event="risk.score.evaluated"), log(13, event="lead.qualified")],
            "ml_inferences": [
                log(14, event="risk.inference.finished", level="ERROR", severity_number=17),
                log(15, event="gen_ai.client.inference.operation.details"),
            ],
            "shop_events": [log(16, event="lead.lost"), log(17, event="lead.")],
        }
        events = {
            "lead.*": "shop_events",
            "lead.qualified": "analytics",
            "login.*": "audit_logs",
            "login.failed*": "audit_logs",
            "level.kept": "level",
            "quiet*": "level",
        }
        everything = sorted(chain(*written.values()), key=lambda each: each["time_unix_nano"])
        async with store(events=events) as opened:
            assert await opened.write(Signal.LOGS, everything) == Written(len(everything))
            found = {
                name: await opened.find(Query(signal=Signal.LOGS, collection=name))
                for name in written
            }
            assert {name: exactly(each) for name, each in found.items()} == {
                name: exactly(each) for name, each in written.items()
            }
            assert exactly(await opened.find(Query(signal=Signal.LOGS))) == exactly(everything)
            errors = await opened.find(Query(signal=Signal.LOGS, min_severity=17))
            assert ids(errors) == [identity(6), identity(7), identity(14)]
            nothing = [
                await opened.find(Query(signal=Signal.LOGS, collection=name))
                for name in ("spans", "trace_logs", "$where", "dead_letters", "other_events")
            ]
            assert nothing == [[]] * 5
        async with store(read_only=True) as reader:  # which knows nothing of the routes
            assert exactly(await reader.find(Query(signal=Signal.LOGS))) == exactly(everything)

    async def test_changed_routes_never_show_a_record_twice(self, store):
        """A record that is sent again after its event got another collection is still found once, also page by page."""
        stored = [log(number, event="lead.lost") for number in range(6)]
        async with store() as opened:
            await opened.write(Signal.LOGS, stored)
        async with store(events={"lead.lost": "shop_events"}) as opened:
            await opened.write(Signal.LOGS, stored)
            for newest in (False, True):
                order = stored[::-1] if newest else stored
                query = Query(signal=Signal.LOGS, newest_first=newest, limit=4)
                assert ids(await opened.find(query)) == ids(order[:4])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"events": {"a b": "analytics"}},
            {"events": {"a.*.b": "analytics"}},
            {"events": {"a": "info_logs"}},
            {"events": {"a": "spans"}},
            {"events": {"a": "Shop_events"}},
            {"retention": {"info_logs": "soon"}},
            {"retention": {"info_logs": "0d"}},
            {"retention": {"info_logs": -1}},
            {"retention": {"info_logs": 30_000_000}},
            {"retention": {"info_logs": "30d x"}},
            {"retention": {"daily_statistics": 7}},
            {"retention": {"infologs": 7}},
        ],
        ids=str,
    )
    def test_places_and_times_that_make_no_sense_are_refused_at_once(self, store, wrong):
        """Wrong routes and retentions are errors of the configuration that name the key."""
        ((key, values),) = wrong.items()
        with pytest.raises(ValueError, match=rf"^{key}"):
            store(**{key: values})

    async def test_a5_each_finished_request_task_and_block_leaves_one_trail(self, store):
        """`trace_logs` has one document per finished request, task or timed block: the map of ids to traces (A5)."""
        trace, context = f"{7:032x}", {"correlation_id": "c-1", "request_id": "r-1"}
        ms = 1_500_000
        request = span(
            1, kind="SERVER", trace_id=trace, span_id=f"{1:016x}", context=context,
            attributes={"http.route": "/orders", "http.request.method": "GET"},
        )  # fmt: skip
        told = log(  # the same request, as a log record: the trail of whichever came first stays
            2, trace={"trace_id": trace, "span_id": f"{1:016x}", "execution_time_ms": 1.4,
            "status": "success"}, context=context, message="GET /orders 200",
        )  # fmt: skip
        task = span(
            3, kind="CONSUMER", trace_id=trace, span_id=f"{2:016x}", status="ERROR", name="run/pay"
        )
        block = log(4, trace={"execution_time_ms": 9.0, "status": "success"}, context=context)
        others = [
            span(5, trace_id=trace, span_id=f"{3:016x}", context=context),
            log(6, trace={"trace_id": trace, "span_id": f"{1:016x}"}, context=context),
        ]
        by_name = Query(signal=Signal.LOGS, collection="trace_logs")
        async with store() as opened:
            for _ in range(2):  # again: the same trail
                await opened.write(Signal.TRACES, [request, task, others[0]])
                await opened.write(Signal.LOGS, [told, block, others[1]])
            found = await opened.find(by_name)
            logs = await opened.find(Query(signal=Signal.LOGS))
            by_id = await opened.find(
                Query(signal=Signal.LOGS, collection="trace_logs", context={"request_id": "r-1"})
            )
        assert exactly(logs) == exactly([told, block, others[1]])
        assert ids(by_id) == ids(each for each in found if "context" in each)
        request_end, task_end = request["end_unix_nano"], task["end_unix_nano"]
        assert request_end - request["start_unix_nano"] == ms
        assert exactly(without(each, "_id") for each in found) == exactly(
            [
                without(block, "_id"),
                {
                    "timestamp": moment(request_end),
                    "time_unix_nano": request_end,
                    "level": "INFO",
                    "message": "GET /",
                    "trace": {
                        "trace_id": trace,
                        "span_id": f"{1:016x}",
                        "execution_time_ms": 1.5,
                        "status": "success",
                    },
                    "attributes": {"http.route": "/orders"},
                    "received_at": request["received_at"],
                    "service": "web",
                    "context": context,
                },
                {
                    "timestamp": moment(task_end),
                    "time_unix_nano": task_end,
                    "level": "ERROR",
                    "message": "run/pay",
                    "trace": {
                        "trace_id": trace,
                        "span_id": f"{2:016x}",
                        "execution_time_ms": 1.5,
                        "status": "error",
                    },
                    "received_at": task["received_at"],
                    "service": "web",
                },
            ]
        )

    # --- retention ---

    async def test_a5_old_arrivals_go_and_others_stay(self, store):
        """Documents older than their collection keeps go by arrival; absurd event times change nothing, unlimited stays (A5)."""
        old = NOW - datetime.timedelta(days=20)
        absurd = [0, 1, 2**63 - 1, 2**64 - 1]
        kept = [
            *(log(each, time_unix_nano=time, received_at=NOW) for each, time in enumerate(absurd)),
            log(10, received_at=old),
            log(
                11, received_at=old, event="risk.score.evaluated", level="DEBUG", severity_number=5
            ),
            log(12, received_at=old, event="own.thing"),
        ]
        gone = [
            *(log(20 + number, received_at=old, level="DEBUG") for number in range(1200)),
            *(
                log(30_000 + each, received_at=old, level="ERROR", time_unix_nano=time)
                for each, time in enumerate(absurd)
            ),
        ]
        keys = {
            "events": {"own.*": "own_events"},
            "retention": {"error_logs": "36h", "own_events": "unlimited", "metrics": 5},
        }
        async with store(**keys) as opened:
            assert await opened.write(Signal.LOGS, [*kept, *gone]) == Written(len(kept) + len(gone))
            await opened.write(
                Signal.METRICS, [point(1, received_at=old), point(2, received_at=NOW)]
            )
            await opened.write(Signal.TRACES, [span(1, received_at=old, kind="SERVER")])
        async with store(**keys) as opened:
            everything = Query(signal=Signal.LOGS, limit=10_000)

            async def swept():
                logs = await opened.find(everything)
                return (
                    len(logs) == len(kept)
                    and len(await opened.find(Query(signal=Signal.METRICS))) == 1
                )

            await until(swept)
            found = await opened.find(everything)
            trail = await opened.find(Query(signal=Signal.LOGS, collection="trace_logs"))
            assert len(await opened.find(Query(signal=Signal.TRACES))) == len(trail) == 1
        assert sorted(exactly(found)) == sorted(exactly(kept))

    async def test_a_shorter_retention_takes_effect_with_the_next_start(self, store):
        """What was kept under the old configuration goes under the new one, without an error (A5)."""
        old = log(1, received_at=NOW - datetime.timedelta(hours=30))
        new = log(2, received_at=NOW)
        async with store() as opened:
            await opened.write(Signal.LOGS, [old, new])
        async with store(retention={"info_logs": "1d"}) as opened:

            async def swept():
                return ids(await opened.find(Query(signal=Signal.LOGS))) == [new["_id"]]

            await until(swept)

    async def test_a_command_that_writes_changes_no_retention(self, store):
        """Opened with `tend=False`, a store writes documents and leaves retention and old documents alone."""
        old = log(1, received_at=NOW - datetime.timedelta(days=300))
        async with store(retention={"info_logs": "unlimited"}) as opened:
            await opened.write(Signal.LOGS, [old, evaluated(2)])
        async with store(tend=False) as opened:
            await opened.write(Signal.LOGS, [log(3, received_at=NOW)])
            past = NOW - datetime.timedelta(days=99)
            await opened.write(Signal.METRICS, [point(1, received_at=past)])
        async with store(retention={"info_logs": "unlimited"}) as opened:

            async def swept():  # the server's next round, or ours
                return await opened.find(Query(signal=Signal.METRICS)) == []

            await until(swept)
            found = ids(await opened.find(Query(signal=Signal.LOGS)))
        assert found == [identity(1), identity(2), identity(3)]

    # --- dead letters ---

    async def test_one_impossible_document_in_a_thousand_is_kept_as_a_dead_letter(self, store):
        """999 are stored; the other is one dead letter with its reason and exact bytes, also after a replay."""
        written = [log(number) for number in range(1000)]
        written[500] = bad = log(500, message="ü" + "x" * (17 * 1024 * 1024))
        stats = Stats()
        async with store(stats=stats) as opened:
            assert await opened.write(Signal.LOGS, written) == Written(
                999, refused=(Refused(bad, "too_large"),)
            )
            again = await opened.write(Signal.LOGS, written)
            assert (again.stored, again.duplicates, len(again.refused)) == (0, 999, 1)
        async with store(read_only=True) as reader:
            (letter,) = await reader.dead_letters(limit=10)
            assert len(await reader.find(Query(signal=Signal.LOGS, limit=10_000))) == 999
            with pytest.raises(Permanent):
                await reader.forget([letter.id])
        assert letter.data == dumps(bad)
        assert exactly([letter.document()]) == exactly([bad])
        assert (letter.signal, letter.collection) == (Signal.LOGS, "info_logs")
        assert (letter.reason, letter.document_id) == ("too_large", bad["_id"])
        assert abs((letter.received_at - NOW).total_seconds()) < 600
        async with store() as opened:
            assert await rewrite(opened) == (0, 1)
            assert len(await opened.dead_letters(limit=10)) == 1
            assert await opened.forget([letter.id]) == 1
            assert await opened.forget([letter.id]) == 0
            assert await opened.dead_letters(limit=10) == []

    async def test_whatever_cannot_be_stored_can_be_looked_at(self, store):
        """Documents that have no JSON are kept as text; page by page every letter is seen once."""
        bad = [
            {**log(1), "_id": "no id"},
            log(2, attributes={"x": object()}),
            log(3, message="\ud800"),
            {**span(4), "_id": 7},
        ]
        async with store() as opened:
            assert len((await opened.write(Signal.LOGS, bad[:3])).refused) == 3
            assert len((await opened.write(Signal.TRACES, bad[3:])).refused) == 1
            first = await opened.dead_letters(limit=3)
            rest = await opened.dead_letters(limit=3, after=first[-1].id)
            letters = {letter.document_id: letter for letter in (*first, *rest)}
            assert (len(first), len(rest), len(letters)) == (3, 1, 4)
            assert await rewrite(opened) == (0, 4)
        formats = {key: letter.format for key, letter in letters.items()}
        assert formats == {"no id": "json", identity(2): "repr", identity(3): "repr", "7": "json"}
        assert letters[identity(3)].data.decode().count("\\ud800") == 1
        with pytest.raises(ValueError, match="no JSON"):
            letters[identity(2)].document()

    # --- statistics ---

    async def test_r5_statistics_equal_a_recount(self, store):
        """Per day, band, model and tenant: counts, errors, fallbacks, scores and durations (R5)."""
        noise = [log(number, event="order.paid") for number in range(100, 120)]
        async with store() as opened:
            await opened.write(Signal.LOGS, [*FACTS, *noise])
        async with store(read_only=True) as reader:
            assert await reader.daily_statistics(*ALWAYS) == recount(FACTS)
            day = moment(T0).date() + datetime.timedelta(days=1)
            assert await reader.daily_statistics(day, day) == recount([evaluated(16, day=1)])

    async def test_r5_no_replay_counts_twice(self, store):
        """Whatever is sent again, in whatever parts and order, over restarts, leaves the same statistics (R5)."""
        for first in (0, 3, 0, 11):
            async with store() as opened:
                batches = [FACTS[at : at + 4] for at in range(first, len(FACTS), 3)]
                await asyncio.gather(*(opened.write(Signal.LOGS, each) for each in batches))
        async with store() as opened:
            await opened.write(Signal.LOGS, FACTS)
            await opened.write(Signal.LOGS, FACTS[::-1])
        async with store(read_only=True) as reader:
            assert await reader.daily_statistics(*ALWAYS) == recount(FACTS)

    async def test_r5_statistics_follow_by_themselves(self, store):
        """Without a restart the statistics equal a recount soon after the last fact arrived (R5)."""
        async with store() as opened:
            await opened.write(Signal.LOGS, FACTS[:5])

            async def counted(facts):
                return await opened.daily_statistics(*ALWAYS) == recount(facts)

            await until(lambda: counted(FACTS[:5]))
            await opened.write(Signal.LOGS, FACTS)
            await until(lambda: counted(FACTS))

    async def test_r5_facts_are_counted_where_the_routes_send_them(self, store):
        """With facts kept by level or in a collection of the user's, they count the same (R5)."""
        async with store(
            events={"risk.score.evaluated": "level", "risk.inference.*": "ml_inferences",
                    "risk.inference.finished": "own_events"}
        ) as opened:  # fmt: skip
            facts = [
                {**fact, "level": ("INFO", "ERROR")[number % 2]}
                for number, fact in enumerate(FACTS)
            ]
            await opened.write(Signal.LOGS, facts)
        async with store(read_only=True) as reader:
            assert await reader.daily_statistics(*ALWAYS) == recount(FACTS)

    async def test_r5_a_day_keeps_its_numbers_when_its_facts_go(self, store):
        """Retention takes the facts, not the statistics, also when another fact of the day comes late (R5)."""
        old = NOW - datetime.timedelta(days=3)
        facts = [{**evaluated(number), "received_at": old} for number in range(4)]
        async with store() as opened:
            await opened.write(Signal.LOGS, facts)
        async with store(retention={"analytics": "2d"}) as opened:

            async def swept():
                return await opened.find(Query(signal=Signal.LOGS)) == []

            await until(swept)
            await opened.write(Signal.LOGS, [{**evaluated(9), "received_at": NOW}])
        async with store(read_only=True) as reader:
            (row,) = await reader.daily_statistics(*ALWAYS)
            assert row.count == 4

    # --- as an exporter ---

    async def test_a_batch_of_events_is_routed(self, store):
        """Consumed as a batch, events reach their collections with the ids of their documents."""
        message = strategies.MESSAGES[Signal.LOGS]()
        records = message.resource_logs.add().scope_logs.add().log_records
        records.add(time_unix_nano=T0, event_name="risk.score.evaluated")
        records.add(time_unix_nano=T0).body.string_value = "plain"
        batch = strategies.batch(Signal.LOGS, message)
        async with store() as opened:
            await opened(batch)
            analyses = await opened.find(Query(signal=Signal.LOGS, collection="analytics"))
        assert exactly(analyses) == exactly(documents(batch)[:1])
