"""One owner of the server span, whatever is installed; under the wrapper and without it."""

import json

import pytest

PROLOGUE = """
from tests.telemetry.asgi.driving import get
import telemetry
from telemetry.instrumentation.asgi import CorrelationIdMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from fastapi import FastAPI, Depends
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as OfStarlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
telemetry.configure()

def native(**config):
    app = FastAPI(**config)
    @app.get("/x/{y}", dependencies=[Depends(lambda: None)])
    async def endpoint(y: str):
        with telemetry.span("step"):
            if y == "boom":
                raise ValueError("broken")
        return y
    return app

async def star(request):
    with telemetry.span("step"):
        return PlainTextResponse("star")

def contrib(app):
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])
    return app

def added(app, kind, **options):
    app.add_middleware(kind, **options)
    return app
"""
CASES = {
    "native": ("native()", "fastapi"),
    "contrib": (
        "contrib(native(telemetry={'tracing': False, 'operation_spans': False}))",
        "opentelemetry.instrumentation.fastapi",
    ),
    "native and contrib": ("contrib(native())", "opentelemetry.instrumentation.fastapi"),
    "native and contrib outside": (
        "OpenTelemetryMiddleware(native(), exclude_spans=['send', 'receive'])",
        "opentelemetry.instrumentation.asgi",
    ),
    "native and starlette's": ("added(native(), OfStarlette)", "fastapi"),
    "all three": ("added(contrib(native()), OfStarlette)", "opentelemetry.instrumentation.fastapi"),
    "starlette's": (
        "added(Starlette(routes=[Route('/x/{y}', star)]), OfStarlette)",
        "starlette",
    ),
}
ASK = """
app = {make}
answer = get(app, "/x/1?token=abc", headers=[("x-request-id", "req-1"), ("x-correlation-id", "corr-1")])
assert answer.status == 200, answer
print(dict(answer.headers)[b"traceresponse"].decode())
"""


def in_process(run, receiver, make, *, wrapped, **env):
    """Ask an application once, in a process of its own; what it printed, and what arrived."""
    return run(
        PROLOGUE + ASK.format(make=make),
        endpoint=receiver.url,
        wrapped=wrapped,
        PYTHONWARNINGS="ignore",
        OTEL_LOG_LEVEL="info",
        **env,
    )


@pytest.fixture
def root(request):
    return str(request.config.rootpath)


@pytest.mark.parametrize(("make", "scope"), CASES.values(), ids=CASES)
def test_there_is_one_server_span(run, receiver, root, make, scope):
    """D2: one server span per request, with our ids, the masked query and the user's span below."""
    done = in_process(run, receiver, make, wrapped=True, PYTHONPATH=root)
    servers = [span for span in receiver.spans if span["kind"] == 2]
    assert [span["scope"] for span in servers] == [scope]
    (server,) = servers
    assert server["attributes"]["request.id"] == "req-1"
    assert server["attributes"]["correlation.id"] == "corr-1"
    assert server["attributes"]["http.route"] == "/x/{y}"
    assert server["attributes"]["url.query"] == "token=[REDACTED]"
    (step,) = [span for span in receiver.spans if span["name"] == "step"]
    assert (step["trace_id"], step["parent_id"]) == (server["trace_id"], server["span_id"])
    assert len(receiver.spans) == 2
    assert done.stdout == f"00-{server['trace_id']}-{server['span_id']}-03\n"
    (record,) = [log for log in receiver.logs if log["logger"] == "telemetry.access"]
    assert (record["trace_id"], record["span_id"]) == (server["trace_id"], server["span_id"])
    assert record["attributes"]["http.route"] == "/x/{y}"


def test_without_an_owner_there_are_records_without_a_trace(run, receiver, root):
    """Starlette alone makes no server span, and neither do we; ids and record are there."""
    make = "Starlette(routes=[Route('/x/{y}', star)])"
    done = run(
        PROLOGUE
        + ASK.format(make=make).replace('[b"traceresponse"]', '.get(b"traceresponse", b"-")'),
        endpoint=receiver.url,
        wrapped=True,
        PYTHONPATH=root,
        PYTHONWARNINGS="ignore",
        OTEL_LOG_LEVEL="info",
    )
    assert "otelier: server span: nobody makes one" in done.stderr
    assert [span["name"] for span in receiver.spans] == ["step"]
    (record,) = [log for log in receiver.logs if log["logger"] == "telemetry.access"]
    assert (record["message"], record["trace_id"]) == ("GET /x/{y} 200", "")
    assert record["attributes"]["correlation.id"] == "corr-1"


