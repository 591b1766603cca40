"""
What both transports do with a body: decompress, decode, count, hand on, and answer.

The transports (`grpc`, `http`) only speak their protocol. Here are the bounds that keep a
burst from becoming an outage: calls at once, bytes in flight, two threads for large bodies (a
body of 20 MiB would stop the event loop for a second), and a longest wait for the pipeline. Over a
bound the answer is `Retryable`: the sender keeps the data. Before anything of a body is decoded,
the pipeline may say that it takes nothing now (`memory_limiter`), and what the decoder is going to
make of the body is charged at its worst.

The pipeline runs in a task of its own. A client that goes away in the middle does not cancel a
write, and stopping waits for it.
"""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collector.errors import (
    CollectorError,
    Malformed,
    NotFound,
    Permanent,
    Retryable,
    TooLarge,
    Unauthenticated,
    Unsupported,
    WrongMethod,
    printable,
)
from collector.model import Batch, Consume, Host, Request, Signal, admit
from collector.otlp import BAD_IDS, NOUNS, TOO_LARGE, Decoded, Encoding, decode, request_key
from collector.receivers.otlp.compression import decompress
from collector.receivers.otlp.limits import Limits
from collector.receivers.otlp.resends import Exchange, Resends, Try
from collector.stats import QuietLog

MESSAGE_FACTOR: Final = 3
"""A decompressed body is charged so many times: itself, its message, what is made for the way out."""
OBJECT_BYTES: Final = 96
"""What one message inside of a request is charged beside its bytes: two bytes can become 83."""
INLINE: Final = 32 << 10
"""Bodies up to this size are decoded on the event loop: a thread costs more than they do."""
THREADS: Final = 2
PATIENCE_S: Final = 60.0
"""How long the pipeline may take before the client is refused for now."""
DELAY_S: Final = 1.0
LONGEST_AGENT: Final = 80
REASONS: Final[dict[type[CollectorError], str]] = {
    Unauthenticated: "unauthenticated",
    Malformed: "malformed",
    TooLarge: "too_large",
    Unsupported: "unsupported",
    NotFound: "not_found",
    WrongMethod: "wrong_method",
    Permanent: "permanent",
    Retryable: "retryable",
}


@dataclass(slots=True)
class Accepted:
    """
    A request that was taken.

    Args:
        rejected: items that were rejected.
        message: why, or a warning; empty when all is well.
        attempt: gets a call when the answer is written.
    """

    rejected: int
    message: str
    attempt: Try


