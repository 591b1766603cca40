"""The fast path of measurements: the same points as the SDK path gives (O7, L9)."""

import contextlib
import gc
import math
import threading
import weakref

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider

from telemetry._fast.metrics import KEPT, quicken
from telemetry._sdk.instruments import NoMeasurementError, guarded


class Quick:
    """An instrument of the SDK behind the fast path, with the SDK's two methods."""

    def __init__(self, instrument):
        slow = getattr(instrument, "record", None) or instrument.add
        self.take = quicken(instrument, guarded(slow))

    def record(self, amount, attributes=None, context=None):
        self.take(amount, attributes, context)

    add = record


BOUNDS = [0.01, 0.1, 1.0]
LABELS = [
    {"role": "worker_open", "outcome": "success"},
    {"outcome": "success", "role": "worker_open"},  # the same point
    {"role": "worker_open", "outcome": "failure", "error.type": "ValueError"},
    {},
]
VALUES = [0.005, 0.01, 0.05, 0.5, 7.0, 0.0]


def made(temporality=AggregationTemporality.CUMULATIVE, views=(), readers=1):
    """A provider of its own with a plain histogram and a quick one, and its readers."""
    found = [
        InMemoryMetricReader(preferred_temporality={Histogram: temporality}) for _ in range(readers)
    ]
    provider = MeterProvider(found, views=views, shutdown_on_exit=False)
    meter = provider.get_meter("test")
    plain, quick = (
        meter.create_histogram(name, explicit_bucket_boundaries_advisory=BOUNDS)
        for name in ("plain", "quick")
    )
    return provider, plain, Quick(quick), found


def points(reader):
    """Instrument -> its points, without their times."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: [
            {
                name: value
                for name, value in vars(point).items()
                if "time" not in name and name != "exemplars"
            }
            | {"exemplars": [(e.value, e.trace_id, e.span_id) for e in point.exemplars]}
            for point in metric.data.data_points
        ]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("temporality", list(AggregationTemporality)[1:])
@pytest.mark.parametrize(
    "views",
    [
        (),
        (View(instrument_name="*", attribute_keys={"role"}),),
        (View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation()),),
    ],
    ids=["no view", "fewer attributes", "exponential"],
)
def test_the_points_are_those_of_the_sdk(temporality, views, readers):
    """Sums, buckets, exemplars: all as if the SDK had been asked, also after a collection."""
    provider, plain, quick, found = made(temporality, views, readers)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    for _ in range(3):
        for labels in LABELS:
            for value in VALUES:
                with tracer.start_as_current_span("within"):
                    plain.record(value, labels)
                    quick.record(value, labels)
        for reader in found:
            seen = points(reader)
            assert seen["quick"] == seen["plain"]
            assert sum(point["count"] for point in seen["plain"]) >= len(LABELS) * len(VALUES)
            assert any(point["exemplars"] for point in seen["plain"])
    provider.shutdown()


def test_a_context_can_be_given():
    """The exemplar belongs to the span of the context that the measurement is made for."""
    provider, _, quick, (reader,) = made()
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("elsewhere")
    for _ in range(2):
        quick.record(0.5, LABELS[0], trace.set_span_in_context(span))
    (point,) = points(reader)["quick"]
    here = span.get_span_context()
    assert point["exemplars"] == [(0.5, here.trace_id, here.span_id)]
    provider.shutdown()


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (3, LABELS[0]),
        (0.5, {"attempt": 1}),
        (0.5, {"flag": True}),
        (0.5, {"ratio": 1.0}),
        (0.5, {"list": ("a", "b")}),
        (0.5, {f"label{number}": number for number in range(9)}),
        (2**53 - 1, LABELS[0]),
        (0.5, None),
    ],
)
def test_what_is_unusual_goes_the_way_of_the_sdk(value, labels):
    """Whole and huge numbers, labels that are many or no texts: recorded as the SDK records them."""
    provider, plain, quick, (reader,) = made()
    for _ in range(2):
        plain.record(value, labels)
        quick.record(value, labels)
    seen = points(reader)
    assert seen["quick"] == seen["plain"]
    provider.shutdown()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_measurement_is_not_recorded(value):
    """The SDK refuses these, and so does the short way."""
    provider, _, quick, (reader,) = made()
    quick.record(0.5, LABELS[0])
    with contextlib.suppress(NoMeasurementError):  # which the instrument in front of it reports
        quick.record(value, LABELS[0])
    assert [point["count"] for point in points(reader)["quick"]] == [1]
    provider.shutdown()


def test_labels_that_differ_in_kind_alone_stay_apart():
    """1, True, 1.0 and "1" are equal keys to Python and four points to the SDK."""
    provider, plain, quick, (reader,) = made()
    for value in ("1", 1, True, 1.0, "1", 1):
        plain.record(0.5, {"n": value})
        quick.record(0.5, {"n": value})
    seen = points(reader)
    assert len(seen["plain"]) == 4
    assert seen["quick"] == seen["plain"]
    provider.shutdown()


def test_labels_may_be_changed_afterwards():
    """A dict that the caller changes after a measurement is another set of labels from then on."""
    provider, _, quick, (reader,) = made()
    labels = {"outcome": "success"}
    quick.record(0.5, labels)
    quick.record(0.5, labels)
    labels["outcome"] = "failure"
    quick.record(0.5, labels)
    counted = {p["attributes"]["outcome"]: p["count"] for p in points(reader)["quick"]}
    assert counted == {"success": 2, "failure": 1}
    provider.shutdown()


def test_more_label_sets_than_are_remembered():
    """Beyond the table the SDK does the work; nothing is lost, and the table stays bounded."""
    provider, _, quick, (reader,) = made()
    for _ in range(2):
        for number in range(KEPT + 10):
            quick.record(0.5, {"n": str(number)})
    assert [point["count"] for point in points(reader)["quick"]] == [2] * (KEPT + 10)
    provider.shutdown()


def test_an_instrument_of_somebody_else():
    """What is not the SDK's goes its own way."""
    own = guarded(metrics.NoOpHistogram("own").record)
    assert quicken(metrics.NoOpHistogram("own"), own) is own


