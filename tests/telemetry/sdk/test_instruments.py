"""Instruments of our provider take any value, from any thread, and never raise (R15)."""

import decimal
import math
import threading

import pytest
from opentelemetry import metrics
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from telemetry import Redaction, _diagnostics
from telemetry._export.record_redactor import RecordRedactor
from telemetry._sdk.meter_provider import GuardedMeterProvider
from telemetry._sdk.metric_reader import Reader


class Mute:
    def __str__(self):
        raise LookupError("no words")


class Half:
    def __float__(self):
        return 0.5


@pytest.fixture
def provider(monkeypatch):
    """A provider of its own, with the reader of this process."""
    monkeypatch.setattr(_diagnostics, "_said", {})
    redactor = RecordRedactor(Redaction())
    made = GuardedMeterProvider(
        lambda: Resource({"service.name": "shop"}), begin=lambda: None, shown=lambda: redactor.shown
    )
    made.reader = Reader()
    made.open(made.reader)
    return made


def points(data):
    """(name, attributes, value or sum) of each point."""
    return [
        (
            metric.name,
            dict(point.attributes or {}),
            point.value if hasattr(point, "value") else point.sum,
        )
        for group in (data.resource_metrics if data else ())
        for scope in group.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


AMOUNTS = [
    (1, 1),
    (True, 1),
    (2.5, 2.5),
    (decimal.Decimal("1.5"), 1.5),
    (Half(), 0.5),
    (2**60, float(2**60)),
    ("x", None),
    (None, None),
    (10**5000, None),
    (math.nan, None),
    (math.inf, None),
    ([1], None),
    (Mute(), None),
]


@pytest.mark.parametrize(("amount", "recorded"), AMOUNTS, ids=lambda value: type(value).__name__)
def test_an_amount_is_recorded_as_a_number_or_not_at_all(provider, amount, recorded):
    """Numbers of any kind count; what is none is left out and costs the call nothing."""
    meter = provider.get_meter("m")
    meter.create_counter("sum").add(amount, {"a": 1})
    meter.create_histogram("spread").record(amount, {"a": 1})
    meter.create_up_down_counter("level").add(amount, {"a": 1})
    meter.create_gauge("now").set(amount, {"a": 1})
    expected = [] if recorded is None else [recorded] * 4
    assert [value for _, _, value in points(provider.reader.take(10))] == expected


LABELS = [
    ({"a": Mute()}, {"a": "<unprintable Mute>"}),
    ({"a": range(10**18)}, None),
    ({"a": ["x", "y"]}, {"a": ("x", "y")}),
    ({"a": {"b": 1}}, {"a": "{'b': 1}"}),
    ({7: "seven"}, {"7": "seven"}),
    ({"a": "x" * 5000}, {"a": "x" * 1024}),
    ([("a", 1)], {}),
    ("a", {}),
]


@pytest.mark.parametrize(("labels", "recorded"), LABELS, ids=lambda value: str(type(value)))
def test_labels_are_short_plain_values(provider, labels, recorded):
    """Any attributes: the measurement counts, with what can be a label of them."""
    provider.get_meter("m").create_counter("sum").add(1, labels)
    ((_, found, value),) = points(provider.reader.take(10))
    assert value == 1
    assert recorded is None or found == recorded
    assert all(len(str(item)) <= 2000 for item in found.values())


def test_a_dict_that_another_thread_changes(provider):
    """What is measured meanwhile is counted, each time."""
    counter = provider.get_meter("m").create_counter("sum")
    shared, stop = {"a": 1}, threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"k{number % 40}"] = number
            if number % 40 == 0:
                shared.clear()

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(3000):
        counter.add(1, shared)
    stop.set()
    thread.join()
    assert sum(value for _, _, value in points(provider.reader.take(10))) == 3000


