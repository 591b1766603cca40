"""
Log records on the SDK path: ids of the scope, then delivery.

One `LogRecordProcessor`, given to the SDK's `LoggerProvider`. It puts the ids of the scope on each
record and hands its facts (`otlp_encoder.LogFacts`) to the queue; where an exporter of another package
takes the records, it hands on the SDK's record.

Processors of others run in between, guarded. They may read and change a record, so it is redacted
before them, in place and once; afterwards only what they have changed is looked at. Without them
redaction is left to the thread that sends.

`capture()` of the test kit sets `redirect`: then records go there instead of to the queue.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource

from telemetry import _otel_context, _values
from telemetry._attribute_loops import estimated_bytes
from telemetry._context import request as requests
from telemetry._context import scope
from telemetry._export.drop_reasons import CONVERSION_ERROR
from telemetry._export.otlp_encoder import LogFacts, facts_of
from telemetry._export.queue import ExportQueue
from telemetry._export.record_redactor import RecordRedactor, Redacted
from telemetry._sdk import request_exceptions
from telemetry._sdk.span_processor import failed
from telemetry.attributes import AUDIT_STREAM

ERROR_SEVERITY: Final = 17
OVERHEAD: Final = 200
"""About how many bytes a record has besides its body and attributes."""
_NO_CONTEXT: Final = Context()
_ABSENT: Final = object()


def is_important(number: int, attributes: Mapping[str, Any]) -> bool:
    """Whether a log record gets the last of the room: errors, and the audit stream."""
    return number >= ERROR_SEVERITY or AUDIT_STREAM in attributes


class LogPipeline(LogRecordProcessor):
    """
    The log record processor of `telemetry`, with the processors of others inside.

    Args:
        queue: takes records; None where they go nowhere.
        redactor: what may leave the process.
        flush: sends what waits within so many seconds.
        as_facts: whether the queue wants `LogFacts`, which our OTLP encoder reads, or SDK records.
    """

    def __init__(
        self,
        queue: ExportQueue | None,
        redactor: RecordRedactor,
        *,
        flush: Callable[[float], bool],
        as_facts: bool,
    ) -> None:
        self.others: tuple[LogRecordProcessor, ...] = ()
        self.redirect: Callable[[ReadableLogRecord], None] | None = None
        self.redactor = redactor
        self.queue = queue
        self._flush = flush
        self.as_facts = as_facts

    def add_log_record_processor(self, log_record_processor: LogRecordProcessor) -> None:
        """Add a processor of another package; ours stays the last, and sees what the others change."""
        self.others = (*self.others, log_record_processor)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Complete the record and queue it."""
        try:
            record = log_record.log_record
            request_exceptions.notice(record)
            ids = scope.effective(record.context)
            if ids:
                own: Any = record.attributes
                have = _otel_context.attributes_of(
                    record
                )  # asking `own` takes a lock for each name
                for name, value in ids.items():
                    if name not in have:
                        own[name] = value
            facts = self._share(log_record) if self.others else None
            if self.redirect is not None or self.queue is not None:
                self._deliver(log_record, facts)
        except Exception as error:
            if self.queue is not None:
                self.queue.lose(CONVERSION_ERROR)
            failed(error, "LogPipeline")

    def _deliver(self, live: ReadWriteLogRecord, facts: tuple[LogFacts, int] | None) -> None:
        item: Any
        if self.as_facts and self.redirect is None:
            item, dropped = facts_of(live) if facts is None else facts
            important = is_important(item[2], item[5])
            item = (*item, dropped) if dropped else item
        else:
            number = live.log_record.severity_number
            level = 0 if number is None else number.value
            important = is_important(level, _otel_context.attributes_of(live.log_record))
            # Contexts can be large, and what they say is on the record already.
            live.log_record.context = _NO_CONTEXT
            item = ReadableLogRecord(
                live.log_record,
                live.resource or Resource.get_empty(),
                live.instrumentation_scope,
                live.limits,
            )
        if self.others:
            item = Redacted(item)
        request = requests.of_record()
        if request is None or not request.takes(
            lambda held: self._put(held, important=important), item, important=important
        ):
            self._put(item, important=important)

    def _put(self, item: Any, *, important: bool) -> None:
        record = item.record if type(item) is Redacted else item
        if self.redirect is not None and type(record) is not tuple:
            seen: Any = record if record is not item else self.redactor.shown.log(record)
            self.redirect(seen)
        elif self.queue is not None:
            try:
                size = size_of(record)
            except Exception:
                self.queue.lose(CONVERSION_ERROR)
                return
            self.queue.put(item, size, important=important)

    # --- processors of others ---

    def _share(self, live: ReadWriteLogRecord) -> tuple[LogFacts, int]:
        """Redact the record, let the others have it, and redact what they have put into it."""
        redactor = self.redactor
        before = facts_of(live)
        if redactor.has_to_look(before[0]):
            redactor.now["logs"].in_place(live)
            before = facts_of(live)
        record, shown = live.log_record, before[0][5]
        fields = dict(vars(record))
        for processor in self.others:
            try:
                processor.on_emit(live)
            except Exception as error:
                failed(error, type(processor).__name__)
        own = _otel_context.attributes_of(record)
        if own == shown and vars(record) == fields:
            return before
        changed = [name for name in own if own[name] is not shown.get(name, _ABSENT)]
        redactor.now["logs"].in_place(live, only=changed)
        return facts_of(live)

    def shutdown(self) -> None:
        """End the processors of others; our queues end together: see `telemetry.shutdown`."""
        for processor in self.others:
            try:
                processor.shutdown()
            except Exception as error:
                failed(error, type(processor).__name__)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits, within the time; processors of others first."""
        done = True
        for processor in self.others:
            try:
                done = processor.force_flush(timeout_millis) is not False and done
            except Exception as error:
                failed(error, type(processor).__name__)
                done = False
        return self._flush(timeout_millis / 1000) and done


def size_of(record: Any) -> int:
    """About how many bytes a record is: `LogFacts`, or one of the SDK."""
    if type(record) is tuple:
        facts: LogFacts = record
        body, attributes = facts[4], facts[5]
    else:
        body = record.log_record.body
        attributes = _otel_context.attributes_of(record.log_record)
    length = len(body) if type(body) is str else _values.weigh(body)
    return OVERHEAD + length + estimated_bytes(attributes, _values.weigh)
