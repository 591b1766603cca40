"""The OTLP exporter over HTTP, against servers that behave, misbehave and lie (D3, B23)."""

import asyncio
import gzip
import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import zstandard

from collector.config import InvalidConfig, load
from collector.errors import Denied, Permanent, Retryable, StartFailed
from collector.exporters.otlp.common import Tls
from collector.exporters.otlp.http import CompressionParams, OtlpHttp
from collector.model import Duration, Secret
from collector.otlp import status
from tests.certificates import Authority
from tests.collector.exporters.peers import HttpPeer, host, partial, reply
from tests.durability import logs

pytestmark = pytest.mark.anyio


def exporter(peer, **settings):
    """An exporter to a peer."""
    config = OtlpHttp.Config(**{"endpoint": peer.url, "compression": "none", **settings})
    return OtlpHttp(config, host("otlp_http"))


async def failure(answer, **settings):
    """What the exporter raises when it is answered so."""
    async with HttpPeer(answer) as peer, exporter(peer, **settings) as send:
        with pytest.raises((Permanent, Retryable)) as caught:
            await send(logs("a"))
    error = caught.value
    error.text = str(error).replace(f"{peer.url}/v1/logs", "<url>")
    return error


# --- what is sent ---


async def test_the_bytes_that_came_in_go_out(tmp_path):
    """A batch that nobody changed is passed through; what it says about itself is the wire."""
    batch = logs("a")
    batch.wire += b"\xba\x3e\x04more"  # a field of the future: decoding and encoding might lose it
    async with HttpPeer() as peer, exporter(peer) as send:
        await send(batch)
    (line, headers, body) = peer.requests[0]
    assert (line, body) == ("POST /v1/logs HTTP/1.1", batch.wire)
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["host"] == f"127.0.0.1:{peer.port}"
    assert "content-encoding" not in headers


async def test_a_changed_batch_is_encoded():
    """After a processor has changed the message, the message is what goes out."""
    batch = logs("a")
    batch.message.resource_logs[0].scope_logs[0].log_records[0].body.string_value = "b"
    batch.changed()
    async with HttpPeer() as peer, exporter(peer) as send:
        await send(batch)
    assert peer.requests[0][2] == logs("b").wire


@pytest.mark.parametrize(
    ("compression", "level", "unpack"),
    [
        ("gzip", 0, gzip.decompress),
        ("gzip", 9, gzip.decompress),
        ("zstd", 0, lambda data: zstandard.ZstdDecompressor().decompress(data)),
        ("zstd", 19, lambda data: zstandard.ZstdDecompressor().decompress(data)),
    ],
)
@pytest.mark.parametrize("size", [10, 100_000])
async def test_bodies_are_compressed(compression, level, unpack, size):
    """Gzip and zstd, small bodies and large ones."""
    batch = logs("x" * size)
    params = CompressionParams(level=level)
    async with (
        HttpPeer() as peer,
        exporter(peer, compression=compression, compression_params=params) as send,
    ):
        await send(batch)
    _, headers, body = peer.requests[0]
    assert (headers["content-encoding"], unpack(body)) == (compression, batch.wire)


