"""The quickstart, as `make run` starts it: one trace with its logs and metrics."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.telemetry.conftest import receiver

__all__ = ["receiver"]

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.e2e


def test_the_quickstart_makes_one_correlated_trace(receiver):
    """FastAPI's server span, our steps, the logs and the metrics hang together by one id (D1, D2)."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "opentelemetry-instrument"),
            sys.executable,
            str(ROOT / "examples" / "quickstart.py"),
        ],
        env={
            **{name: text for name, text in os.environ.items() if not name.startswith("OTEL_")},
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_SERVICE_NAME": "quickstart",
            "LOG_FORMAT": "none",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert (done.returncode, done.stderr) == (0, "")
    trace_id = re.fullmatch(r"trace_id=([0-9a-f]{32})\n", done.stdout)[1]
    spans = [span for span in receiver.spans if span["trace_id"] == trace_id]
    names = [span["name"] for span in spans if not span["name"].startswith("fastapi.")]
    assert sorted(names) == ["GET /orders/{order_id}/risk", "ask model", "load order", "score risk"]
    assert [(log["message"], log["severity"]) for log in receiver.logs] == [
        ("risk check started", 9),
        ("order loaded", 9),
        ("model did not answer, rules decide", 17),
        ("score is close to the limit", 13),
        ("risk check finished", 9),
        ("GET /orders/{order_id}/risk 200", 9),
    ]
    ours = [span for span in spans if not span["name"].startswith("fastapi.")]
    correlation = {item["attributes"]["correlation.id"] for item in [*ours, *receiver.logs]}
    assert len(correlation) == 1
    assert {log["trace_id"] for log in receiver.logs} == {trace_id}
    assert {name for name, _, _ in receiver.points} >= {
        "orders.scored",
        "order.risk.score",
        "http.server.request.duration",
    }
