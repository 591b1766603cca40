"""
OpenTelemetry for Python teams: correlated traces, metrics and logs that never hurt the application.

Put `opentelemetry-instrument` before the command, or call `telemetry.configure()`; then

    logger = telemetry.get_logger(__name__)
    with telemetry.log_context(tenant_id="t-1"):
        logger.info("order loaded", order_id="o-1")
"""

from telemetry._config.configure import configure, flush, report, shutdown
from telemetry._context.scope import (
    bind_context,
    clear_context,
    current_context,
    log_context,
    new_correlation_id,
    set_request_context,
)
from telemetry._events import audit, track
from telemetry._logs.logger import BoundLogger, get_logger
from telemetry._logs.structlog import structlog_processor
from telemetry._redaction.policy import Redaction
from telemetry._traces.span import LogContext, span
from telemetry._version import __version__
from telemetry.errors import ConfigError, MissingDependency, TelemetryError

__all__ = [
    "BoundLogger",
    "ConfigError",
    "LogContext",
    "MissingDependency",
    "Redaction",
    "TelemetryError",
    "__version__",
    "audit",
    "bind_context",
    "clear_context",
    "configure",
    "current_context",
    "flush",
    "get_logger",
    "log_context",
    "new_correlation_id",
    "report",
    "set_request_context",
    "shutdown",
    "span",
    "structlog_processor",
    "track",
]
