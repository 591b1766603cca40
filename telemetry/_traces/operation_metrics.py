"""
Instruments, made once per process at first use: importing makes nothing.

They are made on the global meter, so whoever owns the MeterProvider gets them. Names, units and
buckets follow the semantic conventions: seconds, one histogram for success and failure, told apart
by `error.type`; ids are never attributes of a metric.
"""

import functools

from opentelemetry import metrics

from telemetry.attributes import DURATION_BUCKETS_S, OPERATION_DURATION


@functools.cache
def operation_duration() -> metrics.Histogram:
    """How long blocks took."""
    return metrics.get_meter("telemetry").create_histogram(
        OPERATION_DURATION,
        unit="s",
        description="How long an operation took.",
        explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
    )
