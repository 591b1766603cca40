"""Any query over any data, and queries that were damaged: an answer or one of two errors."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.documents.build import documents
from collector.model import Signal
from collector.query.traceql import printer
from collector.query.traceql.errors import LimitExceeded, ParseError
from collector.query.traceql.metrics import accumulator, finished
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan
from collector.query.traceql.series import over_range
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.view import Trace
from tests import strategies
from tests.collector.query.traceql import trees
from tests.collector.query.traceql.spans import FIRST, MS, span

SPANS = [
    span(1, kind=2, status=2, a=1, b="x", events=(("e", 1, {"a": "x"}),)),
    span(2, parent=1, at_ms=1, a=0.5, b=["x", 1], x=True),
    span(3, parent=2, at_ms=2, a="x", service=None, links=(("0" * 31 + "1", "0" * 15 + "1", {}),)),
]


def run(query, found):
    """Everything that is done with a query: plan, spansets, numbers."""
    for scan in plan(query).scans:
        for one in found.spans:
            scan.test(one)
    sets = pipeline(query.stages)(found)
    assert all(each.spans for each in sets)
    if query.metrics is not None:
        counting = accumulator(query, over_range(FIRST - 10 * MS, FIRST + 100 * MS, 10 * MS))
        for one in (one for each in sets for one in each.spans):
            counting.add(one)
        finished(query, counting.series())


@given(trees.queries())
@settings(max_examples=200, deadline=None)
def test_any_query_is_answered(query):
    """Every construct over spans with values of every type raises nothing."""
    run(query, Trace(SPANS))


@given(strategies.requests(Signal.TRACES), trees.queries())
@settings(max_examples=40, deadline=None)
def test_any_query_is_answered_over_any_data(message, query):
    """Whatever OTLP can hold: values of every type, times of every size, broken parents."""
    for group in message.resource_spans:
        for scoped in group.scope_spans:
            for number, one in enumerate(scoped.spans, 1):
                one.trace_id, one.span_id = bytes(15) + b"\x01", number.to_bytes(8)
    found = documents(strategies.batch(Signal.TRACES, message))
    if found:
        run(query, Trace(found))


@given(trees.queries(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_query_is_an_answer_or_a_parse_error(query, data):
    """Characters lost, doubled, swapped: never anything but the two errors of a query."""
    text = printer.query(query)
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 4)))
        text = (
            text[:begin]
            + data.draw(
                st.sampled_from(["", text[begin:end] * 2, "(", '"', "|", "=", "!", ".", "-"])
            )
            + text[end:]
        )
    with contextlib.suppress(ParseError, LimitExceeded):
        run(parse(text), Trace(SPANS))
