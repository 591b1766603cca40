"""`collector trace`: whole outputs, from every source, and what never reaches a terminal."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import unicodedata
import urllib.parse
from pathlib import Path

import click
import pytest
from rich.cells import cell_len

from collector import cli
from collector.cli.ask.trace import read
from collector.cli.ask.waterfall import waterfall
from collector.cli.render import Style
from collector.model import Host, Secret, Signal
from collector.query.app import QueryServer
from collector.query.trace import Limits, trace
from collector.stats import Stats
from collector.stores.base import dumps
from collector.stores.mongodb.store import MongoDB
from collector.stores.sqlite.store import SQLite
from tests.traces import FIRST, LOGS, SECOND, SPANS, Remembering, log, span

CORR_1_AT_80 = """\
trace 0af7651916cd43dd8448eb211c80319c
  correlation id  corr-1
  request id      req-1
  task id         task-1
  order id        order-42
  services        shop-api, worker-open, worker-close
  start           2025-10-03 10:30:15.123 UTC
  duration        245.0 ms
  6 spans, 2 errors, 3 log records

✗ shop-api POST /orders SERVER               245.0 ms |████████████████████████|
  │  http.route=/orders http.response.status_code=500
  │     +1.00 ms INFO    order received  lots=0.5
  ├─ validate                                 18.0 ms |██                      |
  └─ send open_order PRODUCER                 15.0 ms |  █                     |
✗    └─ worker-open run/open_order CONSUMER  150.0 ms |    ███████████████     |
        │  error.type=ValueError status_message="no margin"
        │     +55.0 ms event   locked  rows=3
        │    +190.0 ms ERROR   order failed because there was not enough margin
        │              in the account  account="a b" retry=false
        │              ValueError: no margin
        │    +195.0 ms event   exception
        │              ValueError: no margin
        └─ calculate the margin and the commission of the account CLIENT
                                              60.0 ms |     ██████             |
              db.system.name=mongodb
  worker-close late (parent not stored)       20.0 ms |                    ██  |
  log records whose span is not stored
    +235.0 ms WARNING shop-api nobody's child

trace 1bf7651916cd43dd8448eb211c80319d
  correlation id  corr-1
  task id         task-2
  order id        order-42
  service         worker-open
  start           2025-10-03 10:30:20.123 UTC
  duration        1.50 s
  1 span, 0 errors, 1 log record

  worker-open run/open_order CONSUMER          1.50 s |████████████████████████|
     linked to trace 0af7651916cd43dd8448eb211c80319c
         +1.40 s INFO    order opened  execution_time_ms=1400.5 status=success

log records without a trace
2025-10-03 10:30:22.123 - DEBUG - batch - nightly report [correlation_id=corr-1]
"""


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"), **more)


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A store file with the documents of tests/traces.py, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLLECTOR_QUERY_ENDPOINT", "COLLECTOR_STORE", "COLLECTOR_QUERY_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    async def fill():
        async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as store:
            await store.write(Signal.TRACES, SPANS)
            await store.write(Signal.LOGS, LOGS)

    asyncio.run(fill())
    return "sqlite:///t.db"


@contextlib.asynccontextmanager
async def collector(**settings):
    """The query port over the store file, as a running collector has it."""
    async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as store:
        config = QueryServer.Config(endpoint="localhost:0", **settings)
        async with QueryServer(config, host("query", stores={"sqlite": store})) as server:
            yield f"http://{server.endpoints['http']}"


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def drawn(spans, logs=(), text=FIRST, **style):
    """The waterfall of documents, through the JSON of an answer."""
    body = dumps(asyncio.run(trace(Remembering(spans, logs), text)))
    return waterfall(read(body), Style(**{"width": 80, "fold": True, **style}))


def test_a_waterfall_at_80_columns(database, capsys):
    """Two traces under one correlation id, nested spans, errors, logs, an orphan: the whole output (A9)."""
    assert cli.main(["trace", "corr-1", "--store", database, "--width", "80"]) == 0
    assert capsys.readouterr() == (CORR_1_AT_80, "")
    assert max(map(cell_len, CORR_1_AT_80.splitlines())) == 80


def test_a_waterfall_in_a_pipe(database):
    """Not a terminal, an ASCII locale: 100 columns, no colour, plain characters, lines never folded."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "trace", FIRST, "--store", database, "--verbose"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", FIRST_IN_A_PIPE)


