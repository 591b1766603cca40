"""OTLP over HTTP: what is answered to whom, byte by byte, and that the next request is served."""

import base64
import concurrent.futures
import contextlib
import gzip
import http.client
import json
import random
import socket
import zlib

import pytest
import zstandard
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from collector.errors import Permanent, Retryable
from collector.model import Duration, Signal
from collector.otlp import new_message
from collector.receivers.otlp.receiver import Http

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MIB = 1 << 20
LIMIT = 20 * MIB


def log_request(*bodies):
    message = new_message(Signal.LOGS)
    scope = message.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return message.SerializeToString()


def log_json(*bodies):
    records = [{"body": {"stringValue": body}} for body in bodies]
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


GOOD = log_request("good")


@pytest.fixture
def still_serving(server):
    """After the bad request: nothing of it is stored, and a good one is served as if nothing was."""
    yield
    assert server.values() == []
    assert server.post("/v1/logs", GOOD)[::2] == (200, b"")
    assert server.values() == ["good"]


def refused(answer, http_status, code, message):
    """Assert that an answer is this Status, in the encoding that its content type names."""
    status, headers, body = answer
    assert status == http_status
    if headers["content-type"] == JSON:
        found = json.loads(body)
        assert (found["code"], found["message"]) == (code, message)
    else:
        assert headers["content-type"] == PROTOBUF
        parsed = Status.FromString(body)
        assert (parsed.code, parsed.message) == (code, message)
    return headers


# --- success ---


@pytest.mark.parametrize(
    ("body", "kind", "answer"),
    [
        (GOOD, PROTOBUF, b""),
        (log_json("good"), JSON, b"{}"),
        (GOOD, "Application/X-Protobuf; charset=utf-8", b""),
        (log_json("good"), "application/json;charset=utf-8", b"{}"),
    ],
)
def test_success_is_an_empty_message_in_the_same_encoding(server, body, kind, answer):
    """Full success has no partial_success, and the content type is that of the request."""
    status, headers, content = server.post("/v1/logs", body, kind)
    assert (status, content) == (200, answer)
    assert headers["content-type"] == (JSON if answer else PROTOBUF)
    assert server.values() == ["good"]


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/metrics", "/v1/logs"])
@pytest.mark.parametrize(("body", "kind", "answer"), [(b"", PROTOBUF, b""), (b"{}", JSON, b"{}")])
def test_b39_empty_requests_succeed_without_touching_the_pipeline(server, path, body, kind, answer):
    """B39: nothing in is a success, and no consumer hears of it."""
    assert server.post(path, body, kind)[::2] == (200, answer)
    assert server.batches == []


def test_partial_success_names_count_and_reason(server):
    """Items that are rejected are counted in the answer; their neighbours are stored."""
    message = new_message(Signal.TRACES)
    scope = message.resource_spans.add().scope_spans.add()
    for name in ("a", "b", "c"):
        scope.spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, name=name)
    scope.spans[1].trace_id = b"short"
    status, _, body = server.post("/v1/traces", message.SerializeToString())
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse.FromString(body)
    assert (status, answer.partial_success.rejected_spans) == (200, 1)
    assert answer.partial_success.error_message == (
        "1 refused: trace id or span id is empty, zero or of the wrong length"
    )
    assert server.values() == ["a", "c"]


def test_b38_a_warning_comes_with_zero_rejected(server):
    """B38: snake_case in JSON is a success with a warning that names the field."""
    body = b'{"resource_logs": [], "resourceLogs": [{"scopeLogs": [{"logRecords": []}]}]}'
    status, _, answer = server.post("/v1/logs", body, JSON)
    assert (status, json.loads(answer)) == (
        200,
        {
            "partialSuccess": {
                "errorMessage": "ignored unknown JSON names in snake_case: resource_logs; "
                "OTLP/JSON is lowerCamelCase"
            }
        },
    )


def test_one_connection_carries_many_requests(server):
    """Keep-alive: good and bad requests follow each other on one connection."""
    with contextlib.closing(http.client.HTTPConnection(*server.http, timeout=30)) as client:
        statuses = []
        for body in (GOOD, b"\xff", b"", GOOD):
            client.request("POST", "/v1/logs", body, {"Content-Type": PROTOBUF})
            answer = client.getresponse()
            statuses.append(answer.status)
            answer.read()
    assert statuses == [200, 400, 200, 200]
    assert server.values() == ["good", "good"]


