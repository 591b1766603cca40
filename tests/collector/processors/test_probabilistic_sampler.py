"""The sampler: who is kept, what is written down, agreement between samplers."""

import random

import pytest

from collector.config import InvalidConfig
from collector.documents.build import documents
from collector.errors import Retryable
from collector.processors.probabilistic_sampler import (
    ProbabilisticSampler,
    digits,
    threshold_of,
)
from tests.collector.processors.parts import (
    Sink,
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


def sampler(sink=None, **config):
    return ProbabilisticSampler(ProbabilisticSampler.Config(**config), host(), sink or Sink())


async def kept(sent, **config):
    """What the sampler lets pass, as OTLP/JSON; None when nothing is left."""
    sink = Sink()
    await sampler(sink, **config)(sent)
    return sink.seen[0] if sink.batches else None


def with_randomness(randomness, **more):
    """A span whose trace id has this randomness."""
    trace_id = b"\x01" * 9 + randomness.to_bytes(7)
    return {"name": f"{randomness:014x}", "trace_id": trace_id, "span_id": b"\x01" * 8, **more}


def states(found):
    """Name and tracestate of each span."""
    spans = found["resourceSpans"][0]["scopeSpans"][0]["spans"] if found else []
    return {each["name"]: each.get("traceState", "") for each in spans}


@pytest.mark.parametrize(
    ("probability", "precision", "text"),
    [
        (1.0, 4, "0"),
        (0.5, 4, "8"),
        (0.25, 4, "c"),
        (0.1, 4, "e666"),
        (0.01, 4, "fd71"),
        (0.01, 5, "fd70a"),
        (1 / 3, 14, "aaaaaaaaaaaaac"),
        (0.9999, 4, "00068dc"[:7]),
        (2**-56, 14, "ffffffffffffff"),
    ],
)
def test_thresholds(probability, precision, text):
    """The `th` of a probability is that of the specification, with so many significant digits."""
    assert digits(threshold_of(probability, precision)) == text


async def test_the_threshold_decides_and_is_written_down():
    """A span is kept when its randomness is not below the threshold, and says so."""
    spans = [with_randomness(n) for n in (0, 0xBFFFFFFFFFFFFF, 0xC0000000000000, 2**56 - 1)]
    found = await kept(traces(*spans), mode="equalizing", sampling_percentage=25)
    assert states(found) == {"c0000000000000": "ot=th:c", "ffffffffffffff": "ot=th:c"}


async def test_other_members_of_the_tracestate_stay():
    """Only OpenTelemetry's own member changes, and stands first; explicit randomness counts."""
    state = "vendor=a:b;c,ot=rv:ffffffffffffff;p:1,x=1"
    found = await kept(
        traces(with_randomness(0, trace_state=state)), mode="equalizing", sampling_percentage=25
    )
    assert states(found) == {"00000000000000": "ot=th:c;rv:ffffffffffffff;p:1,vendor=a:b;c,x=1"}


async def test_equalizing_keeps_what_was_sampled_harder():
    """A span that was kept with a smaller probability passes and keeps its own threshold."""
    sent = with_randomness(0xFF000000000000, trace_state="ot=th:f")
    found = await kept(traces(sent), mode="equalizing", sampling_percentage=50)
    assert states(found) == {"ff000000000000": "ot=th:f"}


async def test_proportional_multiplies():
    """Half of what was kept with one half is one quarter."""
    sent = [with_randomness(n, trace_state="ot=th:8") for n in (0x90000000000000, 0xC0000000000000)]
    found = await kept(traces(*sent), mode="proportional", sampling_percentage=50)
    assert states(found) == {"c0000000000000": "ot=th:c"}


@pytest.mark.parametrize(
    ("state", "left"),
    [
        ("ot=th:c", "vendor=1"),  # inconsistent: its randomness is lower; the threshold is a lie
        ("ot=th:xyz", "ot=th:xyz,vendor=1"),
        ("ot=rv:12", "ot=rv:12,vendor=1"),
        ("ot=th", "ot=th,vendor=1"),
        ("nonsense", "nonsense,vendor=1"),
        (",".join(f"k{n}=1" for n in range(40)), None),
        ("ot=th:" + "f" * 9000, None),
    ],
)
async def test_unusable_information_fails_closed_or_open(state, left):
    """What a span says about its sampling may be nonsense: it is dropped, or kept as it is."""
    given = f"{state},vendor=1"
    sent = with_randomness(1, trace_state=given)
    closed = Sink()
    strict = sampler(closed, mode="equalizing", sampling_percentage=99)
    await strict(traces(sent))
    assert closed.batches == []
    assert (
        strict.host.stats.snapshot()[
            'otelier_processor_dropped_items{processor="test",reason="sampling_unusable"}'
        ]
        == 1
    )
    found = await kept(traces(sent), mode="equalizing", sampling_percentage=99, fail_closed=False)
    assert states(found) == {"00000000000001": given if left is None else left}

    whole = await kept(traces(sent), mode="equalizing", sampling_percentage=100)
    assert states(whole) == states(found)  # at 100 % everything is kept, whatever is known of it


@pytest.mark.parametrize("mode", ["hash_seed", "equalizing", "proportional"])
async def test_at_100_percent_records_without_a_trace_id_are_kept(mode):
    """Start-up and library records have none; 100 % means everything, and nothing is counted."""
    running = sampler(sink := Sink(), mode=mode, sampling_percentage=100)
    await running(logs({"body": "no trace"}, {"body": "trace", "trace_id": b"\x11" * 16}))
    assert names_of(sink.batches[0]) == ["no trace", "trace"]
    assert not any("dropped" in name for name in running.host.stats.snapshot())


@pytest.mark.parametrize(
    ("priority", "found"),
    [(1, True), ("0.5", True), (2.0, True), (0, False), ("0", False), (-1, None), (True, None), ("x", None)],
)  # fmt: skip
async def test_priority_of_spans(priority, found):
    """`sampling.priority` 0 drops a span, a higher one keeps it, nonsense changes nothing."""
    for percentage, otherwise in ((0, False), (100, True)):
        sent = traces(with_randomness(5, attributes={"sampling.priority": priority}))
        result = await kept(sent, mode="equalizing", sampling_percentage=percentage)
        assert (result is not None) is (otherwise if found is None else found)


async def test_hash_seed_is_the_collectors():
    """The first 14 bits of a seeded FNV-1a hash of the trace id decide, as they do there."""

    def fnv(data):
        value = 0x811C9DC5
        for byte in data:
            value = (value ^ byte) * 0x01000193 % 2**32
        return value

    rng = random.Random(1)
    ids = [rng.randbytes(16) for _ in range(2000)]
    spans = [{"name": i.hex(), "trace_id": i, "span_id": b"\x01" * 8} for i in ids]
    found = await kept(traces(*spans), hash_seed=22, sampling_percentage=15.3)
    seed = (22).to_bytes(4, "little")
    expected = [i.hex() for i in ids if fnv(seed + i) & 0x3FFF < int(15.3 * 16384 / 100)]
    assert list(states(found)) == expected
    assert 200 < len(expected) < 400
    assert set(map(len, states(found).values())) == {len("ot=th:d8d8;rv:" + "0" * 14)}


async def test_samplers_in_a_row_agree_on_whole_traces(tmp_path):
    """What a sampler of 10 % keeps is a part of what one of 30 % keeps, whatever the order."""
    rng = random.Random(2)
    spans = [
        {"name": str(n), "trace_id": rng.randbytes(16), "span_id": b"\x01" * 8} for n in range(1000)
    ]
    narrow = {"probabilistic_sampler/a": {"mode": "equalizing", "sampling_percentage": 10}}
    wide = {"probabilistic_sampler/b": {"mode": "equalizing", "sampling_percentage": 30}}
    only, counters = await through(tmp_path, narrow, traces(*spans))
    one, _ = await through(tmp_path, {**narrow, **wide}, traces(*spans))
    two, _ = await through(tmp_path, {**wide, **narrow}, traces(*spans))
    assert one == only
    assert states(two[0]) == states(only[0])
    left = len(states(only[0]))
    name = "probabilistic_sampler/a"
    assert counters == {
        f'otelcol_processor_incoming_items{{otel_signal="traces",processor="{name}"}}': 1000,
        f'otelcol_processor_outgoing_items{{otel_signal="traces",processor="{name}"}}': left,
        f'otelier_processor_dropped_items{{processor="{name}",reason="sampled_out"}}': 1000 - left,
    }


def bodies(found):
    return names_of(found) if found else []


async def test_log_records_by_trace_id():
    """Records of a trace are kept with the spans of the trace, and say with which threshold."""
    records = [
        {"body": str(n), "trace_id": b"\x01" * 9 + n.to_bytes(7)} for n in (0, 0xC0000000000000)
    ]
    found = await kept(logs(*records), mode="equalizing", sampling_percentage=25)
    assert found == plain(logs({**records[1], "attributes": {"sampling.threshold": "c"}}))


async def test_log_records_by_attribute():
    """Without a trace id an attribute is hashed; equal values share their fate."""
    records = [{"body": str(n), "attributes": {"user": f"u{n % 50}"}} for n in range(500)]
    found = await kept(
        logs(*records), attribute_source="record", from_attribute="user", sampling_percentage=30
    )
    users = {int(body) % 50 for body in bodies(found)}
    assert bodies(found) == [str(n) for n in range(500) if n % 50 in users]
    assert 0 < len(users) < 50


@pytest.mark.parametrize("mode", ["hash_seed", "equalizing"])
async def test_log_records_without_randomness(mode):
    """A record that has nothing to decide by is unusable; a priority of 100 keeps it."""
    records = [{"body": "a"}, {"body": "b", "attributes": {"p": 100}}]
    config = {"mode": mode, "sampling_percentage": 50, "sampling_priority": "p"}
    assert bodies(await kept(logs(*records), **config)) == ["b"]
    assert bodies(await kept(logs(*records), fail_closed=False, **config)) == ["a", "b"]


async def test_log_records_keep_their_ids_on_a_resend():
    """The same request is sampled in the same way and gets the same ids."""

    async def ids():
        sink = Sink()
        records = [{"body": str(n), "attributes": {"k": n}} for n in range(100)]
        given = sampler(sink, attribute_source="record", from_attribute="k", sampling_percentage=50)
        await given(logs(*records))
        return {doc["message"]: doc["_id"] for doc in documents(sink.batches[0])}

    first = await ids()
    assert first == await ids()
    assert len(set(first.values())) == len(first) < 100


async def test_metrics_pass():
    """Metrics are not sampled: half of a sum is no sum."""
    sink = Sink()
    sent = metrics({"name": "m", "points": [({}, 1)]})
    wire = sent.wire
    await sampler(sink, sampling_percentage=0)(sent)
    assert (sink.batches, sent.wire) == ([sent], wire)


async def test_everything_and_nothing():
    """100 % and more keep all, 0 keeps none, in every mode."""
    for mode in ("hash_seed", "equalizing", "proportional"):
        spans = [span(str(n), n) for n in range(1, 20)]
        everything = await kept(traces(*spans), mode=mode, sampling_percentage=150)
        assert list(states(everything)) == [str(n) for n in range(1, 20)]
        assert await kept(traces(*spans), mode=mode, sampling_percentage=0) is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"sampling_percentage": -1}, "sampling rate is negative: -1.0%"),
        ({"sampling_percentage": 1e-20}, "sampling rate is too small: 1e-20%"),
        ({"hash_seed": -1}, "hash_seed must be between 0 and 4294967295"),
        ({"sampling_precision": 15}, "sampling_precision must be between 1 and 14"),
        ({"attribute_source": "record"}, "attribute_source: record needs from_attribute"),
    ],
)
async def test_wrong_settings_are_refused(tmp_path, config, text):
    """What cannot be meant is refused at start."""
    with pytest.raises(InvalidConfig, match=text):
        service(tmp_path, {"probabilistic_sampler": config})


async def test_errors_of_what_follows_pass_through():
    """The sender gets the exporter's own answer."""
    sink = Sink()
    sink.errors = [Retryable("later", 7.0)]
    with pytest.raises(Retryable, match="later"):
        await sampler(sink, sampling_percentage=100)(traces(span("a")))
