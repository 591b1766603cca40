"""
The embedded store: documents in one SQLite file, for a team that has no MongoDB yet.

One table per signal: a column for everything that `Query` filters by, and the document itself as
JSON (stores/sqlite/schema.py, stores/sqlite/rows.py); for spans straight from the request (stores/sqlite/rows_from_wire.py).
One thread writes (stores/sqlite/writer.py) and tends the file (stores/sqlite/maintenance.py). Reading happens on
read-only connections in a few threads (stores/sqlite/reader.py), so that a slow question never stands in
the way of a commit; each question has a deadline.
"""

import asyncio
import contextlib
import os
import sqlite3
from binascii import unhexlify
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec

from collector.documents.build import Document, documents, loads
from collector.errors import Permanent, Retryable, StartFailed
from collector.model import Batch, Duration, Host, OnRequest, Signal
from collector.sending_queue.config import RetryOnFailure, SendingQueue
from collector.stores.base import (
    DailyStatistic,
    DeadLetter,
    Failure,
    Followed,
    Query,
    StoreConsumer,
    Walked,
    Written,
    encodable,
)
from collector.stores.dead_letters import dead_letter
from collector.stores.retention import table
from collector.stores.routing import LETTERS, TRAIL, Routing
from collector.stores.sqlite import follow as following
from collector.stores.sqlite import maintenance, summaries
from collector.stores.sqlite import reader as reading
from collector.stores.sqlite import transfer as moving
from collector.stores.sqlite import writer as file
from collector.stores.sqlite.lists import Lists
from collector.stores.sqlite.rows import Encoded, encode, letter_row
from collector.stores.sqlite.rows_from_wire import rows_of
from collector.stores.sqlite.schema import (
    FORGET,
    INSERT,
    MARK,
    SCHEMA,
    TABLES,
    Statement,
    connect_read_only,
    version,
)

_SAFE: Final = (3, 51, 3)
_CAUTION: Final = (
    ": let no other program write to it; SQLite before 3.51.3 can damage a file that two write to"
)

T = TypeVar("T")