def test_pipelined_requests_are_answered_in_order(server):
    """Two requests in one packet get two answers."""
    head = (
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
    )
    first = head % (PROTOBUF.encode(), len(GOOD)) + b"\r\n" + GOOD
    second = head % (PROTOBUF.encode(), 1) + b"Connection: close\r\n\r\n\xff"
    answers = server.raw(first + second)
    assert [line for line in answers.split(b"\r\n") if line.startswith(b"HTTP/")] == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 400 Bad Request",
    ]


def test_paths_can_be_moved(start):
    """`logs_url_path` moves the path; a missing slash is added; answers carry extra headers."""
    settings = Http(
        endpoint="127.0.0.1:0",
        logs_url_path="in/logs",
        response_headers={"X-Served-By": "us"},
        keep_alives_enabled=False,
    )
    with start(http_config=settings) as running:
        status, headers, _ = running.post("/in/logs", GOOD)
        assert (status, headers["x-served-by"], headers["connection"]) == (200, "us", "close")
        assert running.post("/v1/logs", GOOD)[0] == 404


@pytest.mark.parametrize("cut", [None, 0, 3])
def test_upgrades_are_ignored(server, cut):
    """A client that offers HTTP/2 by Upgrade is answered in HTTP/1.1, and its body is not lost."""
    head = (
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Content-Length: %d\r\n\r\n" % len(GOOD)
    )
    with socket.create_connection(server.http, timeout=30) as client:
        if cut is None:
            client.sendall(head + GOOD + b"more")
        else:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(head + GOOD[:cut])
            assert server.post("/v1/logs", b"")[0] == 200  # the first part was read by now
            client.sendall(GOOD[cut:])
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.values() == ["good"]


def test_an_upgrade_with_chunks_is_refused(server):
    """What the parser cannot read is 400, never an empty success."""
    answer = server.raw(
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


# --- the wrong place, method or type ---


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.usefixtures("still_serving")
def test_b43_other_methods(server, method):
    """B43: 405 with Allow."""
    answer = server.post("/v1/logs", b"", method=method)
    if method == "HEAD":
        assert (answer[0], answer[1]["allow"], answer[2]) == (405, "POST", b"")
        return
    headers = refused(answer, 405, 12, f"{method} is not allowed; use POST")
    assert headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/", "/v1/log", "/v1/logs/", "/v1/traces/../logs", "/v1development/profiles"]
)
@pytest.mark.usefixtures("still_serving")
def test_b43_other_paths(server, path):
    """B43: 404, with the paths that there are."""
    text = "no such path; send to /v1/traces, /v1/metrics, /v1/logs"
    refused(server.post(path, GOOD), 404, 12, text)


def test_a_signal_without_a_pipeline(start):
    """A signal that is in no pipeline is rejected."""
    with start(http_config=Http(endpoint="127.0.0.1:0"), signals=[Signal.LOGS]) as running:
        text = "traces are part of no pipeline of this collector"
        refused(running.post("/v1/traces", b""), 404, 12, text)
        assert running.post("/v1/logs", GOOD)[0] == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/grpc", ""]
)
@pytest.mark.usefixtures("still_serving")
def test_b42_content_types(server, kind):
    """B42, B72: a missing or foreign content type is 415 with a Status in JSON."""
    answer = server.post("/v1/logs", GOOD, kind)
    text = "unsupported content type; send application/x-protobuf or application/json"
    assert refused(answer, 415, 12, text)["content-type"] == JSON


@pytest.mark.parametrize(
    "encoding",
    ["br", "lz4", "gzip, gzip", "gzip, zstd", "identity, gzip"],
)
@pytest.mark.usefixtures("still_serving")
def test_b07_content_encodings(server, encoding):
    """B07: unknown and stacked encodings are 415 with the accepted list."""
    answer = server.post("/v1/logs", gzip.compress(GOOD), Content_Encoding=encoding)
    text = (
        "unsupported content encoding; one of: identity, deflate, gzip, snappy, "
        "x-snappy-framed, zlib, zstd"
    )
    refused(answer, 415, 12, text)


