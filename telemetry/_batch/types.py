"""
The nouns of `telemetry.batch`: options, what a handler gets, what comes out.

No behaviour beyond checking itself. Options are frozen dataclasses that refuse what cannot work
when they are made, with the fix in the text, so that a run never starts on a mistake.

    BatchError                  the run cannot start: exit code 2
    ├── DuplicateKey            two items have the same key
    ├── JournalInUse            another run holds the journal; the text names its pid
    └── JournalUnusable         the journal cannot be read, or holds results that were not asked for
"""

import datetime as dt
import math
import numbers
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from telemetry import _diagnostics, _values
from telemetry._batch.rate_limit import retry_after
from telemetry._batch.stop_signals import number
from telemetry._context import spending
from telemetry.errors import TelemetryError

SUCCESS: Final = "success"
FAILURE: Final = "failure"
TIMEOUT: Final = "timeout"
CANCELLATION: Final = "cancellation"
SKIP: Final = "skip"
RESUMED: Final = "resumed"
LOOP_BLOCKED: Final = "loop_blocked"
"""The error type of an item that timed out because another one blocked the event loop: not its fault."""
FAILURES: Final = 0.5
"""With a larger share of failed items than this a run is a failure, unless `Limits(failures=)` says."""
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
    if isinstance(getattr(error, "reason", None), (TimeoutError, ConnectionError)):  # urllib
        return True
    if any(kind.__name__ == "ClientConnectionError" for kind in type(error).__mro__):  # aiohttp
        return True
    status = _status(error)
    return status in (408, 429) or 500 <= status < 600