class SQLite(Lists):
    """
    The store; see `base.Store` for what it promises.

    Args:
        config: of `exporters: sqlite:`.
        host: for counters and log.
        read_only: create and change nothing; the file may be another process's.
        tend: delete what is older or larger than the configuration says. Off for commands that only
            write some documents, and may not know the collector's configuration.
    """

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of `exporters: sqlite:`."""

        path: str = "data/telemetry.db"
        """The database file; it and its folder are created when they are missing."""
        query_timeout: Duration = Duration(10)
        """A question that takes longer is ended with an error."""
        events: dict[str, str] = {}
        """Which collection the events of a name, or of a beginning and `*`, are kept in: analytics,
        ml_inferences, audit_logs, a name of your own that ends in _events, or level."""
        retention: dict[str, int | str] = {}
        """How long the documents of a collection are kept: days, a duration (36h, 30d) or
        unlimited."""
        max_size_mib: Annotated[int, msgspec.Meta(ge=0)] = 0
        """When the documents take more than this, the oldest are deleted; 0 for no limit."""
        full_text: bool = True
        """Keep an index of the messages, for `--text`; about a tenth more on disk for log records."""
        sending_queue: OnRequest[SendingQueue] = None
        """A queue in front of this exporter, see "Delivery"; off until the key is there."""
        retry_on_failure: OnRequest[RetryOnFailure] = None
        """How the queue tries again, see "Delivery"."""

        def __post_init__(self) -> None:
            """Refuse what cannot work."""
            Routing(self.events)
            table(self.retention)

    def __init__(
        self, config: Config, host: Host, *, read_only: bool = False, tend: bool = True
    ) -> None:
        self._config = config
        self._tend = tend
        self._path = Path(config.path)
        self._host = host
        self._read_only = read_only
        self._consumer = StoreConsumer(host, self.write)
        self._lock: int | None = None
        self._routing = Routing(config.events)
        self._writer: file.Writer | None = None
        self._readers: reading.Readers | None = None

    def describe(self) -> str:
        """The file, as configured."""
        return f"SQLite file {self._config.path}"

    @property
    def state_folder(self) -> Path:
        """Where receivers remember what must outlive a kill (decision 13)."""
        return self._path.parent

    async def __aenter__(self) -> Self:
        """
        Open the file.

        Raises:
            StartFailed: the file cannot be used; one line with path, reason and fix.
        """
        try:
            if self._read_only:
                await asyncio.to_thread(self._look)
            else:
                self._lock = file.lock(self._path)
                self._writer = file.Writer(self._path, self._route, self._maintenance())
                await self._writer.start()
                self._host.log.info(
                    "SQLite %s, %s%s",
                    sqlite3.sqlite_version,
                    self._path,
                    "" if sqlite3.sqlite_version_info >= _SAFE else _CAUTION,
                )
        except OSError as error:
            raise StartFailed(
                f"cannot write to {self._path.parent}: {error.strerror}: give this user write "
                "permission there, or set `path` to another place"
            ) from error
        except sqlite3.Error as error:
            self._unlock()
            raise StartFailed(file.advice(self._path, error)) from error
        except BaseException:
            self._unlock()
            raise
        self._readers = reading.Readers(self._path, float(self._config.query_timeout))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Finish the questions, commit what is queued, close."""
        readers, self._readers = self._readers, None
        if readers is not None:
            await readers.stop()
        # The writer is closed last: the last connection moves the log into the file.
        if self._writer is not None:
            await self._writer.stop()
        self._unlock()

    async def __call__(self, batch: Batch) -> None:
        """Consume a batch as an exporter does; one turn in a thread makes its rows."""
        found = await self._consumer.convert(partial(self._rows, batch))
        self._consumer.count(await self._keep(batch.signal, found))

    async def write(
        self, signal: Signal, documents: Sequence[Document], *, collection: str | None = None
    ) -> Written:
        """Store documents; returns after they are on disk."""
        work = partial(encode, signal, documents, self._routing, collection)
        return await self._keep(signal, await self._consumer.convert(work), collection)

    def _rows(self, batch: Batch) -> Encoded:
        found = rows_of(batch)
        if found is None:
            found = encode(batch.signal, documents(batch), self._routing)
        return found

    async def _keep(self, signal: Signal, found: Encoded, collection: str | None = None) -> Written:
        if self._writer is None:
            raise Permanent(f"{self.describe()} is not open for writing")
        if not found.rows and not found.refused:
            return Written(0)
        dead_letters = [
            dead_letter(
                signal,
                collection or self._place(signal, refused.document),
                refused.document,
                refused.reason,
            )
            for refused in found.refused
        ]
        more: list[tuple[Statement, Sequence[Any]]] = [
            (INSERT[TRAIL], found.trails),
            (INSERT[LETTERS], list(chain.from_iterable(map(letter_row, dead_letters)))),
            (MARK, found.days),
        ]
        more = [(statement, values) for statement, values in more if values]
        insert = INSERT[TABLES[signal] if collection != TRAIL else TRAIL]
        stored = await self._writer.write(insert, found.rows, more)
        given = len(found.rows) // insert.width
        return Written(stored, given - stored, tuple(found.refused))

    async def find(self, query: Query) -> list[Document]:
        """The documents that match, in order."""
        if self._readers is not None and not encodable(query):
            return []
        return await self._ask(lambda connection: reading.select(connection, query))

    async def slowest(self, query: Query, after: tuple[float, str] | None = None) -> list[Document]:
        """The spans that match, the longest first."""
        if self._readers is not None and not encodable(query):
            return []
        return await self._ask(lambda connection: summaries.slowest(connection, query, after))

    async def failures(self, query: Query) -> list[Failure]:
        """What failed, counted by type, message and service; latest first."""
        if self._readers is not None and not encodable(query):
            return []
        return await self._ask(lambda connection: summaries.failures(connection, query))

    async def follow(self, query: Query, after: str = "") -> AsyncGenerator[Followed, None]:
        """New log records, in the order of their rows."""
        place = following.read_position(after)
        while True:
            step, place = await self._ask(partial(following.step, query=query, place=place))
            yield step
            if not step.logs:
                await asyncio.sleep(following.PAUSE_S)

    async def sizes(self) -> dict[str, int]:
        """How many documents each collection holds."""
        return await self._ask(moving.sizes)

    async def walk(self, collection: str, *, limit: int, after: str = "") -> Walked:
        """Documents of one collection, by arrival."""
        return await self._ask(lambda connection: moving.walk(connection, collection, limit, after))

    async def fetch(self, collection: str, ids: Sequence[str]) -> list[Document]:
        """Documents of one collection by their ids."""
        return await self._ask(lambda connection: moving.fetch(connection, collection, ids))

    async def take_over(
        self, *, letters: Sequence[DeadLetter] = (), statistics: Sequence[DailyStatistic] = ()
    ) -> None:
        """Keep dead letters and statistics of another store."""
        if self._writer is None:
            raise Permanent(f"{self.describe()} is not open for writing")
        if letters:
            values = list(chain.from_iterable(map(letter_row, letters)))
            await self._writer.write(INSERT[LETTERS], values)
        if statistics:
            await self._writer.write(moving.CARRY, list(moving.statistics_values(statistics)))

    async def dead_letters(self, *, limit: int, after: str = "") -> list[DeadLetter]:
        """Dead letters in the order of their ids."""
        return await self._ask(lambda connection: reading.letters(connection, limit, after))

    async def forget(self, ids: Sequence[str]) -> int:
        """Delete dead letters; how many there were."""
        if self._writer is None:
            raise Permanent(f"{self.describe()} is not open for writing")
        return await self._writer.write(FORGET, [unhexlify(each) for each in ids])

    async def daily_statistics(self, since: date, until: date) -> list[DailyStatistic]:
        """The statistics of some days."""
        return await self._ask(lambda connection: maintenance.read(connection, since, until))

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._readers is None:
            raise Retryable(f"{self.describe()} is closed")
        return await self._readers.run(question)

    def _place(self, signal: Signal, document: Document) -> str:
        try:
            return self._routing.collection(signal, document)
        except Exception:  # a document of anything
            return ""

    def _route(self, json: str) -> str:
        return self._routing.collection(Signal.LOGS, loads(json.encode()))

    def _maintenance(self) -> maintenance.Maintenance:
        loop = asyncio.get_running_loop()

        def count(name: str, amount: int, **labels: str) -> None:
            add = partial(self._host.stats.add, name, amount, exporter=self._host.id, **labels)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the counters with it
                loop.call_soon_threadsafe(add)

        kept = table(self._config.retention) if self._tend else None
        max_bytes = self._config.max_size_mib << 20
        full_text = self._config.full_text if self._tend else None
        return maintenance.Maintenance(kept, max_bytes, self._routing, count, full_text=full_text)

    def _look(self) -> None:
        """Reject what cannot be read, before a question is asked."""
        if not self._path.is_file():
            raise StartFailed(
                f"there is no file {self._path}: start the collector first, or name the file "
                "that it writes as `path`"
            )
        connection = connect_read_only(self._path)
        try:
            found = version(connection, self._path)
            if not found:
                raise StartFailed(f"{self._path} is empty: start the collector first")
            if found < SCHEMA:
                raise StartFailed(
                    f"{self._path} has schema version {found}: start the collector once, it brings "
                    f"the file to version {SCHEMA}"
                )
        finally:
            connection.close()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
