"""The python processor: functions of the user's, their time and their errors."""

import asyncio
import sys
import threading

import pytest

from collector.config import InvalidConfig
from collector.documents.build import documents
from collector.errors import Permanent, Retryable
from collector.model import Duration, Signal
from collector.processors.python import Python
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

RELEASE = threading.Event()
NOT_CALLABLE = 7


def enrich(view, *, region="eu"):
    """What a user would write."""
    for item in view:
        item.resource["seen"] = True
        if view.signal is Signal.METRICS:
            for attributes in item.points:
                attributes["region"] = region
            item.name = item.name.upper()
            continue
        item.attributes["region"] = region
        item.attributes["scope"] = item.scope
        if view.signal is Signal.LOGS:
            item.body = {"text": item.body}
        else:
            item.name = item.name.upper()


async def drop_noise(view):
    await asyncio.sleep(0)
    for item in view:
        if (item.body if view.signal is Signal.LOGS else item.name) == "noise":
            item.drop()


def half_way(view):
    for item in view:
        item.attributes["changed"] = True
        item.drop()
    raise ValueError("not today")


def refuses(view):
    raise Permanent("never")


def leaves(view):
    sys.exit(3)


def hangs(view):
    next(iter(view)).attributes["changed"] = True
    RELEASE.wait(60)


async def hangs_async(view):
    await asyncio.Event().wait()


def returns(view):
    return view


def cheats(view):
    for item in view:
        item.message.attributes.add(key="raw").value.int_value = 1
    view._scopes[0][0].log_records.add()  # what the docs forbid


class Callable:
    def __call__(self, view):
        next(iter(view)).attributes["called"] = True


INSTANCE = Callable()


@pytest.fixture(autouse=True)
def release():
    RELEASE.clear()
    yield
    RELEASE.set()


def processor(function, sink=None, **more):
    config = Python.Config(function=f"{__name__}:{function}", **more)
    assert Python.check(config) == []
    return Python(config, host(), sink or Sink())


async def test_a_function_edits_all_signals_in_a_service(tmp_path):
    """Names, bodies, attributes of items, points and resources are read and written."""
    yaml = {"python": {"function": f"{__name__}:enrich", "options": {"region": "us"}}}
    sent = [
        traces(span("get", attributes={"a": 1})),
        metrics({"name": "m", "points": [({}, 1), ({"region": "x"}, 2)]}),
        logs({"body": "hello"}),
    ]
    seen, counters = await through(tmp_path, yaml, *sent)
    more = {"region": "us", "scope": "scope"}
    at = {"resource": {"seen": True}}
    assert seen == [
        plain(traces(span("GET", attributes={"a": 1, **more}), **at)),
        plain(
            metrics({"name": "M", "points": [({"region": "us"}, 1), ({"region": "us"}, 2)]}, **at)
        ),
        plain(logs({"body": {"text": "hello"}, "attributes": more}, **at)),
    ]
    assert (
        counters['otelcol_processor_outgoing_items{otel_signal="metrics",processor="python"}'] == 2
    )


@pytest.mark.parametrize("make", [traces, logs])
async def test_dropped_items_are_gone_and_counted(make):
    """`drop()` takes an item out, the neighbours stay; an empty batch is not handed on."""
    sink = Sink()
    given = processor("drop_noise", sink)

    def items(*names):
        return [span(name) if make is traces else {"body": name} for name in names]

    await given(make(*items("a", "noise", "b", "noise")))
    await given(make(*items("noise")))
    assert sink.seen == [plain(make(*items("a", "b")))]
    counters = given.host.stats.snapshot()
    name = 'otelier_processor_dropped_items{processor="test",reason="function"}'
    assert counters[name] == 3


async def test_log_records_keep_their_identity():
    """A resend gets the same ids, and a function that drops nothing changes none."""

    async def ids(function, *bodies):
        sink = Sink()
        await processor(function, sink)(logs(*[{"body": body} for body in bodies], key=b"k" * 16))
        return [document["_id"] for document in documents(sink.batches[0])]

    assert await ids("drop_noise", "a", "noise") == await ids("drop_noise", "a", "noise")
    before = documents(logs({"body": "a"}, {"body": "b"}, key=b"k" * 16))
    assert await ids("enrich", "a", "b") == [document["_id"] for document in before]