async def test_json_and_addresses_of_single_signals():
    """`encoding: json` writes OTLP/JSON; `logs_endpoint` is used as it is, with its query."""
    async with HttpPeer() as peer:
        settings = {"endpoint": "", "logs_endpoint": f"{peer.url}/own?a=b", "encoding": "json"}
        async with exporter(peer, **settings) as send:
            await send(logs("a"))
    line, headers, body = peer.requests[0]
    assert (line, headers["content-type"]) == ("POST /own?a=b HTTP/1.1", "application/json")
    records = json.loads(body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert records == [{"body": {"stringValue": "a"}}]


async def test_headers_are_sent_and_never_shown():
    """Headers reach the server; repr and the banner do not have their values."""
    async with (
        HttpPeer() as peer,
        exporter(peer, headers={"Authorization": Secret("Bearer hush")}) as send,
    ):
        await send(logs("a"))
        assert "hush" not in repr(send.config) + send.describe()
    assert peer.requests[0][1]["authorization"] == "bearer hush"  # the peer lowers its case


# --- connections ---


async def test_connections_are_kept_and_closed_ones_replaced():
    """Three requests use one connection; when the server has closed it, a new one is opened."""
    async with HttpPeer() as peer, exporter(peer) as send:
        for each in range(3):
            await send(logs(str(each)))
        assert peer.connections == 1
        peer.writers[0].close()
        await send(logs("again"))
        assert (peer.connections, len(peer.requests)) == (2, 4)


async def test_a_connection_that_closes_at_the_moment_of_use_costs_nothing():
    """A kept connection that ends without an answer: the request goes out once more, at once."""
    async with HttpPeer(reply(), None, reply()) as peer, exporter(peer) as send:
        await send(logs("a"))
        await send(logs("b"))
    assert [body for _, _, body in peer.requests] == [logs("a").wire, *[logs("b").wire] * 2]


async def test_what_comes_unasked_is_no_answer():
    """A server says "408" on an idle connection: the next request does not take that for its answer."""
    async with HttpPeer() as peer, exporter(peer) as send:
        await send(logs("a"))
        peer.writers[0].write(reply(408))
        await peer.writers[0].drain()
        await asyncio.sleep(0.05)
        await send(logs("b"))
        assert (peer.connections, len(peer.requests)) == (2, 2)


async def test_two_answers_at_once_are_none():
    """A second answer behind the first one: the connection is in disorder, the data is kept."""
    error = await failure(reply(200) + reply(200))
    assert type(error) is Retryable


async def test_a_server_that_answers_before_it_has_read_everything():
    """413 while the body is still on its way: the answer counts, and the connection is not used again."""
    ends = []

    async def early(reader, writer):
        ends.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(413))
        await writer.drain()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        config = OtlpHttp.Config(endpoint=f"http://127.0.0.1:{port}", compression="none")
        async with OtlpHttp(config, host()) as send:
            with pytest.raises(Permanent, match="answered 413"):
                await send(logs("x" * (32 << 20)))
    for each in ends:
        each.transport.abort()
    await asyncio.sleep(0)


async def test_keep_alive_can_be_off():
    """`disable_keep_alives` opens a connection for each request."""
    async with HttpPeer() as peer, exporter(peer, disable_keep_alives=True) as send:
        await send(logs("a"))
        await send(logs("b"))
    assert (peer.connections, peer.requests[0][1]["connection"]) == (2, "close")


async def test_an_answer_that_ends_with_the_connection():
    """HTTP/1.0 style: without a length, the body ends when the server closes."""
    body = status(14, "soon", 7.0, "protobuf")

    async def old(writer):
        writer.write(b"HTTP/1.0 503 No\r\ncontent-type: application/x-protobuf\r\n\r\n" + body)
        writer.close()

    error = await failure(old)
    assert (error.text, error.delay_s) == ("<url> answered 503: soon", 7.0)


async def test_an_interim_answer_is_passed_over():
    """100 Continue is followed by the answer."""
    async with (
        HttpPeer(b"HTTP/1.1 100 Continue\r\n\r\n" + reply()) as peer,
        exporter(peer) as send,
    ):
        await send(logs("a"))
        await send(logs("b"))
    assert len(peer.requests) == 2


# --- answers ---


@pytest.mark.parametrize("code", [429, 502, 503, 504])
async def test_answers_that_mean_later(code):
    """OTLP 1.11: 429, 502, 503 and 504 are sent again, after Retry-After."""
    error = await failure(reply(code, retry_after="17"))
    assert (type(error), error.delay_s) == (Retryable, 17.0)


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_answers_about_the_data(code):
    """They are final for the request, and a part of it may be taken."""
    error = await failure(reply(code, status(3, "bad \x1b[31mred", None, "protobuf")))
    assert (type(error), error.text) == (Permanent, f"<url> answered {code}: bad \\x1b[31mred")


@pytest.mark.parametrize("code", [401, 403, 404, 405, 415, 500, 501])
async def test_answers_about_us(code):
    """They are final for the request and for every part of it."""
    error = await failure(reply(code, b"no, because", "text/plain"))
    assert (type(error), error.text) == (Denied, f"<url> answered {code}: no, because")


