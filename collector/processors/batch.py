"""
The batch processor: small requests travel on together, large ones in parts.

No client is answered before the data is taken downstream: a caller waits for the send that its
request was part of, and gets that result. So holding a request back makes its sender wait, and the
usual "wait for the timeout" would slow every sender down. Instead the first request goes at once;
those that come while it is on its way wait for each other, and go when it is done, when there are
`send_batch_size` items, or after `timeout` at the latest. Idle, nothing waits; under load, batches
grow by themselves.

Spans and metric points have ids of their own and are merged. Log records get theirs from the key
of their request and their place in it, so requests with logs are never merged: a resend could
meet other neighbours, and its records would get other ids and be stored twice. They are only cut.
The exporters' queue batches logs behind the durable log, where the ids are settled.

A merged batch that can never be taken is sent again request by request, so that one sender's bad
data costs no other sender anything.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import msgspec

from collector.errors import Permanent
from collector.model import Batch, Consume, Duration, Host, Request, Signal
from collector.otlp import GROUPS, new_message, points, resources
from collector.processors.shared.record_identity import (
    advanced,
    derived,
)
from collector.processors.shared.work import (
    arrived,
    handed_on,
)

SENDS: Final = 64
"""Merged sends under way at once; more wait for their turn."""


@dataclass(slots=True, eq=False)
class Part:
    """
    A request, or a part of one, that waits to be sent.

    Args:
        batch: what it holds.
        amount: how many items.
        done: gets the result.
    """

    batch: Batch
    amount: int
    done: "asyncio.Future[None]"


class BatchProcessor:
    """Merges and cuts requests; answers when the data is taken."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the batch processor."""

        send_batch_size: int = 8192
        """So many waiting items are sent at once, whatever the timeout. 0: only the timeout
        counts."""
        timeout: Duration = Duration(0.2)
        """How long a request waits for others at most. 0: not at all."""
        send_batch_max_size: int = 0
        """Larger batches are cut. 0: they are not; else at least `send_batch_size`."""
        metadata_keys: list[str] = []
        """Not supported: the metadata of requests is not kept."""
        metadata_cardinality_limit: int = 1000
        """Accepted for compatibility; no effect without `metadata_keys`."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if self.send_batch_size < 0 or self.send_batch_max_size < 0:
                raise ValueError("send_batch_size and send_batch_max_size must not be negative")
            if 0 < self.send_batch_max_size < self.send_batch_size:
                raise ValueError("send_batch_max_size must be greater or equal to send_batch_size")
            if self.timeout < 0:
                raise ValueError("timeout must be greater or equal to 0")
            if self.metadata_keys:
                raise ValueError(
                    "metadata_keys is not supported, because the metadata of requests is not "
                    "kept; remove it"
                )

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.config = config
        self.host = host
        self.next = next
        self._waiting: dict[tuple[Signal, str], list[Part]] = {}
        self._timers: dict[tuple[Signal, str], asyncio.TimerHandle] = {}
        self._busy: dict[tuple[Signal, str], int] = {}
        self._sends: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(SENDS)

    async def __aenter__(self) -> Self:
        """Nothing to start."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what waits, and wait until it is taken."""
        for group in list(self._waiting):
            self._send(group, "timeout")
        while self._sends:
            try:
                await asyncio.wait(set(self._sends))
            except asyncio.CancelledError:  # the stop has a deadline; nothing was acknowledged
                for task in self._sends:
                    task.cancel()
                raise

    async def __call__(self, batch: Batch) -> None:
        """
        Send the batch, alone, in parts or with others, and wait for the result.

        Raises:
            Permanent: it, or a part of it, can never be taken.
            Retryable: it, or a part of it, was not taken.
        """
        amount = arrived(self.host, batch)
        handed_on(self.host, batch.signal, amount)
        most = self.config.send_batch_max_size
        pieces = list(cut(batch, most)) if most and amount > most else [(batch, amount)]
        if batch.signal is Signal.LOGS or self.config.timeout <= 0 or not amount:
            await self._apart(pieces)
            return
        loop = asyncio.get_running_loop()
        group = (batch.signal, batch.request.tenant)
        parts = [Part(piece, size, loop.create_future()) for piece, size in pieces]
        for part in parts:
            self._add(group, part)
        if not self._busy.get(group):
            self._send(group, "")
        results = await asyncio.gather(*(part.done for part in parts), return_exceptions=True)
        raise_worst(results)

    async def _apart(self, pieces: Sequence[tuple[Batch, int]]) -> None:
        """Send pieces one after the other; what failed comes again with the whole request."""
        results: list[BaseException | None] = []
        for piece, amount in pieces:
            try:
                await self._hand_on(piece, amount)
            except Permanent as error:
                results.append(error)
        raise_worst(results)

    async def _hand_on(self, batch: Batch, amount: int) -> None:
        name = "otelcol_processor_batch_batch_send_size"
        self.host.stats.add(f"{name}_sum", amount, processor=self.host.id)
        self.host.stats.add(f"{name}_count", processor=self.host.id)
        await self.next(batch)

    # --- merging ---

    def _add(self, group: tuple[Signal, str], part: Part) -> None:
        waiting = self._waiting.setdefault(group, [])
        most = self.config.send_batch_max_size
        if most and waiting and sum(each.amount for each in waiting) + part.amount > most:
            self._send(group, "size")
            waiting = self._waiting.setdefault(group, [])
        waiting.append(part)
        size = self.config.send_batch_size
        if size and sum(each.amount for each in waiting) >= size:
            self._send(group, "size")
        elif group not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[group] = loop.call_later(self.config.timeout, self._send, group, "timeout")

    def _send(self, group: tuple[Signal, str], why: str) -> None:
        """Send what waits in a task of its own: no caller that goes away takes others with it."""
        timer = self._timers.pop(group, None)
        if timer is not None:
            timer.cancel()
        parts = self._waiting.pop(group, None)
        if not parts:
            return
        if why:
            name = f"otelcol_processor_batch_{'batch_size' if why == 'size' else why}_trigger_send"
            self.host.stats.add(name, processor=self.host.id)
        self._busy[group] = self._busy.get(group, 0) + 1
        task = asyncio.create_task(self._deliver(group, parts))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _deliver(self, group: tuple[Signal, str], parts: list[Part]) -> None:
        try:
            async with self._turn:
                await self._try(parts)
        finally:
            for part in parts:
                if not part.done.done():
                    part.done.cancel()
            self._busy[group] -= 1
            if not self._busy[group]:
                del self._busy[group]
                self._send(group, "")

    async def _try(self, parts: list[Part]) -> None:
        """Send parts as one; when that can never be taken, one by one."""
        batch = parts[0].batch if len(parts) == 1 else merged([part.batch for part in parts])
        try:
            await self._hand_on(batch, sum(part.amount for part in parts))
        except Permanent as error:
            if len(parts) == 1:
                settle(parts, error)
                return
            self.host.stats.add("otelier_processor_batch_resent_apart", processor=self.host.id)
            for part in parts:
                await self._try([part])
        except Exception as error:
            settle(parts, error)
        else:
            settle(parts, None)


