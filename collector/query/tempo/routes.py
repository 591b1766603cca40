"""
The routes of Tempo's API, at the root and below `/tempo`.

Each handler reads its parameters, asks its module and writes what Tempo would write. Refusals are
plain text with the sentence that helps (400, 422), because the data source shows the body as it is;
an unknown path below a known prefix is 404 as JSON. Who may ask, how many at once and how long is
the query port's business: `answer` runs a question within its limits and turns a store that is down
into 503.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from collector.query.tempo import metrics, search, tag_search, tags, traces
from collector.query.tempo.candidates import Bounds, Reader, in_thread
from collector.query.tempo.parameters import (
    METRICS_RANGE,
    SEARCH_RANGE,
    BadRequest,
    moment,
    step,
    time_range,
    trace_id,
    whole,
)
from collector.query.tempo.parameters import Range as Range
from collector.query.traceql.errors import LimitExceeded, QueryError
from collector.query.traceql.parser import parse
from collector.query.traceql.series import default_step, instant, over_range
from collector.query.traceql.tree import Query
from collector.stores.base import Store, dumps

Answer = Callable[[Request, Callable[[], Awaitable[Response]]], Awaitable[Response]]
Ask = Callable[[Store, Request, Bounds], Awaitable[Response]]

VERSION: Final = "2.8.0"
"""What Grafana takes us for: it asks a Tempo of this version for what is answered here."""
LIMIT, MOST_TRACES = 20, 1000
SPANS, MOST_SPANS = 3, 100

_PROTOBUF: Final = "application/protobuf"
_BUILD: Final = {
    "version": VERSION,
    "revision": "otelier",
    "branch": "main",
    "buildDate": "",
    "buildUser": "",
    "goVersion": "",
}


def routes(
    store: Store, answer: Answer, headers: Mapping[str, str], *, seconds: float = 20.0
) -> list[BaseRoute]:
    """
    The routes.

    Args:
        store: to ask.
        answer: runs a question within the port's limits.
        headers: of every answer.
        seconds: how long one question may read; what was found by then is the answer.
    """
    bounds = Bounds(seconds=seconds)

    def endpoint(ask: Ask) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            response = await answer(request, partial(_refusing, ask, store, request, bounds))
            response.headers.update(headers)
            return response

        return handle

    table: dict[str, Ask] = {
        "/api/echo": _echo,
        "/ready": _ready,
        "/api/status/buildinfo": _buildinfo,
        "/api/search": _search,
        "/api/search/tags": _tag_names,
        "/api/search/tag/{name:path}/values": _tag_values,
        "/api/v2/search/tags": _scopes,
        "/api/v2/search/tag/{name:path}/values": _typed_values,
        "/api/metrics/query_range": _query_range,
        "/api/metrics/query": _query,
        "/api/v2/traces/{id}": _trace,
        "/api/traces/{id}": _bare_trace,
        "/api/search/{rest:path}": _nothing,
        "/api/metrics/{rest:path}": _nothing,
        "/api/v2/{rest:path}": _nothing,
        "/api/traces/{rest:path}": _nothing,
    }
    made = [Route(path, endpoint(ask)) for path, ask in table.items()]
    return [*made, Mount("/tempo", routes=list(made))]


async def _refusing(ask: Ask, store: Store, request: Request, bounds: Bounds) -> Response:
    try:
        return await ask(store, request, bounds)
    except LimitExceeded as large:
        return _text(422, str(large))
    except QueryError as wrong:
        return _text(400, str(wrong))


async def _echo(_store: Store, _request: Request, _bounds: Bounds) -> Response:
    return _text(200, "echo")


async def _ready(_store: Store, _request: Request, _bounds: Bounds) -> Response:
    return _text(200, "ready\n")


async def _buildinfo(_store: Store, _request: Request, _bounds: Bounds) -> Response:
    return _json(_BUILD)


async def _nothing(_store: Store, request: Request, _bounds: Bounds) -> Response:
    message = f"nothing answers at {request.url.path[:200]}; this is Tempo's API of the collector"
    return _json({"message": message, "error": message}, 404)


async def _search(store: Store, request: Request, bounds: Bounds) -> Response:
    parameters = request.query_params
    query = _searched(parameters)
    limit = whole(parameters, "limit", LIMIT, most=MOST_TRACES)
    spans = whole(parameters, "spss", SPANS, most=MOST_SPANS)
    asked = time_range(parameters, time.time_ns(), longest=SEARCH_RANGE)
    found = await search.search(Reader(store, bounds), query, asked, limit=limit, spans=spans)
    return _json(found)


def _searched(parameters: Mapping[str, str]) -> Query:
    """What a search is for: TraceQL, or tags."""
    text = parameters.get("q", "").strip()
    old = [parameters.get(name, "").strip() for name in ("tags", "minDuration", "maxDuration")]
    if text and any(old):
        raise BadRequest("q: cannot stand together with tags, minDuration and maxDuration")
    return tag_search.query(*old) if any(old) else parse(text or "{}")


async def _query_range(store: Store, request: Request, bounds: Bounds) -> Response:
    parameters = request.query_params
    query = _measured(parameters)
    asked = time_range(parameters, time.time_ns(), longest=METRICS_RANGE)
    intervals = over_range(
        asked.start, asked.end, step(parameters) or default_step(asked.start, asked.end)
    )
    wanted = parameters.get("exemplars", "")
    exemplars = min(int(wanted), metrics.EXEMPLARS) if wanted.isdecimal() else metrics.EXEMPLARS
    return _json(
        await metrics.over_time(Reader(store, bounds), query, intervals, exemplars=exemplars)
    )


async def _query(store: Store, request: Request, bounds: Bounds) -> Response:
    parameters = request.query_params
    query = _measured(parameters)
    asked = time_range(parameters, time.time_ns(), longest=METRICS_RANGE)
    return _json(
        await metrics.instant(Reader(store, bounds), query, instant(asked.start, asked.end))
    )


def _measured(parameters: Mapping[str, str]) -> Query:
    query = parse(parameters.get("q") or parameters.get("query") or "")
    if query.metrics is None:
        raise BadRequest("this query has no metrics function such as | rate(); ask /api/search")
    return query


async def _scopes(store: Store, request: Request, _bounds: Bounds) -> Response:
    found = await _names(store, request)
    made = [{"name": scope, "tags": names} for scope, names in found.items()]
    return _json({"scopes": made, "metrics": {}})


async def _tag_names(store: Store, request: Request, _bounds: Bounds) -> Response:
    found = await _names(store, request)
    names = {name for scope, names in found.items() if scope != "intrinsic" for name in names}
    return _json({"tagNames": sorted(names), "metrics": {}})


async def _names(store: Store, request: Request) -> dict[str, list[str]]:
    parameters = request.query_params
    return await tags.scopes(
        store,
        time_range(parameters, time.time_ns(), longest=SEARCH_RANGE),
        scope=parameters.get("scope", ""),
        text=parameters.get("q", ""),
        limit=whole(parameters, "limit", tags.MAX_VALUES, most=10**9),
    )


async def _typed_values(store: Store, request: Request, _bounds: Bounds) -> Response:
    return _json({"tagValues": await _values(store, request), "metrics": {}})


async def _tag_values(store: Store, request: Request, _bounds: Bounds) -> Response:
    found = await _values(store, request)
    return _json({"tagValues": [value["value"] for value in found], "metrics": {}})


async def _values(store: Store, request: Request) -> list[dict[str, str]]:
    parameters = request.query_params
    return await tags.values(
        store,
        request.path_params["name"][:1024],
        time_range(parameters, time.time_ns(), longest=SEARCH_RANGE),
        text=parameters.get("q", ""),
        limit=whole(parameters, "limit", tags.MAX_VALUES, most=10**9),
    )


async def _trace(store: Store, request: Request, _bounds: Bounds) -> Response:
    found = await _found(store, request)
    if _protobuf(request):
        return Response(await in_thread(traces.protobuf, found), media_type=_PROTOBUF)
    return Response(await in_thread(traces.json, found), media_type="application/json")


async def _bare_trace(store: Store, request: Request, _bounds: Bounds) -> Response:
    found = await _found(store, request)
    if not found.spans:
        return Response(b"", 404)
    if _protobuf(request):
        return Response(await in_thread(traces.bare_protobuf, found), media_type=_PROTOBUF)
    return Response(await in_thread(traces.bare_json, found), media_type="application/json")


async def _found(store: Store, request: Request) -> traces.Found:
    parameters = request.query_params
    start, end = moment(parameters, "start"), moment(parameters, "end")
    within = Range(start, end) if start is not None and end is not None else None
    if within is not None and within.end < within.start:
        raise BadRequest("end: must lie behind start")
    return await traces.find(store, trace_id(request.path_params["id"]), within)


def _protobuf(request: Request) -> bool:
    return _PROTOBUF in request.headers.get("accept", "")


def _json(body: object, status: int = 200) -> Response:
    return Response(dumps(body), status, media_type="application/json")


def _text(status: int, text: str) -> Response:
    return Response(text, status, media_type="text/plain")
