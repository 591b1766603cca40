"""The connector count: how many spans, events, metrics, data points and log records came by."""

import pytest

from collector.config import InvalidConfig
from collector.errors import CollectorError, Retryable
from tests.collector.connectors.parts import (
    CLIENT,
    Connected,
    gauges,
    logs,
    numbers,
    span,
    traces,
)

pytestmark = pytest.mark.anyio


async def made(tmp_path, batch, settings="{}", source="traces"):
    """What comes out at once for one batch."""
    async with Connected(tmp_path, "count", settings, source) as running:
        await running.send(batch)
        assert len(running.sink.batches) == 1
        return running.sink.batches[0]


async def test_the_default_metrics(tmp_path):
    """Without settings: the OpenTelemetry Collector's five metrics, with the resource counted from."""
    batch = await made(
        tmp_path, traces(span(events=("a", "b")), span(), service__name="shop"), source="traces"
    )
    assert numbers(batch) == [("trace.span.count", {}, 2), ("trace.span.event.count", {}, 2)]
    group = batch.message.resource_metrics[0]
    assert group.resource.attributes[0].value.string_value == "shop"
    (spans, _) = group.scope_metrics[0].metrics
    assert (spans.sum.is_monotonic, spans.sum.aggregation_temporality, spans.description) == (
        True,
        1,
        "The number of spans observed.",
    )
    batch = await made(tmp_path, gauges("a", "b", points=3), source="metrics")
    assert numbers(batch) == [("metric.count", {}, 2), ("metric.datapoint.count", {}, 6)]
    batch = await made(tmp_path, logs(("x", {}), ("y", {})), source="logs")
    assert numbers(batch) == [("log.record.count", {}, 2)]


async def test_conditions_and_attributes(tmp_path):
    """One condition that holds is enough; what lacks an attribute without default is not counted."""
    settings = "{spans: {slow.or.client: {conditions: ['name == \"slow\"', 'kind == 3']}}}"
    batch = await made(tmp_path, traces(span("slow"), span("x", CLIENT), span("x")), settings)
    assert ("slow.or.client", {}, 2) in numbers(batch)
    settings = """{logs: {by.user: {
      description: "per user",
      attributes: [{key: user}, {key: zone, default_value: none}, {key: service.name}],
    }}}"""
    records = (
        ("a", {"user": "u1"}),
        ("b", {"user": "u1", "zone": "z"}),
        ("c", {}),
        ("d", {"user": "u1"}),
    )
    batch = await made(tmp_path, logs(*records, service__name="s"), settings, "logs")
    assert numbers(batch) == [
        ("by.user", {"user": "u1", "zone": "none", "service.name": "s"}, 2),
        ("by.user", {"user": "u1", "zone": "z", "service.name": "s"}, 1),
    ]


async def test_events_and_points_have_conditions_of_their_own(tmp_path):
    """`spanevents` ask about events."""
    settings = (
        "{spans: {s: {conditions: ['false']}}, spanevents: {e: {conditions: ['name == \"b\"']}}}"
    )
    batch = await made(tmp_path, traces(span(events=("a", "b", "b"))), settings)
    assert numbers(batch) == [("e", {}, 2)]


async def test_nothing_to_count_emits_nothing(tmp_path):
    """A batch of which nothing is counted makes no metrics."""
    settings = "{logs: {n: {conditions: ['body == \"x\"']}}}"
    async with Connected(tmp_path, "count", settings, "logs") as running:
        await running.send(logs(("y", {})))
    assert running.sink.calls == 0


async def test_the_sender_hears_whether_the_numbers_were_taken(tmp_path):
    """A failure behind the connector is the sender's; its resend has the same identity, and counts once."""
    batch = logs(("x", {}))
    async with Connected(tmp_path, "count", "{}", "logs") as running:
        running.sink.failure = Retryable("down")
        with pytest.raises(CollectorError, match="down"):
            await running.send(batch)
        running.sink.failure = None
        await running.send(batch)
        await running.send(batch)
        await running.send(logs(("x", {})))
    keys = [each.request.key for each in running.sink.batches]
    assert [numbers(each)[0][2] for each in running.sink.batches] == [1, 1]
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{spans: {x: {conditions: ['nonsense(']}}}", "spans: x: cannot use condition 'nonsense('"),
        ("{spans: {x: {attributes: [{key: ''}]}}}", "spans: attribute key missing in x"),
        ("{spans: {'': {}}}", "spans: metric name missing"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path, settings, expected):
    """Each is found before anything starts."""
    with pytest.raises(InvalidConfig) as caught:
        Connected(tmp_path, "count", settings)
    assert expected in caught.value.report()
