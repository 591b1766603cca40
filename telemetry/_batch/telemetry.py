"""
What a run reports to OpenTelemetry: one root span, a span per item, events while it runs, metrics.

`batch.progress` and `batch.run.finished` are OTel events, not log lines, so that no log level drops
them: a long run is seen in the store before its span ends. Each failed item is one error record
with its traceback. The run id is the correlation id of everything below, unless the run is itself
part of something that has one. Every method is guarded: telemetry never hurts the run.

Item spans are children of the run's span, or (`link`) traces of their own that link to it, for runs
whose single trace would be too large to look at.

Recording an item costs more than all else that is done for it. So what went well is recorded a
moment later, when the workers have begun their next items; its times are those of its end.

What is current while an item is worked on is set by the item's own task (`Item.enter`), whose
context ends with it: nothing has to be made before it starts, or undone after it. Its span starts
there too: where many items begin in one turn of the loop, each waits for its own span alone.
"""

import contextlib
import contextvars
import functools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry._logs import get_logger as get_otel_logger
from opentelemetry.context import Context, attach
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from telemetry import _diagnostics, _otel_context, _values
from telemetry import attributes as names
from telemetry._batch.types import FAILURE, RESUMED, TIMEOUT, Outcome, Report
from telemetry._context import scope
from telemetry._logs.logger import get_logger
from telemetry._logs.record import EVENT_NAME

