"""The batch processor: merging, cutting, answers, ids."""

import asyncio
import random

import pytest

from collector.config import InvalidConfig
from collector.documents.build import documents
from collector.errors import Permanent, Retryable
from collector.model import Signal
from collector.otlp import count
from collector.processors.batch import BatchProcessor
from tests.collector.processors.parts import (
    SINK,
    SOURCE,
    Sink,
    batch,
    host,
    logs,
    metrics,
    names_of,
    plain,
    service,
    span,
    traces,
)

pytestmark = pytest.mark.anyio


class Gate(Sink):
    """A sink that keeps every batch waiting until it is opened."""

    def __init__(self):
        super().__init__()
        self.open = asyncio.Event()
        self.arrived = asyncio.Event()

    async def __call__(self, sent):
        self.arrived.set()
        await self.open.wait()
        await super().__call__(sent)


def processor(sink, **config):
    return BatchProcessor(BatchProcessor.Config(**config), host(), sink)


async def merging(sink, *sent, errors=(), **config):
    """
    Send one batch, and the others while the first is on its way.

    Returns:
        The results of the others, and the processor.
    """
    given = processor(sink, timeout=3600.0, **config)
    first = asyncio.create_task(given(traces(span("first", 99))))
    await sink.arrived.wait()
    others = [asyncio.create_task(given(each)) for each in sent]
    await asyncio.sleep(0)
    sink.errors = [None, *errors]
    sink.open.set()
    await first
    return await asyncio.gather(*others, return_exceptions=True), given


async def test_alone_nothing_waits():
    """A request that meets no other goes at once, as it is, with its bytes."""
    sink = Sink()
    sent = traces(span("a"))
    wire = sent.wire
    await asyncio.wait_for(processor(sink, timeout=3600.0)(sent), 30)
    assert sink.batches == [sent]
    assert sent.wire == wire


async def test_requests_that_meet_travel_together():
    """What comes while a send is under way is merged into one, and everybody is answered."""
    sink = Gate()
    sent = [traces(span(name, n), resource={"r": n}) for n, name in enumerate("abc", 1)]
    results, given = await merging(sink, *sent)
    assert results == [None] * 3
    assert [names_of(found) for found in sink.seen] == [["first"], ["a", "b", "c"]]
    expected = [({"r": n}, "scope", [span(name, n)]) for n, name in enumerate("abc", 1)]
    assert sink.seen[1] == plain(batch(Signal.TRACES, expected))
    assert given.host.stats.snapshot() == {
        'otelcol_processor_batch_batch_send_size_count{processor="test"}': 2,
        'otelcol_processor_batch_batch_send_size_sum{processor="test"}': 4,
        'otelcol_processor_incoming_items{otel_signal="traces",processor="test"}': 4,
        'otelcol_processor_outgoing_items{otel_signal="traces",processor="test"}': 4,
    }


async def test_senders_are_answered_only_when_the_data_is_taken():
    """While the send is under way nobody has an answer."""
    sink = Gate()
    given = processor(sink, timeout=3600.0)
    callers = [asyncio.create_task(given(traces(span("a", n)))) for n in (1, 2)]
    await sink.arrived.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [caller.done() for caller in callers] == [False, False]
    sink.open.set()
    assert await asyncio.gather(*callers) == [None, None]


@pytest.mark.parametrize("error", [Retryable("later", 7.0), RuntimeError("odd")])
async def test_everybody_in_a_failed_send_is_told(error):
    """Each caller gets the error of the send that it was part of, with its delay."""
    sent = [traces(span("a", 1)), traces(span("b", 2))]
    results, _ = await merging(Gate(), *sent, errors=[error])
    assert results == [error, error]


async def test_b46_bad_data_of_one_sender_costs_the_others_nothing():
    """B46: a merged batch that can never be taken is sent again request by request."""
    sink = Gate()
    poison = Permanent("bad")
    sent = [traces(span(name, n)) for n, name in enumerate("abc", 1)]
    results, given = await merging(sink, *sent, errors=[poison, None, poison, None])
    assert results == [None, poison, None]
    assert [names_of(found) for found in sink.seen] == [["first"], ["a"], ["c"]]
    name = 'otelier_processor_batch_resent_apart{processor="test"}'
    assert given.host.stats.snapshot()[name] == 1


async def test_size_sends_before_the_timeout():
    """As soon as enough items wait they go, although another send is under way."""
    sink = Gate()
    given = processor(sink, timeout=3600.0, send_batch_size=3)
    tasks = [asyncio.create_task(given(traces(span("first", 9))))]
    await sink.arrived.wait()
    sink.arrived.clear()
    tasks += [asyncio.create_task(given(traces(span(str(n), n)))) for n in (1, 2, 3)]
    await asyncio.wait_for(sink.arrived.wait(), 30)
    sink.open.set()
    await asyncio.gather(*tasks)
    assert sorted(map(names_of, sink.seen)) == [["1", "2", "3"], ["first"]]
    name = 'otelcol_processor_batch_batch_size_trigger_send{processor="test"}'
    assert given.host.stats.snapshot()[name] == 1


