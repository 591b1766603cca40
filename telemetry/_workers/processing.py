"""
The block of one order, from the message to the audit record.

The block attaches the sender's trace, opens the span, binds the ids, and takes all of that back at
its end, whatever happened in between. Everything is recorded at the end and inside the block's
scope, so that the record, the exception and the exemplar point at the span; statistics are written
after it, since they are about no single order.

A block that was entered before a fork and left in the child is recorded by the parent alone.
"""

import functools
import time
from collections.abc import Mapping
from contextvars import Token
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context

from telemetry import _diagnostics, _events, _otel_context, _values
from telemetry import attributes as names
from telemetry._context import scope as _context
from telemetry._context.recorded import already_recorded
from telemetry._logs import record
from telemetry._native import process_id
from telemetry._traces import span as spans
from telemetry._values import Value
from telemetry._workers import counters as numbers
from telemetry._workers import propagation as travelling
from telemetry._workers.worker import WorkerState

_SUCCESS, _FAILURE, _CANCELLED = numbers.OUTCOMES
_CONSUMER, _INTERNAL = trace.SpanKind.CONSUMER, trace.SpanKind.INTERNAL
_tracer = functools.cache(functools.partial(trace.get_tracer, "telemetry"))
_FACTS: Final = {
    "retry": names.ORDER_RETRY_COUNT,
    "fallback": names.ORDER_FALLBACKS,
    "pool_error": names.ORDER_POOL_ERRORS,
}