def _status(error: BaseException) -> int:
    """The HTTP status of an error, 0 for none: each library has a place of its own for it."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        response = response.get("ResponseMetadata")
        found = response.get("HTTPStatusCode") if isinstance(response, Mapping) else None
        return found if isinstance(found, int) else 0
    for holder, name in (
        (error, "status_code"),  # openai, anthropic
        (response, "status_code"),  # httpx, requests
        (error, "status"),  # aiohttp
        (error, "code"),  # urllib, google
    ):
        found = getattr(holder, name, None)
        if isinstance(found, int) and not isinstance(found, bool):
            return int(found)
    return 0


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def positive(name: str, value: Any) -> None:
    """Refuse a number of seconds or of things that is not above 0; None is fine."""
    if isinstance(value, dt.timedelta):
        form = f"{name}={value.total_seconds():g}"
        _require(False, f"{name}={value!r} cannot be used; give seconds: {form}")
    _require(
        value is None or (_is_number(value) and 0 < value < math.inf),
        f"{name}={value!r} cannot be used; give a number above 0, or None for no limit",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (numbers.Real, Decimal)) and not isinstance(value, bool)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


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
        _require(_is_whole(self.burst, 1), f"burst={self.burst!r} cannot be used; give 1 or more")


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
        good = _is_whole(self.attempts, 1)
        _require(good, f"attempts={self.attempts!r} cannot be used; give a whole number, 1 or more")
        pair: Any = self.backoff
        good = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_number, pair))
        good = good and 0 <= pair[0] <= pair[1] < math.inf
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
    """What all runs on a journal may spend together, failed attempts included; what runs is finished."""
    run_cost: float | None = None
    """What each run may spend by itself."""
    currency: str = "USD"
    """In which costs are counted; a `telemetry.llm.call` with another one does not count."""
    failures: float | None = None
    """
    Share of the items that may fail (0.1 is 10 %), over all runs on a journal; above it the exit code is 1.

    The run stops there: of all items, or, where their number is not known, of those done once they
    are 50. None stops nothing, and the exit code is 1 when more than half have failed.
    """
    consecutive_failures: int | None = None
    """So many failures in a row are an outage: stop, and resume later."""

    def __post_init__(self) -> None:
        positive("cost", self.cost)
        positive("run_cost", self.run_cost)
        share = self.failures
        good = share is None or (_is_number(share) and 0 <= share <= 1)
        _require(good, f"failures={share!r} cannot be used; give a share between 0 and 1")
        rows = self.consecutive_failures
        good = rows is None or _is_whole(rows, 1)
        _require(good, f"consecutive_failures={rows!r} cannot be used; give a whole number")


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
        good = _is_number(self.grace) and _is_number(self.cleanup)
        good = good and self.grace >= 0 and self.cleanup >= 0
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

    _exact: Decimal = field(init=False, repr=False, compare=False)
    """The amount as a decimal: sums of floats drift, and a limit is kept to the cent."""

    def __post_init__(self) -> None:
        self._exact = Decimal(str(self.amount))

    def add(self, amount: Decimal, tokens_in: int, tokens_out: int) -> None:
        """Spend more."""
        self._exact += amount
        self.amount = float(self._exact)
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out


def _money(given: object) -> Decimal | None:
    """An amount, 0 or more; a text of a number will do."""
    if isinstance(given, str):
        try:
            given = Decimal(given.strip())
        except ArithmeticError:
            return None
    return _values.money(given)


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
        spend: Callable[[Cost, Decimal, int, int], None],
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

    def add_cost(self, amount: object, tokens_in: object = None, tokens_out: object = None) -> None:
        """
        Count what this attempt spent, when it was spent: failed attempts cost too.

        A `telemetry.llm.call` inside the handler counts by itself. Never raises: an amount below 0
        or without a finite value is not counted, with one line on stderr; the same for tokens, each
        by itself.

        Args:
            amount: in the currency of `Limits`; a Decimal, any number, or a text of one.
            tokens_in: tokens sent to models; None for none.
            tokens_out: tokens that models made; None for none.
        """
        try:
            money = _money(amount)
            if money is None:
                text = f"add_cost({_values.text(amount, 100)}) is not counted; give 0 or more"
                _diagnostics.say("add_cost", text, level="error")
            given = {"tokens_in": tokens_in, "tokens_out": tokens_out}
            counts = {name: _values.whole(count) for name, count in given.items()}
            for name, count in given.items():
                if count is not None and counts[name] is None:
                    text = f"add_cost({name}={_values.text(count, 100)}) is not counted"
                    _diagnostics.say("add_cost tokens", f"{text}; give a whole number, 0 or more")
            spent = (money or Decimal(0), counts["tokens_in"] or 0, counts["tokens_out"] or 0)
            self.spend(*spent)
            spending.added(*spent)
        except Exception as error:
            _diagnostics.fault("add_cost", error)

    def spend(self, amount: Decimal, tokens_in: int, tokens_out: int) -> None:
        """Count what was checked already; from any thread."""
        self._spend(self._cost, amount, tokens_in, tokens_out)

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
    """Keys of items that were cancelled, or had no time in a blocked loop; the next run works on them again."""
    unrecorded: tuple[str, ...]
    """Keys of finished items that the journal could not take: the next run works on them again."""
    errors: Mapping[str, Mapping[str, Any]]
    """Error type -> {"count": n, "keys": the first five}."""
    cost: Cost
    """What the run spent, failed and cancelled attempts included."""
    cost_all_runs: Cost = field(default_factory=Cost)
    """What all runs on its journal spent so far, this one included."""
    cost_limit: float | None = None
    """The limit of cost that stopped it."""
    failures_limit: float = FAILURES
    """The share of failed items above which it is a failure."""
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
        if self.stopped_by == "failures":
            return "more failures than Limits(failures=): see to the cause, then resume='failed'"
        if self.stopped_by == "cost":
            spent = max(self.cost_all_runs.amount, self.cost.amount)
            of = "" if self.cost_limit is None else f" of {self.cost_limit:g}"
            return f"{spent:g}{of} is spent: raise the limit to go on with what is left"
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
        if self.result == "failure":
            parts.append(f"limit of failures {100 * self.failures_limit:g} %")
        why = f" (stopped by {self.stopped_by})" if self.stopped_by else ""
        hint = f"; {self.resume_hint}" if self.resume_hint else ""
        return (
            f"{self.name}: {self.result}{why} in {self.duration_s:.1f} s, "
            f"{', '.join(parts) or 'no items'}{hint}"
        )
