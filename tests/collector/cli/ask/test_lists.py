"""`collector traces`, `services`, `operations` and `metrics`: whole outputs, the same from every source."""

import asyncio
import contextlib
import json
import logging

import pytest

from collector import cli
from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.collector.query.test_lists import LOGS, ONE, POINTS, SPANS, THREE, TWO

RANGE = ["--since", "2027-01-15T07:00", "--until", "2027-01-15T08:01:40"]

OUTPUTS = {
    "traces": f"""\
2027-01-15 08:00:00.000     30.09 s  shop  POST /orders  3 spans  1 failed  trace {ONE}
2027-01-15 08:00:20.000      2.00 s  shop  GET / (root not stored)  1 span  trace {THREE}
2027-01-15 08:00:10.000     40.0 ms  shop  GET /  1 span  trace {TWO}
""",
    "services": """\
cron  0 spans  0 requests  1 log record  1 error record  first 2027-01-15 08:00:40.000  last 2027-01-15 08:00:40.000
mail  1 span  1 request  1 log record  1 failed span  first 2027-01-15 07:59:20.000  last 2027-01-15 08:00:30.000
shop  4 spans  3 requests  0 log records  first 2027-01-15 08:00:00.000  last 2027-01-15 08:00:20.000
""",
    "operations": """\
       2  0.000541/s  shop  GET /  SERVER  p50 40.0 ms  p95 2.00 s  p99 2.00 s  max 2.00 s
       1  0.00027/s  mail  run/mail  CONSUMER  1 failed  p50 90.0 ms  p95 90.0 ms  p99 90.0 ms  max 90.0 ms
       1  0.00027/s  shop  POST /orders  SERVER  p50 500.0 ms  p95 500.0 ms  p99 500.0 ms  max 500.0 ms
""",
    "metrics": """\
a  sum s  mail, shop  2 points  last 2027-01-15 08:00:02.000
b  sum s  shop  1 point  last 2027-01-15 08:00:00.000
""",
}
SERIES = """\
a service=mail
  2027-01-15 08:00:00.000  2
a service=shop
  2027-01-15 08:00:00.000  1
"""
each_verb = pytest.mark.parametrize("verb", OUTPUTS)


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"), **more)


@contextlib.asynccontextmanager
async def filled():
    async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as store:
        await store.write(Signal.TRACES, SPANS)
        await store.write(Signal.LOGS, LOGS)
        await store.write(Signal.METRICS, POINTS)
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
    """Rows in their order, one a line, with what leads on (D4)."""
    assert cli.main([verb, *RANGE, *store]) == 0
    assert capsys.readouterr() == (OUTPUTS[verb], "")


def test_the_values_of_a_metric(store, capsys):
    """`metrics NAME` prints each series with its steps; stderr says what the values are."""
    assert cli.main(["metrics", "a", *RANGE, "--step", "1m", *store]) == 0
    assert capsys.readouterr() == (SERIES, "last every 60 s (s).\n")
    assert cli.main(["metrics", "nothing", *RANGE, *store]) == 0
    assert capsys.readouterr() == ("", "No values in SQLite file t.db.\n")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["traces", "--errors"], [0]),
        (["traces", "--slowest"], [1, 0, 2]),
        (["traces", "--operation", "GET /"], [1, 2]),
        (["traces", "--min-duration", "1s"], [1]),
        (["traces", "--service", "mail"], [0]),
        (["services", "--limit", "9"], [0, 1, 2]),
        (["operations", "--service", "mail"], [1]),
        (["operations", "--order", "errors"], [1, 0, 2]),
        (["metrics", "--service", "mail"], []),
    ],
    ids=lambda given: " ".join(map(str, given)) if isinstance(given, list) else "",
)
def test_options_narrow_it_down(store, capsys, arguments, lines):
    """Each option does what its help says."""
    assert cli.main([*arguments, *RANGE, *store]) == 0
    whole = OUTPUTS[arguments[0]].splitlines(keepends=True)
    wanted = "".join(whole[line] for line in lines)
    if arguments[0] == "metrics":
        wanted = whole[0].replace("mail, shop  2 points", "mail  1 point")
    assert capsys.readouterr() == (wanted, "")


@pytest.mark.parametrize("verb", ["traces", "operations", "metrics"])
def test_pages_by_cursor(store, capsys, verb):
    """--limit ends a page and stderr says how to go on; the pages together are the whole list."""
    assert cli.main([verb, "--json", *RANGE, *store]) == 0
    whole, _ = capsys.readouterr()
    pages, cursor = "", []
    while cursor != ["--cursor", ""]:
        assert cli.main([verb, "--json", "--limit", "1", *RANGE, *cursor, *store]) == 0
        out, err = capsys.readouterr()
        pages += out
        cursor = ["--cursor", err.strip().rpartition(" ")[2]]
    assert pages == whole
    assert [*map(json.loads, whole.splitlines())]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["traces", "--since", "yesterday"], "Invalid value for --since: write an age"),
        (["traces", "--cursor", "x"], "Invalid value for --cursor: not a cursor"),
        (["traces", "--limit", "-1"], "Invalid value for '--limit'"),
        (["services", "--cursor", "x"], "No such option '--cursor'"),
        (["operations", "--order", "best"], "Invalid value for '--order'"),
        (["metrics", "--step", "1m"], "--group-by, --step and --where need the NAME of a metric"),
        (["metrics", "a", "--step", "soon"], "Invalid value for --step: write a duration"),
        (["metrics", "a", "--cursor", "x"], "--cursor goes without a NAME"),
    ],
    ids=lambda given: " ".join(map(str, given)) if isinstance(given, list) else "",
)
def test_wrong_usage_names_the_option(store, capsys, arguments, error):
    """A bad value is exit 2 before anything is asked, with the option and the fix."""
    assert cli.main([*arguments, *store]) == 2
    out, err = capsys.readouterr()
    assert (out, error in err) == ("", True), err


@pytest.mark.anyio
async def test_a_running_collector_and_its_store_print_the_same(store, capsys):
    """Over HTTP and from the file: equal stdout, stderr and exit code."""
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(filled())
        config = QueryServer.Config(endpoint="localhost:0")
        server = await stack.enter_async_context(
            QueryServer(config, host("query", stores={"sqlite": opened}))
        )
        for words in (*([verb] for verb in OUTPUTS), ["metrics", "a"]):
            for more in ([], ["--json", "--limit", "2"], ["--verbose"]):

                async def run(*where, words=words, more=more):
                    code = await asyncio.to_thread(cli.main, [*words, *RANGE, *more, *where])
                    return code, *capsys.readouterr()

                from_collector = await run("--endpoint", server.endpoints["http"])
                assert from_collector == await run(*store)
                assert (from_collector[0], bool(from_collector[1])) == (0, True)


@each_verb
def test_help_shows_examples(capsys, verb):
    """--help has examples."""
    assert cli.main([verb, "--help"]) == 0
    assert f"  collector {verb}" in capsys.readouterr().out
