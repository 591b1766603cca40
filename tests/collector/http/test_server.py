"""The ports of the collector's own apps: sockets, deadlines, heads, and offers of other protocols."""

import asyncio
import contextlib
import json
import socket

import pytest

from collector.errors import StartFailed
from collector.http.server import is_local, serving


class Echo:
    """Answers with the length of the body, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-it", b"1")]})
        await send({"type": "http.response.body", "body": b"%d" % len(body)})


async def talk(address, data):
    """Everything that the server says until it closes."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def statuses(answer):
    return [line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@pytest.mark.anyio
@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
async def test_b41_the_body_of_an_upgrade_is_no_second_request(offer):
    """B41: a request that offers another protocol is one request; its body is not read as the next."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = (
        b"POST /open HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: %d\r\n\r\n%b"
        % (offer, len(hidden), hidden)
    )
    app = Echo()
    async with serving(app, "127.0.0.1:0") as address:
        answer = await talk(address, request + hidden)
    assert statuses(answer) == [b"200"]
    assert app.asked == [("POST", "/open", hidden)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"\x16\x03\x01\x02\x00", b"400", "this is no HTTP request"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * 70_000),
            b"431",
            "the head has more than 200 headers or 65536 bytes",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 300 + b"\r\n",
            b"431",
            "the head has more than 200 headers or 65536 bytes",
        ),
    ],
)
async def test_b74_what_is_no_request_is_answered_as_json(data, status, text):
    """B74: heads that are too large and what is no HTTP get a reason, and never reach the app."""
    app = Echo()
    async with serving(app, "127.0.0.1:0") as address:
        answer = await talk(address, data)
    assert statuses(answer) == [status]
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": text}
    assert app.asked == []


@pytest.mark.anyio
async def test_b75_idle_connections_do_not_keep_others_out():
    """B75: with every place taken by an idle connection, a request is served all the same."""
    app = Echo()
    async with serving(app, "127.0.0.1:0", connections=8) as address:
        host, _, port = address.rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            request = b"GET /%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            for number in range(3):
                assert statuses(await talk(address, request % number)) == [b"200"]
    assert [path for _, path, _ in app.asked] == ["/0", "/1", "/2"]


@pytest.mark.anyio
async def test_a_socket_in_the_file_system(tmp_path, monkeypatch):
    """`unix:///path` is served, and its file is gone at the end."""
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    app = Echo()
    async with serving(app, "unix://echo.sock") as address:
        assert address == "unix://echo.sock"
        reader, writer = await asyncio.open_unix_connection("echo.sock")
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert statuses(await asyncio.wait_for(reader.read(), 30)) == [b"200"]
        writer.close()
        with pytest.raises(StartFailed, match="another process listens there"):
            await serving(app, "unix://echo.sock").__aenter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("unix:///run/x.sock", True),
        (":1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.1:1", False),
        ("localhost.example:1", False),
        ("collector:1", False),
    ],
)
def test_b68_which_endpoints_others_can_reach(endpoint, local):
    """B68: loopback addresses and sockets in the file system are local, everything else is not."""
    assert is_local(endpoint) is local
