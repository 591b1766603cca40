"""Queue, batching, retry, timeout and dead letters around exporters that fail in every way (D3)."""

import asyncio
import base64
import json
import random
from collections import Counter

import msgspec
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from collector.config import load
from collector.errors import Permanent, Retryable, StartFailed
from collector.model import Batch, Duration, Request, Signal
from collector.sending_queue.sender import (
    Batching,
    DeadLetters,
    DurableFanOut,
    ExporterSettings,
    QueueSender,
    RetryOnFailure,
    SendingQueue,
    dead_letters_path,
    durable,
    read_dead_letters,
)
from collector.sending_queue.split import joined, part, parts, units
from collector.service.service import Service
from collector.stats import Stats
from collector.stores.base import Query
from collector.wal.storage import Files, FileStorage
from tests.durability import config, host, ids, logs, until

pytestmark = pytest.mark.anyio

NO_WAIT = RetryOnFailure(initial_interval=Duration(0.001), max_interval=Duration(0.002))


class Sink:
    """An exporter that remembers, and fails as it is told: by call, or by id."""

    def __init__(self, fails=lambda batch: None):
        self.fails = fails
        self.calls = []
        self.taken = []
        self.news = asyncio.Event()

    async def __call__(self, batch):
        self.calls.append(ids(batch))
        try:
            error = self.fails(batch)
            if error is not None:
                raise error
            self.taken.extend(ids(batch))
        finally:
            self.news.set()

    async def until(self, condition):
        while not condition():
            self.news.clear()
            await self.news.wait()


class Log:
    """A durable log with the deliveries of some exporters, as the service would build it."""

    def __init__(self, folder, stats=None, **settings):
        self.stats = stats or Stats()
        self.wal = FileStorage(config(folder, **settings), host(stats=self.stats))
        self.deliveries = []

    async def __aenter__(self):
        await self.wal.__aenter__()
        return self

    async def add(self, name, sink, retry=NO_WAIT, timeout_s=0.0, merge=True, **keys):
        queue = SendingQueue(storage="file_storage", **keys)
        sending = ExporterSettings(queue=queue, retry=retry, timeout_s=timeout_s)
        at = host(name, self.stats)
        delivery = await durable(at, sink, sending, self.wal, ["logs"], merge=merge)
        await delivery.__aenter__()
        self.deliveries.append(delivery)
        return delivery

    @property
    def consume(self):
        return DurableFanOut(self.wal, "logs", self.deliveries)

    async def __aexit__(self, *exc):
        for delivery in reversed(self.deliveries):
            await delivery.__aexit__(None, None, None)
        await self.wal.__aexit__(None, None, None)


def letters(folder, name):
    """The ids in the dead letters of an exporter, with the reasons."""
    found = read_dead_letters(Files(), dead_letters_path(folder, name))
    return [(each, letter.reason) for letter in found for each in ids(letter.batch())]


async def settled(log, name):
    """Wait until an exporter has nothing left to deliver."""
    # The gauge says the same, a tenth of a second later.
    await until(lambda: not log.wal._readers[name].lag_items)


# --- durable delivery ---


async def test_what_is_appended_is_delivered_once_to_each_exporter(tmp_path):
    """One copy in the log serves all exporters, and items count as sent for each."""
    one, two = Sink(), Sink()
    async with Log(tmp_path) as log:
        await log.add("one", one)
        await log.add("two", two)
        for each in range(20):
            await log.consume(logs(f"{each}a", f"{each}b"))
        await settled(log, "one")
        await settled(log, "two")
    expected = sorted(f"{each}{letter}" for each in range(20) for letter in "ab")
    assert (sorted(one.taken), sorted(two.taken)) == (expected, expected)
    sent = {
        name: value
        for name, value in log.stats.snapshot().items()
        if name.startswith("otelcol_exporter_sent")
    }
    assert sent == {
        'otelcol_exporter_sent_log_records{exporter="one"}': 40,
        'otelcol_exporter_sent_log_records{exporter="two"}': 40,
    }


