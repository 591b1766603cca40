"""
The OTEL_* variables that are ours, for `opentelemetry-instrument --help`.

Entry point of group `opentelemetry_environment_variables`: each constant becomes a flag of the
wrapper (OTEL_PYTHON_EXIT_TIMEOUT -> --exit_timeout). A name that another package also registers
would break the wrapper's argument parser, so the standard variables are not repeated here.
"""

from typing import Final

OTEL_PYTHON_EXIT_TIMEOUT: Final = "OTEL_PYTHON_EXIT_TIMEOUT"
"""Same as TELEMETRY_EXIT_TIMEOUT: seconds that the exit may wait for delivery."""
OTEL_PYTHON_CONSOLE_FORMAT: Final = "OTEL_PYTHON_CONSOLE_FORMAT"
"""Same as LOG_FORMAT: text, json, logfmt or none."""
OTEL_PYTHON_QUEUE_BYTES: Final = "OTEL_PYTHON_QUEUE_BYTES"
"""Same as TELEMETRY_QUEUE_BYTES: how many bytes of a signal may wait."""
OTEL_PYTHON_SPOOL_DIR: Final = "OTEL_PYTHON_SPOOL_DIR"
"""Same as TELEMETRY_SPOOL_DIR: folder for what cannot be sent in time."""
