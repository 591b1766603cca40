"""
configure(), flush(), shutdown(), report(): one `Pipeline` per process.

The providers can be set once per process, so a second `configure()` changes nothing. What a
pipeline needs (settings, queues, the SDK) is imported by the first `configure()`, so that
`import telemetry` in a library costs next to nothing.

Exit: the SDK's own exit hooks are off (they wait up to 30 s per processor). One hook of ours gives
all signals together `exit_timeout` seconds and then says, in one line, what was lost and why. It
runs too where SIGTERM would end the process at once.
"""

import atexit
import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from telemetry import _diagnostics, _values
from telemetry._config import standard_variables, state
from telemetry._config.state import Running, pipeline, report
from telemetry._export.drop_reasons import FORK_DISCARD
from telemetry._logs import root
from telemetry._redaction.policy import Redaction

if TYPE_CHECKING:  # see above
    from telemetry._config import settings as _settings

__all__ = ["configure", "flush", "pipeline", "report", "shutdown"]

SNAPSHOT: Final = "TELEMETRY_SNAPSHOT"
"""`telemetry doctor` names a file here, in which each process says at its end what it had."""

standard_variables.import_propagators()  # before any module of ours or of others imports them

LEAVE_S: Final = 0.15
"""How much of the exit's budget is left to the interpreter: its end takes that long after ours."""
_WORDS: Final = {"traces": "spans", "metrics": "metric points", "logs": "log records"}
_lock = threading.Lock()


def configure(
    *,
    disabled: bool | None = None,
    service_name: str | None = None,
    resource_attributes: Mapping[str, str] | None = None,
    traces_exporter: str | Sequence[str] | None = None,
    metrics_exporter: str | Sequence[str] | None = None,
    logs_exporter: str | Sequence[str] | None = None,
    protocol: str | None = None,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    compression: str | None = None,
    certificate: str | None = None,
    client_certificate: str | None = None,
    client_key: str | None = None,
    span_delay_ms: int | None = None,
    span_queue_size: int | None = None,
    span_batch_size: int | None = None,
    log_delay_ms: int | None = None,
    log_queue_size: int | None = None,
    log_batch_size: int | None = None,
    metric_interval_ms: int | None = None,
    queue_bytes: int | None = None,
    exit_timeout: float | None = None,
    sigterm: bool | None = None,
    spool_dir: str | None = None,
    spool_bytes: int | None = None,
    spool_max_age: float | None = None,
    spool_write_through: bool | None = None,
    fast_path: str | None = None,
    log_level: str | None = None,
    log_levels: Mapping[str, str] | None = None,
    log_format: str | None = None,
    baggage_keys: Sequence[str] | None = None,
    redaction: str | Redaction | None = None,
    redaction_keys: Mapping[str, str] | Sequence[str] | None = None,
    redaction_allow_keys: Sequence[str] | None = None,
    redaction_patterns: Mapping[str, str] | None = None,
    redaction_modes: Mapping[str, str] | None = None,
    diagnostics: str | None = None,
    report: bool | None = None,
) -> None:
    """
    Set up traces, metrics and logs for this process.

    Under `opentelemetry-instrument` this has happened already and the call changes nothing, so a
    program may call it always. Each argument has environment variables and a default: see the
    table of settings in docs/reference/settings.md; an argument wins over a variable.

    Example:
        telemetry.configure(service_name="orders", endpoint="http://localhost:4318")

    Raises:
        ConfigError: an argument or a variable cannot be used; all problems are listed.
        MissingDependency: an exporter that was asked for is not installed.
    """
    arguments = dict(locals())
    from telemetry._config import settings as _settings  # noqa: PLC0415 - as said above

    with _lock:
        if pipeline() is None:
            _install(_settings.load(arguments))
            return
    _settings.load(arguments, {})  # a wrong argument is an error in every environment
    if any(value is not None for value in arguments.values()):
        text = "telemetry is already configured; these arguments of configure() change nothing: "
        given = ", ".join(name for name, value in arguments.items() if value is not None)
        _diagnostics.say("configure", text + given, level="info")


def configure_from_environment() -> None:
    """Set up under the wrapper: a bad setting is said and its default used; nothing is raised."""
    from telemetry._config import settings as _settings  # noqa: PLC0415 - as said above

    with _lock:
        if pipeline() is not None:
            return
        settings, problems = _settings.read()
        for problem in problems:
            _diagnostics.say("settings", problem, level="error", always=True)
        if os.environ.get("OTEL_CONFIG_FILE", "").strip():
            text = "OTEL_CONFIG_FILE is not read: set the variables of docs/reference/settings.md instead"
            _diagnostics.say("config file", text, always=True)
        standard_variables.use_defaults()
        settings = _usable(settings)
        if any(problem.startswith("TELEMETRY_REDACTION") for problem in problems):
            text = "redaction is strict until its settings are corrected"
            _diagnostics.say("redaction settings", text, level="error", always=True)
            settings = dataclasses.replace(settings, redaction="strict")
        _install(settings)


