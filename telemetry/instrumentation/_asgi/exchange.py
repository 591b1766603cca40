"""
One request, from its headers to its record: what the middleware does beside calling the application.

Begin: read the ids, begin a scope with them, find or await the server span. While it runs: add the
headers to the answer. When the last piece is sent: one log record with method, route, status and
duration, which also ties correlation id and trace id together, and the decision whether a sampled
request is kept. An answer of 500 is recorded when the application has returned, because only then is
the exception known. End: the scope is left, whatever happened.

The record's place in the code is the endpoint that handled the request.
"""

import logging
import time
from collections.abc import MutableMapping
from contextvars import Token
from typing import Any, Final

from opentelemetry import baggage, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context, attach, detach

from telemetry import _events, _otel_context, _values
from telemetry import attributes as names
from telemetry._context import request as requests
from telemetry._context import scope as _context
from telemetry._context.request import HELD, PASS, SILENT, Request
from telemetry._logs import access_lines, logger
from telemetry._logs import root as _attach
from telemetry._traces.span import error_type
from telemetry.instrumentation._asgi import headers as asgi_headers
from telemetry.instrumentation._asgi.headers import Header
from telemetry.instrumentation._asgi.options import Options, rule_for

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

STATE: Final = "otelier.request"
"""Key in the scope: the headers of the answer, put there by the outermost of our middlewares."""
ACCESS: Final = "telemetry.access"
METHODS: Final = frozenset(
    "CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split()  # noqa: SIM905 - reads better
)
PATH_TEXT: Final = 512
STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")

_access = logging.getLogger(ACCESS)


