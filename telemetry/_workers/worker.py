"""
What a worker is behind its public face: its role, its numbers in this process, its statistics.

`telemetry.workers.Worker` shows it to the application, an `Order` counts in it, and `schedule` asks
it when statistics are due.
"""

import contextlib
import logging
import sys
import time
from typing import Any, Final

from opentelemetry.context import Context

from telemetry import _diagnostics, _events, _otel_context, _values
from telemetry import attributes as names
from telemetry._context import scope as context
from telemetry._logs import logger as _logging
from telemetry._logs import record
from telemetry._native import process_id
from telemetry._traces import span
from telemetry._values import Value
from telemetry._workers import counters as numbers
from telemetry._workers import schedule as clock
from telemetry._workers.roles import OTHER, ROLES

MOST_COUNTERS: Final = 64
NOTES: Final = {
    "retry": (names.ORDER_PROCESS_RETRIES, names.ORDER_RETRY, logging.WARNING),
    "fallback": (names.ORDER_PROCESS_FALLBACKS, names.ORDER_FALLBACK, logging.WARNING),
    "pool_error": (names.ORDER_PROCESS_POOL_ERRORS, names.ORDER_POOL_ERROR, logging.ERROR),
}
"""Kind -> metric, event, level."""


class WorkerState:
    """
    One role of the fleet.

    Args:
        name, group, action, counters, every_orders, every_s, link: as for `Worker`.
    """

    def __init__(
        self,
        name: object,
        *,
        group: object,
        action: object,
        counters: object,
        every_orders: object,
        every_s: object,
        link: bool,
    ) -> None:
        self.name: Final = numbers.name(name, "worker")
        self.role: Final = ROLES.get(self.name, OTHER)
        self.link: Final = link
        self.span_name: Final = f"process {self.name}"
        self.logger: Final = _logging.BoundLogger(logging.getLogger(self.name))
        self.facts: Final[dict[str, Value]] = {
            names.ORDER_WORKER_ROLE: self.name,
            names.ORDER_ACTION: numbers.name(self.role.action if action is None else action),
        }
        family = numbers.name(group, "")
        if family:
            self.facts[names.ORDER_WORKER_GROUP] = family
        self.errors: Final = f"{family or 'worker'}_errors"
        self._every_orders = _positive(every_orders, 100.0)
        self._every_s = _positive(every_s, 300.0)
        self._declared = tuple(dict.fromkeys((*self.role.declared, *_named(counters))))
        self._numbers: numbers.WorkerCounters | None = None
        self._watched = False

    def here(self) -> numbers.WorkerCounters:
        """The numbers of this process."""
        numbers.follow_capture()
        found = self._numbers
        if found is None or found.pid != process_id():
            action = str(self.facts[names.ORDER_ACTION])
            shared = numbers.of_role(self.name, action, self._declared)
            with shared.lock:  # two threads may have the first order together
                found = self._numbers
                if found is None or found.pid != process_id():
                    numbers.instruments()
                    found = numbers.WorkerCounters(shared, self._declared)
                    self._numbers, self._watched = found, False
        if not self._watched:
            self._watched = clock.watch(self)
        return found

    def count(self, found: numbers.WorkerCounters, counter: str, number: int = 1) -> None:
        """Add to a counter of the role; call it with the lock held."""
        counters = found.counters
        if counter not in counters:
            if len(counters) >= MOST_COUNTERS:
                counter = numbers.OTHER
            counters.setdefault(counter, 0)
        counters[counter] += number
        found.shared.add(names.ORDER_WORKER_COUNTS, counter, number)

    def note(self, kind: str, reason: object, error: BaseException | None) -> str | None:
        """
        Count and log a retry, a fallback or a pool error; without a stack, as it is no end yet.

        Returns:
            The label under which it was counted.
        """
        try:
            metric, event, level = NOTES[kind]
            found = self.here()
            label = found.shared.label(kind, _values.text(reason, _values.ID_TEXT))
            with found.shared.lock:
                found.tally(f"{kind}_count")
                found.shared.add(metric, label)
                if kind == "retry" and label in self.role.retries:
                    self.count(found, self.role.retries[label])
            fields: dict[str, Any] = {**self.facts, names.ORDER_REASON: label}
            text = f"{kind.replace('_', ' ')}: {_values.text(reason, 1000)}"
            if error is not None:
                fields[names.ERROR_TYPE] = span.error_type(error)
                text += f" ({fields[names.ERROR_TYPE]}: {_values.text(error, 1000)})"
            if level == logging.ERROR:
                fields[names.ORDER_WORKER_ERRORS] = self.errors
            fields[record.EVENT_NAME] = event
            self.logger.log(level, text, extra=fields, stacklevel=3)
            return label
        except Exception as failure:
            _diagnostics.fault(kind, failure)
            return None

    # --- statistics ---

    def written(self, found: numbers.WorkerCounters) -> None:
        """An order is done: write statistics if they are due."""
        if found.window.processed >= self._every_orders:
            self._report(found, "count")
        elif time.monotonic() - found.window.since >= self._every_s:
            self._report(found, "time")

    def due(self) -> float:
        """When statistics are due by time, in monotonic seconds."""
        found = self._numbers
        return (time.monotonic() if found is None else found.window.since) + self._every_s

    def tick(self) -> None:
        """Write statistics if they are due by time."""
        found = self._numbers
        if found is not None and found.pid == process_id():
            self._report(found, "time")

    def close(self) -> None:
        """Write the last statistics."""
        try:
            clock.forget(self)
            found = self._numbers
            if found is not None and found.pid == process_id() and self._watched:
                self._watched = False
                self._report(found, "shutdown")
        except Exception as error:
            _diagnostics.fault("close", error)

    def report(self, found: numbers.WorkerCounters) -> dict[str, Any]:
        """The numbers as the statistics show them."""
        now = time.monotonic()
        with found.shared.lock:
            return {
                names.WORKER_REPORT_ACTIVE: found.active,
                names.WORKER_REPORT_WINDOW: found.window.shown(now),
                names.WORKER_REPORT_TOTAL: found.before.shown(now, found.window),
                names.WORKER_REPORT_COUNTERS: dict(found.counters),
            }

    def _report(self, found: numbers.WorkerCounters, reason: str) -> None:
        """Write `worker.statistics` and begin a new window; of two threads that want to, one does."""
        with found.shared.lock:
            due = {
                "count": found.window.processed >= self._every_orders,
                "time": time.monotonic() - found.window.since >= self._every_s,
                "shutdown": True,
            }
            if not due[reason]:
                return
            shown = self.report(found)
            found.turn(time.monotonic())
        fields: dict[str, Any] = {
            **self.facts,
            names.ORDER_WORKER_INSTANCE: found.instance,
            names.WORKER_REPORT_REASON: reason,
            **shown,
        }
        text = self._sentence(shown[names.WORKER_REPORT_WINDOW])
        # about no single order: neither its trace nor its ids
        token, scope = _otel_context.attach_context(Context()), context.enter_empty()
        try:
            if self.logger.isEnabledFor(logging.INFO):
                if not self._say(text, fields):
                    extra = {**fields, record.EVENT_NAME: names.WORKER_STATISTICS}
                    self.logger.info(text, extra=extra)
            else:  # the application's levels do not switch statistics off
                _events.emit(names.WORKER_STATISTICS, fields, scope=self.name, body=text)
        finally:
            context.leave(scope)
            _otel_context.detach_context(token)

    def _say(self, text: str, fields: dict[str, Any]) -> bool:
        """Whether the fast path took the statistics: they come at every hundredth order."""
        lines, frame = _logging.fast_path, sys._getframe(1)  # noqa: SLF001 - as logging does
        if lines is None:
            return False
        place = (frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno)
        logger, event = logging.getLogger(self.name), names.WORKER_STATISTICS
        return lines.say(logger, logging.INFO, text, fields, place, event=event)

    def _sentence(self, window: dict[str, Any]) -> str:
        text = (
            f"{self.name}: processed {window[numbers.PROCESSED]}, failed {window['failure_count']}"
            f" in {window['seconds']:.1f} s"
        )
        if "p50_ms" in window:
            text += f", p50 {window['p50_ms']:.2f} ms, p95 {window['p95_ms']:.2f} ms"
        return text


def _named(counters: object) -> list[str]:
    with contextlib.suppress(Exception):
        if isinstance(counters, (tuple, list)):
            return [numbers.name(counter) for counter in counters[:MOST_COUNTERS]]
    text = f"counters must be a tuple of names, not {_values.text(counters, 100)}"
    _diagnostics.say("worker", text, level="error")
    return []


def _positive(number: object, fallback: float) -> float:
    with contextlib.suppress(Exception):
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number > 0:
            return number
    text = f"every_orders and every_s must be above 0, not {_values.text(number, 100)};"
    _diagnostics.say("worker", f"{text} {fallback:g} counts", level="error")
    return fallback
