"""
`/api/metrics/query_range` and `/api/metrics/query`: series of numbers that a query computes.

Where single spans decide, they are counted as they are read and nothing else is kept; otherwise
the traces of candidates are read whole, a few at a time. When a bound was hit, a range answer says
so in `status` and `message`, which the data source tolerates; an instant answer cannot, because its
reader knows no such field, and is refused (422) rather than being wrong without a word.
"""

from typing import Any

from collector.query.tempo.candidates import Reader, in_thread
from collector.query.tempo.values import any_value, key_value, number
from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.metrics import MAX_SERIES, Accumulator, accumulator, finished
from collector.query.traceql.plan import plan
from collector.query.traceql.series import Intervals, Series
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.tree import Query
from collector.query.traceql.view import Span, Trace

EXEMPLARS = 100
"""Exemplars of a series when the request does not say how many; also the most."""


async def over_time(
    reading: Reader, query: Query, intervals: Intervals, *, exemplars: int
) -> dict[str, Any]:
    """
    The answer to a query over time.

    Args:
        reading: of this question.
        query: with a metrics function.
        intervals: of the answer.
        exemplars: the most of them in a series.

    Raises:
        LimitExceeded: it would need too much memory.
    """
    found, cut = await _computed(reading, query, intervals, exemplars)
    made: dict[str, Any] = {"series": [_series(each, intervals) for each in found], "metrics": {}}
    reasons = [reading.partial] if reading.partial else []
    if cut:
        reasons.append(f"there are more than {MAX_SERIES} series")
    if reasons:
        made.update(status="PARTIAL", message="; ".join(reasons))
    return made


async def instant(reading: Reader, query: Query, intervals: Intervals) -> dict[str, Any]:
    """
    The answer to a query for one number per series; arguments as for `over_time`.

    Raises:
        LimitExceeded: not everything could be looked at.
    """
    found, cut = await _computed(reading, query, intervals, 0)
    if reading.partial or cut:
        reason = reading.partial or f"there are more than {MAX_SERIES} series; group by less"
        raise LimitExceeded(reason)
    return {
        "series": [
            {"labels": _labels(each), "value": number(each.samples[0])}
            for each in found
            if 0 in each.samples
        ],
        "metrics": {},
    }


async def _computed(
    reading: Reader, query: Query, intervals: Intervals, exemplars: int
) -> tuple[list[Series], bool]:
    found = accumulator(query, intervals, exemplars=exemplars)
    planned = plan(query)
    pages = reading.candidates(planned.scans, intervals.after + 1, intervals.last + 1)
    if planned.local:
        async for page, _ in pages:
            await in_thread(_count, page, found)
    else:
        known: set[str] = set()
        use = _counting(query, found)
        async for page, _ in pages:
            new = dict.fromkeys(span.document["trace_id"] for span in page)
            fresh = [trace_id for trace_id in new if trace_id not in known]
            known.update(fresh)
            await reading.whole(fresh, use)
    return finished(query, await in_thread(found.series))


def _count(spans: list[Span], found: Accumulator) -> None:
    for span in spans:
        found.add(span)


def _counting(query: Query, found: Accumulator) -> Any:
    run = pipeline(query.stages)

    def use(trace: Trace) -> None:
        for each in run(trace):
            for span in each.spans:
                found.add(span)

    return use


def _labels(each: Series) -> list[dict[str, Any]]:
    return [
        key_value(key, value)
        for key, found in each.labels
        if (value := any_value(found)) is not None
    ]


def _series(each: Series, intervals: Intervals) -> dict[str, Any]:
    made: dict[str, Any] = {
        "labels": _labels(each),
        "samples": [
            {"timestampMs": str(intervals.end(place) // 1_000_000), "value": number(value)}
            for place, value in sorted(each.samples.items())
        ],
    }
    exemplars = []
    for exemplar in each.exemplars:
        place = intervals.place(exemplar.start)
        value = exemplar.value
        if value is None:
            value = each.samples.get(-1 if place is None else place)
        if value is not None:
            exemplars.append(
                {
                    "labels": [key_value("trace:id", {"stringValue": exemplar.trace_id})],
                    "value": number(value),
                    "timestampMs": str(exemplar.start // 1_000_000),
                }
            )
    return {**made, "exemplars": exemplars} if exemplars else made
