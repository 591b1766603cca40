"""How SQLite reads lists: along an index, and never the whole table."""

import contextlib

from collector.model import Signal
from collector.stores.base import Query
from collector.stores.sqlite import lists
from collector.stores.sqlite.schema import connect

AFTER = "a" * 24


class Spy:
    """A connection that remembers what it is asked."""

    def __init__(self, connection):
        self._connection = connection
        self.asked = []

    def execute(self, sql, parameters=()):
        self.asked.append((sql, parameters))
        return self._connection.execute(sql, parameters)


def test_every_list_reads_along_an_index(tmp_path):
    """Pages of traces and counts have a plan with an index of the time, a failure or a trace."""
    range_ = {"since_unix_nano": 1, "until_unix_nano": 2**62}
    with contextlib.closing(connect(tmp_path / "t.db", str)) as connection:
        spy = Spy(connection)
        for asked in ({}, {"service": "web"}, {"status": "ERROR"}, {"name": "GET /"}):
            query = Query(signal=Signal.TRACES, **asked, **range_)
            for longest, place in ((False, 5), (True, 1.5)):
                lists.traces(spy, query, longest=longest, after=(place, AFTER), most=10)
                walk = lists.Walk(spy, query, longest=longest, after=(place, AFTER))
                walk.before("a" * 32)
                walk.spans(["a" * 32], 5)
            lists.services(spy, query, 10)
            lists.operations(spy, query, 10, ("SERVER",))
        lists.services(spy, Query(signal=Signal.LOGS, **range_), 10)
        lists.metric_names(spy, Query(signal=Signal.METRICS, **range_), 10)
        assert len({sql for sql, _ in spy.asked}) > 15
        for sql, parameters in spy.asked:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            (step,) = [
                each for each in plan if each.startswith(("SEARCH", "SCAN spans", "SCAN log"))
            ]
            assert "USING INDEX" in step or "USING COVERING INDEX" in step, (sql, plan)
            if "trace_id IN" in sql:
                assert "spans_trace_id" in step, (sql, plan)
