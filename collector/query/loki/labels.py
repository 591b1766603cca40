"""
What there is to select by: label names, their values, streams, volumes.

Until a store keeps such lists itself, they are read from the newest records of the time that is
asked about: a bounded sample, which misses a stream that is silent for long. Volumes and counts of
`index/stats` over more records than the sample are scaled by the part of the time that it covers;
they are shown as estimates before a query runs.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from collector.query.logql import tree
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.labels import stream_labels
from collector.query.logql.evaluation.metrics import Series
from collector.query.logql.evaluation.source import Source
from collector.query.logql.evaluation.stages import selects
from collector.query.loki.parameters import Span

SAMPLE: Final = 5000
"""The newest records that are looked at."""
MAX_STREAMS: Final = 5000
EVERYTHING: Final = tree.LogQuery(())

Stream = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Streams:
    """
    The streams of a time.

    Args:
        lines: records of each.
        bytes: of their lines.
        scale: how much more there is than was looked at, 1 for all of it.
    """

    lines: Counter[Stream] = field(default_factory=Counter)
    bytes: Counter[Stream] = field(default_factory=Counter)
    scale: float = 1.0


def streams(query: tree.LogQuery, source: Source, asked: Span, budget: Budget) -> Streams:
    """The streams that a selector selects, from a sample of the newest records."""
    found = Streams()
    selected = selects(query.matchers)
    documents = source.documents(query, asked.start, asked.end, newest_first=True)
    for seen, document in enumerate(budget.reading(documents)):
        if seen == SAMPLE:
            covered = max(asked.end - document["time_unix_nano"], 1)
            found.scale = max((asked.end - asked.start) / covered, 1.0)
            break
        labels = stream_labels(document)
        if not selected(labels):
            continue
        stream = tuple(sorted(labels.items()))
        if stream in found.lines or len(found.lines) < MAX_STREAMS:
            found.lines[stream] += 1
            found.bytes[stream] += len(document.get("message", "").encode())
    return found


def names(found: Streams) -> list[str]:
    """All label names, sorted."""
    return sorted({name for stream in found.lines for name, _ in stream})


def values(found: Streams, name: str) -> list[str]:
    """All values of a label, sorted."""
    return sorted({value for stream in found.lines for key, value in stream if key == name})


def statistics(found: Streams) -> dict[str, int]:
    """What `index/stats` says."""
    return {
        "streams": len(found.lines),
        "chunks": 0,
        "bytes": int(found.bytes.total() * found.scale),
        "entries": int(found.lines.total() * found.scale),
    }


def detected(found: Streams) -> list[dict[str, object]]:
    """What `detected_labels` says."""
    return [{"label": name, "cardinality": len(values(found, name))} for name in names(found)]


def volume_query(query: tree.LogQuery, targets: tuple[str, ...], window: int) -> tree.Metric:
    """
    The bytes of lines by labels, as a metric query.

    Args:
        query: whose selector counts.
        targets: the labels; those of the matchers unless given.
        window: nanoseconds that each value covers.
    """
    if not targets:
        targets = tuple(dict.fromkeys(matcher.name for matcher in query.matchers))
    lines = tree.LogRange(tree.LogQuery(query.matchers), window)
    return tree.VectorAggregation(
        "sum",
        tree.RangeAggregation("bytes_over_time", lines),
        None,
        tree.Grouping(without=False, labels=targets),
    )


def largest(series: list[Series], limit: int) -> list[Series]:
    """The series with the most bytes, then by name."""
    return sorted(series, key=lambda one: (-sum(one.values), sorted(one.labels.items())))[:limit]
