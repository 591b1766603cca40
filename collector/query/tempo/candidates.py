"""
Spans and whole traces from a store, newest first, within bounds of number, memory and time.

A `Reader` serves one question. `candidates` walks the scans of a plan page by page and merges them;
pages shrink when documents are large, and only spans that pass a scan's test are kept. `whole`
reads the traces of candidates a few at a time. What a question may take is counted here: when a
bound is hit, reading ends and `partial` says why, and the question answers with what there is.
Work on pages runs in threads of its own, so that the event loop and the stores stay free.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from collector.model import Signal
from collector.query.traceql.plan import Scan
from collector.query.traceql.view import Document, Span, Trace, traces
from collector.stores.base import Query, Store, dumps

PAGE_BYTES: Final = 8 * 1024 * 1024
"""Memory of one page, estimated from the one before."""
TRACES_BYTES: Final = 32 * 1024 * 1024
"""Memory of the traces that are evaluated at once."""
FIRST_PAGE, LARGEST_PAGE = 50, 1000
FEW_TRACES: Final = 20
"""Traces that are read at once."""

T = TypeVar("T")

_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="traceql")
_ALONE: Final = Trace(())
"""Stands for the trace of a span that is looked at alone."""


@dataclass(slots=True, frozen=True)
class Bounds:
    """
    What one question may take.

    Args:
        spans: that are looked at.
        traces: whose spans are looked at.
        spans_per_trace: those behind them are not looked at.
        seconds: after which reading ends.
    """

    spans: int = 1_000_000
    traces: int = 100_000
    spans_per_trace: int = 20_000
    seconds: float = 20.0


def weight(value: Any) -> int:
    """Roughly the memory of a document in bytes: five times its JSON, as measured on spans."""
    return 500 + 5 * len(dumps(value))


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """
    Run work of a question in a thread of the questions' own.

    The event loop's threads serve what writes to stores, which no question may keep waiting.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work, *arguments)


