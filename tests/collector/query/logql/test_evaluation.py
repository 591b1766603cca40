"""Evaluation of log queries: each stage by whole values, and the fixed data set."""

import json
from pathlib import Path

import pytest

from collector.query.logql import parse, parse_log, tree
from collector.query.logql.evaluation import logs, metrics
from collector.query.logql.evaluation.budget import Budget, Stopped
from collector.query.logql.evaluation.source import Documents
from tests.logql import END, SECOND, START, log_documents, record

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "logql.json").read_text())
DETAILS = "__error_details__"


def select(query, documents, **options):
    """The lines of a query over documents."""
    asked = {"since": START - 3600 * SECOND, "until": END, "limit": 100} | options
    return logs.select(parse_log(query), Documents(documents), **asked)


def one(stages, message, **fields):
    """What stages make of one record: its text, and what they parsed; None when it is filtered out."""
    found = select('{service_name="shop"} ' + stages, [record(message, **fields)]).lines
    if not found:
        return None
    parsed = {key: value for key, value in found[0].parsed.items() if key != DETAILS}
    return found[0].text, parsed


@pytest.mark.parametrize("row", GOLDEN, ids=[row["query"] for row in GOLDEN])
def test_the_data_set_gives_what_loki_gives(row):
    """Lines, order, parsed labels, series and numbers equal what a Loki answered to the same (D5)."""
    query, source = parse(row["query"]), Documents(log_documents())
    if isinstance(query, tree.LogQuery):
        found = logs.select(query, source, since=START, until=END, limit=row["limit"])
        assert found.warnings == []
        lines = [
            [
                (line.time - START) // 10**6,
                line.stream["service_name"],
                line.get("detected_level"),
                {key: value for key, value in line.parsed.items() if key != DETAILS},
            ]
            for line in found.lines
        ]
        assert lines == row["lines"]
    elif "step_s" in row:
        step = row["step_s"] * SECOND
        series = metrics.evaluate_range(query, source, start=START, end=END, step=step)
        points = [
            [
                found.labels,
                [
                    [time // SECOND - START // SECOND, pytest.approx(value)]
                    for time, value in zip(found.times, found.values, strict=True)
                ],
            ]
            for found in series
        ]
        assert points == row["series"]
    else:
        series = metrics.evaluate_at(query, source, time=row["at_s"] * SECOND)
        assert [[found.labels, found.values[0]] for found in series] == row["series"]


def test_a_record_has_the_labels_that_loki_gives_it():
    """Stream labels and structured metadata of one record of the data set, whole (D5)."""
    line = select('{service_name="worker"} |= "failed"', log_documents()).lines[-1]
    assert line.stream == {
        "deployment_environment_name": "staging",
        "k8s_pod_name": "worker-7d9f",
        "service_instance_id": "worker-1",
        "service_name": "worker",
        "service_namespace": "shop",
    }
    assert line.metadata == {
        "celery_task_id": "task-003",
        "correlation_id": "corr-001",
        "detected_level": "error",
        "exception_message": "bank did not answer",
        "exception_stacktrace": (
            'Traceback (most recent call last):\n  File "settle.py", line 43, in settle\n'
            "TimeoutError: bank did not answer"
        ),
        "exception_type": "TimeoutError",
        "flags": "1",
        "host_name": "node-b",
        "observed_timestamp": "1796040090230001000",
        "process_pid": "303",
        "scope_name": "shop.worker.log",
        "service_version": "1.3.9",
        "severity_number": "17",
        "severity_text": "ERROR",
        "span_id": "8563f3a97c679c96",
        "trace_id": "659ce23066fd5d39e5f986a55133911f",
    }


JSON = '{"msg": "done", "n": 1.50, "ok": true, "none": null, "u": {"id": 7}, "l": [1, {"x": 2}]}'


@pytest.mark.parametrize(
    ("stages", "message", "expected"),
    [
        # line filters
        ('|= "b"', "abc", ("abc", {})),
        ('|= "x"', "abc", None),
        ('!= "b"', "abc", None),
        ('|= "x" or "c"', "abc", ("abc", {})),
        ('!= "x" or "c"', "abc", None),
        ('|~ "B"', "abc", None),
        ('|~ "(?i)B"', "abc", ("abc", {})),
        ('!~ "b+"', "abc", None),
        ('|> "a <_> c"', "a bb c", ("a bb c", {})),
        ('|> "a <_> c"', "a bb c d", None),
        ('|> "a <_>"', "b a c", None),
        ('!> "a <_>"', "a c", None),
        ('|= ip("10.0.0.0/8")', "from 10.1.2.3:80", ("from 10.1.2.3:80", {})),
        ('|= ip("10.0.0.0/8")', "from 110.1.2.3", None),
        ('!= ip("10.0.0.1-10.0.0.9")', "from 10.0.0.5", None),
        ('|= ip("2001:db8::/32")', "from [2001:db8::1]", ("from [2001:db8::1]", {})),
        # parsers
        ("| json", JSON, (JSON, {"msg": "done", "n": "1.50", "ok": "true", "none": "", "u_id": "7"})),
        ('| json a="l[1].x", b="u", c="no"', JSON, (JSON, {"a": "2", "b": '{"id":7}', "c": ""})),
        ('| json a="[\\"u\\"].id"', JSON, (JSON, {"a": "7"})),
        ("| json", "plain", ("plain", {"__error__": "JSONParserErr"})),
        ("| json", '{"a": 1', ('{"a": 1', {"__error__": "JSONParserErr"})),
        ("| json", '{"a.b c": 1, "9x": 2}', ('{"a.b c": 1, "9x": 2}', {"a_b_c": "1", "key_9x": "2"})),
        ("| json", '{"a": "\\ud800"}', ('{"a": "\\ud800"}', {"a": "?"})),
        ("| json", '{"service_name": "x"}', ('{"service_name": "x"}', {"service_name_extracted": "x"})),
        ("| logfmt", 'a=1 b="c \\"d\\"" e= f', ('a=1 b="c \\"d\\"" e= f', {"a": "1", "b": 'c "d"'})),
        ("| logfmt --keep-empty", "a=1 e= f", ("a=1 e= f", {"a": "1", "e": "", "f": ""})),
        ("| logfmt", "a=b=c d=1", ("a=b=c d=1", {"d": "1"})),
        ("| logfmt --strict", "x=1 a=b=c", ("x=1 a=b=c", {"x": "1", "__error__": "LogfmtParserErr"})),
        ('| logfmt y="a", z="n"', "a=1 b=2", ("a=1 b=2", {"y": "1", "z": ""})),
        ('| regexp "(?P<m>[A-Z]+) (?P<p>\\\\S+)"', "GET /x", ("GET /x", {"m": "GET", "p": "/x"})),
        ('| regexp "(?P<m>[A-Z]+)"', "get", ("get", {})),
        ('| pattern "<m> <_> <c>"', "GET /x 200", ("GET /x 200", {"m": "GET", "c": "200"})),
        ('| pattern "a=<a>, b=<b>"', "a=1", ("a=1", {"a": "1"})),
        ('| pattern "x<a>"', "y", ("y", {})),
        ("| unpack", '{"a": "1", "n": 2, "_entry": "real"}', ("real", {"a": "1"})),
        ("| unpack", "x", ("x", {"__error__": "JSONParserErr"})),
        ("| logfmt | json", '{"a": 1}', ('{"a": 1}', {"a": "1"})),
        # label filters
        ('| logfmt | a="1"', "a=1", ("a=1", {"a": "1"})),
        ('| logfmt | a=~"1"', "a=12", None),
        ('| x!="a"', "no x", ("no x", {})),
        ('| x="a"', "no x", None),
        ("| logfmt | n > 1.5", "n=2", ("n=2", {"n": "2"})),
        ("| logfmt | n > 2", "n=2", None),
        ("| logfmt | n != 2", "n=3", ("n=3", {"n": "3"})),
        ("| logfmt | n = 2", "n=2.0", ("n=2.0", {"n": "2.0"})),
        ("| logfmt | n > 1", "n=x", ("n=x", {"n": "x", "__error__": "LabelFilterErr"})),
        ("| n > 1", "no n", None),
        ("| logfmt | t >= 250ms", "t=0.25s", ("t=0.25s", {"t": "0.25s"})),
        ("| logfmt | s < 2KB", "s=1.5KB", ("s=1.5KB", {"s": "1.5KB"})),
        ("| logfmt | s < 2KiB", "s=2.1KB", None),
        ('| logfmt | a="1" or b="2"', "b=2", ("b=2", {"b": "2"})),
        ('| logfmt | a="1" and b="2"', "b=2", None),
        ('| logfmt | i = ip("10.0.0.0/8")', "i=10.0.0.1", ("i=10.0.0.1", {"i": "10.0.0.1"})),
        ('| logfmt | i != ip("10.0.0.0/8")', "i=10.0.0.1", None),
        ('| logfmt | i = ip("::1")', "i=x", ("i=x", {"i": "x", "__error__": "LabelFilterErr"})),
        ('| json | __error__=""', "plain", None),
        ('| json | __error__!=""', "plain", ("plain", {"__error__": "JSONParserErr"})),
        ('| service_name="shop"', "x", ("x", {})),
        ('| detected_level="info"', "x", ("x", {})),
        ("| severity_number >= 9", "x", ("x", {})),
        # formats
        ('| logfmt | line_format "{{.a}}-{{.none}}"', "a=1", ("1-", {"a": "1"})),
        ('| logfmt | line_format "n: {{.a}}" |= "n: 1"', "a=1", ("n: 1", {"a": "1"})),
        ('| line_format "{{ __line__ | upper }}"', "abc", ("ABC", {})),
        ('| line_format "{{ int .x | div 1 }}"', "abc", ("abc", {"__error__": "TemplateFormatErr"})),
        ("| logfmt | label_format b=a", "a=1", ("a=1", {"b": "1"})),
        ('| logfmt | label_format a="<{{.a}}>"', "a=1", ("a=1", {"a": "<1>"})),
        ('| label_format detected_level="x"', "a", ("a", {"detected_level": "x"})),
        ("| logfmt | drop a", "a=1 b=2", ("a=1 b=2", {"b": "2"})),
        ('| logfmt | drop a="2", b=~"2"', "a=1 b=2", ("a=1 b=2", {"a": "1"})),
        ("| json | drop __error__", "plain", ("plain", {})),
        ("| logfmt | keep a", "a=1 b=2", ("a=1 b=2", {"a": "1"})),
        ("| decolorize", "\x1b[31mred\x1b[0m", ("red", {})),
    ],
)  # fmt: skip
def test_a_stage_does_this_to_a_line(stages, message, expected):
    """Each stage: the text and the labels that it leaves, or that the line is gone (D5)."""
    assert one(stages, message) == expected


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ('{service_name="shop"}', ["1"]),
        ('{service_name=~".+", service_name!="shop"}', ["2"]),
        ('{service_name=~"sh.*|x"}', ["1"]),
        ('{service_name=~"ho"}', []),
        ('{service_name=~".+", k8s_pod_name=""}', ["1"]),
        ('{k8s_pod_name="p"}', ["2"]),
        ('{service_name=~".+", host_name="h"}', []),
        ('{service_name=~".+"} | host_name="h"', ["2"]),
    ],
)
def test_a_selector_sees_stream_labels_only(selector, found):
    """Matchers are anchored, an absent label is empty, metadata does not select (D5)."""
    resource = {"k8s.pod.name": "p", "host.name": "h"}
    documents = [record("1"), record("2", service="cart", resource=resource)]
    assert [line.text for line in select(selector, documents).lines] == found


