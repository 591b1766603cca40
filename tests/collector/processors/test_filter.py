"""The filter processor: the language of conditions, what is dropped, what is counted."""

import pytest

from collector.config import InvalidConfig
from collector.documents.build import documents
from collector.errors import Permanent, Retryable
from collector.model import Signal
from collector.processors.filter import Filter
from tests.collector.processors.parts import (
    Sink,
    batch,
    host,
    logs,
    metrics,
    names_of,
    plain,
    service,
    span,
    through,
    traces,
)

pytestmark = pytest.mark.anyio


def processor(sink=None, **config):
    made = Filter.Config(**config)
    assert Filter.check(made) == []
    return Filter(made, host(), sink or Sink())


RECORD = {
    "body": {"user": {"name": "ü"}, "tags": ["a", 2]},
    "severity_number": 17,
    "severity_text": "ERROR",
    "event_name": "order.failed",
    "trace_id": b"\x0a" * 16,
    "time_unix_nano": 5,
    "attributes": {
        "text": "GET /health",
        "int": 3,
        "float": 3.0,
        "bool": True,
        "list": [1, 2],
        "map": {"k": "v"},
        "bytes": b"ab",
        'quo"te': "x",
    },
}
TRUE = [
    'attributes["text"] == "GET /health"',
    'log.attributes["text"] != "POST"',
    'attributes["int"] == 3.0 and attributes["float"] == 3',
    'attributes["int"] >= 3 and attributes["int"] < 4 and attributes["int"] > -1',
    'attributes["text"] > "GET" and attributes["text"] <= "GET /health"',
    'attributes["bool"] == true',
    'attributes["bool"]',
    'attributes["absent"] == nil and attributes["text"] != nil',
    'attributes["map"]["k"] == "v" and attributes["map"]["none"] == nil',
    'attributes["list"][1] == 2 and attributes["list"][7] == nil',
    'attributes["quo\\"te"] == "x"',
    'body["user"]["name"] == "ü" and body["tags"][0] == "a"',
    'IsMap(body) and not IsString(body) and IsList(body["tags"])',
    "severity_number >= SEVERITY_NUMBER_ERROR and severity_number < SEVERITY_NUMBER_FATAL",
    'severity_text == "ERROR" and log.event_name == "order.failed"',
    'trace_id.string == "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a" and span_id.string == ""',
    'IsMatch(attributes["text"], "^(GET|POST) /h") and IsMatch(attributes["int"], "^3$")',
    'HasPrefix(attributes["text"], "GET") and HasSuffix(attributes["text"], "health")',
    'IsInt(attributes["int"]) and IsDouble(attributes["float"]) and IsBool(attributes["bool"])',
    'Len(attributes["text"]) == 11 and Len(attributes["list"]) == 2 and Len(attributes["int"]) == nil',
    'ToLowerCase(severity_text) == "error"',
    'resource.attributes["service.name"] == "shop" and instrumentation_scope.name == "scope"',
    'not (severity_text == "INFO" or severity_text == "WARN")',
    "false or true and not false",
    "time_unix_nano == 5 and log.time_unix_nano < 6",
]
FALSE = [
    'attributes["int"] == "3"',
    'attributes["bool"] == 1',
    'attributes["text"] > 3 or attributes["text"] < 3',
    'attributes["absent"] > 0',
    'attributes["text"]',
    'IsMatch(attributes["absent"], ".*")',
    'HasPrefix(attributes["int"], "3")',
    "true and false or false",
    'attributes["list"] == attributes["map"]',
    "severity_number",
]


@pytest.mark.parametrize(
    ("condition", "holds"), [*((c, True) for c in TRUE), *((c, False) for c in FALSE)]
)
async def test_conditions(condition, holds):
    """Values are compared as OTTL compares them: of different types nothing is equal or ordered."""
    sink = Sink()
    given = processor(sink, log_conditions=[condition])
    await given(logs(RECORD, resource={"service.name": "shop"}))
    assert len(sink.batches) == (0 if holds else 1)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("", "the condition ends too early at character 1"),
        ('attributes["a"] ==', "the condition ends too early at character 19"),
        ("severity_text = 1", 'cannot read "= 1" at character 15'),
        ("(true", 'expected ")" at character 6'),
        ("true true", 'unexpected "true" at character 6'),
        ("and", 'unexpected "and" at character 1'),
        ("attributes", '"attributes" needs a key, as in attributes["key"]'),
        ("attributes[1] == 1", "the key of an attribute is a text"),
        ("attributes[x]", 'expected a key, as in attributes["key"] at character 13'),
        ("log.", 'expected a name behind "." at character 5'),
        ("severity == 1", 'unknown path "severity"; log has: attributes["key"], body["key"], '),
        ("span.name == 1", '"span.name" cannot be read here; there are: log, resource, scope'),
        ('Concat("a", "b")', 'undefined function "Concat"; there are: HasAttrKeyOnDatapoint, '),
        ('IsMatch("a")', "IsMatch takes 2 arguments, not 1"),
        ("IsMatch(body, body)", "IsMatch takes its pattern as a text"),
        ('IsMatch(body, "(a+)+$")', "is too slow on some texts"),
        ("(" * 40 + "true" + ")" * 40, "nested deeper than 32 levels"),
        ("Len(" * 40 + "body" + ")" * 40, "nested deeper than 32 levels"),
        ("true or " * 1000 + "true", "a condition has at most 4096 characters"),
    ],
)
async def test_wrong_conditions_are_found_at_start(condition, text):
    """A condition that cannot be understood says where, and what there is instead."""
    (found,) = Filter.check(Filter.Config(log_conditions=[condition]))
    assert found.startswith(f"log_conditions[0]: cannot use condition {condition!r}: ")
    assert text in found


