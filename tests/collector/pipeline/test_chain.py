"""The ways to join consumers, with small real consumers at the ends."""

import asyncio
import logging

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.errors import CollectorError, Permanent, Retryable, TooLarge
from collector.model import Batch, Host, Request, Signal, mutates
from collector.pipeline.chain import chain
from collector.pipeline.fan_out import FanOut, Outlet, fan_out, share
from collector.pipeline.gate import Gate
from collector.stats import Stats

pytestmark = pytest.mark.anyio

LOG = logging.getLogger("collector.component.test")


def batch(*names, key=b"k" * 16):
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for name in names:
        spans.add(name=name)
    return Batch(Signal.TRACES, message, Request(1, key), message.SerializeToString())


def names(taken):
    return [span.name for span in taken.message.resource_spans[0].scope_spans[0].spans]


class Sink:
    """An exporter that remembers, or fails."""

    def __init__(self, error=None):
        self.error = error
        self.batches = []

    async def __call__(self, taken):
        self.batches.append(taken)
        if self.error:
            raise self.error


class Rename:
    """A processor that changes every span's name and says so."""

    mutates = True

    def __init__(self, config, host, following):
        self.suffix = config
        self.following = following

    async def __call__(self, taken):
        for span in taken.message.resource_spans[0].scope_spans[0].spans:
            span.name += self.suffix
        taken.wire = None
        await self.following(taken)


class Pass:
    """A processor that changes nothing and says nothing."""

    def __init__(self, config, host, following):
        self.following = following

    async def __call__(self, taken):
        await self.following(taken)


def host(stats=None):
    return Host("test", stats or Stats(), LOG)


async def test_chain_runs_processors_in_the_order_of_the_yaml():
    """The first processor of the list sees a batch first, and the last one is made first."""
    sink = Sink()
    parts = [(Rename, ".a", host()), (Rename, ".b", host())]
    consume, made = chain(parts, sink)
    await consume(batch("x"))
    assert names(sink.batches[0]) == ["x.a.b"]
    assert [processor.suffix for processor in made] == [".b", ".a"]


async def test_chain_of_nothing_is_the_consumer():
    """A pipeline without processors adds no layer."""
    sink = Sink()
    assert chain([], sink) == (sink, [])


async def test_fan_out_calls_every_branch_when_one_fails():
    """A broken exporter never keeps a batch from the others."""
    first, broken, last = Sink(), Sink(Retryable("down")), Sink()
    sent = batch("x")
    with pytest.raises(Retryable, match="down"):
        await fan_out([first, broken, last], Stats())(sent)
    assert (first.batches, broken.batches, last.batches) == ([sent], [sent], [sent])


async def test_fan_out_calls_branches_at_the_same_time():
    """A branch that waits does not delay the next: here each one waits for the other."""
    here, there = asyncio.Event(), asyncio.Event()

    async def one(_):
        here.set()
        await there.wait()

    async def two(_):
        there.set()
        await here.wait()

    await asyncio.wait_for(fan_out([one, two], Stats())(batch("x")), 10)
    assert here.is_set()
    assert there.is_set()


@pytest.mark.parametrize(
    ("errors", "expected", "text", "delay"),
    [
        ([Retryable("a", 2.0), Retryable("b", 7.0)], Retryable, "a; b", 7.0),
        ([Permanent("a"), Retryable("b", 3.0)], Retryable, "a; b", 3.0),
        ([Permanent("a"), TooLarge("b")], Permanent, "a; b", None),
        ([Permanent("a"), KeyError("b")], Retryable, "a; KeyError: 'b'", 1.0),
        ([None, Permanent("a")], Permanent, "a", None),
        ([Retryable("same"), Retryable("same")], Retryable, "same", 1.0),
    ],
)
async def test_fan_out_joins_errors(errors, expected, text, delay):
    """Anything that may succeed later makes the answer Retryable, with the longest delay."""
    with pytest.raises(CollectorError) as caught:
        await fan_out([Sink(error) for error in errors], Stats())(batch("x"))
    assert type(caught.value) is expected
    assert str(caught.value) == text
    assert getattr(caught.value, "delay_s", None) == delay


async def test_resend_reaches_only_the_branches_that_failed():
    """A file beside a database that is down gets each batch once, however often it is resent."""
    file, database = Sink(), Sink(Retryable("down"))
    stats = Stats()
    consume = fan_out([file, database], stats)
    for _ in range(3):
        with pytest.raises(Retryable, match="down"):
            await consume(batch("x"))
    database.error = None
    await consume(batch("x"))
    assert ([names(b) for b in file.batches], len(database.batches)) == ([["x"]], 4)
    assert stats.snapshot() == {"otelier_junction_repeats": 3}


async def test_only_the_same_request_with_the_same_content_is_a_repeat():
    """Another request, another part of one request, and a later repeat are all delivered."""
    file, database = Sink(), Sink(Retryable("down"))
    consume = fan_out([file, database], Stats())
    whole, other = batch("x"), batch("x", key=b"o" * 16)
    part, rest = batch("y"), batch("z")
    part.wire = rest.wire = None  # two parts that a processor made of one request
    for sent in (whole, other, part, rest):
        with pytest.raises(Retryable):
            await consume(sent)
    database.error = None
    for sent in (whole, other, part, rest, whole):
        await consume(sent)
    assert file.batches == [whole, other, part, rest, whole]


