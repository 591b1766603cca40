"""
The reader of this process: collects when it is asked to, without a thread or an exporter.

Temporality and histogram aggregation are those that the OTLP exporter's variables ask for, read here
because releases keep them in different private places.
"""

import os
from typing import Any, Final

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from telemetry import _diagnostics

TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
AGGREGATION: Final = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
_KINDS: Final = (
    *(Counter, Histogram, ObservableCounter),
    *(UpDownCounter, ObservableUpDownCounter, ObservableGauge),
)
_DELTAS: Final[dict[str, tuple[type, ...]]] = {
    "cumulative": (),
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}


def temporality() -> dict[type, AggregationTemporality]:
    """What OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE says, for each kind of instrument."""
    name = os.environ.get(TEMPORALITY, "").strip().lower() or "cumulative"
    if name not in _DELTAS:
        text = f"{TEMPORALITY}={name!r}: use cumulative, delta or lowmemory; cumulative is used"
        _diagnostics.say("temporality", text)
    deltas = _DELTAS.get(name, ())
    return {
        kind: AggregationTemporality.DELTA if kind in deltas else AggregationTemporality.CUMULATIVE
        for kind in _KINDS
    }


def aggregation() -> dict[type, Any]:
    """What OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION says."""
    name = os.environ.get(AGGREGATION, "").strip().lower() or "explicit_bucket_histogram"
    if name == "base2_exponential_bucket_histogram":
        return {Histogram: ExponentialBucketHistogramAggregation()}
    if name != "explicit_bucket_histogram":
        text = (
            f"{AGGREGATION}={name!r}: use explicit_bucket_histogram or"
            " base2_exponential_bucket_histogram; explicit_bucket_histogram is used"
        )
        _diagnostics.say("aggregation", text)
    return {Histogram: ExplicitBucketHistogramAggregation()}


class Reader(MetricReader):
    """Collects when it is asked to; no thread, no exporter."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=temporality(), preferred_aggregation=aggregation())
        self._data: MetricsData | None = None

    def take(self, timeout_s: float) -> MetricsData | None:
        """The state of all instruments."""
        self._data = None
        self.collect(timeout_millis=timeout_s * 1000)
        return self._data

    def _receive_metrics(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002 - the SDK's signature
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        self._data = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to end."""
