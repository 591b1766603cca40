"""inference: one call of a model as spans, histograms and an event, in sync and async code."""

import asyncio
import contextlib
from decimal import Decimal

import numpy as np
import pytest
from dirty_equals import IsFloat

import telemetry
from telemetry import ml

SECONDS = IsFloat(ge=0)
MODEL = {"risk.model.name": "wallet-risk", "risk.model.version": "2025-10"}


def started(**fields):
    return ml.inference(model="wallet-risk", version="2025-10", **fields)


def events(captured):
    """Event, span and attributes of each record, without its uid."""
    return [
        (
            record["event"],
            record["level"],
            record["span_id"],
            {key: value for key, value in record["attributes"].items() if key != "log.record.uid"},
        )
        for record in captured.logs
        if "event" in record  # asyncio itself has something to say at DEBUG
    ]


def points(captured, name):
    return [
        (point["attributes"], point["count"]) for point in captured.metrics if point["name"] == name
    ]


def test_stages_score_and_confidence(captured):
    """R4: a span with a span per stage, two histograms and one event tell the same inference."""
    with started(tenant_id="t-1") as run:
        with run.stage("features"):
            row = np.array([0.1, 0.2], dtype=np.float32)
        with run.stage("predict"):
            run.score = np.array([4800], dtype=np.int64)
            run.confidence = Decimal("0.925")
        run.batch_size = np.int32(len(row) // 2)
    told = {
        **MODEL,
        "tenant.id": "t-1",
        "risk.inference.batch_size": 1,
        "risk.inference.score": 4800.0,
        "risk.inference.stages": {"features": SECONDS, "predict": SECONDS},
        "risk.inference.duration_s": SECONDS,
        "risk.confidence": 0.925,
    }
    span = {"trace_id": 1, "kind": "INTERNAL", "status": "UNSET"}
    assert captured.spans == [
        {
            **span,
            "name": "infer wallet-risk",
            "span_id": 1,
            "parent_id": None,
            "start": 1,
            "end": 7,
            "attributes": told,
        },
        {
            **span,
            "name": "features wallet-risk",
            "span_id": 2,
            "parent_id": 1,
            "start": 2,
            "end": 3,
            "attributes": {**MODEL, "risk.inference.stage.name": "features"},
        },
        {
            **span,
            "name": "predict wallet-risk",
            "span_id": 3,
            "parent_id": 1,
            "start": 4,
            "end": 5,
            "attributes": {**MODEL, "risk.inference.stage.name": "predict"},
        },
    ]
    assert events(captured) == [("risk.inference.finished", "INFO", 1, told)]
    assert points(captured, "risk.inference.duration") == [(MODEL, 1)]
    assert points(captured, "risk.inference.stage.duration") == [
        ({**MODEL, "risk.inference.stage.name": "features"}, 1),
        ({**MODEL, "risk.inference.stage.name": "predict"}, 1),
    ]


def test_a_failure_is_recorded_once(captured):
    """R4: the exception is one event; span, metric and the final event have its error.type."""
    with (
        pytest.raises(TimeoutError, match="no answer"),
        telemetry.LogContext("analysis"),
        started() as run,
        run.stage("predict"),
    ):
        raise TimeoutError("no answer")
    failed = {**MODEL, "error.type": "TimeoutError"}
    assert [(record.get("event"), record["level"]) for record in captured.logs] == [
        ("risk.inference.exception", "WARN"),
        ("risk.inference.finished", "INFO"),
        (None, "ERROR"),
    ]
    texts = [record["attributes"].get("exception.message") for record in captured.logs]
    assert texts == ["no answer", None, None]
    assert events(captured)[1][3] == {
        **failed,
        "risk.inference.stage.name": "predict",
        "risk.inference.stages": {"predict": SECONDS},
        "risk.inference.duration_s": SECONDS,
    } | {"operation.name": "analysis"}
    assert [(span["name"], span["status"]) for span in captured.spans] == [
        ("analysis", "ERROR"),
        ("infer wallet-risk", "ERROR"),
        ("predict wallet-risk", "ERROR"),
    ]
    assert points(captured, "risk.inference.duration") == [(failed, 1)]
    assert points(captured, "risk.inference.stage.duration") == [
        ({**failed, "risk.inference.stage.name": "predict"}, 1)
    ]


def test_decorated_functions(captured):
    """R4: each call of a decorated function is an inference, which the code below finds."""

    @started(role="challenger")
    def predict(value):
        """Predict."""
        ml.current_inference().score = value
        return value * 2

    assert predict.__name__ == "predict"
    assert [predict(1), predict(2)] == [2, 4]
    assert [
        (attributes["risk.inference.score"], attributes["risk.model.role"])
        for *_, attributes in events(captured)
    ] == [(1.0, "challenger"), (2.0, "challenger")]


@pytest.mark.anyio
async def test_a_hundred_at_once_do_not_mix(captured):
    """R2: sync calculators below async handlers add to their own inference, also in threads."""
    together = asyncio.Barrier(100)

    def calculate(number):
        run = ml.current_inference()
        with run.stage("predict"):
            run.score = number
        run.batch_size = number

    @ml.inference(model="shared")
    async def handle(number):
        await together.wait()
        calculate(number) if number % 10 else await asyncio.to_thread(calculate, number)
        await together.wait()

    await asyncio.gather(*(handle(number) for number in range(100)))
    owners = {span["span_id"]: span for span in captured.spans if span["name"] == "infer shared"}
    found = [
        (
            attributes["risk.inference.score"],
            attributes["risk.inference.batch_size"],
            owners[span_id]["attributes"]["risk.inference.score"],
            len([span for span in captured.spans if span["parent_id"] == span_id]),
        )
        for _, _, span_id, attributes in events(captured)
    ]
    assert sorted(found) == [(number, number, number, 1) for number in range(100)]


@pytest.mark.anyio
async def test_one_object_entered_by_many(captured):
    """R2: an inference made once and entered by interleaving tasks keeps them apart."""
    shared = started()
    together = asyncio.Barrier(10)

    async def handle(number):
        async with shared as run:
            await together.wait()
            run.score = number
            if number % 2:
                await together.wait()
        if not number % 2:
            await together.wait()

    await asyncio.gather(*(handle(number) for number in range(10)))
    scores = {
        span["span_id"]: span["attributes"]["risk.inference.score"] for span in captured.spans
    }
    told = {span: attributes["risk.inference.score"] for _, _, span, attributes in events(captured)}
    assert told == scores
    assert sorted(told.values()) == list(range(10))


@pytest.mark.anyio
async def test_cancellation_is_no_failure(captured):
    """A cancelled inference has error.type on the metric, and neither an exception nor a red span."""
    entered = asyncio.Event()

    async def handle():
        with started():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(handle())
    await entered.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [event for event, *_ in events(captured)] == ["risk.inference.finished"]
    assert [span["status"] for span in captured.spans] == ["UNSET"]
    ((attributes, count),) = points(captured, "risk.inference.duration")
    assert (attributes, count) == ({**MODEL, "error.type": "asyncio.exceptions.CancelledError"}, 1)


def test_without_an_inference_nothing_is_recorded(captured):
    """R2: a calculator that is called outside of an inference works as before."""
    run = ml.current_inference()
    with run.stage("predict"):
        run.score = 1
    assert (captured.spans, captured.logs, captured.metrics) == ([], [], [])


class Hostile:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __hash__ = __len__ = __iter__ = __float__ = __bool__ = __str__


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Hostile(), "high", [1, 2], None, True])
def test_what_is_no_number_is_left_out(captured, bad):
    """R3: numbers stay numbers; anything else is left out and the inference is told all the same."""
    with started() as run:
        run.score = run.confidence = run.batch_size = bad
        with run.stage(bad):
            pass
    assert events(captured) == [
        (
            "risk.inference.finished",
            "INFO",
            1,
            {
                **MODEL,
                "risk.inference.duration_s": SECONDS,
                "risk.inference.stages": {"high" if bad == "high" else "other": SECONDS},
            },
        )
    ]


