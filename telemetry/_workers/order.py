"""
One order in a worker's hands, from the message to the audit record.

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
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import propagate, trace
from opentelemetry.context import Context

from telemetry import _diagnostics, _events, _otel_context, _values
from telemetry import attributes as names
from telemetry._context import scope as _context
from telemetry._context.block import Block
from telemetry._context.recorded import already_recorded
from telemetry._logs import record
from telemetry._native import process_id
from telemetry._traces import span as spans
from telemetry._values import Value
from telemetry._workers import counters as numbers
from telemetry._workers import propagation as travelling
from telemetry._workers.worker import Core, fault

NOTED: Final = 100
MOST_AT_ONCE: Final = 2**53
_SUCCESS, _FAILURE, _CANCELLED = numbers.OUTCOMES
_CONSUMER, _INTERNAL = trace.SpanKind.CONSUMER, trace.SpanKind.INTERNAL
_tracer = functools.cache(functools.partial(trace.get_tracer, "telemetry"))
_FACTS: Final = {
    "retry": names.ORDER_RETRY_COUNT,
    "fallback": names.ORDER_FALLBACKS,
    "pool_error": names.ORDER_POOL_ERRORS,
}


class Order(Block["Order"]):
    """
    The processing of one order; made by `Worker.order`, used once.

    Args:
        core: of the worker that processes it.
        ids: of the order, by the keywords of `log_context`.
        symbol: the instrument.
        order_type: what kind of order it is.
        headers: of the message.
        fields: of the span and the records.
    """

    __slots__ = (
        "_begun",
        "_core",
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
    )

    def __init__(
        self,
        core: Core,
        *,
        ids: dict[str, object],
        symbol: object,
        order_type: object,
        headers: Mapping[Any, Any] | None,
        fields: dict[str, object],
    ) -> None:
        self._core = core
        self._ids = ids
        self._symbol = symbol
        self._type = order_type
        self._headers = headers
        self._fields = fields
        self._pid = 0
        self._begun = 0.0
        self._numbers: numbers.Numbers | None = None
        self._span: trace.Span = trace.INVALID_SPAN
        self._token: Any = None
        self._scope: Token[dict[str, Value]] | None = None
        self._facts: dict[str, Value] = {}
        self._timings: dict[str, float] = {}
        self._notes: dict[str, list[str]] = {}
        self._wait: float | None = None
        self._failure: tuple[object, str] | None = None

    @property
    def span(self) -> trace.Span:
        """The OpenTelemetry span of this order."""
        return self._span

    @property
    def trace_id(self) -> str:
        """The trace that this order is told in, as hex."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def add(self, **fields: object) -> None:
        """Add fields to the span and the records at the end; numbers stay numbers."""
        self._fields.update(fields)

    def inject(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """As `Worker.inject`."""
        return travelling.inject(headers)

    def timing(self, step: str, *, span: bool = False) -> "Timing":
        """
        Time a step, as a `with` block; when it ends well it also counts, if the role counts it.

        Args:
            step: its name, one of few: `margin_calculation`.
            span: make it a span of its own as well.
        """
        return Timing(self, step, spans.span(step) if span else None)

    def count(self, counter: str, number: int = 1) -> None:
        """Add to a counter of the role, also if the order fails later: `order.count("sl_cancels")`."""
        try:
            whole = isinstance(number, int) and not isinstance(number, bool)
            if not whole or not 0 <= number < MOST_AT_ONCE:
                text = f"count({_values.text(counter, 100)}) takes a whole number, 0 or more"
                _diagnostics.say("count", text)
                return
            found = self._core.here()
            with found.ledger.lock:
                self._core.count(found, numbers.name(counter), number)
        except Exception as error:
            fault("count", error)

    def retry(self, reason: object, *, error: BaseException | None = None) -> None:
        """An attempt is repeated: counted by reason, and told as a WARNING."""
        self._note("retry", self._core.note("retry", reason, error))

    def fallback(self, target: object, *, error: BaseException | None = None) -> None:
        """Something else is used, such as the database instead of the cache: counted and told."""
        self._note("fallback", self._core.note("fallback", target, error))

    def pool_error(self, error: BaseException | None = None, *, pool: object = "redis") -> None:
        """A connection pool failed: counted, and told as an ERROR for the shared error file."""
        self._note("pool_error", self._core.note("pool_error", pool, error))

    def fail(self, error: object, *, error_type: str | None = None) -> None:
        """
        Say that the order failed, without raising.

        Args:
            error: an exception that was handled (it is recorded with its stack), or a text.
            error_type: a label, one of few; the exception's class by default.
        """
        kind = spans.error_type(error) if _values.is_a(error, BaseException) else numbers.OTHER
        told = kind if error_type is None else _values.text(error_type, _values.ID_TEXT)
        problem: object = error if _values.is_a(error, BaseException) else _values.text(error, 1000)
        self._failure = (problem, told)

    # --- the block ---

    def __enter__(self) -> Self:
        try:
            self._start()
        except Exception as error:
            fault("order", error)
        return self

    def _start(self) -> None:
        if self._pid:
            _diagnostics.say("order", "an order block was entered twice: make one for each order")
            return
        core = self._core
        found = core.here()
        self._pid, self._begun = found.pid, time.perf_counter()
        context, links, kind = _otel_context.current_context(), None, _INTERNAL
        if self._headers is not None:
            kind = _CONSUMER
            context, links = self._arrive(self._headers, context)
        before = _context.effective(context)
        if self._ids.get("correlation_id") is None and names.CORRELATION_ID not in before:
            self._ids["correlation_id"] = _context.new_correlation_id()
        ids = _context.read(self._ids)
        facts = self._facts = core.facts.copy()
        if self._symbol is not None:
            facts[names.ORDER_SYMBOL] = _values.text(self._symbol, _values.ID_TEXT)
        if self._type is not None:
            facts[names.ORDER_TYPE] = self._type = _values.text(self._type, _values.ID_TEXT)
        # The scope begins after the span, which else would be stamped with what it has already.
        span = self._span = _tracer().start_span(
            core.span_name, context, kind, {**facts, **ids}, links
        )
        self._scope, self._token = _context.enter(span, ids, context)
        if before:  # it was stamped with these, and ours win
            ours = {name: ids[name] for name in ids if before.get(name, ids[name]) != ids[name]}
            if ours:
                _otel_context.stamp(span, ours)
        _context.stamp_entry(span, ids)
        ledger = found.ledger
        with ledger.lock:
            found.active += 1
            ledger.active += 1
        self._numbers = found

    def _arrive(
        self, headers: Mapping[Any, Any], here: Context
    ) -> tuple[Context, list[trace.Link] | None]:
        """What the headers bring: trace and baggage, ids, the time of sending."""
        try:
            carrier = travelling.read(headers)
        except Exception as error:
            fault("headers", error)
            return here, None
        self._wait = travelling.waited(carrier)
        for keyword, value in travelling.ids(carrier).items():
            if self._ids.get(keyword) is None:
                self._ids[keyword] = value
        arrived = propagate.extract(carrier, here)
        if not self._core.link:
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
            fault("order", failure)
        finally:
            self._leave()
        try:
            if found is not None and mine:
                self._core.written(found)
        except Exception as failure:
            fault("statistics", failure)

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
            fault("order", failure)

    def _finish(self, found: numbers.Numbers, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._begun
        problem, error_type, outcome = self._judge(error)
        if error_type is not None:
            error_type = found.ledger.label("error_type", _values.text(error_type))
        sequence = self._record(found, outcome, error_type, seconds)
        facts = self._told(outcome, error_type, seconds)
        try:
            self._emit(found, problem, outcome, facts, sequence)
        finally:
            self._span.end()

    def _emit(
        self,
        found: numbers.Numbers,
        problem: object,
        outcome: str,
        facts: dict[str, Value],
        sequence: int,
    ) -> None:
        """The end of the order, on its span and as records; `sequence` numbers the audit record."""
        core = self._core
        _otel_context.stamp(self._span, facts)
        event = core.role.event
        if outcome == _FAILURE:
            event = names.ORDER_FAILED
            self._span.set_status(trace.StatusCode.ERROR)
            self._tell(problem, {**self._facts, **facts})
        elif outcome == _CANCELLED:
            event = names.ORDER_INTERRUPTED
        whole: dict[str, Any] = {**self._facts, **facts}
        whole[names.ORDER_WORKER_INSTANCE] = found.instance
        whole[names.ORDER_SEQUENCE] = sequence
        _events.account(event, whole, scope=core.name)

    def _judge(self, error: BaseException | None) -> tuple[object, str | None, str]:
        """What went wrong, its label, and the outcome."""
        if error is None:
            return (None, None, _SUCCESS) if self._failure is None else (*self._failure, _FAILURE)
        outcome = _FAILURE if isinstance(error, Exception) else _CANCELLED
        return error, spans.error_type(error), outcome

    def _record(
        self, found: numbers.Numbers, outcome: str, error_type: str | None, seconds: float
    ) -> int:
        """Count the order, for the statistics and for the metrics; the number of its audit record."""
        core, ledger = self._core, found.ledger
        role, kind = core.role, self._type
        with ledger.lock:
            found.sequence = sequence = found.sequence + 1
            found.ended(outcome, seconds)
            if outcome == _SUCCESS:
                found.counted(role.done)
                if kind is not None and kind in role.types:
                    found.counted(role.types[str(kind)])
        labels = ledger.ends[outcome]
        if error_type is not None:
            labels = {**labels, names.ERROR_TYPE: error_type}
        durations, waits = numbers.instruments()
        durations.record(seconds, labels)
        if self._wait is not None:
            waits.record(self._wait, ledger.labels)
        return sequence

    def _told(self, outcome: str, error_type: str | None, seconds: float) -> dict[str, Value]:
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

    def _tell(self, problem: object, facts: dict[str, Value]) -> None:
        """One ERROR record, with the stack unless somebody has told the exception before."""
        fields: dict[str, Any] = {**facts, names.ORDER_WORKER_ERRORS: self._core.errors}
        stack = None
        if isinstance(problem, BaseException):
            fields[record.EVENT_NAME] = names.ORDER_EXCEPTION
            stack = None if already_recorded(problem) else problem
            text = f"order failed: {spans.error_type(problem)}: {_values.text(problem, 1000)}"
        else:
            fields[record.EVENT_NAME] = names.ORDER_FAILURE
            text = f"order failed: {_values.text(problem, 1000)}"
        self._core.logger.error(text, extra=fields, exc_info=stack, stacklevel=6)

    def _note(self, kind: str, label: str | None) -> None:
        """Remember a retry, a fallback or a pool error for the end."""
        if label is not None:
            labels = self._notes.setdefault(kind, [])
            if len(labels) < NOTED:
                labels.append(label)

    def _timed(self, step: object, seconds: float, *, well: bool) -> None:
        try:
            found, timings = self._numbers, self._timings
            if found is None or found.pid != process_id():  # before the block, or in a forked child
                found = self._core.here()
            given = step if type(step) is str else _values.text(step, _values.ID_TEXT)
            label, key, counter = found.step(given, self._core.role.steps)
            timings[key] = timings.get(key, 0.0) + seconds
            with found.ledger.lock:
                found.ran(label, seconds)
                if well and counter is not None:
                    found.counted(counter)
        except Exception as error:
            fault("timing", error)


def _milliseconds(seconds: float) -> float:
    """To the microsecond; `round` takes ten times as long, since it goes by way of a text."""
    return int(seconds * 1_000_000 + 0.5) / 1000


class Timing:
    """
    One run of a step of an order.

    Args:
        order: that it is part of.
        step: its name.
        span: of its own, or None.
    """

    __slots__ = ("_begun", "_order", "_span", "_step")

    def __init__(self, order: Order, step: str, span: "spans.span | None") -> None:
        self._order = order
        self._step = step
        self._span = span
        self._begun = 0.0

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()
        self._begun = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._begun
        self._order._timed(self._step, seconds, well=error is None)  # noqa: SLF001 - its other half
        if self._span is not None:
            self._span.__exit__(kind, error, stack)
