"""What belongs to another path, or says nothing that is known, is refused and names the fix (R6)."""

import json

import pytest

from collector.errors import Malformed
from collector.model import Request, Signal
from collector.otlp import decode, new_message

GROUP = {"scopeSpans": [{"spans": [{"name": "x"}]}]}
RECORD = {"body": {"stringValue": "x"}}


def read(signal, body, encoding="json"):
    data = json.dumps(body).encode() if encoding == "json" else body
    return decode(signal, data, encoding=encoding, request=Request(1, b"k" * 16))


@pytest.mark.parametrize(
    ("signal", "body", "text"),
    [
        (
            Signal.LOGS,
            {"resourceSpans": [GROUP]},
            (
                "nothing in the body is known as logs, found: resourceSpans; "
                "this is a request of traces, send it to /v1/traces"
            ),
        ),
        (
            Signal.TRACES,
            {"resource_metrics": []},
            (
                "nothing in the body is known as traces, found: resource_metrics; "
                "this is a request of metrics, send it to /v1/metrics"
            ),
        ),
        (
            Signal.LOGS,
            {"resourceLog": [{}]},
            (
                "nothing in the body is known as logs, found: resourceLog; "
                "a request of logs begins with resourceLogs"
            ),
        ),
        (
            Signal.LOGS,
            {"resourceLogs": [{"instrumentationLibraryLogs": [{"logs": [RECORD]}]}]},
            (
                "nothing in the body is known as logs, found: instrumentationLibraryLogs; "
                "instrumentationLibraryLogs was renamed scopeLogs in OTLP 1.0"
            ),
        ),
        (
            Signal.LOGS,
            {"resourceLogs": [{"scopeLogs": [{"logs": [RECORD]}]}]},
            (
                "nothing in the body is known as logs, found: logs; "
                "logs was renamed logRecords in OTLP 1.0"
            ),
        ),
        (
            Signal.LOGS,
            {"resource_logs": []},
            (
                "nothing in the body is known as logs, found: resource_logs; "
                "OTLP/JSON is lowerCamelCase, so it is resourceLogs"
            ),
        ),
        (
            Signal.METRICS,
            {"a\u2028b": 1, "c" * 99: 2},
            "nothing in the body is known as metrics, found: a\\u2028b, " + "c" * 60 + "; "
            "a request of metrics begins with resourceMetrics",
        ),
    ],
)
def test_json_of_which_nothing_is_known(signal, body, text):
    """The answer says what was found, and the path or the name that was meant."""
    with pytest.raises(Malformed) as caught:
        read(signal, body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"resourceLogs": []},
        {"resourceLogs": [{"resource": {}, "scopeLogs": []}]},
        {"resourceLogs": [{"scopeLogs": [{"logRecords": []}], "future": 1}]},
    ],
)
def test_an_empty_request_is_a_success(body):
    """Nothing to store is no mistake, whatever the future adds to a list that is there."""
    assert read(Signal.LOGS, body).message == ""


@pytest.mark.parametrize("sent", Signal)
@pytest.mark.parametrize("path", Signal)
def test_protobuf_of_another_signal(sent, path):
    """Nothing of it is stored, whether a field has another type or an item cannot be read."""
    message = new_message(sent)
    if sent is Signal.TRACES:
        span = message.resource_spans.add().scope_spans.add().spans.add(name="s")
        span.trace_id, span.span_id, span.start_time_unix_nano = b"\1" * 16, b"\2" * 8, 5
    elif sent is Signal.METRICS:
        metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="m", unit="s")
        metric.gauge.data_points.add(as_int=1)
    else:
        scope = message.resource_logs.add().scope_logs.add()
        scope.log_records.add(time_unix_nano=5, severity_number=9).body.string_value = "x"
    wire = message.SerializeToString()
    if sent is path:
        assert read(path, wire, "protobuf").accepted == 1
    else:
        try:
            found = read(path, wire, "protobuf")
        except Malformed as error:
            assert "has another type; the body may belong to another path" in str(error)  # noqa: PT017
        else:
            assert (found.accepted, found.rejected) == (0, 1)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (1e21, 1e21),
        (2**63, float(2**63)),
        (-(2**63) - 1, float(-(2**63))),
        ("9223372036854775808", float(2**63)),
        ("1" + "0" * 30, 1e30),
        (1.5, 1.5),
        (1.7976931348623157e308, 1.7976931348623157e308),
    ],
)
def test_integers_that_are_none_are_kept_as_doubles(written, value):
    """JavaScript's large numbers cost neither the item nor the attribute; the repair is counted."""
    attributes = [
        {"key": "n", "value": {"intValue": written}},
        {"key": "id", "value": RECORD["body"]},
    ]
    record = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": attributes}]}]}]}
    point = {"asInt": written, "exemplars": [{"asInt": written}]}
    metric = {"name": "m", "gauge": {"dataPoints": [point]}}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    logs, numbers = read(Signal.LOGS, record), read(Signal.METRICS, metrics)
    found = logs.batch.message.resource_logs[0].scope_logs[0].log_records[0].attributes
    assert (found[0].value.double_value, found[1].key) == (value, "id")
    made = (
        numbers.batch.message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]
    )
    assert (made.as_double, made.exemplars[0].as_double) == (value, value)
    assert (logs.repaired["integer"], numbers.repaired["integer"]) == (1, 2)


@pytest.mark.parametrize("written", ["x", True, [], {}, "", "1e"])
def test_what_is_no_number_is_still_refused(written):
    """Only numbers are kept as numbers."""
    attributes = [{"key": "n", "value": {"intValue": written}}]
    record = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": attributes}]}]}]}
    assert (read(Signal.LOGS, record).rejected, read(Signal.LOGS, record).accepted) == (1, 0)
