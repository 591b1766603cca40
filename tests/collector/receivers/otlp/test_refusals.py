"""What a receiver does not take leaves one line a minute and reason, with sender and cause (R6, O4)."""

import json

import grpc
import pytest

from collector.model import Signal
from collector.receivers.otlp.grpc import Grpc
from collector.receivers.otlp.http import Http

JSON = "application/json"
HTTP = Http(endpoint="localhost:0")


def span(trace_id, name="s"):
    spans = [{"traceId": trace_id, "spanId": "aa" * 8, "name": name}]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def lines(caplog):
    return [each.getMessage() for each in caplog.records if each.name == "test.otlp"]


def test_rejected_items_and_refused_requests(start, caplog):
    """The first of each reason is a line; more of them within a minute are counted only."""
    with start(http_config=HTTP) as server:
        for _ in range(3):
            assert server.post("/v1/traces", span("zz"), JSON)[0] == 200
            assert server.post("/v1/traces", b"[1]", JSON)[0] == 400
            assert server.post("/v1/nowhere", b"{}", JSON)[0] == 404
        found = lines(caplog)
        counted = server.stats.snapshot()
    ids = "trace id or span id is empty, zero or of the wrong length"
    assert [each for each in found if "refused" in each or "rejected" in each] == [
        f"spans are rejected (ids); the latest from 127.0.0.1: 1, {ids}",
        (
            "Requests are refused (malformed); the latest over http from 127.0.0.1: the body must be a "
            "JSON object, not a list"
        ),
        (
            "Requests are refused (not_found); the latest over http from 127.0.0.1: no such path; "
            "send to /v1/traces, /v1/metrics, /v1/logs"
        ),
    ]
    refused = (
        'otelier_receiver_refused_requests{reason="malformed",receiver="otlp",transport="http"}'
    )
    assert counted[refused] == 3


@pytest.mark.parametrize("agent", ["OTel/1.0", "a\x9b31m\xe2", "x" * 500])
def test_the_sender_says_what_it_is(start, caplog, agent):
    """The name of the program stands behind its address, without what steers a terminal, cut."""
    with start(http_config=HTTP) as server:
        server.post("/v1/traces", b"[1]", JSON, **{"User-Agent": agent})
    shown = agent[:80].encode("ascii", "backslashreplace").decode().replace("\\xe2", "\xe2")
    assert f"from 127.0.0.1 ({shown}): " in lines(caplog)[-1]


def test_over_grpc(start, caplog):
    """The same for calls."""
    with start(grpc_config=Grpc(endpoint="localhost:0")) as server, pytest.raises(grpc.RpcError):
        server.export(Signal.LOGS, b"\xff\xff")
    start_of_line = (
        "Requests are refused (malformed); the latest over grpc from 127.0.0.1 (grpc-python"
    )
    assert lines(caplog)[-1].startswith(start_of_line)
