"""The attributes processor: every action, the choice of items, hostile data."""

import hashlib

import pytest

from collector.errors import Permanent, Retryable
from collector.model import Signal
from collector.processors.attributes import Attributes
from collector.processors.shared.actions import Action
from collector.processors.shared.matching import Library, Match, Pair, SeverityNumber
from tests.collector.processors.parts import (
    Sink,
    batch,
    host,
    logs,
    metrics,
    plain,
    span,
    through,
    traces,
)

pytestmark = pytest.mark.anyio


def action(kind, key="", **more):
    return Action(action=kind, key=key, **more)


def processor(*actions, sink=None, **more):
    config = Attributes.Config(actions=list(actions), **more)
    assert Attributes.check(config) == []
    return Attributes(config, host(), sink or Sink())


async def edited(attributes, *actions):
    """The attributes of a log record after the actions."""
    sent = logs({"attributes": attributes})
    wire = sent.wire
    await processor(*actions)(sent)
    unchanged = plain(sent) == plain(logs({"attributes": attributes}))
    assert (sent.wire == wire) is unchanged
    return plain(sent)


def record(**attributes):
    return plain(logs({"attributes": attributes}))


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        ({}, action("insert", "a", value=1), {"a": 1}),
        ({"a": 0}, action("insert", "a", value=1), {"a": 0}),
        ({}, action("update", "a", value=1), {}),
        ({"a": "x"}, action("update", "a", value=[1, {"b": True}]), {"a": [1, {"b": True}]}),
        ({}, action("upsert", "a", value="t"), {"a": "t"}),
        ({"a": 0}, action("upsert", "a", value="t"), {"a": "t"}),
        ({"b": [1]}, action("upsert", "a", from_attribute="b"), {"b": [1], "a": [1]}),
        ({"a": 1}, action("upsert", "a", from_attribute="b"), {"a": 1}),
        ({"a": 1}, action("upsert", "a", from_attribute="a"), {"a": 1}),
        ({}, action("insert", "a", from_attribute="b", default_value=7), {"a": 7}),
        ({"b": 1}, action("insert", "a", from_attribute="b", default_value=7), {"b": 1, "a": 1}),
        ({"a": 1, "b": 2}, action("delete", "a"), {"b": 2}),
        ({"a.x": 1, "b": 2, "a.y": 3}, action("delete", pattern=r"^a\."), {"b": 2}),
        ({"a": 1, "b": 2, "c": 3}, action("delete", "a", pattern="c"), {"b": 2}),
        ({"n": "12"}, action("convert", "n", converted_type="int"), {"n": 12}),
        ({"n": "12.5"}, action("convert", "n", converted_type="int"), {"n": "12.5"}),
        ({"n": "9" * 30}, action("convert", "n", converted_type="int"), {"n": "9" * 30}),
        ({"n": 12.9}, action("convert", "n", converted_type="int"), {"n": 12}),
        ({"n": float("inf")}, action("convert", "n", converted_type="int"), {"n": float("inf")}),
        ({"n": True}, action("convert", "n", converted_type="int"), {"n": 1}),
        ({"n": "1e3"}, action("convert", "n", converted_type="double"), {"n": 1000.0}),
        ({"n": "1_0"}, action("convert", "n", converted_type="double"), {"n": "1_0"}),
        ({"n": 3}, action("convert", "n", converted_type="double"), {"n": 3.0}),
        ({"n": [1]}, action("convert", "n", converted_type="string"), {"n": "[1]"}),
        ({"n": False}, action("convert", "n", converted_type="string"), {"n": "false"}),
        ({}, action("convert", "n", converted_type="string"), {}),
        (
            {"url": "https://shop/cart?id=7"},
            action("extract", "url", pattern=r"^https?://(?P<host>[^/]+)/(?P<page>\w+)(?P<q>x)?"),
            {"url": "https://shop/cart?id=7", "host": "shop", "page": "cart", "q": ""},
        ),
        ({"url": 7}, action("extract", "url", pattern="(?P<a>.)"), {"url": 7}),
        ({"url": "-"}, action("extract", "url", pattern=r"(?P<a>\d)"), {"url": "-"}),
    ],
)
async def test_actions(before, given, after):
    """Each action does what the OpenTelemetry Collector's does."""
    assert await edited(before, given) == record(**after)