def test_b07_decoding_can_be_turned_off(start):
    """`compression_algorithms: []` takes plain bodies only."""
    with start(http_config=Http(endpoint="127.0.0.1:0", compression_algorithms=())) as running:
        answer = running.post("/v1/logs", gzip.compress(GOOD), Content_Encoding="gzip")
        refused(answer, 415, 12, "unsupported content encoding; one of: identity, none")
        assert running.post("/v1/logs", GOOD, Content_Encoding="identity")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.com", "127.0.0.1:evil.com", "localhost.evil.com", "evil.com:4318", "[::2]:4318", ""],
)
@pytest.mark.usefixtures("still_serving")
def test_b71_hosts(server, host):
    """B71: on loopback only loopback names are served, so that DNS rebinding finds nobody."""
    answer = server.post("/v1/logs", GOOD, Host=host)
    headers = refused(answer, 421, 7, "this Host is not served here; use localhost")
    assert headers["connection"] == "close"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:4318", "[::1]:4318", "[::1]"]
)
def test_b71_loopback_hosts(server, host):
    """B71: every loopback name is fine, with any port."""
    assert server.post("/v1/logs", GOOD, Host=host)[0] == 200


@pytest.mark.usefixtures("still_serving")
def test_b72_foreign_origins(server):
    """B72: a web page of another site is refused, without CORS headers."""
    answer = server.post("/v1/logs", GOOD, Origin="https://evil.com")
    headers = refused(answer, 403, 7, "requests from other origins are not allowed")
    assert [name for name in headers if name.startswith("access-control")] == []


# --- bad bytes ---


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"\xff\xff", PROTOBUF, "the body is no protobuf message: a number without end"),
        (b"\x0a\x7f", PROTOBUF, "the body is no protobuf message: cut short"),
        (log_json("x"), PROTOBUF, None),
        (GOOD, JSON, None),
        (b"", JSON, "the body is no JSON: Expecting value at line 1 column 1"),
        (b'{"a":1,"a":1}', JSON, "duplicate JSON member 'a'"),
        (b'{"a":NaN}', JSON, 'bare NaN is no JSON; write "NaN"'),
        (b'{"x":' + b"[" * 100_000, JSON, "the body is JSON that is nested too deeply"),
    ],
)
@pytest.mark.usefixtures("still_serving")
def test_bodies_that_cannot_be_decoded(server, body, kind, text):
    """Malformed bodies are 400 with a BadRequest detail, in the encoding of the request."""
    answer = server.post("/v1/logs", body, kind)
    assert (answer[0], answer[1]["content-type"]) == (400, kind)
    if kind == JSON:
        found = json.loads(answer[2])
        detail = found["details"][0]["fieldViolations"][0]["description"]
        assert detail == found["message"]
    else:
        found = Status.FromString(answer[2])
        bad = BadRequest()
        assert found.details[0].Unpack(bad)
        assert bad.field_violations[0].description == found.message
    if text is not None:
        refused(answer, 400, 3, text)


@pytest.mark.parametrize("depth", [24, 31, 64, 100, 10_000])
def test_b14_deep_values_keep_their_neighbours(server, depth):
    """B14: a body that is nested too deeply costs only itself."""
    deep = b"\x0a\x01x"

    def framed(tag, value):
        size, out = len(value), bytearray([tag])
        while size > 0x7F:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes(out) + bytes([size]) + value

    for _ in range(depth):
        deep = framed(0x2A, framed(0x0A, deep))
    good = framed(0x12, framed(0x2A, b"\x0a\x04good"))
    body = framed(0x0A, framed(0x12, good + framed(0x12, framed(0x2A, deep)) + good))
    assert server.post("/v1/logs", body)[::2] == (200, b"")
    assert server.values() == ["good", "", "good"]


@pytest.mark.parametrize(("depth", "status"), [(24, 200), (100, 200), (10_000, 400)])
def test_b15_deep_json_is_cut_or_refused(server, depth, status):
    """B15: deep JSON is cut; beyond the parser's own limit it is 400, never an error of ours."""
    deep = '{"arrayValue":{"values":[' * depth + '{"stringValue":"x"}' + "]}}" * depth
    body = log_json("good", "@").replace(b'{"stringValue": "@"}', deep.encode())
    assert server.post("/v1/logs", body, JSON)[0] == status
    assert server.values() == (["good", ""] if status == 200 else [])
    assert server.post("/v1/logs", GOOD)[0] == 200