FIRST_IN_A_PIPE = """\
trace 0af7651916cd43dd8448eb211c80319c
  correlation id  corr-1
  request id      req-1
  task id         task-1
  order id        order-42
  services        shop-api, worker-open, worker-close
  start           2025-10-03 10:30:15.123 UTC
  duration        245.0 ms
  6 spans, 2 errors, 3 log records

x shop-api POST /orders SERVER                             245.0 ms |##############################|
  |  http.route=/orders http.response.status_code=500 other=x
  |     +1.00 ms INFO    order received  lots=0.5
  +- validate                                               18.0 ms |##                            |
  `- send open_order PRODUCER                               15.0 ms |   ##                         |
x    `- worker-open run/open_order CONSUMER                150.0 ms |      ##################      |
        |  error.type=ValueError status_message="no margin"
        |     +55.0 ms event   locked  rows=3
        |    +190.0 ms ERROR   order failed because there was not enough margin in the account  account="a b" retry=false
        |              ValueError: no margin
        |              Traceback:
        |                in margin
        |              ValueError: no margin
        |    +195.0 ms event   exception
        |              ValueError: no margin
        |              Traceback:
        |                in margin
        |              ValueError: no margin
        `- calculate the margin and the commission of the account CLIENT
                                                            60.0 ms |       #######                |
              db.system.name=mongodb
  worker-close late (parent not stored)                     20.0 ms |                         ##   |
  log records whose span is not stored
    +235.0 ms WARNING shop-api nobody's child
"""


CONFIG = """\
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "localhost:0"}}}}}}}}
exporters: {{sqlite: {{path: t.db}}}}
extensions: {{query: {{endpoint: "localhost:{port}"}}}}
service:
  extensions: [query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [sqlite]}}
    logs: {{receivers: [otlp], exporters: [sqlite]}}
"""


@pytest.mark.anyio
@pytest.mark.parametrize("more", [[], ["--json"], ["--verbose"], ["--width", "70"]])
async def test_every_source_prints_the_same(database, capsys, tmp_path, more):
    """A running collector, the same through its configuration, a stopped one's store: equal bytes."""

    async def run(*arguments):
        code = await asyncio.to_thread(cli.main, ["trace", "corr-1", *more, *arguments])
        return code, *capsys.readouterr()

    file = tmp_path / "c.yaml"
    async with collector() as endpoint:
        file.write_text(CONFIG.format(port=endpoint.rpartition(":")[2]))
        from_collector = await run("--endpoint", endpoint)
        through_config = await run("--config", str(file))
        beside_it = await run("--store", database)
    stopped = await run("--config", str(file))
    assert from_collector[0] == 0
    assert from_collector[2] == ""
    assert through_config == beside_it == from_collector
    note = f"No collector answers at {endpoint.replace('127.0.0.1', 'localhost')}: reading the store of {file}.\n"
    assert stopped == (0, from_collector[1], note)


@pytest.mark.anyio
async def test_mongodb_prints_the_same(database, capsys, mongodb_uri, mongodb_database):
    """The same documents in MongoDB give the same waterfall as the embedded store (D6)."""
    config = MongoDB.Config(uri=Secret(mongodb_uri), database=mongodb_database)
    async with MongoDB(config, host("mongodb")) as store:
        await store.write(Signal.TRACES, SPANS)
        await store.write(Signal.LOGS, LOGS)
    url = urllib.parse.urlsplit(mongodb_uri)._replace(path=f"/{mongodb_database}").geturl()
    arguments = ["trace", "corr-1", "--width", "80", "--store", url]
    assert await asyncio.to_thread(cli.main, arguments) == 0
    assert capsys.readouterr() == (CORR_1_AT_80, "")