async def test_hash_is_the_collectors():
    """Texts are hashed as UTF-8, numbers as 8 bytes, bools as one; the result is SHA-1 in hex."""
    before = {"text": "ü", "int": -1, "double": 1.5, "bool": True, "other": 1}
    given = action("hash", pattern="^(text|int|double|bool)$")
    data = {
        "text": "ü".encode(),
        "int": b"\xff" * 8,
        "double": b"\x00" * 6 + b"\xf8\x3f",
        "bool": b"\x01",
    }
    hashes = {key: hashlib.sha1(value).hexdigest() for key, value in data.items()}
    assert await edited(before, given) == record(**hashes, other=1)


async def test_actions_run_in_their_order():
    """A later action sees what an earlier one wrote."""
    actions = [
        action("insert", "b", from_attribute="a"),
        action("delete", "a"),
        action("convert", "b", converted_type="string"),
    ]
    assert await edited({"a": 1}, *actions) == record(b="1")


SPAN_ITEMS = [
    span("GET /a", 1, kind=2, attributes={"code": 200}),
    span("POST /b", 2, kind=3, attributes={"code": "500", "user": "x"}),
]


async def test_spans_events_and_metric_points_in_a_service(tmp_path):
    """One processor edits spans, each data point of metrics, and log records."""
    yaml = {"attributes": {"actions": [{"key": "env", "value": "test", "action": "upsert"}]}}
    point = {"name": "m", "points": [({"a": 1}, 1), ({"env": "x"}, 2)]}
    seen, counters = await through(
        tmp_path, yaml, traces(*SPAN_ITEMS), metrics(point), logs({"body": "b"})
    )
    env = {"env": "test"}
    assert seen == [
        plain(traces(*[{**item, "attributes": item["attributes"] | env} for item in SPAN_ITEMS])),
        plain(metrics({"name": "m", "points": [({"a": 1} | env, 1), (env, 2)]})),
        plain(logs({"body": "b", "attributes": env})),
    ]
    assert counters == {
        'otelcol_processor_incoming_items{otel_signal="logs",processor="attributes"}': 1,
        'otelcol_processor_incoming_items{otel_signal="metrics",processor="attributes"}': 2,
        'otelcol_processor_incoming_items{otel_signal="traces",processor="attributes"}': 2,
        'otelcol_processor_outgoing_items{otel_signal="logs",processor="attributes"}': 1,
        'otelcol_processor_outgoing_items{otel_signal="metrics",processor="attributes"}': 2,
        'otelcol_processor_outgoing_items{otel_signal="traces",processor="attributes"}': 2,
    }


async def marked(sent, **sections):
    """Which items of a batch the sections reach, by their names or texts."""
    await processor(action("insert", "hit", value=True), **sections)(sent)
    found = []
    for group in sent.message.ListFields()[0][1]:
        for scope in group.ListFields()[-1][1]:
            for item in scope.ListFields()[-1][1]:
                owners = item.gauge.data_points if sent.signal is Signal.METRICS else [item]
                hits = [pair.key for owner in owners for pair in owner.attributes].count("hit")
                found += [getattr(item, "name", "") or item.body.string_value] * hits
    return found


def all_traces():
    return batch(
        Signal.TRACES,
        [
            ({"service.name": "shop", "zone": "a"}, "http", SPAN_ITEMS),
            ({"service.name": "bank"}, "db", [span("SELECT", 3)]),
        ],
    )


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (Match(match_type="strict", services=["bank"]), ["SELECT"]),
        (Match(match_type="regexp", services=["^(shop|none)$"]), ["GET /a", "POST /b"]),
        (Match(match_type="strict", span_names=["GET /a", "SELECT"]), ["GET /a", "SELECT"]),
        (Match(match_type="regexp", span_names=["^[A-Z]+ /"]), ["GET /a", "POST /b"]),
        (Match(match_type="strict", span_kinds=["client"]), ["POST /b"]),
        (Match(match_type="regexp", span_kinds=["SPAN_KIND_S"]), ["GET /a"]),
        (Match(match_type="strict", attributes=[Pair(key="code", value=200)]), ["GET /a"]),
        (Match(match_type="strict", attributes=[Pair(key="code", value=500)]), []),
        (
            Match(match_type="regexp", attributes=[Pair(key="code", value="^[25]")]),
            ["GET /a", "POST /b"],
        ),
        (Match(match_type="strict", attributes=[Pair(key="user"), Pair(key="code")]), ["POST /b"]),
        (
            Match(match_type="strict", resources=[Pair(key="zone", value="a")]),
            ["GET /a", "POST /b"],
        ),
        (Match(match_type="strict", libraries=[Library(name="db")]), ["SELECT"]),
        (Match(match_type="strict", libraries=[Library(name="db", version="1")]), []),
        (
            Match(match_type="strict", services=["shop"], span_kinds=["SPAN_KIND_SERVER"]),
            ["GET /a"],
        ),
        (Match(match_type="strict", log_bodies=["x"]), []),
        (Match(match_type="strict", log_severity_number=SeverityNumber(min=1)), []),
    ],
)
async def test_include_and_exclude(match, names):
    """Every property that is set must fit; exclude is the opposite of include."""
    assert await marked(all_traces(), include=match) == names
    everything = ["GET /a", "POST /b", "SELECT"]
    rest = [name for name in everything if name not in names]
    assert await marked(all_traces(), exclude=match) == rest
    assert await marked(all_traces(), include=match, exclude=match) == []