SPANS: Final = ("child", "link", "off")

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def _harmless(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """The method, with what goes wrong in it said and not raised."""

    @functools.wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            _diagnostics.say(
                f"batch {method.__name__}", f"{method.__name__}: {_values.text(error)}"
            )

    return call  # type: ignore[return-value]  # the stubs keep the name of `self`


class Observer:
    """
    Reports one run to OpenTelemetry.

    Args:
        name: of the batch.
        run_id: of the run.
        attempt: 1 for the first run on a journal.
        spans: what item spans are to the run's span: child, link or off.
        log_event: called with each event too: (name, body, attributes).
    """

    def __init__(
        self,
        name: str,
        run_id: str,
        attempt: int,
        spans: str,
        log_event: Callable[[str, str, dict[str, Any]], None] | None,
    ) -> None:
        self._name = name
        self._run_id = run_id
        self._attempt = attempt
        self._spans = spans
        self._log_event = log_event
        self._root: Span = trace.INVALID_SPAN
        self._label = {names.BATCH_NAME: name}
        self._labels_of: dict[str, dict[str, str]] = {}
        """Outcome -> labels of the items that ended well with it; made once."""
        self._span_name = f"process {name}"
        self._counted: Counter[tuple[str, str | None]] = Counter()
        self._tried: Counter[str | None] = Counter()
        self._active_reported: int | None = None
        self.live = False
        """Whether there is an SDK that makes spans."""
        self.running = 0
        self._log = get_logger("telemetry.batch", **self._label)
        self._tracer = trace.get_tracer("telemetry.batch")
        meter = metrics.get_meter("telemetry.batch")
        self._run_duration = meter.create_histogram(
            names.BATCH_RUN_DURATION,
            "s",
            "How long runs take.",
            explicit_bucket_boundaries_advisory=names.RUN_BUCKETS_S,
        )
        self._item_duration = meter.create_histogram(
            names.BATCH_ITEM_DURATION,
            "s",
            "How long items take, with all attempts.",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_S,
        )
        self._items = meter.create_counter(names.BATCH_ITEMS, "{item}", "Items by outcome.")
        self._active = meter.create_up_down_counter(
            names.BATCH_ITEM_ACTIVE, "{item}", "Items that run now."
        )
        self._remaining = meter.create_gauge(
            names.BATCH_ITEM_REMAINING, "{item}", "Items not done yet."
        )
        self._attempts = meter.create_counter(
            names.BATCH_ITEM_ATTEMPTS, "{attempt}", "Attempts; failed ones with their error.type."
        )

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """The length of the run: its ids and its span."""
        ids: dict[str, Any] = {"batch_run_id": self._run_id}
        if "correlation_id" not in scope.current_context():
            ids["correlation_id"] = self._run_id
        with contextlib.ExitStack() as stack:
            stack.enter_context(scope.log_context(**ids))
            with contextlib.suppress(Exception):
                attributes: dict[str, Any] = {
                    **self._label,
                    names.BATCH_RUN_ATTEMPT: self._attempt,
                    names.PROCESS_PID: os.getpid(),
                    names.PROCESS_EXECUTABLE_NAME: os.path.basename(sys.argv[0] or sys.executable),  # noqa: PTH119 - a text
                }
                self._root = self._tracer.start_span(f"batch {self._name}", attributes=attributes)
                stack.enter_context(_attached(self._root))
                self.live = self._root.get_span_context().is_valid
            yield

    @_harmless
    def started(self, total: int | None) -> None:
        """The run begins."""
        self._log.info(
            "batch started", **{names.BATCH_TOTAL: total, names.BATCH_RUN_ATTEMPT: self._attempt}
        )

    def item(self, key: str) -> "Item":
        """One item begins: its span, and its key on all that is logged in its tasks."""
        self.running += 1
        # Without an SDK there is nothing to start and nothing to be a child of.
        return Item(key, self._start_span if self.live else None)

    def _start_span(self, key: str | None) -> Span:
        """The span of an item; without one of its own, a stand-in for the run's."""
        if self._spans == "off":
            # Not the run's span itself, which must not get the keys of items.
            return trace.NonRecordingSpan(self._root.get_span_context())
        attributes = {**self._label, names.BATCH_ITEM_KEY: key or ""}
        if self._spans == "child":
            return self._tracer.start_span(self._span_name, attributes=attributes)
        links = [Link(self._root.get_span_context())]
        kind = SpanKind.INTERNAL
        return self._tracer.start_span(self._span_name, Context(), kind, attributes, links)

    def attempted(self, error_type: str | None) -> None:
        """One attempt ended."""
        self._tried[error_type] += 1

    def ended(
        self, ended: "Iterable[tuple[Item, Outcome, int | None]]", error: BaseException | None
    ) -> None:
        """
        Items ended, and their spans with them.

        Args:
            ended: items, their outcomes, and when, in nanoseconds since 1970, if it was some time ago.
            error: that they ended with.
        """
        in_detail = self._in_detail()
        for item, outcome, at in ended:
            self.running -= 1
            try:
                self._record(item, outcome, error, in_detail=in_detail)
            except Exception as failure:
                _diagnostics.say("batch item", f"an item is not recorded: {_values.text(failure)}")
            if item.span is not None:
                self._end(item.span, at)

    def lost(self, item: "Item") -> None:
        """Nothing more comes of an item."""
        self.running -= 1
        if item.span is not None:
            self._end(item.span, None)

    def _end(self, span: Span, at: int | None) -> None:
        try:
            span.end(at)
        except Exception as failure:
            _diagnostics.say("batch span", f"an item's span is lost: {_values.text(failure)}")

    def _in_detail(self) -> bool:
        """Whether each item is logged."""
        try:
            return self._log.isEnabledFor(logging.DEBUG)
        except Exception:  # a logger of another library
            return False

    @_harmless
    def refused(self, outcome: Outcome) -> None:
        """One item was never worked on."""
        self._record(Item(None), outcome, None, in_detail=self._in_detail())

    def _record(
        self, item: "Item", outcome: Outcome, error: BaseException | None, *, in_detail: bool
    ) -> None:
        word = outcome.outcome
        kind = (outcome.error_type or "_OTHER") if word in (FAILURE, TIMEOUT) else None
        self._counted[word, kind] += 1
        labels = self._labels_of.get(word) if kind is None else None
        if labels is None:
            labels = self._labels(kind, {names.BATCH_ITEM_OUTCOME: word})
            if kind is None:
                self._labels_of[word] = labels
        span = item.span
        self._item_duration.record(outcome.duration_s, labels, item.context)
        if span is None and kind is None and not in_detail:
            return
        said: dict[str, Any] = {
            names.BATCH_ITEM_OUTCOME: word,
            names.BATCH_ITEM_ATTEMPT_COUNT: outcome.attempts,
        }
        if outcome.cost.amount:
            said[names.BATCH_ITEM_COST] = outcome.cost.amount
        if kind is not None:
            said[names.ERROR_TYPE] = kind
            if span is not None:
                text = _values.bounded(outcome.error or "", 256)
                span.set_status(Status(StatusCode.ERROR, text))
            # After the last attempt, and once: the span only gets its status.
            event = {EVENT_NAME: names.BATCH_ITEM_EXCEPTION, **said}
            self._say(item, logging.ERROR, f"item {word}", outcome, {**event, "exc_info": error})
        elif in_detail:
            self._say(item, logging.DEBUG, "item ended", outcome, said)
        if span is not None:
            _otel_context.stamp(span, said)

    def _say(
        self, item: "Item", level: int, text: str, outcome: Outcome, said: dict[str, Any]
    ) -> None:
        """Log about an item, as if within it."""

        def say() -> None:
            item.enter()
            took = {names.BATCH_ITEM_DURATION_S: round(outcome.duration_s, 6)}
            self._log.log(level, text, **said, **took)

        contextvars.copy_context().run(say)

    def resumed(self) -> None:
        """One item was done before."""
        self._counted[RESUMED, None] += 1

    @_harmless
    def flush(self, left: int | None) -> None:
        """
        Add the counts to the instruments.

        Once a second instead of with each item: a measurement costs more than the rest of an item.
        """
        counted, self._counted = self._counted, Counter()
        tried, self._tried = self._tried, Counter()
        for (outcome, kind), count in counted.items():
            self._items.add(count, self._labels(kind, {names.BATCH_ITEM_OUTCOME: outcome}))
        for kind, count in tried.items():
            self._attempts.add(count, self._labels(kind))
        if self.running != self._active_reported:
            self._active.add(self.running - (self._active_reported or 0), self._label)
            self._active_reported = self.running
        if left is not None:
            self._remaining.set(left, self._label)

    def _labels(self, kind: str | None, more: dict[str, str] | None = None) -> dict[str, str]:
        labels = {**self._label, **(more or {})}
        return labels if kind is None else {**labels, names.ERROR_TYPE: kind}

    @_harmless
    def progress(self, progress: dict[str, Any], text: str) -> None:
        """How far the run is."""
        self._event(names.BATCH_PROGRESS, text, _progress_attributes(progress))

    @_harmless
    def finished(self, report: Report, progress: dict[str, Any]) -> None:
        """The run ended; called within its span, which ends here."""
        failed = report.exit_code != 0
        said: dict[str, Any] = {
            names.BATCH_RUN_RESULT: report.result,
            names.BATCH_RUN_ATTEMPT: report.attempt,
            names.PROCESS_EXIT_CODE: report.exit_code,
        }
        if report.stopped_by is not None:
            said[names.BATCH_RUN_STOPPED_BY] = report.stopped_by
        if failed:
            said[names.ERROR_TYPE] = report.stopped_by or report.result
            self._root.set_status(Status(StatusCode.ERROR, report.result))
        labels = {**self._label, names.BATCH_RUN_RESULT: report.result}
        self._run_duration.record(report.duration_s, labels)
        self._event(
            names.BATCH_RUN_FINISHED, str(report), {**_progress_attributes(progress), **said}
        )
        self._root.set_attributes(said)

    @_harmless
    def close(self) -> None:
        """End the run's span, whatever happened."""
        self._root.end()

    def _event(self, name: str, body: str, attributes: dict[str, Any]) -> None:
        attributes = {**self._label, **{k: v for k, v in attributes.items() if v is not None}}
        get_otel_logger("telemetry.batch").emit(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=body,
            attributes=attributes,
            event_name=name,
        )
        if self._log_event is not None:
            self._log_event(name, body, attributes)


class Item:
    """
    What is current while an item is worked on.

    Args:
        key: of the item, if it has one that is to be seen.
        start: makes its span, if it is to have one.
    """

    __slots__ = ("_start", "context", "key", "span")

    def __init__(self, key: str | None, start: Callable[[str | None], Span] | None = None) -> None:
        self.key = key
        self._start = start
        self.span: Span | None = None
        self.context: Context | None = None
        """In which the span is the current one."""

    def begin(self) -> None:
        """Start its span, the first time."""
        start, self._start = self._start, None
        if start is None:
            return
        try:
            self.span = start(self.key)
            self.context = trace.set_span_in_context(self.span)
        except Exception as error:
            _diagnostics.say("batch span", f"an item has no span: {_values.text(error)}")

    def enter(self) -> None:
        """Make it current in a context that ends by itself."""
        self.begin()
        try:
            if self.context is not None:
                attach(self.context)
            if self.key is not None:
                scope.put(names.BATCH_ITEM_KEY, self.key)
        except Exception as error:
            _diagnostics.say("batch item", f"an item is not current: {_values.text(error)}")


@contextlib.contextmanager
def _attached(span: Span) -> Iterator[None]:
    """Make a span the current one; its exceptions are recorded elsewhere."""
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        yield


def _progress_attributes(progress: dict[str, Any]) -> dict[str, Any]:
    return {
        names.BATCH_STATE: progress["state"],
        names.BATCH_PROCESSED: progress["processed"],
        names.BATCH_RESUMED: progress["resumed"],
        names.BATCH_TOTAL: progress["total"],
        names.BATCH_PERCENTAGE: progress["percentage"],
        names.BATCH_RATE: progress["rate_per_second"],
        names.BATCH_ELAPSED: progress["elapsed_seconds"],
        names.BATCH_ETA: progress["eta_seconds"],
        names.BATCH_COUNTS: progress["counts"],
        names.BATCH_COST: progress["cost"]["amount"],
        names.BATCH_TOKENS_IN: progress["cost"]["tokens_in"],
        names.BATCH_TOKENS_OUT: progress["cost"]["tokens_out"],
    }
