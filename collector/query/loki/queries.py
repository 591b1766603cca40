"""
The two questions that carry a query, as plain functions: parse first, then read.

`query_range` and `query` check everything that can be refused and give back the work that is left,
which needs a source and a budget. The HTTP port runs it in a thread over its store, the command
line over a store or over files.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from collector.query.logql import QueryError, parse, tree
from collector.query.logql.evaluation import logs, metrics
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.source import Source
from collector.query.loki import answers, parameters

Work = Callable[[Source, Budget], bytes]

NOT_INSTANT: Final = (
    "log queries are not supported as an instant query type, please change your query to a range "
    "query type"
)


def text(given: Mapping[str, str], name: str) -> str:
    """
    A parameter that must be there.

    Raises:
        QueryError: it is not.
    """
    if name not in given:
        raise QueryError(f"{name}: is missing")
    return given[name]


def query_range(given: Mapping[str, str], now: int, *, categorized: bool) -> Work:
    """
    Lines or series over a time.

    Args:
        given: the parameters.
        now: nanoseconds.
        categorized: labels by kind.

    Raises:
        QueryError: a parameter or the query is wrong.
    """
    query = parse(text(given, "query"))
    times = parameters.span(given, now)
    if isinstance(query, tree.LogQuery):
        return _lines(query, given, times, categorized=categorized)
    step = parameters.step(given, times)

    def run(source: Source, budget: Budget) -> bytes:
        began = time.monotonic()
        found = metrics.evaluate_range(
            query, source, start=times.start, end=times.end, step=step, budget=budget
        )
        return answers.matrix(found, budget=budget, seconds=time.monotonic() - began)

    return run


def query(given: Mapping[str, str], now: int) -> Work:
    """
    Series, or a number, at one time; raises as `query_range`.

    Args:
        given: the parameters.
        now: nanoseconds; the time unless one is given.
    """
    found = parse(text(given, "query"))
    if isinstance(found, tree.LogQuery):
        raise QueryError(NOT_INSTANT)
    moment = parameters.time("time", given["time"]) if given.get("time") else now

    def run(source: Source, budget: Budget) -> bytes:
        began = time.monotonic()
        made = metrics.evaluate_at(found, source, time=moment, budget=budget)
        seconds = time.monotonic() - began
        if isinstance(made, float):
            return answers.scalar(made, moment, budget=budget, seconds=seconds)
        return answers.vector(made, budget=budget, seconds=seconds)

    return run


def _lines(
    query: tree.LogQuery, given: Mapping[str, str], times: parameters.Span, *, categorized: bool
) -> Work:
    limit, newest = parameters.limit(given), parameters.newest_first(given)

    def run(source: Source, budget: Budget) -> bytes:
        began = time.monotonic()
        found = logs.select(
            query, source, since=times.start, until=times.end,
            limit=min(limit, parameters.MAX_LIMIT), newest_first=newest, budget=budget,
        )  # fmt: skip
        if limit > parameters.MAX_LIMIT and len(found.lines) == parameters.MAX_LIMIT:
            found.warnings.append(
                f"limit: at most {parameters.MAX_LIMIT} lines are answered at once; go on from the "
                "last one"
            )
        return answers.streams(
            found.lines, categorized=categorized, budget=budget,
            seconds=time.monotonic() - began, warnings=found.warnings,
        )  # fmt: skip

    return run
