"""`errors`: fingerprints, groups, order and pages."""

import logging

import pytest

from collector.model import Host, Signal
from collector.query.failures import Group, errors, fingerprint, joined, question
from collector.query.parameters import BadParameter
from collector.stats import Stats
from collector.stores.base import Failure
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import T0, log, span

pytestmark = pytest.mark.anyio

NOW = T0 + 60 * 10**9


def failed(number, kind, message, **fields):
    return log(
        number,
        level="ERROR",
        severity_number=17,
        message="failed",
        exception={"type": kind, "message": message},
        **fields,
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 4711 failed", "order 12 failed"),
        ("took 1.5 s, 3 tries", "took 20.25 s, 1 tries"),
        (
            "no user 5b1c2f3a-0000-4000-8000-0123456789ab",
            "no user 99999999-aaaa-4bbb-8ccc-dddddddddddd",
        ),
        ("object at 0x7f8a9b00", "object at 0x55ffee11"),
        ("no 'alice' here", "no 'bob' here"),
        ('key "a b"  missing', 'key "c" missing'),
        ("trace 0af7651916cd43dd8448eb211c80319c", "trace 1bf7651916cd43dd8448eb211c80319d"),
        ("at 2026-11-22T10:00:00.123", "at 2025-01-02T03:04:05"),
        ("connect 10.0.0.1:27017 refused", "connect 10.0.0.22:27018 refused"),
        ("line\none", "line one"),
    ],
)
def test_messages_that_mean_the_same_have_one_fingerprint(one, other):
    """Numbers, ids, addresses, times and quoted texts do not tell failures apart."""
    assert fingerprint("E", one) == fingerprint("E", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("E", "disk full"), ("E", "disk slow")),
        (("ValueError", "x"), ("KeyError", "x")),
        (("E", "no access"), ("E", "no")),
        (("", "a"), ("a", "")),
        (("E", "face"), ("E", "cafe")),
        (("E", "don't stop 'x"), ("E", "don't go 'x")),
    ],
)
def test_other_messages_have_another_fingerprint(one, other):
    """Types and words tell failures apart."""
    assert fingerprint(*one) != fingerprint(*other)


def test_a_fingerprint_takes_any_text():
    """A lone surrogate, a NUL and a long run of digits or quotes have a fingerprint at once (B52)."""
    for text in ("\ud800", "\0", "'" * 400, "1:" * 200, "a" * 400, "0" * 400, "f0" * 200):
        assert len(fingerprint("E", text)) == 16


def test_failures_of_one_meaning_are_joined():
    """Counts add up, times span all of them, services and the trace begin with the latest."""
    common = {"type": "E", "first_unix_nano": 5}
    found = [
        Failure(message="order 1", service="a", count=2, last_unix_nano=10, **common),
        Failure(message="order 2", service="b", count=3, last_unix_nano=30, **common),
        Failure(
            type="E", message="order 3", service="a", count=1,
            first_unix_nano=1, last_unix_nano=20, trace_id="t",
        ),
    ]  # fmt: skip
    assert joined(found) == [
        Group(
            id=fingerprint("E", "order 1"),
            type="E",
            message="order 2",
            count=6,
            first_unix_nano=1,
            last_unix_nano=30,
            services=["b", "a"],
            trace_id="t",
        )
    ]


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        await opened.write(
            Signal.LOGS,
            [
                *(failed(number, "ValueError", f"order {number}") for number in range(30)),
                *(failed(100 + number, "KeyError", "x", service="db") for number in range(3)),
                *(failed(200 + number, f"Error{number}", "rare") for number in range(10)),
                failed(300, "ValueError", "order 300", service="db"),
                log(301),
            ],
        )
        await opened.write(
            Signal.TRACES, [span(1, status="ERROR", attributes={"error.type": "Timeout"})]
        )
        yield opened


async def ask(store, **given):
    pairs = [("since", "1h"), *given.items()]
    return await errors(store, question(pairs, now_unix_nano=NOW))


async def test_groups_by_how_often_and_by_how_recent(store):
    """The most frequent come first, or the latest; services and spans narrow it down."""
    page = await ask(store)
    assert [(each.type, each.count, each.services) for each in page.errors[:2]] == [
        ("ValueError", 31, ["db", "web"]),
        ("KeyError", 3, ["db"]),
    ]
    assert (len(page.errors), page.next, page.cut) == (12, None, [])
    assert (page.errors[0].first_unix_nano, page.errors[0].last_unix_nano) == (T0, T0 + 300)
    recent = await ask(store, order="recent", limit="2")
    assert [each.type for each in recent.errors] == ["ValueError", "Error9"]
    assert [each.type for each in (await ask(store, service="db")).errors] == [
        "KeyError",
        "ValueError",
    ]
    assert [each.type for each in (await ask(store, kind="spans")).errors] == ["Timeout"]
    assert (await ask(store, service='{"$ne":1}')).errors == []


@pytest.mark.parametrize("order", ["frequent", "recent"])
async def test_pages_are_pages_of_one_list(store, order):
    """Page behind page gives each group once, also while new failures come in."""
    whole = (await ask(store, order=order)).errors
    found, cursor = [], None
    while True:
        given = {"order": order, "limit": "5", **({"cursor": cursor} if cursor else {})}
        page = await errors(store, question([*given.items()], now_unix_nano=NOW + len(found)))
        found += page.errors
        if page.next is None:
            break
        cursor = page.next
        new = failed(1000 + len(found), "ValueError", "new", time_unix_nano=NOW + 10**9)
        await store.write(Signal.LOGS, [new])
    assert found == whole


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kind", "traces"),
        ("order", "newest"),
        ("limit", "0"),
        ("limit", "100000"),
        ("cursor", "1.2.3"),
        ("cursor", "1.2.3.$ne"),
        ("since", "NaN"),
        ("level", "error"),
        ("text", "x"),
        ("service", ""),
    ],
)
def test_a_wrong_parameter_is_named(name, text):
    """Unknown, empty, forged and impossible parameters are refused with their name (B55)."""
    with pytest.raises(BadParameter) as caught:
        question([(name, text)], now_unix_nano=NOW)
    assert caught.value.parameter == name
