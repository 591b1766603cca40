"""What a run emits: spans, events, metrics, ids; and that emitting cannot hurt it."""

import asyncio
import logging

import pytest
from opentelemetry import trace

from telemetry import LogContext, get_logger, log_context
from telemetry.batch import BackgroundProcessor, Retry
from telemetry.testing import capture


def run(handler, items, **options):
    options = {"key": str, "display": "off", "concurrency": 1, **options}
    return BackgroundProcessor("leads", handler, **options).run(items)


async def picky(item, ctx):
    ctx.add_cost(0.5, 4, 2)
    get_logger("app").info("working")
    if item == "bad":
        raise ValueError("no")
    return item


def test_spans():
    """L7, L8: one root span with the exit code, one span per item with outcome and error."""
    with capture() as seen:
        report = run(picky, ["good", "bad"])
    ids = {"batch.run.id": report.run_id, "correlation.id": report.run_id}
    root, good, bad = seen.spans
    assert root["attributes"].pop("process.executable.name")
    assert root["attributes"].pop("process.pid")
    assert root["attributes"] == {
        "batch.name": "leads",
        "batch.run.attempt": 1,
        "batch.run.result": "success",
        "process.exit.code": 0,
        **ids,
    }
    for span, key, outcome in ((good, "good", "success"), (bad, "bad", "failure")):
        error = {"error.type": "ValueError"} if key == "bad" else {}
        assert span["attributes"] == {
            "batch.name": "leads",
            "batch.item.key": key,
            "batch.item.outcome": outcome,
            "batch.item.attempt_count": 1,
            "batch.item.cost": 0.5,
            **ids,
            **error,
        }
    assert [(span["name"], span["parent_id"], span["status"]) for span in seen.spans] == [
        ("batch leads", None, "UNSET"),
        ("process leads", root["span_id"], "UNSET"),
        ("process leads", root["span_id"], "ERROR"),
    ]


def test_events_and_logs():
    """L8: a failed item is one error event within its span; the end of the run is an event too."""
    with capture() as seen:
        report = run(picky, ["bad"])
    root, item = seen.spans
    exceptions = [log for log in seen.logs if log.get("event") == "batch.item.exception"]
    assert len(exceptions) == 1
    assert exceptions[0]["span_id"] == item["span_id"]
    assert exceptions[0]["level"] == "ERROR"
    assert exceptions[0]["attributes"]["exception.message"] == "no"
    assert exceptions[0]["attributes"]["error.type"] == "ValueError"
    (finished,) = (log for log in seen.logs if log.get("event") == "batch.run.finished")
    attributes = finished["attributes"]
    assert finished["trace_id"] == root["trace_id"]
    assert attributes["batch.run.result"] == "failure"
    assert attributes["process.exit.code"] == 1
    assert attributes["batch.counts"]["failure"] == 1
    assert attributes["batch.tokens.input"] == 4
    assert attributes["batch.cost.amount"] == 0.5
    (working,) = (log for log in seen.logs if log["message"] == "working")
    assert working["attributes"]["batch.item.key"] == "bad"
    ours = [log for log in seen.logs if log["logger"] != "asyncio"]
    assert {log["attributes"]["correlation.id"] for log in ours} == {report.run_id}


def test_the_end_is_told_whatever_the_log_level():
    """L8: events of a run are no log lines: a quiet root logger does not drop them."""
    with capture(level=logging.CRITICAL) as seen:
        run(picky, ["good"])
    assert [log["event"] for log in seen.logs] == ["batch.progress", "batch.run.finished"]


@pytest.mark.full
def test_a_long_run_is_seen_while_it_lasts():
    """L8: each ten seconds an event says how far the run is, before its span has ended."""

    async def handler(item, ctx):
        await asyncio.sleep(12)

    with capture() as seen:
        run(handler, ["long"])
    root, _ = seen.spans
    progress = [log for log in seen.logs if log.get("event") == "batch.progress"]
    assert [log["attributes"]["batch.state"] for log in progress] == ["running", "running"]
    assert progress[1]["attributes"]["batch.elapsed_seconds"] >= 10
    assert {log["trace_id"] for log in progress} == {root["trace_id"]}
    assert progress[1]["time"] < root["end"]


def test_metrics():
    """L7: counts, attempts and durations by outcome and error type; no id is ever a label."""

    async def handler(item, ctx):
        if ctx.attempt <= item:
            raise ConnectionError("down")

    with capture() as seen:
        run(handler, [0, 1, 5], retry=Retry(attempts=3, backoff=(0, 0)))
    name = {"batch.name": "leads"}
    bad = {"error.type": "ConnectionError"}
    points = {
        (point["name"], tuple(sorted(point["attributes"].items()))): point for point in seen.metrics
    }

    def point(metric, **labels):
        return points[metric, tuple(sorted({**name, **labels}.items()))]

    failed = {"batch.item.outcome": "failure", **bad}
    assert point("batch.items", **{"batch.item.outcome": "success"})["value"] == 2
    assert point("batch.items", **failed)["value"] == 1
    assert point("batch.item.attempts")["value"] == 2
    assert point("batch.item.attempts", **bad)["value"] == 4
    assert point("batch.item.active")["value"] == 0
    assert point("batch.item.remaining")["value"] == 0
    assert point("batch.item.duration", **failed)["count"] == 1
    assert point("batch.run.duration", **{"batch.run.result": "success"})["count"] == 1
    units = {point["name"]: point["unit"] for point in seen.metrics}
    assert units == {
        "batch.items": "{item}",
        "batch.item.attempts": "{attempt}",
        "batch.item.active": "{item}",
        "batch.item.remaining": "{item}",
        "batch.item.duration": "s",
        "batch.run.duration": "s",
    }