def test_the_owner_is_reported(run, receiver, root):
    """One line at the start says who makes the span and who stands down."""
    done = in_process(run, receiver, "contrib(native())", wrapped=True, PYTHONPATH=root)
    line = (
        "otelier: server span: opentelemetry-instrumentation-asgi;"
        " FastAPI's own telemetry installed as well and standing down\n"
    )
    assert done.stderr.count(line) == 1


def test_a_second_set_of_exporters_is_warned_of(run, receiver, root):
    """FASTAPI_OTEL_AUTO_CONFIGURE would send everything twice: said at the start, without being asked."""
    done = run(
        PROLOGUE + ASK.format(make="native()"),
        endpoint=receiver.url,
        wrapped=True,
        PYTHONPATH=root,
        PYTHONWARNINGS="ignore",
        FASTAPI_OTEL_AUTO_CONFIGURE="true",
    )
    assert (
        done.stderr.count("otelier: FASTAPI_OTEL_AUTO_CONFIGURE=true: FastAPI adds exporters") == 1
    )


def test_doctor_warns_of_it_too(run):
    """`telemetry doctor` names the variable and the fix."""
    done = run(
        "from telemetry.cli import main; main(['doctor', '--json'])",
        check=False,
        FASTAPI_OTEL_AUTO_CONFIGURE="true",
        TELEMETRY_HTTP_SLOW="fast",
    )
    problems = json.loads(done.stdout)["problems"]
    assert [text.partition("=")[0] for text in problems[:2]] == [
        "TELEMETRY_HTTP_SLOW",
        "FASTAPI_OTEL_AUTO_CONFIGURE",
    ]


FEW = {"GET /x/{y}", "step"}
ALL = FEW | {"fastapi.dependencies", "fastapi.endpoint", "fastapi.serialization"}
CHOICES = {
    "default": ("native()", {}, FEW),
    "by variable": ("native()", {"TELEMETRY_FASTAPI_OPERATION_SPANS": "true"}, ALL),
    "by the application": ("native(telemetry={'operation_spans': True})", {}, ALL),
    "other choices": ("native(telemetry={'logs': False})", {}, FEW),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_operation_spans_are_off_unless_chosen(run, receiver, root, choice):
    """FastAPI's own child spans: by the variable, or by the application itself."""
    make, env, names = CHOICES[choice]
    in_process(run, receiver, make, wrapped=True, PYTHONPATH=root, **env)
    assert {span["name"] for span in receiver.spans} == names


def test_an_applications_own_options_win_and_it_runs_once(run, receiver, root):
    """A middleware that the application adds is not run twice, and its options hold."""
    make = "added(native(), CorrelationIdMiddleware, access_log=False, trace_header='both')"
    in_process(run, receiver, make, wrapped=True, PYTHONPATH=root)
    assert [log for log in receiver.logs if log["logger"] == "telemetry.access"] == []
    (server,) = [span for span in receiver.spans if span["kind"] == 2]
    assert server["attributes"]["request.id"] == "req-1"


def test_subclasses_and_mounted_applications_are_served_once(run, receiver, root):
    """A subclass, and an application below another: one record with the whole route."""
    done = run(
        PROLOGUE
        + """
class Own(FastAPI):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)
outer = Own()
outer.mount("/api", native())
answer = get(outer, "/api/x/1", headers=[("x-request-id", "req-1")])
print(answer.status, [key.decode() for key, _ in answer.headers].count("x-request-id"))
""",
        endpoint=receiver.url,
        wrapped=True,
        PYTHONPATH=root,
        PYTHONWARNINGS="ignore",
    )
    assert done.stdout == "200 1\n"
    records = [log for log in receiver.logs if log["logger"] == "telemetry.access"]
    assert [log["message"] for log in records] == ["GET /api/x/{y} 200"]
    assert [span["name"] for span in receiver.spans if span["kind"] == 2] == ["GET /api/x/{y}"]


def test_disabled_installs_nothing(run, root):
    """OTEL_SDK_DISABLED: the classes are as they came, and nothing of ours is imported for them."""
    done = run(
        """
import sys
from fastapi import FastAPI
from starlette.applications import Starlette
print(FastAPI.__call__.__module__, Starlette.__call__.__module__)
print("telemetry.instrumentation.asgi" in sys.modules)
""",
        wrapped=True,
        OTEL_SDK_DISABLED="true",
        PYTHONWARNINGS="ignore",
    )
    assert done.stdout == "fastapi.applications starlette.applications\nFalse\n"


def test_nothing_is_imported_for_a_program_that_is_no_server(run, receiver):
    """Under the wrapper a script without FastAPI does not pay for it."""
    done = run(
        "import sys; print([name for name in ('fastapi', 'starlette') if name in sys.modules])",
        endpoint=receiver.url,
        wrapped=True,
    )
    assert done.stdout == "[]\n"