def test_attributes_of_every_kind_become_text():
    """Numbers, booleans, lists, maps, bytes and empty values; colliding names: the first wins."""
    attributes = {
        "a.b": 1, "a_b": 2, "f": 5.0, "g": 0.25, "t": True, "l": [1, "x"], "m": {"k": {"z": 1}},
        "none": None, "9": "nine", "trace_id": "mine",
    }  # fmt: skip
    trace = {"trace_id": "ab" * 16}
    line = select(
        '{service_name="shop"}',
        [record("x", attributes=attributes, trace=trace, event="e", context={"task_id": "t-1"})],
    ).lines[0]
    assert line.metadata == {
        "a_b": "1", "f": "5", "g": "0.25", "t": "true", "l": '[1,"x"]', "m_k_z": "1",
        "key_9": "nine", "trace_id": "ab" * 16, "trace_id_extracted": "mine",
        "celery_task_id": "t-1", "severity_number": "9", "detected_level": "info",
    }  # fmt: skip
    assert (line.get("event_name"), line.get("task_id")) == ("e", "t-1")


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"severity_number": 3}, "trace"),
        ({"severity_number": 22}, "fatal"),
        ({"severity_number": 22, "severity_text": "CRITICAL"}, "critical"),
        ({"severity_number": 9, "attributes": {"level": "Warning"}}, "warn"),
        ({"severity_number": 0, "message": 'x level="ERR" y'}, "error"),
        ({"severity_number": 0, "message": '{"level": "debug"}'}, "debug"),
        ({"severity_number": 0, "message": "a FATAL thing"}, "fatal"),
        ({"severity_number": 0, "message": "nothing"}, "unknown"),
    ],
)
def test_the_level_is_detected(fields, level):
    """A label that names a level, else the number, else a word of the line (D5)."""
    document = record(fields.get("message", "x")) | fields
    assert select('{service_name="shop"}', [document]).lines[0].get("detected_level") == level


