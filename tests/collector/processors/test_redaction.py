"""The redaction processor: what is removed, what is masked, where, and that it fails closed."""

import hashlib
import hmac
import json

import pytest

from collector.config import InvalidConfig
from collector.errors import Permanent, Retryable
from collector.model import Secret, Signal
from collector.otlp import new_message
from collector.processors.redaction import Redaction
from tests.collector.processors.parts import (
    Sink,
    batch,
    host,
    logs,
    metrics,
    plain,
    service,
    span,
    through,
    traces,
)

pytestmark = pytest.mark.anyio

CARD = r"4[0-9]{12}(?:[0-9]{3})?"
MAIL = r"[\w.+-]+@[\w-]+\.[\w.-]+"
VISA = "4111111111111111"
KEY = "0123456789abcdef0123456789abcdef"


def redaction(sink=None, cls=Redaction, **config):
    made = Redaction.Config(**config)
    assert Redaction.check(made) == []
    return cls(made, host(), sink or Sink())


async def redacted(sent, **config):
    sink = Sink()
    await redaction(sink, **config)(sent)
    return sink.seen[0]


def counted(processor):
    start = 'otelier_processor_redacted_values{kind="'
    return {
        name.removeprefix(start).split('"')[0]: value
        for name, value in processor.host.stats.snapshot().items()
        if name.startswith(start)
    }


async def test_nothing_is_allowed_by_default(tmp_path):
    """The list of allowed names fails closed: empty, it removes every attribute, everywhere."""
    sent = batch(
        Signal.TRACES,
        [({"host": "a"}, "scope", [span("a", attributes={"b": 1}, events=[("e", {"c": 1})], links=[{"d": 1}])])],
    )  # fmt: skip
    seen, counters = await through(tmp_path, {"redaction": {}}, sent)
    expected = plain(traces(span("a", events=[("e", {})], links=[{}])))
    expected["resourceSpans"][0]["resource"] = {}
    assert seen == [expected]
    assert counters['otelier_processor_redacted_values{kind="removed",processor="redaction"}'] == 4


async def test_allowed_keys():
    """Only the listed names stay; inside their values nothing is removed by name."""
    attributes = {"order.id": "1", "password": "x", "map": {"inner": "y"}}
    found = await redacted(
        logs({"attributes": attributes}, resource={"service.name": "s", "host": "h"}),
        allowed_keys=["order.id", "map", "service.name"],
    )
    left = {"order.id": "1", "map": {"inner": "y"}}
    assert found == plain(logs({"attributes": left}, resource={"service.name": "s"}))


def everywhere(text, key="k"):
    """A batch of each signal with the text in every place that can hold one."""
    spans = traces(
        span(
            f"GET /{text}",
            attributes={key: text, "list": [text, {"deep": [text]}], "bytes": text.encode()},
            events=[(text, {"exception.message": text, "exception.stacktrace": f"at\n{text}\n"})],
            links=[{"l": text}],
            status=(2, f"bad {text}"),
            trace_state=f"v={text}",
        ),
        resource={"r": text},
    )
    group = spans.message.resource_spans[0]
    group.schema_url = group.scope_spans[0].schema_url = f"https://{text}"
    group.scope_spans[0].scope.version = text
    group.scope_spans[0].spans[0].links[0].trace_state = f"v={text}"
    fill_scope(group.scope_spans[0].scope, text)
    records = logs(
        {"body": {"a": [text, f'{{"json": "{text}"}}']}, "severity_text": text, "event_name": text},
        {"body": f"user {text} failed", "attributes": {text: 1}},
        resource={"r": text},
    )
    points = metrics(
        {"name": text, "description": text, "unit": text, "points": [({key: text}, 1)]}
    )
    metric = points.message.resource_metrics[0].scope_metrics[0].metrics[0]
    metric.metadata.add(key="m").value.string_value = text
    exemplar = metric.gauge.data_points[0].exemplars.add()
    exemplar.filtered_attributes.add(key="e").value.string_value = text
    return [spans, records, points]


def fill_scope(scope, text):
    scope.name = text
    scope.attributes.add(key="s").value.string_value = text


@pytest.mark.parametrize("secret", [VISA, "someone.else+x@example.com"])
async def test_b63_a_secret_is_masked_wherever_it_stands(secret):
    """B63: names, bodies, attributes, keys, events, links, exceptions, status, resource, scope."""
    for sent in everywhere(f"x {secret} y"):
        assert secret in sent.message.SerializeToString().decode(errors="replace")
        found = await redacted(sent, allow_all_keys=True, blocked_values=[CARD, MAIL])
        assert secret not in json.dumps(found)
        assert secret.encode() not in sent.message.SerializeToString()
        assert sent.wire is None


