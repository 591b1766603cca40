"""
`tasks`: what became of Celery tasks, from the events that `telemetry` records of their attempts.

An attempt leaves `celery.task.started` and one event of its end, both with the id of the task, the
number of the attempt, the worker, the queue and the time in the queue. Where a process died, its
worker's main process records the end in its place. So the latest event of the latest attempt says the
state. An attempt that started and never ended is running, or lost when it began longer ago than
`lost_after`; one whose process is gone is lost at once.

Tasks come in the order of their latest event. The events of the range are read from the newest on;
of each task only its latest counts, and for that all its events are fetched by its id. A page so
costs what it shows, however long the range is, and the cursor is the place of an event.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from collector.model import Signal
from collector.query.parameters import BadParameter, age_s, flag, read_question
from collector.query.searched import Searched
from collector.stores.base import Document, Query, Store, event_time
from telemetry import attributes as names

EVENTS: Final = (
    names.CELERY_RECEIVED,
    names.CELERY_STARTED,
    names.CELERY_SUCCEEDED,
    names.CELERY_FAILED,
    names.CELERY_RETRIED,
    names.CELERY_REJECTED,
    names.CELERY_IGNORED,
    names.CELERY_REVOKED,
    names.CELERY_LOST,
)

LOST: Final = "LOST"
STATES: Final = (
    *("STARTED", "SUCCESS", "FAILURE", "RETRY", "REJECTED", "IGNORED", "REVOKED", "RECEIVED"),
    LOST,
)
"""What a task can be in."""

DEFAULT_LIMIT: Final = 50
LOST_AFTER_S: Final = 3600.0
LOOKED_AT: Final = 20_000
"""Tasks that are looked at for one page; the page then ends early, and has a cursor."""

PARAMETERS: Final[dict[str, str]] = {
    "since": "With an event at or after: an age (15m, 1h, 7d) or an ISO 8601 time; 24h unless given.",
    "until": "With an event before: an age or a time, as for since.",
    "service": "The service of the worker equals this.",
    "task": "The name of the task equals this.",
    "task_id": "The id of the task equals this.",
    "state": f"{', '.join(STATES)}, in any case.",
    "lost": "true: only tasks that started and never ended, or whose process is gone.",
    "lost_after": "Since when a running attempt counts as lost: 1h unless given.",
    "limit": "How many tasks, 50 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about tasks, with its help."""

_STEP: Final = 500
_PAGE: Final = 10_000
_CURSOR: Final = re.compile(r"([0-9]{1,20})\.([0-9]{1,20})\.([0-9]{1,20})\.([0-9a-f]{24})")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `query` for the events, and which of the tasks are meant."""

    query: Query
    now_unix_nano: int
    lost_after_s: float
    limit: int
    name: str | None = None
    state: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One task, by its latest attempt.

    Args:
        id: of the task.
        name: of the task; empty when the worker does not know it.
        state: one of `STATES`.
        service: of the worker.
        retries: how many attempts came before the latest one.
        attempts: how many of them have started.
        updated_unix_nano: the latest event.
        started_unix_nano: when the first attempt started.
        duration_ms: how long the latest attempt took; absent while it runs, or when it is lost.
        wait_ms: how long the latest attempt waited for a worker.
        queue, worker: of the latest attempt.
        error_type, reason: why it is in its state.
        correlation_id, trace_id: of the latest event.
        redelivered: the broker delivered a message of it more than once.
    """

    id: str
    name: str
    state: str
    service: str
    retries: int
    attempts: int
    updated_unix_nano: int
    started_unix_nano: int | None = None
    duration_ms: float | None = None
    wait_ms: float | None = None
    queue: str = ""
    worker: str = ""
    error_type: str = ""
    reason: str = ""
    correlation_id: str = ""
    trace_id: str = ""
    redelivered: bool = False


