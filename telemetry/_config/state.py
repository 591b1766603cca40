"""
The pipeline that runs in this process, and what becomes of its records.

`configure` sets it; everything else that wants to know whether and how telemetry runs asks here.
Below all of them in the import order: nothing of ours is imported but for types.
"""

from typing import Any, Protocol


class Running(Protocol):
    """The pipeline, as the rest of `telemetry` sees it; `_config.pipeline.Pipeline` is one."""

    settings: Any
    queues: Any
    """By signal: `ExportQueue`."""
    spool: Any
    replay: Any
    redactor: Any
    otel_handler: Any

    @property
    def foreign(self) -> list[str]:
        """Signals whose provider another package has set."""

    @property
    def meter_provider(self) -> Any:
        """Our meter provider; None where another package has set one."""

    @property
    def ids(self) -> Any:
        """The id generator, whose source a test's capture exchanges."""

    @property
    def span_delivery(self) -> Any:
        """Our span processor."""

    @property
    def log_delivery(self) -> Any:
        """Our log record processor."""

    def start_metrics(self) -> None:
        """Make this process's reader and start its queue, once per pid."""

    def flush(self, timeout_s: float) -> bool:
        """Send what waits, over all signals, within the time."""

    def shutdown(self, timeout_s: float) -> None:
        """Send what waits within the time, spool or lose the rest."""

    def set_aside(self) -> None:
        """Spool what waits and go on."""

    def report(self) -> dict[str, dict[str, Any]]:
        """The ledger of each signal."""


_pipeline: Running | None = None


def pipeline() -> Running | None:
    """What runs in this process; None before `configure()`, and where telemetry is disabled."""
    return _pipeline


def use(pipeline: Running) -> None:
    """Let this pipeline be the one of the process: once, as there is one set of providers."""
    global _pipeline  # noqa: PLW0603 - see above
    _pipeline = pipeline


def report() -> dict[str, dict[str, Any]]:
    """
    What became of every record of this process, per signal.

    Returns:
        {"traces": {"produced", "exported", "pending", "dropped": {reason: count}}, ...}, where
        produced = exported + pending + spooled + everything dropped; `spooled` is there where the
        signal has a spool, and `adopted` where records of earlier processes were delivered.
    """
    return {} if _pipeline is None else _pipeline.report()
