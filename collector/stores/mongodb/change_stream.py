"""
New log records as they are stored: a change stream, or a look at the newest on a standalone server.

A change stream of the whole database, narrowed down by the server, has a token behind each step:
nothing is missed and nothing comes twice, whatever happens in between, as long as the server's
oplog reaches back to the token.

A standalone server has no such thing, and no field of a document says when it was stored:
`received_at` can be hours old when a queue is emptied, `_id` begins with the event's time. But the
storage engine numbers documents as they come, and a walk in natural order, backwards, meets them in
that order. So each look walks back until it meets what is settled: what was seen five seconds ago,
because inserts that run at the same time may become visible in another order than their numbers.
What was seen in between is remembered by its id. A user who may not open a change stream is served
in the same way.

The position says which of the two it is: `s:` and the token, or `p:` and the settled ids.
"""

import base64
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from pymongo.change_stream import DatabaseChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from collector.documents.build import Document
from collector.stores.base import ID, Followed, Query, encodable
from collector.stores.mongodb import bson as shape
from collector.stores.mongodb.filter import Filter, filter_of
from collector.stores.query_match import matches
from collector.stores.routing import LOGS, OWN_NAME, is_log_collection

STEP: Final = 1000
"""Records that one step of a change stream gives at most."""

LOOK: Final = 5000
"""New records of one collection that one look takes in; what lies behind is a gap."""

SETTLED_S: Final = 5.0
"""What was visible so long ago has no neighbours that are still on their way."""

_AWAIT_MS: Final = 200
_STEP_S: Final = 0.2
_LOOK_PAUSE_S: Final = 0.5
_TOKEN: Final = re.compile(r"[0-9A-Fa-f]{2,4096}")
_LONGEST: Final = 8192
_HISTORY_LOST: Final = frozenset({260, 280, 286, 10334})
"""The token is unknown, too old, or stands before a change that no stream can give."""
_NO_STREAMS: Final = frozenset({13, 303, 40324, 40573})
"""No right to open one, or no replica set."""
_GAP: Final = "the server's history does not reach back so far; records may be missing here"


class Following:
    """
    One who follows; every method blocks.

    Args:
        database: gives the database, or raises when the store is closed.
        names: the collections that can have what a query asks for.
        query: what is looked for.
        after: a position, or an empty text for "from now on".

    Raises:
        ValueError: the position is none.
    """

    def __init__(
        self,
        database: Callable[[], Any],
        names: Callable[[Query], list[str]],
        query: Query,
        after: str,
    ) -> None:
        self.pause_s = 0.0
        """How long to wait after a step that gave nothing."""
        self._database = database
        self._names = names
        self._query = msgspec.structs.replace(query, after=None)
        self._filters = filter_of(self._query) if encodable(query) else None
        self._source: _Stream | _Looks | None = None
        self._after = after
        read_position(after)

    def step(self) -> Followed:
        """What is new; the first step opens."""
        if self._source is None:
            kind, position = read_position(self._after)
            self._source = self._opened(kind, position)
            self.pause_s = self._source.pause_s
            gap = self._source.gap
            return Followed(position=self._source.position(), gap=gap)
        try:
            return self._source.step()
        except OperationFailure as error:
            if error.code not in _HISTORY_LOST:
                raise
            self.close()
            self._source = self._opened("", None)
            return Followed(position=self._source.position(), gap=_GAP)

    def close(self) -> None:
        """Let the server know that nothing follows any more."""
        source, self._source = self._source, None
        if isinstance(source, _Stream):
            source.close()

    def _opened(self, kind: str, position: Any) -> "_Stream | _Looks":
        if kind == "p":
            return _Looks(self._database, self._names, self._query, position)
        gap = ""
        while True:
            try:
                return _Stream(self._database(), self._query, self._filters, position, gap)
            except OperationFailure as error:
                if error.code in _NO_STREAMS:
                    looks = _Looks(self._database, self._names, self._query, None)
                    looks.gap = _GAP if position else ""
                    return looks
                if error.code not in _HISTORY_LOST or position is None:
                    raise
                position, gap = None, _GAP


def read_position(text: str) -> tuple[str, Any]:
    """
    A position's kind and content; nothing of it can become an operator.

    Raises:
        ValueError: it is none of this store.
    """
    if not text:
        return "", None
    kind, _, rest = text.partition(":")
    if kind == "s" and _TOKEN.fullmatch(rest):
        return "s", rest
    if kind == "p" and len(rest) <= _LONGEST:
        try:
            found = msgspec.json.decode(base64.urlsafe_b64decode(rest), type=dict[str, str])
        except (ValueError, msgspec.DecodeError):
            found = {"": ""}
        if all(is_log_collection(name) and ID.fullmatch(each) for name, each in found.items()):
            return "p", found
    raise ValueError("not a position of this store")


