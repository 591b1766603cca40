"""The OTLP exporter over gRPC, against servers that behave, misbehave and lie (D3, B23)."""

import asyncio
import threading

import grpc
import pytest

from collector.config import InvalidConfig, load
from collector.errors import Denied, Permanent, Retryable, StartFailed
from collector.exporters.otlp.common import Tls
from collector.exporters.otlp.grpc import Keepalive, Otlp
from collector.model import Duration, Secret
from collector.otlp import retry_info, status
from tests.certificates import Authority
from tests.collector.exporters.peers import GrpcPeer, host, partial
from tests.durability import logs

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend):
    """All tests of this module share a loop, because grpc.aio does not like them to come and go."""
    yield
    await asyncio.sleep(0.1)  # the last events of closed channels


def exporter(peer, **settings):
    """An exporter to a peer."""
    config = Otlp.Config(**{"endpoint": f"http://127.0.0.1:{peer.port}", **settings})
    return Otlp(config, host("otlp_grpc"))


def aborting(code, text="because", **metadata):
    """A server that ends each call so."""
    trailing = tuple((name.replace("_", "-"), value) for name, value in metadata.items())

    def answer(_, context):
        context.set_trailing_metadata(trailing)
        context.abort(code, text)

    return answer


async def failure(code, text="because", **metadata):
    """What the exporter raises when a call ends so."""
    async with GrpcPeer(aborting(code, text, **metadata)) as peer, exporter(peer) as send:
        with pytest.raises((Permanent, Retryable)) as caught:
            await send(logs("a"))
    return caught.value


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_the_bytes_that_came_in_go_out(compression):
    """A batch that nobody changed is passed through, compressed on the wire or not."""
    batch = logs("a")
    batch.wire += b"\xba\x3e\x04more"  # a field of the future: decoding and encoding might lose it
    async with GrpcPeer() as peer, exporter(peer, compression=compression) as send:
        await send(batch)
    assert peer.requests == [batch.wire]


async def test_headers_and_user_agent():
    """Headers are metadata of each call, and nobody sees their values here."""
    settings = {"headers": {"Authorization": Secret("Bearer hush")}, "user_agent": "mine/1"}
    async with GrpcPeer() as peer, exporter(peer, **settings) as send:
        await send(logs("a"))
        assert "hush" not in repr(send.config) + send.describe()
    assert peer.metadata[0]["authorization"] == "Bearer hush"
    assert peer.metadata[0]["user-agent"].startswith("mine/1 grpc-python-asyncio/")


LATER = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
DATA = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
async def test_each_code(code):
    """OTLP 1.11: which codes are sent again, which are about the data, and which about us."""
    expected = Retryable if code.name in LATER else Permanent if code.name in DATA else Denied
    error = await failure(code)
    assert type(error) is expected
    assert str(error).endswith(f" answered {code.name}: because")


async def test_resource_exhausted_with_retry_info_is_retryable():
    """The one code that depends on its details."""
    details = status(8, "slowly", 21.0, "protobuf")
    error = await failure(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc_status_details_bin=details)
    assert (type(error), error.delay_s) == (Retryable, 21.0)
    info = {"google.rpc.retryinfo_bin": retry_info(22.0)}
    error = await failure(grpc.StatusCode.RESOURCE_EXHAUSTED, **info)
    assert (type(error), error.delay_s) == (Retryable, 22.0)


async def test_b23_details_that_lie():
    """B23: bytes that are no Status, and a wait of a year, do no harm."""
    error = await failure(grpc.StatusCode.UNAVAILABLE, grpc_status_details_bin=b"\xff" * 2000)
    assert (type(error), error.delay_s) == (Retryable, 0.0)
    year = status(14, "x", 31_536_000.0, "protobuf")
    error = await failure(grpc.StatusCode.UNAVAILABLE, grpc_status_details_bin=year)
    assert (type(error), error.delay_s) == (Retryable, 600.0)
    error = await failure(grpc.StatusCode.INTERNAL, "a\x1b[31m\nb")
    assert str(error).endswith("INTERNAL: a\\x1b[31m\\nb")


async def test_b23_an_answer_that_is_too_large():
    """B23: an answer above 4 MiB is not read, and the request is not cut and sent again."""

    def endless(*_):
        return bytes(5 << 20)

    async with GrpcPeer(endless) as peer, exporter(peer) as send:
        with pytest.raises(Denied, match="larger than max"):
            await send(logs("a", "b"))


async def test_partial_success_is_counted(caplog):
    """Items that the other side refuses for good are counted; the call succeeds."""

    def answer(*_):
        return partial(2, "too old")

    async with GrpcPeer(answer) as peer, exporter(peer) as send:
        await send(logs("a", "b", "c"))
    assert send.host.stats.snapshot() == {
        'otelier_exporter_rejected_items{exporter="otlp_grpc",signal="logs"}': 2
    }
    assert caplog.messages == ["Partial success: 2 logs rejected by the other side: too old"]


