"""The queue of each signal, the spool behind them, and the replay of what was spooled."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telemetry import _diagnostics
from telemetry._config import exporters
from telemetry._config import settings as _settings
from telemetry._export.metrics import PeriodicMetrics
from telemetry._export.queue import Export, ExportQueue

if TYPE_CHECKING:  # imported where a spool is asked for
    from telemetry._spool.replay import Replay
    from telemetry._spool.spool import Spool


class Queues:
    """
    What the settings ask for.

    Args:
        settings: the effective settings.
        encoders: by signal, how its records become a request; None where others export it.
        collect: gives the metrics of now and how many points they are, or None.
        started: called after the thread of a signal has started in this process.
    """

    def __init__(
        self,
        settings: _settings.Settings,
        encoders: Mapping[str, Any],
        *,
        collect: Callable[[], tuple[object, int] | None],
        started: Callable[[], None],
    ) -> None:
        self._settings = settings
        makers = {signal: exporters.choose(signal, settings) for signal in _settings.SIGNALS}
        self.spool = make_spool(settings, encoders)
        self.by_signal: dict[str, ExportQueue] = {}
        for signal, prefix in (("traces", "span"), ("logs", "log")):
            make = makers[signal]
            if make is not None:
                self.by_signal[signal] = self._records(signal, prefix, make, started)
        make = makers["metrics"]
        if make is not None:
            self.by_signal["metrics"] = PeriodicMetrics(
                make,
                collect=collect,
                interval_s=settings.metric_interval_ms / 1000,
                timeout_s=settings.of("metrics", "timeout"),
                spool=self._spool_of("metrics"),
            )
        self.replay = self._make_replay(makers)

    def _records(
        self, signal: str, prefix: str, make: Callable[[], Export], started: Callable[[], None]
    ) -> ExportQueue:
        settings = self._settings
        return ExportQueue(
            signal,
            make,
            queue_size=getattr(settings, f"{prefix}_queue_size"),
            batch_size=getattr(settings, f"{prefix}_batch_size"),
            delay_s=getattr(settings, f"{prefix}_delay_ms") / 1000,
            queue_bytes=settings.queue_bytes,
            timeout_s=settings.of(signal, "timeout"),
            started=started,
            spool=self._spool_of(signal),
        )

    def _spool_of(self, signal: str) -> "Spool | None":
        return self.spool if self.spool is not None and self.spool.takes(signal) else None

    def _make_replay(self, makers: Mapping[str, Callable[[], Export] | None]) -> "Replay | None":
        if self.spool is None:
            return None
        from telemetry._spool.replay import Replay  # noqa: PLC0415 - as above

        taken = {
            signal: queue for signal, queue in self.by_signal.items() if self.spool.takes(signal)
        }
        for queue in taken.values():
            self.spool.serve(queue.shed)
        return Replay(
            self.spool,
            queues=taken,
            makers={signal: make for signal in taken if (make := makers[signal]) is not None},
            timeout_s=self._settings.timeout,
            max_age_s=self._settings.spool_max_age,
        )


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
