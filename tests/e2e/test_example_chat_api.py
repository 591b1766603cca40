"""examples/chat_api under the wrapper, a real collector with the embedded store, and its answers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.test_run import READY, Collector
from tests.servers import die_with_parent, free_port

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat_api"
BIN = Path(sys.executable).parent
CALLER = {"X-Organization-ID": "org-1", "X-User-ID": "u-1"}


class Service:
    """The example, served by uvicorn under the wrapper."""

    def __init__(self, endpoint, folder):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.output = (folder / "service.log").open("w+")
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
        }
        self.process = subprocess.Popen(
            [
                *(BIN / "opentelemetry-instrument", "--service_name", "chat-api"),
                *(BIN / "uvicorn", "main:app", "--app-dir", EXAMPLE, "--no-access-log"),
                *("--port", self.url.rpartition(":")[2]),
            ],
            env={
                **clean,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "LOG_FORMAT": "json",
                "TELEMETRY_HTTP_SAMPLE": "GET /conversations/{id}/answer=0",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stderr=self.output,
            stdout=self.output,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )

    def ask(self, path, body=None, **headers):
        """Status, headers and text of an answer."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **CALLER, **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def wait(self):
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                self.ask("/health")
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail(self.text())

    def text(self):
        self.output.seek(0)
        return self.output.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def __enter__(self):
        self.wait()
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.output.close()


def trace(query, key):
    """What `collector trace <key> --json` prints, and its exit code."""
    done = subprocess.run(
        [BIN / "collector", "trace", key, "--json", "--endpoint", f"http://{query}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def shape(answer):
    """Span names with the names of their parents, and messages by level."""
    (found,) = answer["traces"]
    spans = [row["span"] for row in found["rows"]]
    names = {span["span_id"]: span["name"] for span in spans}
    nested = [(span["name"], names.get(span.get("parent_span_id"))) for span in spans]
    return nested, sorted((log["level"], log["message"]) for log in logs_of(found))


def logs_of(found):
    return [log for row in found["rows"] for log in row.get("logs", ())]


def test_the_chat_api_answers_by_one_id(tmp_path):
    """A1-A4, A6, D1, D2: message, stream, 500, 404 and health, and what the collector knows of each."""
    with Collector(tmp_path, TELEMETRY_DATA=str(tmp_path / "data")) as collector:
        collector.wait_for(READY)
        endpoint = f"http://{collector.address('receivers::otlp', 'http')}"
        query = collector.address("extensions::query", "http")
        with Service(endpoint, tmp_path) as service:
            posted = service.ask(
                "/conversations/c-9/messages",
                {"text": "hello"},
                **{"X-Request-ID": "req-1", "X-Correlation-ID": "corr-1"},
            )
            failed = service.ask("/reports/daily", **{"X-Request-ID": "req-2"})
            missing = service.ask(
                "/conversations/x-1/messages", {"text": "a"}, **{"X-Request-ID": "req-3"}
            )
            streamed = service.ask("/conversations/c-9/answer", **{"X-Request-ID": "req-4"})
            checked = service.ask("/health", **{"X-Request-ID": "req-5"})
            many = [
                threading.Thread(
                    target=service.ask,
                    args=(f"/conversations/c-{number}/messages", {"text": "a"}),
                    kwargs={"X-Request-ID": f"m-{number}", "X-Organization-ID": f"org-{number}"},
                )
                for number in range(20)
            ]
            for thread in many:
                thread.start()
            for thread in many:
                thread.join()
            service.stop()
            lines = service.text().splitlines()
        answers = {key: trace(query, key) for key in ("req-1", "corr-1", "req-2", "req-3", "m-7")}
        unknown = {key: trace(query, key)[0] for key in ("req-4", "req-5")}
        assert collector.stop() == 0

    statuses = [answer[0] for answer in (posted, failed, missing, streamed, checked)]
    assert statuses == [201, 500, 404, 200, 200]
    for number, answer in enumerate((posted, failed, missing, streamed, checked), 1):
        assert answer[1]["X-Request-ID"] == f"req-{number}"
        assert answer[1]["X-Correlation-ID"]
    context = {
        "request_id": "req-1",
        "correlation_id": "corr-1",
        "organization_id": "org-1",
        "user_id": "u-1",
        "conversation_id": "c-9",
    }
    assert json.loads(posted[2]) == {"answer": "hello from the flow", "context": context}
    assert streamed[2] == "hello from the flow "

    code, answer = answers["req-1"]
    route = "POST /conversations/{conversation_id}/messages"
    assert code == 0
    assert answers["corr-1"][1]["traces"] == answer["traces"]
    assert shape(answer) == (
        [(route, None), ("load conversation", route), ("flow_execution", route)],
        [
            ("INFO", f"{route} 201"),
            ("INFO", "flow_execution completed"),
            ("INFO", "message received"),
            ("INFO", "subscribers notified"),
        ],
    )
    (found,) = answer["traces"]
    assert found["trace_id"] == posted[1]["traceresponse"].split("-")[1]
    for document in logs_of(found):
        assert {key: document["context"].get(key) for key in context} == context
    (record,) = [log for log in logs_of(found) if log["logger_name"] == "telemetry.access"]
    assert (record["trace"]["status"], record["function_name"]) == ("success", "post_message")
    assert record["trace"]["execution_time_ms"] > 0
    (flow,) = [log for log in logs_of(found) if log["message"] == "flow_execution completed"]
    assert (flow["attributes"]["nodes_executed"], flow["trace"]["status"]) == (4, "success")

    spans, logs = shape(answers["req-2"][1])
    assert spans == [("GET /reports/{name}", None)]
    assert logs == [
        ("ERROR", "Unhandled exception in FastAPI request"),
        ("INFO", "report asked for"),
        ("WARNING", "GET /reports/{name} 500"),
    ]
    assert [text for _, text in shape(answers["req-3"][1])[1]] == [
        f"{route} 404",
        "conversation not found",
    ]
    (other,) = answers["m-7"][1]["traces"]
    assert {log["context"]["organization_id"] for log in logs_of(other)} == {"org-7"}
    assert unknown == {"req-4": 1, "req-5": 1}

    # A1: the lines on the console are the records as JSON
    written = [json.loads(line) for line in lines if line.startswith("{")]
    (line,) = [
        line
        for line in written
        if line["message"] == f"{route} 201" and line["context"]["request_id"] == "req-1"
    ]
    assert set(line) == {
        "timestamp",
        "level",
        "logger_name",
        "function_name",
        "line_number",
        "message",
        "context",
        "trace",
        "attributes",
    }
    assert line["context"] == context
    assert set(line["trace"]) == {"trace_id", "span_id", "execution_time_ms", "status"}
    assert line["trace"]["trace_id"] == found["trace_id"]
    assert not [line for line in lines if "lost" in line]
