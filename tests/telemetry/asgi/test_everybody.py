"""ASGI applications beside other libraries and servers: standard variables, foreign ids, access lines."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telemetry.instrumentation._asgi import standard
from tests.servers import die_with_parent, free_port

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
APP = """
import logging, logging.config, os
from fastapi import FastAPI

app = FastAPI()
if os.environ.get("FOREIGN"):
    from asgi_correlation_id import CorrelationIdMiddleware

    logging.config.dictConfig({
        "version": 1, "disable_existing_loggers": False,
        "filters": {"cid": {"()": "asgi_correlation_id.CorrelationIdFilter", "uuid_length": 8,
                            "default_value": "-"}},
        "formatters": {"c": {"format": "%(levelname)s [%(correlation_id)s] %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "filters": ["cid"],
                                 "formatter": "c"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    })
    app.add_middleware(CorrelationIdMiddleware)
log = logging.getLogger("shop")
log.warning("at import")

@app.get("/x")
async def x():
    log.warning("in x")
    return 1

@app.get("/healthz2")
async def healthz2():
    log.warning("in healthz2")
    return 1

@app.get("/fails")
async def fails():
    raise LookupError("no such order")
"""


@contextlib.contextmanager
def running(folder, receiver, *command, **environ):
    """A server under the wrapper; its port."""
    (folder / "sv.py").write_text(APP)
    port = free_port()
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
    }
    with (
        (folder / "said").open("wb") as said,
        subprocess.Popen(
            [BIN / "opentelemetry-instrument", *(str(word).format(port=port) for word in command)],
            cwd=folder,
            env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **environ},
            stdout=said,
            stderr=said,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        ) as server,
    ):
        try:
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def ask(port, path, **headers):
    """Status and headers, once the server listens."""
    give_up = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as answer:
                answer.read()
                return answer.status, answer.headers
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
        finally:
            connection.close()


UVICORN = (BIN / "uvicorn", "sv:app", "--port", "{port}")
SERVERS = {
    "uvicorn": UVICORN,
    "gunicorn": (
        *(BIN / "gunicorn", "sv:app", "-k", "uvicorn.workers.UvicornWorker", "--no-control-socket"),
        *("--bind", "127.0.0.1:{port}", "--access-logfile", "-"),
    ),
    "hypercorn": (
        *(BIN / "hypercorn", "sv:app", "--bind", "127.0.0.1:{port}"),
        *("--access-logfile", "-", "--workers", "0"),
    ),
    "granian": (
        *(BIN / "granian", "sv:app", "--interface", "asgi", "--port", "{port}"),
        *("--access-log", "--workers", "1"),
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_access_lines_and_exceptions_are_stored_once(tmp_path, receiver, name):
    """One access record per request and one full exception, whatever the server says itself."""
    if not Path(SERVERS[name][0]).exists():
        pytest.skip(f"{name} is not installed")
    if name == "gunicorn":
        pytest.importorskip("uvicorn.workers")
    with running(tmp_path, receiver, *SERVERS[name]) as port:
        ask(port, "/x", **{"X-Correlation-ID": "c-x"})
        ask(port, "/fails", **{"X-Correlation-ID": "c-fails"})
    said = (tmp_path / "said").read_text()
    lines = [
        (log["logger"], log["message"], log["attributes"].get("correlation.id"))
        for log in receiver.logs
        if log["attributes"].get("correlation.id") or "/x" in str(log["message"])
    ]
    assert sorted(line for line in lines if line[0] in ("shop", "telemetry.access")) == [
        ("shop", "in x", "c-x"),
        ("telemetry.access", "GET /fails 500", "c-fails"),
        ("telemetry.access", "GET /x 200", "c-x"),
    ], said
    others = [line[0] for line in lines if line[0] not in ("shop", "telemetry.access")]
    assert not {"uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access"} & set(
        others
    ), said
    kinds = [log["attributes"].get("exception.type") for log in receiver.logs]
    assert [kind for kind in kinds if kind] == ["LookupError"], said


def test_the_standard_variables_count(tmp_path, receiver):
    """Excluded URLs leave nothing, named headers are on the server span, secret values are not."""
    names = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
    with running(
        tmp_path,
        receiver,
        *UVICORN,
        OTEL_PYTHON_FASTAPI_EXCLUDED_URLS="healthz2,(",
        OTEL_PYTHON_EXCLUDED_URLS="/x",
        **{
            f"{names}SERVER_REQUEST": "X-Foo,x-session.*",
            f"{names}SERVER_RESPONSE": "content-.*",
            f"{names}SANITIZE_FIELDS": ".*session.*",
        },
    ) as port:
        ask(port, "/healthz2")
        ask(port, "/x", **{"x-foo": "bar", "X-Session-Key": "secret", "X-Other": "no"})
    (span,) = [span for span in receiver.spans if span["kind"] == 2]
    headers = {name: value for name, value in span["attributes"].items() if ".header." in name}
    assert headers == {
        "http.request.header.x_foo": ["bar"],
        "http.request.header.x_session_key": ["[REDACTED]"],
        "http.response.header.content_length": ["1"],
        "http.response.header.content_type": ["application/json"],
    }
    told = {
        log["message"] for log in receiver.logs if log["logger"] in ("shop", "telemetry.access")
    }
    assert told == {"at import", "in x", "GET /x 200"}
    assert "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS: '(' is no regular" in (tmp_path / "said").read_text()


def test_the_general_variable_counts_where_the_frameworks_is_unset():
    """OTEL_PYTHON_EXCLUDED_URLS holds for each framework; its own variable replaces it."""
    scope = {"scheme": "https", "path": "/ready/now", "headers": [(b"host", b"shop.example")]}
    general = {"OTEL_PYTHON_EXCLUDED_URLS": "other,/ready"}
    own = {**general, "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "https://shop.example/live"}
    assert standard.read("FASTAPI", general).excludes(scope)
    assert not standard.read("FASTAPI", own).excludes(scope)
    assert standard.read("FASTAPI", own).excludes({**scope, "path": "/live"})
    assert not standard.read("FASTAPI", {}).excludes(scope)


def test_ids_of_asgi_correlation_id_do_not_replace_ours(tmp_path, receiver):
    """Its filter writes 8 characters, or a dash, on each record; stored are the request's real ids."""
    pytest.importorskip("asgi_correlation_id")
    with running(tmp_path, receiver, *UVICORN, "--no-access-log", FOREIGN="1") as port:
        status, headers = ask(port, "/x", **{"X-Correlation-ID": "d-a"})
    assert (status, headers["X-Correlation-ID"]) == (200, "d-a")
    assert {
        log["message"]: log["attributes"].get("correlation.id")
        for log in receiver.logs
        if log["logger"] in ("shop", "telemetry.access")
    } == {"at import": None, "in x": "d-a", "GET /x 200": "d-a"}
