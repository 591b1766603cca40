"""Connectors take any OTLP request that the receiver takes, and count all of it."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.connectors.count import Count
from collector.connectors.servicegraph import ServiceGraph
from collector.connectors.spanmetrics import Dimension, Exemplars, SpanMetrics
from collector.model import Signal
from collector.otlp import count
from tests.collector.connectors.parts import numbers, request
from tests.collector.exporters.peers import host
from tests.strategies import requests

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
TOTALS = ("trace.span.count", "metric.datapoint.count", "log.record.count")


def fed(cls, config, batch):
    """What a connector hands on for one batch."""
    emitted = []

    async def take(made):
        emitted.append(made)

    async def run():
        connector = cls(config, host(), {Signal.METRICS: take})
        if hasattr(connector, "__aenter__"):
            async with connector:
                await connector(batch)
        else:
            await connector(batch)

    asyncio.run(run())
    return [each for made in emitted for each in numbers(made)]


@FEW
@given(st.sampled_from(list(Signal)).flatmap(lambda each: st.tuples(st.just(each), requests(each))))
def test_count_counts_everything(pair):
    """The default metrics of any request add up to its items."""
    signal, message = pair
    found = fed(Count, Count.Config(), request(signal, message))
    assert sum(value for name, _, value in found if name in TOTALS) == count(signal, message)


@FEW
@given(requests(Signal.TRACES))
def test_spanmetrics_counts_every_span(message):
    """Calls and durations of any request both add up to its spans."""
    config = SpanMetrics.Config(
        dimensions=(Dimension(name="http.route"),), exemplars=Exemplars(enabled=True)
    )
    found = fed(SpanMetrics, config, request(Signal.TRACES, message))
    spans = count(Signal.TRACES, message)
    assert sum(value for name, _, value in found if name.endswith("calls")) == spans
    assert sum(value[0] for name, _, value in found if name.endswith("duration")) == spans


@FEW
@given(requests(Signal.TRACES))
def test_servicegraph_takes_any_span(message):
    """Each request between services has as many durations as it has counts."""
    found = fed(ServiceGraph, ServiceGraph.Config(), request(Signal.TRACES, message))
    totals = [value for name, _, value in found if name.endswith("request_total")]
    times = [value[0] for name, _, value in found if name.endswith("server_seconds")]
    assert totals == times