class Tasks(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A page of tasks, the latest first.

    Args:
        tasks: what became of them.
        next: the cursor of the page behind this one, which may be there although this page is not
            full: then `LOOKED_AT` tasks were looked at; absent on the last page.
        searched: where was looked.
    """

    tasks: list[Task] = []
    next: str | None = None
    searched: Searched


def question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    asked = read_question(
        pairs, PARAMETERS, _CURSOR, now_unix_nano=now_unix_nano, since="24h",
        rows=DEFAULT_LIMIT, max_rows=max_rows,
    )  # fmt: skip
    given, behind = asked.given, asked.behind
    after = None if behind is None else (int(behind[0]), behind[1])
    state = given.get("state", "").upper() or None
    if state not in (None, *STATES):
        raise BadParameter("state", f"write one of {', '.join(STATES)}")
    if flag(given, "lost"):
        if state not in (None, LOST):
            raise BadParameter("lost", "leave state out, or write LOST")
        state = LOST
    return Question(
        query=Query(
            signal=Signal.LOGS,
            names=EVENTS,
            task_ids=(given["task_id"],) if "task_id" in given else (),
            service=given.get("service"),
            since_unix_nano=asked.since_unix_nano,
            until_unix_nano=asked.until_unix_nano,
            newest_first=True,
            after=after,
        ),
        now_unix_nano=now_unix_nano,
        lost_after_s=age_s(given, "lost_after", LOST_AFTER_S),
        limit=asked.limit,
        name=given.get("task"),
        state=state,
    )


async def tasks(store: Store, asked: Question, *, looked_at: int = LOOKED_AT) -> Tasks:
    """
    One page of tasks.

    Args:
        store: where to look.
        asked: what is asked.
        looked_at: when a page ends, full or not.
    """
    found: list[Task] = []
    met: set[str] = set()
    after = last = asked.query.after
    searched = Searched(store=store.describe())
    step = _STEP if asked.state or asked.name else min(_STEP, 2 * asked.limit + 10)
    while True:
        events = await store.find(msgspec.structs.replace(asked.query, limit=step, after=after))
        wanted = dict.fromkeys(filter(None, map(_id_of, events)))
        story = await _stories(store, asked.query, [each for each in wanted if each not in met])
        for event in events:
            after = (event_time(Signal.LOGS, event), event["_id"])
            task_id = _id_of(event)
            if task_id is None or task_id in met or task_id not in story:
                continue
            met.add(task_id)
            if max(map(_place, story[task_id])) != _place(event):
                continue  # it stands on a page before this one, by a later event
            task = assemble(task_id, story[task_id], asked.now_unix_nano, asked.lost_after_s)
            if asked.name not in (None, task.name) or asked.state not in (None, task.state):
                continue
            if len(found) == asked.limit:  # one more than a page: there is another one
                return Tasks(tasks=found, next=_cursor(asked.query, last), searched=searched)
            found.append(task)
            last = after
        if after is None or len(events) < step:
            return Tasks(tasks=found, searched=searched)
        if len(met) >= looked_at:
            return Tasks(tasks=found, next=_cursor(asked.query, after), searched=searched)


def _cursor(query: Query, after: tuple[int, str] | None) -> str:
    return ".".join(map(str, (query.since_unix_nano, query.until_unix_nano, *(after or ()))))


def _place(event: Document) -> tuple[int, str]:
    return event_time(Signal.LOGS, event), event["_id"]


def _id_of(event: Document) -> str | None:
    found: str | None = event.get("context", {}).get("task_id")
    return found


async def _stories(store: Store, query: Query, ids: Sequence[str]) -> Mapping[str, list[Document]]:
    """All events of some tasks before the end of the range, the oldest first."""
    story: defaultdict[str, list[Document]] = defaultdict(list)
    if not ids:
        return story
    everything = Query(
        signal=Signal.LOGS,
        names=EVENTS,
        task_ids=tuple(ids),
        service=query.service,
        until_unix_nano=query.until_unix_nano,
        limit=_PAGE,
    )
    while True:
        page = await store.find(everything)
        for event in page:
            if task_id := _id_of(event):
                story[task_id].append(event)
        if len(page) < _PAGE:
            return story
        everything = msgspec.structs.replace(everything, after=_place(page[-1]))


def assemble(
    task_id: str, events: Sequence[Document], now_unix_nano: int, lost_after_s: float
) -> Task:
    """
    A task from its events.

    Args:
        task_id: its id.
        events: all of them, at least one, the oldest first.
        now_unix_nano: what the age of a running attempt is counted from.
        lost_after_s: the age at which it counts as lost.
    """
    later = [event for event in events if event["event"] != names.CELERY_RECEIVED]
    last = max(later, key=_progress) if later else events[-1]
    starts = [event for event in later if event["event"] == names.CELERY_STARTED]
    state = str(_attribute(last, names.CELERY_TASK_STATE, ""))
    if last["event"] == names.CELERY_RECEIVED:
        state = "RECEIVED"
    elif last["event"] == names.CELERY_LOST:
        state = LOST
    elif last["event"] == names.CELERY_STARTED:
        age_s = (now_unix_nano - event_time(Signal.LOGS, last)) / 1e9
        state = LOST if age_s > lost_after_s else "STARTED"
    exception = last.get("exception", {})
    started = last["event"] == names.CELERY_STARTED
    return Task(
        id=task_id,
        name=_text(last, names.CELERY_TASK_NAME),
        state=state,
        service=last["service"],
        retries=_retries(last),
        attempts=len(starts),
        updated_unix_nano=max(event_time(Signal.LOGS, event) for event in events),
        started_unix_nano=event_time(Signal.LOGS, starts[0]) if starts else None,
        duration_ms=None if started else last.get("trace", {}).get("execution_time_ms"),
        wait_ms=next(filter(None, (_wait_ms(event) for event in (last, *reversed(starts)))), None),
        queue=_text(last, names.MESSAGING_DESTINATION),
        worker=_text(last, names.CELERY_WORKER_HOSTNAME),
        error_type=_text(last, names.ERROR_TYPE) or str(exception.get("type", "")),
        reason=_text(last, names.CELERY_TASK_REASON) or str(exception.get("message", "")),
        correlation_id=last.get("context", {}).get("correlation_id", ""),
        trace_id=last.get("trace", {}).get("trace_id", ""),
        redelivered=any(_attribute(event, names.CELERY_TASK_REDELIVERED) for event in events),
    )


def _progress(event: Document) -> tuple[int, int, bool, str]:
    """How far a task is at an event: by attempt, then by time; an end comes behind a start."""
    when, _id = _place(event)
    return _retries(event), when, event["event"] != names.CELERY_STARTED, _id


def _retries(event: Document) -> int:
    found = _attribute(event, names.CELERY_TASK_RETRIES)
    return found if type(found) is int else 0


def _attribute(event: Document, name: str, default: Any = None) -> Any:
    return event.get("attributes", {}).get(name, default)


def _text(event: Document, name: str) -> str:
    found = _attribute(event, name)
    return found if type(found) is str else ""


def _wait_ms(event: Document) -> float | None:
    found = _attribute(event, names.CELERY_TASK_WAIT_MS)
    return float(found) if type(found) in (int, float) else None