def test_the_default_configuration_is_the_last_resort(database, capsys, monkeypatch):
    """Nobody listens at the default endpoint: the store of otel-collector.yaml in the folder is read."""
    monkeypatch.setattr(
        "collector.cli.ask.source.DEFAULT_ENDPOINT", f"http://localhost:{unused_port()}"
    )
    assert cli.main(["trace", "task-2"]) == 1
    assert "start one with `collector`, or name a store with --store" in capsys.readouterr().err
    Path("otel-collector.yaml").write_text(CONFIG.format(port=0))
    assert cli.main(["trace", "task-2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"trace {SECOND}\n")
    assert err.endswith(": reading the store of otel-collector.yaml.\n")


def test_an_endpoint_that_was_named_has_no_substitute(database, capsys, monkeypatch):
    """--endpoint or its variable is asked and nothing else: refused is an error with the fix."""
    endpoint = f"http://127.0.0.1:{unused_port()}"
    expected = (
        f"Error: no collector answers at {endpoint}; start one with `collector`, or name a store "
        "with --store\n"
    )
    assert cli.main(["trace", "x", "--endpoint", endpoint]) == 1
    assert capsys.readouterr() == ("", expected)
    monkeypatch.setenv("COLLECTOR_QUERY_ENDPOINT", endpoint)
    assert cli.main(["trace", "x"]) == 1
    assert capsys.readouterr() == ("", expected)


@pytest.mark.anyio
async def test_the_token_comes_from_the_environment(database, capsys, monkeypatch):
    """A guarded port: without the token a hint, with it the answer."""
    async with collector(token=Secret("t" * 32)) as endpoint:
        arguments = ["trace", "task-2", "--endpoint", endpoint]
        assert await asyncio.to_thread(cli.main, arguments) == 1
        hint = f"Error: {endpoint} asks for a token: set COLLECTOR_QUERY_TOKEN\n"
        assert capsys.readouterr() == ("", hint)
        monkeypatch.setenv("COLLECTOR_QUERY_TOKEN", "t" * 32)
        assert await asyncio.to_thread(cli.main, arguments) == 0
        assert capsys.readouterr().out.startswith(f"trace {SECOND}\n")


@pytest.mark.anyio
async def test_an_unknown_id(database, capsys):
    """Not found: exit 1, nothing on stdout, what was searched and a hint on stderr, from every source."""
    expected = """\
Not found: n\\x1bope
  searched     SQLite file t.db
  as           trace id, correlation id, request id, task id, order id, batch run id
  spans        from 2025-10-03 10:30:15.123 to 2025-10-03 10:30:20.123 UTC
  log records  from 2025-10-03 10:30:15.124 to 2025-10-03 10:30:23.123 UTC
Ids are compared whole. Something that just happened may arrive seconds later; `collector logs --text ...` searches messages.
"""
    async with collector() as endpoint:
        for source in (["--store", database], ["--endpoint", endpoint]):
            assert await asyncio.to_thread(cli.main, ["trace", "n\x1bope", *source]) == 1
            assert capsys.readouterr() == ("", expected)
            assert await asyncio.to_thread(cli.main, ["trace", "n\x1bope", "--json", *source]) == 1
            out, err = capsys.readouterr()
            assert (json.loads(out)["id"], err) == ("n\x1bope", expected)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (
            ["x", "--store", "sqlite:///gone.db"],
            1,
            "Error: there is no file gone.db: start the collector first",
        ),
        (
            ["x", "--store", "postgres://x"],
            2,
            "write sqlite:///relative/path, sqlite:////absolute/path or mongodb",
        ),
        (["x", "--store", "mongodb://user:secret@"], 2, "not a MongoDB connection string"),
        (["x", "--endpoint", "ftp://x"], 2, "write http://host:port"),
        (["x", "--endpoint", "http://localhost:99999"], 2, "write http://host:port"),
        (["x", "--config", "gone.yaml"], 1, "gone.yaml"),
        (["x", "--width", "5"], 2, "5 is not in the range 60<=x<=1000"),
        ([" "], 2, "the id is empty"),
        ([], 2, "Missing argument 'ID'"),
    ],
)
def test_wrong_usage_names_the_fix(database, capsys, arguments, code, error):
    """Each mistake is one clear error; secrets of a URI are not repeated."""
    assert cli.main(["trace", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, error in err, "secret" in err) == ("", True, False), err


@pytest.mark.parametrize(
    "answered", [b"HTTP/1.0 200 OK\r\n\r\n<html>", b"HTTP/1.0 404 no\r\n\r\nno", b"garbage\r\n\r\n"]
)
def test_something_else_listens(database, capsys, answered):
    """Another server at the endpoint: one error line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answered)

        thread = threading.Thread(target=serve)
        thread.start()
        code = cli.main(["trace", "x", "--endpoint", f"http://127.0.0.1:{server.getsockname()[1]}"])
        thread.join()
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: ")


HOSTILE = "a\x1b[31m\x1b]0;t\x07\r\n\u202e\u2066\x00\x9b\u2028\ud83dé✓"


def test_nothing_hostile_reaches_the_terminal():
    """Control, escape and reordering characters in any field are spelled out (B60, CVE-2020-7694)."""
    everywhere = HOSTILE.replace("\ud83d", "")
    fields = {everywhere: everywhere, "list": [everywhere, {everywhere: 1}]}
    spans = [
        span(
            FIRST,
            "a",
            everywhere,
            0,
            5,
            service=everywhere,
            kind="SERVER",
            status="ERROR",
            status_message=everywhere,
            attributes={"http.route": everywhere, **fields},
            context={"correlation_id": everywhere},
            events=[{"name": everywhere, "time_unix_nano": 1, "attributes": fields}],
        )
    ]
    logs = [
        log(
            number,
            1,
            "INFO",
            everywhere,
            service=everywhere,
            attributes=fields,
            context={"order_id": everywhere},
            exception=dict.fromkeys(("type", "message", "stacktrace"), everywhere),
            **{"within": (FIRST, "a")} if number else {},
        )
        for number in (0, 1)
    ]
    for text in (FIRST, everywhere):
        out = drawn(spans, logs, text, verbose=True, color=True, fold=False)
        plain = click.unstyle(out).replace("\n", "")
        unsafe = {
            letter
            for letter in plain
            if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        }
        assert unsafe == set()
        assert "\\x1b[31m\\x1b]0;t\\x07\\r\\n\\u202e\\u2066\\x00\\x9b\\u2028é✓" in plain


def test_colour_is_only_around_what_we_drew():
    """With colour the text is the same; without it there is no escape sequence at all."""
    plain = drawn(SPANS, LOGS, "corr-1")
    coloured = drawn(SPANS, LOGS, "corr-1", color=True)
    assert plain == CORR_1_AT_80
    assert "\x1b" not in plain
    assert click.unstyle(coloured) == plain
    assert "\x1b[31m" in coloured


def test_wide_characters_keep_the_columns():
    """Bars begin in the same cell whatever the width of the letters; every line fits."""
    spans = [
        span(FIRST, "a", "注文を処理する", 0, 10, service="店"),
        span(FIRST, "b", "plain", 2, 4, service="店", parent="a"),
        span(FIRST, "c", "長" * 60, 4, 6, service="店", parent="a"),
    ]
    lines = drawn(spans).splitlines()
    bars = [line for line in lines if line.endswith("|")]
    assert [cell_len(line[: line.index("|")]) for line in bars] == [54, 54, 54]
    assert max(map(cell_len, lines)) <= 80


def test_deep_traces_stay_readable():
    """Beyond eight levels the depth is a number, and names keep their place."""
    spans = [
        span(
            FIRST,
            letter,
            f"level {depth}",
            depth,
            20 - depth,
            **({"parent": "0123456789ab"[depth - 1]} if depth else {}),
        )
        for depth, letter in enumerate("0123456789ab")
    ]
    assert [line[:45].rstrip() for line in drawn(spans).splitlines()[6:]] == [
        "  shop-api level 0",
        "  └─ level 1",
        "     └─ level 2",
        "        └─ level 3",
        "           └─ level 4",
        "              └─ level 5",
        "                 └─ level 6",
        "                    └─ level 7",
        "                       └─ level 8",
        "  …9 └─ level 9",
        "  …10 └─ level 10",
        "  …11 └─ level 11",
    ]


def test_a_cut_answer_says_so():
    """What a limit left out is a line at the end of the output."""
    store = Remembering(SPANS, LOGS)
    body = dumps(asyncio.run(trace(store, "corr-1", Limits(traces=1))))
    out = waterfall(read(body), Style(width=80))
    assert out.endswith("\n\ncut: the id occurs in more than 1 traces; the first are shown\n")


def test_help_shows_examples(capsys):
    """--help has examples and every option has a text."""
    assert cli.main(["trace", "--help"]) == 0
    assert "collector trace order-4711 --verbose" in capsys.readouterr().out


NARROWED = {
    "--errors": (
        ["shop-api POST /orders", "send open_order", "worker-open run/open_order"],
        "4 spans not shown.\n",
    ),
    "--depth=1": (
        ["shop-api POST /orders", "worker-close late", "worker-open run/open_order"],
        "4 spans not shown.\n",
    ),
    "--depth=2": (
        ["shop-api POST /orders", "validate", "send open_order", "worker-close late",
         "worker-open run/open_order"],
        "2 spans not shown.\n",
    ),
    "--depth=9": (
        ["shop-api POST /orders", "validate", "send open_order", "worker-open run/open_order",
         "60.0 ms", "worker-close late", "worker-open run/open_order"],
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", NARROWED)
def test_fewer_spans(database, capsys, option):
    """--errors keeps failed spans and the way to them, --depth the upper levels; stderr counts the rest."""
    names, said = NARROWED[option]
    assert cli.main(["trace", "corr-1", option, "--store", database]) == 0
    out, err = capsys.readouterr()
    bars = [line for line in out.splitlines() if line.endswith("|")]
    assert len(bars) == len(names)
    for name, line in zip(names, bars, strict=True):
        assert name in line
    assert err == said


def test_times_in_another_zone(database, capsys, monkeypatch):
    """--tz and --local print times of a zone, named once on stderr; a zone that is none is refused."""
    source = ["trace", "corr-1", "--store", database]
    assert cli.main([*source, "--tz", "Asia/Kathmandu"]) == 0
    out, err = capsys.readouterr()
    assert "start           2025-10-03 16:15:15.123 +0545" in out
    assert err == "Times are those of Asia/Kathmandu.\n"
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert cli.main([*source, "--local"]) == 0
        out, err = capsys.readouterr()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "start           2025-10-03 16:15:15.123 +0545" in out
    assert err == "Times are those of the zone of this machine (+0545).\n"
    assert cli.main([*source, "--tz", "../etc/passwd"]) == 2
    assert "is no zone that this machine knows" in capsys.readouterr().err
    assert cli.main([*source, "--tz", "UTC", "--local"]) == 2
