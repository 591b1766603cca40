"""`localhost` is this machine, also where nothing resolves it (RFC 6761)."""

import http.client
import http.server
import socket
import threading

import pytest

from collector.http.client import Client
from collector.http.loopback import connect, is_loopback_name
from collector.http.server import is_local, listen


@pytest.fixture
def no_names(monkeypatch):
    """A machine without a resolver and a hosts file: only addresses are known."""
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if isinstance(host, str) and any(letter.isalpha() for letter in host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def port():
    """The port of an HTTP server on 127.0.0.1."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("shop.localhost", True),
        ("localhost.example.org", False),
        ("mylocalhost", False),
        ("127.0.0.1", False),
    ],
)
def test_which_names_are_this_machine(host, expected):
    """`localhost` and what ends in `.localhost`, in any case, with or without the dot at the end."""
    assert is_loopback_name(host) is expected
    assert is_local(f"{host}:4318") is (expected or host == "127.0.0.1")


def test_it_is_bound_without_a_resolver(no_names):
    """An endpoint on localhost listens on 127.0.0.1."""
    with listen("localhost:0") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.anyio
async def test_the_exporters_client_reaches_it_without_a_resolver(no_names, port):
    """A collector that sends to localhost finds it; another name is still unknown."""
    client = Client()
    answer = await client.post(f"http://localhost:{port}/v1/traces", {}, b"")
    assert (answer.status, answer.body) == (200, b"ok")
    with pytest.raises(OSError, match="not known"):
        await client.post(f"http://elsewhere:{port}/v1/traces", {}, b"")
    await client.close()


def test_the_command_line_reaches_it_without_a_resolver(no_names, port):
    """What asks a collector on localhost finds it; another name is still unknown."""
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    connect(connection)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    connection.close()
    with pytest.raises(socket.gaierror):
        connect(http.client.HTTPConnection("elsewhere", port, timeout=10))
