"""
What calls of language models add up to: per run, and for the process since it began.

One row per tenant, provider and model. A call is added once to the process and once to each run
that it happens in, so that runs inside runs sum upward and no sum counts twice; failed attempts
count too, because they are paid for. Money is summed as decimals, per currency: sums of floats
drift, and currencies do not add. Tables are bounded: a thousand tenants times models, and what
comes after shares one row.
"""

import os
import re
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from telemetry import _diagnostics, _values
from telemetry import attributes as names

ROWS: Final = 1000
CURRENCIES: Final = 8
OTHER: Final = "_OTHER"
Key = tuple[str, str, str]
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(slots=True)
class Usage:
    """What one call used; None where nothing was reported."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cache_created: int | None = None
    reasoning: int | None = None
    cost: Decimal | None = None
    currency: str = "USD"
    source: str = ""

    def count(self, **given: object) -> None:
        """Take counts of tokens, by the fields above; None changes nothing."""
        for kind, count in given.items():
            whole = _values.whole(count)
            if whole is not None:
                setattr(self, kind, whole)
            elif count is not None:
                text = f"tokens({kind}=...) takes a whole number, 0 or more; it was left out"
                _diagnostics.say("tokens", text)

    def pay(self, amount: object, currency: object, source: object) -> None:
        """Take the cost, if amount and currency are such."""
        money, code = _values.money(amount), _values.text(currency, 16)
        if money is None or not _CURRENCY.fullmatch(code):
            text = "cost() takes an amount, 0 or more, and a currency such as USD; it was left out"
            _diagnostics.say("cost", text)
            return
        self.cost, self.currency, self.source = money, code, _values.text(source, 64)

    def attributes(self) -> dict[str, Any]:
        """What the call's span says about it."""
        facts: dict[str, Any] = {
            names.GEN_AI_USAGE_INPUT_TOKENS: self.input,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: self.output,
            names.GEN_AI_USAGE_CACHE_READ: self.cached,
            names.GEN_AI_USAGE_CACHE_CREATION: self.cache_created,
            names.GEN_AI_USAGE_REASONING: self.reasoning,
        }
        if self.cost is not None:
            facts[names.GEN_AI_USAGE_COST] = float(self.cost)
            facts[names.GEN_AI_USAGE_COST_CURRENCY] = self.currency
            facts[names.GEN_AI_USAGE_COST_SOURCE] = self.source
        return facts


@dataclass(slots=True)
class Row:
    """The sums of one tenant, provider and model."""

    calls: int = 0
    failures: int = 0
    fallbacks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    cost: dict[str, Decimal] = field(default_factory=dict)

    def add(self, usage: Usage, seconds: float, *, failed: bool, fallback: bool) -> None:
        """Add one call."""
        self.calls += 1
        self.failures += failed
        self.fallbacks += fallback
        self.input_tokens += usage.input or 0
        self.output_tokens += usage.output or 0
        self.cached_tokens += usage.cached or 0
        self.reasoning_tokens += usage.reasoning or 0
        self.seconds += seconds
        if usage.cost is not None:
            currency = usage.currency
            if currency not in self.cost and len(self.cost) >= CURRENCIES:
                currency = "XXX"
            self.cost[currency] = self.cost.get(currency, Decimal(0)) + usage.cost


class Table:
    """Rows by tenant, provider and model."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_key: dict[Key, Row] = {}

    def add(self, key: Key, usage: Usage, seconds: float, *, failed: bool, fallback: bool) -> None:
        """Add one call."""
        with self._lock:
            if key not in self._by_key and len(self._by_key) >= ROWS:
                key = (OTHER, OTHER, OTHER)
            row = self._by_key.get(key)
            if row is None:
                row = self._by_key[key] = Row()
            row.add(usage, seconds, failed=failed, fallback=fallback)

    def rows(self) -> list[dict[str, Any]]:
        """The rows, in the order in which they began; amounts of money as floats."""
        with self._lock:
            return [
                {
                    "tenant_id": tenant,
                    "provider": provider,
                    "model": model,
                    "calls": row.calls,
                    "failures": row.failures,
                    "fallbacks": row.fallbacks,
                    "input_tokens": row.input_tokens,
                    "output_tokens": row.output_tokens,
                    "cached_tokens": row.cached_tokens,
                    "reasoning_tokens": row.reasoning_tokens,
                    "seconds": round(row.seconds, 6),
                    "cost": {currency: float(amount) for currency, amount in row.cost.items()},
                }
                for (tenant, provider, model), row in self._by_key.items()
            ]


def add(key: Key, usage: Usage, seconds: float, *, failed: bool, fallback: bool) -> None:
    """Add one call to the process and to the runs that it happens in."""
    for table in (process(), *runs.get()):
        table.add(key, usage, seconds, failed=failed, fallback=fallback)


def process() -> Table:
    """The table of this process."""
    global _process  # noqa: PLW0603 - one process has one table; a child begins with an empty one
    if _process[0] != os.getpid():
        _process = (os.getpid(), Table())
    return _process[1]


runs: ContextVar[tuple[Table, ...]] = ContextVar("otelier_llm_runs", default=())
"""The tables of the runs that the code is in, from the outermost."""
_process = (os.getpid(), Table())
