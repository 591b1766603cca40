"""The shape of answers for any data: what a strict reader of the data source takes."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.documents.build import documents
from collector.model import Signal
from collector.query.logql import parse
from collector.query.logql.evaluation import logs, metrics
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.source import Documents
from collector.query.loki import answers, fields
from tests.strategies import batch, requests

STAGES = [
    "",
    "| json | logfmt",
    '| regexp "(?P<word>\\\\w*)" | label_format word="<{{.word}}>"',
    "| unpack | decolorize",
    "| keep service_name, detected_level",
    '| line_format "{{ . }}{{ __line__ }}"',
    "| json | x > 1 or y < 2s or z > 3KB",
]


class Kinds(msgspec.Struct, forbid_unknown_fields=True):
    """The third element of an entry."""

    structuredMetadata: dict[str, str] = {}  # noqa: N815 - Loki's word
    parsed: dict[str, str] = {}


class Stream(msgspec.Struct, forbid_unknown_fields=True):
    """One stream."""

    stream: dict[str, str]
    values: list[tuple[str, str, Kinds]]


class Streams(msgspec.Struct, forbid_unknown_fields=True):
    """The data of a log query's answer."""

    resultType: str  # noqa: N815 - Loki's word
    encodingFlags: list[str]  # noqa: N815 - Loki's word
    result: list[Stream]
    stats: dict


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """The envelope."""

    status: str
    data: Streams
    warnings: list[str] = []


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """One series."""

    metric: dict[str, str]
    values: list[tuple[int | float, str]]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(requests(Signal.LOGS), st.sampled_from(STAGES))
def test_any_data_makes_an_answer_of_this_shape(message, stages):
    """Any OTLP logs through any stages: text everywhere, every line with its kinds, valid UTF-8 (D5)."""
    found = documents(batch(Signal.LOGS, message))
    query = parse('{service_name=~".+"} ' + stages)
    lines = logs.select(query, Documents(found), since=0, until=2**64, limit=1000)
    body = answers.streams(
        lines.lines, categorized=True, budget=Budget(), seconds=0.1, warnings=lines.warnings
    )
    answer = msgspec.json.decode(body, type=Answer)
    entries = [entry for one in answer.data.result for entry in one.values]
    assert len(entries) == len(lines.lines)
    assert all(time.isdigit() for time, _, _ in entries)
    if not stages:
        assert sorted(text for _, text, _ in entries) == sorted(
            document.get("message", "") for document in found if document["time_unix_nano"] < 2**64
        )
    described = fields.described(fields.fields(lines.lines))
    assert all(one["cardinality"] > 0 for one in described)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(requests(Signal.LOGS))
def test_counts_of_any_data_are_text_and_add_up(message):
    """A count by level is as many as there are records, whatever they hold (D5)."""
    found = documents(batch(Signal.LOGS, message))
    query = parse('sum by (detected_level) (count_over_time({service_name=~".+"}[1s]))')
    total = 0
    for second in {document["time_unix_nano"] // 10**9 for document in found}:
        series = metrics.evaluate_range(
            query, Documents(found), start=second * 10**9 + 999_999_999,
            end=second * 10**9 + 999_999_999, step=1_000_000_000_000_000_000,
        )  # fmt: skip
        msgspec.convert(
            msgspec.json.decode(answers.matrix(series, budget=Budget(), seconds=0.1))["data"][
                "result"
            ],
            list[Sample],
        )
        at = metrics.evaluate_at(query, Documents(found), time=second * 10**9 + 999_999_999)
        total += sum(int(one.values[0]) for one in at)
    assert total == len(found)
