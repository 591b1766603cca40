"""
`query`: the HTTP port that answers questions, by default http://localhost:4319.

A thin layer: it checks who asks (`Guard`), reads the parameters, calls `service` on one store and
sends its JSON. The Host header is compared with an exact list, because a page from anywhere can
make a browser send requests to localhost under a name of its own (DNS rebinding); a foreign Origin
is refused and no CORS header is ever sent. Without a token the port must stay on loopback.

Questions are bounded: rows, spans, time, how many at once. One that the client no longer waits for
is cancelled. A store that is down is 503 with Retry-After; nothing answers with a traceback.
"""

import asyncio
import contextlib
import hashlib
import hmac
import html
import ipaddress
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, Self, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from collector.errors import Retryable, StartFailed
from collector.http.exposure import unauthenticated_allowed
from collector.http.server import serving
from collector.model import Duration, ExporterId, Host, Secret
from collector.query import paged, tail
from collector.query.jaeger import routes as jaeger
from collector.query.loki.api import LokiApi
from collector.query.page.files import Page
from collector.query.parameters import BadParameter
from collector.query.searched import PAGE
from collector.query.tail import Lines
from collector.query.tempo import routes as tempo
from collector.query.trace import Limits, trace
from collector.stores.base import Store, dumps

MAX_ID: Final = 1024
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class QueryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of `query`."""

    endpoint: str = "localhost:4319"
    """Address to listen on. Anything but loopback needs a token."""
    store: ExporterId | None = None
    """The exporter to ask. Without it the first store that is part of a pipeline."""
    token: Secret = Secret("")
    """When set, every request needs `Authorization: Bearer <token>`."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that a Host header may carry, without port; loopback names are always allowed."""
    dangerously_allow_unauthenticated: bool = False
    """Listen beyond loopback without a token: every client that reaches the port can read everything."""
    timeout: Duration = Duration(30)
    """How long one question may take."""
    max_concurrent: int = 16
    """How many questions run at once; more wait until one ends."""
    queue_timeout: Duration = Duration(10)
    """How long a question waits for its start before it is answered 429."""
    max_rows: int = 5000
    """The largest `limit` of a question about logs, from 1000 to 9999."""
    max_tails: int = 8
    """How many may follow new log records at once (`/api/v1/tail`)."""
    max_traces: int = 50
    """The most traces in the answer to one id."""
    max_spans: int = 10_000
    """The most spans, and the most log records, in the answer to one id."""

    def __post_init__(self) -> None:
        """Refuse what cannot work or would expose the data."""
        positive = ("timeout", "queue_timeout", "max_concurrent", "max_tails", "max_traces")
        for name in (*positive, "max_spans"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive")
        if not 1000 <= self.max_rows < PAGE:
            raise ValueError(f"`max_rows` must be from 1000 to {PAGE - 1}")
        if (
            not _is_loopback(_name(self.endpoint))
            and not self.token
            and not self.dangerously_allow_unauthenticated
            and not unauthenticated_allowed()
        ):
            raise ValueError(
                f'endpoint "{self.endpoint}" is reachable from other machines without a token; '
                "set `token`, or use localhost; in a container network of your own, start with "
                "--allow-unauthenticated (TELEMETRY_ALLOW_UNAUTHENTICATED=1)"
            )


class QueryServer:
    """The extension: listens while it is entered."""

    Config = QueryConfig

    def __init__(self, config: QueryConfig, host: Host) -> None:
        self.endpoints: dict[str, str] = {}
        """What it listens on, `http` -> `host:port` with the real port, while it runs."""
        self._config = config
        self._host = host
        self._stack = contextlib.AsyncExitStack()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Choose the store and start to listen."""
        self._closing.clear()
        app = self._app(self._store())
        address = await self._stack.enter_async_context(
            serving(app, self._config.endpoint, websockets=True)
        )
        self.endpoints["http"] = address
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Answer what is open, end what never would, then stop."""
        self._closing.set()
        await self._stack.aclose()
        self.endpoints.clear()

    def _store(self) -> Store:
        stores = self._host.stores
        wanted = self._config.store or next(iter(stores), None)
        if wanted is None or wanted not in stores:
            what = f'exporter "{wanted}" is not' if wanted else "there is no exporter that is"
            known = (
                f"choose one of {', '.join(stores)}" if stores else "add sqlite or mongodb to one"
            )
            raise StartFailed(f"{what} a store in a pipeline; {known}")
        found: Store = stores[wanted]
        return found

    def _app(self, store: Store) -> ASGIApp:
        questions = Questions(store, self._config, self._host, self._closing)
        app = Starlette(
            routes=[
                Route("/", questions.index),
                Route("/api/v1/trace/{id:path}", questions.trace),
                *questions.paged(),
                Route("/api/v1/tail", questions.tail),
                Route("/api/v1/stats", questions.stats),
                *questions.loki(),
                *tempo.routes(store, questions.answer, HEADERS, seconds=0.7 * self._config.timeout),
                *jaeger.routes(
                    store, questions.answer, HEADERS, seconds=0.7 * self._config.timeout
                ),
            ],
            exception_handlers={HTTPException: _http_error},
        )
        app.router.redirect_slashes = False
        names = {"localhost", "127.0.0.1", "[::1]", _name(self._config.endpoint)}
        guard = Guard(
            app,
            names=frozenset(names | {name.lower() for name in self._config.allowed_hosts}),
            token=self._config.token,
        )
        return Page(guard)


class Guard:
    """ASGI middleware: only a request that may ask comes through."""

    def __init__(self, app: ASGIApp, *, names: frozenset[str], token: str) -> None:
        self._app = app
        self._names = names
        self._token = hashlib.sha256(token.encode()).digest() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = self._refuse(scope["headers"])
        await (refusal or self._app)(scope, receive, send)

    def _refuse(self, headers: list[tuple[bytes, bytes]]) -> Response | None:
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        named = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        # A browser under a foreign name cannot know the token, so with one any name will do.
        if self._token is None and (named is None or named[1] not in self._names):
            return error(421, "this Host is not served here; ask localhost, or add `allowed_hosts`")
        own = {f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts}
        for name, value in headers:
            if name == b"origin" and value.decode("latin-1").lower() not in own:
                return error(403, "requests of other web pages are not answered")
        if self._token is not None:
            given = [value for name, value in headers if name == b"authorization"]
            scheme, _, secret = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
            right = hmac.compare_digest(hashlib.sha256(secret).digest(), self._token)
            if scheme.lower() != b"bearer" or not right:
                return error(
                    401, "a token is needed: Authorization: Bearer", {"WWW-Authenticate": "Bearer"}
                )
        return None


class Questions:
    """The routes."""

    def __init__(
        self, store: Store, config: QueryConfig, host: Host, closing: asyncio.Event
    ) -> None:
        self._store = store
        self._config = config
        self._host = host
        self._closing = closing
        self._tails = 0
        self._places = asyncio.Semaphore(config.max_concurrent)
        self._warned_at = -math.inf
        self._limits = Limits(
            traces=config.max_traces, spans=config.max_spans, logs=config.max_spans
        )

    async def trace(self, request: Request) -> Response:
        """GET /api/v1/trace/{id}."""

        async def ask() -> Response:
            _no_parameters(request)
            text = request.path_params["id"]
            if not text.strip() or len(text) > MAX_ID:
                raise BadParameter("id", f"write an id of 1 to {MAX_ID} characters")
            found = await trace(self._store, text, self._limits)
            return _json(200 if found.found else 404, dumps(found))

        return await self.answer(request, ask)

    def paged(self) -> list[BaseRoute]:
        """GET /api/v1/... for each question of the table."""

        def route(what: str) -> BaseRoute:
            async def handle(request: Request) -> Response:
                async def ask() -> Response:
                    body = await paged.ask(
                        self._store,
                        what,
                        request.query_params.multi_items(),
                        now_unix_nano=time.time_ns(),
                        max_rows=self._config.max_rows,
                    )
                    return _json(200, body)

                return await self.answer(request, ask)

            return Route(f"/api/v1/{what}", handle)

        return [route(what) for what in paged.PAGED]

    async def tail(self, request: Request) -> Response:
        """GET /api/v1/tail: an answer that ends when the client leaves."""

        async def ask() -> Response:
            pairs = request.query_params.multi_items()
            asked = tail.question(pairs, now_unix_nano=time.time_ns())
            if self._tails >= self._config.max_tails:
                busy = f"{self._config.max_tails} follow already; ask again later"
                return error(429, busy, _retry_after(10))
            lines = self._following(tail.tail(self._store, asked))
            try:
                first = await anext(lines)
            except BaseException:
                await lines.aclose()
                raise
            return cast("Response", tail.Streaming(lines, first, HEADERS, self._closing))

        return await self.answer(request, ask)

    async def _following(self, lines: AsyncGenerator[Lines, None]) -> AsyncGenerator[Lines, None]:
        """The same lines, counted as one who follows."""
        self._tails += 1
        try:
            async for found in lines:
                yield found
        finally:
            self._tails -= 1
            await lines.aclose()

    async def stats(self, request: Request) -> Response:
        """GET /api/v1/stats."""

        async def ask() -> Response:
            _no_parameters(request)
            snapshot = getattr(self._host.stats, "snapshot", dict)
            return _json(200, dumps(snapshot()))

        return await self.answer(request, ask)

    def loki(self) -> list[BaseRoute]:
        """The routes of Loki's API, answered within the same limits."""
        return LokiApi(
            self._store,
            self.answer,
            HEADERS,
            most_tails=self._config.max_tails,
            closing=self._closing,
        ).routes()

    async def index(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        """GET /: what is here and how to ask, for who does not ask for a page (`page.files`)."""
        return Response(INDEX, media_type="text/html", headers=HEADERS)

    async def answer(self, request: Request, ask: Callable[[], Awaitable[Response]]) -> Response:
        """Answer within the limits; every failure has a status and a sentence."""
        try:
            response = await self._bounded(request, ask)
        except BadParameter as bad:
            response = error(400, bad.reason, parameter=bad.parameter)
        except Retryable as busy:
            response = error(503, str(busy), _retry_after(busy.delay_s))
        except Exception:
            if time.monotonic() - self._warned_at > 60:
                self._warned_at = time.monotonic()
                self._host.log.exception(
                    "a question could not be answered; more within 60 s unsaid"
                )
            response = error(
                503, "the store could not answer; see the collector's log", _retry_after(1)
            )
        self._host.stats.add("otelcol_query_requests", status=str(response.status_code))
        return response

    async def _bounded(self, request: Request, ask: Callable[[], Awaitable[Response]]) -> Response:
        try:
            async with asyncio.timeout(self._config.queue_timeout):
                await self._places.acquire()
        except TimeoutError:
            busy = f"{self._config.max_concurrent} questions are running; ask again"
            return error(429, busy, _retry_after(1))
        work = asyncio.ensure_future(ask())
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait(
                (work, gone), timeout=self._config.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                return work.result()
            if gone.done():
                return Response(status_code=499)  # the client reads no more
            slow = f"no answer within {self._config.timeout:g} s; narrow it with since or service"
            return error(503, slow, _retry_after(1))
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            self._places.release()


async def _gone(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def error(
    status: int, reason: str, headers: dict[str, str] | None = None, **details: str
) -> Response:
    """A refusal as JSON: `error` says what is wrong and what to do."""
    return _json(status, dumps({"error": reason, **details}), headers)


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, {**HEADERS, **(headers or {})}, media_type="application/json")


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


async def _http_error(request: Request, problem: Exception) -> Response:  # noqa: ARG001 - starlette
    """Starlette's own refusals, 404 and 405, in our shape."""
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    headers: Any = getattr(problem, "headers", None)
    if status == 405:
        return error(405, "this is a reading port: use GET", {"Allow": "GET, HEAD"})
    return error(status, "nothing here; GET / lists what is", dict(headers or {}))


def _no_parameters(request: Request) -> None:
    for name in request.query_params:
        raise BadParameter(name[:64], "unknown parameter; this question has none")


def _name(endpoint: str) -> str:
    """The host of `host:port`."""
    return endpoint.rpartition(":")[0].lower()


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


INDEX: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>collector</title></head><body>
<h1>collector</h1>
<p>Ask in a terminal: <code>collector trace ID</code>, <code>collector logs --help</code>. Over HTTP:</p>
<dl>
<dt><code>GET /api/v1/trace/ID</code></dt>
<dd>Everything about one id: trace, correlation, request, task, order or batch run id.</dd>
{questions}
<dt><code>GET /api/v1/stats</code></dt>
<dd>The collector's counters.</dd>
</dl>
</body></html>
""".format(
    questions="\n".join(
        f"<dt><code>GET /api/v1/{name}</code></dt>\n<dd>{html.escape(what)} Parameters:\n<ul>\n"
        + "\n".join(
            f"<li><code>{html.escape(key)}</code>: {html.escape(text)}</li>"
            for key, text in parameters.items()
        )
        + "\n</ul></dd>"
        for name, what, parameters in (
            *((name, kind.help, kind.parameters) for name, kind in paged.PAGED.items()),
            ("tail", "New log records as they come, one JSON object per line.", tail.PARAMETERS),
        )
    )
)
