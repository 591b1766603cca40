"""One request at a time from a connection: pipelined ones wait unparsed until it is answered (B73)."""

import asyncio
import gc
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from collector.http.server import serving

pytestmark = pytest.mark.anyio


class App:
    """Answers with the path and the body; waits while it is told to."""

    def __init__(self):
        self.seen = []
        self.free = asyncio.Event()

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen.append(scope["path"])
        await self.free.wait()
        answer = f"{scope['path']} {body.decode('latin-1')!r};".encode()
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def read_answers(reader, amount):
    found = []
    for _ in range(amount):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(re.search(rb"content-length: (\d+)", head)[1])
        found.append((await reader.readexactly(size)).decode())
    return found


def living():
    return sum(isinstance(each, RequestResponseCycle) for each in gc.get_objects())


async def test_what_is_behind_an_unanswered_request_is_not_parsed():
    """Thousands in one packet make one request; all are answered, in order, when answers are read."""
    app = App()
    amount = 3000
    async with serving(app, "localhost:0") as address:
        before = living()
        reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
        sent = b"".join(
            b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % each for each in range(amount)
        )
        writer.write(sent)
        while not app.seen:  # noqa: ASYNC110 - the app has no event for it
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert (app.seen, living() - before) == (["/0"], 1)
        app.free.set()
        assert await read_answers(reader, amount) == [f"/{each} '';" for each in range(amount)]
        writer.close()


LENGTH = st.binary(max_size=40).map(
    lambda body: (b"Content-Length: %d\r\n\r\n" % len(body) + body, body)
)
CHUNKED = st.lists(
    st.sampled_from([b"a", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
).map(
    lambda parts: (
        b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        + b"0\r\n\r\n",
        b"".join(parts),
    )
)
NOTHING = st.just((b"\r\n", b""))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(LENGTH | CHUNKED | NOTHING, min_size=1, max_size=6),
    st.lists(st.integers(1, 90), max_size=12),
)
def test_however_the_bytes_are_cut(requests, cuts):
    """Bodies of any kind, with ends of requests inside, in packets of any size: the answers are right."""
    sent = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: localhost\r\n" % number + rest
        for number, (rest, _) in enumerate(requests)
    )
    expected = [
        f"/{number} {body.decode('latin-1')!r};" for number, (_, body) in enumerate(requests)
    ]

    async def exchange():
        app = App()
        app.free.set()
        async with serving(app, "localhost:0") as address:
            reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
            left = sent
            for cut in cuts:
                writer.write(left[:cut])
                left = left[cut:]
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(left)
            found = await asyncio.wait_for(read_answers(reader, len(requests)), 30)
            writer.close()
            return found

    assert asyncio.run(exchange()) == expected
