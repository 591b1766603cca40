"""
Sends what a connector has summed up, every so often and once more at the end.

A message that the next pipeline does not take now is kept and comes again first, with the same
bytes and the same identity; nothing newer is made before it has gone, so sums that are differences
lose nothing and memory stays bounded: the series go on counting meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from collector.errors import Permanent
from collector.model import Batch, Consume, Host, Request, Signal
from collector.otlp import count, new_message, request_key
from collector.stats import QuietLog

Make = Callable[[int], Iterator[tuple[str, Any]]]
"""The messages of all tenants as of now, in nanoseconds: (tenant, ExportMetricsServiceRequest)."""


class Flushing:
    """
    The periodic half of a connector.

    Args:
        host: of the connector.
        next: the pipelines behind it, by signal.
        interval_s: how often.
        make: makes the messages.
        now: nanoseconds since the epoch.
    """

    def __init__(
        self,
        host: Host,
        next: Mapping[Signal, Consume],  # noqa: A002 - the word of the protocol
        interval_s: float,
        make: Make,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._host = host
        self._next = next
        self._interval_s = interval_s
        self._make = make
        self._now = now
        self._unsent: list[tuple[Request, bytes]] = []
        self._running: asyncio.Task[None] | None = None
        self._report = QuietLog(host.log).warning

    def start(self) -> None:
        """Begin to flush."""
        self._running = asyncio.create_task(self._forever())

    async def stop(self) -> None:
        """Flush for the last time."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        await self.flush()
        if self._unsent:  # a pending message kept the last values from being made
            self._host.stats.add("otelier_connector_unsent_messages", connector=self._host.id)

    async def flush(self) -> None:
        """Send everything there is, as far as the next pipeline takes it."""
        if not self._unsent or await self._send():
            self._fill()
        await self._send()

    def _fill(self) -> None:
        now = self._now()
        for tenant, message in self._make(now):
            wire = message.SerializeToString()
            key = request_key(tenant, Signal.METRICS, self._host.id.encode() + wire)
            self._unsent.append((Request(now, key, tenant, "connector"), wire))

    async def _send(self) -> bool:
        """Send what waits; whether all of it went."""
        while self._unsent:
            request, wire = self._unsent[0]
            message = new_message(Signal.METRICS)
            message.ParseFromString(wire)  # each attempt has its own: processors may change it
            points = count(Signal.METRICS, message)
            try:
                await self._next[Signal.METRICS](Batch(Signal.METRICS, message, request, wire))
            except Permanent as error:
                self._host.stats.add(
                    "otelier_connector_dropped_points", points, connector=self._host.id
                )
                self._report("its metrics are rejected: %s", error)
            except Exception as error:
                self._report("its metrics cannot be handed on now: %s", error)
                return False
            self._unsent.pop(0)
        return True

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.flush()
            except Exception:
                self._host.log.exception("making metrics failed in a way that it should not")
