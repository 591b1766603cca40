"""TLS and mTLS of the receiver, over both transports, with certificates that openssl made."""

import contextlib
import http.client
import shutil
import socket
import ssl

import grpc
import pytest

from collector.errors import StartFailed
from collector.model import Duration, Secret, Signal
from collector.otlp import new_message
from collector.receivers.otlp.receiver import Grpc, Http
from collector.receivers.otlp.tls import Tls
from tests.certificates import Authority

HANDSHAKE_REFUSED = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)


def log_request(body):
    message = new_message(Signal.LOGS)
    scope = message.resource_logs.add().scope_logs.add()
    scope.log_records.add().body.string_value = body
    return message.SerializeToString()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def issued(authority):
    return authority.issue("server")


def tls(issued, **more):
    certificate, key = issued
    return Tls(cert_file=str(certificate), key_file=str(key), **more)


def both(section):
    return {
        "grpc_config": Grpc(endpoint="127.0.0.1:0", tls=section),
        "http_config": Http(endpoint="127.0.0.1:0", tls=section),
    }


def client_context(authority, issued=None, version=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if issued is not None:
        context.load_cert_chain(*issued)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_credentials(authority, issued=None):
    key = certificate = None
    if issued is not None:
        certificate, key = (path.read_bytes() for path in issued)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)


def served_over_grpc(running, credentials, body=b""):
    """Whether a call over TLS is answered."""
    code = None
    try:
        running.export(Signal.LOGS, body, tls=credentials)
    except grpc.RpcError as error:
        code = error.code()
    assert code in (None, grpc.StatusCode.UNAVAILABLE)
    return code is None


@pytest.fixture(scope="module")
def encrypted(start, issued):
    with start(**both(tls(issued))) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(start, authority, issued):
    with start(**both(tls(issued, client_ca_file=str(authority.certificate)))) as running:
        yield running


def test_requests_over_tls(encrypted, authority):
    """Both transports serve clients that trust the authority, and store what they send."""
    encrypted.forget()
    status, _, _ = encrypted.post(
        "/v1/logs", log_request("http"), tls=client_context(authority), Host="localhost"
    )
    encrypted.export(Signal.LOGS, log_request("grpc"), tls=client_credentials(authority))
    assert status == 200
    assert encrypted.values() == ["http", "grpc"]


