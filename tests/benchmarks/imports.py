"""What `import telemetry` adds to the SDK and its HTTP exporter, in fresh interpreters."""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.measure import result

ROUNDS = 15
SDK = (
    "import opentelemetry.sdk.trace, opentelemetry.sdk.metrics, opentelemetry.sdk._logs\n"
    "import opentelemetry.exporter.otlp.proto.http.trace_exporter\n"
    "import opentelemetry.exporter.otlp.proto.http.metric_exporter\n"
    "import opentelemetry.exporter.otlp.proto.http._log_exporter\n"
)
TIMED = "import time; start = time.perf_counter()\n{}\nprint((time.perf_counter() - start) * 1e3)"


def milliseconds(code: str) -> float:
    """One import in one interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(code)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Median milliseconds of each, taken in turns."""
    pairs = [
        (
            milliseconds(SDK),
            milliseconds(SDK + "import telemetry"),
            milliseconds("import telemetry"),
        )
        for _ in range(ROUNDS)
    ]
    alone, both, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    yield result("SDK with the OTLP/HTTP exporters", alone, "ms")
    yield result("import telemetry on top of them", both - alone, "ms", at_most=30)
    yield result("import telemetry alone", ours, "ms", at_most=200)
