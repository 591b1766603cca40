"""One order in a worker's hands: span, audit record, failure, ids, headers (O2, O4, O5, O6)."""

import asyncio
import itertools
import json
import threading
import time

import numpy as np
import pytest

import telemetry
from telemetry.testing import capture
from telemetry.workers import Worker

VARYING = ("order.processing_time_ms", "order.wait_ms", "order.worker.instance", "log.record.uid")
numbered = itertools.count(1)


def unique(name):
    """A role that no other test counts in: sums of a process never go back."""
    return f"{name}_{next(numbered)}"


def settled(attributes):
    """Attributes without what differs from run to run; times must be there and be sane."""
    for name in VARYING[:2]:
        assert attributes.get(name, 0) >= 0
    return {
        key: value
        for key, value in attributes.items()
        if key not in VARYING and not key.startswith("audit.")
    }


def spans(captured):
    return [{**span, "attributes": settled(span["attributes"])} for span in captured.spans]


def logs(captured):
    return [{**record, "attributes": settled(record["attributes"])} for record in captured.logs]


def points(captured, role):
    """What the metrics say about a role, without durations."""
    found = []
    for point in captured.metrics:
        labels = dict(point["attributes"])
        if labels.pop("order.worker.role", None) == role:
            value = point["count"] if point["kind"] == "histogram" else point["value"]
            if point["name"] != "order.step.time":
                found.append((point["name"], labels, value))
    return sorted(found, key=str)


def test_an_order_is_one_span_and_one_audit_record(captured):
    """A block records role, ids, outcome and timings once on a span and once in the audit stream."""
    worker = Worker("worker_open", group="provider")
    with worker.order(
        order_id="ORDER-1",
        user_id=7,
        symbol="EURUSD",
        order_type="market",
        correlation_id="c-1",
        lots=np.float32(0.5),
    ) as order:
        with order.timing("margin_calculation"):
            pass
        order.add(margin=12.5)
    about = {
        "order.worker.role": "worker_open",
        "order.action": "open",
        "order.worker.group": "provider",
        "order.symbol": "EURUSD",
        "order.type": "market",
    }
    ids = {"order.id": "ORDER-1", "user.id": "7", "correlation.id": "c-1"}
    (span,), (record,) = spans(captured), logs(captured)
    timings = span["attributes"].pop("order.timings")
    assert record["attributes"].pop("order.timings") == timings
    assert list(timings) == ["margin_calculation_time_ms"]
    end = {"order.outcome": "success", "lots": 0.5, "margin": 12.5}
    assert span == {
        "name": "process worker_open",
        "trace_id": 1,
        "span_id": 1,
        "parent_id": None,
        "start": 1,
        "end": 3,
        "kind": "INTERNAL",
        "status": "UNSET",
        "attributes": {**about, **ids, **end},
    }
    assert record == {
        "time": 2,
        "level": "INFO",
        "logger": "worker_open",
        "message": "order.opened",
        "event": "order.opened",
        "trace_id": 1,
        "span_id": 1,
        "attributes": {**about, **ids, **end, "order.sequence": 1},
    }
    assert captured.logs[0]["attributes"]["audit.sequence"] >= 1
    assert telemetry.current_context() == {}


def test_a_failure_is_told_once_with_its_stack():
    """The exception goes through untouched; one ERROR record has it, marked for the shared file."""
    worker = Worker("worker_close", group="provider")
    problem = ValueError("no margin")
    with (
        capture(varying=True) as captured,
        pytest.raises(ValueError) as raised,
        worker.order("ORDER-2", correlation_id="c-2"),
    ):
        raise problem
    assert raised.value is problem
    failed, audited = logs(captured)
    stack = failed["attributes"].pop("exception.stacktrace")
    assert stack.startswith("Traceback")
    assert stack.endswith("ValueError: no margin\n")
    assert failed["attributes"].pop("code.function.name").startswith("test_a_failure")
    assert failed["attributes"].pop("code.file.path") == __file__
    failed["attributes"].pop("code.line.number")
    about = {
        "order.worker.role": "worker_close",
        "order.action": "close",
        "order.worker.group": "provider",
        "order.id": "ORDER-2",
        "correlation.id": "c-2",
        "order.outcome": "failure",
        "error.type": "ValueError",
    }
    assert failed == {
        "time": 2,
        "level": "ERROR",
        "logger": "worker_close",
        "message": "order failed: ValueError: no margin",
        "event": "order.process.exception",
        "trace_id": 1,
        "span_id": 1,
        "attributes": {
            **about,
            "order.worker.errors": "provider_errors",
            "exception.type": "ValueError",
            "exception.message": "no margin",
        },
    }
    assert audited["event"] == "order.failed"
    assert audited["attributes"] == {**about, "order.sequence": 1}
    (span,) = captured.spans
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ValueError")