def test_b77_plain_requests_to_an_encrypted_port(encrypted, authority):
    """B77: who does not speak TLS gets no answer, and those who do are still served."""
    encrypted.forget()
    with socket.create_connection(encrypted.http, timeout=30) as client:
        client.sendall(b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                received += piece
    assert b"HTTP/" not in received
    assert not served_over_grpc(encrypted, None, log_request("plain"))
    assert served_over_grpc(encrypted, client_credentials(authority), log_request("tls"))
    assert encrypted.values() == ["tls"]


def test_b77_the_client_refuses_a_strange_server(encrypted, stranger):
    """B77: a client that trusts another authority does not send."""
    with pytest.raises(ssl.SSLCertVerificationError):
        encrypted.post("/v1/logs", b"", tls=client_context(stranger))
    assert not served_over_grpc(encrypted, client_credentials(stranger))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_b77_old_tls_is_not_spoken(encrypted, authority):
    """B77: TLS 1.1 is refused; 1.2 and 1.3 are spoken."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(authority, version=version)
        assert encrypted.post("/v1/logs", b"", tls=context)[0] == 200
    context = client_context(authority, version=ssl.TLSVersion.TLSv1_1)
    with pytest.raises(HANDSHAKE_REFUSED):
        encrypted.post("/v1/logs", b"", tls=context)


def test_the_lowest_version_can_be_raised(start, issued, authority):
    """`min_version: "1.3"` refuses clients that speak 1.2 only."""
    section = tls(issued, min_version="1.3")
    with start(http_config=Http(endpoint="127.0.0.1:0", tls=section)) as running:
        newer = client_context(authority, version=ssl.TLSVersion.TLSv1_3)
        assert running.post("/v1/logs", b"", tls=newer)[0] == 200
        older = client_context(authority, version=ssl.TLSVersion.TLSv1_2)
        with pytest.raises(HANDSHAKE_REFUSED):
            running.post("/v1/logs", b"", tls=older)


def test_mutual_tls_takes_clients_of_its_authority(mutual, authority):
    """With `client_ca_file` a client that shows a certificate of that authority is served."""
    mutual.forget()
    client = authority.issue("client")
    context, credentials = client_context(authority, client), client_credentials(authority, client)
    assert mutual.post("/v1/logs", log_request("http"), tls=context)[0] == 200
    mutual.export(Signal.LOGS, log_request("grpc"), tls=credentials)
    assert mutual.values() == ["http", "grpc"]


@pytest.mark.parametrize("kind", ["none", "strange", "self-signed", "expired"])
def test_b77_mutual_tls_refuses_everybody_else(mutual, authority, stranger, kind):
    """B77: without a certificate, or with one that is strange or old, nothing gets in."""
    mutual.forget()
    shown = {
        "none": lambda: None,
        "strange": lambda: stranger.issue("client"),
        "self-signed": lambda: (stranger.certificate, stranger.folder / "stranger.key"),
        "expired": lambda: authority.issue("expired", days=-1),
    }[kind]()
    with pytest.raises(HANDSHAKE_REFUSED):
        mutual.post("/v1/logs", log_request("http"), tls=client_context(authority, shown))
    assert not served_over_grpc(mutual, client_credentials(authority, shown), log_request("grpc"))
    assert mutual.values() == []
    assert mutual.batches == []


def serial(running, authority):
    """The number of the certificate that HTTP shows."""
    with (
        socket.create_connection(running.http, timeout=30) as plain,
        client_context(authority).wrap_socket(plain, server_hostname="localhost") as client,
    ):
        return client.getpeercert()["serialNumber"]


def test_b77_a_changed_certificate_is_used_without_a_restart(
    start, authority, stranger, tmp_path, caplog
):
    """B77: with `reload_interval` both transports show the new certificate; a broken one is not used."""
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def put(issued):
        for source, target in zip(issued, (certificate, key), strict=True):
            fresh = target.with_suffix(".new")
            shutil.copy(source, fresh)
            fresh.rename(target)

    put(authority.issue("first"))
    section = tls((certificate, key), reload_interval=Duration(1e-6))
    with start(**both(section)) as running:
        first = serial(running, authority)
        certificate.write_text("not a certificate")
        assert serial(running, authority) == first
        assert served_over_grpc(running, client_credentials(authority))
        assert "the new certificate is not used, the old one stays" in caplog.text
        put(authority.issue("second"))
        assert serial(running, authority) != first
        assert served_over_grpc(running, client_credentials(authority))
        put(stranger.issue("third"))
        assert served_over_grpc(running, client_credentials(stranger))
        assert not served_over_grpc(running, client_credentials(authority))


def test_new_authorities_of_clients_are_read_again(start, authority, stranger, issued, tmp_path):
    """`client_ca_file_reload` takes another authority; without it the first one stays."""
    context = client_context(authority, stranger.issue("client"))
    for reload in (False, True):
        file = tmp_path / f"{reload}.pem"
        shutil.copy(authority.certificate, file)
        section = tls(
            issued,
            client_ca_file=str(file),
            client_ca_file_reload=reload,
            reload_interval=Duration(1e-6),
        )
        with start(http_config=Http(endpoint="127.0.0.1:0", tls=section)) as running:
            with pytest.raises(HANDSHAKE_REFUSED):
                running.post("/v1/logs", b"", tls=context)
            shutil.copy(stranger.certificate, file)
            if reload:
                assert running.post("/v1/logs", b"", tls=context)[0] == 200
            else:
                with pytest.raises(HANDSHAKE_REFUSED):
                    running.post("/v1/logs", b"", tls=context)


def test_certificates_may_stand_in_the_configuration(start, authority, issued):
    """`cert_pem` and `key_pem` hold the text itself; the key is never printed."""
    certificate, key = (path.read_text() for path in issued)
    section = Tls(cert_pem=certificate, key_pem=Secret(key))
    assert "PRIVATE KEY" not in repr(section)
    with start(**both(section)) as running:
        assert running.post("/v1/logs", b"", tls=client_context(authority))[0] == 200
        assert served_over_grpc(running, client_credentials(authority))


def test_b77_a_key_that_everybody_can_read_ends_the_start(start, authority, tmp_path):
    """B77: a world-readable private key is refused, with the fix."""
    certificate, key = authority.issue("open")
    key.chmod(0o644)
    for transport in ("grpc", "http"):
        config = {"grpc": Grpc, "http": Http}[transport](
            endpoint="127.0.0.1:0", tls=tls((certificate, key))
        )
        with pytest.raises(StartFailed) as caught:
            start(**{f"{transport}_config": config}).__enter__()
        assert str(caught.value) == (
            f"receivers::otlp::protocols::{transport}::tls::key_file: every user of this machine "
            f"may use {key}; chmod o= it (in Kubernetes: defaultMode: 0440)"
        )


@pytest.mark.parametrize("kind", ["missing", "mixed", "locked", "no-ca"])
def test_files_that_cannot_be_used_end_the_start(start, authority, issued, tmp_path, kind):
    """Missing files, a key of another certificate or with a password, and no CA are StartFailed."""
    certificate, key = issued
    more = {}
    if kind == "missing":
        certificate = tmp_path / "none.pem"
    elif kind == "mixed":
        key = authority.issue("other")[1]
    elif kind == "locked":
        locked = tmp_path / "locked.key"
        from tests.certificates import openssl

        openssl("ec", "-aes128", "-passout", "pass:x", "-in", key, "-out", locked)
        locked.chmod(0o600)
        key = locked
    else:
        more["client_ca_file"] = str(key)
    config = Http(endpoint="127.0.0.1:0", tls=tls((certificate, key), **more))
    with pytest.raises(StartFailed, match=r"^receivers::otlp::protocols::http::tls"):
        start(http_config=config).__enter__()


def test_settings_that_do_not_fit_are_named():
    """Certificate and key are given once each."""
    assert Tls(cert_file="a", key_file="b").check() == []
    assert Tls().check() == [
        "provide either cert_file or cert_pem",
        "provide either key_file or key_pem",
    ]
    assert Tls(cert_file="a", cert_pem="b", key_file="c").check() == [
        "provide either cert_file or cert_pem"
    ]


def test_a_client_that_never_shakes_hands_is_closed(start, issued, authority):
    """B73: a connection to an encrypted port that says nothing is closed, and others are served."""
    config = Http(endpoint="127.0.0.1:0", tls=tls(issued), read_header_timeout=Duration(0.3))
    with start(http_config=config) as running:
        client = socket.create_connection(running.http, timeout=30)
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert running.post("/v1/logs", b"", tls=client_context(authority))[0] == 200
