"""`collector errors`, `slow` and `tasks`: whole outputs, pages, JSON lines, the same from every source."""

import asyncio
import contextlib
import json
import logging
import time

import pytest

from collector import cli
from collector.documents.build import moment
from collector.model import Host, Secret, Signal
from collector.query.app import QueryServer
from collector.stats import Stats
from collector.stores.mongodb.store import MongoDB
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import log, span
from tests.tasks import story

MINUTE = 60 * 10**9
T0 = 1759487415123000000  # 2025-10-03 10:30:15.123 UTC
RANGE = ["--since", "2025-10-03T10:00", "--until", "2025-10-03T12:00"]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def at(minutes):
    return T0 + minutes * MINUTE


def failed(number, kind, message, service="shop-api", **fields):
    when = at(number)
    return log(
        number,
        time_unix_nano=when,
        timestamp=moment(when),
        level="ERROR",
        severity_number=17,
        message="failed",
        exception={"type": kind, "message": message},
        service=service,
        **fields,
    )


def slow(number, duration_ms, name, **fields):
    when = at(number)
    fields.setdefault("trace_id", f"{number:032x}")
    return span(
        number,
        start_unix_nano=when,
        start=moment(when),
        duration_ms=duration_ms,
        name=name,
        **fields,
    )


LOGS = [
    failed(1, "ValueError", "order 1 has no margin"),
    failed(2, "ValueError", "order 2 has no margin", trace={"trace_id": TRACE}),
    failed(3, "ValueError", "order 3 has no margin", service="worker\x1b[31m"),
    failed(4, "KeyError", "'alice'"),
    *story("t-1", at(1), "started", "retried", "started", "succeeded"),
    *story("t-2", at(2), "started"),
    *story("t-3", at(3), "started", "lost"),
]
SPANS = [
    slow(1, 1400.5, "POST /orders", service="shop-api", context={"correlation_id": "c-1"}),
    slow(
        2, 90_000.0, "run/open", service="worker", status="ERROR", parent_span_id="a" * 16,
        attributes={"error.type": "ValueError"},
    ),
    slow(3, 2.25, "GET /health", service="shop-api"),
]  # fmt: skip

ERRORS = f"""\
       3  ValueError: order 3 has no margin
          worker\\x1b[31m, shop-api  first 2025-10-03 10:31:15.123  last 2025-10-03 10:33:15.123  trace {TRACE}
       1  KeyError: 'alice'
          shop-api  first 2025-10-03 10:34:15.123  last 2025-10-03 10:34:15.123
       1  Task lost
          worker  first 2025-10-03 10:33:16.123  last 2025-10-03 10:33:16.123  trace {LOGS[-1]["trace"]["trace_id"]}
"""
SLOW = """\
    1m30s  worker  run/open  2025-10-03 10:32:15.123  trace 00000000000000000000000000000002  ERROR
    1.40 s  shop-api  POST /orders  2025-10-03 10:31:15.123  trace 00000000000000000000000000000001
   2.25 ms  shop-api  GET /health  2025-10-03 10:33:15.123  trace 00000000000000000000000000000003
""".replace("    1m30s", "     1m30s", 1)
TASKS = """\
2025-10-03 10:33:16.123  LOST      shop.open_order  t-3  retries 0  took 1.50 s  waited 12.5 ms  queue celery  worker celery@host
2025-10-03 10:32:15.123  LOST      shop.open_order  t-2  retries 0  waited 12.5 ms  queue celery  worker celery@host
2025-10-03 10:31:18.123  SUCCESS   shop.open_order  t-1  retries 1  took 1.50 s  waited 12.5 ms  queue celery  worker celery@host
"""
OUTPUTS = {"errors": ERRORS, "slow": SLOW, "tasks": TASKS}
ROWS = {"errors": 3, "slow": 3, "tasks": 3}
each_verb = pytest.mark.parametrize("verb", OUTPUTS)


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"), **more)


