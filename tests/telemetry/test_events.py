"""track and audit: events that no level, sampler or bad value takes away."""

import logging
import signal
import threading
from decimal import Decimal

import numpy as np
import pytest
from dirty_equals import IsFloat, IsInt, IsStr

import telemetry
from telemetry._events import audit, track
from telemetry.testing import capture

UID = IsStr(regex="[0-9a-f]{32}")


def events(captured):
    """Name and attributes of each record, without its uid."""
    return [
        (
            record["event"],
            {key: value for key, value in record["attributes"].items() if key != "log.record.uid"},
        )
        for record in captured.logs
    ]


def test_an_event_is_a_log_record_with_a_name():
    """R1, R3: name, typed fields, ids of the scope and the span arrive as one record."""
    with (
        capture(varying=True) as captured,
        telemetry.log_context(tenant_id="t-1"),
        telemetry.span("score"),
    ):
        track("lead.qualified", lead_score=np.float32(0.5), price=Decimal("19.90"), gone=None)
    assert captured.logs == [
        {
            "time": 2,
            "level": "INFO",
            "logger": __name__,
            "message": "lead.qualified",
            "trace_id": 1,
            "span_id": 1,
            "event": "lead.qualified",
            "attributes": {
                "lead_score": 0.5,
                "price": 19.9,
                "tenant.id": "t-1",
                "log.record.uid": UID,
            },
        }
    ]


def test_ids_are_mapped_and_win_over_the_scope(captured):
    """An id by its keyword is the attribute, as text, and the record's own id wins."""
    with telemetry.log_context(order_id="outer", user_id="u-1"):
        track("order.opened", order_id=4711)
    assert events(captured) == [("order.opened", {"order.id": "4711", "user.id": "u-1"})]


def test_no_level_drops_an_event():
    """O6: neither the root logger's level nor logging.disable() touches track and audit."""
    logging.disable(logging.CRITICAL)
    try:
        with capture(level="CRITICAL") as captured:
            track("order.opened")
            audit("order.closed")
    finally:
        logging.disable(logging.NOTSET)
    assert [record["event"] for record in captured.logs] == ["order.opened", "order.closed"]


@pytest.mark.parametrize(
    "name", ["order", "order.4711", "Order.opened", "order opened", "", "a.b" * 99, None, 7, b"a.b"]
)
def test_a_name_that_is_not_static_is_kept_as_a_field(captured, name, capfd):
    """A bad name never becomes an event's name, and the event is not lost."""
    track(name, amount=1)
    ((event, attributes),) = events(captured)
    assert (event, attributes) == (
        "track.invalid_name",
        {"amount": 1, "track.given_name": attributes["track.given_name"]},
    )
    assert str(name)[:100] in attributes["track.given_name"]


def test_each_record_has_its_own_uid():
    """R5: a resend is recognised by the uid, and two events never share one."""
    with capture(varying=True) as captured:
        for _ in range(100):
            track("order.opened")
    assert len({record["attributes"]["log.record.uid"] for record in captured.logs}) == 100