async def test_wrong_conditions_name_their_section(tmp_path):
    """The loader reports conditions of every form, with the pipeline's own contexts."""
    yaml = {
        "filter": {
            "trace_conditions": [{"context": "log", "conditions": ["true"]}],
            "metrics": {"datapoint": ["nope"], "metric": ["datapoint.flags == 1"]},
        }
    }
    with pytest.raises(InvalidConfig) as caught:
        service(tmp_path, yaml)
    assert [problem.split("\n")[0] for problem in caught.value.problems] == [
        (
            "processors::filter: trace_conditions[0]: cannot use condition 'true': unknown "
            'context "log"; traces has: resource, scope, spanevent, span'
        ),
        (
            "processors::filter: metrics.metric: cannot use condition 'datapoint.flags == 1': "
            '"datapoint.flags" cannot be read here; there are: metric, resource, scope'
        ),
        (
            "processors::filter: metrics.datapoint: cannot use condition 'nope': unknown path "
            '"nope"; datapoint has: attributes["key"], count, flags, start_time_unix_nano, sum, '
            "time_unix_nano, value_double, value_int"
        ),
    ]


def all_traces():
    return batch(
        Signal.TRACES,
        [
            (
                {"env": "prod"},
                "http",
                [
                    span("GET /health", 1, kind=2),
                    span(
                        "GET /a",
                        2,
                        kind=2,
                        status=(2, "bad"),
                        events=[("keep", {}), ("gone", {"n": 1})],
                    ),
                ],
            ),
            ({"env": "test"}, "db", [span("SELECT", 3, kind=3)]),
            ({"env": "prod"}, "noise", [span("tick", 4), span("tock", 5)]),
        ],
    )


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"trace_conditions": ['span.name == "GET /health"']}, ["GET /a", "SELECT", "tick", "tock"]),
        ({"trace_conditions": ["kind == SPAN_KIND_SERVER", 'name == "tick"']}, ["SELECT", "tock"]),
        ({"trace_conditions": ['kind.string == "Client"']}, ["GET /health", "GET /a", "tick", "tock"]),
        ({"trace_conditions": ["status.code != STATUS_CODE_ERROR"]}, ["GET /a"]),
        ({"trace_conditions": ['span.status.message == "bad"']}, ["GET /health", "SELECT", "tick", "tock"]),
        ({"trace_conditions": ['resource.attributes["env"] == "prod"']}, ["SELECT"]),
        ({"trace_conditions": ['scope.name == "noise"']}, ["GET /health", "GET /a", "SELECT"]),
        (
            {"trace_conditions": ['resource.attributes["env"] == "prod" and span.name == "tick"']},
            ["GET /health", "GET /a", "SELECT", "tock"],
        ),
        ({"traces": {"span": ['attributes["a"] == nil']}}, []),
        ({"traces": {"resource": ['attributes["env"] == "test"']}}, ["GET /health", "GET /a", "tick", "tock"]),
        ({"trace_conditions": [{"context": "span", "conditions": ['name == "tick"', 'name == "tock"']}]},
         ["GET /health", "GET /a", "SELECT"]),
        ({"log_conditions": ["true"]}, ["GET /health", "GET /a", "SELECT", "tick", "tock"]),
    ],
)  # fmt: skip
async def test_spans_are_dropped(tmp_path, config, left):
    """Through a service: what a condition holds for is gone and counted, the neighbours stay."""
    seen, counters = await through(tmp_path, {"filter": config}, all_traces())
    assert [names_of(found) for found in seen] == ([left] if left else [])
    gone = counters.get('otelier_processor_dropped_items{processor="filter",reason="filter"}', 0)
    way = 'otelcol_processor_{}_items{{otel_signal="traces",processor="filter"}}'
    assert (counters[way.format("incoming")], gone) == (5, 5 - len(left))
    assert counters.get(way.format("outgoing"), 0) == len(left)