async def test_the_answer_does_not_wait_for_exporters(tmp_path):
    """A pipeline is answered while every exporter is down."""
    down = Sink(lambda batch: Retryable("down"))
    async with Log(tmp_path) as log:
        await log.add("down", down)
        for each in range(50):
            await log.consume(logs(str(each)))
    assert down.taken == []


async def test_a_slow_exporter_delays_nobody(tmp_path):
    """While one exporter is held in its first call, another has delivered everything."""
    release = asyncio.Event()
    fast = Sink()
    events = []

    async def held(batch):
        events.append("slow began")
        await release.wait()
        events.append("slow ended")

    async with Log(tmp_path) as log:
        await log.add("slow", held, num_consumers=1)
        await log.add("fast", fast)
        for each in range(100):
            await log.consume(logs(str(each)))
        await settled(log, "fast")
        events.append("fast is done")
        release.set()
        await settled(log, "slow")
    assert events[:3] == ["slow began", "fast is done", "slow ended"]
    assert len(fast.taken) == 100


async def test_restart_resumes_with_what_was_not_delivered(tmp_path):
    """An outage over two restarts: everything is delivered once, in the end."""
    sent = [f"id-{each}" for each in range(30)]
    halfway = Sink(lambda batch: Retryable("down") if int(ids(batch)[0][3:]) >= 10 else None)
    async with Log(tmp_path) as log:
        await log.add("sink", halfway)
        for each in sent:
            await log.consume(logs(each))
        await halfway.until(lambda: len(halfway.taken) == 10)
    async with Log(tmp_path) as log:
        await log.add("sink", Sink(lambda batch: Retryable("still down")))
        await log.consume(logs("late"))
    last = Sink()
    async with Log(tmp_path) as log:
        await log.add("sink", last)
        await settled(log, "sink")
    assert sorted(halfway.taken) == sorted(sent[:10])
    assert sorted(last.taken) == sorted([*sent[10:], "late"])


def half_retryable(chance):
    return lambda batch: Retryable("busy", 0.0) if chance.random() < 0.5 else None


def half_permanent(chance):
    poison = {f"{each}" for each in range(400) if chance.random() < 0.5}
    return lambda batch: Permanent("poison") if poison & set(ids(batch)) else None


def mixed(chance):
    retryable, permanent = half_retryable(chance), half_permanent(chance)
    return lambda batch: retryable(batch) or permanent(batch)


@pytest.mark.parametrize("kind", [half_retryable, half_permanent, mixed], ids=lambda f: f.__name__)
@pytest.mark.parametrize("batch", [None, Batching(min_size=20, max_size=50)], ids=["one", "batch"])
async def test_accepted_is_delivered_or_dead_lettered(tmp_path, kind, batch):
    """Contract: four senders, a failing exporter; each accepted item ends in exactly one place."""
    sink = Sink(kind(random.Random(7)))
    async with Log(tmp_path) as log:
        await log.add("sink", sink, batch=batch)

        async def sender(place):
            for first in range(place * 100, place * 100 + 100, 4):
                await log.consume(logs(*(str(each) for each in range(first, first + 4))))

        await asyncio.gather(*(sender(place) for place in range(4)))
        await settled(log, "sink")
    dead = [each for each, _ in letters(tmp_path, "sink")]
    assert Counter(sink.taken + dead) == Counter(str(each) for each in range(400))
    assert bool(dead) == (kind is not half_retryable)
    counted = log.stats.snapshot()
    assert counted.get('otelcol_exporter_sent_log_records{exporter="sink"}', 0) == len(sink.taken)
    failed = counted.get('otelcol_exporter_send_failed_log_records{exporter="sink"}', 0)
    assert failed == len(dead)