async def test_timeout_sends_what_waits():
    """Nobody waits longer than the timeout for a send that hangs."""
    sink = Gate()
    given = processor(sink, timeout=0.01)
    tasks = [asyncio.create_task(given(traces(span("first", 9))))]
    await sink.arrived.wait()
    sink.arrived.clear()
    tasks.append(asyncio.create_task(given(traces(span("second", 1)))))
    await asyncio.wait_for(sink.arrived.wait(), 30)
    sink.open.set()
    await asyncio.gather(*tasks)
    name = 'otelcol_processor_batch_timeout_trigger_send{processor="test"}'
    assert given.host.stats.snapshot()[name] == 1


async def test_timeout_zero_passes_on():
    """With `timeout: 0` nothing is merged."""
    sink = Gate()
    sent = [traces(span("a", 1)), traces(span("b", 2))]
    sink.open.set()
    given = processor(sink, timeout=0)
    await asyncio.gather(*(given(each) for each in sent))
    assert sink.batches == sent


async def test_a_caller_that_goes_away_takes_nobody_with_it():
    """A cancelled caller's data is still sent, and its neighbours are answered."""
    sink = Gate()
    given = processor(sink, timeout=3600.0)
    first = asyncio.create_task(given(traces(span("first", 9))))
    await sink.arrived.wait()
    gone, stays = (asyncio.create_task(given(traces(span(n, 1)))) for n in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    sink.open.set()
    await asyncio.gather(first, stays)
    assert [names_of(found) for found in sink.seen] == [["first"], ["gone", "stays"]]


async def test_tenants_are_not_mixed():
    """Requests of two tenants never travel in one batch."""
    sink = Gate()
    one, two = traces(span("a", 1)), traces(span("b", 2))
    two.request = type(two.request)(1, b"k" * 16, "other", "grpc")
    results, _ = await merging(sink, one, two)
    assert results == [None, None]
    assert sorted(names_of(found) for found in sink.seen) == [["a"], ["b"], ["first"]]


async def test_a_merged_batch_is_as_old_as_its_oldest_part():
    """Arrival is the earliest; the key is a new one; the transport stays when all agree."""
    sink = Gate()
    one, two = traces(span("a", 1)), traces(span("b", 2))
    kind = type(two.request)
    two.request = kind(5, b"k" * 16, "", "http")
    await merging(sink, one, two)
    request = sink.batches[1].request
    assert (request.received_at_unix_nano, request.transport) == (5, "")
    assert request.key not in {one.request.key, two.request.key}
    assert len(request.key) == 16


async def test_logs_are_never_merged():
    """Requests with logs keep their keys, of which the ids of records are made."""
    sink = Gate()
    given = processor(sink, timeout=3600.0)
    sent = [logs({"body": name}) for name in "abc"]
    sink.open.set()
    await asyncio.gather(*(given(each) for each in sent))
    assert sink.batches == sent


async def test_large_logs_are_cut_and_keep_their_ids():
    """Parts hold the right records, resource and scope, and the ids of the whole."""

    def sent():
        return batch(
            Signal.LOGS,
            [
                ({"r": 1}, "one", [{"body": str(n)} for n in range(5)]),
                ({"r": 2}, "two", [{"body": str(n)} for n in range(5, 8)]),
            ],
        )

    sink = Sink()
    await processor(sink, send_batch_size=1, send_batch_max_size=3)(sent())
    assert sink.seen == [
        plain(batch(Signal.LOGS, [({"r": 1}, "one", [{"body": str(n)} for n in (0, 1, 2)])])),
        plain(
            batch(
                Signal.LOGS,
                [
                    ({"r": 1}, "one", [{"body": "3"}, {"body": "4"}]),
                    ({"r": 2}, "two", [{"body": "5"}]),
                ],
            )
        ),
        plain(batch(Signal.LOGS, [({"r": 2}, "two", [{"body": "6"}, {"body": "7"}])])),
    ]
    found = [document for part in sink.batches for document in documents(part)]
    assert found == documents(sent())


async def test_large_traces_and_metrics_are_cut():
    """No batch has more items than it may; metrics are cut between data points."""
    sink = Sink()
    given = processor(sink, send_batch_size=2, send_batch_max_size=2)
    sent = traces(*[span(str(n), n) for n in range(1, 6)])
    await given(sent)
    assert [names_of(found) for found in sink.seen] == [["1", "2"], ["3", "4"], ["5"]]
    assert count(sent.signal, sent.message) == 5
    sink.batches.clear()
    points = [({"p": n}, n) for n in range(5)]
    empty = {"name": "empty", "points": []}
    await given(
        metrics({"name": "m", "points": points}, empty, {"name": "n", "points": points[:1]})
    )
    assert sink.seen == [
        plain(metrics({"name": "m", "points": points[0:2]})),
        plain(metrics({"name": "m", "points": points[2:4]})),
        plain(
            metrics({"name": "m", "points": points[4:]}, empty, {"name": "n", "points": points[:1]})
        ),
    ]


async def test_merged_batches_respect_the_maximum():
    """Requests that would be too large together go in two sends."""
    sink = Gate()
    sent = [traces(span(f"{n}a", n), span(f"{n}b", n)) for n in (1, 2, 3)]
    results, _ = await merging(sink, *sent, send_batch_size=0, send_batch_max_size=5)
    assert results == [None] * 3
    sizes = [len(names_of(found)) for found in sink.seen]
    assert sorted(sizes) == [1, 2, 4]


async def test_a_request_in_parts_has_one_answer():
    """What can still be taken comes before what cannot; the other parts are stored."""
    sink = Sink()
    given = processor(sink, send_batch_size=1, send_batch_max_size=1)
    sink.errors = [Permanent("never"), None]
    with pytest.raises(Permanent, match="never"):
        await given(logs({"body": "a"}, {"body": "b"}))
    sink.errors = [Permanent("never"), Retryable("later")]
    with pytest.raises(Retryable, match="later"):
        await given(logs({"body": "c"}, {"body": "d"}))
    sink.errors = [Permanent("never"), Retryable("later"), None]
    with pytest.raises(Retryable, match="later"):
        await given(traces(span("e", 1), span("f", 2), span("g", 3)))
    assert [names_of(found) for found in sink.seen] == [["b"], ["g"]]


async def test_stop_sends_what_waits():
    """Leaving sends what waits and waits until it is taken."""
    sink = Gate()
    given = processor(sink, timeout=3600.0)
    async with given:
        tasks = [asyncio.create_task(given(traces(span("first", 9))))]
        await sink.arrived.wait()
        tasks.append(asyncio.create_task(given(traces(span("second", 1)))))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(sink.open.set)
    assert sorted(names_of(found) for found in sink.seen) == [["first"], ["second"]]
    assert await asyncio.gather(*tasks) == [None, None]


async def test_a_stop_that_runs_out_of_time_acknowledges_nothing():
    """A send that hangs past the deadline of the stop ends without a success."""
    sink = Gate()
    given = processor(sink, timeout=3600.0)
    await given.__aenter__()
    caller = asyncio.create_task(given(traces(span("first", 9))))
    await sink.arrived.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(given.__aexit__(None, None, None), 0.01)
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_in_a_service_nothing_is_lost_or_doubled(tmp_path):
    """Many senders of all signals at once through a service: everything arrives once."""
    yaml = {"batch": {"send_batch_size": 20, "send_batch_max_size": 30, "timeout": "5ms"}}
    async with service(tmp_path, yaml) as running:
        source, sink = running.component(SOURCE), running.component(SINK)
        sent = [traces(*[span(f"{n}.{i}", n) for i in range(7)]) for n in range(1, 60)]
        sent += [logs(*[{"body": f"log {n}.{i}"} for i in range(40)]) for n in range(20)]
        sent += [metrics({"name": f"m{n}", "points": [({}, 1)] * 3}) for n in range(20)]
        expected = sorted(name for each in sent for name in names_of(each))
        await asyncio.gather(*(source.next[each.signal](each) for each in sent))
        assert sorted(name for found in sink.seen for name in names_of(found)) == expected
        assert max(count(each.signal, each.message) for each in sink.batches) <= 30
        assert len(sink.batches) < len(sent)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"send_batch_max_size": 5},
            "send_batch_max_size must be greater or equal to send_batch_size",
        ),
        ({"send_batch_size": -1}, "must not be negative"),
        ({"timeout": "-1s"}, "timeout must be greater or equal to 0"),
        ({"metadata_keys": ["a"]}, "metadata_keys is not supported"),
    ],
)
async def test_wrong_settings_are_refused(tmp_path, config, text):
    """What cannot be meant is refused at start."""
    with pytest.raises(InvalidConfig, match=text):
        service(tmp_path, {"batch": config})


MOODS = {
    "fine": [None],
    "retryable": [None, Retryable("later")],
    "permanent": [None, Permanent("never")],
    "mixed": [None, Retryable("later"), Permanent("never")],
}


@pytest.mark.parametrize("mood", MOODS)
async def test_consume_contract(mood):
    """Whatever follows does: each span is taken once or its sender was told that it never will be."""
    rng = random.Random(mood)
    taken, refused, sent = [], [], []

    async def moody(given):
        await asyncio.sleep(0)
        error = rng.choice(MOODS[mood])
        if error is not None:
            raise error
        taken.extend(names_of(given))

    async def sender(number):
        for turn in range(25):
            made = traces(*[span(f"{number}.{turn}.{i}", 1 + i) for i in range(3)])
            sent.extend(names_of(made))
            while True:
                try:
                    await given(made)
                except Retryable:
                    continue
                except Permanent:
                    refused.extend(names_of(made))
                break

    given = processor(moody, timeout=0.001, send_batch_size=9)
    await asyncio.gather(*map(sender, range(4)))
    assert sorted([*taken, *refused]) == sorted(sent)
    assert bool(refused) is (mood in ("permanent", "mixed"))
