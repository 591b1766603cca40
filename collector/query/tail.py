"""
`tail`: new log records as they are stored, until the reader stops.

A store gives steps, each with a position to go on from. Here a step becomes a few lines: records,
a position behind them, a gap when something may be missing. A store that cannot be asked is asked
again from the last position, with pauses that grow; a record that comes twice around that is
recognised by its id. The HTTP port sends the lines as NDJSON, the command line prints them: both
read them from `tail`.

Each line is a JSON object with one key: `log` (a document), `position` (the cursor to go on with),
`gap` or `trouble` (a sentence).
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from collector.errors import Retryable
from collector.query.parameters import (
    LOG_PARAMETERS,
    BadParameter,
    log_conditions,
    read_pairs,
)
from collector.stores.base import Document, Query, Store, dumps

DEFAULT_LINES: Final = 10
MAX_LINES: Final = 1000

PARAMETERS: Final[dict[str, str]] = {
    **{
        name: text
        for name, text in LOG_PARAMETERS.items()
        if name not in ("until", "order", "limit", "cursor")
    },
    "lines": f"How many of the records that are there to begin with, {DEFAULT_LINES} unless given; 0 "
    "for none. With cursor none.",
    "cursor": "The last `position` of a tail before: go on behind it.",
}
"""Every parameter of the question about new log records, with its help."""

REMEMBERED: Final = 20_000
"""Ids that are remembered, to recognise a record that comes again."""

HEARTBEAT_S: Final = 5.0
"""A line comes at least so often, so that each side notices when the other one is gone."""

_FIRST_DELAY_S: Final = 0.5
_LAST_DELAY_S: Final = 10.0


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: the conditions, how many old records, and where to go on."""

    query: Query
    lines: int
    after: str = ""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line; one of its fields is given."""

    log: Document | None = None
    position: str = ""
    gap: str = ""
    trouble: str = ""


class Recent:
    """The ids that came last."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._ids: OrderedDict[str, None] = OrderedDict()

    def new(self, _id: str) -> bool:
        """Remember an id; whether it is new."""
        if _id in self._ids:
            return False
        self._ids[_id] = None
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)
        return True


def question(pairs: Iterable[tuple[str, str]], *, now_unix_nano: int) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    given, where = read_pairs(pairs, PARAMETERS)
    after = given.pop("cursor", "")
    lines = given.pop("lines", str(0 if after else DEFAULT_LINES))
    if not lines.isascii() or not lines.isdigit() or not int(lines[:9]) <= MAX_LINES:
        raise BadParameter("lines", f"write a whole number from 0 to {MAX_LINES}")
    if after and int(lines):
        raise BadParameter("lines", "with cursor nothing old is shown; leave one of them out")
    query = log_conditions(given, where, now_unix_nano=now_unix_nano, limit=max(1, int(lines)))
    return Question(query=query, lines=int(lines), after=after)


class Lines(msgspec.Struct, frozen=True):
    """
    What came at once.

    Args:
        lines: records and sentences; often none.
        position: where to go on behind them; empty while it is not known.
    """

    lines: list[Line]
    position: str


async def tail(
    store: Store,
    asked: Question,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[Lines, None]:
    """
    Lines, for ever; none or more at least each second. Close it in the end.

    Args:
        store: what is followed.
        asked: the conditions.
        pause: waits so many seconds before the store is asked again.

    Raises:
        BadParameter: the cursor is none of this store.
        Retryable: the store cannot be asked; only before the first step.
    """
    recent = Recent()
    position = asked.after
    lines = asked.lines
    delay_s = 0.0
    answered = False
    while True:
        steps = store.follow(asked.query, position)
        try:
            async for step in steps:
                found = [Line(gap=step.gap)] if step.gap else []
                if lines:  # the place is taken: what comes from now on is not missed
                    found += await _old(store, asked.query, recent)
                    lines = 0
                found += [Line(log=log) for log in step.logs if recent.new(log["_id"])]
                position = step.position or position
                answered, delay_s = True, 0.0
                yield Lines(found, position)
        except Retryable as error:
            if not answered:
                raise
            if not delay_s:
                yield Lines([Line(trouble=str(error))], position)
            delay_s = min(max(delay_s * 2, _FIRST_DELAY_S), _LAST_DELAY_S)
        except ValueError as error:
            raise BadParameter("cursor", f"{error}; use a position that this store gave") from error
        finally:
            await steps.aclose()
        await pause(delay_s)


async def _old(store: Store, query: Query, recent: Recent) -> list[Line]:
    newest = await store.find(msgspec.structs.replace(query, newest_first=True))
    return [Line(log=log) for log in reversed(newest) if recent.new(log["_id"])]


class Streaming:
    """
    An ASGI response: lines as NDJSON until the client leaves or the port closes.

    Args:
        lines: of `tail`; the first are here already.
        first: these.
        headers: of the answer.
        closing: set when the port closes.
    """

    def __init__(
        self,
        lines: AsyncGenerator[Lines, None],
        first: Lines,
        headers: dict[str, str],
        closing: asyncio.Event,
    ) -> None:
        self.status_code = 200
        self._lines = lines
        self._first = first
        self._headers = {**headers, "Content-Type": "application/x-ndjson"}
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send what comes."""
        head = [(name.lower().encode(), text.encode()) for name, text in self._headers.items()]
        await send({"type": "http.response.start", "status": self.status_code, "headers": head})
        ends = [
            asyncio.ensure_future(_gone(receive)),
            asyncio.ensure_future(self._closing.wait()),
        ]
        loop = asyncio.get_running_loop()
        following: asyncio.Future[Lines] | None = None
        try:
            found, spoken_at = self._first, -HEARTBEAT_S
            while True:
                if found.lines or loop.time() - spoken_at >= HEARTBEAT_S:
                    lines = [*found.lines, Line(position=found.position)]
                    body = b"".join(dumps(line) + b"\n" for line in lines)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    spoken_at = loop.time()
                following = asyncio.ensure_future(anext(self._lines))
                await asyncio.wait([following, *ends], return_when=asyncio.FIRST_COMPLETED)
                if any(end.done() for end in ends):
                    break
                found = following.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            waiting = [each for each in (following, *ends) if each is not None]
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await self._lines.aclose()


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
