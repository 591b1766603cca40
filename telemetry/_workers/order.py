"""
What a worker reports about its order while the block runs.

How the block begins and ends, and what is recorded at its end, is in `processing`; here is the part
that the application calls, and the timed steps.
"""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from opentelemetry import trace

from telemetry import _diagnostics, _values
from telemetry._context.block import Block
from telemetry._native import process_id
from telemetry._traces import span as spans
from telemetry._workers import counters as numbers
from telemetry._workers import propagation as travelling
from telemetry._workers.processing import Processing

NOTED: Final = 100
MOST_AT_ONCE: Final = 2**53


class Order(Processing, Block["Order"]):
    """The processing of one order; made by `Worker.order`, used once."""

    __slots__ = ()

    @property
    def span(self) -> trace.Span:
        """The OpenTelemetry span of this order."""
        return self._span

    @property
    def trace_id(self) -> str:
        """The trace that this order is recorded in, as hex."""
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
            found = self._worker.here()
            with found.shared.lock:
                self._worker.count(found, numbers.name(counter), number)
        except Exception as error:
            _diagnostics.fault("count", error)

    def retry(self, reason: object, *, error: BaseException | None = None) -> None:
        """An attempt is repeated: counted by reason, and logged as a WARNING."""
        self._note("retry", self._worker.note("retry", reason, error))

    def fallback(self, target: object, *, error: BaseException | None = None) -> None:
        """Something else is used, such as the database instead of the cache: counted and logged."""
        self._note("fallback", self._worker.note("fallback", target, error))

    def pool_error(self, error: BaseException | None = None, *, pool: object = "redis") -> None:
        """A connection pool failed: counted, and logged as an ERROR for the shared error file."""
        self._note("pool_error", self._worker.note("pool_error", pool, error))

    def fail(self, error: object, *, error_type: str | None = None) -> None:
        """
        Say that the order failed, without raising.

        Args:
            error: an exception that was handled (it is recorded with its stack), or a text.
            error_type: a label, one of few; the exception's class by default.
        """
        kind = spans.error_type(error) if _values.is_a(error, BaseException) else numbers.OTHER
        label = kind if error_type is None else _values.text(error_type, _values.ID_TEXT)
        problem: object = error if _values.is_a(error, BaseException) else _values.text(error, 1000)
        self._failure = (problem, label)

    def __enter__(self) -> Self:
        try:
            self._start()
        except Exception as error:
            _diagnostics.fault("order", error)
        return self

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
                found = self._worker.here()
            given = step if type(step) is str else _values.text(step, _values.ID_TEXT)
            label, key, counter = found.step(given, self._worker.role.steps)
            timings[key] = timings.get(key, 0.0) + seconds
            with found.shared.lock:
                found.ran(label, seconds)
                if well and counter is not None:
                    found.counted(counter)
        except Exception as error:
            _diagnostics.fault("timing", error)


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
