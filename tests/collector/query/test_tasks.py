"""`tasks`: states from events, what is lost, filters and pages."""

import logging

import pytest

from collector.model import Host, Signal
from collector.query.parameters import BadParameter
from collector.query.tasks import STATES, Task, assemble, question, tasks
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import T0
from tests.tasks import STEP_NS, event, story

pytestmark = pytest.mark.anyio

HOUR = 3600 * 10**9
NOW = T0 + 2 * HOUR


@pytest.mark.parametrize(
    ("kinds", "state", "retries", "attempts"),
    [
        (["started"], "STARTED", 0, 1),
        (["started", "succeeded"], "SUCCESS", 0, 1),
        (["started", "failed"], "FAILURE", 0, 1),
        (["started", "retried"], "RETRY", 0, 1),
        (["started", "retried", "started"], "STARTED", 1, 2),
        (["started", "retried", "started", "retried", "started", "failed"], "FAILURE", 2, 3),
        (["started", "rejected"], "REJECTED", 0, 1),
        (["started", "ignored"], "IGNORED", 0, 1),
        (["revoked"], "REVOKED", 0, 0),
        (["started", "revoked"], "REVOKED", 0, 1),
        (["started", "lost"], "LOST", 0, 1),
        (["started", "lost", "started", "succeeded"], "SUCCESS", 0, 2),
        (["started", "lost", "received", "started"], "STARTED", 0, 2),
        (["received"], "RECEIVED", 0, 0),
        (["started", "received", "succeeded"], "SUCCESS", 0, 1),
        (["started", "succeeded", "received"], "SUCCESS", 0, 1),
    ],
)
def test_the_latest_event_of_the_latest_attempt_says_the_state(kinds, state, retries, attempts):
    """Started, ended, retried, lost and run again, told by the parent: each story has one state (C1)."""
    task = assemble("t", list(story("t", T0, *kinds)), T0 + HOUR // 2, 3600)
    assert (task.state, task.retries, task.attempts) == (state, retries, attempts)


def test_a_task_has_everything_that_its_events_say():
    """Name, worker, queue, wait, duration, error, reason and ids come from the latest attempt (C1)."""
    events = [
        event("t", "started", T0),
        event("t", "retried", T0 + 1, attributes={"celery.task.reason": "later"}),
        event("t", "received", T0 + 2, attributes={"celery.task.redelivered": True}),
        event("t", "started", T0 + 3, 1, attributes={"celery.task.wait_ms": 7}),
        event(
            "t", "lost", T0 + 4, 1,
            exception={"type": "billiard.exceptions.WorkerLostError"},
            attributes={"error.type": "billiard.exceptions.WorkerLostError"},
        ),
    ]  # fmt: skip
    assert assemble("t", events, T0 + 5, 3600) == Task(
        id="t",
        name="shop.open_order",
        state="LOST",
        service="worker",
        retries=1,
        attempts=2,
        updated_unix_nano=T0 + 4,
        started_unix_nano=T0,
        duration_ms=1500.0,
        wait_ms=7.0,
        queue="celery",
        worker="celery@host",
        error_type="billiard.exceptions.WorkerLostError",
        correlation_id="corr-t",
        trace_id=events[-1]["trace"]["trace_id"],
        redelivered=True,
    )


def test_a_failure_says_what_its_exception_said():
    """The message of the exception is the reason when the event gives no other."""
    failed = event("t", "failed", T0, exception={"type": "ValueError", "message": "no such order"})
    found = assemble("t", [failed], T0 + 1, 3600)
    assert (found.error_type, found.reason) == ("ValueError", "no such order")


def test_a_running_task_is_lost_when_it_is_old():
    """An attempt that never ended is running first, and lost after a while."""
    (started,) = story("t", T0, "started")
    states = [
        assemble("t", [started], T0 + seconds * 10**9, 60).state for seconds in (0, 59, 61, 1e6)
    ]
    assert states == ["STARTED", "STARTED", "LOST", "LOST"]


def test_events_of_strangers_are_taken_as_they_are():
    """Events without attributes, or with others than ours, make a task without what is missing."""
    bare = event("t", "started", T0)
    del bare["attributes"]
    odd = event(
        "t", "succeeded", T0 + 1, attributes={"celery.task.retries": "x", "celery.task.name": 7}
    )
    assert assemble("t", [bare, odd], T0, 60).name == ""
    assert assemble("t", [bare], T0, 60).state == "STARTED"


STORIES = [
    *story("done", T0, "started", "succeeded"),
    *story("again", T0 + 10 * STEP_NS, "started", "retried", "started", "succeeded"),
    *story("failed", T0 + 20 * STEP_NS, "started", "failed"),
    *story("gone", T0 + 30 * STEP_NS, "started"),
    *story("killed", T0 + 40 * STEP_NS, "started", "lost"),
    *story("running", NOW - 60 * STEP_NS, "started"),
    *(
        event("other", kind, NOW - 30 * STEP_NS + number, attributes={"celery.task.name": "other"})
        for number, kind in enumerate(("started", "succeeded"))
    ),
    {**event("foreign", "succeeded", NOW - 20 * STEP_NS), "service": "elsewhere"},
]
LATEST = ["foreign", "other", "running", "killed", "gone", "failed", "again", "done"]


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        await opened.write(Signal.LOGS, STORIES)
        yield opened


async def ask(store, *pairs):
    return await tasks(store, question(pairs, now_unix_nano=NOW))


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([], LATEST),
        ([("lost", "true")], ["killed", "gone"]),
        ([("lost", "true"), ("lost_after", "30s")], ["running", "killed", "gone"]),
        ([("lost", "true"), ("lost_after", "1d")], ["killed"]),
        ([("state", "success")], ["foreign", "other", "again", "done"]),
        ([("state", "STARTED")], ["running"]),
        ([("task", "other")], ["other"]),
        ([("task", "$ne")], []),
        ([("task_id", "again")], ["again"]),
        ([("task_id", '{"$ne":""}')], []),
        ([("service", "elsewhere")], ["foreign"]),
        ([("since", "10m")], ["foreign", "other", "running"]),
        ([("until", "1h")], ["killed", "gone", "failed", "again", "done"]),
    ],
)
async def test_each_condition(store, pairs, wanted):
    """Every condition narrows the list down; tasks stand in the order of their latest event."""
    page = await ask(store, *pairs)
    assert ([task.id for task in page.tasks], page.next) == (wanted, None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("more", [(), (("lost", "true"),)])
async def test_pages_are_pages_of_one_list(store, limit, more):
    """Page behind page gives each task once, also while tasks go on in between."""
    wanted = [task.id for task in (await ask(store, *more)).tasks]
    found, cursor = [], []
    while True:
        page = await ask(store, ("limit", str(limit)), *more, *cursor)
        found += [task.id for task in page.tasks]
        if page.next is None:
            break
        cursor = [("cursor", page.next)]
        again = event("done", "received", NOW + 10**9 + len(found))
        await store.write(Signal.LOGS, [again])
    assert found == wanted


async def test_many_tasks_and_many_events(store):
    """Thousands of tasks are paged through in order, and a task with many attempts is one."""
    many = [
        each
        for number in range(1200)
        for each in story(f"m{number}", T0 + number * 1000, "started", "succeeded")
    ]
    await store.write(Signal.LOGS, many)
    await store.write(Signal.LOGS, story("often", T0, *(["started", "retried"] * 600), "started"))
    found, cursor = [], []
    while cursor is not None:
        page = await ask(store, ("limit", "500"), *cursor)
        found += page.tasks
        cursor = [("cursor", page.next)] if page.next else None
    assert len({task.id for task in found}) == len(found) == 1200 + len(LATEST) + 1
    times = [task.updated_unix_nano for task in found]
    assert times == sorted(times, reverse=True)
    often = next(task for task in found if task.id == "often")
    assert (often.attempts, often.retries) == (601, 600)


async def test_a_page_ends_early_when_it_has_looked_at_enough(store):
    """A rare state in a long range gives pages that are not full, with a cursor to go on."""
    many = [
        each
        for number in range(1100)
        for each in story(f"m{number}", T0 + HOUR + number * 1000, "started", "succeeded")
    ]
    await store.write(Signal.LOGS, many)
    pages, cursor = [], []
    while cursor is not None:
        asked = question([("lost", "true"), *cursor], now_unix_nano=NOW)
        page = await tasks(store, asked, looked_at=500)
        pages.append([task.id for task in page.tasks])
        cursor = [("cursor", page.next)] if page.next else None
    assert len(pages) >= 2
    assert [task for page in pages for task in page] == ["killed", "gone"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state", "broken"),
        ("lost", "1"),
        ("lost_after", "soon"),
        ("limit", "0"),
        ("cursor", "1.2.3.4"),
        ("text", "x"),
    ],
)
def test_a_wrong_parameter_is_named(name, text):
    """Unknown, forged and impossible parameters are refused with their name (B55)."""
    with pytest.raises(BadParameter) as caught:
        question([(name, text)], now_unix_nano=NOW)
    assert caught.value.parameter == name


def test_lost_and_another_state_contradict():
    """`lost` with a state other than LOST is refused; with LOST it is the same."""
    with pytest.raises(BadParameter, match="leave state out"):
        question([("lost", "true"), ("state", "SUCCESS")], now_unix_nano=NOW)
    asked = question([("lost", "true"), ("state", "lost")], now_unix_nano=NOW)
    assert asked.state == "LOST"
    assert "LOST" in STATES
