"""
The questions of `/api/v1/...` that are (name, value) pairs in and one JSON answer out, as a table.

The HTTP port and the command line both ask through it, so that a question is asked the same way and
answered with the same bytes wherever it comes from.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

from collector.query import failures, inventory, metric_series, slow, tasks, traces
from collector.query.logs import logs
from collector.query.parameters import LOG_PARAMETERS, log_query
from collector.stores.base import Store, dumps


class Paged(NamedTuple):
    """
    One kind of question.

    Args:
        help: a sentence about it.
        parameters: those that there are, with their help.
        question: pairs -> what is asked; raises `BadParameter`.
        answer: what a store answers to it.
    """

    help: str
    parameters: dict[str, str]
    question: Callable[..., Any]
    answer: Callable[[Store, Any], Awaitable[Any]]


PAGED: Final[dict[str, Paged]] = {
    "logs": Paged("Log records, newest first, a page at a time.", LOG_PARAMETERS, log_query, logs),
    "traces": Paged("Recent or slowest traces.", traces.PARAMETERS, traces.question, traces.traces),
    "services": Paged(
        "Services with their spans, requests, errors and log records.",
        inventory.SERVICES,
        inventory.services_question,
        inventory.services,
    ),
    "operations": Paged(
        "Operations with rates, errors and durations.",
        inventory.OPERATIONS,
        inventory.operations_question,
        inventory.operations,
    ),
    "metrics": Paged(
        "Metrics by name.", inventory.METRICS, inventory.metrics_question, inventory.metrics
    ),
    "metrics/series": Paged(
        "The values of one metric over time.",
        metric_series.PARAMETERS,
        metric_series.question,
        metric_series.series,
    ),
    "errors": Paged(
        "Failures that mean the same, as groups.",
        failures.PARAMETERS,
        failures.question,
        failures.errors,
    ),
    "slow": Paged("The slowest operations or traces.", slow.PARAMETERS, slow.question, slow.slow),
    "tasks": Paged("What became of Celery tasks.", tasks.PARAMETERS, tasks.question, tasks.tasks),
}
"""By what follows `/api/v1/`."""


async def ask(
    store: Store,
    what: str,
    pairs: Iterable[tuple[str, str]],
    *,
    now_unix_nano: int,
    max_rows: int = 5000,
) -> bytes:
    """
    The JSON answer to a question of the table.

    Args:
        store: to ask.
        what: a key of `PAGED`.
        pairs: names and values of its parameters.
        now_unix_nano: what ages count back from.
        max_rows: the largest limit.

    Raises:
        BadParameter: with the name and the fix.
    """
    kind = PAGED[what]
    asked = kind.question(pairs, now_unix_nano=now_unix_nano, max_rows=max_rows)
    return dumps(await kind.answer(store, asked))
