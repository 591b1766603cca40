"""The WSGI middleware around plain applications: ids, records, bodies, errors."""

import io
import logging
import threading
import wsgiref.util
import wsgiref.validate

import pytest
from opentelemetry import trace

import telemetry
from telemetry.instrumentation.wsgi import Middleware

logger = telemetry.get_logger("shop.wsgi")
GIVEN = {"HTTP_X_REQUEST_ID": "r-1", "HTTP_X_CORRELATION_ID": "c-1"}


def ask(app, path="/orders", *, elsewhere=False, **environ):
    """Status, headers and body of one request, and what was written to wsgi.errors."""
    environ = {"PATH_INFO": path, "SCRIPT_NAME": "", "REQUEST_METHOD": "GET", **environ}
    wsgiref.util.setup_testing_defaults(environ)
    environ["wsgi.errors"] = errors = io.StringIO()
    environ["QUERY_STRING"] = ""
    answer = {}

    def start_response(status, headers, exc_info=None):
        answer["status"], answer["headers"] = status, {k.lower(): v for k, v in headers}
        return lambda data: None

    body = app(environ, start_response)

    def read():
        try:
            answer["body"] = b"".join(body)
        except Exception as error:
            answer["error"] = error
        finally:
            if hasattr(body, "close"):
                body.close()

    if elsewhere:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    else:
        read()
    answer["errors"] = errors.getvalue()
    return answer


def hello(environ, start_response):
    logger.info("inside")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hi"]


def records(captured):
    """Message, level and what matters of each record."""
    names = ("correlation.id", "request.id", "http.response.status_code", "url.path", "error.type")
    return [
        (
            record["message"],
            record["level"],
            {name: record["attributes"][name] for name in names if name in record["attributes"]},
        )
        for record in captured.logs
    ]


IDS = {"correlation.id": "c-1", "request.id": "r-1"}
ANSWERED = {**IDS, "http.response.status_code": 200, "url.path": "/orders"}


def test_ids_are_accepted_bound_and_returned(captured):
    """The ids of the request are on the answer, on the application's records, and on the access record."""
    answer = ask(wsgiref.validate.validator(Middleware(hello)), **GIVEN)
    assert (answer["status"], answer["body"]) == ("200 OK", b"hi")
    assert answer["headers"]["x-request-id"] == "r-1"
    assert answer["headers"]["x-correlation-id"] == "c-1"
    assert records(captured) == [
        ("inside", "INFO", IDS),
        ("GET (no route) 200", "INFO", ANSWERED),
    ]
    assert telemetry.current_context() == {}


def test_ids_are_made_where_none_came_or_none_can_be_used(captured):
    """A request without usable ids gets new ones, and nothing of the bad ones is kept."""
    answer = ask(Middleware(hello), HTTP_X_CORRELATION_ID="a b\n", HTTP_X_REQUEST_ID="x" * 500)
    made = answer["headers"]["x-correlation-id"]
    assert len(made) == 36
    assert {record["attributes"]["correlation.id"] for record in captured.logs} == {made}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_body_is_made_with_the_ids(captured, elsewhere):
    """What a generator logs while the server iterates has the ids, in whatever thread that is."""
    closed = []

    class Parts:
        def __iter__(self):
            for number in range(2):
                logger.info("part %s", number)
                yield b"x"

        def close(self):
            closed.append(telemetry.current_context()["request_id"])
            logger.info("closed")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Parts()

    assert ask(Middleware(app), elsewhere=elsewhere, **GIVEN)["body"] == b"xx"
    assert closed == ["r-1"]
    assert [entry[:1] + entry[2:] for entry in records(captured)] == [
        ("part 0", IDS),
        ("part 1", IDS),
        ("GET (no route) 200", ANSWERED),
        ("closed", IDS),
    ]
    telemetry.clear_context()


def test_an_exception_is_answered_with_ids_and_recorded_once(captured):
    """The client gets 500 with the ids; the exception is recorded in full, once, and shown to the server."""

    def app(environ, start_response):
        raise LookupError("no such order")

    answer = ask(Middleware(app), **GIVEN)
    assert (answer["status"], answer["body"]) == (
        "500 Internal Server Error",
        b"Internal Server Error",
    )
    assert answer["headers"]["x-correlation-id"] == "c-1"
    assert "LookupError: no such order" in answer["errors"]
    failed = {**IDS, "url.path": "/orders", "error.type": "LookupError"}
    failed["http.response.status_code"] = 500
    told, _access = captured.logs
    assert (told["level"], told["attributes"]["exception.type"]) == ("ERROR", "LookupError")
    assert records(captured)[1] == ("GET (no route) 500", "WARN", failed)


def test_an_exception_in_the_body_goes_to_the_server(captured):
    """After the answer has begun only the server can end it; the exception is recorded all the same."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"x"
        raise LookupError("in the middle")

    answer = ask(Middleware(app), **GIVEN)
    assert str(answer["error"]) == "in the middle"
    assert [record["attributes"].get("exception.type") for record in captured.logs] == [
        "LookupError",
        None,
    ]


def test_the_outer_middleware_does_the_work(captured):
    """Two of them make one access record."""
    ask(Middleware(Middleware(hello)), **GIVEN)
    assert [entry[0] for entry in records(captured)] == ["inside", "GET (no route) 200"]


def test_silent_routes_leave_nothing(captured):
    """A health check is answered with ids, and leaves no record."""
    answer = ask(Middleware(hello), "/health", **GIVEN)
    assert answer["headers"]["x-request-id"] == "r-1"
    assert captured.logs == []


def test_a_server_span_of_somebody_else_is_used(captured):
    """The access record and the answer name the trace of the server span around or inside of it."""

    def app(environ, start_response):
        with trace.get_tracer("t").start_as_current_span("GET", kind=trace.SpanKind.SERVER):
            return hello(environ, start_response)

    answer = ask(Middleware(app), **GIVEN)
    (span,) = captured.spans
    assert answer["headers"]["traceresponse"] == f"00-{1:032x}-{1:016x}-01"
    assert span["attributes"]["request.id"] == "r-1"
    assert {record["trace_id"] for record in captured.logs} == {1}


def test_strangers_cannot_send_ids_as_baggage(captured):
    """Baggage with our keys is taken out of the environ before anybody believes it."""
    seen = []

    def app(environ, start_response):
        seen.append(environ.get("HTTP_BAGGAGE"))
        return hello(environ, start_response)

    ask(Middleware(app), HTTP_BAGGAGE="correlation.id=evil,color=red")
    ask(Middleware(app), HTTP_BAGGAGE="correlation.id=evil")
    assert seen == ["color=red", None]


def test_a_step_that_fails_does_not_hurt(captured):
    """An environ that nobody has seen before is served all the same."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]

    environ = {"PATH_INFO": None, "HTTP_X_REQUEST_ID": object()}
    assert Middleware(app)(environ, lambda *_: None) == [b"ok"]
    logging.getLogger("after").warning("after")
    assert captured.logs[-1]["message"] == "after"
