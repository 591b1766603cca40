"""
The `Pipeline` of a process: everything that `configure()` builds.

The providers are the SDK's, set globally, because instrumentation of others must find them; they
can be set once per process. Nothing here opens a connection or starts a thread: the couriers do, at
the first record of each process, since a process may fork before it (prefork servers), or never
emit anything (a supervisor).

Metrics: the MeterProvider starts without readers, and each process adds its own at its first
measurement; before that, a fork would copy sums and locks (opentelemetry-python#3307).
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, propagate, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider

from telemetry import _diagnostics, _otel_context, _values
from telemetry._config import settings as _settings
from telemetry._context import ids, propagation
from telemetry._context import scope as context
from telemetry._export.metrics import MetricsCourier
from telemetry._export.queue import Courier, Export
from telemetry._logs import root
from telemetry._version import NAME, __version__
from telemetry.attributes import DISTRO_NAME, DISTRO_VERSION, SERVICE_NAME

if TYPE_CHECKING:  # imported where a spool is asked for
    from telemetry._spool.replay import Replay
    from telemetry._spool.spool import Spool

SPOOL_S: Final = 0.5
"""How much of the exit's budget is kept for writing to the spool."""


class Pipeline:
    """
    Everything that `configure()` builds.

    Args:
        settings: the effective settings.
    """

    def __init__(self, settings: _settings.Settings) -> None:
        # The SDK and the HTTP client are imported when they are used, not by `import telemetry`. The
        # first measurement needs the encoder: by then a fork would copy the lock of its import.
        from opentelemetry.exporter.otlp.proto.common import metrics_encoder  # noqa: F401, PLC0415

        from telemetry._config import exporters  # noqa: PLC0415
        from telemetry._export.record_redactor import Gate  # noqa: PLC0415
        from telemetry._logs import logger  # noqa: PLC0415
        from telemetry._sdk import processors as _processors  # noqa: PLC0415

        self.settings = settings
        self.couriers: dict[str, Courier] = {}
        self._reader_pid = 0
        self._start_locks: dict[int, threading.RLock] = {}
        self._reader: Any = None
        makers = {signal: exporters.choose(signal, settings) for signal in _settings.SIGNALS}
        encoders = {signal: exporters.encoder(signal, settings) for signal in _settings.SIGNALS}
        self.spool = make_spool(settings, encoders)
        self._make_courier("traces", "span", makers["traces"])
        self._make_courier("logs", "log", makers["logs"])
        self._make_metrics_courier(makers["metrics"])
        self.gate = Gate(settings.redacting())
        for signal, prepare in (("traces", self.gate.spans), ("logs", self.gate.logs)):
            if signal in self.couriers:  # metrics are redacted as they are collected
                self.couriers[signal].prepare = prepare
        self.replay = self._make_replay(makers)
        for courier in self.couriers.values():
            courier.troubled = self._troubled
        self.resource = _resource(settings)
        self.ids = _processors.Ids(_id_generator())
        self.span_delivery = _processors.SpanDelivery(
            self.couriers.get("traces"), self._flush_traces, self.gate
        )
        self.log_delivery = _processors.LogDelivery(
            self.couriers.get("logs"), self._flush_logs, self.gate
        )
        self._build_providers()
        self.otel_handler = logger.OtelHandler(get_logger_provider(), self._lost_log)
        self._shorten(direct=encoders["logs"] is not None)
        propagator = propagate.get_global_textmap()
        if not isinstance(propagator, propagation.Propagator):
            propagate.set_global_textmap(propagation.Propagator(propagator))
        context.carry(settings.baggage_keys)

    def _shorten(self, *, direct: bool) -> None:
        """Let log records go the short way, where all that becomes of them is an OTLP request."""
        from opentelemetry.sdk._logs import LogRecordLimits  # noqa: PLC0415 - as above

        from telemetry._fast.logs import Lines  # noqa: PLC0415
        from telemetry._logs import logger  # noqa: PLC0415
        from telemetry._sdk.processors import GuardedLogProcessors  # noqa: PLC0415

        loggers: Any = get_logger_provider()
        processors = getattr(loggers, "_multi_log_record_processor", None)
        limits = LogRecordLimits()
        unlimited = (
            limits.max_log_record_attribute_length is None
            and (limits.max_log_record_attributes or 0) >= _values.ITEMS
        )
        if direct and unlimited and isinstance(processors, GuardedLogProcessors):
            courier = self.couriers["logs"]
            lines = Lines(loggers, processors, self.log_delivery, courier, self.otel_handler)
            self.otel_handler.lines = logger.short_way = lines

    def _make_courier(self, signal: str, prefix: str, make: Callable[[], Export] | None) -> None:
        if make is None:
            return
        self.couriers[signal] = Courier(
            signal,
            make,
            queue_size=getattr(self.settings, f"{prefix}_queue_size"),
            batch_size=getattr(self.settings, f"{prefix}_batch_size"),
            delay_s=getattr(self.settings, f"{prefix}_delay_ms") / 1000,
            queue_bytes=self.settings.queue_bytes,
            timeout_s=self.settings.of(signal, "timeout"),
            started=self._thread_started,
            spool=self._spool_of(signal),
        )

    def _spool_of(self, signal: str) -> "Spool | None":
        return self.spool if self.spool is not None and self.spool.takes(signal) else None

    def _make_replay(self, makers: Mapping[str, Callable[[], Export] | None]) -> "Replay | None":
        if self.spool is None:
            return None
        from telemetry._spool.replay import Replay  # noqa: PLC0415 - as above

        taken = {
            signal: courier for signal, courier in self.couriers.items() if self.spool.takes(signal)
        }
        for courier in taken.values():
            self.spool.serve(courier.shed)
        return Replay(
            self.spool,
            couriers=taken,
            makers={signal: make for signal in taken if (make := makers[signal]) is not None},
            timeout_s=self.settings.timeout,
            max_age_s=self.settings.spool_max_age,
        )

    def _make_metrics_courier(self, make: Callable[[], Export] | None) -> None:
        if make is None:
            return
        self.couriers["metrics"] = MetricsCourier(
            make,
            collect=self._collect,
            interval_s=self.settings.metric_interval_ms / 1000,
            timeout_s=self.settings.of("metrics", "timeout"),
            spool=self._spool_of("metrics"),
        )

    def _build_providers(self) -> None:
        """Make and set the global providers; those that somebody has set before us are joined."""
        from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        from telemetry._fast import logs, traces  # noqa: PLC0415
        from telemetry._fast import metrics as _meters  # noqa: PLC0415
        from telemetry._sdk import processors as _processors  # noqa: PLC0415
        from telemetry._sdk import request_processors  # noqa: PLC0415

        self.meter_provider: Any = None
        self.foreign: list[str] = []
        self._unredacted: list[str] = []
        meters: Any = metrics.get_meter_provider()
        if isinstance(meters, MeterProvider):
            self._joined("metrics", meters)
        else:
            self.meter_provider = _meters.Meters(
                resource=self.resource,
                exemplar_filter=_processors.FirstMeasurement(self.start_metrics),
                shutdown_on_exit=False,
            )
            _otel_context.pass_metrics(self.meter_provider, self.gate.metrics)
            metrics.set_meter_provider(self.meter_provider)
        tracers: Any = trace.get_tracer_provider()
        if isinstance(tracers, TracerProvider):
            self._joined("traces", tracers)
        else:
            tracers = traces.Tracers(
                resource=self.resource,
                shutdown_on_exit=False,
                active_span_processor=_processors.GuardedSpanProcessors(self.gate),
                id_generator=self.ids,
            )
            trace.set_tracer_provider(tracers)
        tracers.add_span_processor(request_processors.EntrySpans())
        tracers.add_span_processor(_processors.SpanIds())
        tracers.add_span_processor(self.span_delivery)
        loggers: Any = get_logger_provider()
        if isinstance(loggers, LoggerProvider):
            self._joined("logs", loggers)
        else:
            loggers = logs.Loggers(
                resource=self.resource,
                shutdown_on_exit=False,
                multi_log_record_processor=_processors.GuardedLogProcessors(self.gate),
            )
            set_logger_provider(loggers)
        loggers.add_log_record_processor(request_processors.EntryLogs())
        loggers.add_log_record_processor(_processors.LogIds())
        loggers.add_log_record_processor(self.log_delivery)
        if self.foreign:
            _diagnostics.say(
                "foreign",
                f"providers for {', '.join(self.foreign)} were set before telemetry.configure():"
                " they are joined, not replaced",
                level="info",
            )
        if self._unredacted and self.gate.redaction.level != "off":
            _diagnostics.say(
                "foreign exporters",
                f"the exporters that were set up for {', '.join(self._unredacted)} before"
                " telemetry.configure() get records unredacted; call configure() before, and add"
                " them after it",
            )

    def _joined(self, signal: str, provider: object) -> None:
        self.foreign.append(signal)
        if _otel_context.has_exporters(provider):
            self._unredacted.append(signal)

    def attach(self) -> None:
        """Put our handlers on the root logger."""
        settings = self.settings
        handlers: list[Any] = [self.otel_handler] if "logs" in self.couriers else []
        if settings.log_format != "none":
            asked = settings.given("log_format")
            handlers.append(root.Console(settings.log_format, asked=asked))
        level = settings.log_level if settings.given("log_level") else None
        root.attach(
            handlers,
            level=level,
            fallback_level=settings.log_level,
            levels=settings.log_levels,
        )

    # --- metrics of this process ---

    def start_metrics(self) -> None:
        """Add this process's reader and start its courier, once per pid."""
        courier = self.couriers.get("metrics")
        if courier is None or self.meter_provider is None or self._reader_pid == os.getpid():
            return
        # A lock of this process: the parent's may be held by a thread that the child does not have.
        with self._start_locks.setdefault(os.getpid(), threading.RLock()):
            if self._reader_pid != os.getpid():
                self._add_reader(courier)

    def _add_reader(self, courier: Courier) -> None:
        from opentelemetry.exporter.otlp.proto.common._internal.metrics_encoder import (  # noqa: PLC0415
            OTLPMetricExporterMixin,
        )

        from telemetry._sdk import processors as _processors  # noqa: PLC0415

        if self._reader_pid:
            _otel_context.forget_readers(self.meter_provider)
            courier.after_fork()
        preferences: Any = OTLPMetricExporterMixin()
        self._reader = _processors.Reader(
            preferred_temporality=preferences._get_temporality(None),  # noqa: SLF001 - reads the
            preferred_aggregation=preferences._get_aggregation(None),  # noqa: SLF001 - environment
        )
        self.meter_provider.add_metric_reader(self._reader)
        self._reader_pid = os.getpid()
        courier.start()

    def _thread_started(self) -> None:
        """The first span or record of a process: callbacks count from here on; children end well."""
        if self.meter_provider is not None and _otel_context.has_observables(self.meter_provider):
            self.start_metrics()
        if self.replay is not None:
            self.replay.start()
        # A child of multiprocessing leaves by os._exit: no exit hook runs, but its finalizers do.
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            from multiprocessing import util  # noqa: PLC0415 - loaded already, in such a child

            from telemetry._config import configure  # noqa: PLC0415 - it imports this module

            util.Finalize(None, configure.at_exit, exitpriority=100)

    def _collect(self) -> tuple[object, int] | None:
        data = self._reader.take(self.settings.of("metrics", "timeout"))
        if data is None:
            return None
        points = sum(
            len(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
        return (data, points) if points else None

    def _troubled(self) -> None:
        """Something was lost or spooled: from now on, delivery health is among the metrics."""
        from telemetry._export import health  # noqa: PLC0415 - it imports this module

        health.observe()
        self.start_metrics()

    # --- the end ---

    def _lost_log(self) -> None:
        if "logs" in self.couriers:
            self.couriers["logs"].lose("conversion_error")

    def _flush_traces(self, timeout_s: float) -> bool:
        return self._flush(["traces"], timeout_s)

    def _flush_logs(self, timeout_s: float) -> bool:
        return self._flush(["logs"], timeout_s)

    def _flush(self, signals: Sequence[str], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        couriers = [self.couriers[signal] for signal in signals if signal in self.couriers]
        waits = [courier.hurry() for courier in couriers]  # all of them begin, then each is awaited
        return all([wait(deadline) for wait in waits])  # noqa: C419 - none is skipped

    def flush(self, timeout_s: float) -> bool:
        """Send what waits, over all signals, within the time."""
        if self.meter_provider is not None and _otel_context.has_observables(self.meter_provider):
            self.start_metrics()
        return self._flush(list(self.couriers), timeout_s)

    def shutdown(self, timeout_s: float) -> None:
        """Send what waits within the time, spool or lose the rest; later records are lost too."""
        final = time.monotonic() + timeout_s
        # Writing is quick, but it needs some of the time.
        deadline = final if self.spool is None else final - min(timeout_s / 4, SPOOL_S)
        for courier in self.couriers.values():
            courier.close_soon(deadline, final)
        if self.replay is not None:
            self.replay.close()
        for courier in self.couriers.values():
            courier.close()
        if self.spool is not None:
            self.spool.close()

    def set_aside(self) -> None:
        """Spool what waits and go on: for a process that will be killed without a word."""
        if self.spool is not None:
            for courier in self.couriers.values():
                courier.set_aside()
            self.spool.sync()

    def report(self) -> dict[str, dict[str, Any]]:
        """The ledger of each signal."""
        ledgers = {signal: courier.report() for signal, courier in self.couriers.items()}
        for signal, counts in self.gate.counts().items():
            if signal in ledgers:
                ledgers[signal]["redacted"] = counts
        if self.replay is not None:
            for signal, adopted in self.replay.adopted.items():
                ledgers[signal]["adopted"] = adopted
        return ledgers


def make_spool(settings: _settings.Settings, encoders: Mapping[str, Any]) -> "Spool | None":
    """The spool that the settings ask for."""
    if not settings.spool_dir:
        return None
    from telemetry._spool import file  # noqa: PLC0415 - only for those who asked for it
    from telemetry._spool.spool import Spool  # noqa: PLC0415

    encode = {signal: found for signal, found in encoders.items() if found is not None}
    if not file.supported() or not encode:
        why = "needs OTLP over http/protobuf" if file.supported() else "needs a POSIX system"
        _diagnostics.say("spool", f"TELEMETRY_SPOOL_DIR has no effect: the spool {why}")
        return None
    return Spool(
        Path(settings.spool_dir).expanduser().absolute(),
        service=settings.service_name or "unknown_service",
        max_bytes=settings.spool_bytes,
        through=settings.spool_write_through,
        encode=encode,
    )


def _resource(settings: _settings.Settings) -> Any:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the SDK, only when it is used

    attributes: dict[str, Any] = {DISTRO_NAME: NAME, DISTRO_VERSION: __version__}
    # The SDK reads the variables itself; what was given as an argument wins over them.
    if settings.sources.get("resource_attributes") == "argument":
        attributes.update(settings.resource_attributes or {})
    if settings.sources.get("service_name") == "argument":
        attributes[SERVICE_NAME] = settings.service_name
    return Resource.create(attributes)


def _id_generator() -> Any:
    """Random ids, unless OTEL_PYTHON_ID_GENERATOR names another generator."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 - as above

    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "random").strip()
    if name and name != "random":
        for entry_point in entry_points(group="opentelemetry_id_generator", name=name):
            return entry_point.load()()
        _diagnostics.say(
            "ids", f"OTEL_PYTHON_ID_GENERATOR={name!r} is not installed; ids are random"
        )

    class OwnRandomIds(RandomIdGenerator):
        """Random ids that `random.seed(42)` in the application does not repeat in every run."""

        def generate_span_id(self) -> int:
            """A span id that is not zero."""
            return ids.bits(64) or 1

        def generate_trace_id(self) -> int:
            """A trace id that is not zero."""
            return ids.bits(128) or 1

    return OwnRandomIds()