async def test_how_long_to_wait():
    """Retry-After as a date, RetryInfo in protobuf and JSON, nonsense, and a wait without reason."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    assert 200 < (await failure(reply(503, retry_after=soon))).delay_s <= 300
    info = status(14, "later", 42.0, "protobuf")
    assert (await failure(reply(503, info))).delay_s == 42.0
    info = status(14, "later", 43.0, "json")
    assert (await failure(reply(503, info, "application/json"))).delay_s == 43.0
    assert (await failure(reply(503, b"{", "application/json", retry_after="x"))).delay_s == 0.0
    assert (await failure(reply(503, retry_after="9" * 400))).delay_s == 600.0


async def test_partial_success_is_counted_and_not_sent_again(caplog):
    """Items that the other side refuses for good are counted; the call succeeds, once."""
    async with (
        HttpPeer(reply(200, partial(3, "too\nold"))) as peer,
        exporter(peer) as send,
    ):
        await send(logs("a", "b", "c", "d"))
        await send(logs("e"))
    assert len(peer.requests) == 2
    assert send.host.stats.snapshot() == {
        'otelier_exporter_rejected_items{exporter="otlp_http",signal="logs"}': 6
    }
    assert caplog.messages == ["Partial success: 3 logs rejected by the other side: too\\nold"]


async def test_partial_success_in_json():
    """The same in JSON, where 64-bit integers are text."""
    body = b'{"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "no"}}'
    async with (
        HttpPeer(reply(200, body, "application/json")) as peer,
        exporter(peer, encoding="json") as send,
    ):
        await send(logs("a", "b"))
    assert list(send.host.stats.snapshot().values()) == [2]


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"", b"{}"])
async def test_a_success_that_cannot_be_read_is_a_success(body):
    """What stands in the body of a 200 does not make it a failure."""
    async with HttpPeer(reply(200, body)) as peer, exporter(peer) as send:
        await send(logs("a"))
    assert send.host.stats.snapshot() == {}


# --- B23: hostile servers ---


async def test_b23_a_redirect_to_another_host_is_not_followed():
    """B23: the data and its credential go nowhere but where the configuration says."""
    async with HttpPeer() as thief:
        error = await failure(reply(307, location=f"{thief.url}/v1/logs"))
        assert (type(error), thief.requests) == (Denied, [])
    assert "are not followed" in error.text
    error = await failure(reply(308, location="https://127.0.0.1/v1/logs"))
    assert type(error) is Denied
    assert type(await failure(reply(302, location="/elsewhere"))) is Denied


async def test_a_redirect_within_the_host_is_followed_but_not_for_ever():
    """307 and 308 to another path of the same server, up to a limit."""
    async with HttpPeer(reply(308, location="/next"), reply()) as peer, exporter(peer) as send:
        await send(logs("a"))
    assert [line for line, _, _ in peer.requests] == [
        "POST /v1/logs HTTP/1.1",
        "POST /next HTTP/1.1",
    ]
    assert type(await failure(reply(307, location="/v1/logs"))) is Denied


async def test_b23_an_endless_answer_is_not_read():
    """B23: at most 64 KiB of an answer are read; then the connection is closed."""
    ended = asyncio.Event()

    async def endless(writer):
        writer.write(b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
        finally:
            ended.set()

    error = await failure(endless)
    assert (type(error), error.text) == (Retryable, "<url> answered 503")
    async with asyncio.timeout(60):
        await ended.wait()


async def test_b23_an_endless_head_is_not_read():
    """B23: the head of an answer is bounded, too."""

    async def endless(writer):
        writer.write(b"HTTP/1.1 200 Yes\r\n")
        while True:
            writer.write(b"x-more: " + b"y" * 4096 + b"\r\n")
            await writer.drain()

    error = await failure(endless)
    assert type(error) is Retryable
    assert "cannot send to <url>: the head of the answer is too large" in error.text


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", b"", b"\x00" * 9],
)
async def test_b23_an_answer_that_is_none(answer):
    """B23: no HTTP, half an answer, nothing: the data is kept and sent again."""

    async def odd(writer):
        writer.write(answer)
        writer.close()

    assert type(await failure(odd)) is Retryable


async def test_b23_a_dripping_server_meets_one_deadline():
    """B23: a server that sends a byte now and then ends with the one deadline of the attempt."""

    async def drip(writer):
        for byte in reply(200, b"x" * 10_000):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with HttpPeer(drip) as peer, exporter(peer) as send:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):  # what delivery.py puts around each attempt
                await send(logs("a"))
        peer.answers = [reply()]
        await send(logs("b"))
    assert peer.connections == 2


async def test_nobody_listens():
    """A refused connection is retryable and names the address."""
    async with HttpPeer() as peer:
        pass
    async with exporter(peer) as send:
        with pytest.raises(Retryable, match=f"cannot send to {peer.url}/v1/logs: "):
            await send(logs("a"))


# --- TLS ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def server_context(authority, *, clients=False):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server"))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return context


async def test_tls_with_an_authority_of_ones_own(authority):
    """The certificate must be signed by `ca_file`; without it, it is a stranger's."""
    async with HttpPeer(ssl=server_context(authority)) as peer:
        async with exporter(peer, tls=Tls(ca_file=str(authority.certificate))) as send:
            await send(logs("a"))
        async with exporter(peer) as send:
            with pytest.raises(Retryable, match="certificate verify failed"):
                await send(logs("b"))
        async with exporter(peer, tls=Tls(insecure_skip_verify=True)) as send:
            await send(logs("c"))
        wrong = Tls(ca_file=str(authority.certificate), server_name_override="other.example")
        async with exporter(peer, tls=wrong) as send:
            with pytest.raises(Retryable, match=r"other\.example"):
                await send(logs("d"))
    assert [body for _, _, body in peer.requests] == [logs("a").wire, logs("c").wire]