def settle(parts: Sequence[Part], error: Exception | None) -> None:
    """Give callers their result, unless they went away."""
    for part in parts:
        if part.done.done():
            continue
        if error is None:
            part.done.set_result(None)
        else:
            part.done.set_exception(error)


def raise_worst(results: Sequence[BaseException | None]) -> None:
    """
    Raise what a caller must know: what can still be taken comes before what cannot.

    Raises:
        Exception: one of the results.
    """
    failures = [result for result in results if result is not None]
    retryable = [failure for failure in failures if not isinstance(failure, Permanent)]
    for failure in retryable or failures:
        raise failure


def merged(batches: Sequence[Batch]) -> Batch:
    """One batch with copies of everything; the batches stay as they are."""
    signal = batches[0].signal
    message = new_message(signal)
    for batch in batches:
        message.MergeFrom(batch.message)
    requests = [batch.request for batch in batches]
    return Batch(signal, message, joined(requests))


def joined(requests: Sequence[Request]) -> Request:
    """Where a merged batch comes from: the earliest arrival, and a key made of all keys."""
    transports = {request.transport for request in requests}
    first = derived(requests[0], *(request.key for request in requests[1:]))
    return replace(
        first,
        received_at_unix_nano=min(request.received_at_unix_nano for request in requests),
        transport=transports.pop() if len(transports) == 1 else "",
    )


def cut(batch: Batch, most: int) -> Iterator[tuple[Batch, int]]:
    """Parts of a batch with at most so many items each; metrics are cut between their points."""
    _, scopes_name, items_name = GROUPS[batch.signal]
    piece = Piece(batch, most)
    for group in resources(batch):
        for scope in getattr(group, scopes_name):
            for item in getattr(scope, items_name):
                total = len(points(item)) if batch.signal is Signal.METRICS else 1
                begin = 0
                while begin < total or not begin:
                    if not piece.room:
                        yield piece.finished()
                        piece = Piece(batch, most, piece.start + most)
                    end = min(total, begin + piece.room)
                    piece.add(group, scope, item, begin, end)
                    if end == total:
                        break
                    begin = end
    if piece.message.ByteSize():
        yield piece.finished()


class Piece:
    """
    A part of a batch while it is filled.

    Args:
        whole: the batch; it stays as it is.
        most: how many items fit.
        start: how many items of the whole stand before it.
    """

    def __init__(self, whole: Batch, most: int, start: int = 0) -> None:
        self.whole = whole
        self.room = self.most = most
        self.start = start
        self.message = new_message(whole.signal)
        self._group: tuple[Any, Any] = (None, None)
        self._scope: tuple[Any, Any] = (None, None)

    def add(self, group: Any, scope: Any, item: Any, begin: int, end: int) -> None:
        """Copy an item, of a metric the points from `begin` to `end`, with what it belongs to."""
        groups_name, scopes_name, items_name = GROUPS[self.whole.signal]
        if self._group[0] is not group:
            made = getattr(self.message, groups_name).add(schema_url=group.schema_url)
            if group.HasField("resource"):
                made.resource.CopyFrom(group.resource)
            self._group = (group, made)
        if self._scope[0] is not scope:
            made = getattr(self._group[1], scopes_name).add(schema_url=scope.schema_url)
            if scope.HasField("scope"):
                made.scope.CopyFrom(scope.scope)
            self._scope = (scope, made)
        copy = getattr(self._scope[1], items_name).add()
        copy.CopyFrom(item)
        if self.whole.signal is not Signal.METRICS:
            self.room -= 1
            return
        self.room -= end - begin
        found = points(copy)
        if found:
            del found[end:]
            del found[:begin]

    def finished(self) -> tuple[Batch, int]:
        """The part, and how many items it holds."""
        request = self.whole.request
        if self.whole.signal is Signal.LOGS:
            request = advanced(request, self.start)
        return Batch(self.whole.signal, self.message, request), self.most - self.room