class Admission:
    """
    The common half of the transports.

    Args:
        host: for counters and the log.
        next: the pipelines.
        limits: how much at once, and in one request.
    """

    def __init__(
        self,
        host: Host,
        next: Mapping[Signal, Consume],  # noqa: A002 - the word of the protocol
        limits: Limits,
    ) -> None:
        self.next = next
        self.limits = limits
        self.inside = limits.inside()
        self.stats = host.stats
        self.log = host.log
        self.receiver = host.id
        self._calls = 0
        self.in_flight = 0
        self.lock = threading.Lock()
        """Guards `in_flight`, which decoding threads charge, too."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="otlp-decode")
        self._quiet_log = QuietLog(self.log)
        self.resends = Resends(state_file(host), self._unwritable)

    def _unwritable(self, text: str) -> None:
        self._quiet_log.warning("%s: a kill forgets which answers were heard", text)

    @contextlib.contextmanager
    def charge(self) -> Iterator["MemoryCharge"]:
        """What one request charges to the byte budget; given back at the end."""
        made = MemoryCharge(self)
        try:
            yield made
        finally:
            made.release()

    def admit(self, signal: Signal) -> None:
        """
        Ask before a body is read whether it would be taken at all.

        Raises:
            NotFound: the signal is part of no pipeline.
            Retryable: its pipeline takes nothing now.
        """
        consume = self.next.get(signal)
        if consume is None:
            raise NotFound(f"{signal.value} are part of no pipeline of this collector")
        admit(consume)

    async def take(
        self,
        signal: Signal,
        body: bytes,
        charge: "MemoryCharge",
        *,
        encoding: Encoding,
        transport: str,
        compression: str = "",
        cap: int,
        sender: str = "",
        exchange: Exchange,
    ) -> Accepted:
        """
        Decode a body and give it to the pipeline; returning means that it is taken for good.

        Args:
            signal: what the request is about; it has a pipeline.
            body: as it came.
            charge: of this call.
            encoding: how the decompressed body is written.
            transport: "grpc" or "http".
            compression: the content encoding, empty for none.
            cap: the most bytes that the body may have when it is decompressed.
            sender: who sent it, for the log.
            exchange: how it came, and how its answer goes.

        Raises:
            Permanent: it can never be taken.
            Retryable: the sender must keep it.
        """
        now = time.time_ns()
        attempts: list[Try] = []

        def work() -> Decoded:
            plain = decompress(compression, body, cap) if compression else body
            if len(plain) > cap:
                raise TooLarge(f"the body is larger than {cap} bytes")
            charge.add(MESSAGE_FACTOR * len(plain))
            attempt = self.resends.begin(request_key("", signal, plain), exchange)
            attempts.append(attempt)
            request = Request(received_at_unix_nano=now, key=attempt.key, transport=transport)
            return decode(
                signal,
                plain,
                encoding=encoding,
                request=request,
                limits=self.inside,
                weigh=charge.weigh,
            )

        with self._slot(), failing(attempts):
            if len(body) <= INLINE and not compression:
                decoded = guarded(work)
            else:
                loop = asyncio.get_running_loop()
                decoded = await loop.run_in_executor(self._threads, guarded, work)
            self._count(decoded, signal, transport, sender)
            if decoded.accepted:
                await self._hand_on(decoded.batch, decoded.accepted, transport)
        return Accepted(decoded.rejected, decoded.message, attempts[0])

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """One request in work. A client that left may still have its batch in the pipeline."""
        most = self.limits.max_requests
        if self._calls >= most or len(self._tasks) >= most:
            raise Retryable(f"{most} requests are in work already", DELAY_S)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def _count(self, decoded: Decoded, signal: Signal, transport: str, sender: str) -> None:
        """Count what decoding left out or changed."""
        for text, amount in decoded.reasons.items():
            reason = "ids" if text == BAD_IDS else "undecodable"
            reason = "too_large" if text.startswith(TOO_LARGE) else reason
            self.stats.add(
                "otelier_receiver_rejected_items", amount, receiver=self.receiver, reason=reason
            )
            self._quiet_log.warning(
                "%s are rejected (%s); the latest from %s: %d, %s",
                NOUNS[signal].replace("_", " "),
                reason,
                sender or transport,
                amount,
                printable(text),
                subject=f"items {reason}",
            )
        for kind, amount in decoded.repaired.items():
            if amount:
                self.stats.add(
                    "otelier_receiver_repaired", amount, receiver=self.receiver, kind=kind
                )
        if decoded.rejected:
            self._items("refused", decoded.rejected, signal, transport)

    def _items(self, verb: str, amount: int, signal: Signal, transport: str) -> None:
        """Count items under the name that the OpenTelemetry Collector gives them."""
        name = f"otelcol_receiver_{verb}_{NOUNS[signal]}"
        self.stats.add(name, amount, receiver=self.receiver, transport=transport)

    async def _hand_on(self, batch: Batch, amount: int, transport: str) -> None:
        """Give a batch to its pipeline and wait for the answer, not for ever."""
        task = asyncio.create_task(self._consume(batch, amount, transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_seen)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        if not done:
            raise Retryable(f"the pipeline took longer than {PATIENCE_S:g} s", DELAY_S)
        if task.cancelled():
            raise Retryable("the pipeline was stopped", DELAY_S)
        error = task.exception()
        if error is None:
            return
        if isinstance(error, Permanent | Retryable):
            raise error
        # Anything else is our fault and not the data's: the sender must keep it.
        self._quiet_log.error("The pipeline failed; the client must try again", error=error)
        raise Retryable("the pipeline failed; see the log of the collector", DELAY_S) from error

    async def _consume(self, batch: Batch, amount: int, transport: str) -> None:
        """Call the pipeline and count, also when the sender waits no more."""
        signal = batch.signal
        try:
            await self.next[signal](batch)
        except BaseException:
            self._items("refused", amount, signal, transport)
            raise
        self._items("accepted", amount, signal, transport)

    def refused(self, transport: str, reason: str, sender: str, text: str) -> None:
        """
        Count a request that was refused as a whole, and say so once a minute and reason.

        Args:
            transport: "grpc" or "http".
            reason: the word under which it is counted.
            sender: who sent it.
            text: what the sender was answered.
        """
        self._quiet_log.warning(
            "Requests are refused (%s); the latest over %s from %s: %s",
            reason,
            transport,
            sender,
            printable(text),
            subject=reason,
        )
        self.stats.add(
            "otelier_receiver_refused_requests",
            receiver=self.receiver,
            transport=transport,
            reason=reason,
        )

    async def drain(self, timeout_s: float) -> None:
        """Wait for the pipelines to finish what they were given."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.resends.close()