async def test_objects_can_be_called():
    """Anything that can be called is a function."""
    sink = Sink()
    await processor("INSTANCE", sink)(logs({"body": "a"}))
    assert sink.seen == [plain(logs({"body": "a", "attributes": {"called": True}}))]


FAILURES = [
    ("half_way", "ValueError: not today", "function_failed"),
    ("leaves", "RuntimeError: ", "function_failed"),
    ("returns", "TypeError: ", "function_failed"),
    ("cheats", "ValueError: items must not be added or deleted", "function_failed"),
    ("hangs", "hangs took longer than 0.05 s", "time_budget"),
    ("hangs_async", "hangs_async took longer than 0.05 s", "time_budget"),
]


@pytest.mark.parametrize(("function", "text", "reason"), FAILURES)
@pytest.mark.parametrize("mode", ["propagate", "ignore", "drop"])
async def test_failures(function, text, reason, mode, caplog):
    """A function that fails or takes too long has changed nothing; error_mode says what follows."""
    sink = Sink()
    given = processor(function, sink, error_mode=mode, time_budget=Duration(0.05))
    sent = logs({"body": "a"}, {"body": "b"})
    wire = sent.wire
    if mode == "propagate":
        with pytest.raises(Retryable) as caught:
            await given(sent)
        assert text in str(caught.value)
    else:
        await given(sent)
    assert sink.batches == ([sent] if mode == "ignore" else [])
    assert (sent.wire, plain(sent)) == (wire, plain(logs({"body": "a"}, {"body": "b"})))
    counters = given.host.stats.snapshot()
    assert counters[f'otelier_processor_errors{{processor="test",reason="{reason}"}}'] == 1
    name = f'otelier_processor_dropped_items{{processor="test",reason="{reason}"}}'
    assert counters.get(name, 0) == (2 if mode == "drop" else 0)
    assert len(caplog.records) == 1


async def test_the_functions_own_refusal_is_the_answer():
    """A function may say that data can never be taken."""
    with pytest.raises(Permanent, match="never"):
        await processor("refuses")(logs({"body": "a"}))


async def test_hanging_functions_hold_up_nobody_for_ever(caplog):
    """All threads hang: more batches run into their time budget; then it works again."""
    sink = Sink()
    given = processor("hangs", sink, time_budget=Duration(0.05))
    sent = [logs({"body": str(n)}) for n in range(10)]
    before = threading.active_count()
    results = await asyncio.gather(*map(given, sent), return_exceptions=True)
    assert [type(result) for result in results] == [Retryable] * 10
    assert len(caplog.records) == 1
    assert threading.active_count() < before + 10
    RELEASE.set()
    async with asyncio.timeout(30):
        while not sink.batches:
            try:
                await given(logs({"body": "again"}))
            except Retryable:
                await asyncio.sleep(0.01)
    assert [names_of(found) for found in sink.batches] == [["again"]]


async def test_large_and_odd_batches():
    """Thousands of items and texts of any kind are a batch like any other."""
    sink = Sink()
    odd = batch(Signal.LOGS, [({}, "s", [{"body": "\U0001f600\x00" * 1000}] * 3000), ({}, "t", [])])
    await processor("drop_noise", sink)(odd)
    assert names_of(sink.batches[0]) == ["\U0001f600\x00" * 1000] * 3000


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("nothing", '"nothing" is no import string; write it as package.module:function'),
        ("no.such.module:f", 'cannot import "no.such.module:f": ModuleNotFoundError'),
        (f"{__name__}:absent", "AttributeError"),
        (f"{__name__}:NOT_CALLABLE", "is a int, which cannot be called"),
    ],
)
async def test_wrong_functions_are_found_at_start(tmp_path, function, text):
    """A function that cannot be imported or called is a configuration error."""
    with pytest.raises(InvalidConfig) as caught:
        service(tmp_path, {"python": {"function": function}})
    (problem,) = caught.value.problems
    assert problem.startswith("processors::python: function: ")
    assert text in problem


@pytest.mark.parametrize("error", [Retryable("later", 7.0), Permanent("never")])
async def test_errors_of_what_follows_pass_through(error):
    """The sender gets the exporter's own answer, and no error_mode applies to it."""
    sink = Sink()
    sink.errors = [error]
    with pytest.raises(type(error)) as caught:
        await processor("enrich", sink, error_mode="drop")(logs({"body": "a"}))
    assert caught.value is error
