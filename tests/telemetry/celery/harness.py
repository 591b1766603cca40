"""
Real workers and publishers, and an OTLP server that keeps what they send.

Everything runs in processes of its own against a real Redis: `celery worker`, `celery beat`, and
publishers that execute the lines that a test gives them. Nothing of ours is imported here.
"""

import contextlib
import gzip
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import servers

PROJECT = Path(__file__).parent / "project"
BIN = Path(sys.executable).parent
WAIT_S = 60.0
KINDS = {3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
STATUS = {0: "UNSET", 1: "OK", 2: "ERROR"}


def plain(value):
    """An OTLP AnyValue as Python."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(inner) for inner in value.array_value.values]
    if kind == "kvlist_value":
        return pairs(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def pairs(values):
    return {pair.key: plain(pair.value) for pair in values}


class Sink:
    """An OTLP/HTTP server; what arrived is in `spans`, `logs` and `points`."""

    def __init__(self):
        self.spans = []
        self.logs = []
        self.points = []
        self.news = threading.Condition()
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # a client that is killed in the middle is part of the tests

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def take(self, path, body):
        with self.news:
            {"traces": self.take_spans, "logs": self.take_logs, "metrics": self.take_points}[
                path.rpartition("/")[2]
            ](body)
            self.news.notify_all()

    def take_spans(self, body):
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = pairs(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [
                    {
                        "service": resource["service.name"],
                        "name": span.name,
                        "kind": KINDS.get(span.kind, span.kind),
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent_id": span.parent_span_id.hex(),
                        "links": [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                        "status": STATUS[span.status.code],
                        "events": [event.name for event in span.events],
                        "attributes": pairs(span.attributes),
                    }
                    for span in scope.spans
                ]

    def take_logs(self, body):
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            resource = pairs(group.resource.attributes)
            for scope in group.scope_logs:
                self.logs += [
                    {
                        "service": resource["service.name"],
                        "logger": scope.scope.name,
                        "time": record.time_unix_nano,
                        "level": record.severity_text,
                        "message": plain(record.body),
                        "event": record.event_name,
                        "trace_id": record.trace_id.hex(),
                        "span_id": record.span_id.hex(),
                        "attributes": pairs(record.attributes),
                    }
                    for record in scope.log_records
                ]

    def take_points(self, body):
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            resource = pairs(group.resource.attributes)
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    self.points += [
                        {
                            "service": resource["service.name"],
                            "instance": resource["service.instance.id"],
                            "name": metric.name,
                            "unit": metric.unit,
                            "attributes": pairs(point.attributes),
                            "value": getattr(point, "count", 0)
                            or getattr(point, "as_int", 0)
                            or getattr(point, "as_double", 0),
                            "sum": getattr(point, "sum", None),
                            "bounds": list(getattr(point, "explicit_bounds", ())),
                        }
                        for point in data.data_points
                    ]

    def wait(self, found, *, quiet=False):
        """Wait until `found()` is true and give it back."""
        with self.news:
            self.news.wait_for(found, WAIT_S)
            result = found()
        assert result or quiet, "nothing of this arrived"
        return result

    # --- questions ---

    def events(self, task_id=None, *, service=None):
        """The life-cycle records of a task, in their order, by the last part of the name."""
        found = [
            record
            for record in list(self.logs)
            if record["event"].startswith("celery.task.")
            and task_id in (None, record["attributes"].get("celery.task.id"))
            and service in (None, record["service"])
        ]
        # a retry may begin in another process before the attempt before it has said its last word
        return sorted(
            found,
            key=lambda record: (
                record["attributes"].get("celery.task.retries", 0),
                record["time"],
            ),
        )

    def story(self, task_id):
        return [record["event"].rpartition(".")[2] for record in self.events(task_id)]

    def told(self, task_id, last):
        """
        The story of a task, once it has the word `last` and a start of each attempt.

        Attempts run in different processes, whose records arrive in any order.
        """

        def whole():
            story = self.story(task_id)
            attempts = [
                record["attributes"]["celery.task.retries"] for record in self.events(task_id)
            ]
            again = story.count("retried") + (story.count("lost") if last != "lost" else 0)
            return last in story and again >= max(attempts)

        self.wait(whole)
        return self.story(task_id)

    def event(self, task_id, word, *, number=0):
        """The attributes of one record of a story."""

        def found():
            return [
                record for record in self.events(task_id) if record["event"].endswith(f".{word}")
            ]

        self.wait(lambda: len(found()) > number)
        return found()[number]

    def runs(self, task_id, count=1):
        """The spans of a task's attempts, when there are as many."""
        return self._spans(task_id, "CONSUMER", count)

    def sends(self, task_id, count=1):
        return self._spans(task_id, "PRODUCER", count)

    def _spans(self, task_id, kind, count):
        def found():
            return [
                span
                for span in list(self.spans)
                if span["kind"] == kind and span["attributes"].get("celery.task.id") == task_id
            ]

        self.wait(lambda: len(found()) >= count)
        return found()

    def lines(self, task_id, service=None):
        """The log lines of a task that are no life-cycle records."""
        return [
            record
            for record in list(self.logs)
            if not record["event"]
            and record["attributes"].get("celery.task.id") == task_id
            and service in (None, record["service"])
        ]

    def total(self, name, service, **labels):
        """The sum over processes of the latest value of a metric with these labels."""
        wanted = {
            {
                "task": "celery.task.name",
                "state": "celery.task.state",
                "error": "error.type",
            }[key]: value
            for key, value in labels.items()
        }
        latest = {}
        for point in list(self.points):
            if (
                point["name"] == name
                and point["service"] == service
                and wanted.items() <= point["attributes"].items()
            ):
                key = (point["instance"], json.dumps(point["attributes"], sort_keys=True))
                latest[key] = point["value"]
        return sum(latest.values())


def environment(redis_url, endpoint, service, **env):
    """A clean environment for a process."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_", "CELERY_"))
    }
    return {
        **clean,
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
        "C_FORCE_ROOT": "1",
        "REDIS_URL": redis_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": service,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        **env,
    }


class Process:
    """A process with its stderr and stdout kept; it dies with this one."""

    def __init__(self, command, env, cwd):
        self.lines = []
        self.news = threading.Condition()
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=servers.die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.lines.append("<end>")
            self.news.notify_all()

    @property
    def text(self):
        return "\n".join(self.lines)

    def wait_for(self, text):
        """The first line with this text."""

        def found():
            return next((line for line in self.lines if text in line), None)

        with self.news:
            self.news.wait_for(lambda: found() or "<end>" in self.lines, WAIT_S)
            line = found()
        assert line, f"no line with {text!r} in:\n{self.text}"
        return line

    def stop(self, number=signal.SIGTERM):
        """Send a signal (0: it has one already) and wait; the exit code."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"does not stop:\n{self.text}") from None
        self.reader.join()
        return code

    def close(self):
        with contextlib.suppress(AssertionError):
            self.stop(0)
        self.process.stdin.close()
        self.process.stdout.close()


def close(processes):
    """Stop processes, all at once: each takes a second or two."""
    for one in processes:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
    for one in processes:
        one.close()


class Worker(Process):
    """`celery worker`, under the wrapper unless told otherwise."""

    def __init__(self, sink_url, redis_url, cwd, *arguments, wrapped=True, app="shop", **env):
        self.service = f"worker-{uuid.uuid4().hex[:8]}"
        self.queue = f"q-{uuid.uuid4().hex[:8]}"
        command = [str(BIN / "celery"), "-A", app, "worker", "-Q", self.queue, *arguments]
        command += ["--without-mingle", "--without-gossip"]
        if wrapped:
            command.insert(0, str(BIN / "opentelemetry-instrument"))
        super().__init__(
            command, environment(redis_url, sink_url, self.service, QUEUE=self.queue, **env), cwd
        )

    def ready(self):
        # celery says it at INFO, the tests also run without --loglevel
        self.wait_for("READY")
        return self


class Publisher(Process):
    """A process that publishes what it is told, under the wrapper; ids come back as JSON."""

    def __init__(self, sink_url, redis_url, cwd, **env):
        self.service = f"publisher-{uuid.uuid4().hex[:8]}"
        super().__init__(
            [str(BIN / "opentelemetry-instrument"), sys.executable, str(PROJECT / "publisher.py")],
            environment(redis_url, sink_url, self.service, **env),
            cwd,
        )
        self.asked = 0
        self.lock = threading.Lock()

    def __call__(self, queue, code):
        """Run a line with the names of `shop` and `Q`, the queue; the value of its result."""
        with self.lock:
            self.asked += 1
            mark = f"<{self.asked}> "
            self.process.stdin.write(json.dumps([self.asked, queue, code]) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.wait_for(mark).partition(mark)[2])
        assert not isinstance(answer, dict), answer
        return answer
