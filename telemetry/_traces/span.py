"""
Blocks of code as spans: `span` for a step, `LogContext` for an operation that is also logged.

An exception that leaves a block gives the span status ERROR and `error.type`, and nothing more:
its text and traceback are recorded once, as a log record, by the code that logs it (the conventions have
retired exceptions on spans). `LogContext` does log, so it is the one that records; an exception
that crosses several of them is recorded in full by the innermost only.

The application's exception is never touched or replaced, and a failure in here is never raised.
"""

import logging
import os
import sys
import time
from typing import Any, Final, Self

from opentelemetry import trace
from opentelemetry.context import attach, detach

from telemetry import _diagnostics, _values
from telemetry._context import scope
from telemetry._context.block import Decorator
from telemetry._context.recorded import already_recorded
from telemetry._logs import logger as _logging
from telemetry._traces import operation_metrics
from telemetry._traces.guarded_span import guard
from telemetry.attributes import ERROR_TYPE, EXECUTION_STATUS, EXECUTION_TIME_MS, OPERATION

_HERE: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # noqa: PTH118, PTH120 - compared with file names
"""The folder of this package: its frames are not the application's."""


class span(Decorator[trace.Span]):  # noqa: N801 - used like a function
    """
    A span around a block, a function or a coroutine.

    Works as `with`, as `async with` and as a decorator. The block gets the OpenTelemetry span.

    Example:
        with span("load order", order_id="o-1") as current:
            current.set_attribute("order.items", 3)

    Args:
        name: the span's name; few distinct ones, without ids.
        kind: the span's kind; internal by default.
        attributes: of the span; ids by the keywords of `log_context`, and any key of your own.
    """

    def __init__(
        self, name: str, *, kind: trace.SpanKind = trace.SpanKind.INTERNAL, **attributes: object
    ) -> None:
        self._name = name
        self._kind = kind if _values.is_a(kind, trace.SpanKind) else trace.SpanKind.INTERNAL
        self._attributes = attributes
        self._running: list[tuple[trace.Span, Any]] = []

    def __enter__(self) -> trace.Span:
        try:
            named = {
                scope.ATTRIBUTE.get(key, key): value for key, value in self._attributes.items()
            }
            started = guard(
                trace.get_tracer("telemetry").start_span(
                    _values.text(self._name, _values.ID_TEXT),
                    kind=self._kind,
                    attributes=_values.fields(named),
                )
            )
            self._running.append((started, attach(trace.set_span_in_context(started))))
            return started
        except Exception as error:
            _diagnostics.fault("span", error)
            return trace.INVALID_SPAN

    def _end(self, error: BaseException | None) -> None:
        try:
            if not self._running:
                return
            ended, token = self._running.pop()
            detach(token)
            if isinstance(error, Exception):
                ended.set_status(trace.StatusCode.ERROR)
                ended.set_attribute(ERROR_TYPE, error_type(error))
            ended.end()
        except Exception as failure:
            _diagnostics.fault("span", failure)

    def _again(self) -> "span":
        return span(self._name, kind=self._kind, **self._attributes)


class LogContext(Decorator["LogContext"]):
    """
    Time a block: one span, one log record and one histogram point when it ends.

    Inside the block `operation` is its name. Works as `with`, as `async with` and as a decorator.

    Example:
        with LogContext("flow_execution") as flow:
            flow.add_metric("nodes_executed", 5)

    Args:
        name: the operation, in few distinct words; it labels the histogram.
        logger: where the record goes; the calling module's logger by default.
        fields: of the span and the record; ids by the keywords of `log_context`.
    """

    def __init__(
        self, name: str, *, logger: _logging.BoundLogger | None = None, **fields: object
    ) -> None:
        module = sys._getframe(1).f_globals.get("__name__", "root")  # noqa: SLF001 - as logging does
        self._name = _values.text(name, _values.ID_TEXT)
        if logger is None or not _values.is_a(logger, _logging.BoundLogger):
            logger = _logging.BoundLogger(logging.getLogger(module))
        self._logger = logger
        self._fields = fields
        self._metrics: dict[str, object] = {}
        self._ids = scope.log_context(**{**fields, "operation": self._name})
        self._span = span(self._name)
        self._current: trace.Span = trace.INVALID_SPAN
        self._begun = 0.0

    def add_metric(self, name: str, value: object) -> None:
        """Add a value to the span and to the record at the end; a number stays a number."""
        self._metrics[_values.text(name, _values.ID_TEXT)] = value

    def __enter__(self) -> Self:
        self._current = self._span.__enter__()
        self._ids.__enter__()
        self._begun = time.perf_counter()  # last: what we do here is not the application's time
        return self

    def _end(self, error: BaseException | None) -> None:
        try:
            self._finish(error)
        except Exception as failure:
            _diagnostics.fault("LogContext", failure)
        finally:
            self._ids.__exit__(None, error, None)
            self._span.__exit__(None, error, None)

    def _finish(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._begun
        # what is no Exception asks the program to stop: cancellation, Ctrl-C, exit
        stopped = "cancelled" if error is not None else "success"
        status = "error" if isinstance(error, Exception) else stopped
        labels: dict[str, str] = {OPERATION: self._name, EXECUTION_STATUS: status}
        if isinstance(error, Exception):
            labels[ERROR_TYPE] = error_type(error)
        operation_metrics.operation_duration().record(seconds, labels)
        self._current.set_attributes(_values.fields(self._metrics))
        outcome = {EXECUTION_TIME_MS: round(seconds * 1000, 3), EXECUTION_STATUS: status}
        fields: dict[str, Any] = {**self._metrics, **outcome}
        if not isinstance(error, Exception):
            word = "completed" if error is None else "cancelled"
            self._logger.info(f"{self._name} {word}", extra=fields, stacklevel=_outside())
            return
        self._logger.error(
            f"{self._name} failed",
            extra={**fields, ERROR_TYPE: labels[ERROR_TYPE]},
            exc_info=None if already_recorded(error) else error,
            stacklevel=_outside(),
        )

    def _again(self) -> "LogContext":
        return LogContext(self._name, logger=self._logger, **self._fields)


def _outside() -> int:
    """How far up the application's code is, as `stacklevel` of a call in our caller."""
    level = 1
    frame = sys._getframe(1)  # noqa: SLF001 - as logging does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
        level += 1
    return level


def error_type(error: BaseException) -> str:
    """The exception's class, fully qualified unless it is a builtin."""
    kind = type(error)
    plain = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"
