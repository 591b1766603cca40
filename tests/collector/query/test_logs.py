"""Pages of log records, over the embedded store."""

import logging

import msgspec
import pytest

from collector.model import Host, Signal
from collector.query.logs import Page, logs
from collector.stats import Stats
from collector.stores.base import Query, dumps
from collector.stores.sqlite.store import SQLite
from tests.traces import LOGS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        await opened.write(Signal.LOGS, LOGS)
        yield opened


async def test_pages_of_logs_join_without_gap_or_repeat(store):
    """Following `next` visits every record once, in both directions; the last page has none."""
    for newest_first in (False, True):
        query = Query(signal=Signal.LOGS, limit=4, newest_first=newest_first)
        first = await logs(store, query)
        time, _, key = first.next.partition(".")
        second = await logs(store, msgspec.structs.replace(query, after=(int(time), key)))
        messages = [each["message"] for page in (first, second) for each in page.logs]
        expected = [each["message"] for each in LOGS]
        assert messages == (expected[::-1] if newest_first else expected)
        assert second.next is None
    exact = await logs(store, Query(signal=Signal.LOGS, limit=6))
    assert (len(exact.logs), exact.next) == (6, None)
    assert msgspec.json.decode(dumps(exact), type=Page).searched.store == store.describe()
