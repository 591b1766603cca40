"""
The nouns of `telemetry.batch`: options, what a handler gets, what comes out.

No behaviour beyond checking itself. Options are frozen dataclasses that refuse what cannot work
when they are made, with the fix in the text, so that a run never starts on a mistake.

    BatchError                  the run cannot start: exit code 2
    ├── DuplicateKey            two items have the same key
    ├── JournalInUse            another run holds the journal; the text names its pid
    └── JournalUnusable         the journal cannot be read, or holds results that were not asked for
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._batch.rate_limit import retry_after
from telemetry._batch.stop_signals import number
from telemetry.errors import TelemetryError

SUCCESS: Final = "success"
FAILURE: Final = "failure"
TIMEOUT: Final = "timeout"
CANCELLATION: Final = "cancellation"
SKIP: Final = "skip"
RESUMED: Final = "resumed"
OUTCOMES: Final = (SUCCESS, FAILURE, TIMEOUT, CANCELLATION, SKIP, RESUMED)
TERMINAL: Final = frozenset((SUCCESS, FAILURE, TIMEOUT, SKIP))
"""Outcomes that end an item; a cancelled one is worked on again by the next run."""


class BatchError(TelemetryError):
    """The run cannot start."""

    exit_code = 2


class DuplicateKey(BatchError):
    """Two items have the same key."""


class JournalInUse(BatchError):
    """Another run holds the journal."""


class JournalUnusable(BatchError):
    """The journal cannot be used as it is."""


class Skip(Exception):
    """Raised by a handler: this item is done without a result, and that is no failure."""


class RetryAfter(Exception):
    """
    Raised by a handler: try again later, and hold all items back until then.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float, message: str = "asked to wait") -> None:
        super().__init__(message)
        self.retry_after = seconds


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: time-outs, connections, HTTP 408, 429 and 5xx, Retry-After."""
    if isinstance(error, (TimeoutError, ConnectionError)) or retry_after(error) is not None:
        return True
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and (status in (408, 429) or 500 <= status < 600)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def positive(name: str, value: float | None) -> None:
    """Refuse a number of seconds or of things that is not above 0; None is fine."""
    good = value is None or (not isinstance(value, bool) and 0 < value < math.inf)
    _require(good, f"{name}={value!r} cannot be used; give a number above 0, or None for no limit")


@dataclass(frozen=True, slots=True)
class Rate:
    """How many items may start, over all workers: `Rate(60, per=60)` is one each second."""

    count: float
    """Starts per `per` seconds."""
    per: float = 1.0
    """Seconds."""
    burst: int = 1
    """How many may start at once after a quiet time."""

    def __post_init__(self) -> None:
        positive("count", self.count)
        positive("per", self.per)
        _require(self.burst >= 1, f"burst={self.burst!r} cannot be used; give 1 or more")


Errors = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an item is tried, and when again."""

    attempts: int = 3
    """Tries in all, the first one included."""
    backoff: tuple[float, float] = (1.0, 60.0)
    """First and longest pause in seconds; it doubles in between, and is drawn from 0 up to that."""
    on: Callable[[BaseException], bool] | Errors = is_transient
    """Which errors are worth another try: a function, or exception types."""

    def __post_init__(self) -> None:
        _require(self.attempts >= 1, f"attempts={self.attempts!r} cannot be used; give 1 or more")
        first, longest = self.backoff
        good = 0 <= first <= longest < math.inf
        _require(good, f"backoff={self.backoff!r} cannot be used; give (first, longest) in seconds")

    def wants(self, error: BaseException) -> bool:
        """Whether another try may help."""
        try:
            if isinstance(self.on, (type, tuple)):
                return isinstance(error, self.on)
            return isinstance(error, Exception) and bool(self.on(error))
        except Exception as failure:
            _diagnostics.say(
                "retry.on", f"Retry(on=...) raised {type(failure).__name__}; not retried"
            )
            return False


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run stops before its end."""

    cost: float | None = None
    """What this run may spend, failed attempts included; what runs is finished."""
    failures: float | None = None
    """Share of all items that may fail (0.1 is 10 %); above it the exit code is 1."""
    consecutive_failures: int | None = None
    """So many failures in a row are an outage: stop, and resume later."""

    def __post_init__(self) -> None:
        positive("cost", self.cost)
        share = self.failures
        good = share is None or 0 <= share <= 1
        _require(good, f"failures={share!r} cannot be used; give a share between 0 and 1")
        positive("consecutive_failures", self.consecutive_failures)


@dataclass(frozen=True, slots=True)
class Stop:
    """How a run ends early."""

    signals: tuple[str, ...] = ("SIGINT", "SIGTERM")
    """Signals that stop: the first drains, the second cancels, the third ends the process."""
    grace: float = 20.0
    """Seconds that running items get after the first signal, before they are cancelled."""
    cleanup: float = 2.0
    """Seconds that a cancelled handler gets to end, before it is left behind."""

    def __post_init__(self) -> None:
        for name in self.signals:
            number(name)
        good = self.grace >= 0 and self.cleanup >= 0
        _require(good, "grace and cleanup are seconds; give 0 or more")


@dataclass(frozen=True, slots=True)
class Logs:
    """Where the three outputs of a run go: folders debug, production and progress."""

    folder: str | Path = "logs"
    """The folder that holds the three."""
    compress: bool = True
    """Compress the files of past days, in the background."""
    keep_days: int | None = None
    """Delete files older than so many days; None keeps them."""

    def __post_init__(self) -> None:
        positive("keep_days", self.keep_days)


@dataclass(slots=True)
class Cost:
    """What was spent."""

    amount: float = 0.0
    """In the currency that the handler counts in."""
    tokens_in: int = 0
    """Tokens sent to models."""
    tokens_out: int = 0
    """Tokens that models made."""

    def add(self, amount: float, tokens_in: int, tokens_out: int) -> None:
        """Spend more."""
        self.amount += amount
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out


class ItemContext:
    """
    What a handler knows about its item, and says about it; one per attempt, safe in threads.

    Args:
        key: of the item.
        attempt: 1 for the first try.
        run_id: of the run, which is also its correlation id.
        cost: of the item.
        spend: adds to the item's cost, and to the run's.
        hold: called with each pause of all items.
    """

    __slots__ = (
        "_cost",
        "_event",
        "_hold",
        "_spend",
        "asked",
        "attempt",
        "key",
        "noticed",
        "run_id",
    )

    def __init__(  # noqa: PLR0917 - keywords would cost time in each call
        self,
        key: str,
        attempt: int,
        run_id: str,
        cost: Cost,
        spend: Callable[[Cost, float, int, int], None],
        hold: Callable[[float], None],
    ) -> None:
        self.key = key
        self.attempt = attempt
        self.run_id = run_id
        self.noticed = False
        self._cost = cost
        self._spend = spend
        self._hold = hold
        self.asked = False  # to end; for the run itself, which is not the handler
        self._event: threading.Event | None = None

    def __repr__(self) -> str:
        return f"<ItemContext key={self.key!r} attempt={self.attempt}>"

    def add_cost(self, amount: float, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """
        Count what this attempt spent, when it was spent: failed attempts cost too.

        Never raises; what is no finite number is said on stderr and not counted.
        """
        try:
            number_ = float(amount)
            if not math.isfinite(number_):
                raise ValueError
            self._spend(self._cost, number_, int(tokens_in), int(tokens_out))
        except Exception:
            _diagnostics.say(
                "add_cost", "add_cost() got something that is no finite number", level="error"
            )

    def cool_down(self, seconds: float) -> None:
        """Hold back all further starts and retries of the run for so long."""
        self._hold(seconds)

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should end: it timed out, or the run stops. For plain functions."""
        self.noticed = self.noticed or self.asked
        return self.asked

    def wait(self, seconds: float) -> bool:
        """Sleep in a plain function; ends early, with True, when the attempt is cancelled."""
        if self._event is None:
            self._event = threading.Event()
        if not self.asked:  # asked after this line, `cancel` finds the event
            self._event.wait(seconds)
        return self.cancelled

    def cancel(self) -> None:
        """Ask the handler to end."""
        self.asked = True
        if self._event is not None:
            self._event.set()