class Exchange:
    """
    What is known of one request.

    Args:
        options: of the middleware.
        scope: of the request; its headers lose what must not be believed.
    """

    def __init__(self, options: Options, scope: Scope) -> None:
        self._options = options
        self._scope = scope
        self._begun = time.perf_counter()
        self.websocket = scope["type"] == "websocket"
        self.headers: list[Header] = []
        self.status: int | None = None
        self.started = False
        self.disconnected = False
        self.inside = "app" in scope
        """Whether a framework has the request already, and answers errors by itself."""
        self._trailers = False
        self._finished_s: float | None = None
        self._recorded = False
        self._error: BaseException | None = None
        _attach.ensure()
        access_lines.served(access=options.access_log)
        request_id, correlation_id = asgi_headers.ids(scope["headers"])
        outer = requests.current.get()
        entry = _entry(outer)
        strangers = () if options.trust_baggage else _context.carried()
        travelling: Any = None
        if entry is None:
            asgi_headers.without_strangers(scope, distrusted=strangers)
        elif arrived := _context.arrived_ids(None):
            if options.trust_baggage:
                correlation_id = (
                    correlation_id or str(arrived.get(names.CORRELATION_ID, "")) or None
                )
            else:
                for name in arrived:
                    travelling = baggage.remove_baggage(name, travelling)
        if correlation_id is None and options.trust_baggage:
            correlation_id = _from_baggage(scope)
        self._request_id = request_id or _context.new_correlation_id()
        self._correlation_id = correlation_id or _context.new_correlation_id()
        ids: dict[str, _values.Value] = {
            names.REQUEST_ID: self._request_id,
            names.CORRELATION_ID: self._correlation_id,
        }
        if entry is not None:
            _otel_context.stamp(entry, ids)
        self.request = self._gated(entry)
        self._shared = _context.Shared(ids)
        self._scope_tokens = _context.begin_request(self._shared)
        self._token = requests.current.set(self.request)
        self._otel_token = attach(travelling) if travelling is not None else None
        scope[STATE] = self.headers

    def _gated(self, entry: Any) -> Request:
        """What is to become of the records of this request."""
        options, scope = self._options, self._scope
        path = scope["path"]
        paths = [path]
        root = scope.get("root_path", "")
        if root and path.startswith(root):
            paths.append(path[len(root) :])
        method = scope.get("method", "GET")
        if rule_for(options.exclude, method, paths) is not None or options.standard.excludes(scope):
            return Request(SILENT, entry=entry)
        rule = rule_for(options.sample, method, paths) if options.sample else None
        return Request(PASS, entry=entry) if rule is None else Request(HELD, rule[2], entry)

    # --- the answer ---

    def sending(self, message: Message) -> Message:
        """What is sent in place of the application's message."""
        if message["type"] not in STARTS:
            return message
        self.started = True
        if not self.websocket:
            self.status = message["status"]
            self._trailers = message.get("trailers", False)
            self._name_entry()
        self._capture(message.get("headers"))
        self.fill_headers()
        headers = asgi_headers.added(message.get("headers"), self.headers)
        return {**message, "headers": headers}

    def fill_headers(self) -> list[Header]:
        """The headers of the answer, with the ids and the trace as they are now."""
        span = self.request.entry or trace.get_current_span()
        correlation_id = str(self._shared.ids.get(names.CORRELATION_ID, ""))
        if correlation_id is not self._correlation_id and not asgi_headers.usable(
            correlation_id.encode("utf-8", "replace")
        ):
            correlation_id = self._correlation_id  # the application's own, unfit for a header
        self.headers[:] = asgi_headers.of_answer(
            self._request_id,
            correlation_id,
            span.get_span_context(),
            # of a silent request no trace will be found
            "none" if self.request.gate == SILENT else self._options.trace_header,
        )
        return self.headers

    def sent(self, message: Message) -> None:
        """Notice the last piece of the answer."""
        kind = message["type"]
        last = (
            (kind == "http.response.body" and not message.get("more_body") and not self._trailers)
            or (kind == "http.response.trailers" and not message.get("more_trailers"))
            or kind == "http.response.pathsend"
        )
        if last and self._finished_s is None:
            self._finished_s = time.perf_counter() - self._begun
            if self.status is not None and self.status < 500:
                self._record()

    def _capture(self, answered: Any) -> None:
        """Put on the server span the headers that OpenTelemetry's variables name."""
        entry, wanted = self.request.entry, self._options.standard
        if entry is None or (wanted.request is None and wanted.response is None):
            return
        found = wanted.captured(self._scope["headers"], answered or ())
        if found and entry.is_recording():
            entry.set_attributes(found)

    def _name_entry(self) -> None:
        """Give the server span its route, where its owner does not know routes."""
        entry = self.request.entry
        if entry is None or not entry.is_recording():
            return
        if _otel_context.attribute(entry, names.HTTP_ROUTE) is not None:
            return
        route = self._route()
        if route is not None:
            entry.set_attribute(names.HTTP_ROUTE, route)
            entry.update_name(f"{self._method()} {route}")

    # --- the end ---

    def failed(self, error: BaseException) -> None:
        """Notice what the application raised."""
        self._error = error
        if isinstance(error, Exception) and not self._harmless(error):
            self.request.error_type = error_type(error)
            self.request.keep()

    def _harmless(self, error: BaseException) -> bool:
        """A client that leaves is no error."""
        name = type(error).__name__
        if name == "WebSocketDisconnect":
            return getattr(error, "code", None) in (1000, 1001)
        return name == "ClientDisconnect" or (self.disconnected and isinstance(error, OSError))

    def end(self) -> None:
        """Record what is not recorded yet, and leave the scope."""
        try:
            error = self._error
            if isinstance(error, Exception) and not self._harmless(error):
                self._tell(error)
            if not self._recorded:
                self._record()
        finally:
            if self._otel_token is not None:
                detach(self._otel_token)
            try:
                requests.current.reset(self._token)
                _context.end_request(self._scope_tokens)
            except ValueError:
                pass  # closed from another context, which ends too

    def _tell(self, error: Exception) -> None:
        """Record the exception in full, unless that has been done."""
        if self.request.recorded or self.request.gate == SILENT:
            return
        kind = "websocket connection" if self.websocket else "request"
        token = self._enter_trace()
        try:
            _events.record_once(
                names.HTTP_EXCEPTION,
                error,
                self._fields(),
                scope=ACCESS,
                body=f"unhandled exception in a {kind}",
                severity=SeverityNumber.ERROR,
            )
        finally:
            if token is not None:
                detach(token)
        self.request.recorded = True

    def _record(self) -> None:
        """Decide about a sampled request, and write its record."""
        self._recorded = True
        seconds = self._finished_s
        if seconds is None:
            seconds = time.perf_counter() - self._begun
        request = self.request
        error = isinstance(self._error, Exception) and not self._harmless(self._error)
        failed = error or (self.status is not None and self.status >= 500)
        slow = not self.websocket and seconds >= self._options.slow
        kept = request.settle(keep=failed or slow)
        if not kept or not self._options.access_log:
            return
        level = logging.INFO
        if failed:
            # the exception, where there is one, is the ERROR; this record is about the request
            level = logging.WARNING if error or request.recorded else logging.ERROR
        if not _access.isEnabledFor(level):
            return
        fields: dict[str, Any] = {
            **self._fields(),
            names.EXECUTION_TIME_MS: round(seconds * 1000, 3),
            names.EXECUTION_STATUS: self._outcome(failed=failed),
        }
        if self.status is None and error and not self.websocket:
            self.status = fields[names.HTTP_STATUS] = (
                500  # what the server, or the framework, will say
            )
        if failed:
            fields[names.ERROR_TYPE] = request.error_type or str(self.status)
        token = self._enter_trace()
        try:
            self._log(level, fields)
        finally:
            if token is not None:
                detach(token)

    def _outcome(self, *, failed: bool) -> str:
        if failed:
            return "error"
        answered = self.websocket or self._finished_s is not None
        return "success" if answered and self._error is None else "cancelled"

    def _fields(self) -> dict[str, Any]:
        """What the record and the exception say about the request."""
        known = _context.effective()
        fields: dict[str, Any] = {
            names.REQUEST_ID: known.get(names.REQUEST_ID, self._request_id),
            names.CORRELATION_ID: known.get(names.CORRELATION_ID, self._correlation_id),
            names.URL_PATH: _values.text(self._scope["path"], PATH_TEXT),
        }
        if not self.websocket:
            fields[names.HTTP_METHOD] = self._method()
            if self.status is not None:
                fields[names.HTTP_STATUS] = self.status
        route = self._route()
        if route is not None:
            fields[names.HTTP_ROUTE] = route
        return fields

    def _method(self) -> str:
        method = self._scope.get("method", "")
        return method if method in METHODS else "_OTHER"

    def _route(self) -> str | None:
        """The template: as the server span has it, else as the router says."""
        route = _otel_context.attribute(self.request.entry, names.HTTP_ROUTE)
        if route is None:
            route = getattr(self._scope.get("fastapi.telemetry"), "route", None)
        if route is None:
            included = self._scope.get("fastapi")  # a router's prefix is known there only
            matched = isinstance(included, dict) and included.get("effective_route_context")
            matched = matched or self._scope.get("route")
            template = getattr(matched, "path_format", None) or getattr(matched, "path", None)
            if isinstance(template, str):
                route = self._scope.get("root_path", "").rstrip("/") + template
        return None if route is None else _values.text(route, _values.ID_TEXT)

    def _log(self, level: int, fields: dict[str, Any]) -> None:
        endpoint = self._scope.get("endpoint")
        code = getattr(endpoint, "__code__", None)
        verb = "WS" if self.websocket else fields[names.HTTP_METHOD]
        outcome = "" if self.status is None else f" {self.status}"
        if self.status is None and not self.websocket:
            outcome = " left by the client" if self.disconnected else " without an answer"
        place = fields.get(names.HTTP_ROUTE, "(no route)")
        body = f"{verb} {place}{outcome}"
        file = getattr(code, "co_filename", __file__)
        line = getattr(code, "co_firstlineno", 0)
        name = getattr(endpoint, "__name__", None) or type(endpoint).__name__ if endpoint else "-"
        lines = logger.fast_path
        if lines is not None and lines.say(_access, level, body, fields, (file, name, line)):
            return
        record = _access.makeRecord(ACCESS, level, file, line, body, (), None, name)
        record.__dict__.update(fields)
        _access.handle(record)

    def _enter_trace(self) -> Token[Context] | None:
        """Make the server span the current one, for records after it has ended, unless it is."""
        entry = self.request.entry
        if entry is None or entry is _otel_context.current_context().get(_otel_context.SPAN_KEY):
            return None
        return attach(trace.set_span_in_context(entry))


def _entry(outer: Request | None) -> Any:
    """The server span of this request, if it runs already: not that of a request that calls us."""
    current: Any = trace.get_current_span()
    if not current.is_recording():
        return None
    entry = getattr(current, _context.ENTRY, None)
    if entry is None and getattr(current, "kind", None) is trace.SpanKind.SERVER:
        entry = current
    return None if outer is not None and entry is outer.entry else entry


def _from_baggage(scope: Scope) -> str | None:
    """The correlation id in the `baggage` header, for when its span has not started yet."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415 - rarely

    values = [value for name, value in scope["headers"] if name.lower() == b"baggage"]
    if not values or names.CORRELATION_ID not in _context.carried():
        return None
    carrier = {"baggage": b",".join(values).decode("latin-1")}
    context = W3CBaggagePropagator().extract(carrier)
    found = _context.arrived_ids(context).get(names.CORRELATION_ID)
    return found if isinstance(found, str) and asgi_headers.usable(found.encode()) else None
