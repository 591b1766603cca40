"""`collector logs`: whole outputs, every filter, pages, JSON lines, and the same from every source."""

import asyncio
import contextlib
import json
import logging

import pytest

from collector import cli
from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.stats import Stats
from collector.stores.base import dumps
from collector.stores.sqlite.store import SQLite
from tests.traces import FIRST, LOGS, SPANS, log

RECEIVED = "2025-10-03 10:30:15.124 - INFO - shop-api - order received [lots=0.5, correlation_id=corr-1, request_id=req-1, trace_id=0af7651916cd43dd8448eb211c80319c]\n"
FAILED = '2025-10-03 10:30:15.313 - ERROR - worker-open - order failed because there was not enough margin in the account [account="a b", retry=false, correlation_id=corr-1, task_id=task-1, order_id=order-42, trace_id=0af7651916cd43dd8448eb211c80319c] ValueError: no margin\n'
STACK = "    Traceback:\n      in margin\n    ValueError: no margin\n"
CHILD = "2025-10-03 10:30:15.358 - WARNING - shop-api - nobody's child [trace_id=0af7651916cd43dd8448eb211c80319c]\n"
OPENED = "2025-10-03 10:30:21.523 - INFO - worker-open - order opened [execution_time_ms=1400.5, status=success, correlation_id=corr-1, task_id=task-2, order_id=order-42, trace_id=1bf7651916cd43dd8448eb211c80319d]\n"
NIGHTLY = "2025-10-03 10:30:22.123 - DEBUG - batch - nightly report [correlation_id=corr-1]\n"
DOWN = "2025-10-03 10:30:23.123 - CRITICAL - batch - Database unreachable\n"
ALL = RECEIVED + FAILED + CHILD + OPENED + NIGHTLY + DOWN


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"), **more)


@contextlib.asynccontextmanager
async def filled(logs=LOGS):
    async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as store:
        await store.write(Signal.TRACES, SPANS)
        await store.write(Signal.LOGS, logs)
        yield store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The options that read a store file with the documents of tests/traces.py."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLLECTOR_QUERY_ENDPOINT", "COLLECTOR_STORE", "COLLECTOR_QUERY_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    async def fill():
        async with filled():
            pass

    asyncio.run(fill())
    return ["--store", "sqlite:///t.db"]


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ([], ALL),
        (["--newest-first"], DOWN + NIGHTLY + OPENED + CHILD + FAILED + RECEIVED),
        (["--oldest-first"], ALL),
        (["--correlation-id", "corr-1"], RECEIVED + FAILED + OPENED + NIGHTLY),
        (["--request-id", "req-1"], RECEIVED),
        (["--task-id", "task-2"], OPENED),
        (["--order-id", "order-42", "--level", "ERROR"], FAILED),
        (["--trace-id", f"00-{FIRST.upper()}-{'a' * 16}-01"], RECEIVED + FAILED + CHILD),
        (["--level", "warning"], FAILED + CHILD + DOWN),
        (["--service", "batch"], NIGHTLY + DOWN),
        (["--text", "ORDER"], RECEIVED + FAILED + OPENED),
        (["--where", "retry=false", "--where", "account=a b"], FAILED),
        (["--where", "context.task_id=task-1"], FAILED),
        (["--since", "2025-10-03T10:30:21"], OPENED + NIGHTLY + DOWN),
        (["--until", "2025-10-03T12:30:15.2+02:00"], RECEIVED),
        (["--level", "error", "--verbose"], FAILED + STACK + DOWN),
    ],
)
def test_filters_and_order(store, capsys, arguments, out):
    """Each filter, alone and together; without an order the newest are printed in order of time (R6)."""
    assert cli.main(["logs", *arguments, *store]) == 0
    assert capsys.readouterr() == (out, "")


def test_the_limit_keeps_the_newest_or_the_oldest(store, capsys):
    """--limit counts from the end, or from the beginning with --oldest-first; stderr tells of more."""
    more = "There are more than these 2; raise --limit or narrow.\n"
    for order, out in (
        ([], NIGHTLY + DOWN),
        (["--newest-first"], DOWN + NIGHTLY),
        (["--oldest-first"], RECEIVED + FAILED),
    ):
        assert cli.main(["logs", "--limit", "2", *order, *store]) == 0
        assert capsys.readouterr() == (out, more)