# --- compression ---


def compressed(name, data):
    if name == "gzip":
        return gzip.compress(data, 1)
    if name == "zstd":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return zlib.compress(data, 1)


each_encoding = pytest.mark.parametrize("encoding", ["gzip", "zlib", "deflate", "zstd"])


@each_encoding
@pytest.mark.parametrize(("body", "kind"), [(GOOD, PROTOBUF), (log_json("good"), JSON)])
def test_compressed_bodies(server, encoding, body, kind):
    """gzip, zlib, deflate and zstd are undone, whatever the case of the header."""
    answer = server.post(
        "/v1/logs", compressed(encoding, body), kind, Content_Encoding=encoding.upper()
    )
    assert answer[0] == 200
    assert server.values() == ["good"]


@each_encoding
def test_large_compressed_bodies(server, encoding):
    """Bodies of many pieces come out whole."""
    body = log_request(*(base64.b64encode(b"%d" % n).decode() * 50 for n in range(20_000)))
    assert server.post("/v1/logs", compressed(encoding, body), Content_Encoding=encoding)[0] == 200
    assert server.batches[0].wire == body


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_b05_several_members_are_one_body(server, encoding):
    """B05: all members of a gzip file and all zstd frames are decoded."""
    body = (
        compressed(encoding, GOOD[:5]) + compressed(encoding, b"") + compressed(encoding, GOOD[5:])
    )
    assert server.post("/v1/logs", body, Content_Encoding=encoding)[0] == 200
    assert server.values() == ["good"]


