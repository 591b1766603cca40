"""
The filter processor: drops what a condition holds for.

Conditions are OTTL (processors/ottl/conditions.py). Those about a resource or scope drop all of it, those about
an event or a data point only that part; a metric goes when its last point went, a span stays when
its events went. All conditions of a batch are asked from the whole to the part, so that nothing is
asked about what is gone already.

A condition that cannot be asked (its pattern is too slow for the text) is handled as `error_mode`
says. Nothing else can fail while conditions run.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec

from collector.errors import Permanent
from collector.model import Batch, Consume, Host, Signal
from collector.otlp import GROUPS, count, points, resources
from collector.processors.ottl.conditions import Condition, parse
from collector.processors.ottl.paths import CONTEXTS, Place
from collector.processors.ottl.regex import TooSlow
from collector.processors.shared.record_identity import (
    Sieve,
    sift,
)
from collector.processors.shared.work import (
    arrived,
    dropped,
    handed_on,
    offload,
)
from collector.stats import QuietLog


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions about one context."""

    context: str = ""
    """What they are about: resource, scope, span, spanevent, metric, datapoint or log."""
    conditions: list[str]
    """Conditions; one that holds is enough."""
    error_mode: Literal["", "ignore", "silent", "propagate"] = ""
    """As `error_mode` of the processor, for these conditions."""