def test_json_is_one_document_per_line(store, capsys):
    """--json prints each stored document as it is, in the order asked for."""
    assert cli.main(["logs", "--json", "--oldest-first", *store]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == ([dumps(document).decode() for document in LOGS], "")


@pytest.mark.parametrize(
    "where", ['lots={"$ne":1}', "$where=1", "lots[$ne]=1", "' OR 1=1 --=x", "__proto__=x"]
)
def test_values_and_keys_are_text(store, capsys, where):
    """Operators, SQL and prototype names match nothing, say where it looked, and exit 0 (B47, B48, B50)."""
    assert cli.main(["logs", "--where", where, *store]) == 0
    assert capsys.readouterr() == ("", "No log record matches in SQLite file t.db.\n")


def test_odd_keys_are_found_by_their_exact_name(tmp_path, monkeypatch, capsys):
    """Attributes named like operators or paths are found by exactly that name (B36)."""
    monkeypatch.chdir(tmp_path)
    records = [
        log(number, number, "INFO", key, attributes={key: "1"})
        for number, key in enumerate(("$where", "a.b", "__proto__", "_id", "a'b\"c"))
    ]

    async def fill():
        async with filled(records):
            pass

    asyncio.run(fill())
    for record in records:
        arguments = ["--where", f"{record['message']}=1", "--json", "--store", "sqlite:///t.db"]
        assert cli.main(["logs", *arguments]) == 0
        assert capsys.readouterr() == (dumps(record).decode() + "\n", "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--since", "yesterday"],
            "Invalid value for --since: write an age such as 15m, 1h, 7d, or a time",
        ),
        (
            ["--since", "1h", "--until", "2h"],
            "Invalid value for --since: not before until; swap them",
        ),
        (["--trace-id", "zz"], "Invalid value for --trace-id: write 32 hex digits, a UUID or"),
        (["--where", "x"], "Invalid value for --where: write key=value"),
        (["--service", ""], "Invalid value for --service: empty; leave it out or give a value"),
        (["--level", "loud"], "Invalid value for '--level'"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--servce", "x"], "No such option '--servce'"),
    ],
)
def test_wrong_usage_names_the_option(store, capsys, arguments, error):
    """A bad value is exit 2 before anything is asked, with the option and the fix."""
    assert cli.main(["logs", *arguments, *store]) == 2
    out, err = capsys.readouterr()
    assert (out, error in err) == ("", True), err


@pytest.mark.anyio
@pytest.mark.parametrize(
    "arguments",
    [[], ["--json"], ["--verbose", "--newest-first"], ["--level", "critical", "--text", "x"]],
)
async def test_every_source_prints_the_same(store, capsys, arguments):
    """A running collector and the store itself: equal stdout, stderr and exit code."""

    async def run(*source):
        code = await asyncio.to_thread(cli.main, ["logs", *arguments, *source])
        return code, *capsys.readouterr()

    config = QueryServer.Config(endpoint="localhost:0")
    async with (
        filled() as opened,
        QueryServer(config, host("query", stores={"sqlite": opened})) as server,
    ):
        from_collector = await run("--endpoint", server.endpoints["http"])
        beside_it = await run(*store)
    stopped = await run(*store)
    assert from_collector[0] == 0
    assert from_collector == beside_it == stopped


@pytest.mark.anyio
async def test_more_than_one_page(tmp_path, monkeypatch, capsys):
    """A limit above the page size follows the cursor: every record once, in order, from both sources."""
    monkeypatch.chdir(tmp_path)
    records = [log(number, number // 3, "INFO", str(number)) for number in range(2500)]
    config = QueryServer.Config(endpoint="localhost:0")
    async with (
        filled(records) as opened,
        QueryServer(config, host("query", stores={"sqlite": opened})) as server,
    ):
        for source in (["--endpoint", server.endpoints["http"]], ["--store", "sqlite:///t.db"]):
            arguments = ["logs", "--json", "--limit", "2400", *source]
            assert await asyncio.to_thread(cli.main, arguments) == 0
            out, err = capsys.readouterr()
            assert [json.loads(line)["message"] for line in out.splitlines()] == [
                str(number) for number in range(100, 2500)
            ]
            assert err == "There are more than these 2400; raise --limit or narrow.\n"


def test_help_shows_examples(capsys):
    """--help has examples."""
    assert cli.main(["logs", "--help"]) == 0
    assert "collector logs --since 1h --level error" in capsys.readouterr().out