def test_a_failure_without_an_exception(captured):
    """fail("text") marks the order as failed and raises nothing."""
    worker = Worker("worker_reject")
    with worker.order("ORDER-3") as order:
        order.fail("the provider said no", error_type="provider_rejected")
    failed, audited = captured.logs
    assert failed["message"] == "order failed: the provider said no"
    assert failed["event"] == "order.process.failure"
    assert failed["attributes"]["error.type"] == "provider_rejected"
    assert failed["attributes"]["order.worker.errors"] == "worker_errors"
    assert audited["event"] == "order.failed"


def test_a_handled_exception_is_recorded_with_its_stack(captured):
    """fail(error) keeps the stack of an exception that the worker handled itself."""
    worker = Worker("worker_reject")
    with worker.order("ORDER-4") as order:
        try:
            raise ConnectionError("gone")
        except ConnectionError as error:
            order.fail(error)
    failed = captured.logs[0]["attributes"]
    assert (failed["exception.type"], failed["exception.message"]) == ("ConnectionError", "gone")


def test_an_exception_that_was_told_before_has_one_stack(captured):
    """An inner LogContext tells the exception in full; the order only names it."""
    worker = Worker("worker_open")
    with (
        pytest.raises(KeyError),
        worker.order("ORDER-5"),
        telemetry.LogContext("calculate"),
    ):
        raise KeyError("rate")
    told = [record for record in captured.logs if "exception.type" in record["attributes"]]
    assert [record["message"] for record in told] == ["calculate failed"]


def test_an_interrupted_order_is_neither_success_nor_failure(captured):
    """What is broken off from outside is audited as interrupted, without an ERROR."""
    role = unique("stopped")
    worker = Worker(role)
    with pytest.raises(KeyboardInterrupt), worker.order("ORDER-6"):
        raise KeyboardInterrupt
    (record,) = captured.logs
    assert record["event"] == "order.interrupted"
    assert record["attributes"]["order.outcome"] == "cancelled"
    assert worker.statistics()["worker.report.total"]["cancelled_count"] == 1


def test_retries_fallbacks_and_pool_errors_are_countable_events(captured):
    """Each is an event with its reason, a count on the order and in the statistics, and a metric (O5)."""
    role = unique("hard")
    worker = Worker(role)
    with worker.order("ORDER-7", correlation_id="c") as order:
        order.retry("redis timeout", error=TimeoutError("2 s"))
        order.retry("redis timeout")
        order.fallback("database")
        order.pool_error(ConnectionError("no connection"))
    worker.retry("queue")
    told = [
        (
            record["event"],
            record["level"],
            record["message"],
            record["attributes"]["order.reason"],
            record["attributes"].get("order.worker.errors"),
            record["attributes"].get("order.id"),
        )
        for record in captured.logs
        if record["event"].startswith("order.process.")
    ]
    retry, fallback, pool = (
        "order.process." + each for each in ("retry", "fallback", "pool_error")
    )
    first = "retry: redis timeout (TimeoutError: 2 s)"
    assert told == [
        (retry, "WARN", first, "redis_timeout", None, "ORDER-7"),
        (retry, "WARN", "retry: redis timeout", "redis_timeout", None, "ORDER-7"),
        (fallback, "WARN", "fallback: database", "database", None, "ORDER-7"),
        (
            pool,
            "ERROR",
            "pool error: redis (ConnectionError: no connection)",
            "redis",
            "worker_errors",
            "ORDER-7",
        ),
        (retry, "WARN", "retry: queue", "queue", None, None),
    ]
    assert settled(captured.spans[0]["attributes"]) == {
        "order.worker.role": role,
        "order.action": "process",
        "order.id": "ORDER-7",
        "correlation.id": "c",
        "order.outcome": "success",
        "order.retry_count": 2,
        "order.fallbacks": ["database"],
        "order.pool_errors": 1,
    }
    action = {"order.action": "process"}
    assert points(captured, role) == sorted(
        [
            ("order.active", action, 0),
            ("order.process.duration", {**action, "order.outcome": "success"}, 1),
            ("order.process.fallbacks", {**action, "order.reason": "database"}, 1),
            ("order.process.outcomes", {**action, "order.outcome": "success"}, 1),
            ("order.process.pool_errors", {**action, "order.reason": "redis"}, 1),
            ("order.process.retries", {**action, "order.reason": "queue"}, 1),
            ("order.process.retries", {**action, "order.reason": "redis_timeout"}, 2),
            ("order.worker.counts", {**action, "order.worker.counter": "orders_processed"}, 1),
        ],
        key=str,
    )