async def test_only_the_poison_item_becomes_a_dead_letter(tmp_path):
    """B46: the item that nobody takes is found by halving; its seven neighbours are delivered."""
    sink = Sink(lambda batch: Permanent("bad value") if "5" in ids(batch) else None)
    sent = logs(*(str(each) for each in range(8)))
    async with Log(tmp_path) as log:
        await log.add("sink", sink)
        await log.consume(sent)
        await settled(log, "sink")
    assert sorted(sink.taken) == ["0", "1", "2", "3", "4", "6", "7"]
    assert sink.calls[:3] == [list("01234567"), list("0123"), list("4567")]
    line = json.loads(dead_letters_path(tmp_path, "sink").read_text())
    single = logs("5")
    assert base64.b64decode(line.pop("request")) == single.wire
    assert line.pop("time").endswith("Z")
    assert line == {
        "exporter": "sink",
        "signal": "logs",
        "reason": "bad value",
        "items": 1,
        "key": part(part(part(sent, 4, 8), 0, 2), 1, 2).request.key.hex(),
        "received_at_unix_nano": sent.request.received_at_unix_nano,
        "tenant": "",
        "transport": "test",
    }
    name = 'otelier_exporter_dead_letters{exporter="sink",reason="refused"}'
    assert log.stats.snapshot()[name] == 1


async def test_a_letter_is_written_once_over_restarts(tmp_path):
    """A crash before the cursor was saved delivers again, but does not repeat a dead letter."""
    poison = logs("poison")
    for _ in range(2):
        box = DeadLetters(tmp_path, "sink", 1 << 20, Files())
        await box.add(poison, "bad")
        await box.add(poison, "bad")
    assert letters(tmp_path, "sink") == [("poison", "bad")]


async def test_a_torn_letter_is_cut(tmp_path):
    """A line that a crash cut short is no letter; the next one stands on a line of its own."""
    path = dead_letters_path(tmp_path, "sink")
    await DeadLetters(tmp_path, "sink", 1 << 20, Files()).add(logs("a"), "bad")
    with path.open("ab") as file:
        file.write(b'{"time": "torn')
    await DeadLetters(tmp_path, "sink", 1 << 20, Files()).add(logs("b"), "bad")
    assert letters(tmp_path, "sink") == [("a", "bad"), ("b", "bad")]


async def test_full_dead_letters_stop_the_queue_and_lose_nothing(tmp_path):
    """When no letter can be kept, the exporter's queue stands still instead of dropping."""
    sink = Sink(lambda batch: Permanent("no"))
    async with Log(tmp_path, dead_letter_bytes=500) as log:
        await log.add("sink", sink)
        await log.consume(logs("kept"))
        await log.consume(logs("x" * 500))
        await until(lambda: "otelier_dead_letters_blocked" in str(log.stats.snapshot()))
    assert letters(tmp_path, "sink") == [("kept", "no")]
    better = Sink()
    async with Log(tmp_path) as log:
        await log.add("sink", better)
        await settled(log, "sink")
    assert better.taken == ["x" * 500]


async def test_expired_requests_become_dead_letters_only_when_asked(tmp_path):
    """`max_elapsed_time` is honoured when it is set; a durable queue never gives up by itself."""
    retry = msgspec.structs.replace(NO_WAIT, max_elapsed_time=Duration(0.01))
    sink = Sink(lambda batch: Retryable("down", 0.0))
    async with Log(tmp_path) as log:
        await log.add("sink", sink, retry=retry)
        await log.consume(logs("a", "b"))
        await settled(log, "sink")
    assert letters(tmp_path, "sink") == [
        (each, "down (max_elapsed_time of 0.01s is over)") for each in "ab"
    ]
    assert len(set(map(tuple, sink.calls))) == 1  # never cut: there is no poison in it


async def test_wait_for_result_answers_after_delivery(tmp_path):
    """With `wait_for_result` a pipeline is answered when the exporter has taken the request."""
    events = []

    async def sink(batch):
        events.append("taken")

    async with Log(tmp_path) as log:
        await log.add("sink", sink, wait_for_result=True)
        await log.consume(logs("a"))
        events.append("answered")
    assert events == ["taken", "answered"]


