"""gunicorn --preload: the application is imported, and has logged, before the workers are forked."""

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import die_with_parent, free_port

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
APP = """
import os
import telemetry

logger = telemetry.get_logger("service")
logger.info("imported", pid=os.getpid())

def app(environ, start_response):
    with telemetry.log_context(request_id=environ["HTTP_X_REQUEST_ID"]), telemetry.span("answer"):
        logger.info("answered", pid=os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
REQUESTS = 60


def ask(port, key):
    """The process that answered, once the server listens."""
    give_up = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/", headers={"X-Request-ID": key})
            with connection.getresponse() as answer:
                return int(answer.read())
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def test_workers_of_a_preloaded_application_deliver(tmp_path, receiver):
    """What the parent said before the fork and each worker after it arrives once, also on SIGTERM."""
    (tmp_path / "service.py").write_text(APP)
    port = free_port()
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
    }
    with subprocess.Popen(
        [
            *(BIN / "opentelemetry-instrument", BIN / "gunicorn", "service:app"),
            *("--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "--no-control-socket"),
        ],
        cwd=tmp_path,
        env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
    ) as server:
        try:
            answered = {f"r-{number}": ask(port, f"r-{number}") for number in range(REQUESTS)}
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    assert sum(log["message"] == "imported" for log in receiver.logs) == 1
    told = {
        log["attributes"]["request.id"]: log["attributes"]["pid"]
        for log in receiver.logs
        if log["message"] == "answered"
    }
    assert told == answered
    spans = [span["attributes"]["request.id"] for span in receiver.spans]
    assert sorted(spans) == sorted(answered)
    assert server.pid not in answered.values()
