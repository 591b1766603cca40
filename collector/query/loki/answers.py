"""
The shapes that Grafana's Loki data source accepts, and no others.

Everything in a label is text, a time of a line is text of nanoseconds, a time of a number is a
number of seconds, a number is text. `resultType` and `encodingFlags` come before `result`: the data
source reads the body in one pass and refuses it otherwise. Nothing found is an empty list.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from collector.query.logql import units
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.line import Line
from collector.query.logql.evaluation.metrics import Series

FLAG: Final = "categorize-labels"
"""The header's value with which a client asks for labels by kind."""
_encode: Final = msgspec.json.Encoder().encode


def body(value: Any) -> bytes:
    """An answer as JSON."""
    return _encode(value)


def success(data: Any) -> bytes:
    """`data` in the envelope."""
    return _encode({"status": "success", "data": data})


def streams(
    lines: Sequence[Line],
    *,
    categorized: bool,
    budget: Budget,
    seconds: float,
    warnings: Sequence[str] = (),
) -> bytes:
    """
    Lines, those of one stream together, in the order that they have.

    Args:
        lines: of the answer.
        categorized: labels by kind, each line with its own; all of them in the stream otherwise.
        budget: of the query, for the statistics.
        seconds: that the query took.
        warnings: shown beside the lines.
    """
    result = grouped(lines, categorized=categorized)
    data: dict[str, Any] = {"resultType": "streams"}
    if categorized:
        data["encodingFlags"] = [FLAG]
    data["result"] = result
    data["stats"] = _statistics(budget, seconds, len(lines))
    return _envelope(data, warnings)


def grouped(lines: Sequence[Line], *, categorized: bool) -> list[dict[str, Any]]:
    """Lines by stream; see `streams`."""
    found: dict[tuple[tuple[str, str], ...], tuple[dict[str, str], list[Any]]] = {}
    for line in lines:
        labels = line.stream if categorized else line.all()
        key = tuple(sorted(labels.items()))
        group = found.get(key)
        if group is None:
            group = found[key] = (labels, [])
        entry: list[Any] = [str(line.time), line.text]
        if categorized:
            kinds = {"structuredMetadata": line.metadata, "parsed": line.parsed}
            entry.append({kind: labels for kind, labels in kinds.items() if labels})
        group[1].append(entry)
    return [{"stream": labels, "values": values} for labels, values in found.values()]


def matrix(series: Iterable[Series], *, budget: Budget, seconds: float) -> bytes:
    """Series over a time."""
    result = [
        {
            "metric": one.labels,
            "values": [
                [_seconds(time), units.print_number(value)]
                for time, value in zip(one.times, one.values, strict=True)
            ],
        }
        for one in series
    ]
    return _numbers("matrix", result, budget, seconds)


def vector(series: Iterable[Series], *, budget: Budget, seconds: float) -> bytes:
    """Series at one time."""
    result = [
        {
            "metric": one.labels,
            "value": [_seconds(one.times[0]), units.print_number(one.values[0])],
        }
        for one in series
    ]
    return _numbers("vector", result, budget, seconds)


def scalar(value: float, time: int, *, budget: Budget, seconds: float) -> bytes:
    """A number at one time."""
    return _numbers("scalar", [_seconds(time), units.print_number(value)], budget, seconds)


def _numbers(kind: str, result: list[Any], budget: Budget, seconds: float) -> bytes:
    statistics = _statistics(budget, seconds, len(result))
    return _envelope({"resultType": kind, "result": result, "stats": statistics}, ())


def _envelope(data: dict[str, Any], warnings: Sequence[str]) -> bytes:
    answer: dict[str, Any] = {"status": "success", "data": data}
    if warnings:
        answer["warnings"] = list(warnings)
    return _encode(answer)


def _seconds(nanoseconds: int) -> int | float:
    """A time of a number: whole seconds, or with milliseconds."""
    milliseconds = nanoseconds // 1_000_000
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


def _statistics(budget: Budget, seconds: float, entries: int) -> dict[str, Any]:
    rate = 1 / seconds if seconds > 0 else 0.0
    return {
        "summary": {
            "bytesProcessedPerSecond": int(budget.bytes * rate),
            "linesProcessedPerSecond": int(budget.read * rate),
            "totalBytesProcessed": budget.bytes,
            "totalLinesProcessed": budget.read,
            "execTime": seconds,
            "queueTime": 0,
            "totalEntriesReturned": entries,
        }
    }