async def test_only_what_fits_is_masked():
    """The text around a match stays, and a batch without matches keeps its bytes."""
    given = {"note": f"card {VISA}, ok", "count": 4111111111111111, "other": "x"}
    sent = logs({"body": f"paid with {VISA}", "attributes": given})
    after = {**given, "note": "card ****, ok"}
    assert await redacted(sent, allow_all_keys=True, blocked_values=[CARD]) == plain(
        logs({"body": "paid with ****", "attributes": after})
    )
    clean = logs({"body": "x", "attributes": {"a": 1}}, resource={"r": "s"})
    wire = clean.wire
    await redacted(clean, allow_all_keys=True, blocked_values=[CARD])
    assert clean.wire == wire


async def test_redact_all_types_looks_at_numbers():
    """A card number that was sent as a number is masked when asked for."""
    sent = logs({"body": 4111111111111111, "attributes": {"n": 4111111111111111, "b": True}})
    found = await redacted(sent, allow_all_keys=True, blocked_values=[CARD], redact_all_types=True)
    assert found == plain(logs({"body": "****", "attributes": {"n": "****", "b": True}}))


async def test_blocked_key_patterns_mask_whole_values():
    """A name that fits masks the value, of whatever type and in maps at any depth."""
    attributes = {"api_token": ["a", 1], "map": {"password": 7, "x": [{"token": "t"}]}, "ok": 1}
    sent = logs({"body": {"token": {"deep": 1}, "ok": "x"}, "attributes": attributes})
    found = await redacted(
        sent, allow_all_keys=True, blocked_key_patterns=[".*token.*", "^password$"]
    )
    after = {"api_token": "****", "map": {"password": "****", "x": [{"token": "****"}]}, "ok": 1}
    assert found == plain(logs({"body": {"token": "****", "ok": "x"}, "attributes": after}))


async def test_ignored_and_allowed_come_first():
    """Ignored names are not looked at, allowed values are not masked."""
    attributes = {"safe": VISA, "safe.x": VISA, "mail": "a@mycompany.com", "other": "b@else.com"}
    found = await redacted(
        logs({"attributes": attributes}),
        allow_all_keys=True,
        ignored_keys=["safe"],
        ignored_key_patterns=[r"^safe\."],
        allowed_values=[r"@mycompany\.com$"],
        blocked_values=[CARD, MAIL],
    )
    assert found == plain(logs({"attributes": {**attributes, "other": "****"}}))


@pytest.mark.parametrize("name", ["sha256", "sha512"])
async def test_keyed_hashes_keep_equal_values_equal(name):
    """With a key the mask is an HMAC of what it hides, and the key shows nowhere."""
    config = Redaction.Config(
        allow_all_keys=True,
        blocked_values=[CARD],
        blocked_key_patterns=["user"],
        hash_function=f"hmac-{name}",
        hmac_key=Secret(KEY),
    )
    sink = Sink()
    await Redaction(config, host(), sink)(logs({"body": f"x {VISA}", "attributes": {"user": 7}}))

    def hashed(text):
        return hmac.new(KEY.encode(), text.encode(), getattr(hashlib, name)).hexdigest()

    after = {"body": f"x {hashed(VISA)}", "attributes": {"user": hashed("7")}}
    assert sink.seen == [plain(logs(after))]
    assert KEY not in repr(config)


@pytest.mark.parametrize(
    ("summary", "more"),
    [
        ("silent", {}),
        (
            "info",
            {
                "redaction.redacted.count": 1,
                "redaction.masked.count": 2,
                "redaction.ignored.count": 1,
                "redaction.body.redacted.count": 1,
                "redaction.body.masked.count": 1,
            },
        ),
        (
            "debug",
            {
                "redaction.redacted.keys": "c",
                "redaction.redacted.count": 1,
                "redaction.masked.keys": "a,b.inner",
                "redaction.masked.count": 2,
                "redaction.ignored.count": 1,
                "redaction.body.redacted.keys": "body.gone",
                "redaction.body.redacted.count": 1,
                "redaction.body.masked.keys": "body.a",
                "redaction.body.masked.count": 1,
            },
        ),
    ],
)
async def test_summary(summary, more):
    """The summary says how many values and, with debug, which names were touched."""
    attributes = {"a": VISA, "b": {"inner": VISA}, "c": "x", "d": "y"}
    sent = logs({"body": {"a": VISA, "gone": "x"}, "attributes": attributes})
    found = await redacted(
        sent,
        allowed_keys=["a", "b"],
        ignored_keys=["d"],
        blocked_values=[CARD],
        summary=summary,
    )
    after = {"a": "****", "b": {"inner": "****"}, "d": "y", **more}
    assert found == plain(logs({"body": {"a": "****"}, "attributes": after}))


async def test_summary_of_two_processors_adds_up():
    """A second redaction adds to the numbers of the first."""
    sent = logs({"attributes": {"a": VISA, "b": "x@y.com"}})
    for pattern in (CARD, MAIL):
        found = await redacted(sent, allow_all_keys=True, blocked_values=[pattern], summary="debug")
    more = {"redaction.masked.keys": "a,b", "redaction.masked.count": 2}
    assert found == plain(logs({"attributes": {"a": "****", "b": "****", **more}}))