class Processing:
    """
    The block of one order: what `Order` shows, from its beginning to its end.

    Args:
        worker: that processes it.
        ids: of the order, by the keywords of `log_context`.
        symbol: the instrument.
        order_type: what kind of order it is.
        headers: of the message.
        fields: of the span and the records.
    """

    __slots__ = (
        "_begun",
        "_facts",
        "_failure",
        "_fields",
        "_headers",
        "_ids",
        "_notes",
        "_numbers",
        "_pid",
        "_scope",
        "_span",
        "_symbol",
        "_timings",
        "_token",
        "_type",
        "_wait",
        "_worker",
    )

    def __init__(
        self,
        worker: WorkerState,
        *,
        ids: dict[str, object],
        symbol: object,
        order_type: object,
        headers: Mapping[Any, Any] | None,
        fields: dict[str, object],
    ) -> None:
        self._worker = worker
        self._ids = ids
        self._symbol = symbol
        self._type = order_type
        self._headers = headers
        self._fields = fields
        self._pid = 0
        self._begun = 0.0
        self._numbers: numbers.WorkerCounters | None = None
        self._span: trace.Span = trace.INVALID_SPAN
        self._token: Any = None
        self._scope: Token[dict[str, Value]] | None = None
        self._facts: dict[str, Value] = {}
        self._timings: dict[str, float] = {}
        self._notes: dict[str, list[str]] = {}
        self._wait: float | None = None
        self._failure: tuple[object, str] | None = None

    def _start(self) -> None:
        if self._pid:
            _diagnostics.say("order", "an order block was entered twice: make one for each order")
            return
        worker = self._worker
        found = worker.here()
        self._pid, self._begun = found.pid, time.perf_counter()
        context, links, kind = _otel_context.current_context(), None, _INTERNAL
        if self._headers is not None:
            kind = _CONSUMER
            context, links = self._arrive(self._headers, context)
        before = _context.effective(context)
        if self._ids.get("correlation_id") is None and names.CORRELATION_ID not in before:
            self._ids["correlation_id"] = _context.new_correlation_id()
        ids = _context.read(self._ids)
        facts = self._facts = worker.facts.copy()
        if self._symbol is not None:
            facts[names.ORDER_SYMBOL] = _values.text(self._symbol, _values.ID_TEXT)
        if self._type is not None:
            facts[names.ORDER_TYPE] = self._type = _values.text(self._type, _values.ID_TEXT)
        # The scope begins after the span, which else would be stamped with what it has already.
        span = self._span = _tracer().start_span(
            worker.span_name, context, kind, {**facts, **ids}, links
        )
        self._scope, self._token = _context.enter(span, ids, context)
        if before:  # it was stamped with these, and ours win
            ours = {name: ids[name] for name in ids if before.get(name, ids[name]) != ids[name]}
            if ours:
                _otel_context.stamp(span, ours)
        _context.stamp_entry(span, ids)
        shared = found.shared
        with shared.lock:
            found.active += 1
            shared.active += 1
        self._numbers = found

    def _arrive(
        self, headers: Mapping[Any, Any], here: Context
    ) -> tuple[Context, list[trace.Link] | None]:
        """What the headers bring: trace and baggage, ids, the time of sending."""
        try:
            carrier = travelling.read(headers)
        except Exception as error:
            _diagnostics.fault("headers", error)
            return here, None
        self._wait = travelling.waited(carrier)
        for keyword, value in travelling.ids(carrier).items():
            if self._ids.get(keyword) is None:
                self._ids[keyword] = value
        arrived = propagate.extract(carrier, here)
        if not self._worker.link:
            return arrived, None
        own = trace.get_current_span(here)
        remote = trace.get_current_span(arrived).get_span_context()
        linked = remote.is_valid and remote != own.get_span_context()
        return trace.set_span_in_context(own, arrived), [trace.Link(remote)] if linked else None

    def _end(self, error: BaseException | None) -> None:
        found, self._numbers = self._numbers, None
        mine = found is not None and found.pid == process_id()
        try:
            if found is not None and mine:
                self._finish(found, error)
        except Exception as failure:
            _diagnostics.fault("order", failure)
        finally:
            self._leave()
        try:
            if found is not None and mine:
                self._worker.written(found)
        except Exception as failure:
            _diagnostics.fault("statistics", failure)

    def _leave(self) -> None:
        """Put back the scope and the trace of before."""
        token, self._token = self._token, None
        scope, self._scope = self._scope, None
        try:
            if token is not None:
                _otel_context.detach_context(token)
            if scope is not None:
                _context.leave(scope)
        except ValueError:
            pass  # left in another context than entered, which ends by itself
        except Exception as failure:
            _diagnostics.fault("order", failure)

    def _finish(self, found: numbers.WorkerCounters, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._begun
        problem, error_type, outcome = self._judge(error)
        if error_type is not None:
            error_type = found.shared.label("error_type", _values.text(error_type))
        sequence = self._record(found, outcome, error_type, seconds)
        facts = self._outcome(outcome, error_type, seconds)
        try:
            self._emit(found, problem, outcome, facts, sequence)
        finally:
            self._span.end()

    def _emit(
        self,
        found: numbers.WorkerCounters,
        problem: object,
        outcome: str,
        facts: dict[str, Value],
        sequence: int,
    ) -> None:
        """The end of the order, on its span and as records; `sequence` numbers the audit record."""
        worker = self._worker
        _otel_context.stamp(self._span, facts)
        event = worker.role.event
        if outcome == _FAILURE:
            event = names.ORDER_FAILED
            self._span.set_status(trace.StatusCode.ERROR)
            self._log_failure(problem, {**self._facts, **facts})
        elif outcome == _CANCELLED:
            event = names.ORDER_INTERRUPTED
        whole: dict[str, Any] = {**self._facts, **facts}
        whole[names.ORDER_WORKER_INSTANCE] = found.instance
        whole[names.ORDER_SEQUENCE] = sequence
        _events.account(event, whole, scope=worker.name)

    def _judge(self, error: BaseException | None) -> tuple[object, str | None, str]:
        """What went wrong, its label, and the outcome."""
        if error is None:
            return (None, None, _SUCCESS) if self._failure is None else (*self._failure, _FAILURE)
        outcome = _FAILURE if isinstance(error, Exception) else _CANCELLED
        return error, spans.error_type(error), outcome

    def _record(
        self, found: numbers.WorkerCounters, outcome: str, error_type: str | None, seconds: float
    ) -> int:
        """Count the order, for the statistics and for the metrics; the number of its audit record."""
        worker, shared = self._worker, found.shared
        role, kind = worker.role, self._type
        with shared.lock:
            found.sequence = sequence = found.sequence + 1
            found.ended(outcome, seconds)
            if outcome == _SUCCESS:
                found.counted(role.done)
                if kind is not None and kind in role.types:
                    found.counted(role.types[str(kind)])
        labels = shared.ends[outcome]
        if error_type is not None:
            labels = {**labels, names.ERROR_TYPE: error_type}
        durations, waits = numbers.instruments()
        durations.record(seconds, labels)
        if self._wait is not None:
            waits.record(self._wait, shared.labels)
        return sequence

    def _outcome(self, outcome: str, error_type: str | None, seconds: float) -> dict[str, Value]:
        """What the end of the order adds to the span and to the records."""
        facts: dict[str, Value] = {
            names.ORDER_OUTCOME: outcome,
            names.ORDER_PROCESSING_TIME_MS: _milliseconds(seconds),
        }
        if self._wait is not None:
            facts[names.ORDER_WAIT_MS] = round(self._wait * 1000, 3)
        if self._timings:
            facts[names.ORDER_TIMINGS] = {
                key: _milliseconds(spent) for key, spent in self._timings.items()
            }
        for kind, labels in self._notes.items():
            facts[_FACTS[kind]] = labels if kind == "fallback" else len(labels)
        if error_type is not None:
            facts[names.ERROR_TYPE] = error_type
        if self._fields:
            for key, value in _values.fields(self._fields).items():
                name = _context.ATTRIBUTE.get(key, key)
                if name not in self._facts and value is not None:  # ours cannot be overwritten
                    facts.setdefault(name, value)
        return facts

    def _log_failure(self, problem: object, facts: dict[str, Value]) -> None:
        """One ERROR record, with the stack unless the exception was recorded before."""
        fields: dict[str, Any] = {**facts, names.ORDER_WORKER_ERRORS: self._worker.errors}
        stack = None
        if isinstance(problem, BaseException):
            fields[record.EVENT_NAME] = names.ORDER_EXCEPTION
            stack = None if already_recorded(problem) else problem
            text = f"order failed: {spans.error_type(problem)}: {_values.text(problem, 1000)}"
        else:
            fields[record.EVENT_NAME] = names.ORDER_FAILURE
            text = f"order failed: {_values.text(problem, 1000)}"
        self._worker.logger.error(text, extra=fields, exc_info=stack, stacklevel=6)


def _milliseconds(seconds: float) -> float:
    """To the microsecond; `round` takes ten times as long, since it goes by way of a text."""
    return int(seconds * 1_000_000 + 0.5) / 1000
