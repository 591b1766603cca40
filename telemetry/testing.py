"""
The test kit: `capture()` records what a block emits, as literals.

Ids count 1, 2, 3 (traces and spans apart) and so does the clock: every start, end, span event and
log record takes the next number, in the order in which they happened. A whole trace can therefore
be written down in a test and compared as one value. Nothing is sent, no collector is needed, and
it works whether or not the application has called `configure()`.

    def test_order():
        with capture() as captured:
            load_order("o-1")
        assert captured.spans == [{"name": "load order", "trace_id": 1, ...}]

The providers of a process can be set once, so captures share them: one at a time.
"""

import bisect
import contextlib
import itertools
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator

from telemetry._config import configure
from telemetry._context import scope as _context
from telemetry._logs import root as attach
from telemetry._redaction import validate
from telemetry._redaction.policy import Redaction
from telemetry.errors import ConfigError

VARYING = (
    "code.file.path",
    "code.line.number",
    "code.function.name",
    "exception.stacktrace",
)
"""Attributes that change with the source; left out unless `capture(varying=True)`."""

_one_at_a_time = threading.Lock()


class Capture(SpanProcessor):
    """
    What a block has emitted so far.

    Args:
        reader: the metric reader of this capture.
        varying: keep the attributes that change with the source.
    """

    def __init__(self, reader: InMemoryMetricReader, *, varying: bool = False) -> None:
        self.spans: list[dict[str, Any]] = []
        """Ended spans in the order of their start: name, trace_id, span_id, parent_id, start, end,
        kind, status, attributes; events and links only where there are any."""
        self.logs: list[dict[str, Any]] = []
        """Log records: time, level, logger, message, trace_id, span_id (0 outside of a span),
        attributes; event only where the record is one."""
        self._reader = reader
        self._varying = varying
        self._clock = itertools.count(1)
        self._lock = threading.Lock()
        self._starts: dict[int, int] = {}
        self._metrics: list[dict[str, Any]] | None = None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """
        Metric points: name, kind, unit, attributes, and value, or count and sum of a histogram.

        Each is the total since the capture began.
        """
        return _points(self._reader) if self._metrics is None else self._metrics

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Take the next number as the start."""
        self._starts[span.get_span_context().span_id] = next(self._clock)

    def on_end(self, span: ReadableSpan) -> None:
        """Record an ended span."""
        context: Any = span.context
        recorded: dict[str, Any] = {
            "name": span.name,
            "trace_id": context.trace_id,
            "span_id": context.span_id,
            "parent_id": None if span.parent is None else span.parent.span_id,
            "start": self._starts.pop(context.span_id, 0),
            "end": 0,
            "kind": span.kind.name,
            "status": span.status.status_code.name,
            "attributes": self._attributes(span.attributes),
        }
        if span.status.description:
            recorded["status_message"] = span.status.description
        if span.events:
            recorded["events"] = [
                {
                    "name": event.name,
                    "time": next(self._clock),
                    "attributes": self._attributes(event.attributes),
                }
                for event in span.events
            ]
        if span.links:
            recorded["links"] = [
                {
                    "trace_id": link.context.trace_id,
                    "span_id": link.context.span_id,
                    "attributes": self._attributes(link.attributes),
                }
                for link in span.links
            ]
        recorded["end"] = next(self._clock)
        with self._lock:
            bisect.insort(self.spans, recorded, key=lambda span: span["start"])

    def on_log(self, readable: ReadableLogRecord) -> None:
        """Record a log record."""
        record = readable.log_record
        scope = readable.instrumentation_scope
        recorded: dict[str, Any] = {
            "time": next(self._clock),
            "level": record.severity_text,
            "logger": "" if scope is None else scope.name,
            "message": record.body,
            "trace_id": record.trace_id,
            "span_id": record.span_id,
            "attributes": self._attributes(record.attributes),
        }
        if record.event_name:
            recorded["event"] = record.event_name
        self.logs.append(recorded)

    def end(self) -> None:
        """Keep the metrics as they are now."""
        self._metrics = _points(self._reader)

    def _attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            key: _plain(value)
            for key, value in (attributes or {}).items()
            if self._varying or key not in VARYING
        }


class CountingIds(IdGenerator):
    """Trace ids 1, 2, 3 and span ids 1, 2, 3."""

    def __init__(self) -> None:
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)

    def generate_trace_id(self) -> int:
        """The next trace id."""
        return next(self._traces)

    def generate_span_id(self) -> int:
        """The next span id."""
        return next(self._spans)


@contextmanager
def capture(
    *, level: str | int = "DEBUG", varying: bool = False, redaction: Redaction | None = None
) -> Iterator[Capture]:
    """
    Record what the block emits: `spans`, `logs` and `metrics` of the result.

    The ids of the running scope are cleared for the block and put back after it.

    Args:
        level: level of the root logger within the block.
        varying: keep attributes that change with the source: file, line, function, stack trace.
        redaction: what may leave, for this block; the process's by default.

    Raises:
        ConfigError: another package has set the process's providers, a capture is running, or
            `redaction` cannot be used.
    """
    if redaction is not None and (problems := validate.problems(redaction)):
        raise ConfigError(problems)
    if not _one_at_a_time.acquire(blocking=False):
        raise ConfigError(["a capture is running in this process; end it before the next begins"])
    try:
        pipeline = configure.install_for_capture()
        if pipeline.foreign:
            given = ", ".join(pipeline.foreign)
            text = f"providers for {given} were set by another package; capture before it does"
            raise ConfigError([text])
        root = logging.getLogger()
        reader = InMemoryMetricReader()
        captured = Capture(reader, varying=varying)
        scope = _context.enter_empty()
        level_before, ids_before = root.level, pipeline.ids.source
        pipeline.meter_provider.add_metric_reader(reader)
        pipeline.ids.source = CountingIds()
        pipeline.span_delivery.redirect = captured
        pipeline.log_delivery.redirect = captured.on_log
        handler = pipeline.otel_handler
        attached = handler in root.handlers
        if not attached:
            attach.attach([handler], level=None, fallback_level="WARNING")
        root.setLevel(level)
        tried = (
            contextlib.nullcontext() if redaction is None else pipeline.redactor.trying(redaction)
        )
        try:
            with tried:
                try:
                    yield captured
                finally:
                    captured.end()
        finally:
            if not attached:
                attach.detach()
            root.setLevel(level_before)
            pipeline.span_delivery.redirect = None
            pipeline.log_delivery.redirect = None
            pipeline.ids.source = ids_before
            pipeline.meter_provider.remove_metric_reader(reader)
            _context.leave(scope)
    finally:
        _one_at_a_time.release()


def _points(reader: InMemoryMetricReader) -> list[dict[str, Any]]:
    data = reader.get_metrics_data()
    points = []
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    plain: dict[str, Any] = {
                        "name": metric.name,
                        "kind": type(metric.data).__name__.lower(),
                        "unit": metric.unit,
                        "attributes": {
                            key: _plain(item) for key, item in (point.attributes or {}).items()
                        },
                    }
                    if hasattr(point, "value"):
                        plain["value"] = point.value
                    else:
                        plain |= {"count": point.count, "sum": point.sum}
                    points.append(plain)
    return points


def _plain(value: Any) -> Any:
    """Lists and dicts for the tuples and mappings that the SDK keeps."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(inner) for inner in value]
    return value


try:
    import pytest
except ImportError:  # the kit works without pytest
    pass
else:

    @pytest.fixture
    def captured() -> Iterator[Capture]:
        """What the test emits; import it in conftest.py: `from telemetry.testing import captured`."""
        with capture() as result:
            yield result
