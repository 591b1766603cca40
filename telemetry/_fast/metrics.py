"""
The SDK's meters, with a shorter way for measurements whose attributes repeat.

The SDK cleans, copies, sorts and hashes the attributes of every measurement, and walks from the
instrument to its aggregations each time. Requests, tasks and orders come by the thousand with a
handful of attribute sets. So the instruments of our provider remember, for each set, the cleaned
copy and the aggregations that it leads to, and a measurement goes straight there. Sums, buckets,
exemplars, temporality and limits stay the SDK's, in the SDK's own objects, and every reader sees
what it would see (tests/telemetry/fast/test_metrics.py compares). Whatever is unusual goes the SDK's way:
views that drop attributes, other aggregations, other reservoirs, values that are no measurement.

The private names that this leans on are used here and nowhere else.
"""

import math
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Meter, MeterProvider
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

from telemetry._native import core
from telemetry._otel_context import SPAN_KEY, current_context
from telemetry._sdk.processors import FirstMeasurement

_NATIVE: Final = core if hasattr(core, "Measure") else None

KEPT: Final = 256
"""Attribute sets that an instrument remembers; more than that are no labels but a mistake."""
_LONG: Final = 8
"""A set of more attributes is not remembered either."""


class Meters(MeterProvider):
    """The SDK's provider; the instruments of its meters have the short way."""

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Any:
        """The meter of a scope."""
        meter: Any = super().get_meter(name, version, schema_url, attributes)
        if type(meter) is Meter:
            meter.__class__ = QuickMeter
        return meter


class QuickMeter(Meter):
    """A meter of the SDK."""

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        """A counter."""
        return quickened(super().create_counter(name, unit, description))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        """An up-down counter."""
        return quickened(super().create_up_down_counter(name, unit, description))

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> Any:
        """A histogram."""
        return quickened(
            super().create_histogram(
                name,
                unit,
                description,
                explicit_bucket_boundaries_advisory=explicit_bucket_boundaries_advisory,
            )
        )


def quickened(instrument: Any) -> Any:
    """The same instrument; if it is one of the SDK's, its method is ours from now on."""
    # The class stays: readers choose temporality and aggregation by it.
    if type(instrument) is _Histogram:
        if "record" not in instrument.__dict__:
            vars(instrument)["record"] = measure(instrument, instrument.record, 0.0)
    elif type(instrument) in (_Counter, _UpDownCounter) and "add" not in instrument.__dict__:
        least = 0.0 if type(instrument) is _Counter else -math.inf
        vars(instrument)["add"] = measure(instrument, instrument.add, least)
    return instrument


def measure(instrument: Any, slow: Callable[..., None], least: float) -> Callable[..., None]:
    """
    What takes the measurements of one instrument: natively where that is compiled.

    Args:
        instrument: of the SDK.
        slow: the SDK's method.
        least: the smallest amount that is one.
    """
    own = Measure(instrument, slow, least)
    return own if _NATIVE is None else own.native(_NATIVE)


