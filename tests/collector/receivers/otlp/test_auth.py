"""Who may send: tokens before bodies, wide binds, web pages, and sockets in the file system."""

import asyncio
import concurrent.futures
import contextlib
import gzip
import http.client
import json
import logging
import os
import socket
import stat
import threading

import grpc
import pytest
from google.rpc.status_pb2 import Status

from collector.errors import Retryable, StartFailed
from collector.extensions.bearertokenauth import BearerTokenAuth
from collector.model import Duration, Host, Secret, Signal
from collector.otlp import new_message
from collector.receivers.otlp.auth import Auth
from collector.receivers.otlp.cors import Cors
from collector.receivers.otlp.receiver import Grpc, Http, Limits
from collector.receivers.otlp.tls import Tls
from collector.stats import Stats
from tests.programs import Collector

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
AUTH = Auth(authenticator="bearertokenauth")
PROTOBUF, JSON = "application/x-protobuf", "application/json"


def log_request(body):
    message = new_message(Signal.LOGS)
    scope = message.resource_logs.add().scope_logs.add()
    scope.log_records.add().body.string_value = body
    return message.SerializeToString()


GOOD = log_request("good")


@pytest.fixture(scope="module")
def tokens():
    config = BearerTokenAuth.Config(tokens=(Secret(TOKEN), Secret(OTHER)))
    extension = BearerTokenAuth(
        config, Host("bearertokenauth", Stats(), logging.getLogger("test.auth"))
    )
    asyncio.run(extension.__aenter__())
    return extension


@pytest.fixture(scope="module")
def guarded(start, tokens):
    """A receiver that wants one of two tokens, on all addresses of the machine."""
    with start(
        grpc_config=Grpc(endpoint="0.0.0.0:0", auth=AUTH),
        http_config=Http(endpoint="0.0.0.0:0", auth=AUTH),
        extensions={"bearertokenauth": tokens},
    ) as running:
        yield running


