"""Statistics: after so many orders, after so much time, at the end; the nine roles (O1, O3)."""

import threading

import pytest

from telemetry._workers import counters as numbers
from telemetry.testing import capture
from telemetry.workers import Worker


def statistics(captured):
    return [record for record in captured.logs if record.get("event") == "worker.statistics"]


def reports(captured):
    """Reason, orders of the window and orders in total of each record of statistics."""
    return [
        (
            record["attributes"]["worker.report.reason"],
            record["attributes"]["worker.report.window"]["processed_count"],
            record["attributes"]["worker.report.total"]["processed_count"],
        )
        for record in statistics(captured)
    ]


def untimed(numbers):
    """The numbers of a window without durations, which must be there and be sane."""
    kept = dict(numbers)
    for name in ("seconds", "mean_ms", "p50_ms", "p95_ms", "max_ms"):
        assert kept.pop(name, 0) >= 0
    kept.pop("steps", None)
    return kept


def process(worker, orders):
    for number in range(orders):
        with worker.order(f"ORDER-{number}"):
            pass


def test_a_record_every_hundred_orders_and_at_the_end(captured):
    """250 orders: two records by count and one for the rest at close; a second close writes none."""
    worker = Worker("worker_open")
    process(worker, 250)
    worker.close()
    worker.close()
    assert reports(captured) == [("count", 100, 100), ("count", 100, 200), ("shutdown", 50, 250)]


def test_the_record_in_full(captured):
    """Processed, outcomes, retries, times, counters; outside of the order's trace and ids."""
    worker = Worker("worker_close", group="provider", every_orders=3)
    with worker.order("ORDER-1") as order, order.timing("close_calculation"):
        order.retry("finalize")
    with worker.order("ORDER-2") as order:
        order.fail("no")
    with worker.order("ORDER-3", correlation_id="c"):
        pass
    (record,) = statistics(captured)
    attributes = record.pop("attributes")
    window = attributes.pop("worker.report.window")
    total = attributes.pop("worker.report.total")
    assert set(window["steps"]) == {"close_calculation"}
    assert window["steps"]["close_calculation"]["count"] == 1
    assert len(attributes.pop("order.worker.instance")) == 16
    expected = {
        "processed_count": 3,
        "success_count": 2,
        "failure_count": 1,
        "cancelled_count": 0,
        "retry_count": 1,
        "fallback_count": 0,
        "pool_error_count": 0,
    }
    assert untimed(window) == expected
    assert untimed(total) == expected
    assert attributes == {
        "order.worker.role": "worker_close",
        "order.action": "close",
        "order.worker.group": "provider",
        "worker.report.reason": "count",
        "worker.report.active": 0,
        "worker.report.counters": {
            "orders_closed": 2,
            "close_calculations": 1,
            "finalize_retries": 1,
        },
    }
    assert record.pop("message").startswith("worker_close: processed 3, failed 1 in ")
    record.pop("time")
    assert record == {
        "level": "INFO",
        "logger": "worker_close",
        "trace_id": 0,
        "span_id": 0,
        "event": "worker.statistics",
    }


def test_time_brings_a_record_at_the_next_order(captured):
    """When the time is over, the order that ends writes the record, whatever the count."""
    worker = Worker("worker_open", every_s=1e-9)
    process(worker, 3)
    worker.close()
    assert [reason for reason, _, _ in reports(captured)][-1] == "shutdown"
    assert ("time", 1, 1) in reports(captured)


def test_time_brings_a_record_without_any_order(captured):
    """A worker that waits for orders tells that it is alive."""
    arrived = threading.Event()
    emit = captured.on_log
    worker = Worker("worker_open", every_s=0.02)

    def seen(readable):
        emit(readable)
        if len(reports(captured)) >= 3:
            arrived.set()

    from telemetry._config import configure

    configure.pipeline().log_delivery.redirect = seen
    process(worker, 1)
    assert arrived.wait(60)
    worker.close()
    assert {reason for reason, _, _ in reports(captured)[:-1]} == {"time"}
    assert reports(captured)[-2][1:] == (0, 1)


def test_the_applications_level_does_not_switch_statistics_off():
    """At level ERROR the record is written all the same; so is the audit record."""
    with capture(level="ERROR") as captured:
        worker = Worker("worker_open")
        process(worker, 1)
        worker.close()
    assert [record["event"] for record in captured.logs] == ["order.opened", "worker.statistics"]
    assert captured.logs[1]["logger"] == "worker_open"


def test_a_closed_worker_can_go_on(captured):
    """Orders after close() are counted and written by the next close()."""
    worker = Worker("worker_open")
    process(worker, 1)
    worker.close()
    process(worker, 2)
    worker.close()
    assert reports(captured) == [("shutdown", 1, 1), ("shutdown", 2, 3)]


def test_a_worker_without_orders_writes_nothing(captured):
    """A worker that is made and never used leaves no trace."""
    Worker("worker_open").close()
    assert captured.logs == []


