"""The files of the page over HTTP: who gets them, with which headers, and that they hold no data."""

import asyncio
import contextlib
import http.client
import logging
import re

import pytest

from collector.model import Host, Secret
from collector.query.app import QueryServer
from collector.query.page.files import FOLDER, HEADERS, read
from collector.stats import Stats
from tests.traces import Remembering

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@contextlib.asynccontextmanager
async def serving(**settings):
    """A query port over a store that remembers what it was asked."""
    store = Remembering()
    log = logging.getLogger("collector.component.query")
    host = Host("query", Stats(), log, stores={"sqlite": store})
    config = QueryServer.Config(**{"endpoint": "localhost:0", **settings})
    async with QueryServer(config, host) as server:
        yield server, store


async def get(server, target, headers=(), method="GET"):
    """Status, headers with lower-case names, and body of one request."""

    def blocking():
        connection = http.client.HTTPConnection(server.endpoints["http"], timeout=20)
        with contextlib.closing(connection):
            connection.request(method, target, headers=dict(headers))
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )

    return await asyncio.to_thread(blocking)


async def test_a_browser_gets_the_page_and_curl_the_index():
    """The same address: the page for who accepts HTML, the text index for everybody else (D4)."""
    async with serving() as (server, _):
        status, headers, body = await get(server, "/", BROWSER)
        assert (status, body) == (200, (FOLDER / "index.html").read_bytes())
        assert headers["content-type"] == "text/html; charset=utf-8"
        for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            status, headers, body = await get(server, "/", accept)
            assert status == 200
            assert b"GET /api/v1/trace/ID" in body
            assert b"<script" not in body


async def test_every_file_comes_with_its_type_and_a_strict_policy():
    """Each file is served as what it is, under the same headers, and nothing may run inline."""
    types = {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
    async with serving() as (server, _):
        names = sorted(read())
        assert len(names) > 20
        for name in names:
            status, headers, body = await get(server, f"/page/{name}")
            assert (status, body) == (200, (FOLDER / name).read_bytes())
            assert headers["content-type"] == types[name.rpartition(".")[2]]
            assert {key: headers[key.lower()] for key in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "*" not in policy


async def test_a_file_that_did_not_change_is_not_sent_again():
    """The ETag of an answer makes the next one 304 without a body; another mark does not."""
    async with serving() as (server, _):
        _, headers, _ = await get(server, "/page/app.js")
        mark = headers["etag"]
        for sent in (mark, f"W/{mark}", f'"other", {mark}'):
            status, again, body = await get(server, "/page/app.js", {"If-None-Match": sent})
            assert (status, body, again["etag"]) == (304, b"", mark)
        assert (await get(server, "/page/app.js", {"If-None-Match": '"other"'}))[0] == 200


async def test_nothing_but_the_files_is_below_page():
    """Unknown names, ways out of the folder and other methods are refused as everywhere (B48)."""
    async with serving() as (server, store):
        for target in (
            "/page/",
            "/page/nothing.js",
            "/page/../app.py",
            "/page/%2e%2e/app.py",
            "/page/%2e%2e%2f%2e%2e%2fapp.py",
            "/page//etc/passwd",
            "/page/..%5capp.py",
            "/page/index.html%00",
        ):
            assert (await get(server, target, BROWSER))[0] == 404, target
        assert (await get(server, "/page/app.js", method="POST"))[0] in (404, 405)
        assert (await get(server, "/", BROWSER, method="POST"))[0] == 405
    assert store.queries == []


async def test_with_a_token_the_files_come_and_no_data():
    """The page can ask for the token, so it comes without; every route behind wants it (B50)."""
    async with serving(token=Secret("s3cret")) as (server, store):
        assert (await get(server, "/", BROWSER))[0] == 200
        assert (await get(server, "/page/app.js"))[0] == 200
        for target in (
            "/",
            "/api/v1/logs",
            "/api/v1/trace/x",
            "/api/v1/errors",
            "/page/nothing.js",
        ):
            assert (await get(server, target))[0] == 401, target
        assert store.queries == []
        right = {"Authorization": "Bearer s3cret"}
        assert (await get(server, "/api/v1/logs", right))[0] == 200


def test_the_page_asks_nobody_else_and_runs_nothing_inline():
    """No script, style or handler stands in the HTML, no file names another host or makes markup."""
    index = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script[^>]*>(?!</script>)", index) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", index) == []
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function"
        r"|localStorage|document\.cookie|https?://(?!www\.w3\.org/2000/svg)"
    )
    for name in read():
        assert forbidden.findall((FOLDER / name).read_text()) == [], name


def test_the_page_is_small():
    """All scripts together are below 150 KB, and what the first view loads below 100 KB."""
    files = read()
    scripts = {name: len(file.body) for name, file in files.items() if name.endswith(".js")}
    assert sum(scripts.values()) < 150_000
    needed, waiting = set(), ["app.js", "views/home.js"]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        folder = name.rpartition("/")[0]
        text = (FOLDER / name).read_text()
        waiting += [
            (FOLDER / folder / path).resolve().relative_to(FOLDER).as_posix()
            for path in re.findall(r'^import .* from "([^"]+)";', text, re.MULTILINE)
        ]
    first = needed | {"index.html", "style.css", "icon.svg"}
    assert sum(len(files[name].body) for name in first) < 100_000