@each_encoding
@pytest.mark.usefixtures("still_serving")
def test_b06_broken_streams(server, encoding):
    """B05, B06: cut, empty, damaged streams and garbage behind the end are 400."""
    whole = compressed(encoding, GOOD * 20)
    damaged = whole[:-8] + bytes(byte ^ 0xFF for byte in whole[-8:])
    for bad in (
        whole[:-1],
        whole[: len(whole) // 2],
        b"",
        b"no",
        whole + b"garbage",
        damaged,
    ):
        status, _, body = server.post("/v1/logs", bad, Content_Encoding=encoding)
        assert (status, Status.FromString(body).code) == (400, 3), bad


@each_encoding
@pytest.mark.usefixtures("still_serving")
def test_b01_bombs(server, encoding):
    """B01, B02, B03: a bomb is 413 while it is being decompressed, long before it is whole."""
    answer = server.post(
        "/v1/logs", compressed(encoding, bytes(64 * MIB)), Content_Encoding=encoding
    )
    refused(answer, 413, 8, "the body is compressed more than 100:1")


@each_encoding
@pytest.mark.usefixtures("still_serving")
def test_b01_the_limit_holds_for_what_comes_out(server, encoding):
    """A body that compresses honestly is measured when it is decompressed."""
    noise = random.Random(7).randbytes(11 * MIB).hex().encode()  # packs to its half
    answer = server.post("/v1/logs", compressed(encoding, noise), Content_Encoding=encoding)
    refused(answer, 413, 8, f"the body is larger than {LIMIT} bytes when decompressed")


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.usefixtures("still_serving")
def test_b03_zstd_bombs_with_and_without_a_size(server, sized):
    """B03: it makes no difference whether the frame says how large it is."""
    packer = zstandard.ZstdCompressor()
    data = bytes(64 * MIB)
    if sized:
        bomb = packer.compress(data)
    else:
        stream = packer.compressobj()
        bomb = stream.compress(data) + stream.flush()
    answer = server.post("/v1/logs", bomb, Content_Encoding="zstd")
    refused(answer, 413, 8, "the body is compressed more than 100:1")


@pytest.mark.usefixtures("still_serving")
def test_b04_zstd_windows(server):
    """B04: a frame that wants more than 8 MiB of window is refused before it gets them."""
    stream = zstandard.ZstdCompressor(level=22).compressobj()
    body = stream.compress(GOOD) + stream.flush()
    answer = server.post("/v1/logs", body, Content_Encoding="zstd")
    text = "the zstd window is larger than 8388608 bytes; compress at level 19 or below"
    refused(answer, 413, 8, text)


@pytest.mark.usefixtures("still_serving")
def test_b05_floods_of_members(server):
    """A body of a thousand and one gzip members is refused by their number."""
    body = gzip.compress(b"") * 1_001
    answer = server.post("/v1/logs", body, Content_Encoding="gzip")
    refused(answer, 413, 8, "the gzip body has more than 1000 members")


def test_b13_bombs_in_parallel_and_good_traffic_between(server):
    """B13: fifty bombs at once are refused one by one while good requests are taken."""
    bomb = gzip.compress(bytes(32 * MIB))
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        bad = [
            pool.submit(server.post, "/v1/logs", bomb, Content_Encoding="gzip") for _ in range(50)
        ]
        good = [pool.submit(server.post, "/v1/logs", GOOD) for _ in range(10)]
        assert {answer.result()[0] for answer in bad} == {413}
        assert {answer.result()[0] for answer in good} == {200}
    assert server.values() == ["good"] * 10


# --- size ---


@pytest.mark.usefixtures("still_serving")
def test_b09_an_announced_body_over_the_limit(server):
    """B09: a Content-Length over the limit is 413 before any of the body is read."""
    head = (
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (LIMIT + 1)
    )
    with socket.create_connection(server.http, timeout=30) as client:
        client.sendall(head)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.usefixtures("still_serving")
def test_b09_a_client_that_sends_on_reads_its_answer(server, chunked):
    """B09: a body over the limit is 413 also for a client that sends all of it before it reads."""
    body = iter([bytes(MIB)] * 21) if chunked else bytes(LIMIT + 1)
    with contextlib.closing(http.client.HTTPConnection(*server.http, timeout=30)) as client:
        client.request("POST", "/v1/logs", body, {"Content-Type": PROTOBUF}, encode_chunked=chunked)
        answer = client.getresponse()
        found = Status.FromString(answer.read())
        assert (answer.status, found.code) == (413, 8)
        assert found.message == f"the body is larger than {LIMIT} bytes"
        # The connection is as good as new.
        client.request("POST", "/v1/logs", b"", {"Content-Type": PROTOBUF})
        assert client.getresponse().status == 200


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        (
            "identity",
            b"\x0a%b\x12%b" % (b"\x84\x80\x80\x02", b"\x80\x80\x80\x02") + b"\x12\x00" * (2 * MIB),
            "items",
        ),
        ("gzip", b"\x0a\x00" * 10_001, "resources"),
    ],
)
@pytest.mark.usefixtures("still_serving")
def test_b10_amplification(server, encoding, body, text):
    """B10, B11: floods of empty messages are 413, naming the limit."""
    if encoding == "identity":
        inner = b"\x12\x00" * (2 * MIB)
        scope = b"\x12" + _size(len(inner)) + inner
        body = b"\x0a" + _size(len(scope)) + scope
    sent = gzip.compress(body) if encoding == "gzip" else body
    answer = server.post("/v1/logs", sent, Content_Encoding=encoding)
    limit = 50_000 if text == "items" else 10_000
    refused(answer, 413, 8, f"more than {limit} {text} in one request; send smaller batches")


def _size(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


# --- the pipeline says no ---


@pytest.mark.parametrize(("kind", "body"), [(PROTOBUF, GOOD), (JSON, log_json("good"))])
@pytest.mark.parametrize(
    "case",
    [
        (Retryable("the disk is full", 2.5), 3, "the disk is full"),
        (ValueError("secret detail"), 1, "the pipeline failed; see the log of the collector"),
    ],
)
def test_what_can_be_stored_later_is_503(server, kind, body, case):
    """Retryable and everything unforeseen is 503 with Retry-After and RetryInfo, never 500."""
    server.failure, delay, text = case
    answer = server.post("/v1/logs", body, kind)
    headers = refused(answer, 503, 14, text)
    assert headers["retry-after"] == str(delay)
    if kind == JSON:
        assert json.loads(answer[2])["details"] == [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"}
        ]
    else:
        info = RetryInfo()
        assert Status.FromString(answer[2]).details[0].Unpack(info)
        assert info.retry_delay.seconds == delay
    server.failure = None
    assert server.post("/v1/logs", body, kind)[0] == 200
    assert server.counted() == {
        'otelcol_receiver_accepted_log_records{receiver="otlp",transport="http"}': 1,
        'otelcol_receiver_refused_log_records{receiver="otlp",transport="http"}': 1,
        'otelier_receiver_refused_requests{reason="retryable",receiver="otlp",transport="http"}': 1,
    }


def test_what_can_never_be_stored_is_400(server):
    """Permanent is final for the sender."""
    server.failure = Permanent("exporter says never")
    headers = refused(server.post("/v1/logs", GOOD), 400, 3, "exporter says never")
    assert "retry-after" not in headers


# --- connections ---


@pytest.fixture(scope="module")
def impatient(start):
    """A receiver whose clocks run fast."""
    settings = Http(
        endpoint="127.0.0.1:0",
        read_header_timeout=Duration(0.3),
        read_timeout=Duration(0.3),
        idle_timeout=Duration(1),
    )
    with start(http_config=settings) as running:
        yield running


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nX: "],
    ids=["nothing", "newline", "half"],
)
def test_b73_a_head_that_does_not_come(impatient, sent):
    """B73: a connection without a whole head is closed, with nothing said."""
    assert impatient.raw(sent) == b""
    assert impatient.post("/v1/logs", GOOD)[0] == 200