def test_threads_write_each_window_once(captured):
    """Four threads, 1,000 orders, a record every 100: ten windows that add up."""
    worker = Worker("worker_open")
    threads = [threading.Thread(target=process, args=(worker, 250)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.close()
    told = reports(captured)
    assert sum(window for _, window, _ in told) == 1000
    assert told[-1][2] == 1000
    assert [reason for reason, _, _ in told] == ["count"] * (len(told) - 1) + ["shutdown"]


ROLES = {
    "dispatcher": (
        "dispatch",
        "order.dispatched",
        {"orders_dispatched": 1, "unroutable_messages": 1},
    ),
    "worker_open": (
        "open",
        "order.opened",
        {"orders_opened": 1, "margin_calculations": 1, "commission_calculations": 1},
    ),
    "worker_close": (
        "close",
        "order.closed",
        {"orders_closed": 1, "close_calculations": 1, "finalize_retries": 1},
    ),
    "worker_pending": (
        "pending",
        "order.pending",
        {"orders_pending": 1, "orders_modified": 1, "provider_registrations": 1},
    ),
    "worker_cancel": (
        "cancel",
        "order.cancelled",
        {"orders_cancelled": 3, "sl_cancels": 1, "tp_cancels": 1, "pending_cancels": 1},
    ),
    "worker_reject": ("reject", "order.rejected", {"orders_rejected": 1, "margin_releases": 1}),
    "worker_stoploss": (
        "stoploss",
        "order.stopped",
        {"stoploss_triggers": 1, "close_calculations": 1},
    ),
    "worker_takeprofit": (
        "takeprofit",
        "order.profit_taken",
        {"takeprofit_triggers": 1, "close_calculations": 1},
    ),
    "orders_calculated": (
        "calculate",
        "order.calculated",
        {"orders_calculated": 1, "margin_calculations": 1, "commission_calculations": 1},
    ),
}
STEPS = (
    "margin_calculation",
    "commission_calculation",
    "close_calculation",
    "provider_registration",
    "margin_release",
)
TYPES = {"worker_cancel": ("sl", "tp", "pending"), "worker_pending": ("modify",)}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_counts_its_own(captured, role):
    """All nine roles have their action, their audit event and their counters."""
    action, event, counters = ROLES[role]
    worker = Worker(role, group="provider")
    for order_type in TYPES.get(role, ("market",)):
        with worker.order("ORDER-1", order_type=order_type) as order:
            pass
    with worker.order("ORDER-2") as order:
        for step in STEPS:
            with order.timing(step):
                pass
        order.retry("finalize")
        if role == "dispatcher":
            order.count("unroutable_messages")
        order.fail("failed orders count for no role")
    told = worker.statistics()["worker.report.counters"]
    assert told == counters
    audited = [record for record in captured.logs if "audit.sequence" in record["attributes"]]
    expected = [event] * len(TYPES.get(role, ("market",))) + ["order.failed"]
    assert [record["event"] for record in audited] == expected
    assert {record["attributes"]["order.action"] for record in audited} == {action}
    sequence = [record["attributes"]["order.sequence"] for record in audited]
    assert sequence == list(range(1, len(audited) + 1))


def test_a_capture_begins_at_zero():
    """The metrics of a capture are those of its own orders, whatever was counted before it."""
    worker = Worker("worker_open")
    process(worker, 3)
    with capture() as empty:
        pass
    with capture() as second:
        process(worker, 2)
    told = {
        point["name"]: point["value"]
        for point in second.metrics
        if point["name"] in ("order.process.outcomes", "order.active")
    }
    assert empty.metrics == []
    assert told == {"order.process.outcomes": 2, "order.active": 0}


def test_totals_are_those_of_all_windows():
    """Orders and steps of windows that are over and of the one that is not; quantiles of the last ones."""
    ledger = numbers.RoleCounters("role", "act", ["orders"])
    found = numbers.WorkerCounters(ledger, ["orders"])
    told, took = [], []
    for number in range(3000):
        seconds = (number * 7919 % 1000) / 1000
        outcome = numbers.OUTCOMES[number % 3]
        found.active += 1
        ledger.active += 1
        found.ended(outcome, seconds)
        took.append(seconds)
        label, key, counter = found.step("margin calculation", {"margin_calculation": "margins"})
        found.ran(label, seconds * 2)
        if number % 250 == 249:
            found.tally("retry_count")
            told.append(found.before.shown(found.before.since + 5, found.window))
            found.turn(found.before.since + 1)
    last = sorted(took[-1500:])  # at least 1,024 before the window, by whole windows
    assert (label, key, counter) == ("margin_calculation", "margin_calculation_time_ms", "margins")
    assert told[-1] == {
        "seconds": 5.0,
        "processed_count": 3000,
        "success_count": 1000,
        "failure_count": 1000,
        "cancelled_count": 1000,
        "retry_count": 12,
        "fallback_count": 0,
        "pool_error_count": 0,
        "mean_ms": round(sum(took) / 3, 3),
        "p50_ms": round(last[749] * 1000, 3),
        "p95_ms": round(last[1424] * 1000, 3),
        "max_ms": 999.0,
        "steps": {
            "margin_calculation": {
                "count": 3000,
                "p50_ms": round(last[749] * 2000, 3),
                "p95_ms": round(last[1424] * 2000, 3),
                "max_ms": 1998.0,
            }
        },
    }
    assert [each["processed_count"] for each in told] == list(range(250, 3001, 250))
    assert found.window.shown(found.window.since) == {
        "seconds": 0.0,
        **dict.fromkeys(numbers.TALLIES, 0),
    }
    assert ledger.counts[numbers.names.ORDER_STEP_RUNS] == {"margin_calculation": 3000}
    assert ledger.counts[numbers.names.ORDER_PROCESS_OUTCOMES] == dict.fromkeys(
        numbers.OUTCOMES, 1000
    )
    assert (found.active, ledger.active) == (0, 0)


def test_many_names_of_steps_are_few_labels():
    """Names with ids in them end up in one label, and are not remembered one by one."""
    found = numbers.WorkerCounters(numbers.RoleCounters("role", "act", []), [])
    labels = {found.step(f"step-{number}", {})[0] for number in range(1000)}
    assert len(labels) == numbers.LABELS + 1
    assert len(found._steps) == numbers.LABELS