async def test_an_attempt_can_be_ended():
    """A server that never answers: the deadline of the attempt ends the call, the next one works."""
    held = threading.Event()

    def answer(*_):
        held.wait(60)
        return b""

    async with GrpcPeer(answer) as peer, exporter(peer) as send:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):  # what delivery.py puts around each attempt
                await send(logs("a"))
        held.set()
        await send(logs("b"))


async def test_nobody_listens():
    """A refused connection is retryable and names the endpoint."""
    async with GrpcPeer() as peer:
        pass
    async with exporter(peer) as send:
        with pytest.raises(Retryable, match=rf"http://127.0.0.1:{peer.port} answered UNAVAILABLE"):
            await send(logs("a"))


# --- TLS ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def credentials(authority, *, clients=False):
    certificate, key = authority.issue("server", "DNS:collector.example")
    roots = authority.certificate.read_bytes()
    pairs = [(key.read_bytes(), certificate.read_bytes())]
    return grpc.ssl_server_credentials(pairs, roots if clients else None, clients)


async def test_tls(authority):
    """The certificate must be signed by `ca_file` and have the name that is expected."""
    mine = {"ca_file": str(authority.certificate), "server_name_override": "collector.example"}
    async with GrpcPeer(credentials=credentials(authority)) as peer:
        endpoint = f"127.0.0.1:{peer.port}"
        async with exporter(peer, endpoint=endpoint, tls=Tls(**mine)) as send:
            await send(logs("a"))
        for wrong in (Tls(), Tls(ca_file=mine["ca_file"]), Tls(insecure=True)):
            async with exporter(peer, endpoint=endpoint, tls=wrong) as send:
                with pytest.raises(Retryable):
                    await send(logs("b"))
        async with exporter(peer, endpoint=f"https://{endpoint}", tls=Tls(**mine)) as send:
            await send(logs("c"))
    assert peer.requests == [logs("a").wire, logs("c").wire]


async def test_mtls(authority):
    """A server that wants a certificate of ours gets it."""
    certificate, key = authority.issue("client", "DNS:client")
    mine = Tls(
        ca_file=str(authority.certificate),
        cert_file=str(certificate),
        key_file=str(key),
        server_name_override="collector.example",
    )
    async with (
        GrpcPeer(credentials=credentials(authority, clients=True)) as peer,
        exporter(peer, endpoint=f"127.0.0.1:{peer.port}", tls=mine) as send,
    ):
        await send(logs("a"))
    assert peer.requests == [logs("a").wire]


async def test_a_certificate_that_is_not_there(tmp_path):
    """A file that cannot be read ends the start, with the file and the fix."""
    config = Otlp.Config(endpoint="x:1", tls=Tls(ca_file=str(tmp_path / "none")))
    with pytest.raises(StartFailed, match="none: No such file or directory; give a PEM file"):
        async with Otlp(config, host()):
            pass


async def test_keepalive_and_authority():
    """The settings of the channel are taken by gRPC."""
    settings = {
        "keepalive": Keepalive(time=Duration(20), permit_without_stream=True),
        "authority": "other.example",
        "wait_for_ready": True,
        "balancer_name": "pick_first",
    }
    async with GrpcPeer() as peer, exporter(peer, **settings) as send:
        await send(logs("a"))
    assert peer.requests == [logs("a").wire]


# --- configuration ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", 'requires a non-empty "endpoint"'),
        ("{endpoint: gateway}", 'cannot use "gateway": write host:port'),
        ("{endpoint: 'x:99999'}", 'cannot use "x:99999": write host:port'),
        ("{endpoint: 'x:1', compression: zstd}", 'unknown value "zstd"'),
        ("{endpoint: 'x:1', tls: {insecure_skip_verify: true}}", "not available over gRPC"),
        ("{endpoint: 'x:1', keepalive: {time: 1s}}", "keepalive::time must be at least 10s"),
        ("{endpoint: 'x:1', headers: {a: 'ö'}}", 'headers: the value of "a"'),
    ],
)
@pytest.mark.parametrize("kind", ["otlp_grpc", "otlp"])
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


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("gateway:4317", "gateway:4317 over gRPC, TLS"),
        ("http://gateway:4317/", "gateway:4317 over gRPC, plaintext"),
        ("https://gateway:4317", "gateway:4317 over gRPC, TLS"),
        ("dns:///gateway:4317", "dns:///gateway:4317 over gRPC, TLS"),
        ("http://[::1]:4317", "[::1]:4317 over gRPC, plaintext"),
    ],
)
def test_forms_of_the_endpoint(endpoint, shown):
    """The scheme says whether there is TLS; without one there is."""
    config = Otlp.Config(endpoint=endpoint)
    assert list(config.check()) == []
    assert Otlp(config, host()).describe() == shown