def test_an_order_leads_from_role_to_role(captured):
    """Trace, correlation id and order id travel in the headers, as text or as bytes (O4)."""
    first, second = Worker("dispatcher"), Worker("worker_open")
    with first.order("ORDER-8") as order:
        headers = order.inject({"x-other": "kept"})
    wire = {key.encode(): value.encode() for key, value in headers.items()}
    with second.order(headers=wire):
        assert telemetry.current_context()["order_id"] == "ORDER-8"
    assert sorted(headers) == [
        "baggage",
        "traceparent",
        "x-correlation-id",
        "x-enqueued-at",
        "x-order-id",
        "x-other",
    ]
    dispatched, opened = captured.spans
    assert (opened["trace_id"], opened["parent_id"]) == (1, dispatched["span_id"])
    assert opened["kind"] == "CONSUMER"
    for name in ("order.id", "correlation.id"):
        assert opened["attributes"][name] == dispatched["attributes"][name]
    assert opened["attributes"]["order.wait_ms"] >= 0


def test_a_linking_worker_begins_a_trace_of_its_own(captured):
    """continue_as="link": a new trace that points at the sender's; the ids are the same."""
    with Worker("dispatcher").order("ORDER-9") as order:
        headers = order.inject()
    with Worker("worker_open", continue_as="link").order(headers=headers):
        pass
    dispatched, opened = captured.spans
    assert (opened["trace_id"], opened["parent_id"]) == (2, None)
    assert opened["links"] == [{"trace_id": 1, "span_id": 1, "attributes": {}}]
    for name in ("order.id", "correlation.id"):
        assert opened["attributes"][name] == dispatched["attributes"][name]


def test_a_message_that_is_sent_again_has_fresh_headers(captured):
    """inject() overwrites what a message brought, whatever its case, and keeps its size."""
    worker = Worker("worker_open")
    with worker.order("ORDER-10"):
        headers = worker.inject({"X-Enqueued-At": "0", "Traceparent": "old"})
        again = worker.inject(headers)
    assert len(again) == len(headers)
    assert float(again["x-enqueued-at"]) >= time.time() - 60
    assert {key.lower() for key in headers} == set(headers)


def test_ids_that_arrive_are_checked(captured):
    """Headers come from outside: what does not look like an id is not taken."""
    headers = {
        "x-order-id": "a b\n",
        "x-correlation-id": "c" * 500,
        "x-enqueued-at": "soon",
        "traceparent": "nonsense",
        b"\xff": b"\xff",
        3: object(),
    }
    with Worker("worker_open").order(headers=headers):
        context = telemetry.current_context()
    assert set(context) == {"correlation_id"}
    assert len(context["correlation_id"]) == 36
    assert "order.wait_ms" not in captured.spans[0]["attributes"]


class Raising:
    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__
    __hash__ = None

    def __bool__(self):
        raise RuntimeError("bool")


HOSTILE = [Raising(), "x" * 100_000, "\ud800", float("nan"), [1, [2]], b"\xff", object(), None, -1]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_hurts_the_worker(captured, value):
    """Whatever is given, the block runs, nothing is raised, and the order is recorded."""
    worker = Worker("worker_open")
    with worker.order(value, user_id=value, symbol=value, order_type=value, odd=value) as order:
        order.add(more=value)
        order.retry(value, error=ValueError(value))
        order.fallback(value)
        order.count(value, value)
        order.count("orders_opened", value)
        with order.timing(value):
            ran = True
    assert ran
    assert [span["name"] for span in captured.spans] == ["process worker_open"]
    assert captured.logs[-1]["event"] == "order.opened"


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_setting_hurts_the_worker(captured, value):
    """A worker that is set up with nonsense works with defaults."""
    worker = Worker(
        value, group=value, action=value, counters=value, every_orders=value, every_s=value
    )
    with worker.order("ORDER-11", headers=value):
        pass
    assert captured.logs[-1]["attributes"]["order.sequence"] == 1


def test_own_fields_cannot_disguise_the_order(captured):
    """A field with the name of one of ours does not replace it."""
    with Worker("worker_open").order(
        "ORDER-12", **{"order.worker.role": "x", "order.outcome": "x"}
    ):
        pass
    attributes = captured.spans[0]["attributes"]
    assert attributes["order.worker.role"] == "worker_open"
    assert attributes["order.outcome"] == "success"


