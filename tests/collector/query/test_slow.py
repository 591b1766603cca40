"""`slow`: the longest first, whole traces, pages."""

import logging

import pytest

from collector.model import Host, Signal
from collector.query.parameters import BadParameter
from collector.query.slow import question, slow
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.contracts.reading import SLOW, SLOWEST
from tests.contracts.stores import T0, exactly, span

pytestmark = pytest.mark.anyio

NOW = T0 + 60 * 10**9


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        await opened.write(Signal.TRACES, SLOW)
        yield opened


async def ask(store, *pairs):
    return await slow(store, question(pairs, now_unix_nano=NOW))


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([], lambda span: True),
        ([("min_duration", "1s")], lambda span: span["duration_ms"] >= 1000),
        ([("min_duration", "1m5s")], lambda span: span["duration_ms"] >= 65_000),
        ([("min_duration", "1ms")], lambda span: span["duration_ms"] >= 1),
        ([("service", "db")], lambda span: span["service"] == "db"),
        ([("name", "GET /")], lambda span: True),
        ([("name", "$ne")], lambda span: False),
        ([("traces", "true")], lambda span: "parent_span_id" not in span),
        ([("since", "1s")], lambda span: False),
        ([("until", "1h"), ("since", "2h")], lambda span: False),
    ],
)
async def test_each_condition(store, pairs, wanted):
    """Every condition narrows the list down, and the order stays."""
    assert exactly((await ask(store, *pairs)).spans) == exactly(filter(wanted, SLOWEST))


async def test_pages_are_pages_of_one_list(store):
    """Page behind page gives each span once, also while longer ones come in."""
    found, cursor = [], []
    while True:
        page = await ask(store, ("limit", "2"), *cursor)
        found += page.spans
        if page.next is None:
            break
        cursor = [("cursor", page.next)]
        when = NOW + 10**9
        new = span(1000 + len(found), start_unix_nano=when, duration_ms=1e9)
        await store.write(Signal.TRACES, [new])
    assert exactly(found) == exactly(SLOWEST)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("min_duration", "fast"),
        ("min_duration", "-1s"),
        ("min_duration", "1e9s"),
        ("traces", "yes"),
        ("limit", "x"),
        ("cursor", "1_2_3_4"),
        ("cursor", f"1_2_1e999_{'a' * 24}"),
        ("cursor", f"1_2_nan_{'a' * 24}"),
        ("level", "error"),
    ],
)
def test_a_wrong_parameter_is_named(name, text):
    """Unknown, forged and impossible parameters are refused with their name (B55)."""
    with pytest.raises(BadParameter) as caught:
        question([(name, text)], now_unix_nano=NOW)
    assert caught.value.parameter == name