async def test_stores_get_requests_as_they_came(tmp_path):
    """With `merge` off a bundle is many calls at once, each with the key of its own request."""
    keys = []

    async def store(batch):
        keys.append((batch.request.key, ids(batch)))

    sent = [logs(str(each)) for each in range(10)]
    async with Log(tmp_path) as log:
        await log.add("store", store, merge=False, batch=Batching(min_size=10))
        for each in sent:
            await log.consume(each)
        await settled(log, "store")
    assert sorted(keys) == sorted((each.request.key, ids(each)) for each in sent)


@pytest.mark.parametrize("merge", [False, True])
async def test_a_store_is_given_what_waits_at_once(tmp_path, merge):
    """R4: a backlog goes 500 items at a time to a store, which shares its writes; request by request to others."""
    running, most = 0, []
    go = asyncio.Event()

    async def exporter(batch):
        nonlocal running
        running += 1
        most.append(running)
        await go.wait()
        running -= 1

    async with Log(tmp_path) as log:
        for each in range(30):
            await log.consume(logs(*(f"{each}-{item}" for item in range(100))))
        await log.add("late", exporter, merge=merge, num_consumers=1, start="oldest")
        await until(lambda: len(most) == (1 if merge else 5))
        await asyncio.sleep(0.05)
        assert most == ([1] if merge else [1, 2, 3, 4, 5])
        go.set()
        await settled(log, "late")
    assert len(most) == 30


YAML = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
exporters:
  sqlite: {path: FOLDER/store.db, sending_queue: {storage: file_storage}}
extensions: {file_storage: {directory: FOLDER/queue}}
service:
  extensions: [EXTENSIONS]
  pipelines: {logs: {receivers: [otlp], exporters: [sqlite]}}
"""


def service(tmp_path, extensions):
    path = tmp_path / "collector.yaml"
    path.write_text(YAML.replace("FOLDER", str(tmp_path)).replace("EXTENSIONS", extensions))
    return Service(load([str(path)], [], {}))


async def test_a_service_puts_the_log_between_pipeline_and_exporter(tmp_path):
    """The YAML alone makes a pipeline durable; the same request twice is stored once."""
    async with service(tmp_path, "file_storage") as running:
        consume = running.component("otlp").next[Signal.LOGS]
        for batch in (sent := logs("a", "b")), sent, logs("c"):
            await consume(batch)
        store = running.component("sqlite")
        found = []
        while len(found) < 3:
            found = await store.find(Query(signal=Signal.LOGS))
            await asyncio.sleep(0.002)
        assert [each["message"] for each in found] == ["a", "b", "c"]
        assert (
            f"extensions::file_storage: durable queue in {tmp_path}/queue (answered after fsync)"
            in (running.banner())
        )


async def test_a_storage_that_does_not_run_is_named(tmp_path):
    """A queue whose storage is not started ends the start with the fix."""
    with pytest.raises(StartFailed) as caught:
        async with service(tmp_path, ""):
            pass
    assert str(caught.value) == (
        'cannot start exporters::sqlite: sending_queue::storage: "file_storage"'
        " is no file_storage that runs; add it to service::extensions"
    )


# --- retry and timeout ---


async def test_waits_grow_are_random_and_never_shorter_than_asked():
    """The waits follow the Collector's keys; a longer delay of the other side wins."""
    delays = []
    answers = [
        Retryable("a", 0.0),
        Retryable("b", 0.0),
        Retryable("c", 60.0),
        ValueError("d"),
        None,
    ]
    chances = iter([0.0, 1.0, 0.5, 0.5])

    async def sleep(delay_s):
        delays.append(delay_s)

    sending = ExporterSettings(retry=RetryOnFailure(max_interval=Duration(10)))
    sink = Sink(lambda batch: answers[len(sink.calls) - 1])
    async with QueueSender(
        host("sink"), sink, sending, sleep=sleep, clock=lambda: 0.0, chance=lambda: next(chances)
    ) as delivery:
        await delivery(logs("a"))
    assert delays == [2.5, 11.25, 60.0, 10.0]
    assert sink.taken == ["a"]


