"""
The SDK's records, redacted: spans, log records, metrics.

In the thread that sends, the originals are not changed, because the application and other processors
may hold them, and an ended span cannot be. A record in which there is nothing to redact is handed on
as it is; else a new one is made of the same kind, with the counts of what limits had dropped.
Resource and scope are the same objects on every record, so they are redacted once and remembered by
identity. Where processors of others see a record first, it is redacted for them in the application's
thread; it then comes here as `Redacted` and is not looked at again.

Two metric points that differ in a secret only become one (`merged_points`).
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry._logs import LogRecord
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    TraceFlags,
    set_span_in_context,
)

from telemetry import _diagnostics, _native, _otel_context
from telemetry._export.merged_points import merged
from telemetry._export.otlp_encoder import LogFacts
from telemetry._redaction import redactor as _redaction
from telemetry._redaction.policy import Policy, Redaction
from telemetry._redaction.redactor import Redactor

_pending_spans: Final = getattr(_native.core, "pending_spans", None)
_pending_lines: Final = getattr(_native.core, "pending_lines", None)
KEPT: Final = 512
STEP: Final = 64
STEP_PAUSE_S: Final = 0.0002


class Redacted:
    """
    A record in a queue that may leave the process as it is.

    Args:
        record: a span or a log record.
    """

    __slots__ = ("record",)

    def __init__(self, record: Any) -> None:
        self.record = record


class RecordRedactor:
    """
    The policy of a process, applied to whole records at each way out of it.

    Args:
        redaction: what may leave.
    """

    def __init__(self, redaction: Redaction) -> None:
        self.use(redaction)

    def use(self, redaction: Redaction) -> None:
        """Let everything pass this policy from now on."""
        self.redaction = redaction
        policy = Policy(redaction)
        _diagnostics.redact = _redaction.install(policy).text
        self._sent = {signal: Records(Redactor(policy)) for signal in ("traces", "metrics", "logs")}
        self.now = {signal: Records(Redactor(policy)) for signal in ("traces", "logs")}
        """For records that processors of others see, in the application's threads."""
        self.shown = Records(Redactor(policy))
        """For the capture of a test and readers of others; what it counts is not sent by us."""
        self._last: dict[str, dict[int, tuple[Any, Any]]] = {}

    @contextlib.contextmanager
    def trying(self, redaction: Redaction) -> Iterator[None]:
        """Let everything pass another policy, for a test."""
        before, sent, now, shown = self.redaction, self._sent, self.now, self.shown
        self.use(redaction)
        try:
            yield
        finally:
            self.use(before)
            self._sent, self.now, self.shown = sent, now, shown  # with what they have counted

    def spans(self, spans: list[Any]) -> list[Any]:
        """Spans as they are sent or written to the spool."""
        records = self._sent["traces"]
        return self._prepared("traces", spans, records, records.span, _pending_spans)

    def logs(self, logs: list[Any]) -> list[Any]:
        """Log records as they are sent or written to the spool."""
        records = self._sent["logs"]
        return self._prepared("logs", logs, records, records.log, _pending_lines)

    def span_now(self, span: ReadableSpan) -> ReadableSpan:
        """A span as processors of others may see it, and as it is sent."""
        records = self.now["traces"]
        return records.span(span) if records.pending([span], _pending_spans) else span

    def has_to_look(self, facts: LogFacts) -> bool:
        """Whether a log record that processors of others are about to see may hold anything to redact."""
        return bool(self.now["logs"].pending([facts], _pending_lines))

    def metrics(self, data: MetricsData | None) -> MetricsData | None:
        """What any reader of the process gets."""
        return self._sent["metrics"].metrics(data)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many values of a signal were redacted, by rule; signals with none are left out."""
        counted = {signal: records.redactor.counted() for signal, records in self._sent.items()}
        for signal, records in self.now.items():
            counts = counted[signal]
            for rule, count in records.redactor.counted().items():
                counts[rule] = counts.get(rule, 0) + count
        return {signal: counts for signal, counts in counted.items() if counts}

    def _prepared(
        self,
        signal: str,
        items: list[Any],
        records: "Records",
        redact: Callable[[Any], Any],
        find: Callable[..., list[int] | None] | None,
    ) -> list[Any]:
        """Each of the items as it may leave, once: a batch that is tried again is the same."""
        last = self._last.get(signal, {})
        now: dict[int, tuple[Any, Any]] = {}
        prepared = [item.record if type(item) is Redacted else item for item in items]
        pending: Sequence[int] = records.pending(prepared, find)
        for done, index in enumerate(pending, 1):
            if type(items[index]) is Redacted:
                continue
            if done % STEP == 0:
                time.sleep(STEP_PAUSE_S)  # let the application's threads have the GIL
            item = items[index]
            known = last.get(id(item))
            if known is None or known[0] is not item:
                known = (item, redact(item))
            now[id(item)] = known
            prepared[index] = known[1]
        self._last[signal] = now
        return prepared


class Records:
    """
    Redacts whole records.

    Args:
        redactor: applies the policy and counts.
    """

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self._seen: dict[int, tuple[Any, Any]] = {}

    def pending(
        self, items: list[Any], find: Callable[..., list[int] | None] | None
    ) -> Sequence[int]:
        """
        Which of the items have to be looked at; the others are sent as they are.

        Args:
            items: all spans, or all log records.
            find: the compiled loop that finds them; None if there is none.
        """
        redactor = self.redactor
        if redactor.off:
            return ()
        policy = redactor.policy
        if find is not None:
            with contextlib.suppress(
                Exception
            ):  # what is odd about an item is found out one by one
                known = (policy.settled, policy.clean, not policy.has_own, self._seen)
                return find(tuple(items), *known) or ()
        return range(len(items))

    # --- spans ---

    def span(self, span: ReadableSpan) -> ReadableSpan:
        """The span as it may be sent."""
        redactor = self.redactor
        if redactor.off:
            return span
        name = redactor.text(span.name)
        given: Mapping[str, Any] = span.attributes or {}  # a new proxy each time
        attributes = redactor.attributes(given)
        status = self._status(span.status)
        events = self._each(span.events, self._event)
        links = self._each(span.links, self._link)
        resource = self._once(span.resource, self._resource)
        scope = self._once(span.instrumentation_scope, self._scope)
        if (
            name is span.name
            and attributes is given
            and status is span.status
            and events is None
            and links is None
            and resource is span.resource
            and scope is span.instrumentation_scope
        ):
            return span
        return ReadableSpan(
            name=name,
            context=span.context,
            parent=span.parent,
            resource=resource,
            attributes=_bounded(attributes, span.dropped_attributes),
            events=_list(span.events if events is None else events, span.dropped_events),
            links=_list(span.links if links is None else links, span.dropped_links),
            kind=span.kind,
            status=status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )

    def _status(self, status: Status) -> Status:
        if not status.description:
            return status
        given = status.description
        seen = self.redactor.message(given)
        return status if seen == given else Status(status.status_code, seen)

    def _each(self, items: Sequence[Any], redact: Callable[[Any], Any]) -> list[Any] | None:
        """The items redacted, or None if none had to change."""
        if not items:
            return None
        seen = [redact(item) for item in items]
        return None if all(new is old for new, old in zip(seen, items, strict=True)) else seen

    def _event(self, event: Event) -> Event:
        given: Mapping[str, Any] = event.attributes or {}
        name, attributes = self.redactor.text(event.name), self.redactor.attributes(given)
        if name is event.name and attributes is given:
            return event
        return Event(name, _bounded(attributes, event.dropped_attributes), event.timestamp)

    def _link(self, link: Link) -> Link:
        given: Mapping[str, Any] = link.attributes or {}
        attributes = self.redactor.attributes(given)
        if attributes is given:
            return link
        return Link(link.context, _bounded(attributes, link.dropped_attributes))

    # --- log records ---

    def log(self, readable: ReadableLogRecord | LogFacts) -> ReadableLogRecord | LogFacts:
        """The log record as it may be sent."""
        if self.redactor.off:
            return readable
        if isinstance(readable, tuple):
            return self._facts(readable)
        record = self._record(readable.log_record)
        resource = self._once(readable.resource, self._resource)
        scope = self._once(readable.instrumentation_scope, self._scope)
        if (
            record is readable.log_record
            and resource is readable.resource
            and scope is readable.instrumentation_scope
        ):
            return readable
        return ReadableLogRecord(record, resource, scope, readable.limits)

    def _facts(self, facts: Any) -> LogFacts:
        redactor = self.redactor
        level, body, attributes = facts[3:6]
        event, resource, scope = facts[9:12]
        seen: Any = (
            *facts[:3],
            redactor.text(level) if level else level,
            redactor.value(body),
            redactor.attributes(attributes),
            *facts[6:9],
            redactor.text(event) if event else event,
            self._once(resource, self._resource),
            self._once(scope, self._scope),
            *facts[12:],
        )
        return seen  # type: ignore[no-any-return]  # with the 13th part that some have

    def in_place(self, live: ReadWriteLogRecord, only: Sequence[str] | None = None) -> None:
        """
        Redact a log record that its processors are about to see.

        Args:
            live: the SDK's record of this one call.
            only: names of the attributes to look at; all by default.
        """
        redactor = self.redactor
        if redactor.off:
            return
        record: Any = live.log_record
        record.body = redactor.value(record.body)
        if record.event_name:
            record.event_name = redactor.text(record.event_name)
        if record.severity_text:
            record.severity_text = redactor.text(record.severity_text)
        own = _otel_context.attributes_of(record)
        given = own if only is None else {name: own[name] for name in only}
        seen = redactor.attributes(given)
        if seen is not given:
            held: Any = record.attributes
            for name in [name for name in given if name not in seen]:
                del held[name]
            for name, value in seen.items():
                if name not in given or given[name] is not value:
                    held[name] = value
        if only is None:
            live.resource = self._once(live.resource, self._resource)
            live.instrumentation_scope = self._once(live.instrumentation_scope, self._scope)

    def _record(self, record: Any) -> Any:
        redactor = self.redactor
        body = redactor.value(record.body)
        given: Mapping[str, Any] = record.attributes or {}
        attributes = redactor.attributes(given)
        event = redactor.text(record.event_name) if record.event_name else record.event_name
        level = (
            redactor.text(record.severity_text) if record.severity_text else record.severity_text
        )
        if (
            body is record.body
            and attributes is given
            and event is record.event_name
            and level is record.severity_text
        ):
            return record
        return LogRecord(
            timestamp=record.timestamp,
            observed_timestamp=record.observed_timestamp,
            context=_trace_of(record),
            severity_text=level,
            severity_number=record.severity_number,
            body=body,
            attributes=_bounded(attributes, getattr(given, "dropped", 0)),
            event_name=event,
        )

    # --- metrics ---

    def metrics(self, data: MetricsData | None) -> MetricsData | None:
        """The metrics as they may be sent; one that cannot be judged is left out."""
        if data is None or self.redactor.off:
            return data
        return dataclasses.replace(
            data,
            resource_metrics=[
                dataclasses.replace(
                    of_resource,
                    resource=self._once(of_resource.resource, self._resource),
                    scope_metrics=[
                        dataclasses.replace(
                            of_scope,
                            scope=self._once(of_scope.scope, self._scope),
                            metrics=self._metrics(of_scope.metrics),
                        )
                        for of_scope in of_resource.scope_metrics
                    ],
                )
                for of_resource in data.resource_metrics
            ],
        )

    def _metrics(self, metrics: Sequence[Any]) -> list[Any]:
        seen = []
        for metric in metrics:
            try:
                seen.append(self._metric(metric))
            except Exception as error:  # its name alone could be the secret
                self.redactor.failed(error)
        return seen

    def _metric(self, metric: Any) -> Any:
        redactor = self.redactor
        points = [self._point(point) for point in metric.data.data_points]
        renamed = {"name": redactor.text(metric.name), "unit": metric.unit}
        if metric.description:
            renamed["description"] = redactor.text(metric.description)
        if any(new is not old for new, old in zip(points, metric.data.data_points, strict=True)):
            points = merged(metric.data, points)
        return dataclasses.replace(
            metric, data=dataclasses.replace(metric.data, data_points=points), **renamed
        )

    def _point(self, point: Any) -> Any:
        given = point.attributes or {}
        attributes = self.redactor.attributes(given)
        exemplars = self._each(point.exemplars, self._exemplar)
        if attributes is given and exemplars is None:
            return point
        return dataclasses.replace(
            point,
            attributes=attributes,
            exemplars=point.exemplars if exemplars is None else exemplars,
        )

    def _exemplar(self, exemplar: Any) -> Any:
        given = exemplar.filtered_attributes or {}
        attributes = self.redactor.attributes(given)
        if attributes is given:
            return exemplar
        return dataclasses.replace(exemplar, filtered_attributes=attributes)

    # --- what many records share ---

    def _once(self, shared: Any, redact: Callable[[Any], Any]) -> Any:
        """What an object that many records have is sent as; the same object each time."""
        if shared is None:
            return None
        found = self._seen.get(id(shared))
        if found is not None and found[0] is shared:
            return found[1]
        seen = redact(shared)
        if len(self._seen) >= KEPT:
            self._seen.clear()
        self._seen[id(shared)] = (shared, seen)  # held, so that its id stays its own
        return seen

    def _resource(self, resource: Resource) -> Resource:
        attributes = self.redactor.attributes(resource.attributes)
        if attributes is resource.attributes:
            return resource
        return Resource(dict(attributes), resource.schema_url)

    def _scope(self, scope: InstrumentationScope) -> InstrumentationScope:
        redactor = self.redactor
        given: Mapping[str, Any] = scope.attributes or {}
        name, attributes = redactor.text(scope.name), redactor.attributes(given)
        if name is scope.name and attributes is given:
            return scope
        return InstrumentationScope(name, scope.version, scope.schema_url, attributes)


def _trace_of(record: Any) -> Context:
    """A context that says which trace and span a record belongs to, and nothing else."""
    where = SpanContext(
        record.trace_id or 0,
        record.span_id or 0,
        is_remote=False,
        trace_flags=TraceFlags(record.trace_flags or 0),
    )
    return set_span_in_context(NonRecordingSpan(where), Context())


def _bounded(attributes: Mapping[str, Any], dropped: int) -> BoundedAttributes:
    """The attributes as the SDK keeps them, with its count of what its limits dropped."""
    kept = BoundedAttributes(attributes=dict(attributes), immutable=False)
    kept.dropped = dropped
    return kept


def _list(items: Sequence[Any], dropped: int) -> Any:
    kept: Any = BoundedList.from_seq(max(len(items), 1), items)
    kept.dropped = dropped
    return kept
