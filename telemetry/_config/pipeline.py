"""
The `Pipeline` of a process: everything that `configure()` builds, and how it ends.

Queues and spool (`queues`), providers (`providers`), the handler on the root logger, the propagator.
Nothing here opens a connection or starts a thread: the queues do, at the first record of each
process, since a process may fork before it (prefork servers), or never emit anything (a supervisor).

Metrics: each process makes its own SDK provider at its first measurement; before that, a fork would
copy sums and locks (opentelemetry-python#3307).
"""

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import propagate

from telemetry import _diagnostics
from telemetry._config import settings as _settings
from telemetry._context import propagation
from telemetry._context import scope as context
from telemetry._export.drop_reasons import CONVERSION_ERROR
from telemetry._logs import root
from telemetry._version import NAME, __version__
from telemetry.attributes import DISTRO_NAME, DISTRO_VERSION, SERVICE_NAME

if TYPE_CHECKING:  # imported where they are used
    from telemetry._export.queue import ExportQueue
    from telemetry._sdk.metric_reader import Reader

SPOOL_S: Final = 0.5
"""How much of the exit's budget is kept for writing to the spool."""


class Pipeline:
    """
    Everything that `configure()` builds.

    Args:
        settings: the effective settings.
        on_child_exit: called at the end of a child of multiprocessing, which runs no exit hooks.
    """

    def __init__(self, settings: _settings.Settings, *, on_child_exit: Callable[[], None]) -> None:
        # The SDK and the HTTP client are imported when they are used, not by `import telemetry`; all
        # of it now, since a child may be forked while another thread holds the lock of an import.
        from telemetry._config import exporters  # noqa: PLC0415
        from telemetry._config.providers import Providers  # noqa: PLC0415
        from telemetry._config.queues import Queues  # noqa: PLC0415
        from telemetry._export.record_redactor import RecordRedactor  # noqa: PLC0415
        from telemetry._fast import gate  # noqa: PLC0415
        from telemetry._logs import logger  # noqa: PLC0415
        from telemetry._sdk import metric_reader  # noqa: F401, PLC0415

        self.settings = settings
        self._on_child_exit = on_child_exit
        self._reader_pid = 0
        self._start_locks: dict[int, threading.RLock] = {}
        self._reader: Reader | None = None
        encoders = {signal: exporters.encoder(signal, settings) for signal in _settings.SIGNALS}
        made = Queues(settings, encoders, collect=self._collect, started=self._thread_started)
        self.queues: dict[str, ExportQueue] = made.by_signal
        self.spool, self.replay = made.spool, made.replay
        self.redactor = RecordRedactor(settings.redacting())
        for signal, prepare in (("traces", self.redactor.spans), ("logs", self.redactor.logs)):
            if signal in self.queues:  # metrics are redacted as they are collected
                self.queues[signal].prepare = prepare
        for queue in self.queues.values():
            queue.troubled = self._troubled
        self.providers = Providers(
            _resource(settings),
            self.queues,
            self.redactor,
            flush=self._flush,
            ensure_handlers=root.ensure,
            start_metrics=self.start_metrics,
            logs_as_facts=encoders["logs"] is not None,
        )
        self.otel_handler = logger.OtelHandler(self.providers.loggers, self._lost_log)
        gate.install(self.providers, self.otel_handler, wanted=settings.fast_path)
        propagator = propagate.get_global_textmap()
        if not isinstance(propagator, propagation.Propagator):
            propagate.set_global_textmap(propagation.Propagator(propagator))
        context.carry(settings.baggage_keys)
        _pipelines.add(self)

    # --- what the test kit and others look at ---

    @property
    def resource(self) -> Any:
        """What the records are about."""
        return self.providers.resource

    @property
    def foreign(self) -> list[str]:
        """Signals whose provider another package has set."""
        return self.providers.foreign

    @property
    def meter_provider(self) -> Any:
        """Our meter provider; None where another package has set one."""
        return self.providers.meters

    @property
    def ids(self) -> Any:
        """The id generator, whose source a test's capture exchanges."""
        return self.providers.ids

    @property
    def span_delivery(self) -> Any:
        """Our span processor."""
        return self.providers.spans

    @property
    def log_delivery(self) -> Any:
        """Our log record processor."""
        return self.providers.logs

    def attach(self) -> None:
        """Put our handlers on the root logger."""
        settings = self.settings
        handlers: list[Any] = [self.otel_handler] if "logs" in self.queues else []
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
        """Make this process's reader and start its queue, once per pid."""
        queue, meters = self.queues.get("metrics"), self.providers.meters
        if queue is None or meters is None or self._reader_pid == os.getpid():
            return
        # A lock of this process: the parent's may be held by a thread that the child does not have.
        with self._start_locks.setdefault(os.getpid(), threading.RLock()):
            if self._reader_pid == os.getpid():
                return
            from telemetry._sdk.metric_reader import Reader  # noqa: PLC0415 - loaded long ago

            if self._reader_pid:
                meters.after_fork()
                queue.after_fork()
            self._reader = Reader()
            self._reader_pid = os.getpid()  # before `open`: what that measures comes here again
            meters.open(self._reader)
            queue.start()

    def _has_observables(self) -> bool:
        """Whether a callback is registered: then metrics exist without any measurement."""
        meters = self.providers.meters
        return meters is not None and bool(meters.observables)

    def _thread_started(self) -> None:
        """The first span or record of a process: callbacks count from here on; children end well."""
        if self._has_observables():
            self.start_metrics()
        if self.replay is not None:
            self.replay.start()
        # A child of multiprocessing leaves by os._exit: no exit hook runs, but its finalizers do.
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            from multiprocessing import util  # noqa: PLC0415 - loaded already, in such a child

            util.Finalize(None, self._on_child_exit, exitpriority=100)

    def _collect(self) -> tuple[object, int] | None:
        reader = self._reader
        if reader is None:
            return None
        data = self.redactor.metrics(reader.take(self.settings.of("metrics", "timeout")))
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
        from telemetry._export import health  # noqa: PLC0415 - only after a loss

        health.observe()
        self.start_metrics()

    # --- the end ---

    def _lost_log(self) -> None:
        if "logs" in self.queues:
            self.queues["logs"].lose(CONVERSION_ERROR)

    def _flush(self, signals: Sequence[str], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        queues = [self.queues[signal] for signal in signals if signal in self.queues]
        waits = [queue.hurry() for queue in queues]  # all of them begin, then each is awaited
        return all([wait(deadline) for wait in waits])  # noqa: C419 - none is skipped

    def flush(self, timeout_s: float) -> bool:
        """Send what waits, over all signals, within the time."""
        if self._has_observables():
            self.start_metrics()
        return self._flush(list(self.queues), timeout_s)

    def shutdown(self, timeout_s: float) -> None:
        """Send what waits within the time, spool or lose the rest; later records are lost too."""
        final = time.monotonic() + timeout_s
        # Writing is quick, but it needs some of the time.
        deadline = final if self.spool is None else final - min(timeout_s / 4, SPOOL_S)
        for queue in self.queues.values():
            queue.close_soon(deadline, final)
        if self.replay is not None:
            self.replay.close()
        for queue in self.queues.values():
            queue.close()
        if self.spool is not None:
            self.spool.close()

    def set_aside(self) -> None:
        """Spool what waits and go on: for a process that will be killed without a word."""
        if self.spool is not None:
            for queue in self.queues.values():
                queue.set_aside()
            self.spool.sync()

    def report(self) -> dict[str, dict[str, Any]]:
        """The ledger of each signal."""
        ledgers = {signal: queue.report() for signal, queue in self.queues.items()}
        for signal, counts in self.redactor.counts().items():
            if signal in ledgers:
                ledgers[signal]["redacted"] = counts
        if self.replay is not None:
            for signal, adopted in self.replay.adopted.items():
                ledgers[signal]["adopted"] = adopted
        return ledgers


def _resource(settings: _settings.Settings) -> Any:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the SDK, only when it is used

    attributes: dict[str, Any] = {DISTRO_NAME: NAME, DISTRO_VERSION: __version__}
    # The SDK reads the variables itself; what was given as an argument wins over them.
    if settings.sources.get("resource_attributes") == "argument":
        attributes.update(settings.resource_attributes or {})
    if settings.sources.get("service_name") == "argument":
        attributes[SERVICE_NAME] = settings.service_name
    return Resource.create(attributes)


_pipelines: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


def _after_fork() -> None:
    for pipeline in list(_pipelines):
        try:
            pipeline.providers.renew_locks()
        except Exception as error:
            _diagnostics.say("fork", f"locks were not renewed in the child: {error}", level="error")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