async def test_a_success_ends_the_waits_of_others_once():
    """R4: what piled up in an outage goes when it is over; a request that still fails is not tried each time."""
    down = True
    calls = []
    waits = asyncio.Event()

    def fails(batch):
        calls.append(*ids(batch))
        return Retryable("down", 0.0) if down or ids(batch) == ["bad"] else None

    async def sleep(delay_s):
        waits.set()
        await asyncio.Event().wait()  # for ever: only a success ends it

    sink = Sink(fails)
    sending = ExporterSettings(queue=SendingQueue(), retry=RetryOnFailure())
    async with QueueSender(host("sink"), sink, sending, sleep=sleep) as delivery:
        for each in ("a", "b", "bad"):
            await delivery(logs(each))
        await until(lambda: len(calls) == 3 and waits.is_set())
        assert sink.taken == []
        down = False
        for each in ("c", "d", "e"):
            await delivery(logs(each))
            await until(lambda each=each: each in sink.taken)
        await until(lambda: {"a", "b"} <= set(sink.taken))
        assert sorted(calls) == ["a", "a", "b", "b", "bad", "bad", "c", "d", "e"]


async def test_a_success_leaves_a_wait_that_was_asked_for():
    """Retry-After stands, whatever becomes of other requests meanwhile."""
    asked = []

    async def sleep(delay_s):
        asked.append(delay_s)
        await asyncio.Event().wait()

    sink = Sink(lambda batch: Retryable("later", 60.0) if ids(batch) == ["a"] else None)
    sending = ExporterSettings(queue=SendingQueue(), retry=RetryOnFailure())
    async with QueueSender(host("sink"), sink, sending, sleep=sleep) as delivery:
        await delivery(logs("a"))
        await until(lambda: asked == [60.0])
        await delivery(logs("b"))
        await until(lambda: sink.taken == ["b"])
        await asyncio.sleep(0.05)
        assert sink.calls == [["a"], ["b"]]


async def test_an_attempt_has_a_timeout():
    """An exporter that hangs is tried again; the unknown outcome counts as not taken."""
    calls = []

    async def sink(batch):
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()

    sending = ExporterSettings(
        queue=SendingQueue(wait_for_result=True), retry=NO_WAIT, timeout_s=0.01
    )
    async with QueueSender(host("sink"), sink, sending) as delivery:
        await delivery(logs("a"))
    assert len(calls) == 2


async def test_without_a_queue_the_sender_hears_the_outcome():
    """Retry and timeout work without a queue: errors reach the sender with their kind."""
    stats = Stats()
    off = RetryOnFailure(enabled=False)
    for error, kind in ((Permanent("never"), Permanent), (Retryable("later"), Retryable)):
        sink = Sink(lambda batch, error=error: error)
        async with QueueSender(host("sink", stats), sink, ExporterSettings(retry=off)) as delivery:
            with pytest.raises(kind, match=f'exporter "sink": {error}'):
                await delivery(logs("a"))
    name = 'otelcol_exporter_send_failed_log_records{exporter="sink"}'
    assert stats.snapshot()[name] == 2


# --- the queue in memory ---


