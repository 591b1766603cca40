"""
A histogram of the SDK with a short way for labels that repeat.

The SDK cleans, copies and hashes the attributes of every measurement again. Orders and items come
by the thousand with a handful of label sets, so here their cleaned copy and hash are kept, and a
measurement goes straight to the SDK's aggregations: its buckets, its exemplars, its temporality and
its limits stay the SDK's, and any reader sees what it would see (tests/telemetry/test_recorder.py
compares). Whatever is unusual goes the SDK's way: other values than floats, labels that are no
texts, views, a provider that is not the SDK's.

The private names that this leans on are used here and nowhere else.
"""

import math
import time
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.context import Context, get_current

KEPT: Final = 256
"""Label sets that are remembered; more than that are no label sets but a mistake."""


class Recorder:
    """
    Records into a histogram.

    Args:
        histogram: of any meter.
    """

    __slots__ = ("_histogram", "_known", "_quick")

    def __init__(self, histogram: metrics.Histogram) -> None:
        self._histogram: Any = histogram
        self._known: dict[tuple[tuple[str, Any], ...], tuple[dict[str, Any], Any]] = {}
        self._quick: Any = None

    def record(self, amount: float, labels: dict[str, str], context: Context | None = None) -> None:
        """
        Record a measurement.

        Args:
            amount: the value.
            labels: its attributes; few distinct ones.
            context: that it belongs to; the current one by default.
        """
        quick = self._quick
        if quick is None:
            quick = self._quick = _quick(self._histogram)
        if quick and type(amount) is float and 0.0 <= amount < math.inf:
            try:
                known = self._known.get(tuple(labels.items()))
            except TypeError:  # a value that cannot be hashed
                known = None
            if known is not None:
                quick(amount, *known, get_current() if context is None else context)
                return
            self._remember(labels)
        self._histogram.record(amount, labels, context)

    def _remember(self, labels: dict[str, str]) -> None:
        if len(self._known) < KEPT and all(
            type(part) is str for pair in labels.items() for part in pair
        ):
            from opentelemetry.sdk.metrics._internal._view_instrument_match import (  # noqa: PLC0415 - loaded
                _hash_attributes,
            )

            copy = dict(labels)
            self._known[tuple(copy.items())] = (copy, _hash_attributes(copy))


def _quick(histogram: Any) -> Any:
    """
    What takes a measurement for this histogram with its labels and their hash.

    Returns:
        A function; False if there is none; None while that is not known, since a meter that was
        made before the provider was set gives an instrument that stands in for the real one.
    """
    real = getattr(histogram, "_real_instrument", histogram)
    if real is None:
        return None
    consumer = getattr(real, "_measurement_consumer", None)
    if consumer is None or not hasattr(consumer, "_reader_storages"):
        return False
    from opentelemetry.sdk.metrics import Histogram  # noqa: PLC0415 - loaded
    from opentelemetry.sdk.metrics._internal.measurement import Measurement  # noqa: PLC0415

    if not isinstance(real, Histogram):
        return False
    filter_ = consumer._sdk_config.exemplar_filter  # noqa: SLF001 - see above

    def take(amount: float, labels: dict[str, Any], key: Any, context: Context) -> None:
        if not real._is_enabled():  # noqa: SLF001 - what `record` asks first
            return
        now = time.time_ns()
        sample = filter_.should_sample(amount, now, labels, context)
        measurement = object.__new__(Measurement)  # without the cleaning: it was done
        measurement.__dict__.update(
            value=amount, time_unix_nano=now, instrument=real, context=context, attributes=labels
        )
        for storage in consumer._reader_storages.values():  # noqa: SLF001 - see above
            for match in storage._get_or_init_view_instrument_match(real):  # noqa: SLF001
                if match._view._attribute_keys is not None:  # noqa: SLF001 - a view drops some
                    match.consume_measurement(measurement, sample)
                    continue
                found = match._attributes_aggregation.get(key)  # noqa: SLF001
                if found is None or match._reset_on_collect:  # noqa: SLF001
                    with match._lock:  # noqa: SLF001 - or a collection takes it away meanwhile
                        match._get_or_create_aggregation(key, labels).aggregate(  # noqa: SLF001
                            measurement, sample
                        )
                else:
                    found.aggregate(measurement, sample)

    return take
