"""
The request that runs, as the SDK's processors see it: its server span, and what becomes of its records.

The server span belongs to other code (FastAPI, contrib's instrumentation), may start before or
after our middleware runs, and ends when its owner says so. The span processor of
`_sdk` reports it to the request when it starts.

Whether the records of a request are kept can depend on how it ends: a polling route is sampled,
but its errors and slow requests are not. Such a request is `HELD`: its spans and log records wait
here, at most `LIMIT` of them, until the end is known. Records of a silent route (health checks) go
nowhere. All others pass without a stop.
"""

import random
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind

if TYPE_CHECKING:  # only named here; `_sdk` is what works with the SDK
    from opentelemetry.sdk.trace import ReadableSpan, Span

LIMIT: Final = 512
"""A request with more records than this is kept: it is no poll."""

PASS, HELD, QUIET, SILENT = range(4)
"""What becomes of a record: delivered, waits, dropped unless it is an error, dropped."""

MARK: Final = "_otelier_request"
"""Where a span keeps its request, if that does not just let it pass."""


class Request:
    """
    One running request.

    Args:
        gate: PASS, HELD or SILENT.
        rate: of a held request: how many of its kind to keep, 0 to 1.
        entry: its server span, where that has started already.
    """

    __slots__ = ("_held", "_lock", "_rate", "entry", "error_type", "gate", "recorded")

    def __init__(self, gate: int = PASS, rate: float = 1.0, entry: Any = None) -> None:
        self.gate = gate
        self.entry = entry
        self.recorded = False
        """Whether an exception of this request has been recorded in full."""
        self.error_type: str | None = None
        self._rate = rate
        self._held: list[tuple[Callable[[Any], None], Any]] = []
        self._lock = threading.Lock()
        if entry is not None and gate != PASS:
            setattr(entry, MARK, self)

    def started(self, span: "Span") -> None:
        """Notice a span of this request."""
        if self.gate != PASS:
            setattr(span, MARK, self)
        if self.entry is None and span.kind is SpanKind.SERVER:
            self.entry = span

    def takes(self, give: Callable[[Any], None], record: object, *, important: bool) -> bool:
        """
        Whether the record is dealt with here; else the caller delivers it.

        Args:
            give: delivers the record, later.
            record: a span or a log record.
            important: an error; it saves its request.
        """
        if self.gate == SILENT:
            return True
        if self.gate == QUIET:
            return not important
        with self._lock:
            if self.gate == HELD and not important and len(self._held) < LIMIT:
                self._held.append((give, record))
                return True
        self.keep()
        return False

    def keep(self) -> None:
        """Deliver what waits, and all that follows."""
        with self._lock:
            if self.gate in (HELD, QUIET):
                self.gate = PASS
            held, self._held = self._held, []
        for give, record in held:
            give(record)

    def settle(self, *, keep: bool) -> bool:
        """Decide at the end of a held request; whether its records are kept."""
        if self.gate == HELD:
            if keep or self._chosen():
                self.keep()
            else:
                with self._lock:
                    self.gate = QUIET
                    self._held.clear()
        return self.gate == PASS

    def _chosen(self) -> bool:
        """By the trace id, so that services with the same rate choose the same traces."""
        if self.entry is None:
            return random.random() < self._rate
        trace_id: int = self.entry.get_span_context().trace_id
        return trace_id & (2**64 - 1) < round(self._rate * 2**64)


current: ContextVar[Request | None] = ContextVar("otelier_running_request", default=None)


def of_live(span: "ReadableSpan") -> Request | None:
    """The request that a span belongs to, if its records do not just pass; of the span, not a copy."""
    request: Request | None = span.__dict__.get(MARK)
    return request if request is not None and request.gate != PASS else None


def of_record() -> Request | None:
    """The request that runs, if its records do not just pass."""
    request = current.get()
    return request if request is not None and request.gate != PASS else None
