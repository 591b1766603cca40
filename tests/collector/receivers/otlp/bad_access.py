"""Cases of HTTP itself, of places, types and methods, and of access: B40 to B43, B69 to B76."""

from collections.abc import Callable

from tests.collector.receivers.otlp.bad_inputs import Body, add, both, fine, plain
from tests.collector.receivers.otlp.bad_structure import zeros

HEAD = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"


def sent(head: bytes, change: Callable[[bytes], bytes] = lambda body: body) -> Body:
    """A request as bytes; `%d` in the head is the length of its body."""

    def body(mark: str) -> bytes:
        inner = plain()(mark)
        whole = head % len(inner) if b"%d" in head else head
        return whole + b"\r\n" + change(inner)

    return body


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


CLOSE = b"Connection: close\r\n"
add("B40", "raw", "length-too-large", sent(HEAD + b"Content-Length: 9999\r\n"), b"")
add("B40", "raw", "length-too-small", sent(HEAD + CLOSE + b"Content-Length: 5\r\n"), 400)
add("B40", "raw", "chunks", sent(HEAD + CLOSE + b"Transfer-Encoding: chunked\r\n", chunk), 200)
add("B40", "raw", "chunk-without-size", sent(HEAD + b"Transfer-Encoding: chunked\r\n"), 400)
add(
    "B40",
    "raw",
    "chunk-cut-short",
    sent(HEAD + b"Transfer-Encoding: chunked\r\n", lambda b: b"ffff\r\n" + b),
    b"",
)
add(
    "B40",
    "raw",
    "chunk-of-huge-size",
    sent(HEAD + b"Transfer-Encoding: chunked\r\n", lambda b: b"f" * 20 + b"\r\n" + b),
    400,
)
add("B40", "raw", "half-a-head", lambda _: HEAD[:40], b"")
add("B40", "raw", "nothing", lambda _: b"", b"")
for words, more in (
    ("length-and-chunks", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
    ("two-lengths", b"Content-Length: 4\r\nContent-Length: 5\r\n"),
    ("negative-length", b"Content-Length: -1\r\n"),
    ("length-in-words", b"Content-Length: ten\r\n"),
    ("length-with-plus", b"Content-Length: +4\r\n"),
    ("blank-before-colon", b"Content-Length : 4\r\n"),
    ("nul-in-a-header", b"X: a\0b\r\nContent-Length: 0\r\n"),
    ("cr-in-a-header", b"X: a\rb\r\nContent-Length: 0\r\n"),
    ("header-without-name", b": a\r\nContent-Length: 0\r\n"),
):
    add("B41", "raw", words, lambda _, m=more: HEAD + m + b"\r\n", 400)
add("B41", "raw", "bare-newlines", lambda _: HEAD.replace(b"\r\n", b"\n") + b"\n", 400)
add("B41", "raw", "tls-hello", lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400)
add("B41", "raw", "http2-preface", lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400)
add("B41", "raw", "no-http", lambda _: b"hello\r\n\r\n", 400)
add(
    "B41",
    "raw",
    "upgrade-h2c",
    sent(
        HEAD
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: %d\r\n"
    ),
    200,
)
add(
    "B41",
    "raw",
    "upgrade-with-chunks",
    sent(HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n", chunk),
    400,
)
add(
    "B41",
    "raw",
    "smuggled-behind-upgrade",
    lambda mark: (
        sent(HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n")("hidden")
        + sent(HEAD + b"Content-Length: %d\r\n")(mark)
    ),
    200,
    stored=0,
)

for kind in (
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/grpc",
    "application/protobuf",
    "application/jsonx",
):
    add(
        "B42",
        "http",
        f"type-{(kind or 'none' if kind is None else kind or 'empty').replace('/', '-')}",
        plain(),
        415,
        kind=kind,
        text="content type",
    )
add(
    "B42",
    "http",
    "type-with-parameters",
    plain(),
    200,
    kind="Application/X-Protobuf ; charset=utf-8; v=1",
)
for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
    add("B43", "http", f"method-{method}", plain(), 405, method=method)
for words, path in (
    ("root", "/"),
    ("slash", "/v1/logs/"),
    ("case", "/V1/LOGS"),
    ("dots", "/v1/traces/../logs"),
    ("double", "//v1/logs"),
    ("nul", "/v1/logs%00"),
    ("profiles", "/v1development/profiles"),
    ("long", "/" + "a" * 5_000),
):
    add("B43", "http", f"path-{words}", plain(), 404, path=path, text="no such path")
add("B43", "http", "path-encoded", plain(), 200, path="/v1/lo%67s")
add("B43", "http", "path-with-query", plain(), 200, path="/v1/logs?a=../b")
add(
    "B43",
    "grpc",
    "unknown-method",
    plain(),
    "UNIMPLEMENTED",
    path="/opentelemetry.proto.collector.logs.v1.LogsService/Import",
)
add(
    "B43",
    "grpc",
    "unknown-service",
    plain(),
    "UNIMPLEMENTED",
    path="/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
)
add("B43", "grpc", "root", plain(), "UNIMPLEMENTED", path="/")

for words, value in (
    ("none", None),
    ("empty", ""),
    ("scheme", "Bearer"),
    ("wrong", "Bearer x"),
    ("basic", "Basic dTpw"),
    ("prefix", "Bearer {token:.31}"),
    ("twice", "Bearer {token}, Bearer {token}"),
):
    more = {} if value is None else {"headers": {"Authorization": value}}
    both(
        "B69",
        words,
        plain(),
        401,
        "UNAUTHENTICATED",
        guarded=True,
        text="a credential is needed",
        **more,
    )
fine("B69", "right", plain(), guarded=True, headers={"Authorization": "Bearer {token}"})
add(
    "B69",
    "http",
    "before-the-body",
    lambda _: zeros("gzip"),
    401,
    guarded=True,
    headers={"Content-Encoding": "gzip"},
)
for words, host in (
    ("foreign", "evil.com"),
    ("port", "127.0.0.1:evil.com"),
    ("suffix", "localhost.evil.com"),
    ("prefix", "evil.localhost"),
    ("user", "localhost@evil.com"),
    ("address", "127.0.0.2"),
    ("none", ""),
):
    add("B71", "http", words, plain(), 421, headers={"Host": host})
add("B71", "raw", "two-hosts", lambda _: HEAD + b"Host: evil.com\r\nContent-Length: 0\r\n\r\n", 421)
add("B71", "raw", "no-host", lambda _: b"POST /v1/logs HTTP/1.0\r\nContent-Length: 0\r\n\r\n", 421)
for words, origin in (
    ("foreign", "https://evil.com"),
    ("null", "null"),
    ("suffix", "http://localhost.evil.com"),
    ("port", "http://localhost:1"),
):
    add(
        "B72",
        "http",
        f"origin-{words}",
        plain(),
        403,
        headers={"Origin": origin},
        text="other origins",
    )
add(
    "B72",
    "http",
    "preflight",
    lambda _: b"",
    403,
    method="OPTIONS",
    headers={"Origin": "https://evil.com", "Access-Control-Request-Method": "POST"},
)
add("B74", "raw", "long-head", lambda _: HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n", 431)
add("B74", "raw", "many-headers", lambda _: HEAD + b"X: a\r\n" * 1_000 + b"\r\n", 431)
add(
    "B74",
    "raw",
    "long-path",
    lambda _: b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    (400, 431),
)
add(
    "B74",
    "grpc",
    "long-metadata",
    plain(),
    ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"),
    headers={"x-long": "a" * 100_000},
)
add(
    "B76",
    "grpc",
    "resets",
    plain(),
    ("CANCELLED", "OK"),
    times=200,
    headers={"cancel": "1"},
    stored=-1,
)
