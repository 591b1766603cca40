"""
The MongoDB client with our settings, and the threads that call it.

The driver blocks, so its calls run in a few threads of their own, never traced, until the store
closes. How documents are read and confirmed stands here once, for every collection.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from opentelemetry.instrumentation.utils import suppress_instrumentation
from pymongo.write_concern import WriteConcern

from collector.errors import Retryable

T = TypeVar("T")

CODEC: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
DURABLE: Final = WriteConcern(w="majority", j=True)


def client_of(uri: str, timeout_s: float, pool: int) -> "pymongo.MongoClient[dict[str, Any]]":
    """
    A client with our settings, which connects when it is used; what the URI sets stays.

    Args:
        uri: of the servers.
        timeout_s: of an insert; connecting must not take longer.
        pool: connections at most.
    """
    ours = {
        "connectTimeoutMS": min(5000, int(timeout_s * 1000)),
        "maxPoolSize": pool,
        "appname": "otelier-collector",
    }
    given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2])}
    with suppress_instrumentation():
        return pymongo.MongoClient(
            str(uri),
            connect=False,
            tz_aware=True,
            uuidRepresentation="standard",
            **{name: value for name, value in ours.items() if name.lower() not in given},  # type: ignore[arg-type] # the driver types its options one by one
        )


def servers(uri: str) -> str:
    """The hosts of a valid connection string, without anything else of it."""
    authority = uri.partition("://")[2].partition("/")[0].partition("?")[0]
    return authority.rpartition("@")[2]


def squeezed_badly(uri: str) -> str:
    """
    What is wrong with the compression that a connection string asks for; empty when nothing is.

    MongoDB servers without the fix of CVE-2025-14847 give away memory through zlib; the driver offers
    it only when it is named.
    """
    for name, value in parse_qsl(uri.partition("?")[2]):
        if name.lower() == "compressors" and "zlib" in value.lower().replace(" ", "").split(","):
            return (
                "the `uri` asks for zlib, through which servers without the fix of CVE-2025-14847 "
                "give away memory: use compressors=zstd (pip install zstandard) or none"
            )
    return ""


class Calls:
    """
    Some threads.

    Args:
        name: of the threads.
        threads: how many.
        closed: the error of a call that comes too late.
    """

    def __init__(self, name: str, threads: int, closed: str) -> None:
        self.closing = False
        """Whether calls are refused by now."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._closed = closed

    async def all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Run calls at once; when one fails, its error, after all have ended."""
        if self.closing:
            raise Retryable(self._closed)
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._run, call) for call in calls),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value] # no exception is left in it

    async def one(self, call: Callable[[], T]) -> T:
        """Run one call."""
        (found,) = await self.all([call])
        return found

    async def stop(self) -> None:
        """Let running calls end (each has its deadline), fail those that wait."""
        self.closing = True
        await asyncio.to_thread(self._pool.shutdown)

    def abandon(self, last: Callable[[], None]) -> None:
        """Fail what waits and wait for nothing; `last` runs behind the running call."""
        self.closing = True
        with contextlib.suppress(RuntimeError):  # stopped: then the client ends it
            self._pool.submit(last)
        self._pool.shutdown(wait=False)

    def _run(self, call: Callable[[], T]) -> T:
        if self.closing:
            raise Retryable(self._closed)
        with suppress_instrumentation():
            return call()
