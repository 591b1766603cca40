"""ASGI without a server, a server without a wrapper, and raw HTTP: how the tests ask for things."""

import asyncio
import contextlib
import dataclasses
import socket
import threading

import uvicorn


@dataclasses.dataclass
class Answer:
    """What an application sent, and what it raised."""

    status: int | None = None
    headers: list = dataclasses.field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None

    def __getitem__(self, name):
        (value,) = [value for key, value in self.headers if key == name.encode()]
        return value.decode()


async def ask(app, target="/", *, method="GET", headers=(), body=b"", **extra):
    """Send one request to an ASGI application."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"test"), *((k.encode(), v.encode()) for k, v in headers)],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        **extra,
    }
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    answer = Answer()

    async def receive():
        return incoming.pop() if incoming else await asyncio.Event().wait()

    async def send(message):
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(bytes(k), bytes(v)) for k, v in message["headers"]]
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except BaseException as error:
        answer.error = error
    return answer


def get(app, target="/", **how):
    """One request in an event loop of its own."""
    return asyncio.run(ask(app, target, **how))


@contextlib.contextmanager
def serving(app, **config):
    """A uvicorn in a thread on a free port; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, http="httptools", ws="none", **config)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def raw(port, data):
    """Send bytes, and return all bytes that come back until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(30)
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    return received


def parse(received):
    """Status, headers and body of one HTTP/1.1 answer."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), [tuple(line.split(": ", 1)) for line in lines], body


def http_get(port, target="/", headers=()):
    lines = [f"GET {target} HTTP/1.1", "Host: t", "Connection: close"]
    lines += [f"{key}: {value}" for key, value in headers]
    return parse(raw(port, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")))