async def test_summary_leaves_points_alone():
    """A summary on a data point would make another series: there is none."""
    found = await redacted(
        metrics({"name": "m", "points": [({"a": VISA}, 1)]}, resource={"r": VISA}),
        allow_all_keys=True,
        blocked_values=[CARD],
        summary="debug",
    )
    after = {"name": "m", "points": [({"a": "****"}, 1)]}
    assert found == plain(metrics(after, resource={"r": "****"}))


class Broken(Redaction):
    """A redaction whose mask cannot be made."""

    def __init__(self, config, host, following):
        super().__init__(config, host, following)
        self._rules.mask = self.fail

    def fail(self, text):
        raise RuntimeError(text)


async def test_b64_a_rule_that_raises_lets_nothing_through(caplog):
    """B64: whatever goes wrong with a rule, the value is gone, counted, and in no log."""
    sink = Sink()
    broken = redaction(
        sink, Broken, allow_all_keys=True, blocked_values=[CARD], blocked_key_patterns=["^pin$"]
    )
    attributes = {"a": f"x {VISA}", "pin": 1234, "ok": "fine", VISA: "x"}
    await broken(logs({"body": VISA, "attributes": attributes}))
    assert sink.seen == [plain(logs({"body": "****", "attributes": {"a": "****", "ok": "fine"}}))]
    assert counted(broken) == {"failed": 3, "removed": 2}
    assert VISA not in caplog.text


async def test_too_deep_values_are_removed():
    """What is nested too deeply to be looked at does not pass; what is above it does."""
    sent = batch(Signal.LOGS, [({}, "scope", [{"attributes": {"ok": "x"}}])])
    record = sent.message.resource_logs[0].scope_logs[0].log_records[0]
    value = record.attributes.add(key="deep").value
    for _ in range(90):
        value = value.array_value.values.add()
    value.string_value = VISA
    sink = Sink()
    given = redaction(sink, allow_all_keys=True, blocked_values=[CARD])
    await given(sent)
    assert sink.seen == [plain(logs({"attributes": {"ok": "x"}}))]
    assert counted(given) == {"failed": 1, "removed": 1}


async def test_b53_hostile_texts_are_masked_whole():
    """B53: when a pattern needs too long for the texts of a batch, they are masked as a whole."""
    sink = Sink()
    given = redaction(sink, allow_all_keys=True, blocked_values=[r"\d+-\d+-\d+x"])
    await given(logs(*[{"body": "1" * 4096} for _ in range(60)], {"body": "last"}))
    await given(logs({"body": "next batch"}))
    bodies = [
        record["body"]["stringValue"]
        for record in sink.seen[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    ]
    assert bodies[0] == "1" * 4096
    assert bodies[-2:] == ["****", "****"]
    assert sink.seen[1] == plain(logs({"body": "next batch"}))
    assert counted(given)["too_slow"] == bodies.count("****")


async def test_empty_messages_and_odd_texts_pass():
    """Nothing to look at, and text of any kind, is no problem."""
    sink = Sink()
    given = redaction(sink, allow_all_keys=True, blocked_values=[CARD])
    odd = logs({"body": "\x00\U0001f600\u202e" + "é" * 100_000, "attributes": {"": ""}})
    empty = logs()
    empty.message = new_message(Signal.LOGS)
    for sent in (odd, empty):
        before = plain(sent)
        await given(sent)
        assert sink.seen[-1] == before


async def test_wrong_settings_are_refused(tmp_path):
    """Patterns that cannot be used, guessable hashes and short keys are found at start."""
    with pytest.raises(InvalidConfig) as caught:
        service(
            tmp_path,
            {
                "redaction/a": {"blocked_values": ["ok", "("], "allowed_values": ["(a+)+$"]},
                "redaction/b": {"hash_function": "hmac-sha256", "hmac_key": "short"},
                "redaction/c": {"hmac_key": KEY},
            },
        )
    text = "\n".join(caught.value.problems)
    assert 'processors::redaction/a: blocked_values[1]: pattern "(" is no regular' in text
    assert 'processors::redaction/a: allowed_values[0]: pattern "(a+)+$" is too slow' in text
    assert "processors::redaction/b: hmac_key must have at least 16 bytes" in text
    assert "processors::redaction/c: hmac_key has no use without hash_function" in text
    assert KEY not in text
    with pytest.raises(InvalidConfig, match='unknown value "md5"'):
        service(tmp_path, {"redaction": {"hash_function": "md5"}})


@pytest.mark.parametrize("error", [Retryable("later", 7.0), Permanent("never")])
async def test_errors_of_what_follows_pass_through(error):
    """The sender gets the exporter's own answer."""
    sink = Sink()
    sink.errors = [error]
    with pytest.raises(type(error)) as caught:
        await redaction(sink)(logs({"body": "a"}))
    assert caught.value is error