@contextlib.asynccontextmanager
async def filled():
    async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as store:
        await store.write(Signal.TRACES, SPANS)
        await store.write(Signal.LOGS, LOGS)
        yield store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The options that read a store file with the documents above."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLLECTOR_QUERY_ENDPOINT", "COLLECTOR_STORE", "COLLECTOR_QUERY_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    async def fill():
        async with filled():
            pass

    asyncio.run(fill())
    return ["--store", "sqlite:///t.db"]


@each_verb
def test_the_whole_output(store, capsys, verb):
    """Groups, spans and tasks in their order, with everything that leads on; escapes are shown (D4, C1)."""
    assert cli.main([verb, *RANGE, *store]) == 0
    assert capsys.readouterr() == (OUTPUTS[verb], "")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["errors", "--order", "recent"], [2, 3, 4, 5, 0, 1]),
        (["errors", "--service", "worker"], [4, 5]),
        (["slow", "--min-duration", "1s"], [0, 1]),
        (["slow", "--traces"], [1, 2]),
        (["slow", "--name", "GET /health"], [2]),
        (["slow", "--service", "shop-api"], [1, 2]),
        (["tasks", "--lost"], [0, 1]),
        (["tasks", "--lost", "--lost-after", "999w"], [0]),
        (["tasks", "--state", "success"], [2]),
        (["tasks", "--task-id", "t-2"], [1]),
        (["tasks", "--task", "shop.open_order", "--limit", "9"], [0, 1, 2]),
        (["tasks", "--service", "worker"], [0, 1, 2]),
    ],
    ids=lambda given: " ".join(map(str, given)) if isinstance(given, list) else "",
)
def test_options_narrow_it_down(store, capsys, arguments, lines):
    """Each option does what its help says."""
    assert cli.main([*arguments, *RANGE, *store]) == 0
    whole = OUTPUTS[arguments[0]].splitlines(keepends=True)
    assert capsys.readouterr() == ("".join(whole[line] for line in lines), "")


def test_failed_spans_are_groups_too(store, capsys):
    """`errors --kind spans` counts spans with status ERROR by error.type."""
    assert cli.main(["errors", "--kind", "spans", "--json", *RANGE, *store]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["type"], found["message"], found["count"]) == ("ValueError", "run/open", 1)


@each_verb
def test_pages_by_cursor(store, capsys, verb):
    """--limit ends a page and stderr says how to go on; the pages together are the whole list."""
    assert cli.main([verb, "--json", *RANGE, *store]) == 0
    whole, _ = capsys.readouterr()
    pages, cursor = "", []
    for _ in range(ROWS[verb]):
        assert cli.main([verb, "--json", "--limit", "1", *RANGE, *cursor, *store]) == 0
        out, err = capsys.readouterr()
        pages += out
        beginning, _, text = err.strip().rpartition(" ")
        assert beginning in ("", "There are more; go on with --cursor")
        cursor = ["--cursor", text]
    assert (pages, cursor) == (whole, ["--cursor", ""])
    assert len(whole.splitlines()) == ROWS[verb]


