"""span() and LogContext: blocks as spans, logs and durations."""

import asyncio

import pytest
from opentelemetry import trace

import telemetry
from telemetry.testing import capture


def shape(captured):
    return [
        (span["name"], span["span_id"], span["parent_id"], span["status"], span["attributes"])
        for span in captured.spans
    ]


def test_span_as_block_function_and_coroutine(captured):
    """Three ways to write it, one kind of span; attributes are cleaned and ids are renamed."""

    @telemetry.span("function", n=1)
    def function(a, *, b):
        with telemetry.span("inner", order_id="o-1", raw={1, 2}):
            return a + b

    @telemetry.span("coroutine", kind=trace.SpanKind.CLIENT)
    async def coroutine():
        async with telemetry.span("step") as current:
            current.set_attribute("done", True)
            return function(1, b=2)

    assert asyncio.run(coroutine()) == 3
    assert shape(captured) == [
        ("coroutine", 1, None, "UNSET", {}),
        ("step", 2, 1, "UNSET", {"done": True}),
        ("function", 3, 2, "UNSET", {"n": 1}),
        ("inner", 4, 3, "UNSET", {"order.id": "o-1", "raw": [1, 2]}),
    ]
    assert [span["kind"] for span in captured.spans] == ["CLIENT"] + ["INTERNAL"] * 3


def test_an_exception_marks_the_span_and_passes_unchanged(captured):
    """Status and error.type, no event: the text is recorded by whoever logs it."""
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught, telemetry.span("outer"), telemetry.span("inner"):
        raise error
    assert caught.value is error
    assert caught.value.__context__ is None
    assert shape(captured) == [
        ("outer", 1, None, "ERROR", {"error.type": "LookupError"}),
        ("inner", 2, 1, "ERROR", {"error.type": "LookupError"}),
    ]
    assert [span.get("events") for span in captured.spans] == [None, None]


def test_a_cancelled_task_is_no_error(captured):
    """Cancellation is how a caller says that it is no longer interested."""

    async def main():
        async with asyncio.timeout(0), telemetry.LogContext("slow"):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert shape(captured) == [("slow", 1, None, "UNSET", {"operation.name": "slow"})]
    assert captured.logs[-1]["level"] == "INFO"
    assert captured.logs[-1]["message"] == "slow cancelled"
    assert captured.metrics[0]["attributes"]["operation.status"] == "cancelled"


def test_log_context_is_one_span_one_log_one_point(captured):
    """LogContext times the block and tells its metrics three ways (A4)."""
    with telemetry.LogContext("flow_execution", tenant_id="t-1") as flow:
        telemetry.get_logger("inner").info("step")
        flow.add_metric("nodes_executed", 5)
    (span,) = captured.spans
    step, done = captured.logs
    (point,) = captured.metrics
    ids = {"tenant.id": "t-1", "operation.name": "flow_execution"}
    assert (span["name"], span["attributes"]) == ("flow_execution", {**ids, "nodes_executed": 5})
    assert step["attributes"] == ids
    duration = done["attributes"].pop("operation.execution_time_ms")
    assert done == {
        "time": 3,
        "level": "INFO",
        "logger": __name__,
        "message": "flow_execution completed",
        "trace_id": 1,
        "span_id": 1,
        "attributes": {**ids, "nodes_executed": 5, "operation.status": "success"},
    }
    assert point == {
        "name": "operation.duration",
        "kind": "histogram",
        "unit": "s",
        "attributes": {"operation.name": "flow_execution", "operation.status": "success"},
        "count": 1,
        "sum": pytest.approx(duration / 1000, abs=1e-5),
    }
    assert telemetry.current_context() == {}


def test_a_failed_log_context_tells_the_exception_once(captured):
    """The innermost block records the exception; the outer ones say that they failed."""
    error = OSError("disk")
    with (
        pytest.raises(OSError, match="disk") as caught,
        telemetry.LogContext("outer"),
        telemetry.LogContext("inner"),
    ):
        raise error
    assert caught.value is error
    for record in captured.logs:
        record["attributes"].pop("operation.execution_time_ms")
    assert [
        (record["level"], record["message"], record["attributes"]) for record in captured.logs
    ] == [
        (
            "ERROR",
            "inner failed",
            {
                "operation.name": "inner",
                "operation.status": "error",
                "error.type": "OSError",
                "exception.type": "OSError",
                "exception.message": "disk",
            },
        ),
        (
            "ERROR",
            "outer failed",
            {"operation.name": "outer", "operation.status": "error", "error.type": "OSError"},
        ),
    ]
    assert [point["attributes"]["error.type"] for point in captured.metrics] == ["OSError"] * 2


def test_log_context_decorates(captured):
    """As a decorator each call is a block of its own; async works too."""

    @telemetry.LogContext("work")
    async def work():
        return telemetry.current_context()

    assert asyncio.run(work()) == {"operation": "work"}
    assert asyncio.run(work()) == {"operation": "work"}
    assert [span["trace_id"] for span in captured.spans] == [1, 2]
    ours = [record for record in captured.logs if record["logger"] == __name__]
    assert [record["message"] for record in ours] == ["work completed"] * 2


def test_the_record_of_a_log_context_names_the_applications_code():
    """Block or decorator: file and function are the application's, not ours."""
    with capture(varying=True) as captured:
        with telemetry.LogContext("block"):
            pass
        telemetry.LogContext("function")(lambda: None)()
    positions = [
        (record["attributes"]["code.file.path"], record["attributes"]["code.function.name"])
        for record in captured.logs
    ]
    name = "test_the_record_of_a_log_context_names_the_applications_code"
    assert positions == [(__file__, name)] * 2


class Raising:
    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__


@pytest.mark.parametrize("value", [Raising(), "x" * 1_000_000, "\ud800", object(), None, [[]]])
def test_hostile_names_and_values(captured, value):
    """No name and no value makes a block raise, and the block still runs (G01)."""
    ran = []
    with telemetry.span(value, field=value), telemetry.LogContext(value, field=value) as block:
        block.add_metric("metric", value)
        block.add_metric(value, 1)
        ran.append(True)
    assert ran == [True]
    assert len(captured.spans) == 2


def test_one_call_sets_a_bounded_number_of_attributes(run):
    """R18: also where the SDK was told to have no limit, and whatever the values are."""
    done = run(
        """
        import telemetry
        from opentelemetry import trace

        telemetry.configure(log_format="none")
        for value in (1, "text", [1]):
            span = trace.get_tracer("t").start_span("s")
            span.set_attributes({f"k{number}": value for number in range(200)})
            print(len(span.attributes))
            span.end()
        """,
        OTEL_ATTRIBUTE_COUNT_LIMIT="100000",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="100000",
    )
    assert done.stdout == "128\n128\n128\n"


def test_spans_that_are_sent_have_the_ids_of_their_scope(run, receiver):
    """C2: also without anybody else looking: those that were bound, and on the entry span what comes later."""
    run(
        """
        import telemetry
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind

        telemetry.configure(log_format="none")
        tracer = trace.get_tracer("t")
        with telemetry.log_context(correlation_id="c-1"):
            with tracer.start_as_current_span("entry", kind=SpanKind.SERVER):
                with tracer.start_as_current_span("inner"):
                    telemetry.bind_context(tenant_id="t-1")
        """,
        endpoint=receiver.url,
    )
    sent = {
        span["name"]: {
            key: value for key, value in span["attributes"].items() if key.endswith(".id")
        }
        for span in receiver.spans
    }
    ids = {"correlation.id": "c-1", "tenant.id": "t-1"}
    assert sent == {"entry": ids, "inner": ids}