def test_counters_too():
    """Sums of counters, up and down, with whole numbers and fractions; exemplars by chance."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    for kind, amounts in (("counter", (1, 2.5, 0)), ("up_down_counter", (1, -2.5, 7))):
        plain = getattr(meter, f"create_{kind}")(f"plain.{kind}")
        quick = Quick(getattr(meter, f"create_{kind}")(f"quick.{kind}"))
        for labels in (None, {"code": 200, "host": "a"}, {"code": 200.0, "host": "a"}):
            for _ in range(20):
                for amount in amounts:
                    with tracer.start_as_current_span("within"):
                        plain.add(amount, labels)
                        quick.add(amount, labels)
    for _ in range(2):
        seen = points(reader)
        for kind in ("counter", "up_down_counter"):
            kept = [len(point.pop("exemplars")) for point in seen[f"quick.{kind}"]]
            assert kept == [len(point.pop("exemplars")) for point in seen[f"plain.{kind}"]]
            assert seen[f"quick.{kind}"] == seen[f"plain.{kind}"]
    provider.shutdown()


def test_a_counter_takes_no_negative_amount():
    """Nor one that is no number; an up-down counter takes what is finite."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    up, both = (
        Quick(meter.create_counter("up")),
        Quick(meter.create_up_down_counter("both")),
    )
    for amount in (1, 1, -1, math.nan, math.inf, -math.inf, 1):
        for instrument in (up, both):
            with contextlib.suppress(NoMeasurementError):
                instrument.add(amount)
    seen = points(reader)
    assert [point["value"] for name in ("up", "both") for point in seen[name]] == [3, 2]
    provider.shutdown()


def test_a_reader_that_comes_later_gets_what_comes_later():
    """What is remembered is forgotten when the readers change."""
    first, second = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([first], shutdown_on_exit=False)
    counter = Quick(provider.get_meter("test").create_counter("n"))
    counter.add(1, {"a": "b"})
    counter.add(1, {"a": "b"})
    provider.add_metric_reader(second)
    counter.add(1, {"a": "b"})
    counter.add(1, {"a": "b"})
    assert [points(reader)["n"][0]["value"] for reader in (first, second)] == [4, 2]
    provider.shutdown()


def test_threads_may_measure_while_readers_come_and_go():
    """What is remembered is forgotten with the reader, under the hands of other threads."""
    provider, _, quick, (reader,) = made()
    consumer = provider._measurement_consumer
    stop = threading.Event()
    taken = []

    def measure():
        count = 0
        while not stop.is_set():
            for labels in LABELS:
                quick.record(0.5, labels)
                count += 1
        taken.append(count)

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for each in threads:
        each.start()
    for _ in range(200):
        consumer._reader_storages = dict(consumer._reader_storages)
        quick.record(0.5, {"role": "another"})
    stop.set()
    for each in threads:
        each.join()
    assert len(taken) == len(threads)
    assert sum(point["count"] for point in points(reader)["quick"]) == sum(taken) + 200
    provider.shutdown()


def test_an_instrument_that_is_gone_leaves_nothing_behind():
    """Instruments and what they remember point at each other; the collector of cycles sees them."""
    provider, _, quick, (reader,) = made()
    for _ in range(2):
        quick.record(0.5, LABELS[0])
    gone = weakref.ref(quick.take)
    provider.shutdown()
    del provider, quick, reader, _
    gc.collect()
    assert gone() is None
