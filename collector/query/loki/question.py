"""One question to the Loki API: its parameters, and the thread in which it is answered."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, Self, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from collector.query.logql import QueryError, parse_log, parse_selector, tree
from collector.query.logql.evaluation import logs
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.source import Source
from collector.query.logql.evaluation.store_source import StoreSource
from collector.query.loki import answers, fields, labels, parameters, queries
from collector.stores.base import Store

T = TypeVar("T")

FLAGS_HEADER: Final = "x-loki-response-encoding-flags"
MAX_SELECTORS: Final = 16
MAX_FORM_BYTES: Final = 256 * 1024
MAX_FIELDS: Final = 1000


class Question:
    """
    One request: its parameters, and the thread that answers it.

    Args:
        pairs: the parameters in order, of the URL and of a form.
        request: that asks.
        store: that is asked.
        threads: that answer.
    """

    def __init__(
        self, pairs: Sequence[tuple[str, str]], request: Request, store: Store, threads: Executor
    ) -> None:
        self.pairs = pairs
        self.given = dict(reversed(pairs))  # the first of a name counts
        self.path: dict[str, str] = request.path_params
        self.now = time.time_ns()
        self.categorized = answers.FLAG in request.headers.get(FLAGS_HEADER, "")
        self._store = store
        self._threads = threads

    @classmethod
    async def read(cls, request: Request, store: Store, threads: Executor) -> Self:
        """
        The question of a request.

        Raises:
            QueryError: the form is too large.
        """
        pairs = list(request.query_params.multi_items())
        if request.method == "POST":
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > MAX_FORM_BYTES:
                    raise QueryError(f"the form has more than {MAX_FORM_BYTES} bytes")
            form = bytes(body).decode("utf-8", "replace")
            try:
                pairs += parse_qsl(form, keep_blank_values=True, max_num_fields=MAX_FIELDS)
            except ValueError:
                raise QueryError(f"the form has more than {MAX_FIELDS} fields") from None
        return cls(pairs, request, store, threads)

    def text(self, name: str) -> str:
        """
        A parameter that must be there.

        Raises:
            QueryError: it is not.
        """
        return queries.text(self.given, name)

    def log_query(self) -> tree.LogQuery:
        """The query; a metric query is refused."""
        return parse_log(self.text("query"))

    def targets(self) -> tuple[str, ...]:
        """The labels that a volume is asked by."""
        names = self.given.get("targetLabels", "").split(",")
        return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))

    def selectors(self) -> list[tuple[tree.Matcher, ...]]:
        """The selectors of `match[]`."""
        found = [text for name, text in self.pairs if name in ("match[]", "match")]
        if not found:
            raise QueryError("match[]: is missing; write a selector")
        if len(found) > MAX_SELECTORS:
            raise QueryError(f"match[]: at most {MAX_SELECTORS} selectors")
        return [parse_selector(text) for text in found]

    async def run(self, work: Callable[[Source, Budget], T]) -> T:
        """Run work in a thread, with a budget; it stops when this question is cancelled."""
        gone = threading.Event()
        source = StoreSource(self._store, asyncio.get_running_loop(), gone.is_set)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, work, source, Budget(stopped=gone.is_set)
            )
        finally:
            gone.set()

    async def streams(self, query: tree.LogQuery | None = None) -> labels.Streams:
        """The streams of the time that is asked about, those of `query` where one is given."""
        times = parameters.span(self.given, self.now)
        if query is None:
            query = self.log_query() if self.given.get("query") else labels.EVERYTHING
        return await self.run(lambda source, budget: labels.streams(query, source, times, budget))

    async def fields(self) -> dict[str, fields.Field]:
        """The fields of the newest lines."""
        query = self.log_query()
        times = parameters.span(self.given, self.now)
        sample = parameters.limit({"limit": self.given.get("line_limit", "")}, default=1000)

        def run(source: Source, budget: Budget) -> dict[str, fields.Field]:
            found = logs.select(
                query, source, since=times.start, until=times.end,
                limit=min(sample, parameters.MAX_LIMIT), budget=budget,
            )  # fmt: skip
            return fields.fields(found.lines)

        return await self.run(run)