@dataclass(slots=True, kw_only=True)  # not frozen: one is made per item, four times faster
class Outcome:
    """How one item ended; not to be changed."""

    key: str
    """Of the item."""
    outcome: str
    """success, failure, timeout, cancellation, skip or resumed."""
    result: Any = None
    """What the handler returned; of a resumed item, what the journal kept of it."""
    error_type: str | None = None
    """Why it failed, in few distinct values."""
    error: str | None = None
    """The error's text."""
    attempts: int = 0
    """How often it was tried in this run."""
    started: float = 0.0
    """When, in seconds since 1970."""
    duration_s: float = 0.0
    """Over all attempts and the pauses between them."""
    cost: Cost = field(default_factory=Cost)
    """What it cost, failed attempts included."""
    earlier: str | None = None
    """Of a resumed item: the outcome that it had."""
    item: Any = field(default=None, repr=False)
    """The item itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the run ended. Counts and `not_started` together are `total`."""

    name: str
    """Of the batch."""
    run_id: str
    """Of this run; also the correlation id of everything that it logged."""
    attempt: int
    """1 for the first run on this journal."""
    result: str
    """success, partial, failure, timeout, cancellation or budget."""
    stopped_by: str | None
    """signal, stop, deadline, cost, failures, consecutive_failures, journal, source; or nothing."""
    exit_code: int
    """0, 1, 75, 124, or 128 + signal."""
    total: int | None
    """How many items there are, if that is known."""
    counts: Mapping[str, int]
    """Outcome -> items."""
    not_started: int | None
    """Items that were not begun; None when the input's length is unknown."""
    not_started_keys: tuple[str, ...]
    """The first hundred of them, as far as they are known."""
    interrupted: tuple[str, ...]
    """Keys of items that were cancelled; the next run works on them again."""
    unrecorded: tuple[str, ...]
    """Keys of finished items that the journal could not take: the next run works on them again."""
    errors: Mapping[str, Mapping[str, Any]]
    """Error type -> {"count": n, "keys": the first five}."""
    cost: Cost
    """What the run spent, failed and cancelled attempts included."""
    duration_s: float
    """From start to end."""
    item_p50_s: float | None
    """Half of the items took no longer."""
    item_p95_s: float | None
    """95 % of the items took no longer."""
    abandoned: int
    """Handlers that did not end when they were cancelled, and may still be running."""
    outcomes: tuple[Outcome, ...] = field(repr=False)
    """The first items' outcomes, up to `keep_outcomes`."""

    @property
    def resume_hint(self) -> str | None:
        """What to do about items that are left."""
        left = (self.not_started or 0) + len(self.interrupted) + len(self.unrecorded)
        if self.not_started is None:
            return "run the same command again: it goes on with what is left"
        return (
            f"run the same command again: {left} of {self.total} items are left" if left else None
        )

    def __str__(self) -> str:
        parts = [f"{name} {count}" for name, count in self.counts.items() if count]
        if self.not_started:
            parts.append(f"not started {self.not_started}")
        if self.cost.amount:
            parts.append(f"cost {self.cost.amount:.4f}")
        why = f" (stopped by {self.stopped_by})" if self.stopped_by else ""
        hint = f"; {self.resume_hint}" if self.resume_hint else ""
        return (
            f"{self.name}: {self.result}{why} in {self.duration_s:.1f} s, "
            f"{', '.join(parts) or 'no items'}{hint}"
        )
