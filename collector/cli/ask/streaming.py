"""
An answer that never ends, read over HTTP: `collector tail` from a running collector.

The connection is read in a thread, because the client is a blocking one; to stop reading, its
socket is shut down. When it ends (the collector is restarted, the network breaks, nothing was heard
for too long), it is opened again from the last position, until the reader stops. A
record that comes again around that is recognised by its id.
"""

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Final

import click
import msgspec

from collector.query.tail import Line, Lines, Recent

SILENCE_S: Final = 30.0
"""The collector speaks each five seconds; so long without a word, it is gone."""

MAX_LINE: Final = 64 * 1024 * 1024

_FIRST_DELAY_S: Final = 0.2
_LAST_DELAY_S: Final = 5.0

Opened = tuple[socket.socket, http.client.HTTPConnection, http.client.HTTPResponse]
"""The socket on its own, because the connection forgets it when the answer is its last one."""


class RefusedError(click.ClickException):
    """The collector will not answer this, however often it is asked."""


async def lines(opened: Callable[[str], Opened], name: str) -> AsyncGenerator[Lines, None]:
    """
    What `tail` yields, from a collector.

    Args:
        opened: asks, from a position on; blocks.
        name: of the collector, for messages.

    Raises:
        ClickException: before the first answer it cannot be asked, or it refuses.
    """
    recent = Recent()
    position = ""
    delay_s = 0.0
    answered = False
    while True:
        batch: list[Line] = []
        try:
            async for line in _read(opened, position):
                answered, delay_s = True, 0.0
                if not line.position:
                    # Only what has a position behind it is shown: else it comes again.
                    batch.append(line)
                    continue
                position = line.position
                new = [each for each in batch if each.log is None or recent.new(each.log["_id"])]
                batch = []
                yield Lines(new, position)
            reason = "the answer ended"
        except RefusedError:
            raise
        except click.ClickException as error:
            if not answered:
                raise
            reason = error.message
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            reason = str(error) or type(error).__name__
        if not delay_s:
            yield Lines([Line(trouble=f"{name}: {reason}; asking again")], position)
        delay_s = min(max(delay_s * 2, _FIRST_DELAY_S), _LAST_DELAY_S)
        await asyncio.sleep(delay_s)


async def _read(opened: Callable[[str], Opened], position: str) -> AsyncGenerator[Line, None]:
    """The lines of one answer."""
    sock, connection, response = await asyncio.to_thread(opened, position)
    try:
        while body := await asyncio.to_thread(response.readline, MAX_LINE):
            yield msgspec.json.decode(body, type=Line)
    finally:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # a thread may be reading
        response.close()
        connection.close()
