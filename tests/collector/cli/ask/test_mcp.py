"""`collector mcp`: a real client over stdio asks a store; answers are bounded and only read."""

import asyncio
import json
import logging
import os
import sys

import pytest

pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters

from collector.cli.ask import mcp_tools
from collector.cli.ask.source import Asking
from collector.model import Host, Signal
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.collector.query.test_lists import LOGS, ONE, POINTS, SPANS, THREE
from tests.contracts.stores import log

pytestmark = pytest.mark.anyio
TOOLS = ["errors", "find", "logs", "operations", "services", "slow", "tasks", "trace"]
RANGE = {"since": "2027-01-15T07:00", "until": "2027-01-15T08:01:40"}


@pytest.fixture
async def store(tmp_path):
    """The URL of a store with the documents of the lists."""
    path = tmp_path / "t.db"
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(path)), host) as opened:
        await opened.write(Signal.TRACES, SPANS)
        await opened.write(Signal.LOGS, LOGS)
        await opened.write(Signal.METRICS, POINTS)
    return f"sqlite:///{path}"


def said(result):
    return "".join(part.text for part in result.content)


async def test_a_client_over_stdio(store):
    """A process that a client starts lists its tools and answers; nothing else is on its stdout (D4)."""
    started = StdioServerParameters(
        command=sys.executable, args=["-m", "collector", "mcp", "--store", store],
        env=dict(os.environ),
    )  # fmt: skip
    async with asyncio.timeout(60), Client(started) as client:
        tools = (await client.list_tools()).tools
        assert sorted(tool.name for tool in tools) == TOOLS
        found = await client.call_tool("find", {"min_duration": "100ms", **RANGE})
        assert [json.loads(line)["trace_id"] for line in said(found).splitlines()] == [THREE, ONE]


@pytest.fixture
async def client(store):
    async with Client(mcp_tools.server(Asking(store=store))) as opened:
        yield opened


async def test_every_tool_only_reads_and_has_a_bound(client):
    """Each tool is marked as reading, describes itself, and its limit has a maximum."""
    for tool in (await client.list_tools()).tools:
        assert tool.annotations.model_dump(by_alias=True)["readOnlyHint"] is True
        assert tool.description
        limit = tool.input_schema["properties"].get("limit")
        assert limit is None or limit["maximum"] == 100, tool.name


@pytest.mark.parametrize(
    ("tool", "arguments", "key", "wanted"),
    [
        ("find", {"errors": True}, "trace_id", [ONE]),
        ("find", {"order": "slowest", "limit": 1}, "trace_id", [THREE]),
        ("logs", {"level": "error"}, "service", ["cron"]),
        ("errors", {"kind": "spans"}, "message", ["run/mail"]),
        ("slow", {"limit": 1}, "name", ["GET /"]),
        ("services", {}, "name", ["cron", "mail", "shop"]),
        ("operations", {"order": "slow"}, "name", ["GET /", "POST /orders", "run/mail"]),
    ],
)
async def test_each_tool_answers_with_a_row_a_line(client, tool, arguments, key, wanted):
    """Rows are those of the HTTP API; a note says when there are more."""
    result = await client.call_tool(tool, {**arguments, **RANGE})
    lines = said(result).splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row[key] for row in rows] == wanted
    more = ["Note: there are more; narrow it, or raise limit."] if "limit" in arguments else []
    assert [line for line in lines if not line.startswith("{")] == more


async def test_a_trace_is_shown_as_text(client):
    """`trace` draws the waterfall, narrowed on request; an unknown id says what was searched."""
    whole = said(await client.call_tool("trace", {"id": ONE}))
    assert whole.startswith(f"trace {ONE}\n")
    assert [name in whole for name in ("POST /orders", "SELECT", "run/mail")] == [True] * 3
    failed = said(await client.call_tool("trace", {"id": ONE, "errors": True}))
    assert "SELECT" not in failed
    assert "run/mail" in failed
    unknown = said(await client.call_tool("trace", {"id": "nobody"}))
    assert unknown.startswith("Not found: nobody\n")


async def test_nothing_found_says_where(client):
    """No row is an answer, with the place that was searched."""
    result = await client.call_tool("tasks", {})
    assert (result.is_error, said(result).startswith("Note: nothing matches in SQLite")) == (
        False,
        True,
    )


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("find", {"since": "yesterday"}, "since: write an age such as 15m"),
        ("logs", {"limit": 101}, "less than or equal to 100"),
        ("trace", {"id": "x" * 1025}, "at most 1024 characters"),
        ("slow", {"min_duration": "fast"}, "min_duration: write a duration"),
    ],
)
async def test_a_wrong_argument_is_an_error_with_the_fix(client, tool, arguments, sentence):
    """The client gets a sentence that it can act on, not a broken session."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert sentence in said(result)
    assert not (await client.call_tool("services", RANGE)).is_error


async def test_an_answer_has_a_largest_size(tmp_path):
    """Rows that do not fit are left out and counted; characters that hide or steer are spelled out."""
    path = tmp_path / "large.db"
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(path)), host) as opened:
        records = [log(number, message="\u202e" + "x" * 25_000) for number in range(5)]
        await opened.write(Signal.LOGS, records)
    asking = Asking(store=f"sqlite:///{path}")
    async with Client(mcp_tools.server(asking)) as client:
        text = said(await client.call_tool("logs", {"since": "2027-01-01"}))
    assert len(text) < 61_000
    assert text.splitlines()[2:] == ["Note: 3 of 5 rows did not fit; ask for less."]
    assert "\\u202exxx" in text
