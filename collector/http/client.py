"""
A small HTTP/1.1 client on asyncio: POST a body, read a bounded answer, keep the connection.

Why not a client library: an exporter needs four things that are hard to get from one. The whole
exchange can be cancelled (one deadline over a server that drips a byte a second), an answer is read
up to a limit and never further, no redirect leads to another host, and nothing but what the
configuration says (no proxy from the environment, no `.netrc`) decides where data goes. The parser
is httptools, the one behind our receiver.

A connection that was kept may be closed by the server at the moment it is used again. When that
happens before a byte of the answer has come, the request is sent once more on a new connection;
OTLP allows the repeat, and receivers of ours recognise it.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httptools

from collector.http.loopback import open_connection

LARGEST_ANSWER: Final = 64 << 10
"""Bytes of an answer's head, and of its body, that are read (B23)."""
READ: Final = 16 << 10
REDIRECTS: Final = 3
REDIRECT: Final = frozenset({307, 308})
"""The redirects that keep method and body."""


class BrokenAnswer(OSError):
    """The other side does not speak HTTP, or ended in the middle of an answer."""


@dataclass(slots=True)
class Answer:
    """
    What a server said.

    Args:
        status: of HTTP.
        headers: with names in lower case; of a repeated header the last one.
        body: at most `LARGEST_ANSWER` bytes of it.
        cut: whether there was more.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False

    @property
    def json(self) -> bool:
        """Whether the body says that it is JSON."""
        kind = self.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower() == "application/json"


class _Reading:
    """Collects one answer from the callbacks of httptools."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.head = False
        self.begun = False
        self.complete = False
        self.keep = False
        self.size = 0
        self.framed = False
        """Whether the answer says how long it is; otherwise it ends with the connection."""
        self._parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        if self.complete:  # there was no second request
            raise BrokenAnswer("the server sent more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        self.answer.headers[key] = value.decode("latin-1").strip()
        self.framed |= key in ("content-length", "transfer-encoding")

    def on_headers_complete(self) -> None:
        self.answer.status = self.parser.get_status_code()
        self.head = True
        self.framed |= self.answer.status in (204, 304)

    def on_body(self, data: bytes) -> None:
        self._parts.append(data[: max(0, LARGEST_ANSWER - self.size)])
        self.size += len(data)

    def on_message_complete(self) -> None:
        if self.answer.status < 200:  # 100 Continue and the like: the answer comes behind it
            self.answer, self.head, self.framed = Answer(), False, False
            return
        self.complete = True
        self.keep = self.parser.should_keep_alive()

    def finished(self) -> Answer:
        """The answer, with its body."""
        self.answer.body = b"".join(self._parts)
        self.answer.cut = self.size > LARGEST_ANSWER
        return self.answer


class _Connection:
    """A connection, in use or idle."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.idle_since = 0.0
        self._watching: asyncio.Task[bytes] | None = None

    def abort(self) -> None:
        """Close it, whatever is under way."""
        self.writer.transport.abort()

    def rest(self) -> None:
        """Nothing is expected now: whatever comes (an end, "408 you are idle") makes it unusable."""
        self.idle_since = time.monotonic()
        self._watching = asyncio.create_task(self.reader.read(1))
        self._watching.add_done_callback(self._stirred)

    def _stirred(self, watching: "asyncio.Task[bytes]") -> None:
        if not watching.cancelled():
            watching.exception()
            self.abort()

    async def wake(self) -> bool:
        """Use it again; whether that is possible."""
        watching, self._watching = self._watching, None
        if watching is None or watching.done():
            return False
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return not self.writer.is_closing() and not self.reader.at_eof()


class Client:
    """
    Sends requests to any number of hosts.

    Args:
        tls: for `https://`.
        server_name: the name that a certificate must have; empty for the host's own.
        keep: how many idle connections to keep; 0 closes each behind its answer.
        idle_s: how long one may be idle, 0 for ever.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        *,
        keep: int = 100,
        idle_s: float = 90.0,
    ) -> None:
        self._tls = tls
        self._server_name = server_name
        self._keep = keep
        self._idle_s = idle_s
        self._idle: dict[tuple[str, str], list[_Connection]] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """
        Send a body and read the answer; redirects within the same host are followed.

        Raises:
            OSError: it cannot be sent, or there is no answer.
        """
        for _ in range(REDIRECTS):
            answer = await self._exchange(urlsplit(url), headers, body)
            target = answer.headers.get("location", "")
            if answer.status not in REDIRECT or not same_origin(url, target):
                return answer
            url = absolute(url, target)
        return answer

    async def close(self) -> None:
        """Close the connections that are idle."""
        idle = [each for kept in self._idle.values() for each in kept]
        self._idle.clear()
        for each in idle:
            await each.wake()
            await self._end(each)

    async def _exchange(self, url: SplitResult, headers: Mapping[str, str], body: bytes) -> Answer:
        key = (url.scheme, url.netloc)
        data = head(url, headers, len(body), keep=self._keep > 0) + body
        kept = await self._kept(key)
        while True:
            connection = kept or await self._open(url)
            reading = _Reading()
            done = False
            try:
                await self._talk(connection, data, reading)
                done = True
            except OSError:
                if kept is None or reading.begun:
                    raise
                kept = None
                continue  # it was closed while it was idle
            finally:
                sent = not connection.writer.transport.get_write_buffer_size()
                if done and sent and reading.complete and reading.keep:
                    self._put_back(key, connection)
                else:
                    connection.abort()
            return reading.finished()

    @staticmethod
    async def _talk(connection: _Connection, data: bytes, reading: _Reading) -> None:
        """Write a request and read its answer. A server may answer before it has read all of it."""
        connection.writer.write(data)
        draining = asyncio.ensure_future(connection.writer.drain())
        try:
            read = 0
            while not reading.complete and reading.size <= LARGEST_ANSWER:
                part = await connection.reader.read(READ)
                if not part:
                    if reading.head and not reading.framed:
                        return
                    raise BrokenAnswer("the connection was closed before the answer was complete")
                reading.begun = True
                read += len(part)
                try:
                    reading.parser.feed_data(part)
                except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                    raise BrokenAnswer(f"the answer is no HTTP: {error}") from error
                if not reading.head and read > LARGEST_ANSWER:
                    raise BrokenAnswer("the head of the answer is too large")
        finally:
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await draining

    async def _open(self, url: SplitResult) -> _Connection:
        tls = None
        name: str | None = None
        if url.scheme == "https":
            tls = self._tls or ssl.create_default_context()
            name = self._server_name or url.hostname
        port = url.port or (443 if tls else 80)
        reader, writer = await open_connection(url.hostname or "localhost", port, tls, name)
        return _Connection(reader, writer)

    async def _kept(self, key: tuple[str, str]) -> _Connection | None:
        kept = self._idle.get(key, [])
        while kept:
            connection = kept.pop()
            idle_s = time.monotonic() - connection.idle_since
            if await connection.wake() and (not self._idle_s or idle_s < self._idle_s):
                return connection
            connection.abort()
        return None

    def _put_back(self, key: tuple[str, str], connection: _Connection) -> None:
        kept = self._idle.setdefault(key, [])
        if len(kept) >= self._keep:
            connection.abort()
            return
        connection.rest()
        kept.append(connection)

    @staticmethod
    async def _end(connection: _Connection) -> None:
        connection.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await connection.writer.wait_closed()


def head(url: SplitResult, headers: Mapping[str, str], size: int, *, keep: bool) -> bytes:
    """The head of a POST; headers of the configuration win over ours."""
    path = url.path or "/"
    if url.query:
        path += f"?{url.query}"
    netloc = url.netloc.rpartition("@")[2]
    lines = {"host": netloc, "connection": "keep-alive" if keep else "close"}
    lines |= {name.lower(): value for name, value in headers.items()}
    lines["content-length"] = str(size)
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def same_origin(url: str, target: str) -> bool:
    """Whether a `Location` stays at the same scheme, host and port."""
    if not target:
        return False
    try:
        here, there = urlsplit(url), urlsplit(absolute(url, target))
    except ValueError:
        return False
    return (here.scheme, here.netloc) == (there.scheme, there.netloc)


def absolute(url: str, target: str) -> str:
    """A `Location` as a whole URL; only paths and whole URLs are understood."""
    if target.startswith("/") and not target.startswith("//"):
        here = urlsplit(url)
        return f"{here.scheme}://{here.netloc}{target}"
    return target