async def test_only_events_are_dropped():
    """A condition about an event takes the event and leaves the span, whatever is left of it."""
    sink = Sink()
    given = processor(
        sink, trace_conditions=['spanevent.name == "gone"', 'spanevent.attributes["n"] == 2']
    )
    first = span("a", 1, events=[("keep", {"n": 1}), ("gone", {}), ("x", {"n": 2})])
    second = span("b", 2, events=[("gone", {})])
    await given(traces(first, second))
    assert sink.seen == [plain(traces(span("a", 1, events=[("keep", {"n": 1})]), span("b", 2)))]
    assert sink.batches[0].wire is None
    assert (
        given.host.stats.snapshot()[
            'otelier_processor_dropped_items{processor="test",reason="filter_span_event"}'
        ]
        == 3
    )


METRICS = [
    {"name": "a", "unit": "s", "points": [({"k": "x"}, 1), ({"k": "y"}, 2)]},
    {"name": "b", "points": [({"k": "x"}, 3)]},
]


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (['metric.name == "a"'], METRICS[1:]),
        (["type == METRIC_DATA_TYPE_GAUGE"], None),
        (["metric.type == METRIC_DATA_TYPE_SUM", "is_monotonic", 'unit == "m"'], METRICS),
        (['datapoint.attributes["k"] == "x"'], [{"name": "a", "unit": "s", "points": [({"k": "y"}, 2)]}]),
        (["datapoint.value_int > 2", "datapoint.value_double > 0.0"], METRICS[:1]),
        (['HasAttrOnDatapoint("k", "y")'], METRICS[1:]),
        (['HasAttrKeyOnDatapoint("k")'], None),
        (['metric.name == "b" and datapoint.count == nil'], METRICS[:1]),
    ],
)  # fmt: skip
async def test_metrics_and_points_are_dropped(conditions, left):
    """A metric goes by its own condition, or with its last data point."""
    sink = Sink()
    await processor(sink, metric_conditions=conditions)(metrics(*METRICS))
    assert sink.seen == ([plain(metrics(*left))] if left else [])


async def test_log_records_keep_their_identity():
    """A resend gets the same ids; two filters on one request share none; a no-op changes nothing."""

    def sent():
        return logs(*[{"body": str(n), "severity_number": n} for n in range(1, 6)])

    async def ids(condition):
        sink = Sink()
        await processor(sink, log_conditions=[condition])(sent())
        return {document["message"]: document["_id"] for document in documents(sink.batches[0])}

    low, high = await ids("severity_number > 2"), await ids("severity_number <= 2")
    assert low == await ids("severity_number > 2")
    assert len({*low.values(), *high.values()}) == len(low) + len(high) == 5
    assert await ids("false") == {doc["message"]: doc["_id"] for doc in documents(sent())}


@pytest.mark.parametrize("mode", ["ignore", "silent", "propagate"])
async def test_b52_a_condition_that_is_too_slow_ends(mode, caplog):
    """B52: hostile text cannot stop the collector; error_mode says what becomes of the batch."""
    sink = Sink()
    given = processor(
        sink,
        error_mode=mode,
        log_conditions=[r'IsMatch(body, "\\d+-\\d+-\\d+x")', 'body == "drop"'],
    )
    records = [{"body": "1" * 4096} for _ in range(60)] + [{"body": "drop"}]
    if mode == "propagate":
        with pytest.raises(Permanent, match="its pattern needs too long for a text"):
            await given(logs(*records))
        assert sink.batches == []
    else:
        await given(logs(*records))
        assert sink.seen == [plain(logs(*records[:-1]))]
    errors = given.host.stats.snapshot()[
        'otelier_processor_errors{processor="test",reason="pattern_too_slow"}'
    ]
    assert errors > 0
    assert len(caplog.records) == (1 if mode == "ignore" else 0)


async def test_large_batches_and_odd_texts_are_filtered():
    """Thousands of records with any text are filtered alike, in a thread."""
    sink = Sink()
    odd = "\U0001f600\u202e\x00é"
    records = [{"body": odd if n % 3 else "even"} for n in range(3000)]
    await processor(sink, log_conditions=[f'body == "{odd}"'])(logs(*records))
    assert sink.batches[0].message == logs(*[{"body": "even"}] * 1000).message


@pytest.mark.parametrize("error", [Retryable("later", 7.0), Permanent("never")])
async def test_errors_of_what_follows_pass_through(error):
    """The sender gets the exporter's own answer."""
    sink = Sink()
    sink.errors = [error]
    with pytest.raises(type(error)) as caught:
        await processor(sink, log_conditions=["false"])(logs({"body": "a"}))
    assert caught.value is error
