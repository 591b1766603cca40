"""The test kit tests itself: a whole trace is a literal."""

import logging

import pytest
from opentelemetry import metrics, trace

import telemetry
from telemetry.testing import capture


def test_a_whole_trace_is_a_literal():
    """Spans, events, links, logs and metrics with counting ids and clock."""
    tracer = trace.get_tracer("t")
    counter = metrics.get_meter("t").create_counter("orders", unit="{order}")
    with capture() as captured:
        with telemetry.span("first"):
            link = trace.Link(trace.get_current_span().get_span_context(), {"why": "cause"})
        with tracer.start_as_current_span("second", links=[link]) as span:
            span.add_event("half", {"done": [1, 2]})
            telemetry.get_logger("app").warning("careful", n=1)
            span.set_status(trace.StatusCode.ERROR, "broke")
            counter.add(2, {"type": "a"})
    counter.add(5, {"type": "a"})
    assert captured.spans == [
        {
            "name": "first",
            "trace_id": 1,
            "span_id": 1,
            "parent_id": None,
            "start": 1,
            "end": 2,
            "kind": "INTERNAL",
            "status": "UNSET",
            "attributes": {},
        },
        {
            "name": "second",
            "trace_id": 2,
            "span_id": 2,
            "parent_id": None,
            "start": 3,
            "end": 6,
            "kind": "INTERNAL",
            "status": "ERROR",
            "attributes": {},
            "status_message": "broke",
            "events": [{"name": "half", "time": 5, "attributes": {"done": [1, 2]}}],
            "links": [{"trace_id": 1, "span_id": 1, "attributes": {"why": "cause"}}],
        },
    ]
    assert captured.logs == [
        {
            "time": 4,
            "level": "WARN",
            "logger": "app",
            "message": "careful",
            "trace_id": 2,
            "span_id": 2,
            "attributes": {"n": 1},
        }
    ]
    assert captured.metrics == [
        {
            "name": "orders",
            "kind": "sum",
            "unit": "{order}",
            "attributes": {"type": "a"},
            "value": 2,
        }
    ]


def test_captures_are_independent():
    """Each capture counts from 1 and sees its own block only; module-level tracers work in all."""
    tracer = trace.get_tracer("module level")
    for _ in range(2):
        with capture() as captured, tracer.start_as_current_span("a"):
            pass
        assert [(span["trace_id"], span["span_id"]) for span in captured.spans] == [(1, 1)]


def test_metrics_can_be_read_inside_the_block():
    """The totals so far are there at once."""
    counter = metrics.get_meter("t").create_counter("inside")
    with capture() as captured:
        counter.add(1)
        assert [point["value"] for point in captured.metrics] == [1]
        counter.add(1)
    assert [point["value"] for point in captured.metrics] == [2]


def test_level_and_handlers_are_put_back():
    """A capture leaves logging and the ids of the scope as they were."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    with telemetry.log_context(tenant_id="outside"):
        with capture(level="WARNING") as captured:
            assert telemetry.current_context() == {}
            logging.getLogger("app").info("no")
            logging.getLogger("app").warning("yes")
        assert telemetry.current_context() == {"tenant_id": "outside"}
    assert [record["message"] for record in captured.logs] == ["yes"]
    assert (root.level, root.handlers) == before


def test_one_capture_at_a_time():
    """Captures share the process's providers: a second one at the same time is refused."""
    with (
        capture(),
        pytest.raises(telemetry.ConfigError, match="a capture is running"),
        capture(),
    ):
        pass


def test_capture_works_in_a_configured_program(run, receiver):
    """Where configure() has run, the block is diverted and everything else is delivered."""
    code = """
    import telemetry
    from telemetry.testing import capture
    telemetry.configure(log_format="none")
    logger = telemetry.get_logger("app")
    logger.info("before")
    with capture() as captured:
        with telemetry.span("captured"):
            logger.info("inside")
    logger.info("after")
    assert [span["trace_id"] for span in captured.spans] == [1]
    assert [record["message"] for record in captured.logs] == ["inside"]
    """
    run(code, endpoint=receiver.url)
    assert receiver.messages == ["before", "after"]
    assert receiver.spans == []


def test_capture_refuses_foreign_providers(run):
    """Where another package has set providers, the error says what to do."""
    code = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
    import telemetry
    from telemetry.testing import capture
    try:
        with capture(): pass
    except telemetry.ConfigError as error:
        print(error)
    """
    text = "providers for traces were set by another package; capture before it does\n"
    assert run(code).stdout == text