class Measure:
    """
    Takes the measurements of one instrument; telemetry/_core_measures.h does the same.

    Args:
        instrument: of the SDK.
        slow: the SDK's method.
        least: the smallest amount that is one.
    """

    __slots__ = ("_consumer", "_filter", "_instrument", "_least", "_remembered", "_slow")

    def __init__(self, instrument: Any, slow: Callable[..., None], least: float) -> None:
        self._instrument = instrument
        self._slow = slow
        self._least = least
        self._consumer = instrument._measurement_consumer  # noqa: SLF001 - see above
        self._filter: Any = self._consumer._sdk_config.exemplar_filter  # noqa: SLF001
        # Of which readers, and what: one object, so that no thread sees half of a change.
        self._remembered: tuple[Any, dict[Any, list[Taker]]] = (None, {})

    def __call__(
        self, amount: float, attributes: Attributes = None, context: Context | None = None
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
            or (attributes is not None and type(attributes) is not dict)
        ):
            self._slow(amount, attributes, context)
            return
        config = self._instrument._meter_config  # noqa: SLF001
        if config is not None and not config.is_enabled:
            return
        try:
            # The kinds too: 1, True and 1.0 are one key to Python and three to OpenTelemetry.
            key = (*attributes.items(), *map(type, attributes.values())) if attributes else ()
            here = context or current_context()
            sampled = self._sampled(amount, attributes, here)
            storages, known = self._remembered
            found = known.get(key)
        except Exception:  # a value that cannot be hashed, a span that is none
            self._slow(amount, attributes, context)
            return
        if found is None or self._consumer._reader_storages is not storages:  # noqa: SLF001
            self._slow(amount, attributes, context)
            self._remember(key, attributes or {})
            return
        now = 0 if sampled is None else time.time_ns()
        for take in found:
            take(amount, now, sampled, here)

    def native(self, core: Any) -> Callable[..., None]:
        """The same, compiled: what is rare is asked of this one."""
        chosen = self._filter
        first = type(chosen) is FirstMeasurement
        by_trace = chosen.by_trace if first else type(chosen) is TraceBasedExemplarFilter

        def remember(labels: dict[str, Any]) -> tuple[Any, ...] | None:
            ways = self._ways(labels, core.Way)
            return None if ways is None else tuple(ways)

        def asked(amount: float, attributes: Any, context: Context) -> Any:
            return self._sampled(amount, attributes, context)

        made: Callable[..., None] = core.Measure(
            self._instrument,
            self._slow,
            self._least,
            self._consumer,
            remember,
            current_context,
            chosen.begun if first else None,
            None if by_trace else asked,
            SPAN_KEY,
        ).take
        return made

    def _sampled(self, amount: float, attributes: Any, context: Context) -> Any:
        """The span context of the exemplar; None for none. May begin the process's reader."""
        chosen = self._filter
        if type(chosen) is FirstMeasurement:
            chosen.begun()
            by_trace = chosen.by_trace
        else:
            by_trace = type(chosen) is TraceBasedExemplarFilter
        if not by_trace:
            if not chosen.should_sample(amount, time.time_ns(), attributes, context):
                return None
            span = context.get(SPAN_KEY)
            return span.get_span_context() if isinstance(span, Span) else NO_SPAN
        span = context.get(SPAN_KEY)
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
            found = self._ways(attributes.copy(), None)
            if found is not None:
                known[key] = found

    def _ways(self, labels: dict[str, Any], native: Any) -> list[Any] | None:
        """
        What takes the measurements of one attribute set; None when it is not to be remembered.

        Args:
            labels: the set, which nobody changes from now on.
            native: `Way` of the native core, if that is to take them.
        """
        storages = self._consumer._reader_storages  # noqa: SLF001
        if len(labels) > _LONG or not storages:
            return None
        plain = all(
            type(name) is str and type(value) in (str, int, float, bool)
            for name, value in labels.items()
        )
        if not plain:
            return None
        hashed = _hash_attributes(labels)
        return [
            _taker(match, hashed, labels, self._instrument, native)
            for storage in storages.values()
            for match in storage._get_or_init_view_instrument_match(self._instrument)  # noqa: SLF001
        ]


NO_SPAN: Final = ()
"""In the place of a span's context: an exemplar without a span, as a filter may want it."""


Taker = Callable[[float, int, Any, Context], None]
"""Takes an amount, the time, the span of an exemplar or None, the context."""


def _taker(
    match: Any, hashed: Any, labels: dict[str, Any], instrument: Any, native: Any
) -> Callable[..., None]:
    """What takes the measurements of one attribute set for one view of one reader."""

    def told(taker: Taker) -> Callable[..., None]:
        """As the native core calls what it does not do itself."""
        if native is None:
            return taker
        return lambda amount, sampled, context: taker(amount, 0, sampled, context)

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

        return told(through_view)
    found = match._attributes_aggregation.get(hashed)  # noqa: SLF001
    if found is None or match._reset_on_collect:  # noqa: SLF001

        def under_lock(amount: float, now: int, sampled: Any, context: Context) -> None:
            with match._lock:  # noqa: SLF001 - or a collection takes the aggregation away meanwhile
                match._get_or_create_aggregation(hashed, labels).aggregate(  # noqa: SLF001
                    measured(amount, now, context), sampled is not None
                )

        return told(under_lock)
    reservoir = type(found._reservoir)  # noqa: SLF001
    if type(found) is _SumAggregation and reservoir is SimpleFixedSizeExemplarReservoir:
        made: Callable[..., None] = native("s", found, labels) if native else _summed(found, labels)
        return made
    if (
        type(found) is _ExplicitBucketHistogramAggregation
        and reservoir is AlignedHistogramBucketExemplarReservoir
    ):
        return native("b", found, labels) if native else _bucketed(found, labels)

    def asked(amount: float, now: int, sampled: Any, context: Context) -> None:
        found.aggregate(measured(amount, now, context), sampled is not None)

    return told(asked)


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