def test_confidence_in_percent(captured):
    """The declared scale makes a ratio; what is above it is left out, not guessed."""
    for confidence, most in ((92.5, 100), (92.5, 1)):
        with started(confidence_max=most) as run:
            run.confidence = confidence
    found = [attributes.get("risk.confidence") for *_, attributes in events(captured)]
    assert found == [0.925, None]


def test_the_models_own_exception_is_not_touched(captured):
    """R1: what the model raises comes out as it is, even when it cannot be printed."""

    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    problem = Unprintable()
    with pytest.raises(Unprintable) as caught, started():
        raise problem
    assert caught.value is problem
    assert [record["event"] for record in captured.logs] == [
        "risk.inference.exception",
        "risk.inference.finished",
    ]


def test_buckets_and_exemplars_on_the_wire(run, receiver):
    """R4: seconds have explicit buckets from 0.1 ms up, and a point leads to its span."""
    run(
        """
        import telemetry
        from telemetry import ml
        telemetry.configure()
        with ml.inference(model="m") as run:
            with run.stage("predict"):
                pass
        telemetry.flush()
        """,
        endpoint=receiver.url,
    )
    spans = {span["name"]: span["span_id"] for span in receiver.spans}
    found = {}
    for path, message in receiver.requests:
        if path == "/v1/metrics":
            for scope in message.resource_metrics[0].scope_metrics:
                for metric in scope.metrics:
                    if metric.name.startswith("risk.inference"):
                        (point,) = metric.histogram.data_points
                        told = (
                            metric.unit,
                            list(point.explicit_bounds)[:6],
                            [exemplar.span_id.hex() for exemplar in point.exemplars],
                        )
                        found.setdefault(metric.name, told)  # the exit sends them once more
    first = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005]
    assert found == {
        "risk.inference.duration": ("s", first, [spans["infer m"]]),
        "risk.inference.stage.duration": ("s", first, [spans["predict m"]]),
    }