class _Source:
    """One scan, read from its newest span to its oldest."""

    def __init__(self, scan: Scan, since: int, until: int) -> None:
        known = scan.conditions
        self.test = scan.test
        self.query = Query(
            signal=Signal.TRACES,
            service=known.service,
            status=known.status,
            names=known.names,
            roots=known.roots,
            min_duration_ms=known.min_duration_ms,
            trace_ids=known.trace_ids,
            context=dict(known.context),
            since_unix_nano=since,
            until_unix_nano=until,
            newest_first=True,
        )
        self.buffer: list[Span] = []  # newest last
        self.after: tuple[int, str] | None = None
        self.page = FIRST_PAGE
        self.done = False

    @property
    def front(self) -> int:
        """Nothing that is still to come starts later than this."""
        if self.buffer:
            return self.buffer[-1].start
        return -1 if self.done else (self.after[0] if self.after else 2**64)

    def take(self, found: Sequence[Document], asked: int) -> None:
        """Keep the spans of a page that pass the test, where it ended and how much it weighed."""
        spans = (Span(document, _ALONE) for document in found)
        self.buffer = [span for span in spans if self.test(span)]
        self.buffer.reverse()
        self.done = len(found) < asked
        if found:
            last = found[-1]
            self.after = (last["start_unix_nano"], last["_id"])
            heaviest = max(map(weight, found))
            self.page = max(1, min(LARGEST_PAGE, 4 * self.page, PAGE_BYTES // heaviest))


class Reader:
    """
    Reads for one question.

    Args:
        store: where the spans are.
        bounds: of the question.
    """

    def __init__(self, store: Store, bounds: Bounds | None = None) -> None:
        self._store = store
        self._bounds = bounds or Bounds()
        self._until = time.monotonic() + self._bounds.seconds
        self.spans = 0
        """Spans looked at so far."""
        self.traces = 0
        """Traces looked at so far."""
        self.partial = ""
        """Why there may be more than was read; empty while all was read."""

    async def candidates(
        self, scans: Sequence[Scan], since: int, until: int
    ) -> AsyncGenerator[tuple[list[Span], int], None]:
        """
        Spans that pass one of the scans, newest first, each once.

        Args:
            scans: of a plan.
            since: earliest start, nanoseconds since the epoch.
            until: the start must lie before this.

        Yields:
            Some spans, maybe none, and a time: no later step has a span that starts behind it.
        """
        sources = [_Source(scan, since, until) for scan in scans]
        while any(not source.done or source.buffer for source in sources):
            for source in sources:
                if not source.buffer and not source.done:
                    if self._exhausted():
                        return
                    await self._turn(source)
            found = _merged(sources)
            yield found, max(source.front for source in sources)

    async def _turn(self, source: _Source) -> None:
        """The next page of a scan."""
        asked = min(source.page, self._bounds.spans - self.spans)
        found = await self._find(source.query, asked, source.after)
        self.spans += len(found)
        await in_thread(source.take, found, asked)

    async def whole(self, ids: Iterable[str], use: Callable[[Trace], None]) -> None:
        """
        Read traces with all their spans.

        Args:
            ids: of the traces.
            use: is called for each of them, in a thread.
        """
        waiting = list(ids)
        few = FEW_TRACES
        while waiting and not self._exhausted():
            some, waiting = waiting[:few], waiting[few:]
            documents, fits = await self._spans_of(some)
            if not fits and len(some) > 1:
                waiting, few = some + waiting, max(1, len(some) // 4)
                continue
            if not fits:
                self.partial = f"trace {some[0]} has more spans than are looked at"
            self.traces += len(some)
            await in_thread(_each, documents, use, self._until)
            few = min(FEW_TRACES, few * 2)
        self._exhausted()

    async def _spans_of(self, ids: Sequence[str]) -> tuple[list[Document], bool]:
        """The spans of some traces, and whether these are all of them."""
        query = Query(signal=Signal.TRACES, trace_ids=tuple(ids))
        found: list[Document] = []
        after: tuple[int, str] | None = None
        total, page = 0, FIRST_PAGE * 4
        most = self._bounds.spans_per_trace
        while True:
            asked = min(page, most - len(found))
            documents = await self._find(query, asked, after)
            found += documents
            self.spans += len(documents)
            if len(documents) < asked:
                return found, True
            sizes = await in_thread(_weights, documents)
            total += sum(sizes)
            if total > TRACES_BYTES or len(found) >= most:
                return found, False
            after = (documents[-1]["start_unix_nano"], documents[-1]["_id"])
            page = max(1, min(LARGEST_PAGE, PAGE_BYTES // max(sizes)))

    async def _find(
        self, query: Query, limit: int, after: tuple[int, str] | None
    ) -> list[Document]:
        fields = {name: getattr(query, name) for name in query.__struct_fields__}
        if after is not None:
            # Said as a time too: an index then begins where the page before has ended.
            if query.newest_first:
                fields["until_unix_nano"] = after[0] + 1
            else:
                fields["since_unix_nano"] = after[0]
        return await self._store.find(Query(**{**fields, "limit": limit, "after": after}))

    def _exhausted(self) -> bool:
        bounds = self._bounds
        for reached, what in (
            (self.spans >= bounds.spans, f"{bounds.spans} spans were looked at"),
            (self.traces >= bounds.traces, f"{bounds.traces} traces were looked at"),
            (time.monotonic() > self._until, f"{bounds.seconds:g} seconds were over"),
        ):
            if reached:
                self.partial = self.partial or f"{what}; narrow the query or the time"
        return bool(self.partial) and not self.partial.startswith("trace ")


def _merged(sources: Sequence[_Source]) -> list[Span]:
    """The newest spans, as far as it is known that none comes between them; each once."""
    if len(sources) == 1:
        found, sources[0].buffer = sources[0].buffer[::-1], []
        return found
    found = []
    while all(source.buffer or source.done for source in sources):
        ready = [source for source in sources if source.buffer]
        if not ready:
            break
        newest = max(_position(source.buffer[-1]) for source in ready)
        same = [s.buffer.pop() for s in ready if _position(s.buffer[-1]) == newest]
        found.append(same[0])
    return found


def _weights(documents: list[Document]) -> list[int]:
    return [*map(weight, documents)]


def _position(span: Span) -> tuple[int, str]:
    return span.start, span.document["_id"]


def _each(documents: list[Document], use: Callable[[Trace], None], until: float) -> None:
    for trace in traces(documents):
        if time.monotonic() > until:
            return  # the reader says so when it is asked to go on
        use(trace)