class Hostile:
    """A value whose every method raises."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __hash__ = __len__ = __iter__ = __float__ = __bool__ = __str__


def test_hostile_values_do_not_reach_the_application(captured):
    """R1: values that raise, recurse or are not finite cost a placeholder, never an exception."""
    endless = []
    endless.append(endless)
    track(
        "order.opened", bad=Hostile(), endless=endless, nan=float("nan"), text="\ud800", big=9**99
    )
    ((event, attributes),) = events(captured)
    assert attributes.pop("nan") != 0
    assert (event, attributes) == (
        "order.opened",
        {
            "bad": "<unprintable Hostile>",
            "endless": ["<cycle>"],
            "text": "\ufffd",
            "big": str(9**99),
        },
    )


def test_a_flood_of_fields_is_bounded(captured):
    """At most 64 fields of an event are kept, and the ids of the scope always are."""
    with telemetry.log_context(tenant_id="t-1"):
        track("order.opened", **{f"field_{number}": number for number in range(1000)})
    ((_, attributes),) = events(captured)
    assert len(attributes) == 65
    assert attributes["tenant.id"] == "t-1"


def test_audit_is_marked_and_numbered():
    """O6: stream, number, monotonic time and actor are on the record, and the uid follows."""
    with capture(varying=True) as captured:
        audit("order.opened", actor="u-7", order_id="o-1")
        track("order.seen")
        audit("order.closed", order_id="o-1")
    first, other, second = [record["attributes"] for record in captured.logs]
    stream, number = first["audit.stream"], first["audit.sequence"]
    assert first == {
        "order.id": "o-1",
        "audit.actor": "u-7",
        "audit.stream": IsStr(regex="[0-9a-f]{16}"),
        "audit.sequence": IsInt(gt=0),
        "audit.monotonic_ns": IsInt(gt=0),
        "log.record.uid": f"{stream}-{number}",
    }
    assert other == {"log.record.uid": UID}
    assert second == {
        "order.id": "o-1",
        "audit.stream": stream,
        "audit.sequence": number + 1,
        "audit.monotonic_ns": IsInt(gt=first["audit.monotonic_ns"]),
        "log.record.uid": f"{stream}-{number + 1}",
    }


def test_audit_has_no_gaps_over_threads(captured):
    """O6: eight threads at once, and the numbers of the records count up by one, in order."""
    threads = [
        threading.Thread(target=lambda: [audit("order.opened") for _ in range(50)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [attributes["audit.sequence"] for _, attributes in events(captured)]
    assert numbers == list(range(numbers[0], numbers[0] + 400))


def test_a_bad_value_takes_no_number(captured):
    """O6: what is wrong with a value is settled before a number is taken."""
    for value in (1, Hostile(), 2):
        audit("order.opened", value=value)
    found = [(a["audit.sequence"], a["value"]) for _, a in events(captured)]
    first = found[0][0]
    assert found == [(first, 1), (first + 1, "<unprintable Hostile>"), (first + 2, 2)]


def test_a_signal_handler_may_audit(captured):
    """A handler that runs in the middle of an audit does not wait for its own thread."""
    before = signal.signal(signal.SIGALRM, lambda *_: audit("order.cancelled"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(500):
            audit("order.opened")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    numbers = sorted(attributes["audit.sequence"] for _, attributes in events(captured))
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_fork_begins_a_stream_of_its_own(run, receiver):
    """O6: parent and child both number from 1 up, in streams that can be told apart."""
    run(
        """
        import os, telemetry
        from telemetry._events import audit
        telemetry.configure(traces_exporter="none", metrics_exporter="none")
        audit("order.opened", who="parent")
        child = os.fork()
        who = "parent" if child else "child"
        for _ in range(2):
            audit("order.closed", who=who)
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            assert telemetry.flush()
            os._exit(0)
        """,
        endpoint=receiver.url,
    )
    found = {}
    for record in receiver.logs:
        attributes = record["attributes"]
        numbers = found.setdefault((attributes["who"], attributes["audit.stream"]), [])
        numbers.append(attributes["audit.sequence"])
    assert sorted((who, sorted(numbers)) for (who, _), numbers in found.items()) == [
        ("child", [1, 2]),
        ("parent", [1, 2, 3]),
    ]


def test_without_configure_nothing_happens(run):
    """R1: a program that never set telemetry up may call both, and nothing is printed."""
    done = run(
        """
        from telemetry._events import audit, track
        track("order.opened", order_id="o-1")
        audit("order.opened", order_id="o-1")
        """
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_application_ends_before_the_collector_answers(run, black_hole):
    """R1, R9: with a collector that never answers, 10,000 events are done before the first leaves."""
    done = run(
        """
        import telemetry
        from telemetry._events import track
        telemetry.configure(metrics_exporter="none", exit_timeout=0.2)
        for number in range(10_000):
            track("order.opened", number=number)
        ledger = telemetry.report()["logs"]
        print(ledger["produced"], ledger["exported"])
        assert ledger["produced"] == ledger["pending"] + sum(ledger["dropped"].values())
        """,
        endpoint=black_hole,
    )
    assert done.stdout.split() == ["10000", "0"]


def test_delivery_health_arrives(run, receiver):
    """R8: records by outcome, success ratio, waiting records and their age are metrics."""
    run(
        """
        import telemetry
        from telemetry._events import track
        telemetry.configure(traces_exporter="none", diagnostics="none")
        track("order.opened", **{f"f{number}": "x" * 16_384 for number in range(64)})
        track("order.opened")
        assert telemetry.flush()
        assert telemetry.flush()
        """,
        endpoint=receiver.url,
    )
    receiver.wait(lambda seen: seen.points)
    last = {
        (name, attributes.get("delivery.outcome"), attributes.get("error.type")): value
        for name, attributes, value in receiver.points
        if attributes["delivery.signal"] == "logs"
    }
    assert last == {
        ("delivery.produced.records", None, None): 2,
        ("delivery.records", "delivered", None): 1,
        ("delivery.records", "dropped", "too_large"): 1,
        ("delivery.success_ratio", None, None): 0.5,
        ("delivery.unsent.records", None, None): 0,
        ("delivery.unsent.age", None, None): 0,
        ("delivery.duration", None, None): 1,
    }


def test_delivery_health_in_a_fork(run, receiver):
    """R8: a child counts its own records from nothing, and the callbacks run once."""
    run(
        """
        import os, telemetry
        from telemetry._events import track
        telemetry.configure(traces_exporter="none", diagnostics="none")
        for _ in range(3):
            track("order.opened")
        assert telemetry.flush()
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            track("order.closed")
            telemetry.flush()
            telemetry.flush()
            os._exit(0)
        """,
        endpoint=receiver.url,
    )
    counted = {
        value
        for name, attributes, value in receiver.points
        if (name, attributes["delivery.signal"], attributes.get("delivery.outcome"))
        == ("delivery.records", "logs", "delivered")
    }
    assert counted <= {0, 1, 3}
    assert {1, 3} <= counted


def test_delivery_health_while_the_collector_is_away(run, receiver, refused):
    """R8: nothing is dropped at first: records wait, and the age of the oldest shows it."""
    run(
        """
        import os, telemetry, time
        from telemetry._events import track
        telemetry.configure(traces_exporter="none", diagnostics="none")
        track("order.opened")
        time.sleep(0.05)
        track("order.opened")
        assert not telemetry.flush()
        os._exit(0)  # an orderly exit would count the two as lost
        """,
        endpoint=receiver.url,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{refused}/v1/logs",
    )
    receiver.wait(lambda seen: seen.points)
    found = {
        (name, attributes.get("delivery.outcome")): value
        for name, attributes, value in receiver.points
        if attributes["delivery.signal"] == "logs"
    }
    assert found == {
        ("delivery.produced.records", None): 2,
        ("delivery.records", "delivered"): 0,
        ("delivery.unsent.records", None): 2,
        ("delivery.unsent.age", None): IsFloat(gt=0.05),
    }
