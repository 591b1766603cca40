"""`opentelemetry-instrument uvicorn`: real processes, nothing of ours in the application."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.servers import die_with_parent, free_port
from tests.telemetry.asgi.driving import http_get, parse, raw

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
APP = """
import logging, os
from fastapi import FastAPI, WebSocket  # early: before anything could replace the name
from starlette.responses import StreamingResponse
app = FastAPI()

@app.get("/pid")
def pid():
    logging.getLogger("app").warning("hello")
    return os.getpid()

@app.get("/stream")
async def stream():
    async def pieces():
        for number in range(5):
            yield str(number)
    return StreamingResponse(pieces())

@app.get("/boom")
def boom():
    raise ValueError("broken")

@app.get("/health")
def health():
    logging.getLogger("app").warning("healthy")

@app.websocket("/chat")
async def chat(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        logging.getLogger("app").warning("said %s", text)
        await socket.send_text(text.upper())
"""


class Uvicorn:
    """A wrapped uvicorn whose stderr is read line by line."""

    def __init__(self, folder, endpoint, *arguments):
        (folder / "service.py").write_text(APP)
        self.port = free_port()
        self.lines = []
        self.news = threading.Condition()
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
        }
        self.process = subprocess.Popen(
            [
                *(BIN / "opentelemetry-instrument", "--service_name", "service"),
                *(BIN / "uvicorn", "service:app", "--port", str(self.port), *arguments),
            ],
            cwd=folder,
            env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.lines.append(line)
                self.news.notify_all()
        with self.news:
            self.lines.append("<end>")
            self.news.notify_all()

    def wait_for(self, text, count=1):
        with self.news:
            assert self.news.wait_for(
                lambda: sum(text in line for line in self.lines) >= count or "<end>" in self.lines,
                60,
            )
        assert sum(text in line for line in self.lines) >= count, "".join(self.lines)

    def wait_until_it_listens(self):
        give_up = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.reader.join()
        return code


@contextlib.contextmanager
def uvicorn(folder, endpoint, *arguments, workers=1):
    server = Uvicorn(folder, endpoint, *arguments)
    try:
        server.wait_for("Started server process", workers)
        if "off" not in arguments:
            server.wait_for("Application startup complete.", workers)
        server.wait_until_it_listens()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        server.reader.join()
        server.process.stderr.close()


def test_an_untouched_application_is_correlated(tmp_path, receiver):
    """D2, A2, A6: ids on every answer, streams and 500s; one span and one record each; health silent."""
    ids = [("X-Request-ID", "req-1"), ("X-Correlation-ID", "corr-1")]
    with uvicorn(tmp_path, receiver.url) as server:
        answers = {path: http_get(server.port, path, ids) for path in ("/pid", "/boom", "/stream")}
        answers["/health"] = http_get(server.port, "/health", ids)
        assert server.stop() in (0, -signal.SIGTERM)
    assert {path: answer[0] for path, answer in answers.items()} == {
        "/pid": 200,
        "/boom": 500,
        "/stream": 200,
        "/health": 200,
    }
    for _, headers, _ in answers.values():
        assert ("x-request-id", "req-1") in headers
        assert ("x-correlation-id", "corr-1") in headers
    spans = {span["name"]: span for span in receiver.spans}
    assert sorted(span["name"] for span in receiver.spans) == [
        "GET /boom",
        "GET /pid",
        "GET /stream",
    ]
    for path in ("/pid", "/boom", "/stream"):
        (told,) = [value for name, value in answers[path][1] if name == "traceresponse"]
        span = spans[f"GET {path}"]
        assert told == f"00-{span['trace_id']}-{span['span_id']}-03"
        assert span["attributes"]["correlation.id"] == "corr-1"
    # uvicorn's loggers do not propagate; what they say about the server arrives all the same (14.11).
    logs = [log for log in receiver.logs if log["logger"] != "uvicorn.error"]
    records = {log["message"]: log for log in logs}
    assert set(records) == {
        "hello",
        "GET /pid 200",
        "GET /boom 500",
        "GET /stream 200",
        "Unhandled exception in FastAPI request",
    }
    assert {log["attributes"]["request.id"] for log in logs} == {"req-1"}
    assert len(logs) == len(records)
    full = [log["message"] for log in receiver.logs if "exception.stacktrace" in log["attributes"]]
    assert full == ["Unhandled exception in FastAPI request"]
    assert "lost" not in "".join(server.lines)


def test_workers_are_correlated(tmp_path, receiver):
    """D2: `--workers 2`: requests over many connections to both processes; each has its own ids."""
    with uvicorn(tmp_path, receiver.url, "--workers", "2", workers=2) as server:
        seen = {}
        for number in range(400):
            if len(set(seen.values())) == 2 and number >= 40:
                break
            key = f"r-{number}"
            status, headers, body = http_get(server.port, "/pid", [("X-Request-ID", key)])
            assert (status, ("x-request-id", key) in headers) == (200, True)
            seen[key] = body.decode().split("\r\n")[0]
        assert server.stop() in (0, -signal.SIGTERM)
    assert len(set(seen.values())) == 2
    assert {span["attributes"]["request.id"] for span in receiver.spans} == set(seen)
    hellos = [log for log in receiver.logs if log["message"] == "hello"]
    assert sorted(log["attributes"]["request.id"] for log in hellos) == sorted(seen)
    access = [log for log in receiver.logs if log["logger"] == "telemetry.access"]
    assert sorted(log["attributes"]["request.id"] for log in access) == sorted(seen)


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_a_stopped_server_has_delivered_everything(tmp_path, receiver, lifespan):
    """SIGTERM right after the answers: uvicorn dies of the signal, and nothing is lost."""
    with uvicorn(tmp_path, receiver.url, "--lifespan", lifespan) as server:
        for number in range(50):
            http_get(server.port, "/pid", [("X-Request-ID", f"r-{number}")])
        assert server.stop() == -signal.SIGTERM
    wanted = {f"r-{number}" for number in range(50)}
    assert {span["attributes"]["request.id"] for span in receiver.spans} == wanted
    assert {
        log["attributes"]["request.id"]
        for log in receiver.logs
        if log["logger"] == "telemetry.access"
    } == wanted


def test_requests_on_one_connection_have_their_own_ids(tmp_path, receiver):
    """Pipelined requests over one connection: nothing of the first is left in the second."""
    with uvicorn(tmp_path, receiver.url) as server:
        received = raw(
            server.port,
            b"GET /pid HTTP/1.1\r\nHost: t\r\nX-Request-ID: one\r\n\r\n"
            b"GET /pid HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        )
        server.stop()
    first, second = received.split(b"HTTP/1.1 200 OK")[1:]
    found = [dict(parse(b"HTTP/1.1 200 OK" + part)[1]) for part in (first, second)]
    assert found[0]["x-request-id"] == "one"
    assert len(found[1]["x-request-id"]) == 36
    assert found[0]["x-correlation-id"] != found[1]["x-correlation-id"]


def test_a_websocket_is_correlated(tmp_path, receiver):
    """A2: a conversation over a real websocket has the ids of its handshake, to its last word."""
    ids = {"X-Request-ID": "req-ws", "X-Correlation-ID": "corr-ws"}
    with uvicorn(tmp_path, receiver.url) as server:
        address = f"ws://127.0.0.1:{server.port}/chat"
        with connect(address, additional_headers=ids, open_timeout=60, proxy=None) as socket_:
            said = []
            for word in ("hello", "again"):
                socket_.send(word)
                said.append(socket_.recv(60))
            answered = {name: socket_.response.headers[name] for name in ids}
        http_get(server.port, "/pid", [("X-Request-ID", "afterwards")])
        server.stop()
    assert (said, answered) == (["HELLO", "AGAIN"], ids)
    told = [log for log in receiver.logs if log["message"].startswith("said ")]
    assert [log["message"] for log in told] == ["said hello", "said again"]
    assert {log["attributes"]["correlation.id"] for log in told} == {"corr-ws"}
    spans = [span for span in receiver.spans if span["attributes"]["request.id"] == "req-ws"]
    assert {span["trace_id"] for span in spans} == {log["trace_id"] for log in told}
    assert len({span["trace_id"] for span in spans}) == 1
    (after,) = [log for log in receiver.logs if log["message"] == "hello"]
    assert after["attributes"]["correlation.id"] != "corr-ws"
