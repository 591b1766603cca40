"""
`/loki/api/v1/tail`: new lines of a query over a WebSocket, as Grafana's live mode asks for them.

Everything that can be refused is refused before the upgrade, as plain HTTP; a metric query is
closed with 1011, as Loki does. Then the store is followed (`collector.query.tail`), the stages of
the query run over each step in a thread, and at most two frames a second leave, of at most a
thousand lines; what a step has more is named in `dropped_entries`. A client that does not read
slows down its own following, nothing is collected for it. When the port closes, the close code is
1001, and a browser comes back.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import Any, Final

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from collector.query import tail as following
from collector.query.logql import QueryError, parse, tree
from collector.query.logql.evaluation import logs
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.line import Line
from collector.query.logql.evaluation.plan import conditions
from collector.query.logql.evaluation.stages import pipeline
from collector.query.logql.evaluation.store_source import StoreSource
from collector.query.loki import answers, parameters, queries
from collector.stores.base import Document, Store

FRAME_LINES: Final = 1000
FRAME_EVERY_S: Final = 0.5
MAX_DROPPED: Final = 100
"""Entries that are named when lines are left out."""
DEFAULT_LINES: Final = 100
GOING_AWAY: Final = 1001
UNEXPECTED: Final = 1011
TRY_AGAIN: Final = 1013


class Tails:
    """
    The tails of one port.

    Args:
        store: that is followed.
        most: tails at once.
        closing: set when the port closes.
        threads: where stages run.
        headers: of refusals.
    """

    def __init__(
        self,
        store: Store,
        most: int,
        closing: asyncio.Event,
        threads: Executor,
        headers: dict[str, str],
    ) -> None:
        self._store = store
        self._most = most
        self._closing = closing
        self._threads = threads
        self._headers = headers
        self._running = 0

    async def endpoint(self, socket: WebSocket) -> None:
        """One tail, from its request to its close."""
        given = dict(reversed(socket.query_params.multi_items()))
        try:
            query = parse(queries.text(given, "query"))
            limit = min(parameters.limit(given, default=DEFAULT_LINES), FRAME_LINES)
            since = parameters.time("start", given["start"]) if given.get("start") else None
        except QueryError as refused:
            await self._refuse(socket, refused.status, str(refused))
            return
        if self._running >= self._most:
            await self._refuse(socket, 429, f"{self._most} follow already; ask again later")
            return
        flags = socket.headers.get("x-loki-response-encoding-flags", "")
        self._running += 1
        try:
            await socket.accept()
            if not isinstance(query, tree.LogQuery):
                await socket.close(UNEXPECTED, "only log selector is supported")
                return
            one = _Tail(socket, query, categorized=answers.FLAG in flags)
            since = time.time_ns() - parameters.LOOK_BACK if since is None else since
            await self._until_over(socket, one.run(self._store, self._threads, since, limit))
        finally:
            self._running -= 1

    async def _refuse(self, socket: WebSocket, status: int, reason: str) -> None:
        await socket.send_denial_response(
            Response(reason, status, self._headers, media_type="text/plain")
        )

    async def _until_over(self, socket: WebSocket, work: Coroutine[Any, Any, None]) -> None:
        """Run a tail until the client leaves, the port closes or the store fails."""
        running = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(socket))
        closing = asyncio.ensure_future(self._closing.wait())
        ends = (running, gone, closing)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                if closing.done():
                    await socket.close(GOING_AWAY, "the collector stops")
                elif not gone.done():
                    await socket.close(TRY_AGAIN, "the store cannot be followed now")
        finally:
            for one in ends:
                one.cancel()
            await asyncio.gather(*ends, return_exceptions=True)


async def _gone(socket: WebSocket) -> None:
    """Return when the client has left; what it says is ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


class _Tail:
    """
    The lines of one client.

    Args:
        socket: accepted.
        query: what is followed.
        categorized: labels by kind.
    """

    def __init__(self, socket: WebSocket, query: tree.LogQuery, *, categorized: bool) -> None:
        self._socket = socket
        self._query = query
        self._categorized = categorized
        self._run = pipeline(query)
        self._recent = following.Recent()

    async def run(self, store: Store, threads: Executor, since: int, limit: int) -> None:
        """Send the last lines, then new ones as they are stored."""
        loop = asyncio.get_running_loop()
        followed = conditions(self._query).query()
        steps = following.tail(store, following.Question(query=followed, lines=0))
        source = StoreSource(store, loop)
        try:
            first = await anext(steps)  # the place is taken: what comes from now on is not missed
            old = await loop.run_in_executor(threads, self._old, source, since, limit)
            await self._send(old)
            await self._follow(first, threads)
            async for step in steps:
                await self._follow(step, threads)
        finally:
            await steps.aclose()

    def _old(self, source: StoreSource, since: int, limit: int) -> list[Line]:
        now = time.time_ns()
        found = logs.select(
            self._query, source, since=since, until=max(now, since), limit=limit, budget=Budget()
        )
        return [line for line in reversed(found.lines) if self._recent.new(line.document["_id"])]

    async def _follow(self, step: following.Lines, threads: Executor) -> None:
        documents = [one.log for one in step.lines if one.log is not None]
        if documents:
            work: Callable[[Iterable[Document]], list[Line]] = self._matching
            loop = asyncio.get_running_loop()
            lines = await loop.run_in_executor(threads, work, documents)
            await self._send([one for one in lines if self._recent.new(one.document["_id"])])

    def _matching(self, documents: Iterable[Document]) -> list[Line]:
        return [line for document in documents if (line := self._run(document)) is not None]

    async def _send(self, lines: list[Line]) -> None:
        """One frame; then a pause, so that there are no more than two a second."""
        if lines:
            body = frame(lines, categorized=self._categorized)
            await self._socket.send_text(body.decode())
            await asyncio.sleep(FRAME_EVERY_S)


def frame(lines: list[Line], *, categorized: bool) -> bytes:
    """
    A frame of at most `FRAME_LINES` lines; what is more is named.

    Args:
        lines: in the order of time.
        categorized: labels by kind, each line with its own.
    """
    data: dict[str, Any] = {
        "streams": answers.grouped(lines[:FRAME_LINES], categorized=categorized)
    }
    if categorized:
        data["encodingFlags"] = [answers.FLAG]
    dropped = lines[FRAME_LINES:]
    if dropped:
        data["dropped_entries"] = [
            {"labels": line.stream, "timestamp": str(line.time)} for line in dropped[:MAX_DROPPED]
        ]
    return answers.body(data)