async def test_mtls(authority):
    """A server that wants a certificate of ours gets it; without one it takes nothing."""
    certificate, key = authority.issue("client", "DNS:client")
    mine = Tls(ca_file=str(authority.certificate), cert_file=str(certificate), key_file=str(key))
    async with HttpPeer(ssl=server_context(authority, clients=True)) as peer:
        async with exporter(peer, tls=mine) as send:
            await send(logs("a"))
        async with exporter(peer, tls=Tls(ca_file=str(authority.certificate))) as send:
            with pytest.raises(Retryable):
                await send(logs("b"))
    assert [body for _, _, body in peer.requests] == [logs("a").wire]


async def test_a_certificate_that_is_not_there(tmp_path):
    """A file that cannot be read ends the start, with the file and the fix."""
    config = OtlpHttp.Config(endpoint="https://x", tls=Tls(ca_file=str(tmp_path / "none")))
    with pytest.raises(StartFailed, match="none: No such file or directory; give PEM files"):
        async with OtlpHttp(config, host()):
            pass


# --- configuration ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "at least one endpoint must be specified"),
        ("{endpoint: gateway:4318}", '"gateway:4318" must begin with http:// or https://'),
        ("{endpoint: 'http://u:p@x'}", "put the credential into `headers`"),
        ("{endpoint: 'http://x', headers: {'a b': c}}", 'headers: "a b" is no name of a header'),
        ("{endpoint: 'http://x', headers: {a: \"b\\r\\nc: d\"}}", 'headers: the value of "a"'),
        ("{endpoint: 'http://x', tls: {cert_file: x}}", "cert_file and key_file belong together"),
        (
            "{endpoint: 'http://x', compression: zstd, compression_params: {level: 23}}",
            "compression_params.level must be from 1 to 22",
        ),
        ("{endpoint: 'http://x', proxy_url: y}", "has invalid keys: proxy_url"),
    ],
)
@pytest.mark.parametrize("kind", ["otlp_http", "otlphttp"])
def test_mistakes_in_the_configuration(tmp_path, kind, text, expected):
    """Each is found before anything starts, and says what to write."""
    file = tmp_path / "c.yaml"
    file.write_text(
        f"receivers: {{otlp: {{protocols: {{http: }}}}}}\nexporters: {{{kind}: {text}}}\n"
        f"service: {{pipelines: {{logs: {{receivers: [otlp], exporters: [{kind}]}}}}}}\n"
    )
    with pytest.raises(InvalidConfig) as caught:
        load([str(file)], [], {})
    assert expected in caught.value.report()


def test_the_queue_is_on_unless_told_otherwise(tmp_path):
    """As in the OpenTelemetry Collector: a queue in memory, retries, and 30 s for an attempt."""
    file = tmp_path / "c.yaml"
    file.write_text(
        "receivers: {otlp: {protocols: {http: }}}\n"
        "exporters: {otlp_http: {endpoint: 'http://x'}, "
        "otlphttp: {endpoint: 'http://x', sending_queue: {enabled: false}}}\n"
        "service: {pipelines: {logs: {receivers: [otlp], exporters: [otlp_http, otlphttp]}}}\n"
    )
    config = load([str(file)], [], {})
    on, off = (config.exporters[name].config for name in ("otlp_http", "otlphttp"))
    assert (on.sending_queue.num_consumers, on.retry_on_failure.enabled, on.timeout) == (
        10,
        True,
        Duration(30),
    )
    assert off.sending_queue is None
