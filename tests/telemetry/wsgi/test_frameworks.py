"""Flask and Django under opentelemetry-instrument, on real servers, without a line of ours."""

import contextlib
import http.client
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import die_with_parent, free_port

pytest.importorskip("django")
pytest.importorskip("flask")
pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
FLASK = """
import logging
import flask

app = flask.Flask(__name__)
log = logging.getLogger("shop")

@app.get("/orders/<number>")
def order(number):
    log.warning("order %s", number)
    return {"number": number}

@app.get("/parts")
def parts():
    def made():
        for number in range(2):
            log.warning("part %s", number)
            yield "x"
    return flask.Response(made())

@app.get("/fails")
def fails():
    raise LookupError("no such order")
"""
SETTINGS = """
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
MIDDLEWARE = []
DEBUG = False
"""
URLS = """
import logging
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

log = logging.getLogger("shop")

def order(request, number):
    log.warning("order %s", number)
    return JsonResponse({"number": number})

def parts(request):
    def made():
        for number in range(2):
            log.warning("part %s", number)
            yield "x"
    return StreamingHttpResponse(made())

def fails(request):
    raise LookupError("no such order")

urlpatterns = [path("orders/<int:number>", order), path("parts", parts), path("fails", fails)]
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""
MANAGE = """
import os, sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


@pytest.fixture
def folder(tmp_path):
    """A Flask application and a Django project."""
    (tmp_path / "service.py").write_text(FLASK)
    (tmp_path / "manage.py").write_text(MANAGE)
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").write_text("")
    (shop / "settings.py").write_text(SETTINGS)
    (shop / "urls.py").write_text(URLS)
    (shop / "wsgi.py").write_text(WSGI)
    return tmp_path


@contextlib.contextmanager
def running(folder, receiver, *command, **environ):
    """A server under the wrapper; its port, and at the end what it said."""
    port = free_port()
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_", "DJANGO_"))
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
            server.send_signal(signal.SIGINT if "manage.py" in command else signal.SIGTERM)
            server.wait(60)


def ask(port, path, key):
    """Status and headers, once the server listens."""
    give_up = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            headers = {"X-Request-ID": f"r-{key}", "X-Correlation-ID": f"c-{key}"}
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


GUNICORN = (BIN / "gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket")
SERVERS = {
    "flask on gunicorn": (*GUNICORN, "--access-logfile", "-", "service:app"),
    "flask on its own server": (BIN / "flask", "--app", "service", "run", "--port", "{port}"),
    "django on gunicorn": (*GUNICORN, "shop.wsgi"),
    "django on its own server": (sys.executable, "manage.py", "runserver", "--noreload", "{port}"),
}


def traced(name):
    """Whether contrib's instrumentation of the framework is here, which makes the server spans."""
    framework = name.partition(" ")[0]
    return importlib.util.find_spec(f"opentelemetry.instrumentation.{framework}") is not None


@pytest.mark.parametrize("name", SERVERS)
def test_ids_and_records_of_a_framework(folder, receiver, name):
    """
    Ids come back and are on every record; one access record each; one full exception; one trace.

    Server spans are contrib's, and its Flask part is missing in some releases: then there are none, and
    everything else is as it is with them.
    """
    command = SERVERS[name]
    with running(folder, receiver, *command) as port:
        order = ask(port, "/orders/7", "order")
        parts = ask(port, "/parts", "parts")
        fails = ask(port, "/fails", "fails")
        lost = ask(port, "/nothing", "lost")
    said = (folder / "said").read_text()
    for key, (status, headers), expected in (
        ("order", order, 200),
        ("parts", parts, 200),
        ("fails", fails, 500),
        ("lost", lost, 404),
    ):
        assert (status, headers["X-Correlation-ID"], headers["X-Request-ID"]) == (
            expected,
            f"c-{key}",
            f"r-{key}",
        ), said
    of = {
        key: {
            name: [
                log["message"]
                for log in receiver.logs
                if log["attributes"].get("correlation.id") == f"c-{key}" and log["logger"] == name
            ]
            for name in ("shop", "telemetry.access")
        }
        for key in ("order", "parts", "fails", "lost")
    }
    django = "manage.py" in command or "shop.wsgi" in command
    place = "/orders/<int:number>" if django else "/orders/<number>"
    # the server span of contrib's Django says the route without its first slash
    assert {
        key: (found["shop"], [text.replace("GET /", "GET ") for text in found["telemetry.access"]])
        for key, found in of.items()
    } == {
        "order": (["order 7"], [f"GET {place.lstrip('/')} 200"]),
        "parts": (["part 0", "part 1"], ["GET parts 200"]),
        "fails": ([], ["GET fails 500"]),
        "lost": ([], ["GET (no route) 404"]),
    }, said
    assert [
        log["attributes"]["exception.type"]
        for log in receiver.logs
        if "exception.type" in log["attributes"]
    ] == ["LookupError"]
    assert {
        log["attributes"].get("correlation.id")
        for log in receiver.logs
        if "exception.type" in log["attributes"]
    } == {"c-fails"}
    assert [
        log["logger"]
        for log in receiver.logs
        if log["logger"] in ("gunicorn.access", "django.server") or '"GET ' in str(log["message"])
    ] == []
    entries = [span for span in receiver.spans if span["kind"] == 2]
    assert [span["attributes"]["correlation.id"] for span in entries] == [
        "c-order",
        "c-parts",
        "c-fails",
        "c-lost",
    ][: 4 if traced(name) else 0], said
    traces = {span["attributes"]["correlation.id"]: span["trace_id"] for span in entries}
    for log in receiver.logs:
        if log["logger"] in ("shop", "telemetry.access"):
            assert log["trace_id"] == traces.get(log["attributes"]["correlation.id"], ""), log
    assert traced(name) == bool(traces)


def test_settings_of_django_are_not_frozen_and_it_is_said(folder, receiver):
    """Without DJANGO_SETTINGS_MODULE at the start Django works, is traced, and one line says why."""
    with running(folder, receiver, *SERVERS["django on its own server"]) as port:
        assert ask(port, "/orders/7", "order")[0] == 200
    lines = [line for line in (folder / "said").read_text().splitlines() if "otelier:" in line]
    assert len([line for line in lines if "DJANGO_SETTINGS_MODULE is not set" in line]) == 1
    assert [span["kind"] for span in receiver.spans] == [2]


def test_the_standard_variables_of_http_count(folder, receiver):
    """Excluded URLs are silent, and named headers are on the server span, without the secret ones."""
    names = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
    with running(
        folder,
        receiver,
        *SERVERS["django on gunicorn"],
        DJANGO_SETTINGS_MODULE="shop.settings",
        OTEL_PYTHON_DJANGO_EXCLUDED_URLS="/parts",
        **{
            f"{names}SERVER_REQUEST": "x-request.*",
            f"{names}SERVER_RESPONSE": "content-type",
        },
    ) as port:
        ask(port, "/parts", "parts")
        ask(port, "/orders/7", "order")
    assert {log["attributes"].get("correlation.id") for log in receiver.logs} <= {None, "c-order"}
    (span,) = receiver.spans
    assert span["attributes"]["http.request.header.x_request_id"] == ["r-order"]
    assert span["attributes"]["http.response.header.content_type"] == ["application/json"]