class Traces(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The old form for traces."""

    resource: list[str] = []
    """Conditions about resources."""
    span: list[str] = []
    """Conditions about spans."""
    spanevent: list[str] = []
    """Conditions about events of spans."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The old form for metrics."""

    resource: list[str] = []
    """Conditions about resources."""
    metric: list[str] = []
    """Conditions about metrics."""
    datapoint: list[str] = []
    """Conditions about data points."""


class Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The old form for logs."""

    resource: list[str] = []
    """Conditions about resources."""
    log_record: list[str] = []
    """Conditions about log records."""


Ask = Callable[[Place], bool]


class Filter:
    """Drops items by conditions."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the filter processor."""

        error_mode: Literal["ignore", "silent", "propagate"] = "ignore"
        """When a condition cannot be asked: `ignore` keeps the item, counts and logs; `silent`
        keeps and counts; `propagate` refuses the batch for good."""
        trace_conditions: list[str | Conditions] = []
        """Conditions about spans, their events, scopes and resources."""
        metric_conditions: list[str | Conditions] = []
        """Conditions about metrics, their data points, scopes and resources."""
        log_conditions: list[str | Conditions] = []
        """Conditions about log records, scopes and resources."""
        traces: Traces | None = None
        """The old form: conditions by what they are about."""
        metrics: Metrics | None = None
        """The old form: conditions by what they are about."""
        logs: Logs | None = None
        """The old form: conditions by what they are about."""

    mutates = True

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.host = host
        self.next = next
        self._quiet_log = QuietLog(host.log)
        self._asks: dict[Signal, dict[str, Ask]] = {}
        for signal in Signal:
            made = list(conditions(config, signal))
            self._asks[signal] = {
                context: self._any_of([pair for pair in made if pair[0].context == context])
                for context in CONTEXTS[signal]
                if any(condition.context == context for condition, _ in made)
            }

    @staticmethod
    def check(config: Config) -> list[str]:
        """What the types cannot say: whether conditions can be understood."""
        found = []
        for signal in Signal:
            for name, text, context, _ in written(config, signal):
                try:
                    parsed(text, signal, context)
                except ValueError as error:
                    found.append(f"{name}: cannot use condition {text!r}: {error}")
        return found

    async def __call__(self, batch: Batch) -> None:
        """Drop what is to be dropped and hand on the rest, if there is any."""
        amount = arrived(self.host, batch)
        if self._asks[batch.signal]:
            place = Place()
            try:
                await offload(amount, self.sieve, batch, place)
            finally:
                self.report(place)
            left = count(batch.signal, batch.message)
            dropped(self.host, "filter", amount - left)
            if not left and amount:
                return
            amount = left
        handed_on(self.host, batch.signal, amount)
        await self.next(batch)

    def report(self, place: Place) -> None:
        """Count what happened besides dropping items."""
        dropped(self.host, "filter_span_event", place.counts["span_event"])
        if place.counts["too_slow"]:
            self.host.stats.add(
                "otelier_processor_errors",
                place.counts["too_slow"],
                processor=self.host.id,
                reason="pattern_too_slow",
            )

    def sieve(self, batch: Batch, place: Place) -> None:
        """Take out of the batch everything that a condition holds for."""
        asks = self._asks[batch.signal]
        sieve = Sieve(batch)
        changed = False
        _, scopes_name, items_name = GROUPS[batch.signal]
        item_ask = asks.get(CONTEXTS[batch.signal][-1])
        part_ask = asks.get("spanevent") or asks.get("datapoint")
        for place.group in resources(batch):
            gone = holds(asks.get("resource"), place)
            for scope in getattr(place.group, scopes_name):
                place.scope = scope
                found = getattr(scope, items_name)
                if gone or holds(asks.get("scope"), place):
                    sieve.take_out(scope, [False] * len(found))
                    continue
                kept = []
                for place.item in found:
                    keep = not holds(item_ask, place)
                    if keep and part_ask is not None:
                        trimmed, keep = self.trim(place, part_ask)
                        changed |= trimmed
                    kept.append(keep)
                sieve.take_out(scope, kept)
        sieve.finish()
        if changed:
            batch.changed()

    def trim(self, place: Place, ask: Ask) -> tuple[bool, bool]:
        """Take parts out of an item; whether any went, and whether the item is still wanted."""
        events = hasattr(place.item, "events")
        parts = place.item.events if events else points(place.item)
        kept = []
        for place.part in parts:
            kept.append(not ask(place))
        gone = sift(parts, kept) if kept else 0
        if events:
            place.counts["span_event"] += gone
            return gone > 0, True
        return gone > 0, not kept or gone < len(kept)

    def _any_of(self, made: list[tuple[Condition, str]]) -> Ask:
        def ask(place: Place) -> bool:
            return any(self._holds(condition, mode, place) for condition, mode in made)

        return ask

    def _holds(self, condition: Condition, mode: str, place: Place) -> bool:
        try:
            return condition.test(place)
        except TooSlow:
            text = f'condition "{condition.text}": its pattern needs too long for a text'
        place.counts["too_slow"] += 1
        if mode == "propagate":
            raise Permanent(f'processor "{self.host.id}": {text}')
        if mode == "ignore":
            self._quiet_log.warning("%s; the item is kept", text)
        return False


def holds(ask: Ask | None, place: Place) -> bool:
    """Whether there is a condition and it holds."""
    return ask is not None and ask(place)


FORMS: Final[dict[Signal, tuple[str, str]]] = {
    Signal.TRACES: ("trace_conditions", "traces"),
    Signal.METRICS: ("metric_conditions", "metrics"),
    Signal.LOGS: ("log_conditions", "logs"),
}


def written(config: Any, signal: Signal) -> Iterator[tuple[str, str, str, str]]:
    """Key, text, context and error mode of each condition of a signal."""
    new, old = FORMS[signal]
    for place, given in enumerate(getattr(config, new)):
        if isinstance(given, str):
            yield f"{new}[{place}]", given, "", config.error_mode
            continue
        for text in given.conditions:
            yield f"{new}[{place}]", text, given.context, given.error_mode or config.error_mode
    section = getattr(config, old)
    if section is None:
        return
    for name in section.__struct_fields__:
        for text in getattr(section, name):
            yield f"{old}.{name}", text, name, config.error_mode


def parsed(text: str, signal: Signal, context: str) -> Condition:
    """A condition; unknown contexts are errors."""
    context = {"log_record": "log", "instrumentation_scope": "scope"}.get(context, context)
    if context and context not in CONTEXTS[signal]:
        raise ValueError(
            f'unknown context "{context}"; {signal} has: {", ".join(CONTEXTS[signal])}'
        )
    return parse(text, signal, context)


def conditions(config: Any, signal: Signal) -> Iterator[tuple[Condition, str]]:
    """The conditions of a signal with their error modes."""
    for _, text, context, mode in written(config, signal):
        yield parsed(text, signal, context), mode