async def test_a_full_queue_in_memory_refuses():
    """`queue_size` bounds what waits and what is in delivery; more is refused for now."""
    release = asyncio.Event()
    stats = Stats()

    async def held(batch):
        await release.wait()

    queue = SendingQueue(queue_size=5, num_consumers=1, sizer="items")
    async with QueueSender(
        host("sink", stats), held, ExporterSettings(queue=queue, retry=NO_WAIT)
    ) as delivery:
        await delivery(logs("a", "b", "c"))
        await delivery(logs("d", "e"))
        with pytest.raises(Retryable, match="sending queue is full"):
            await delivery(logs("f"))
        with pytest.raises(Permanent, match=r"larger than the sending queue \(5\)"):
            await delivery(logs(*"abcdef"))
        assert stats.snapshot()['otelcol_exporter_queue_size{exporter="sink"}'] == 5
        release.set()
    counted = stats.snapshot()
    assert counted['otelcol_exporter_enqueue_failed_log_records{exporter="sink"}'] == 7
    assert counted['otelcol_exporter_sent_log_records{exporter="sink"}'] == 5
    assert counted['otelcol_exporter_queue_size{exporter="sink"}'] == 0
    assert counted['otelcol_exporter_queue_capacity{exporter="sink"}'] == 5


async def test_block_on_overflow_waits_for_room_in_order():
    """Senders that wait are let in one after the other, first come first served."""
    sink = Sink()
    queue = SendingQueue(queue_size=1, num_consumers=1, block_on_overflow=True)
    async with QueueSender(
        host("sink"), sink, ExporterSettings(queue=queue, retry=NO_WAIT)
    ) as delivery:
        await asyncio.gather(*(delivery(logs(str(each))) for each in range(20)))
    assert sink.taken == [str(each) for each in range(20)]


async def test_stop_drains_memory_with_one_attempt_each_and_counts_the_rest():
    """What a queue in memory cannot deliver at the stop is lost, and counted by reason."""
    stats = Stats()
    sink = Sink(lambda batch: Retryable("down") if int(ids(batch)[0]) % 2 else None)
    queue = SendingQueue(num_consumers=2)
    async with QueueSender(
        host("sink", stats), sink, ExporterSettings(queue=queue, retry=RetryOnFailure())
    ) as delivery:
        for each in range(10):
            await delivery(logs(str(each)))
    assert sorted(sink.taken) == ["0", "2", "4", "6", "8"]
    counted = stats.snapshot()
    assert counted['otelier_exporter_dropped_items{exporter="sink",reason="shutdown"}'] == 5
    assert counted['otelcol_exporter_sent_log_records{exporter="sink"}'] == 5


async def test_memory_drops_what_is_refused_and_keeps_neighbours():
    """Without dead letters the poison item alone is dropped, and counted."""
    stats = Stats()
    sink = Sink(lambda batch: Permanent("no") if "b" in ids(batch) else None)
    sending = ExporterSettings(queue=SendingQueue(wait_for_result=True), retry=NO_WAIT)
    async with QueueSender(host("sink", stats), sink, sending) as delivery:
        with pytest.raises(Permanent, match="no"):
            await delivery(logs("a", "b", "c"))
    assert sink.taken == ["a", "c"]
    name = 'otelier_exporter_dropped_items{exporter="sink",reason="refused"}'
    assert stats.snapshot()[name] == 1


async def test_batching_joins_up_to_min_size_and_cuts_at_max_size():
    """Requests are joined until there is enough, and never more than `max_size` is sent at once."""
    sink = Sink()
    batch = Batching(min_size=4, max_size=5, flush_timeout=Duration(60))
    queue = SendingQueue(num_consumers=1, batch=batch)
    async with QueueSender(
        host("sink"), sink, ExporterSettings(queue=queue, retry=NO_WAIT)
    ) as delivery:
        for request in ("ab", "cd", "efg", "hij", "klmnopqrstuvw", "x"):
            await delivery(logs(*request))
    assert ["".join(call) for call in sink.calls] == [
        "abcd",
        "efg",
        "hij",
        "klmno",
        "pqrst",
        "uvw",
        "x",
    ]


async def test_flush_timeout_sends_what_there_is():
    """A single small request does not wait for company for ever."""
    sink = Sink()
    queue = SendingQueue(batch=Batching(flush_timeout=Duration(0.01)))
    async with QueueSender(
        host("sink"), sink, ExporterSettings(queue=queue, retry=NO_WAIT)
    ) as delivery:
        await delivery(logs("a"))
        await sink.until(lambda: sink.taken)
        assert sink.taken == ["a"]


