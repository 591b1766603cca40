"""
uvicorn's HTTP/1.1 connection, with the deadlines and limits that belong below ASGI.

uvicorn waits for ever for the head of a request, keeps as many headers as are sent, and closes at
once after an early answer, so that the client's kernel throws the answer away. It also stops
reading a request that offers another protocol behind its head, and takes the body for the next
request. Here the head has a deadline and a size, the rest of a body that was answered already is
read and dropped for a moment, an offer to upgrade is ignored and its body read (but for WebSockets,
where the port has them), and the number of connections is bounded: one more costs the one that has been idle longest its place. All ports of
the collector are served by this; what the parser refuses, each may answer in its own words.
"""

import asyncio
import json
import logging
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT: Final = 64 << 10
HEADERS_LIMIT: Final = 200
CONNECTIONS: Final = 1_000
READ_SIZE: Final = 64 << 10
"""Bytes that are taken from a socket at once, and so wait unparsed at most, for each connection."""
EMPTY_LINE: Final = b"\r\n\r\n"
LINGER_S: Final = 2.0
"""How long a body may still arrive that has been answered already."""
# In no hierarchy on purpose: uvicorn writes a line for each bad request.
SILENT: Final = logging.Logger("collector.http.server", logging.CRITICAL + 1)  # noqa: LOG001 - above
PHRASES: Final = {
    400: b"Bad Request",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


class HeadTooLarge(Exception):
    """More header bytes, or more headers, than any sender needs."""


class Connection(HttpToolsProtocol):
    """One connection; a server may set other bounds on those that it makes."""

    head_timeout_s: float = 10.0
    most: int = CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = SILENT
        self.access_log = False
        self.reading_head = True
        self.ended = False
        self.head_bytes = 0
        self.header_bytes = 0
        self.refused = False
        self.close_after = False
        self.body_left: int | None = None
        self.becomes_websocket = False
        self.quiet_since = 0.0
        self.deadline: asyncio.TimerHandle | None = None
        self.refusal = (400, "this is no HTTP request")
        self.unparsed = b""
        self.parsed = 0
        self.tail = b""
        """The last three bytes that were parsed: an empty line may begin in them."""
        self.body_to_come: int | None = None
        self.held = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        """Start the clock of the first head; when there are too many, one has to go."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            transport.max_size = READ_SIZE
        self.quiet_since = self.loop.time()
        if len(self.connections) > self.most and not self.make_room():
            self.refusal = (503, f"{self.most} connections are open already")
            self.send_400_response("")
            return
        self.start_clock(self.head_timeout_s)

    def make_room(self) -> bool:
        """Close the connection that has been without a request for longest; whether there was one."""
        quiet = [
            one
            for one in self.connections
            if isinstance(one, Connection) and one is not self and one.is_quiet()
        ]
        if not quiet:
            return False
        oldest = min(quiet, key=lambda one: one.quiet_since)
        # Not only closed: a client that does not read would keep its place.
        oldest.transport.abort()
        self.connections.discard(oldest)
        return True

    def is_quiet(self) -> bool:
        """Whether no request is being read or answered here."""
        return self.reading_head and (self.cycle is None or self.cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        self.stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; they are parsed as far as one request at a time goes."""
        self.unparsed = self.unparsed[self.parsed :] + data
        self.parsed = 0
        self.parse()

    def parse(self) -> None:
        """
        Feed the parser up to the end of a request, and no further until that is answered.

        Each request that is parsed takes some KiB, and a client that never reads an answer can send
        thousands in one packet; what is not parsed is not read from the socket either.
        """
        while self.parsed < len(self.unparsed) and not self.refused:
            if self.transport.is_closing():
                return
            if self.body_left is None and self.is_answering():
                self.held = True
                self.flow.pause_reading()
                return
            self.feed(self.piece())
        self.unparsed, self.parsed = b"", 0
        if self.held and not self.refused:
            self.held = False
            self.flow.resume_reading()

    def is_answering(self) -> bool:
        """Whether a request is complete and its answer is not out."""
        return self.reading_head and self.cycle is not None and not self.cycle.response_complete

    def piece(self) -> bytes:
        """
        The next bytes for the parser; a request that ends in them ends where they do.

        A body of a known length ends with it. Heads and chunked bodies end in an empty line; one
        inside of a body makes the piece shorter, and nothing else.
        """
        start = self.parsed
        if self.body_left is not None:
            stop = len(self.unparsed)
        elif not self.reading_head and self.body_to_come:
            stop = min(len(self.unparsed), start + self.body_to_come)
            self.body_to_come -= stop - start
        else:
            seen = self.tail + self.unparsed[start:]
            found = seen.find(EMPTY_LINE)
            stop = len(self.unparsed) if found < 0 else start + found + 4 - len(self.tail)
        made = self.unparsed[start:stop]
        self.parsed = stop
        self.tail = (self.tail + made)[-3:]
        return made

    def feed(self, data: bytes) -> None:
        """Feed the parser; a head may not be endless."""
        if self.reading_head and self.deadline is None:
            self.start_clock(self.head_timeout_s)
        if self.body_left is not None:
            self.body_by_hand(data)
            return
        self.ended = False
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :] + self.unparsed[self.parsed :]
            self.parsed = len(self.unparsed)
            if self.becomes_websocket:
                self.handle_websocket_upgrade()
                return
            self.ignore_upgrade(rest)
            return
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        # What ended a request in here is no head; bytes behind it are counted when more come.
        if self.reading_head and not self.ended and not self.refused:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_LIMIT:
                self.refuse_head()
                self.send_400_response("")

    def refuse_head(self) -> None:
        """Say why the head is not taken."""
        self.refusal = (
            431,
            f"the head has more than {HEADERS_LIMIT} headers or {HEAD_LIMIT} bytes",
        )

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.head_bytes = self.header_bytes = 0
        self.start_clock(self.head_timeout_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bound what is kept of the head."""
        super().on_header(name, value)
        self.header_bytes += len(name) + len(value)
        if self.header_bytes > HEAD_LIMIT or len(self.headers) > HEADERS_LIMIT:
            self.refuse_head()
            raise HeadTooLarge

    def on_headers_complete(self) -> None:
        """The head is here: stop its clock. The app has a clock for the body."""
        self.stop_clock()
        self.reading_head = False
        super().on_headers_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            self.becomes_websocket = True  # uvicorn has made no request of it
            return
        lengths = [value for name, value in self.headers if name == b"content-length"]
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self.body_to_come = None if chunked else int(lengths[0]) if lengths else 0
        # uvicorn would close right after the answer, also when the body is still coming; we close
        # when both are done.
        self.close_after = not self.cycle.keep_alive
        self.cycle.keep_alive = True

    def on_message_complete(self) -> None:
        """The whole request is here, unless the parser says so because of an upgrade."""
        if self.parser.should_upgrade() and self.body_left is None:
            return
        super().on_message_complete()
        self.stop_clock()
        self.reading_head = self.ended = True
        if self.cycle.response_complete:
            self.end_of_request()

    def on_response_complete(self) -> None:
        """Answered; a body that is still coming gets a moment to end, so that the answer is read."""
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self.reading_head:
            self.end_of_request()
        else:
            self.start_clock(LINGER_S)

    def end_of_request(self) -> None:
        """Request and answer are complete: close, or wait for the next one."""
        if self.close_after:
            self.transport.close()
        else:
            self.quiet_since = self.loop.time()
            self.start_clock(self.timeout_keep_alive)
            if self.unparsed:
                self.loop.call_soon(self.parse)

    def ignore_upgrade(self, rest: bytes) -> None:
        """
        Serve a request that offers another protocol (`Upgrade: h2c`, as Java clients do) as it is.

        The parser ends such a request behind its head and would make it an empty one, which is a
        success that loses data. Its body is read here instead, and then the connection closes.
        """
        self.close_after = True
        values = [value for name, value in self.headers if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            self.refusal = (400, "an Upgrade with a chunked body is not supported")
            self.send_400_response("")
            return
        self.body_left = int(values[0]) if values else 0
        self.body_by_hand(rest)

    def body_by_hand(self, data: bytes) -> None:
        """Body bytes that come past the parser; what is behind the body is dropped."""
        left = self.body_left or 0
        if self.reading_head:
            return
        if data[:left]:
            self.on_body(data[:left])
        self.body_left = max(0, left - len(data))
        if not self.body_left:
            self.on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Answer what the parser or a limit refuses, and close."""
        self.refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        code, text = self.refusal
        body = self.refusal_body(code, text)
        head = [
            b"HTTP/1.1 %d %b" % (code, PHRASES[code]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        if code == 503:
            head.append(b"retry-after: 1")
        self.transport.write(b"\r\n".join([*head, b"", body]))
        if not self.transport.can_write_eof():  # TLS says good-bye when it closes
            self.transport.close()
            return
        self.transport.write_eof()
        self.start_clock(LINGER_S)

    def refusal_body(self, code: int, text: str) -> bytes:  # noqa: ARG002 - for those who override
        """What is answered to something that is no request, as JSON."""
        return json.dumps({"error": text}).encode()

    def start_clock(self, seconds: float) -> None:
        """Close the connection after so many seconds, unless something happens."""
        self.stop_clock()
        self.deadline = self.loop.call_later(seconds, self.transport.close)

    def stop_clock(self) -> None:
        """Forget the deadline."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