def test_order_limit_and_times():
    """Newest or oldest first, the start inside and the end outside, the limit last."""
    documents = [record(str(second), seconds=second) for second in range(5)]
    window = {"since": START + SECOND, "until": START + 4 * SECOND}

    def texts(**options):
        return [line.text for line in select('{service_name="shop"}', documents, **options).lines]

    assert texts(**window) == ["3", "2", "1"]
    assert texts(**window, newest_first=False) == ["1", "2", "3"]
    assert texts(**window, limit=2) == ["3", "2"]


def test_an_answer_that_grows_too_large_is_cut_and_says_so():
    """Lines of 1 MB end at the memory of the query, with a warning (D5)."""
    documents = [record("x" * 1_000_000, seconds=second) for second in range(40)]
    found = select('{service_name="shop"}', documents, budget=Budget(memory=10 << 20))
    assert len(found.lines) == 5
    assert found.warnings == [
        (
            "the answer was cut after 5 lines, where it has 10 MiB; ask for fewer lines or go on from "
            "the last one"
        )
    ]


def test_a_search_that_reads_too_much_answers_what_it_has():
    """Behind the last document that may be read stands a warning, not an error."""
    documents = [record(str(second), seconds=second) for second in range(10)]
    found = select('{service_name="shop"}', documents, budget=Budget(documents=3))
    assert [line.text for line in found.lines] == ["9", "8", "7"]
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("the answer is not complete: the query reads more than 3")


def test_a_caller_that_left_stops_the_query():
    """Every thousand documents the query asks whether anybody waits."""
    documents = [record(str(number), seconds=number / 10) for number in range(1500)]
    budget = Budget(stopped=lambda: True)
    with pytest.raises(Stopped):
        select('{service_name="shop"} |= "none"', documents, budget=budget)
    assert budget.read == 1000