def _usable(settings: "_settings.Settings") -> "_settings.Settings":
    """The settings with exporters that can be made: what cannot is said, and its default used."""
    from telemetry._config import exporters  # noqa: PLC0415 - as said above

    if settings.disabled:
        return settings
    usable, problems = exporters.usable(settings)
    for problem in problems:
        _diagnostics.say("exporters", problem, level="error", always=True)
    return usable


def install_for_capture() -> Running:
    """What `telemetry.testing.capture` works on: what runs, else a pipeline that leads nowhere."""
    from telemetry._config import settings as _settings  # noqa: PLC0415 - as said above
    from telemetry._config.pipeline import Pipeline  # noqa: PLC0415

    with _lock:
        running = pipeline()
        if running is None:
            nowhere = {f"{signal}_exporter": "none" for signal in _settings.SIGNALS}
            settings = _settings.read({**nowhere, "disabled": False})[0]
            running = Pipeline(settings, on_child_exit=at_exit)
            state.use(running)
        return running


def _install(settings: "_settings.Settings") -> None:
    _diagnostics.listen(settings.diagnostics)
    if settings.disabled:
        return
    from telemetry._config import exporters  # noqa: PLC0415 - as said above
    from telemetry._config.pipeline import Pipeline  # noqa: PLC0415

    running = Pipeline(settings, on_child_exit=at_exit)
    state.use(running)
    running.attach()
    from telemetry.instrumentation import loguru, threads  # noqa: PLC0415 - as said above

    if "logs" in running.queues:
        loguru.install(running.otel_handler, settings.log_level)
    threads.install()
    if exposed := exporters.in_the_open(settings):
        _diagnostics.say("exposed", exposed, always=True)
    atexit.register(at_exit)
    if settings.sigterm:
        from telemetry._config import sigterm as _sigterm  # noqa: PLC0415 - as said above

        _sigterm.catch(at_exit, settings.exit_timeout + 1)


def flush(timeout: float = 5.0) -> bool:
    """
    Send what waits, all signals together, for at most `timeout` seconds.

    Returns:
        Whether everything that was here when the call began has been delivered.
    """
    try:
        running = pipeline()
        return True if running is None else running.flush(_values.seconds(timeout, 5.0))
    except Exception as error:
        _diagnostics.say("flush", f"flush failed: {_values.text(error)}", level="error")
        return False


def shutdown(timeout: float | None = None) -> None:
    """
    Send what waits and end; later records are counted as lost. Runs by itself at exit.

    Args:
        timeout: seconds, over all signals; the setting `exit_timeout` by default.
    """
    running = pipeline()
    if running is None:
        return
    try:
        running.shutdown(_values.seconds(timeout, running.settings.exit_timeout))
        root.detach()
    except Exception as error:
        _diagnostics.say("shutdown", f"shutdown failed: {_values.text(error)}", level="error")


def at_exit() -> None:
    """Leave within the budget, and say what was lost, in one line."""
    snapshot = None
    if path := os.environ.get(SNAPSHOT):
        from telemetry._cli.snapshot import Snapshot  # noqa: PLC0415 - for `telemetry doctor` only

        snapshot = Snapshot()
    running = pipeline()
    budget = 0.0 if running is None else running.settings.exit_timeout
    try:
        shutdown(budget - min(budget / 10, LEAVE_S))
    except KeyboardInterrupt:  # a user who does not want to wait
        shutdown(0.0)
    parts = []
    for signal, ledger in report().items():
        reasons = {
            reason: count for reason, count in ledger["dropped"].items() if reason != FORK_DISCARD
        }
        if reasons:
            listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            parts.append(f"{sum(reasons.values())} {_WORDS[signal]} ({listed})")
    if parts:
        _diagnostics.say("exit", f"lost {'; '.join(parts)}", always=True)
    if running is not None:
        asked = running.settings.report
        level = "error" if asked else "debug"
        _diagnostics.say("report", account(report()), level=level, always=True)
    if snapshot is not None and path:
        snapshot.write(path)


def account(ledgers: Mapping[str, Mapping[str, Any]]) -> str:
    """What became of every record, in one line: produced = exported + spooled + dropped."""
    parts = []
    for signal, ledger in ledgers.items():
        columns = [("exported", ledger["exported"]), ("spooled", ledger.get("spooled", 0))]
        columns += [(f"dropped {reason}", count) for reason, count in ledger["dropped"].items()]
        columns.append(("pending", ledger["pending"]))
        listed = " + ".join(f"{count} {name}" for name, count in columns if count) or "0"
        parts.append(f"{ledger['produced']} {_WORDS[signal]} = {listed}")
        if adopted := ledger.get("adopted"):
            lost = sum(adopted["dropped"].values())
            parts[-1] += f" (adopted: {adopted['exported']} exported, {lost} dropped)"
    return "report: " + ("; ".join(parts) or "nothing was produced")
