"""
Metric points that differed in a secret only, added to one.

Sums and histograms are added, of gauges the latest stays.
"""

import dataclasses
from typing import Any

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum


def merged(data: Any, points: list[Any]) -> list[Any]:
    """Points of one series as one point."""
    if not isinstance(data, (Sum, Gauge, Histogram)):
        return points
    merged: dict[str, Any] = {}
    for point in points:
        series = repr(sorted((point.attributes or {}).items()))
        other = merged.get(series)
        merged[series] = point if other is None else _added(data, other, point)
    return list(merged.values())


def _added(data: Any, one: Any, two: Any) -> Any:
    if isinstance(data, Gauge):
        return max(one, two, key=lambda point: point.time_unix_nano)
    both: dict[str, Any] = {
        "start_time_unix_nano": min(one.start_time_unix_nano, two.start_time_unix_nano),
        "time_unix_nano": max(one.time_unix_nano, two.time_unix_nano),
        "exemplars": [*one.exemplars, *two.exemplars],
    }
    if isinstance(data, Sum):
        both["value"] = one.value + two.value
    else:
        both |= {
            "count": one.count + two.count,
            "sum": one.sum + two.sum,
            "min": min(one.min, two.min),
            "max": max(one.max, two.max),
            "bucket_counts": [
                a + b for a, b in zip(one.bucket_counts, two.bucket_counts, strict=True)
            ],
        }
    return dataclasses.replace(one, **both)
