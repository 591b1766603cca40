"""bearertokenauth: its settings, its file, and a collector whose receiver asks it."""

import http.client
import logging
import signal

import pytest

from collector.errors import StartFailed
from collector.extensions.bearertokenauth import BearerTokenAuth
from collector.model import Host, Secret
from collector.stats import Stats
from tests.programs import Collector

TOKEN = "a-token-with-more-than-thirty-two-characters"
OTHER = "b-token-with-more-than-thirty-two-characters"

CONFIG = """
extensions:
  bearertokenauth:
    filename: {file}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0, auth: {{authenticator: bearertokenauth}}}}
      http: {{endpoint: 127.0.0.1:0, auth: {{authenticator: bearertokenauth}}}}
exporters:
  file: {{path: stored.jsonl}}
service:
  extensions: [bearertokenauth]
  pipelines:
    logs: {{receivers: [otlp], exporters: [file]}}
"""


def extension(**settings):
    host = Host("bearertokenauth", Stats(), logging.getLogger("test.bearertokenauth"))
    return BearerTokenAuth(BearerTokenAuth.Config(**settings), host)


def bearer(token):
    return [f"Bearer {token}".encode()]


@pytest.mark.anyio
async def test_one_token():
    """The token is taken once, with its scheme in any case; nothing else is."""
    async with extension(token=Secret(TOKEN)) as auth:
        assert auth.header == "authorization"
        assert auth.authenticate(bearer(TOKEN))
        assert auth.authenticate([f"BEARER {TOKEN}".encode()])
        for values in ([], [b""], bearer(OTHER), bearer(TOKEN) * 2, [TOKEN.encode()]):
            assert not auth.authenticate(values)


@pytest.mark.anyio
async def test_another_header_and_no_scheme():
    """`header` names another header, and an empty `scheme` means that the value is the token."""
    async with extension(token=Secret(TOKEN), header="X-Api-Key", scheme="") as auth:
        assert auth.header == "x-api-key"
        assert auth.authenticate([TOKEN.encode()])
        assert not auth.authenticate(bearer(TOKEN))


@pytest.mark.anyio
async def test_short_tokens_are_warned_about(caplog):
    """A token that could be guessed gives a warning that does not show it."""
    async with extension(tokens=(Secret("secret"), Secret(TOKEN))):
        pass
    assert "fewer than 32 characters" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.anyio
async def test_a_file_that_cannot_be_used_ends_the_start(tmp_path):
    """A missing and an empty file are StartFailed."""
    file = tmp_path / "tokens"
    with pytest.raises(StartFailed, match=r"^filename: no token in "):
        await extension(filename=str(file)).__aenter__()
    file.write_text("\n \n")
    with pytest.raises(StartFailed, match="the file is empty"):
        await extension(filename=str(file)).__aenter__()


def test_settings_that_do_not_fit_are_named():
    """Exactly one source of tokens, and no empty ones."""
    config = BearerTokenAuth.Config
    assert config(token=Secret("a")).check() == []
    assert config().check() == [
        "no bearer token provided; set `token`, `tokens` or `filename`",
    ]
    assert config(token=Secret("a"), filename="b").check() == [
        "either `token` or `filename` must be specified, not both"
    ]
    assert config(tokens=(Secret(" "),), header=" ").check() == [
        "`tokens` must not contain an empty token",
        "`header` must not be empty",
    ]
    assert TOKEN not in repr(config(token=Secret(TOKEN), tokens=(Secret(TOKEN),)))


def post(address, token):
    """The status of an empty request."""
    host, port = address.split(":")
    client = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    client.request("POST", "/v1/logs", b"{}", headers)
    status = client.getresponse().status
    client.close()
    return status


@pytest.mark.e2e
def test_b69_a_collector_with_a_token_file(tmp_path):
    """B69: a real collector takes the tokens of a file, and others as soon as the file has changed."""
    file, config = tmp_path / "tokens", tmp_path / "config.yaml"
    file.write_text(f"{TOKEN}\n{OTHER}\n")
    config.write_text(CONFIG.format(file=file))
    with Collector(tmp_path, sets=(), config=config) as collector:
        collector.wait_for("Everything is ready")
        address = collector.address("otlp", "http")
        assert [post(address, token) for token in (None, TOKEN, OTHER, "c")] == [401, 200, 200, 401]
        fresh = tmp_path / "fresh"
        fresh.write_text(f"{OTHER}\n")
        fresh.rename(file)
        while post(address, TOKEN) != 401:  # bounded by the test's own timeout
            pass
        assert post(address, OTHER) == 200
        assert collector.stop() == 0
    assert TOKEN not in collector.text


@pytest.mark.e2e
def test_an_extension_that_is_not_started_is_named(tmp_path):
    """A receiver whose authenticator is configured but not in service::extensions does not start."""
    config = tmp_path / "config.yaml"
    (tmp_path / "tokens").write_text(TOKEN)
    text = CONFIG.format(file=tmp_path / "tokens").replace("  extensions: [bearertokenauth]\n", "")
    config.write_text(text)
    with Collector(tmp_path, sets=(), config=config) as collector:
        assert collector.finish() == 1
    assert '"bearertokenauth" is no extension that runs; add it to service::extensions' in (
        collector.text
    )


@pytest.mark.e2e
def test_a_reload_exchanges_the_tokens(tmp_path):
    """Another token in the configuration counts after a reload, on the sockets that are open."""
    config = tmp_path / "config.yaml"
    text = CONFIG.replace("filename: {file}", "token: {token}")
    config.write_text(text.format(token=TOKEN))
    with Collector(tmp_path, sets=(), config=config) as collector:
        collector.wait_for("Everything is ready")
        address = collector.address("otlp", "http")
        assert [post(address, token) for token in (TOKEN, OTHER)] == [200, 401]
        config.write_text(text.format(token=OTHER))
        collector.process.send_signal(signal.SIGHUP)
        while post(address, OTHER) != 200:  # bounded by the test's own timeout
            pass
        assert post(address, TOKEN) == 401
        assert collector.stop() == 0
    assert TOKEN not in collector.text
    assert OTHER not in collector.text
