"""
The routes of Jaeger's API below `/jaeger/api`.

Unknown parameters are ignored, because data sources of different versions send different ones. A
refusal has Jaeger's shape, `{"data": null, "errors": [{"code", "msg"}]}`, which both clients show.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector.model import Signal
from collector.query.ids import TRACE_ID
from collector.query.jaeger import search
from collector.query.parameters import BadParameter
from collector.query.tempo.candidates import Bounds, Reader
from collector.stores.base import Query, Store, dumps

Answer = Callable[[Request, Callable[[], Awaitable[Response]]], Awaitable[Response]]
Ask = Callable[[Store, Request, float], Awaitable[Response]]

MOST_COUNTED: Final = 100_000
"""Spans, the newest, that the lists of services and operations are made of."""
DAY_MS: Final = 86_400_000
"""How far dependencies look back unless it is said."""
_MILLI: Final = 10**6


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

    def endpoint(ask: Ask) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            response = await answer(request, partial(_refusing, ask, store, request, seconds))
            response.headers.update(headers)
            return response

        return handle

    table: dict[str, Ask] = {
        "services": _services,
        "services/{service:path}/operations": _operation_names,
        "operations": _operations,
        "traces": _search,
        "traces/{id}": _trace,
        "dependencies": _dependencies,
        "{rest:path}": _nothing,
    }
    return [Route(f"/jaeger/api/{path}", endpoint(ask)) for path, ask in table.items()]


async def _refusing(ask: Ask, store: Store, request: Request, seconds: float) -> Response:
    try:
        return await ask(store, request, seconds)
    except BadParameter as wrong:
        return _error(400, str(wrong))


async def _services(store: Store, _request: Request, _seconds: float) -> Response:
    found = await store.services(Query(signal=Signal.TRACES), most=MOST_COUNTED)
    names = [row.name for row in found.rows]
    return _data(names, total=len(names))


async def _operation_names(store: Store, request: Request, _seconds: float) -> Response:
    found = await _counted(store, request.path_params["service"], ())
    names = sorted({name for name, _ in found})
    return _data(names or None, total=len(names))


async def _operations(store: Store, request: Request, _seconds: float) -> Response:
    service = request.query_params.get("service", "")
    if not service:
        raise BadParameter("service", "parameter 'service' is required")
    kind = request.query_params.get("spanKind", "")
    found = await _counted(store, service, (kind.upper(),) if kind else ())
    rows = [{"name": name, "spanKind": word} for name, word in sorted(found)]
    return _data(rows or None, total=len(rows))


async def _counted(store: Store, service: str, kinds: tuple[str, ...]) -> set[tuple[str, str]]:
    query = Query(signal=Signal.TRACES, service=service)
    found = await store.operations(query, kinds=kinds, most=MOST_COUNTED)
    return {(row.name, row.kind.lower()) for row in found.rows}


async def _search(store: Store, request: Request, seconds: float) -> Response:
    parameters = request.query_params
    named = list(dict.fromkeys(map(_trace_id, parameters.getlist("traceID"))))
    if named:
        reading = Reader(store, Bounds(seconds=seconds))
        return _data(await search.whole(reading, named[: search.MOST]), partial=reading.partial)
    asked = search.asked(parameters, time.time_ns())
    found, partial_because = await search.search(store, asked, seconds)
    return _data(found, partial=partial_because)


async def _trace(store: Store, request: Request, seconds: float) -> Response:
    trace_id = _trace_id(request.path_params["id"])
    reading = Reader(store, Bounds(seconds=seconds))
    found = await search.whole(reading, [trace_id])
    if not found:
        return _error(404, "trace not found")
    return _data(found, partial=reading.partial)


async def _dependencies(store: Store, request: Request, _seconds: float) -> Response:
    parameters = request.query_params
    end = _milliseconds(parameters, "endTs", time.time_ns() // _MILLI)
    back = _milliseconds(parameters, "lookback", DAY_MS)
    return _data(await search.dependencies(store, max(0, end - back) * _MILLI, (end + 1) * _MILLI))


async def _nothing(_store: Store, request: Request, _seconds: float) -> Response:
    path = request.url.path[:200]
    return _error(404, f"nothing answers at {path}; this is Jaeger's API of the collector")


def _milliseconds(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 13:
        raise BadParameter(name, "write milliseconds")
    return int(text)


def _trace_id(text: str) -> str:
    """A trace id of any length up to 32 digits, with leading zeros."""
    found = text.lower().rjust(32, "0")
    if not text or not TRACE_ID.fullmatch(found):
        raise BadParameter("traceID", "write up to 32 hex digits")
    return found


def _data(data: Any, *, total: int = 0, partial: str = "") -> Response:
    errors = [{"code": 200, "msg": partial}] if partial else None
    body = {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}
    return Response(dumps(body), media_type="application/json")


def _error(status: int, message: str) -> Response:
    body = {
        "data": None, "total": 0, "limit": 0, "offset": 0,
        "errors": [{"code": status, "msg": message}],
    }  # fmt: skip
    return Response(dumps(body), status, media_type="application/json")