async def test_tenants_are_never_joined():
    """Requests of different tenants stay apart, however small they are."""
    sink = Sink()
    queue = SendingQueue(batch=Batching(flush_timeout=Duration(60)))
    async with QueueSender(
        host("sink"), sink, ExporterSettings(queue=queue, retry=NO_WAIT)
    ) as delivery:
        for each in range(6):
            await delivery(logs(str(each), tenant="ab"[each % 2]))
    assert sorted(sink.calls) == [["0", "2", "4"], ["1", "3", "5"]]


# --- parts ---


async def test_parts_keep_resources_scopes_and_have_stable_keys():
    """Cutting keeps what surrounds an item; the same part has the same key each time."""
    message = ExportMetricsServiceRequest()
    for service in ("x", "y"):
        group = message.resource_metrics.add(schema_url=f"schema {service}")
        group.resource.attributes.add(key="service.name").value.string_value = service
        for name in ("a", "b"):
            metric = group.scope_metrics.add(schema_url=name).metrics.add(name=f"{service}{name}")
            for value in (1, 2):
                metric.gauge.data_points.add(as_int=value)
    batch = Batch(Signal.METRICS, message, Request(1, b"k" * 16))
    assert units(batch) == 4
    middle = part(batch, 1, 3)
    shape = [
        (
            group.schema_url,
            group.resource.attributes[0].value.string_value,
            scope.schema_url,
            each.name,
        )
        for group in middle.message.resource_metrics
        for scope in group.scope_metrics
        for each in scope.metrics
    ]
    assert shape == [("schema x", "x", "b", "xb"), ("schema y", "y", "a", "ya")]
    assert middle.request.key == part(batch, 1, 3).request.key != part(batch, 0, 3).request.key
    cut = list(parts(batch, 3, "items"))  # two points each: one metric at a time
    assert [units(each) for each in cut] == [1, 1, 1, 1]
    whole = joined([part(batch, 0, 2), part(batch, 2, 4)])
    assert whole.message == message
    assert whole.wire == message.SerializeToString()


# --- settings ---


def test_settings_say_what_is_wrong():
    """The shared sections complain in the OpenTelemetry Collector's words."""
    assert list(SendingQueue(queue_size=0, num_consumers=0).check()) == [
        "`queue_size` must be positive",
        "`num_consumers` must be positive",
    ]
    queue = SendingQueue(queue_size=10, sizer="items", batch=Batching(min_size=20))
    assert list(queue.check()) == ["`min_size` must be less than or equal to `queue_size`"]
    assert list(Batching(flush_timeout=Duration(0)).check()) == [
        "`flush_timeout` must be positive, found 0"
    ]
    assert list(RetryOnFailure(max_elapsed_time=Duration(1)).check()) == [
        "'max_elapsed_time' must not be less than 'initial_interval'",
        "'max_elapsed_time' must not be less than 'max_interval'",
    ]


def test_defaults_are_the_collectors():
    """The shared keys have the OpenTelemetry Collector's defaults; giving up is ours."""
    assert msgspec.structs.asdict(SendingQueue()) == {
        "enabled": True,
        "num_consumers": 10,
        "queue_size": 1000,
        "sizer": "requests",
        "block_on_overflow": False,
        "wait_for_result": False,
        "storage": "",
        "start": "now",
        "batch": None,
    }
    assert msgspec.structs.asdict(Batching()) == {
        "enabled": True,
        "flush_timeout": 0.2,
        "min_size": 8192,
        "max_size": 0,
        "sizer": "",
    }
    assert msgspec.structs.asdict(RetryOnFailure()) == {
        "enabled": True,
        "initial_interval": 5.0,
        "randomization_factor": 0.5,
        "multiplier": 1.5,
        "max_interval": 30.0,
        "max_elapsed_time": None,
    }
