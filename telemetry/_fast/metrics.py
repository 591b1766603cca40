"""
The fast path of a measurement whose attributes repeat.

The SDK cleans, copies, sorts and hashes the attributes of every measurement, and walks from the
instrument to its aggregations each time. Requests, tasks and orders come by the thousand with a
handful of attribute sets. So for each set the cleaned copy and the aggregations that it leads to are
remembered, and a measurement goes straight there. Sums, buckets, exemplars, temporality and limits
stay the SDK's, in the SDK's own objects (tests/telemetry/fast/test_metrics.py compares). Whatever is
unusual goes the SDK path: views that drop attributes, other aggregations, other reservoirs, values
that are no measurement.
"""

import math
import random
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
from opentelemetry.sdk.metrics._internal.aggregation import (
    _ExplicitBucketHistogramAggregation,
    _SumAggregation,
)
from opentelemetry.sdk.metrics._internal.exemplar import (
    AlignedHistogramBucketExemplarReservoir,
    SimpleFixedSizeExemplarReservoir,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics._internal.instrument import _Counter, _Histogram, _UpDownCounter
from opentelemetry.sdk.metrics._internal.measurement import Measurement
from opentelemetry.trace import Span
from opentelemetry.util.types import Attributes

from telemetry._attribute_loops import PLAIN, needs_no_cleaning
from telemetry._otel_context import SPAN_KEY, current_context
from telemetry._sdk.instruments import Take

_WHOLE: Final = 1 << 53
KEPT: Final = 256
"""Attribute sets that an instrument remembers; more than that are no labels but a mistake."""
_LONG: Final = 8
"""A set of more attributes is not remembered either."""


def install(providers: Any) -> bool:
    """
    Take measurements of this process's reader on the fast path, from the next one on.

    Args:
        providers: of the process.
    """
    providers.meters.quicken = quicken
    return True


def quicken(instrument: Any, slow: Take) -> Take:
    """
    A shorter way into an SDK instrument, or `slow` where there is none.

    Args:
        instrument: of the SDK.
        slow: takes any measurement for it.
    """
    kind = type(instrument)
    if kind is _Histogram:
        return Measure(instrument, slow, 0.0)
    if kind is _Counter:
        return Measure(instrument, slow, 0.0)
    if kind is _UpDownCounter:
        return Measure(instrument, slow, -math.inf)
    return slow


class Measure:
    """
    Takes the measurements of one instrument.

    Args:
        instrument: of the SDK.
        slow: takes what is unusual.
        least: the smallest amount that is one.
    """

    __slots__ = (
        "__weakref__",
        "_consumer",
        "_filter",
        "_instrument",
        "_least",
        "_remembered",
        "_slow",
    )

    def __init__(self, instrument: Any, slow: Take, least: float) -> None:
        self._instrument = instrument
        self._slow = slow
        self._least = least
        self._consumer = instrument._measurement_consumer  # noqa: SLF001 - see above
        self._filter: Any = self._consumer._sdk_config.exemplar_filter  # noqa: SLF001
        # Of which readers, and what: one object, so that no thread sees half of a change.
        self._remembered: tuple[Any, dict[Any, list[Taker]]] = (None, {})

    def __call__(
        self, amount: Any, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        """
        Take a measurement.

        Args:
            amount: the value.
            attributes: few distinct sets of them, all in all.
            context: that it belongs to; the current one by default.
        """
        kind = type(amount)
        if (
            (kind is not float and kind is not int)
            or not self._least <= amount < math.inf
            or amount == -math.inf
            or (kind is int and not -_WHOLE < amount < _WHOLE)
            or (attributes is not None and type(attributes) is not dict)
        ):
            self._slow(amount, attributes, context)
            return
        config = self._instrument._meter_config  # noqa: SLF001
        if config is not None and not config.is_enabled:
            return
        try:
            # The kinds too: 1, True and 1.0 are one key to Python and three to OpenTelemetry.
            pairs = tuple(attributes.items()) if attributes else ()
            key = (*pairs, *[type(value) for _, value in pairs])
            here = context or current_context()
            sampled = self._sampled(amount, attributes, here)
            storages, known = self._remembered
            found = known.get(key)
        except Exception:  # a value that cannot be hashed, a span that is none
            self._slow(amount, attributes, context)
            return
        if found is None or self._consumer._reader_storages is not storages:  # noqa: SLF001
            self._slow(amount, attributes, context)
            # Of the key and not of the dict, which another thread may have changed meanwhile.
            self._remember(key, dict(pairs))
            return
        now = 0 if sampled is None else time.time_ns()
        for take in found:
            take(amount, now, sampled, here)

    def _sampled(self, amount: float, attributes: Any, context: Context) -> Any:
        """The span context of the exemplar; None for none."""
        chosen = self._filter
        span = context.get(SPAN_KEY)
        if type(chosen) is not TraceBasedExemplarFilter:
            if not chosen.should_sample(amount, time.time_ns(), attributes, context):
                return None
            return span.get_span_context() if isinstance(span, Span) else NO_SPAN
        if span is None:
            return None
        here = span.get_span_context()  # type: ignore[attr-defined]  # else an exception, which is caught
        return here if here[3] & 1 else None

    def _remember(self, key: Any, attributes: dict[str, Any]) -> None:
        """Where measurements with these attributes go, now that the SDK has made the place."""
        storages = self._consumer._reader_storages  # noqa: SLF001
        of, known = self._remembered
        if storages is not of:
            known = {}
            self._remembered = (storages, known)
        if len(known) < KEPT:
            found = self._takers(attributes)
            if found is not None:
                known[key] = found

    def _takers(self, labels: dict[str, Any]) -> list[Any] | None:
        """
        What takes the measurements of one attribute set; None when it is not to be remembered.

        Args:
            labels: the set, which is not changed from now on.
        """
        storages = self._consumer._reader_storages  # noqa: SLF001
        if len(labels) > _LONG or not storages:
            return None
        if needs_no_cleaning(labels) != PLAIN:
            return None
        hashed = _hash_attributes(labels)
        return [
            _taker(match, hashed, labels, self._instrument)
            for storage in storages.values()
            for match in storage._get_or_init_view_instrument_match(self._instrument)  # noqa: SLF001
        ]


NO_SPAN: Final = ()
"""In the place of a span's context: an exemplar without a span, as a filter may want it."""


Taker = Callable[[float, int, Any, Context], None]
"""Takes an amount, the time, the span of an exemplar or None, the context."""


def _taker(match: Any, hashed: Any, labels: dict[str, Any], instrument: Any) -> Taker:
    """What takes the measurements of one attribute set for one view of one reader."""

    def measured(amount: float, now: int, context: Context) -> Any:
        """A measurement without the cleaning: it was done."""
        made: Any = object.__new__(Measurement)
        made.__dict__.update(
            value=amount,
            time_unix_nano=now or time.time_ns(),
            instrument=instrument,
            context=context,
            attributes=labels,
        )
        return made

    if match._view._attribute_keys is not None:  # noqa: SLF001 - a view that drops some

        def through_view(amount: float, now: int, sampled: Any, context: Context) -> None:
            match.consume_measurement(measured(amount, now, context), sampled is not None)

        return through_view
    found = match._attributes_aggregation.get(hashed)  # noqa: SLF001
    if found is None or match._reset_on_collect:  # noqa: SLF001

        def under_lock(amount: float, now: int, sampled: Any, context: Context) -> None:
            with match._lock:  # noqa: SLF001 - or a collection takes the aggregation away meanwhile
                match._get_or_create_aggregation(hashed, labels).aggregate(  # noqa: SLF001
                    measured(amount, now, context), sampled is not None
                )

        return under_lock
    reservoir = type(found._reservoir)  # noqa: SLF001
    if type(found) is _SumAggregation and reservoir is SimpleFixedSizeExemplarReservoir:
        return _summed(found, labels)
    if (
        type(found) is _ExplicitBucketHistogramAggregation
        and reservoir is AlignedHistogramBucketExemplarReservoir
    ):
        return _bucketed(found, labels)

    def asked(amount: float, now: int, sampled: Any, context: Context) -> None:
        found.aggregate(measured(amount, now, context), sampled is not None)

    return asked


def _summed(found: Any, labels: dict[str, Any]) -> Taker:
    """Adds to a sum, and keeps an exemplar by chance."""
    reservoir, lock = found._reservoir, found._lock  # noqa: SLF001
    size = reservoir._size  # noqa: SLF001

    def add(amount: float, now: int, sampled: Any, _: Context) -> None:
        with lock:
            value = found._value  # noqa: SLF001
            found._value = amount if value is None else value + amount  # noqa: SLF001
        if sampled is None:
            return
        with reservoir._lock:  # noqa: SLF001
            index = seen = reservoir._measurements_seen  # noqa: SLF001
            reservoir._measurements_seen = seen + 1  # noqa: SLF001
            if seen >= size:
                index = int(random.random() * (seen + 1))
            if index < size:
                _offer(reservoir._reservoir_storage[index], amount, now, labels, sampled)  # noqa: SLF001

    return add


def _bucketed(found: Any, labels: dict[str, Any]) -> Taker:
    """Adds to a bucket, and keeps the last exemplar of each."""
    reservoir, lock, bounds = found._reservoir, found._lock, found._boundaries  # noqa: SLF001
    extremes = found._record_min_max  # noqa: SLF001

    def record(amount: float, now: int, sampled: Any, _: Context) -> None:
        index = bisect_left(bounds, amount)
        with lock:
            if found._value is None:  # noqa: SLF001
                found._value = [0] * (len(bounds) + 1)  # noqa: SLF001
            found._value[index] += 1  # noqa: SLF001
            found._sum += amount  # noqa: SLF001
            if extremes:
                found._min = min(found._min, amount)  # noqa: SLF001
                found._max = max(found._max, amount)  # noqa: SLF001
        if sampled is not None:
            with reservoir._lock:  # noqa: SLF001
                _offer(reservoir._reservoir_storage[index], amount, now, labels, sampled)  # noqa: SLF001

    return record


def _offer(bucket: Any, amount: float, now: int, labels: Any, sampled: Any) -> None:
    """As `ExemplarBucket.offer`, where the span is known already."""
    bucket.__dict__.update(
        _ExemplarBucket__value=amount,
        _ExemplarBucket__time_unix_nano=now,
        _ExemplarBucket__attributes=labels,
        _ExemplarBucket__offered=True,
    )
    if sampled:
        bucket.__dict__.update(
            _ExemplarBucket__trace_id=sampled[0], _ExemplarBucket__span_id=sampled[1]
        )