@pytest.mark.parametrize(
    "name",
    ["", "1st", "ü", "x" * 300, Mute()],
    ids=lambda name: str(type(name)) + str(name)[:3] if type(name) is str else type(name).__name__,
)
def test_a_name_that_the_sdk_refuses(provider, name, capsys):
    """The instrument is there, measures nothing and says so once."""
    counter = provider.get_meter("m").create_counter(name)
    counter.add(1)
    counter.add(1)
    provider.get_meter("m").create_counter("good").add(1)
    assert points(provider.reader.take(10)) == [("good", {}, 1)]
    assert "was not recorded" in capsys.readouterr().err


def test_the_same_instrument_each_time(provider):
    """As with the SDK: same meter and arguments, same instrument."""
    meter = provider.get_meter("m", "1", "https://a.example/1")
    assert meter is provider.get_meter("m", "1", "https://a.example/1")
    assert meter.create_counter("a", "s") is meter.create_counter("a", "s")
    assert meter.create_counter("a", "s") is not meter.create_counter("a", "ms")
    assert isinstance(meter.create_counter("a", "s"), metrics.Counter)
    gauges = {meter.create_observable_gauge("b", [lambda _: [Observation(1)]]) for _ in range(9)}
    assert len(gauges) == 1
    assert points(provider.reader.take(10)) == [("b", {}, 1)]


def raising(_):
    raise LookupError("no value")


def endless(_):
    while True:
        yield Observation(1, {"a": 1})


def generator():
    yield
    yield [Observation(5, {"a": 1})]


CALLBACKS = {
    "good": (lambda _: [Observation(3, {"a": 1})], [({"a": 1}, 3)]),
    "raises": (raising, []),
    "no list": (lambda _: 3, []),
    "nothing": (lambda _: None, []),
    "odd values": (
        lambda _: [Observation("x"), Observation(2, {"a": ["b"]}), 7],
        [({"a": ("b",)}, 2)],
    ),
    "endless": (endless, [({"a": 1}, 1)]),
    "generator": (generator(), [({"a": 1}, 5)]),
}


@pytest.mark.parametrize("case", CALLBACKS, ids=str)
def test_a_callback_costs_its_own_observations_only(provider, case):
    """Whatever a callback does, the collection has the points of the others."""
    callback, expected = CALLBACKS[case]
    meter = provider.get_meter("m")
    meter.create_observable_gauge("odd", [callback])
    meter.create_observable_gauge("good", [lambda _: [Observation(1)]])
    found = points(provider.reader.take(10))
    assert [(labels, value) for name, labels, value in found if name == "odd"] == expected
    assert ("good", {}, 1) in found


def test_a_reader_of_somebody_else(provider):
    """It comes and goes, and sees names, labels and resource redacted; ours is not disturbed."""
    counter = provider.get_meter("m").create_counter("sum", description="of anna@example.org")
    counter.add(1, {"password": "hunter2"})
    reader = InMemoryMetricReader()
    provider.add_metric_reader(reader)
    counter.add(1, {"password": "hunter2"})
    provider.get_meter("m").create_observable_gauge(
        "seen", [lambda _: [Observation(1, {"password": "hunter2"})]]
    )
    data = reader.get_metrics_data()
    assert sorted(points(data)) == [
        ("seen", {"password": "[REDACTED]"}, 1),
        ("sum", {"password": "[REDACTED]"}, 1),
    ]
    assert "anna@" not in str(data.to_json())
    provider.remove_metric_reader(reader)
    counter.add(1, {"password": "hunter2"})
    assert ("sum", {"password": "hunter2"}, 3) in points(provider.reader.take(10))


def test_an_instrument_made_before_there_is_a_reader(provider):
    """Observables too: what a module makes at import is collected from the first reader on."""
    redactor = RecordRedactor(Redaction())
    late = GuardedMeterProvider(
        lambda: Resource({}), begin=lambda: None, shown=lambda: redactor.shown
    )
    counter = late.get_meter("m").create_counter("sum")
    late.get_meter("m").create_observable_gauge("seen", [lambda _: [Observation(4)]])
    counter.add(1)
    reader = Reader()
    late.open(reader)
    counter.add(2)
    assert sorted(points(reader.take(10))) == [("seen", {}, 4), ("sum", {}, 2)]