def test_labels_are_bounded(captured):
    """Reasons and steps beyond 32 kinds, and those that are texts, share one label."""
    role = unique("wordy")
    worker = Worker(role)
    with worker.order("ORDER-13") as order:
        for number in range(100):
            order.retry(f"reason_{number}")
            order.count(f"counter_{number}")
    labels = [labels for name, labels, _ in points(captured, role) if name.endswith("retries")]
    assert len(labels) == 33
    assert {"order.action": "process", "order.reason": "_OTHER"} in labels
    assert len(worker.statistics()["worker.report.counters"]) == 65


def test_threads_do_not_mix(captured):
    """Many threads share one worker: every order once, sequence without gaps, ids apart."""
    worker = Worker("worker_open", every_orders=1000)
    barrier = threading.Barrier(4)

    def work(thread):
        barrier.wait()
        for number in range(50):
            with worker.order(f"ORDER-{thread}-{number}", user_id=thread) as order:
                order.add(seen=telemetry.current_context()["order_id"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audited = [record["attributes"] for record in captured.logs]
    assert sorted(each["order.sequence"] for each in audited) == list(range(1, 201))
    assert all(each["seen"] == each["order.id"] for each in audited)
    assert len({each["order.id"] for each in audited}) == 200
    assert len({span["trace_id"] for span in captured.spans}) == 200


@pytest.mark.anyio
async def test_tasks_do_not_mix(captured):
    """Interleaved asyncio tasks keep their own order, span and correlation id."""
    worker = Worker("worker_pending")

    async def work(number):
        async with worker.order(f"ORDER-{number}", correlation_id=f"c-{number}") as order:
            await asyncio.sleep(0)
            with order.timing("provider_registration"):
                await asyncio.sleep(0)
            headers = worker.inject()
            return headers["x-order-id"], headers["x-correlation-id"]

    told = await asyncio.gather(*map(work, range(20)))
    assert told == [(f"ORDER-{number}", f"c-{number}") for number in range(20)]
    assert {span["attributes"]["order.id"] for span in captured.spans} == {
        f"ORDER-{number}" for number in range(20)
    }


@pytest.mark.anyio
async def test_a_cancelled_task_is_interrupted(captured):
    """Cancelling the task that processes an order is no failure of the order."""
    worker = Worker("worker_close")
    begun = asyncio.Event()

    async def work():
        async with worker.order("ORDER-14"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record["event"] for record in captured.logs if "event" in record] == [
        "order.interrupted"
    ]
    assert captured.spans[0]["status"] == "UNSET"


def test_an_order_inside_another_span_is_its_child(captured):
    """Without headers the running span is the parent, and its ids are inherited."""
    worker = Worker("worker_open")
    with (
        telemetry.log_context(tenant_id="t-1"),
        telemetry.span("consume"),
        worker.order("ORDER-15", correlation_id="c"),
    ):
        pass
    outer, inner = captured.spans
    assert (inner["parent_id"], inner["attributes"]["tenant.id"]) == (outer["span_id"], "t-1")
    assert "order.id" not in outer["attributes"]


def test_an_order_inside_another_order_keeps_its_own_ids(captured):
    """Orders nest: each span and record has its own order id, and both have one correlation id."""
    worker = Worker("worker_open")
    with worker.order("ORDER-outer", user_id="u-1"), worker.order("ORDER-inner", user_id="u-2"):
        pass
    ids = [
        (span["attributes"]["order.id"], span["attributes"]["user.id"]) for span in captured.spans
    ]
    assert ids == [("ORDER-outer", "u-1"), ("ORDER-inner", "u-2")]
    assert [record["attributes"]["order.id"] for record in captured.logs] == [
        "ORDER-inner",
        "ORDER-outer",
    ]
    assert len({span["attributes"]["correlation.id"] for span in captured.spans}) == 1


def test_a_timing_can_be_a_span(captured):
    """timing(..., span=True) shows the step in the waterfall, and as failed when it raises."""
    worker = Worker("worker_open")
    with (
        pytest.raises(ValueError),
        worker.order("ORDER-16") as order,
        order.timing("margin_calculation", span=True),
    ):
        raise ValueError("rate")
    assert [(span["name"], span["status"]) for span in captured.spans] == [
        ("process worker_open", "ERROR"),
        ("margin_calculation", "ERROR"),
    ]
    assert worker.statistics()["worker.report.counters"]["margin_calculations"] == 0


def test_the_statistics_can_be_printed(captured):
    """statistics() is plain data, the same as the next record shows."""
    worker = Worker("worker_open")
    with worker.order("ORDER-17"):
        pass
    told = worker.statistics()
    assert json.loads(json.dumps(told)) == told