class MemoryCharge:
    """
    What one request has charged to the byte budget.

    Args:
        intake: whose budget.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._amount = 0
        self._weighed = 0
        self._released = False

    def add(self, amount: int) -> None:
        """
        Charge more; called from threads, too.

        Raises:
            Retryable: the budget is used up, or the client has left.
        """
        with self._admission.lock:
            if self._released:
                raise Retryable("the client has left", DELAY_S)
            budget = self._admission.limits.max_in_flight_size
            if self._amount + amount > budget:
                # Alone it would never fit: coming again is of no use.
                raise TooLarge(
                    f"the request needs more than {budget} bytes in memory; send smaller batches"
                )
            if self._admission.in_flight + amount > budget:
                raise Retryable(f"{budget >> 20} MiB of requests are in work already", DELAY_S)
            self._admission.in_flight += amount
            self._amount += amount

    def weigh(self, objects: int) -> None:
        """
        Charge what decoding is going to make; only the largest of several counts.

        Raises:
            Retryable, TooLarge: as `add`.
        """
        amount = objects * OBJECT_BYTES
        if amount > self._weighed:
            self.add(amount - self._weighed)
            self._weighed = amount

    def release(self) -> None:
        """Give everything back."""
        with self._admission.lock:
            self._admission.in_flight -= self._amount
            self._amount = 0
            self._released = True


@contextlib.contextmanager
def failing(attempts: list[Try]) -> Iterator[None]:
    """The request comes again when the block raises."""
    try:
        yield
    except BaseException:
        for attempt in attempts:
            attempt.fail()
        raise


def _seen(task: "asyncio.Task[Any]") -> None:
    """Look at the outcome of a task that nothing waits for any more, so that asyncio is content."""
    if not task.cancelled():
        task.exception()


def guarded(work: Callable[[], Decoded]) -> Decoded:
    """Run the decoder; a bug of ours in there is answered as bad input, never as a crash."""
    try:
        return work()
    except CollectorError:
        raise
    except MemoryError as error:
        raise Retryable("no memory to decode the body", DELAY_S) from error
    except Exception as error:
        # OTLP: bytes that cannot be decoded are final. Retrying them for ever would block the sender.
        raise Undecodable(type(error).__name__) from error


def reason_of(error: CollectorError) -> str:
    """The word under which a rejection is counted."""
    return next(
        (word for kind, word in REASONS.items() if isinstance(error, kind)), type(error).__name__
    )


def state_file(host: Host) -> Path | None:
    """Where to remember answers: beside the durable queue, else beside a store that is a file."""
    for part in (*host.extensions.values(), *host.stores.values()):
        folder = getattr(part, "state_folder", None)
        if folder is not None:
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", host.id)
            return Path(folder) / f"answers-{name}"
    return None


def sender_of(address: str, agent: str) -> str:
    """A sender for the log: its address, and the program that it says it is."""
    shown = printable(agent[:LONGEST_AGENT])
    return f"{address} ({shown})" if shown else address


class Undecodable(Permanent):
    """The decoder failed in a way that it should not."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the body cannot be decoded ({kind})")
