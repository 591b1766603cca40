"""Which records redaction has to look at: those that are passed by would have stayed as they are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode

from telemetry import _native
from telemetry._export.record_redactor import Records
from telemetry._redaction.policy import Policy, Redaction
from telemetry._redaction.redactor import Redactor

pytestmark = pytest.mark.skipif(_native.core is None, reason="no C compiler at the installation")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SECRETS = [
    "a@b.example",
    "password=hunter2",
    "Bearer abcdefghijklmnop",
    "4111111111111111",
    "0x52908400098527886E0F7030069857D2E4169EE7",
    JWT,
]
PLAIN = ["order loaded", "EURUSD", "ORDER-12345", "0af7651916cd43dd", "", "a", "größe", "/orders/1"]
texts = st.sampled_from(SECRETS + PLAIN) | st.text(max_size=30)
names = st.sampled_from(
    ["order.id", "note", "password", "api_key", "url.query", "session.id", "value"]
)
values = st.recursive(
    texts | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
attributes = st.dictionaries(names, values, max_size=4)
resources = st.sampled_from([Resource({"service.name": "shop"}), Resource({"password": "x"})])
scopes = st.sampled_from([InstrumentationScope("shop"), InstrumentationScope("a@b.example")])
policies = st.sampled_from(
    [
        Redaction(),
        Redaction(level="strict"),
        Redaction(keys={"note": "hash"}),
        Redaction(patterns={"order": "ORDER-[0-9]+"}),
        Redaction(level="off"),
    ]
)
lines = st.tuples(
    st.just(1),
    st.just(1),
    st.just(9),
    st.sampled_from(["INFO", "", "secret=x1234567"]),
    values,
    attributes,
    st.just(1),
    st.just(1),
    st.just(1),
    st.none() | texts,
    resources,
    scopes,
)
context = SpanContext(1, 1, is_remote=False)
spans = st.builds(
    ReadableSpan,
    name=texts,
    context=st.just(context),
    attributes=attributes,
    events=st.lists(st.builds(Event, texts, attributes, st.just(1)), max_size=1),
    resource=resources,
    instrumentation_scope=scopes,
    status=st.sampled_from([Status(), Status(StatusCode.ERROR, "a@b.example")]),
    start_time=st.just(1),
    end_time=st.just(2),
)


def left_alone(items, find, redact, records):
    """The items that are passed by when the same ones come again, each with what redaction makes of it."""
    for item in items:  # what is seen first is always looked at, and remembered
        redact(item)
    pending = set(records.pending(items, find))
    return [(item, redact(item)) for index, item in enumerate(items) if index not in pending]


@settings(deadline=None)
@given(st.lists(lines, max_size=3), policies)
def test_log_records(items, policy):
    """A line that is passed by is the same after redaction."""
    records = Records(Redactor(Policy(policy)))
    for before, after in left_alone(items, _native.core.pending_lines, records.log, records):
        assert after == before


@settings(deadline=None)
@given(st.lists(spans, max_size=3), policies)
def test_spans(items, policy):
    """A span that is passed by is the same object after redaction."""
    records = Records(Redactor(Policy(policy)))
    for before, after in left_alone(items, _native.core.pending_spans, records.span, records):
        assert after is before


def test_what_repeats_is_passed_by():
    """The point of it: once seen, plain records need no look, and those with a secret always do."""
    records = Records(Redactor(Policy(Redaction())))
    resource, scope = Resource({"service.name": "shop"}), InstrumentationScope("shop")
    plain, secret = (
        (1, 1, 9, "INFO", "order loaded", {"note": note, "steps": {"note": 1.5}}, 1, 1, 1, None)
        for note in ("order", "a@b.example")
    )
    items = [(*plain, resource, scope), (*secret, resource, scope)]
    assert list(records.pending(items, _native.core.pending_lines)) == [0, 1]
    for item in items:
        records.log(item)
    assert list(records.pending(items, _native.core.pending_lines)) == [1]
    assert list(records.pending(items, None)) == [0, 1]