@pytest.mark.parametrize(
    ("match", "bodies"),
    [
        (Match(match_type="strict", log_bodies=["one"]), ["one"]),
        (Match(match_type="regexp", log_bodies=["o"]), ["one", "two"]),
        (Match(match_type="strict", log_severity_texts=["WARN"]), ["two"]),
        (Match(match_type="strict", log_severity_number=SeverityNumber(min=13)), ["two"]),
        (
            Match(match_type="strict", log_severity_number=SeverityNumber(match_undefined=True)),
            ["one", "two", "three"],
        ),
    ],
)
async def test_include_of_log_records(match, bodies):
    """Bodies and severities choose log records."""
    records = [
        {"body": "one", "severity_number": 9},
        {"body": "two", "severity_number": 13, "severity_text": "WARN"},
        {"body": "three"},
    ]
    assert await marked(logs(*records), include=match) == bodies


async def test_include_of_metric_points():
    """Names choose metrics, attributes choose single data points."""
    found = [
        {"name": "a", "points": [({"k": 1}, 1), ({"k": 2}, 1)]},
        {"name": "b", "points": [({"k": 1}, 1)]},
    ]
    names = Match(match_type="strict", metric_names=["a"])
    points = Match(match_type="strict", metric_names=["a"], attributes=[Pair(key="k", value=2)])
    assert await marked(metrics(*found), include=names) == ["a", "a"]
    assert await marked(metrics(*found), include=points) == ["a"]


async def test_sections_are_checked(tmp_path):
    """A section that chooses nothing, and a pattern that explodes, are refused at start."""
    empty = Attributes.Config(actions=[action("delete", "a")], include=Match(match_type="strict"))
    assert empty.include.check() == [
        "at least one property, such as services or attributes, must be set"
    ]
    slow = Match(match_type="regexp", services=["(a+)+$"], attributes=[Pair(key="k", value="(")])
    assert [text[:20] for text in slow.check()] == ['pattern "(a+)+$" is ', 'pattern "(" is no re']


async def test_hostile_texts_do_not_stop_the_collector():
    """B53: a batch on which a pattern is too slow is rejected, and counted."""
    sink = Sink()
    given = processor(action("extract", "t", pattern=r"(?P<n>\d+-\d+-\d+)"), sink=sink)
    sent = logs(*[{"attributes": {"t": "1" * 4096}} for _ in range(100)])
    with pytest.raises(Permanent, match='processor "test": a pattern needs too long'):
        await given(sent)
    await given(logs({"attributes": {"t": "1-2-3"}}))
    assert sink.seen == [record(t="1-2-3", n="1-2-3")]
    counters = given.host.stats.snapshot()
    name = 'otelier_processor_dropped_items{processor="test",reason="pattern_too_slow"}'
    assert counters[name] == 100


async def test_large_batches_are_worked_on_in_a_thread():
    """More items than are worked on in the loop give the same result."""
    sink = Sink()
    given = processor(action("upsert", "n", value=1), sink=sink)
    await given(logs(*[{"body": "\U0001f600" * 10}] * 2000))
    expected = logs(*[{"body": "\U0001f600" * 10, "attributes": {"n": 1}}] * 2000)
    assert sink.batches[0].message == expected.message


async def test_errors_of_what_follows_pass_through():
    """The sender gets the exporter's own answer."""
    sink = Sink()
    sink.errors = [Retryable("later", 7.0), Permanent("never")]
    given = processor(action("upsert", "n", value=1), sink=sink)
    with pytest.raises(Retryable, match="later"):
        await given(logs({"body": "a"}))
    with pytest.raises(Permanent, match="never"):
        await given(logs({"body": "a"}))