@each_verb
def test_nothing_is_an_answer(store, capsys, verb):
    """Nothing in the range: exit 0, and stderr says where it looked."""
    said = {
        "errors": "Nothing failed in SQLite file t.db.\n",
        "slow": "No span matches in SQLite file t.db.\n",
        "tasks": "No task matches in SQLite file t.db.\n",
    }
    assert cli.main([verb, "--since", "1m", *store]) == 0
    assert capsys.readouterr() == ("", said[verb])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["errors", "--since", "yesterday"], "Invalid value for --since: write an age"),
        (["errors", "--cursor", "x"], "Invalid value for --cursor: not a cursor"),
        (["errors", "--kind", "metrics"], "Invalid value for '--kind'"),
        (["slow", "--min-duration", "fast"], "Invalid value for --min-duration: write a duration"),
        (["slow", "--limit", "0"], "Invalid value for '--limit'"),
        (["tasks", "--state", "gone"], "Invalid value for '--state'"),
        (["tasks", "--lost", "--state", "success"], "Invalid value for --lost: leave state out"),
        (["tasks", "--lost-after", "soon"], "Invalid value for --lost-after: write a duration"),
        (["tasks", "--level", "error"], "No such option '--level'"),
    ],
    ids=lambda given: " ".join(map(str, given)) if isinstance(given, list) else "",
)
def test_wrong_usage_names_the_option(store, capsys, arguments, error):
    """A bad value is exit 2 before anything is asked, with the option and the fix."""
    assert cli.main([*arguments, *store]) == 2
    out, err = capsys.readouterr()
    assert (out, error in err) == ("", True), err


@each_verb
def test_a_store_that_is_not_there_is_exit_1(store, capsys, verb):
    """A store that cannot be opened is exit 1 with what to do."""
    assert cli.main([verb, "--store", "sqlite:///nothing.db"]) == 1
    assert "there is no file nothing.db" in capsys.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
async def test_every_source_prints_the_same(store, capsys, request, kind):
    """A running collector and its store, on SQLite and MongoDB: equal stdout, stderr and exit code."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "sqlite":
            opened = await stack.enter_async_context(filled())
            source = store
        else:
            uri = request.getfixturevalue("mongodb_uri")
            name = request.getfixturevalue("mongodb_database")
            config = MongoDB.Config(uri=Secret(uri), database=name)
            opened = await stack.enter_async_context(MongoDB(config, host("mongodb")))
            await opened.write(Signal.TRACES, SPANS)
            await opened.write(Signal.LOGS, LOGS)
            head, _, options = uri.partition("/?")
            source = ["--store", f"{head.rstrip('/')}/{name}?{options}"]
        config = QueryServer.Config(endpoint="localhost:0")
        server = await stack.enter_async_context(
            QueryServer(config, host("query", stores={kind: opened}))
        )
        for verb, output in OUTPUTS.items():
            for more in ([], ["--json", "--limit", "2"], ["--verbose"]):

                async def run(*where, verb=verb, more=more):
                    code = await asyncio.to_thread(cli.main, [verb, *RANGE, *more, *where])
                    return code, *capsys.readouterr()

                from_collector = await run("--endpoint", server.endpoints["http"])
                from_store = await run(*source)
                assert from_collector == from_store
                if not more:
                    assert from_collector == (0, output, "")


def test_the_default_range_ends_now(tmp_path, monkeypatch, capsys):
    """Without --since the last hour is looked at, for tasks the last day."""
    monkeypatch.chdir(tmp_path)
    now = time.time_ns()

    async def fill():
        async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as opened:
            for number, age in enumerate((30, 90, 23 * 60, 25 * 60)):
                when = now - age * MINUTE
                fields = {"time_unix_nano": when, "exception": {"type": f"E{number}"}}
                await opened.write(
                    Signal.LOGS, [log(number, level="ERROR", severity_number=17, **fields)]
                )
                start = {"start_unix_nano": when, "name": f"s{number}"}
                await opened.write(Signal.TRACES, [span(number, **start)])
                await opened.write(Signal.LOGS, story(f"t{number}", when, "started"))

    asyncio.run(fill())
    found = {}
    for verb, key in (("errors", "type"), ("slow", "name"), ("tasks", "id")):
        assert cli.main([verb, "--json", "--store", "sqlite:///t.db"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found[verb] = [row[key] for row in rows]
    assert found == {"errors": ["E0"], "slow": ["s0"], "tasks": ["t0", "t1", "t2"]}


@each_verb
def test_help_shows_examples(capsys, verb):
    """--help has examples."""
    assert cli.main([verb, "--help"]) == 0
    assert f"  collector {verb} " in capsys.readouterr().out
