"""
The global providers: the SDK's, with one object of ours hung on each.

`TracerProvider(resource, id_generator)` with our span processor, `LoggerProvider(resource)` with our
log record processor, and a meter provider that makes the SDK's for each process. They can be set
once per process, and instrumentation of others must find them. A provider that was set
before `telemetry.configure()` is joined: our processor is added to it, and nothing is replaced.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider

from telemetry import _diagnostics

if TYPE_CHECKING:  # the SDK is imported when it is used
    from telemetry._export.queue import ExportQueue
    from telemetry._export.record_redactor import RecordRedactor


class Providers:
    """
    The providers of this process.

    Args:
        resource: what the records are about.
        queues: by signal; a signal without one goes nowhere.
        redactor: what may leave the process.
        flush: sends what waits of some signals within so many seconds.
        ensure_handlers: puts our logging handlers back where they were removed.
        start_metrics: called at the first measurement of each process.
        logs_as_facts: whether log records go to our OTLP encoder and nowhere else.
    """

    def __init__(
        self,
        resource: Any,
        queues: "dict[str, ExportQueue]",
        redactor: "RecordRedactor",
        *,
        flush: Callable[[list[str], float], bool],
        ensure_handlers: Callable[[], None],
        start_metrics: Callable[[], None],
        logs_as_facts: bool,
    ) -> None:
        from telemetry._sdk.id_generator import Ids, chosen  # noqa: PLC0415 - the SDK, as above
        from telemetry._sdk.log_processor import LogPipeline  # noqa: PLC0415
        from telemetry._sdk.span_processor import SpanPipeline  # noqa: PLC0415

        self.resource = resource
        self.ids: Ids = Ids(chosen())
        self.foreign: list[str] = []
        """Signals whose provider another package has set."""
        self._with_exporters: list[str] = []
        self.spans = SpanPipeline(
            queues.get("traces"),
            redactor,
            flush=lambda timeout_s: flush(["traces"], timeout_s),
            ensure_handlers=ensure_handlers,
        )
        self.logs = LogPipeline(
            queues.get("logs"),
            redactor,
            flush=lambda timeout_s: flush(["logs"], timeout_s),
            as_facts=logs_as_facts,
        )
        self.meters = self._set_meters(redactor, start_metrics)
        self.tracers = self._set_tracers()
        self.loggers = self._set_loggers()
        self._say_foreign(redactor)

    def _set_meters(self, redactor: "RecordRedactor", begin: Callable[[], None]) -> Any:
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above

        from telemetry._sdk.meter_provider import GuardedMeterProvider  # noqa: PLC0415

        found: Any = metrics.get_meter_provider()
        if isinstance(found, MeterProvider):
            self._joined("metrics", found)
            return None
        meters = GuardedMeterProvider(self._resource_now, begin=begin, shown=lambda: redactor.shown)
        metrics.set_meter_provider(meters)
        return meters

    def _resource_now(self) -> Any:
        """The resource of this process: after a fork newer SDKs give the tracers a new one."""
        return self.resource if "traces" in self.foreign else self.tracers.resource

    def _set_tracers(self) -> Any:
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above

        tracers: Any = trace.get_tracer_provider()
        if isinstance(tracers, TracerProvider):
            self._joined("traces", tracers)
            tracers.add_span_processor(self.spans)
            return tracers
        tracers = TracerProvider(
            resource=self.resource,
            shutdown_on_exit=False,
            active_span_processor=self.spans,
            id_generator=self.ids,
        )
        trace.set_tracer_provider(tracers)
        return tracers

    def _set_loggers(self) -> Any:
        from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as above

        loggers: Any = get_logger_provider()
        if isinstance(loggers, LoggerProvider):
            self._joined("logs", loggers)
            loggers.add_log_record_processor(self.logs)
            return loggers
        processors: Any = self.logs  # has what the SDK calls of its list of processors
        loggers = LoggerProvider(
            resource=self.resource, shutdown_on_exit=False, multi_log_record_processor=processors
        )
        set_logger_provider(loggers)
        return loggers

    def _joined(self, signal: str, provider: object) -> None:
        from telemetry._sdk.private_names import has_exporters  # noqa: PLC0415 - as above

        self.foreign.append(signal)
        if has_exporters(provider):
            self._with_exporters.append(signal)

    def _say_foreign(self, redactor: "RecordRedactor") -> None:
        if self.foreign:
            _diagnostics.say(
                "foreign",
                f"providers for {', '.join(self.foreign)} were set before telemetry.configure():"
                " they are joined, not replaced",
                level="info",
            )
        if self._with_exporters and redactor.redaction.level != "off":
            _diagnostics.say(
                "foreign exporters",
                f"the exporters that were set up for {', '.join(self._with_exporters)} before"
                " telemetry.configure() get records unredacted; call configure() before, and add"
                " them after it",
            )

    def renew_locks(self) -> None:
        """In a forked child: a thread of the parent may hold any lock of the SDK."""
        from telemetry._sdk import fork_locks  # noqa: PLC0415 - loaded long ago

        if self.meters is not None:
            self.meters.after_fork()
        own = {"traces": self.tracers, "logs": self.loggers}
        roots = [provider for signal, provider in own.items() if signal not in self.foreign]
        fork_locks.renew([*roots, trace.get_current_span()])