async def test_junction_forgets_the_oldest():
    """What is remembered is bounded: behind the bound a resend is delivered again."""
    file, database = Sink(), Sink(Retryable("down"))
    consume = FanOut([(file, False), (database, False)], Stats(), remembered=2)
    for name in ("a", "b", "c", "c", "a"):
        with pytest.raises(Retryable):
            await consume(batch(name, key=name.encode() * 16))
    assert [names(taken) for taken in file.batches] == [["a"], ["b"], ["c"], ["a"]]


async def test_outlet_counts_what_was_taken_and_what_failed():
    """Items, not batches, are counted for each exporter."""
    stats = Stats()
    await Outlet("good", Sink(), stats, LOG)(batch("x", "y"))
    with pytest.raises(Retryable, match='exporter "bad": ValueError: oops'):
        await Outlet("bad", Sink(ValueError("oops")), stats, LOG)(batch("x", "y", "z"))
    assert stats.snapshot() == {
        'otelcol_exporter_send_failed_spans{exporter="bad"}': 3,
        'otelcol_exporter_sent_spans{exporter="good"}': 2,
    }


async def test_outlet_keeps_the_kind_and_the_delay_of_an_error():
    """What can never be stored stays final; a delay that an exporter asks for reaches the sender."""
    with pytest.raises(Permanent, match='exporter "f": too large'):
        await Outlet("f", Sink(TooLarge("too large")), Stats(), LOG)(batch("x"))
    with pytest.raises(Retryable) as caught:
        await Outlet("f", Sink(Retryable("full", 9.0)), Stats(), LOG)(batch("x"))
    assert caught.value.delay_s == 9.0


async def test_outlet_logs_a_broken_exporter_once_in_a_while(caplog):
    """A thousand failures are one line in the log."""
    outlet = Outlet("bad", Sink(Retryable("down")), Stats(), LOG)
    for _ in range(1000):
        with pytest.raises(Retryable):
            await outlet(batch("x"))
    assert [record.getMessage() for record in caplog.records] == [
        "Exporting failed, senders must try again: down"
    ]


async def test_share_copies_only_for_pipelines_that_change_messages():
    """A pipeline that renames spans does not rename them for its neighbours."""
    plain, changed, also = Sink(), Sink(), Sink()
    parts = [(Rename, ".new", host())]
    consume, _ = chain(parts, changed)
    sent = batch("x")
    await share([(plain, False), (consume, mutates(Rename)), (also, False)], Stats())(sent)
    assert plain.batches[0] is sent
    assert also.batches[0] is sent
    assert names(sent) == ["x"]
    assert names(changed.batches[0]) == ["x.new"]
    assert sent.wire == sent.message.SerializeToString()


async def test_share_copies_nothing_for_a_single_pipeline():
    """One pipeline gets the batch itself, whatever its processors do."""
    sink = Sink()
    parts = [(Rename, ".new", host())]
    consume, _ = chain(parts, sink)
    sent = batch("x")
    await share([(consume, True)], Stats())(sent)
    assert sink.batches[0] is sent


def test_mutates_asks_every_processor():
    """A processor that declares nothing changes nothing."""
    assert mutates(Pass) is False
    assert mutates(Rename) is True


class Slow(Sink):
    """An exporter that takes a batch when it is told to."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()

    async def __call__(self, taken):
        await self.go.wait()
        await super().__call__(taken)


async def test_a_held_gate_lets_calls_inside_end_and_others_wait():
    """Nobody is called after `empty` but the next one; nobody who called is refused."""
    gate, old, new = Gate(), Slow(), Sink()
    gate.lead(old)
    first = asyncio.create_task(gate(batch("first")))
    await asyncio.sleep(0)
    gate.hold()
    second = asyncio.create_task(gate(batch("second")))
    emptied = asyncio.create_task(gate.empty())
    await asyncio.sleep(0)
    assert not emptied.done()
    old.go.set()
    await asyncio.gather(first, emptied)
    gate.lead(new)
    await second
    assert [names(each) for each in old.batches] == [["first"]]
    assert [names(each) for each in new.batches] == [["second"]]


async def test_a_closed_gate_sends_away_to_come_again():
    """Those that waited and those that come later are told to send again."""
    gate = Gate()
    waiting = asyncio.create_task(gate(batch("x")))
    await asyncio.sleep(0)
    gate.close()
    for call in (waiting, gate(batch("y"))):
        with pytest.raises(Retryable, match="taken out of the configuration"):
            await call


async def test_a_junction_that_is_replaced_hands_on_what_it_remembers():
    """A branch that has a batch does not get it again from the next junction."""
    good, bad, other = Sink(), Sink(Retryable("down")), Sink()
    before = fan_out([good, bad], Stats())
    with pytest.raises(Retryable):
        await before(batch("x"))
    await fan_out([other, good], Stats(), before)(batch("x"))
    assert [len(each.batches) for each in (good, bad, other)] == [1, 1, 1]