def test_items_as_traces_of_their_own():
    """L8: with `spans="link"` each item is a trace that links to the run; with `off` there is none."""
    with capture() as seen:
        run(picky, ["good"], spans="link")
    root, item = seen.spans
    assert item["trace_id"] != root["trace_id"]
    assert item["parent_id"] is None
    assert [link["span_id"] for link in item["links"]] == [root["span_id"]]
    with capture() as seen:
        run(picky, ["good"], spans="off")
    (root,) = seen.spans
    (working,) = (log for log in seen.logs if log["message"] == "working")
    assert (root["name"], "batch.item.key" in root["attributes"]) == ("batch leads", False)
    assert working["attributes"]["batch.item.key"] == "good"
    assert working["span_id"] == root["span_id"]


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_what_handlers_emit_belongs_to_their_item(kind):
    """L7: spans of a handler are children of its item's span, in threads too."""

    def handler(item, ctx):
        with LogContext("classify"):
            pass

    async def coroutine(item, ctx):
        await asyncio.sleep(0)
        handler(item, ctx)

    with capture() as seen:
        run(coroutine if kind == "async" else handler, ["a", "b"], concurrency=2)
    items = {span["span_id"] for span in seen.spans if span["name"] == "process leads"}
    inner = [span for span in seen.spans if span["name"] == "classify"]
    assert {span["parent_id"] for span in inner} == items
    assert {span["attributes"]["batch.item.key"] for span in inner} == {"a", "b"}


def test_a_run_within_something_keeps_its_correlation_id():
    """D1: a run that a request started belongs to that request."""
    with capture() as seen:
        with log_context(correlation_id="from-outside"):
            run(picky, ["good"])
            assert not trace.get_current_span().get_span_context().is_valid
        get_logger("app").info("after")
    assert {span["attributes"]["correlation.id"] for span in seen.spans} == {"from-outside"}
    assert "batch.run.id" not in seen.logs[-1]["attributes"]


@pytest.mark.anyio
async def test_no_id_is_left_behind():
    """C2: after a run nothing of it is left in the context, not even when a stream is left early."""
    with capture() as seen:
        processor = BackgroundProcessor("leads", picky, key=str, display="off")
        stream = processor.stream(["a", "b"])
        async for _ in stream:
            get_logger("app").info("between")
            break
        await stream.aclose()
    (between,) = (log for log in seen.logs if log["message"] == "between")
    assert "batch.run.id" not in between["attributes"]
    assert between["trace_id"] == 0


def test_each_span_starts_with_its_own_handler():
    """L9: of items that begin together, none waits until the spans of all have been started."""

    async def handler(item, ctx):
        get_logger("app").info("begun")
        await asyncio.sleep(0.001)

    with capture() as seen:
        run(handler, ["a", "b", "c"], concurrency=3)
    moments = [
        (span["start"], "span", span["attributes"]["batch.item.key"]) for span in seen.spans[1:]
    ]
    moments += [
        (log["time"], "begun", log["attributes"]["batch.item.key"])
        for log in seen.logs
        if log["message"] == "begun"
    ]
    assert [moment[1:] for moment in sorted(moments)] == [
        (what, key) for key in "abc" for what in ("span", "begun")
    ]


def test_an_item_that_never_began_has_a_span():
    """L7: an item whose key cannot be made fails before its handler; its span says so."""

    async def handler(item, ctx):
        pytest.fail("there is nothing to work on")

    def key(item):
        raise ValueError("no key")

    with capture() as seen:
        run(handler, ["a"], key=key)
    root, item = seen.spans
    assert item["parent_id"] == root["span_id"]
    assert item["attributes"]["batch.item.outcome"] == "failure"
    assert item["attributes"]["batch.item.attempt_count"] == 0
    assert item["start"] <= item["end"]


def test_broken_logging_hurts_nobody():
    """L9: handlers of the application's logging that raise change nothing about the run."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("broken")

    handler = Broken()
    logging.getLogger().addHandler(handler)
    try:
        report = run(picky, ["good", "bad"])
    finally:
        logging.getLogger().removeHandler(handler)
    # "bad" and "good" fail alike here: the handler's own log call is guarded, so neither is hurt
    assert (report.counts["success"], report.counts["failure"]) == (1, 1)