def prefixed(filters: Filter, prefix: str) -> Filter:
    """The same filter on documents that stand inside another one."""
    return {
        key if key.startswith("$") else prefix + key: [prefixed(each, prefix) for each in value]
        if key in ("$and", "$or")
        else value
        for key, value in filters.items()
    }


class _Stream:
    """A change stream over the collections of log records."""

    pause_s = 0.0

    def __init__(
        self,
        database: Any,
        query: Query,
        filters: Filter | None,
        token: str | None,
        gap: str,
    ) -> None:
        own = {"$regex": f"^{OWN_NAME.pattern}$"}
        wanted: Filter = {
            "operationType": "insert",
            "$or": [{"ns.coll": {"$in": list(LOGS)}}, {"ns.coll": own}],
        }
        if query.collection is not None:
            wanted = {"operationType": "insert", "ns.coll": {"$eq": query.collection}}
        if filters is None:
            wanted["ns.coll"] = {"$in": []}  # nothing can match
        elif filters:
            wanted = {"$and": [wanted, prefixed(filters, "fullDocument.")]}
        self.gap = gap
        self._match = matches(query)
        self._stream: DatabaseChangeStream[Any] = database.watch(
            [{"$match": wanted}],
            resume_after={"_data": token} if token else None,
            max_await_time_ms=_AWAIT_MS,
            batch_size=STEP,
        )

    def position(self) -> str:
        token = self._stream.resume_token
        return f"s:{token['_data']}" if token else ""

    def step(self) -> Followed:
        found: list[Document] = []
        until = time.monotonic() + _STEP_S
        for _ in range(STEP):
            change = self._stream.try_next()
            if change is None:
                break
            stored = change["fullDocument"]
            if "time_unix_nano" in stored:
                document = shape.restore(stored)
                if self._match(document):
                    found.append(document)
            if time.monotonic() > until:
                break
        return Followed(logs=found, position=self.position())

    def close(self) -> None:
        with contextlib.suppress(PyMongoError):  # then the server forgets it by itself
            self._stream.close()


class _Looks:
    """Looks at the newest documents of each collection."""

    pause_s = _LOOK_PAUSE_S

    def __init__(
        self,
        database: Callable[[], Any],
        names: Callable[[Query], list[str]],
        query: Query,
        settled: dict[str, str] | None,
    ) -> None:
        self.gap = ""
        self._database = database
        self._names = names
        self._query = query
        self._match = matches(query)
        self._seen: dict[str, float] = {}
        if settled is None:
            settled = {}
            for name in names(query):
                for newest in database()[name].find({}, {"_id": 1}).sort("$natural", -1).limit(1):
                    settled[name] = str(newest["_id"])
        self._settled = settled

    def position(self) -> str:
        ids = {name: each for name, each in self._settled.items() if ID.fullmatch(each)}
        return f"p:{base64.urlsafe_b64encode(msgspec.json.encode(ids)).decode()}"

    def step(self) -> Followed:
        now = time.monotonic()
        found: list[Document] = []
        full = []
        for name in self._names(self._query):
            new, complete = self._look(name, now)
            found += new
            if not complete:
                full.append(name)
        self._seen = {
            each: since for each, since in self._seen.items() if now - since < 2 * SETTLED_S
        }
        found.sort(key=lambda document: document["received_at"])  # stable: else as stored
        gap = f"more than {LOOK} records came at once in {', '.join(full)}; some are left out"
        return Followed(logs=found, position=self.position(), gap=gap if full else "")

    def _look(self, name: str, now: float) -> tuple[list[Document], bool]:
        """What is new in one collection, in the order of the store; whether that is all."""
        boundary = self._settled.get(name)
        new: list[Any] = []
        newest = ""
        with self._database()[name].find({}).sort("$natural", -1).batch_size(101) as cursor:
            for stored in cursor:
                _id = str(stored["_id"])
                newest = newest or _id
                if _id == boundary:
                    break
                since = self._seen.get(_id)
                if since is None:
                    if len(new) == LOOK:
                        self._settled[name] = newest
                        return self._documents(new), False
                    self._seen[_id] = now
                    new.append(stored)
                elif now - since >= SETTLED_S:
                    self._settled[name] = _id
                    break
        return self._documents(new), True

    def _documents(self, newest_first: list[Any]) -> list[Document]:
        found = [
            shape.restore(stored) for stored in reversed(newest_first) if "time_unix_nano" in stored
        ]
        return [document for document in found if self._match(document)]
