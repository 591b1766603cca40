"""
Log queries: lines, newest or oldest first, up to a limit.

Documents are read in the order of the answer, so the query ends with the last line that it may
return. Lines with the time of that last line are ordered by `_id`: a client that pages by time sees
the same order again.
"""

from dataclasses import dataclass, field

from collector.query.logql import tree
from collector.query.logql.errors import LimitError
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.line import Line
from collector.query.logql.evaluation.source import Source
from collector.query.logql.evaluation.stages import pipeline

_LABEL_BYTES = 150
_LINE_BYTES = 800


@dataclass(slots=True)
class Lines:
    """
    The answer to a log query.

    Args:
        lines: in the order asked for.
        warnings: why there may be more than this, as sentences; empty when the limit of the query
            is the only reason.
    """

    lines: list[Line] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def select(
    query: tree.LogQuery,
    source: Source,
    *,
    since: int,
    until: int,
    limit: int,
    newest_first: bool = True,
    budget: Budget | None = None,
) -> Lines:
    """
    The lines that a query selects.

    Args:
        query: its tree.
        source: where documents are.
        since: earliest time in nanoseconds, inclusive.
        until: latest time in nanoseconds, exclusive.
        limit: lines of the answer.
        newest_first: the order.
        budget: what the query may use; where it ends, the answer ends, and a warning says so.
    """
    budget = budget or Budget()
    run = pipeline(query)
    found = Lines()
    documents = source.documents(query, since, until, newest_first=newest_first)
    try:
        for document in budget.reading(documents):
            line = run(document)
            if line is None:
                continue
            size = size_of(line)
            if not budget.fits(size):
                found.warnings.append(
                    f"the answer was cut after {len(found.lines)} lines, where it has "
                    f"{budget.memory >> 20} MiB; ask for fewer lines or go on from the last one"
                )
                break
            budget.keep(size)
            found.lines.append(line)
            if len(found.lines) >= limit:
                break
    except LimitError as full:
        found.warnings.append(f"the answer is not complete: {full}")
    return found


def size_of(line: Line) -> int:
    """Roughly the bytes that a line takes in memory with its document."""
    total = _LINE_BYTES + 2 * len(line.text)
    for labels in (line.metadata, line.parsed):
        for name, value in labels.items():
            total += _LABEL_BYTES + len(name) + 2 * len(value)
    return total
