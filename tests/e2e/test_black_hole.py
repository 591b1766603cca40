"""A stop beside a backend that accepts and never answers: clean, and nothing is lost (R8)."""

import contextlib
import json
import socket
import urllib.request

import pytest

from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "localhost:0"}}}}}}}}
exporters: {{otlp_http: {{endpoint: "http://localhost:{port}", sending_queue: {{storage: file_storage}}}}}}
extensions: {{file_storage: {{directory: q, reserve_bytes: 0}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage]
  pipelines: {{logs: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""
BODY = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "precious"}}]}]}]}


def test_a_stop_does_not_wait_for_an_attempt_that_hangs(tmp_path):
    """Exit code 0 with an attempt under way; the next start sends the request again."""
    with contextlib.closing(socket.create_server(("localhost", 0))) as backend:
        backend.settimeout(60)
        (tmp_path / "c.yaml").write_text(CONFIG.format(port=backend.getsockname()[1]))
        with Collector(tmp_path, sets=(), config="c.yaml") as collector:
            collector.wait_for(READY)
            where = f"http://{collector.address('receivers::otlp', 'http')}/v1/logs"
            asked = urllib.request.Request(
                where, json.dumps(BODY).encode(), {"Content-Type": "application/json"}
            )
            assert urllib.request.urlopen(asked, timeout=30).status == 200
            first, _ = backend.accept()
            assert first.recv(4) == b"POST"
            assert collector.stop() == 0
            assert "cut off" not in collector.text
        first.close()
        with Collector(tmp_path, sets=(), config="c.yaml") as collector:
            again, _ = backend.accept()
            assert again.recv(4) == b"POST"
            assert collector.stop() == 0
        again.close()