def test_b73_a_body_that_does_not_come(impatient):
    """B73: a body that is too slow is 408 with a Status, and the connection is closed."""
    answer = impatient.raw(
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert json.loads(body)["message"] == "the body took longer than 0.3 s"
    assert impatient.post("/v1/logs", GOOD)[0] == 200


def test_b73_half_open_connections_do_not_keep_others_out(impatient):
    """B73, B75: two hundred silent connections are closed while good requests are served."""
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(impatient.http, timeout=30))
            for _ in range(200)
        ]
        for client in silent[:100]:
            client.sendall(b"POST /v1/lo")
        assert impatient.post("/v1/logs", GOOD)[0] == 200
        for client in silent:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X-Long: " + b"a" * 100_000 + b"\r\n", id="long"),
        pytest.param(b"X-Many: a\r\n" * 1_000, id="many"),
        pytest.param(b"X-Endless: " + b"a" * 200_000, id="endless"),
    ],
)
@pytest.mark.usefixtures("still_serving")
def test_b74_heads_that_are_too_large(server, head):
    """B74: a head over 64 KiB or 200 headers is 431, and the connection is closed."""
    answer = server.raw(b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["message"] == "the head has more than 200 headers or 65536 bytes"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(b"POST /v1/logs HTTP/1.1\nHost: localhost\n\n", id="bare-newlines"),
        pytest.param(
            b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length-and-chunks",
        ),
        pytest.param(
            b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            id="two-lengths",
        ),
        pytest.param(
            b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n",
            id="bad-chunk",
        ),
        pytest.param(
            b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            id="negative",
        ),
    ],
)
@pytest.mark.usefixtures("still_serving")
def test_b41_what_is_no_http(server, request_bytes):
    """B40, B41: ambiguous or broken HTTP is 400 and the end of the connection."""
    answer = server.raw(request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (body["code"], body["message"]) == (3, "this is no HTTP request")


@pytest.mark.usefixtures("still_serving")
def test_b40_a_client_that_leaves_early(server):
    """B40: a body that ends before its length is nothing: no answer, nothing stored."""
    with socket.create_connection(server.http, timeout=30) as client:
        client.sendall(
            b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: %d\r\n\r\n" % (len(GOOD) + 1) + GOOD
        )
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=300),
    kind=st.sampled_from([PROTOBUF, JSON]),
    encoding=st.sampled_from(["identity", "gzip", "zstd", "deflate"]),
    path=st.sampled_from(["/v1/traces", "/v1/metrics", "/v1/logs"]),
)
def test_random_bodies_always_get_an_answer(shared, body, kind, encoding, path):
    """Any bytes get a status that the specification knows, with a body in the right encoding."""
    status, headers, content = shared.post(path, body, kind, Content_Encoding=encoding)
    assert status in (200, 400, 413)
    assert headers["content-type"] == kind
    if status == 200:
        assert isinstance(
            json.loads(content) if kind == JSON else ExportLogsServiceResponse.FromString(content),
            dict | ExportLogsServiceResponse,
        )
    else:
        message = (
            json.loads(content)["message"] if kind == JSON else Status.FromString(content).message
        )
        assert message