WRONG = {
    "absent": None,
    "empty": "",
    "scheme only": "Bearer",
    "no scheme": TOKEN,
    "other scheme": f"Basic {TOKEN}",
    "prefix": f"Bearer {TOKEN[:-1]}",
    "longer": f"Bearer {TOKEN}0",
    "other case": f"Bearer {TOKEN.upper()}",
    "two blanks": f"Bearer  {TOKEN}",
    "unicode": "Bearer \u00e9\u00fc",
    "both": f"Bearer {TOKEN},{OTHER}",
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_b69_without_the_token_nothing_gets_in(guarded, value):
    """B69: anything but a valid token is 401 and UNAUTHENTICATED, in the encoding of the request."""
    guarded.forget()
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    status, answer, body = guarded.post("/v1/logs", GOOD, **headers)
    found = Status.FromString(body)
    assert (status, answer["www-authenticate"]) == (401, "Bearer")
    assert (found.code, found.message) == (16, "a credential is needed, or it is not the right one")
    status, _, body = guarded.post("/v1/logs", b"{}", JSON, **headers)
    assert (status, json.loads(body)["code"]) == (401, 16)
    if value is None or value.isascii():
        metadata = () if value is None else (("authorization", value),)
        with pytest.raises(grpc.RpcError) as caught:
            guarded.export(Signal.LOGS, GOOD, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "google.rpc.retryinfo-bin" not in dict(caught.value.trailing_metadata())
    assert guarded.batches == []
    assert {name.partition("{")[0] for name in guarded.counted()} == {
        "otelier_receiver_refused_requests"
    }
    assert all('reason="unauthenticated"' in name for name in guarded.counted())


def test_b69_two_headers_are_none(guarded):
    """B69: a token that comes twice is refused, whichever of the two is right."""
    guarded.forget()
    head = b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    twice = b"Authorization: Bearer %b\r\n" % TOKEN.encode() * 2
    answer = guarded.raw(head + twice + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 401 ")
    with pytest.raises(grpc.RpcError) as caught:
        guarded.export(Signal.LOGS, GOOD, metadata=(("authorization", f"Bearer {TOKEN}"),) * 2)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("token", [TOKEN, OTHER])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_of_two_tokens_is_taken(guarded, token, scheme):
    """Two tokens are valid at once, so that senders can change over; any Host will do with one."""
    guarded.forget()
    value = f"{scheme} {token}"
    assert guarded.post("/v1/logs", GOOD, Authorization=value, Host="collector.example")[0] == 200
    assert guarded.export(Signal.LOGS, GOOD, metadata=(("authorization", value),)) == b""
    assert guarded.values() == ["good", "good"]


def test_b69_the_token_is_checked_before_the_body_is_read(guarded):
    """B69: 401 comes while not a byte of the body is there, and before a bomb is decompressed."""
    head = b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(guarded.http, timeout=30) as client:
        client.sendall(head + b"Content-Length: 1000000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
    bomb = gzip.compress(bytes(64 << 20))
    assert guarded.post("/v1/logs", bomb, Content_Encoding="gzip")[0] == 401
    with guarded.channel() as channel:
        method = channel.stream_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        held = threading.Event()

        def endless():
            held.wait(60)
            yield GOOD

        call = method.future(endless(), timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        held.set()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_authenticator_that_does_not_run_ends_the_start(start):
    """The extension must be in service::extensions, and must be one that knows credentials."""
    with pytest.raises(StartFailed) as caught:
        start(http_config=Http(endpoint="127.0.0.1:0", auth=AUTH)).__enter__()
    assert str(caught.value) == (
        'receivers::otlp::protocols::http::auth::authenticator: "bearertokenauth" is no extension '
        "that runs; add it to service::extensions"
    )
    with pytest.raises(StartFailed, match="is no authenticator; name a bearertokenauth"):
        start(
            grpc_config=Grpc(endpoint="127.0.0.1:0", auth=AUTH),
            extensions={"bearertokenauth": object()},
        ).__enter__()


@pytest.mark.parametrize("kind", [Grpc, Http])
@pytest.mark.parametrize("endpoint", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "host.example:0"])
def test_b68_a_wide_bind_needs_a_token_or_client_certificates(start, kind, endpoint):
    """B68: an address that others can reach is refused without either, naming every way out."""
    text = (
        f'endpoint "{endpoint}" is reachable from other machines, and every client there could send; set '
        "`auth: {authenticator: bearertokenauth}` or `tls: {client_ca_file: }`, or use localhost; "
        "in a container network of your own, start with --allow-unauthenticated "
        "(TELEMETRY_ALLOW_UNAUTHENTICATED=1)"
    )
    name = kind.__name__.lower()
    assert kind(endpoint=endpoint).check() == [text]
    with pytest.raises(StartFailed) as caught:
        start(**{f"{name}_config": kind(endpoint=endpoint)}).__enter__()
    assert str(caught.value) == f"receivers::otlp::protocols::{name}: {text}"
    tls = Tls(cert_file="a", key_file="b")
    mutual = Tls(cert_file="a", key_file="b", client_ca_file="c")
    assert kind(endpoint=endpoint, tls=tls).check() == [text]
    assert kind(endpoint=endpoint, tls=mutual).check() == []
    assert kind(endpoint=endpoint, auth=AUTH).check() == []
    assert kind(endpoint=endpoint, dangerously_allow_unauthenticated=True).check() == []
    assert kind(endpoint="unix:///run/x").check() == []
    assert kind(endpoint="127.0.0.2:0").check() == []


def test_b68_the_dangerous_key_is_told(start, caplog):
    """B68: with the key it listens, warns, and shows a metric; any Host is served, or a list."""
    config = Http(
        endpoint="0.0.0.0:0",
        dangerously_allow_unauthenticated=True,
    )
    with start(http_config=config) as running:
        assert running.post("/v1/logs", GOOD, Host="collector:4318")[0] == 200
        gauge = 'otelier_receiver_unauthenticated{receiver="otlp",transport="http"}'
        assert running.stats.snapshot()[gauge] == 1
    assert "takes data from every client that reaches it" in caplog.text
    config = Http(
        endpoint="0.0.0.0:0",
        dangerously_allow_unauthenticated=True,
        allowed_hosts=("collector",),
    )
    with start(http_config=config) as running:
        assert running.post("/v1/logs", GOOD, Host="collector:4318")[0] == 200
        assert running.post("/v1/logs", GOOD, Host="evil.com")[0] == 421


@pytest.mark.parametrize(
    ("said", "opens"),
    [("1", True), ("true", True), ("on", True), ("0", False), ("", False), ("false", False)],
)
def test_b68_the_operator_says_once_that_the_network_is_its_own(
    start, caplog, monkeypatch, said, opens
):
    """B68: TELEMETRY_ALLOW_UNAUTHENTICATED opens wide listeners; that is warned about and shown (R8)."""
    monkeypatch.setenv("TELEMETRY_ALLOW_UNAUTHENTICATED", said)
    config = Http(endpoint="0.0.0.0:0")
    assert (config.check() == []) is opens
    if not opens:
        return
    with start(http_config=config) as running:
        assert running.post("/v1/logs", GOOD, Host="collector:4318")[0] == 200
        gauge = 'otelier_receiver_unauthenticated{receiver="otlp",transport="http"}'
        assert running.stats.snapshot()[gauge] == 1
    assert "takes data from every client that reaches it" in caplog.text


def test_b71_two_hosts_are_none(server):
    """B71: a request with two Host headers is 421, whichever of them is right."""
    answer = server.raw(
        b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    assert answer.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 "))


# --- web pages ---


@pytest.fixture(scope="module")
def page(start, tokens):
    """A receiver for pages of two sites, with a token."""
    cors = Cors(
        allowed_origins=("https://app.example.com", "https://*.Example.org"),
        allowed_headers=("Authorization", "X-Page"),
        exposed_headers=("Retry-After",),
        max_age=600,
    )
    with start(
        http_config=Http(endpoint="127.0.0.1:0", cors=cors, auth=AUTH),
        extensions={"bearertokenauth": tokens},
    ) as running:
        yield running


def asked(running, origin, method="POST", headers="authorization,content-type"):
    """What a browser learns before it sends."""
    return running.post(
        "/v1/traces",
        None,
        None,
        method="OPTIONS",
        Origin=origin,
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers=headers,
    )


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://a.b.example.org"])
def test_pages_of_allowed_origins_may_send(page, origin):
    """The preflight is answered without a token, the request itself needs it, both name the origin."""
    page.forget()
    status, headers, body = asked(page, origin)
    assert (status, body) == (204, b"")
    assert headers == {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "vary": "Origin",
        "access-control-expose-headers": "Retry-After",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "600",
    }
    status, headers, _ = page.post("/v1/logs", GOOD, Origin=origin, Authorization=f"Bearer {TOKEN}")
    assert (status, headers["access-control-allow-origin"]) == (200, origin)
    assert page.post("/v1/logs", GOOD, Origin=origin)[0] == 401
    assert page.values() == ["good"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.com",
        "http://app.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.com:8443",
        "https://example.org",
        "null",
    ],
)
def test_b72_pages_of_other_origins_may_not(page, origin):
    """B72: every other page is refused before its token is looked at, without CORS headers."""
    for status, headers, _ in (
        asked(page, origin),
        page.post("/v1/logs", GOOD, Origin=origin, Authorization=f"Bearer {TOKEN}"),
    ):
        assert status == 403
        assert [name for name in headers if name.startswith("access-control")] == []


def test_pages_may_send_only_headers_that_are_named(page):
    """A preflight for another header is 403 and names it."""
    status, headers, body = asked(page, "https://app.example.com", headers="x-page, x-other")
    assert status == 403
    assert json.loads(body)["message"] == (
        "pages may not send the header x-other; name it in cors::allowed_headers"
    )
    assert [name for name in headers if name.startswith("access-control")] == []


def test_any_origin_and_any_header(start):
    """`*` allows every page; a header list of `*` allows every header."""
    cors = Cors(allowed_origins=("*",), allowed_headers=("*",))
    with start(http_config=Http(endpoint="127.0.0.1:0", cors=cors)) as running:
        status, headers, _ = asked(running, "https://anywhere.example", headers="x-anything")
        assert (status, headers["access-control-allow-origin"]) == (204, "*")
        status, headers, _ = running.post("/v1/logs", GOOD, Origin="https://anywhere.example")
        assert (status, headers["access-control-allow-origin"]) == (200, "*")


def test_without_named_headers_the_usual_ones_are_allowed():
    """Content-Type and its like always are, X-Requested-With as long as no header is named."""
    assert Cors(allowed_origins=("*",)).refuses("content-type, accept, x-requested-with") == ""
    assert Cors(allowed_headers=("x-a",)).refuses("X-A, X-Requested-With") == "x-requested-with"


def test_settings_of_cors_are_checked():
    """Headers without origins, two stars and a negative age are wrong."""
    assert Cors().check() == []
    assert Cors(allowed_origins=("*.*",), max_age=-1).check() == [
        'allowed_origins: "*.*" has more than one *',
        "max_age must not be negative",
    ]
    assert Cors(allowed_headers=("a",)).check() == [
        "allowed_headers and exposed_headers need allowed_origins"
    ]


# --- sockets in the file system ---


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))


@pytest.fixture
def short(tmp_path, monkeypatch):
    """A folder whose paths are short enough for sockets, whatever the name of the test folder is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("written", ["scheme", "transport"])
def test_sockets_in_the_file_system(start, short, written):
    """`unix:///path`, or `transport: unix`: served, not open to others, and gone at the end."""
    options = {"transport": "unix"} if written == "transport" else {}
    prefix = "" if options else "unix://"
    with start(
        grpc_config=Grpc(endpoint=f"{prefix}grpc.sock", **options),
        http_config=Http(endpoint=f"{prefix}http.sock", **options),
    ) as running:
        assert running.receiver.endpoints == {
            "grpc": "unix://grpc.sock",
            "http": "unix://http.sock",
        }
        with contextlib.closing(UnixConnection("http.sock")) as client:
            client.request("POST", "/v1/logs", GOOD, {"Content-Type": PROTOBUF, "Host": "any"})
            assert client.getresponse().status == 200
        with grpc.insecure_channel("unix:grpc.sock") as channel:
            method = channel.unary_unary(
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
            )
            assert method(GOOD, timeout=30) == b""
        assert running.values() == ["good", "good"]
        for name in ("grpc.sock", "http.sock"):
            assert stat.S_IMODE(os.stat(name).st_mode) & 0o007 == 0  # noqa: PTH116 - relative
    assert sorted(path.name for path in short.iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [(Grpc, "grpc"), (Http, "http")])
def test_what_stands_in_the_way_of_a_socket(start, short, kind, name):
    """A left-over socket is replaced; one in use, a file and a missing folder end the start."""
    config = {f"{name}_config": kind(endpoint="unix://a.sock")}
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("a.sock")
    match = "another process listens there; stop it or choose"
    with start(**config), pytest.raises(StartFailed, match=match):
        start(**config).__enter__()
    (short / "a.sock").write_text("mine")
    with pytest.raises(StartFailed, match="there is a file that is no socket; remove it"):
        start(**config).__enter__()
    assert (short / "a.sock").read_text() == "mine"
    with pytest.raises(StartFailed, match="there is no such folder; create it"):
        start(**{f"{name}_config": kind(endpoint="unix://none/a.sock")}).__enter__()


# --- slow and busy ---


def test_b73_a_grpc_message_that_does_not_come(start):
    """B73: a call whose message does not arrive ends as UNAVAILABLE, and others are served."""
    config = Grpc(endpoint="127.0.0.1:0", read_timeout=Duration(0.3))
    with start(grpc_config=config) as running:
        held = threading.Event()

        def never():
            held.wait(60)
            yield GOOD

        with running.channel() as channel:
            method = channel.stream_unary(
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
            )
            with pytest.raises(grpc.RpcError) as caught:
                method.future(never(), timeout=60).result()
            held.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the message took longer than 0.3 s"
        assert running.export(Signal.LOGS, GOOD) == b""
        assert running.values() == ["good"]


def test_a_call_without_a_message_is_malformed(server):
    """A call that ends before it has sent anything is INVALID_ARGUMENT."""
    with server.channel() as channel:
        method = channel.stream_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as caught:
            method(iter(()), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_pipeline_that_takes_nothing_is_asked_before_the_body_is_read(start):
    """A consumer's `admit` refuses with 503 while not a byte of the body is there; gRPC the same."""

    class Full:
        full = True

        def admit(self):
            if self.full:
                raise Retryable("data refused due to high memory usage", 2)

        async def __call__(self, batch):
            pass

    consumer = Full()
    with start(
        grpc_config=Grpc(endpoint="127.0.0.1:0"), http_config=Http(endpoint="127.0.0.1:0")
    ) as running:
        running.receiver.next.update(dict.fromkeys(Signal, consumer))
        with socket.create_connection(running.http, timeout=30) as client:
            client.sendall(
                b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000000\r\n\r\n"
            )
            answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2\r\n" in answer
        with pytest.raises(grpc.RpcError) as caught:
            running.export(Signal.LOGS, b"\xff")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "data refused due to high memory usage"
        consumer.full = False
        assert running.post("/v1/logs", GOOD)[0] == 200


@pytest.fixture
def crowded(start):
    """A receiver with twenty places per transport."""
    with start(
        grpc_config=Grpc(endpoint="127.0.0.1:0"),
        http_config=Http(endpoint="127.0.0.1:0"),
        limits=Limits(max_connections=20),
    ) as running:
        yield running


def test_b75_idle_connections_give_way_to_new_ones(crowded):
    """B75: when all places are taken, the connection that is idle longest loses its place."""
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(crowded.http, timeout=30))
            for _ in range(40)
        ]
        assert crowded.post("/v1/logs", GOOD)[0] == 200
        for client in idle[:20]:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        assert crowded.post("/v1/logs", GOOD)[0] == 200
    assert crowded.values() == ["good", "good"]


