"""
The routes below `/loki/api/v1`: what a Loki data source asks, from the store's log records.

Each question is parsed and refused before anything is read; then it runs in a worker thread, with a
budget, and stops when the client goes or the time is over. Refusals are plain text, because the
data source shows the body: 400 with line and column for a query, 422 for a limit. A path that we do
not have is 404 as JSON; anything else made Grafana's Logs Drilldown wait for ever.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from collector.query.logql import QueryError, parse, parse_log, show, tree
from collector.query.logql.evaluation import metrics
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.source import Source
from collector.query.loki import answers, fields, labels, parameters, queries
from collector.query.loki.question import Question
from collector.query.loki.tail import Tails
from collector.stores.base import Store

Answer = Callable[[Request, Callable[[], Awaitable[Response]]], Awaitable[Response]]

PREFIXES: Final = (
    "/loki/api/v1/loki/api/v1",  # Grafana 12.3.1 sends Drilldown's questions to it
    "/loki/loki/api/v1",  # the data source's URL is .../loki
    "/loki/api/v1",
)
VERSION: Final = "3.4.0"
BUILD: Final = {
    "version": VERSION,
    "revision": "",
    "branch": "",
    "buildUser": "",
    "buildDate": "",
    "goVersion": "",
}
THREADS: Final = 8
"""Questions that are evaluated at once; more wait within their time."""
LIMITS: Final = {
    "limits": {
        "discover_log_levels": True,
        "discover_service_name": ["service_name"],
        "log_level_fields": ["level", "severity", "severity_text"],
        "max_entries_limit_per_query": parameters.MAX_LIMIT,
        "max_query_series": 500,
        "max_query_length": "31d",
        "max_line_size_truncate": False,
        "volume_enabled": True,
        "volume_max_series": 1000,
    },
    "pattern_ingester_enabled": False,
    "version": VERSION,
}


class LokiApi:
    """
    The routes.

    Args:
        store: that is asked.
        answer: runs a question within the port's limits: places, time, a client that goes.
        headers: of every answer.
        most_tails: tails at once.
        closing: set when the port closes.
    """

    def __init__(
        self,
        store: Store,
        answer: Answer,
        headers: dict[str, str],
        *,
        most_tails: int,
        closing: asyncio.Event,
    ) -> None:
        self._store = store
        self._answer = answer
        self._headers = headers
        # Not the loop's own pool: stores need that one to answer what these threads wait for.
        self._threads = ThreadPoolExecutor(THREADS, "logql")
        self._tails = Tails(store, most_tails, closing, self._threads, headers)

    def routes(self) -> list[BaseRoute]:
        """All routes, under each prefix that clients use."""
        paths = {
            "query_range": self._query_range,
            "query": self._query,
            "labels": self._labels,
            "label": self._labels,
            "label/{name}/values": self._values,
            "series": self._series,
            "index/stats": self._stats,
            "index/volume": self._volume,
            "index/volume_range": self._volume_range,
            "detected_labels": self._detected_labels,
            "detected_fields": self._detected_fields,
            "detected_field/{name}/values": self._detected_values,
            "patterns": self._patterns,
            "format_query": self._format_query,
            "drilldown-limits": self._constant(LIMITS),
            "status/buildinfo": self._constant(BUILD),
        }
        methods = ["GET", "POST"]
        each: list[BaseRoute] = [
            Route(f"/{path}", self._asked(endpoint), methods=methods)
            for path, endpoint in paths.items()
        ]
        each.append(WebSocketRoute("/tail", self._tails.endpoint))
        each.append(Route("/{rest:path}", self._nothing, methods=methods))
        return [
            Route("/ready", self._ready),
            *(Mount(prefix, routes=each) for prefix in PREFIXES),
            Route("/loki/{rest:path}", self._nothing, methods=methods),
        ]

    def _asked(
        self, endpoint: Callable[[Question], Awaitable[bytes]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A route that reads its parameters, asks within the limits and says what is refused."""

        async def route(request: Request) -> Response:
            # Before `answer` begins to listen for the client's end: both read the same channel.
            try:
                question = await Question.read(request, self._store, self._threads)
            except QueryError as refused:
                return self._refusal(refused)

            async def ask() -> Response:
                try:
                    return self._json(200, await endpoint(question))
                except QueryError as refused:
                    return self._refusal(refused)

            return await self._answer(request, ask)

        return route

    def _refusal(self, refused: QueryError) -> Response:
        return Response(str(refused), refused.status, self._headers, media_type="text/plain")

    def _json(self, status: int, body: bytes) -> Response:
        return Response(body, status, self._headers, media_type="application/json")

    def _constant(self, value: Any) -> Callable[[Question], Awaitable[bytes]]:
        body = answers.body(value)

        async def endpoint(_: Question) -> bytes:
            return body

        return endpoint

    async def _ready(self, _: Request) -> Response:
        return Response("ready\n", headers=self._headers, media_type="text/plain")

    async def _nothing(self, request: Request) -> Response:
        message = f"there is no {request.url.path[:200]} here; the data source's URL is this port"
        return self._json(404, answers.body({"message": message}))

    async def _query_range(self, asked: Question) -> bytes:
        return await asked.run(
            queries.query_range(asked.given, asked.now, categorized=asked.categorized)
        )

    async def _query(self, asked: Question) -> bytes:
        return await asked.run(queries.query(asked.given, asked.now))

    async def _labels(self, asked: Question) -> bytes:
        found = await asked.streams()
        return answers.success(labels.names(found))

    async def _values(self, asked: Question) -> bytes:
        found = await asked.streams()
        return answers.success(labels.values(found, asked.path["name"]))

    async def _series(self, asked: Question) -> bytes:
        selectors = asked.selectors()
        found: dict[labels.Stream, None] = {}
        for matchers in selectors:
            some = await asked.streams(tree.LogQuery(matchers))
            found.update(dict.fromkeys(some.lines))
        return answers.success([dict(stream) for stream in sorted(found)])

    async def _stats(self, asked: Question) -> bytes:
        found = await asked.streams(parse_log(asked.text("query")))
        return answers.body(labels.statistics(found))

    async def _detected_labels(self, asked: Question) -> bytes:
        found = await asked.streams()
        return answers.body({"detectedLabels": labels.detected(found)})

    async def _volume(self, asked: Question) -> bytes:
        times = parameters.span(asked.given, asked.now)
        query = labels.volume_query(asked.log_query(), asked.targets(), _window(times))
        limit = parameters.limit(asked.given)
        end = max(times.end - 1, 0)

        def run(source: Source, budget: Budget) -> bytes:
            began = time.monotonic()
            found = metrics.evaluate_at(query, source, time=end, budget=budget)
            series = labels.largest(found if isinstance(found, list) else [], limit)
            seconds = time.monotonic() - began
            for one in series:
                one.times[0] = times.end
            return answers.vector(series, budget=budget, seconds=seconds)

        return await asked.run(run)

    async def _volume_range(self, asked: Question) -> bytes:
        times = parameters.span(asked.given, asked.now)
        step = parameters.step(asked.given, times)
        query = labels.volume_query(asked.log_query(), asked.targets(), step)
        limit = parameters.limit(asked.given)

        def run(source: Source, budget: Budget) -> bytes:
            began = time.monotonic()
            # Each value stands at the last millisecond of its step, the last one at the end.
            found = metrics.evaluate_range(
                query, source, start=times.start + step, end=times.end, step=step,
                budget=budget,
            )  # fmt: skip
            for one in found:
                for index, end in enumerate(one.times):
                    one.times[index] = times.end if end >= times.end else end - 1_000_000
            seconds = time.monotonic() - began
            return answers.matrix(labels.largest(found, limit), budget=budget, seconds=seconds)

        return await asked.run(run)

    async def _detected_fields(self, asked: Question) -> bytes:
        found = await asked.fields()
        limit = parameters.limit(asked.given, default=fields.MAX_FIELDS)
        return answers.body({"fields": fields.described(found)[:limit], "limit": limit})

    async def _detected_values(self, asked: Question) -> bytes:
        found = (await asked.fields()).get(asked.path["name"])
        limit = parameters.limit(asked.given, default=fields.MAX_VALUES)
        return answers.body(
            {"values": sorted(found.values)[:limit] if found else [], "limit": limit}
        )

    async def _patterns(self, asked: Question) -> bytes:
        """No patterns are kept: `drilldown-limits` says so, and the list is empty."""
        parse_log(asked.text("query"))
        return answers.success([])

    async def _format_query(self, asked: Question) -> bytes:
        return answers.success(show(parse(asked.text("query"))))


def _window(times: parameters.Span) -> int:
    return max(times.end - times.start, 1)