def test_b75_busy_connections_keep_their_places(crowded):
    """B75: when every connection has a request in work, one more is 503 and may come again."""
    crowded.free.clear()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        busy = [pool.submit(crowded.post, "/v1/logs", GOOD) for _ in range(20)]
        for _ in busy:
            assert crowded.waiting.acquire(timeout=30)
        answer = crowded.raw(b"")
        crowded.free.set()
        assert [request.result(30)[0] for request in busy] == [200] * 20
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in answer


def test_b75_grpc_connections_are_bounded(crowded):
    """B75: gRPC refuses a connection too many, and serves it when a place is free."""
    with contextlib.ExitStack() as stack:
        channels = [
            # Each with a connection of its own: channels with equal options share one.
            stack.enter_context(
                grpc.insecure_channel(crowded.grpc, options=[("test.number", number)])
            )
            for number in range(20)
        ]
        for channel in channels:
            grpc.channel_ready_future(channel).result(30)
        with pytest.raises(grpc.RpcError) as caught:
            crowded.export(Signal.LOGS, GOOD)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    while True:  # bounded by the test's own timeout: gRPC closes when it has time
        with contextlib.suppress(grpc.RpcError):
            assert crowded.export(Signal.LOGS, GOOD) == b""
            break


def test_limits_out_of_range_are_named():
    """Every limit is at least one."""
    assert Limits().check() == []
    assert Limits(max_items=0, max_connections=-1).check() == [
        "max_connections must be greater than zero",
        "max_items must be greater than zero",
    ]


LIMITED = """
receivers:
  otlp: {protocols: {http: {endpoint: 127.0.0.1:0}}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 2, spike_limit_mib: 1}
exporters:
  file: {path: stored.jsonl}
  file/two: {path: two.jsonl}
service:
  pipelines:
    logs: {receivers: [otlp], processors: [memory_limiter], exporters: [file]}
    logs/two: {receivers: [otlp], exporters: [file/two]}
"""


@pytest.mark.e2e
def test_b12_a_full_collector_reads_no_bodies(tmp_path):
    """B12: while memory_limiter refuses, a real collector answers 503 before a body has come."""
    config = tmp_path / "config.yaml"
    config.write_text(LIMITED)
    with Collector(tmp_path, sets=(), config=config) as collector:
        collector.wait_for("Everything is ready")
        host, _, port = collector.address("otlp", "http").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(
                b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000000\r\n\r\n"
            )
            answer = b""
            while b"}" not in answer:
                answer += client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"data refused due to high memory usage" in answer
        assert collector.stop() == 0
    assert (tmp_path / "two.jsonl").read_text() == ""
