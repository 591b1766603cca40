"""What a BackgroundProcessor promises about items, in this process."""

import asyncio
import contextlib
import json
import threading
import time

import pytest

from telemetry.batch import (
    BackgroundProcessor,
    BatchError,
    DuplicateKey,
    JournalInUse,
    JournalUnusable,
    Limits,
    Rate,
    Retry,
    RetryAfter,
    Skip,
    Stop,
    is_transient,
)
from telemetry.testing import capture

NOW = Retry(attempts=3, backoff=(0.0, 0.0), on=Exception)
SOON = Stop(signals=(), grace=0.05, cleanup=0.05)


def processor(handler, **options):
    options = {"key": str, "display": "off", "stop": SOON, **options}
    return BackgroundProcessor("leads", handler, **options)


def counts(report):
    return {word: count for word, count in report.counts.items() if count}


async def double(item, ctx):
    await asyncio.sleep(0)
    return item * 2


def test_each_item_has_an_outcome():
    """L1: one item's error is that item's outcome; the others go on."""

    async def handler(item, ctx):
        if item == 2:
            raise ValueError("two")
        if item == 3:
            raise Skip("three")
        return item * 2

    report = processor(handler).run([1, 2, 3, 4])
    assert [
        (outcome.key, outcome.outcome, outcome.result, outcome.error_type, outcome.error)
        for outcome in sorted(report.outcomes, key=lambda outcome: outcome.key)
    ] == [
        ("1", "success", 2, None, None),
        ("2", "failure", None, "ValueError", "two"),
        ("3", "skip", None, "telemetry._batch.types.Skip", "three"),
        ("4", "success", 8, None, None),
    ]
    assert (report.result, report.exit_code, report.stopped_by) == ("success", 0, None)
    assert report.errors == {"ValueError": {"count": 1, "keys": ("2",)}}


def test_a_plain_function_runs_in_threads():
    """L1: a handler may be a plain function; calls run at the same time, and see the context."""
    barrier = threading.Barrier(4, timeout=20)

    def handler(item, ctx):
        barrier.wait()
        return ctx.key, ctx.attempt

    report = processor(handler, concurrency=4).run([1, 2, 3, 4])
    assert sorted(outcome.result for outcome in report.outcomes) == [
        ("1", 1),
        ("2", 1),
        ("3", 1),
        ("4", 1),
    ]


def test_a_function_that_gives_a_coroutine():
    """L1: what a plain function returns is awaited if it can be."""

    def handler(item, ctx):
        return double(item, ctx)

    report = processor(handler).run([1, 2])
    assert sorted(outcome.result for outcome in report.outcomes) == [2, 4]


def test_concurrency_is_bounded():
    """L1: never more items at a time than `concurrency`."""
    now, most = 0, 0

    async def handler(item, ctx):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    processor(handler, concurrency=3).run(range(30))
    assert most == 3


def test_retries_and_their_cost():
    """L1, L7: a transient error is tried again; the cost of failed attempts counts."""

    async def handler(item, ctx):
        ctx.add_cost(0.25, tokens_in=10, tokens_out=1)
        if ctx.attempt < item:
            raise ConnectionError("down")
        return "up"

    report = processor(handler, retry=NOW).run([1, 3, 5])
    by_key = {outcome.key: outcome for outcome in report.outcomes}
    assert {key: (outcome.outcome, outcome.attempts) for key, outcome in by_key.items()} == {
        "1": ("success", 1),
        "3": ("success", 3),
        "5": ("failure", 3),
    }
    assert by_key["3"].cost.amount == 0.75
    assert (report.cost.amount, report.cost.tokens_in, report.cost.tokens_out) == (1.75, 70, 7)


def test_without_retry_an_item_is_tried_once():
    """L1: trying again is asked for, since it may be paid for."""
    tried = []

    async def handler(item, ctx):
        tried.append(item)
        raise ConnectionError

    processor(handler).run([1])
    assert tried == [1]


def test_what_is_transient():
    """L1: by default time-outs, connection errors, 408, 429, 5xx and Retry-After are tried again."""

    class Answer(Exception):
        def __init__(self, status_code):
            self.status_code = status_code

    worth = [TimeoutError(), ConnectionResetError(), RetryAfter(1), Answer(429), Answer(503)]
    assert [is_transient(error) for error in worth] == [True] * 5
    assert [is_transient(error) for error in (ValueError(), Answer(404), KeyError())] == [False] * 3


def test_attempts_time_out_and_are_tried_again():
    """L1: an attempt that takes too long is cancelled; the item may have another."""

    async def handler(item, ctx):
        if ctx.attempt == 1:
            await asyncio.sleep(3600)
        return ctx.attempt

    report = processor(handler, attempt_timeout=0.05, retry=NOW).run([1])
    assert [outcome.result for outcome in report.outcomes] == [2]


def test_an_item_times_out_over_its_attempts():
    """L1: the item's time is over all attempts; then its outcome is `timeout`."""

    async def handler(item, ctx):
        await asyncio.sleep(3600)

    report = processor(handler, attempt_timeout=0.03, item_timeout=0.05, retry=NOW).run([1, 2])
    assert counts(report) == {"timeout": 2}
    assert [(outcome.error_type, outcome.attempts) for outcome in report.outcomes] == [
        ("timeout", 2),
        ("timeout", 2),
    ]


def test_a_handler_that_ignores_cancellation_times_out():
    """L1: a handler that swallows its cancellation costs its item, and no other."""

    async def handler(item, ctx):
        while item == 1:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return "fine"

    report = processor(handler, attempt_timeout=0.05, concurrency=1).run([1, 2, 3])
    assert counts(report) == {"timeout": 1, "success": 2}
    assert report.abandoned == 1


def test_a_blocked_thread_times_out_and_is_not_tried_again():
    """L1: a function that does not return costs its item; trying again could pay twice."""
    release = threading.Event()
    starts = []

    def handler(item, ctx):
        starts.append(item)
        if item == 1:
            release.wait(60)
        return "fine"

    report = processor(handler, attempt_timeout=0.05, concurrency=1, retry=NOW).run([1, 2])
    release.set()
    assert counts(report) == {"timeout": 1, "success": 1}
    assert starts == [1, 2]


def test_a_function_can_watch_for_its_cancellation():
    """L1: a function that waits with `ctx.wait` ends when its time is over."""
    noticed = []

    def handler(item, ctx):
        noticed.append(ctx.wait(3600))

    report = processor(handler, attempt_timeout=0.05).run([1])
    assert noticed == [True]
    assert (counts(report), report.abandoned) == ({"timeout": 1}, 0)


def test_a_deadline_ends_with_what_there_is():
    """L1: at the deadline the run ends with partial results and tells what is left."""

    async def handler(item, ctx):
        if item >= 2:
            await asyncio.sleep(3600)
        return item

    report = processor(handler, concurrency=2, deadline=1).run(range(6))
    assert (report.result, report.exit_code, report.stopped_by) == ("partial", 124, "deadline")
    assert counts(report) == {"success": 2, "cancellation": 2}
    assert sorted(report.interrupted) == ["2", "3"]
    assert (report.not_started, report.not_started_keys) == (2, ("4", "5"))
    assert report.resume_hint == "run the same command again: 4 of 6 items are left"


def test_a_deadline_with_nothing_done():
    """L1: a deadline before the first result is a timeout, with the same exit code."""

    async def handler(item, ctx):
        await asyncio.sleep(3600)

    report = processor(handler, deadline=0.05).run([1])
    assert (report.result, report.exit_code) == ("timeout", 124)


def test_the_cost_limit_stops():
    """L1, L7: when the budget is spent nothing new starts, and what runs is finished."""

    async def handler(item, ctx):
        ctx.add_cost(1)
        await asyncio.sleep(0.001)

    report = processor(handler, concurrency=2, limits=Limits(cost=3)).run(range(20))
    assert (report.result, report.exit_code, report.stopped_by) == ("budget", 75, "cost")
    assert 3 <= report.cost.amount == report.counts["success"] <= 5
    assert report.counts["success"] + report.not_started == 20
    assert report.interrupted == ()


def test_too_many_failures_stop():
    """L1: when the share of failures cannot come back below the limit, the run stops."""

    async def handler(item, ctx):
        await asyncio.sleep(0)
        raise ValueError

    report = processor(handler, concurrency=1, limits=Limits(failures=0.1)).run(range(100))
    assert (report.result, report.exit_code, report.stopped_by) == ("failure", 1, "failures")
    assert counts(report) == {"failure": 11}


def test_failures_within_the_limit_are_fine():
    """L1: failures up to the limit end with 0, above it with 1, wherever they were made."""

    async def handler(item, ctx):
        if item < 10:
            raise ValueError

    async def last(item, ctx):
        if item >= 89:
            raise ValueError

    assert processor(handler, limits=Limits(failures=0.1)).run(range(100)).exit_code == 0
    assert processor(last, limits=Limits(failures=0.1)).run(range(100)).exit_code == 1


def test_nothing_but_failures_is_a_failure():
    """L1: without a limit a run still fails when nothing came of it."""

    async def handler(item, ctx):
        raise ValueError

    assert processor(handler).run([1, 2]).exit_code == 1
    assert processor(handler).run([]).exit_code == 0


def test_failures_in_a_row_are_an_outage():
    """L1: so many failures in a row stop the run, to be resumed later."""

    async def handler(item, ctx):
        if item >= 10:
            raise ConnectionError("down")

    limits = Limits(consecutive_failures=5)
    report = processor(handler, concurrency=1, limits=limits).run(range(100))
    assert (report.exit_code, report.stopped_by) == (75, "consecutive_failures")
    assert counts(report) == {"success": 10, "failure": 5}
    assert report.not_started == 85


def test_duplicate_keys_are_refused_before_anything_starts():
    """L3: a key that comes twice in a collection is an error, found before it costs anything."""
    seen = []

    async def handler(item, ctx):
        seen.append(item)

    with pytest.raises(DuplicateKey, match="'1' comes twice"):
        processor(handler).run([1, 2, 1])
    assert seen == []
    assert processor(handler).main([1, 2, 1]) == 2


def test_duplicate_keys_may_be_skipped():
    """L3: `duplicates="skip"` works on the first item of a key."""
    report = processor(double, duplicates="skip").run([1, 2, 1])
    assert counts(report) == {"success": 2, "skip": 1}


def test_a_duplicate_in_a_stream_fails_alone():
    """L3: an iterator cannot be checked beforehand: the second item of a key fails."""
    report = processor(double, concurrency=1).run(iter([1, 1, 2]), total=3)
    assert counts(report) == {"success": 2, "failure": 1}
    assert report.errors == {"duplicate_key": {"count": 1, "keys": ("1",)}}


def test_any_iterable():
    """L1: items come from lists, generators and async generators, with or without a total."""

    async def slowly():
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    for items in ([0, 1, 2, 3, 4], (number for number in range(5)), slowly()):
        report = processor(double).run(items)
        assert (report.total, report.counts["success"], report.not_started) == (5, 5, 0)


def test_an_endless_source_ends_with_the_deadline():
    """L1: an async source that gives nothing more cannot hold up the end."""

    async def source():
        yield 1
        await asyncio.sleep(3600)

    report = processor(double, deadline=0.1).run(source())
    assert (report.result, report.total, report.not_started) == ("partial", None, None)
    assert counts(report) == {"success": 1}


def test_a_source_that_fails_ends_the_run_in_order():
    """L1: when the items cannot be read on, what was read is finished, and the run says so."""

    def source():
        yield 1
        yield 2
        raise OSError("the database is gone")

    report = processor(double, concurrency=1).run(source())
    assert (report.result, report.stopped_by, report.exit_code) == ("partial", "source", 75)
    assert counts(report) == {"success": 2}


class Nasty(BaseException):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), Nasty(), StopIteration(1)])
@pytest.mark.parametrize("kind", ["async", "thread"])
def test_whatever_a_handler_raises(error, kind):
    """L1: SystemExit, errors that cannot be printed: an item's failure, never the run's."""

    def handler(item, ctx):
        if item == 1:
            raise error
        return "fine"

    async def coroutine(item, ctx):
        return handler(item, ctx)

    report = processor(coroutine if kind == "async" else handler).run([1, 2, 3])
    assert counts(report) == {"failure": 1, "success": 2}


def test_a_cancelled_error_of_the_handlers_own():
    """L1: a handler whose own task was cancelled has failed; that is no stop of the run."""

    async def handler(item, ctx):
        if item == 1:
            raise asyncio.CancelledError
        return "fine"

    report = processor(handler).run([1, 2])
    assert counts(report) == {"failure": 1, "success": 1}


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


def test_hostile_items_and_keys():
    """L1: an item without a usable key fails alone; items are never printed."""
    items = [Hostile(), Hostile()]
    report = processor(double).run([*items, 1])
    assert counts(report) == {"failure": 2, "success": 1}
    keyed = processor(lambda item, ctx: item, key=id).run(items)
    assert counts(keyed) == {"success": 2}


def test_costs_that_are_no_numbers():
    """L7: a cost that is no finite number is not counted and hurts nobody."""

    async def handler(item, ctx):
        for amount in (float("nan"), float("inf"), "much", None):
            ctx.add_cost(amount)
        ctx.add_cost("0.5")

    assert processor(handler).run([1]).cost.amount == 0.5


def test_a_pause_holds_back_everybody():
    """L1: a Retry-After that one item was given delays the start of all."""
    starts = []

    async def handler(item, ctx):
        starts.append((item, time.monotonic()))
        if (item, ctx.attempt) == (0, 1):
            raise RetryAfter(0.3)

    report = processor(handler, concurrency=1, retry=NOW).run([0, 1])
    assert counts(report) == {"success": 2}
    assert [item for item, _ in starts] == [0, 0, 1]
    assert starts[1][1] - starts[0][1] >= 0.3


def test_the_rate_spaces_starts():
    """L1: `Rate` spaces the starts of all workers together."""
    starts = []

    async def handler(item, ctx):
        starts.append(time.monotonic())

    processor(handler, concurrency=8, rate=Rate(100)).run(range(10))
    assert starts[-1] - starts[0] >= 0.09 - 0.002


@pytest.mark.anyio
async def test_stream_gives_outcomes_as_they_come():
    """L1: `stream` yields each outcome, and the report is there at its end."""
    batch = processor(double)
    results = {outcome.key: outcome.result async for outcome in batch.stream(range(20))}
    assert results == {str(number): number * 2 for number in range(20)}
    assert batch.report.counts["success"] == 20


@pytest.mark.anyio
async def test_leaving_a_stream_cancels_what_runs(tmp_path):
    """L1: leaving the loop early ends the run in order, with its journal closed."""

    async def handler(item, ctx):
        if item:
            await asyncio.sleep(3600)

    batch = processor(handler, journal=tmp_path / "j")
    stream = batch.stream(range(5))
    async for outcome in stream:
        assert outcome.key == "0"
        break
    await stream.aclose()
    assert (batch.report.counts["success"], len(batch.report.interrupted)) == (1, 4)
    assert (await processor(double, journal=tmp_path / "j").arun(range(5))).exit_code == 0


@pytest.mark.anyio
async def test_cancelling_arun_ends_in_order(tmp_path):
    """L2: who cancels `arun` gets its cancellation, after the run has written its state."""

    async def handler(item, ctx):
        await asyncio.sleep(3600)

    batch = processor(handler, journal=tmp_path / "j")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(batch.arun(range(3)), 0.1)
    assert len(batch.report.interrupted) == 3
    await processor(double, journal=tmp_path / "j").arun(range(3))


@pytest.mark.anyio
async def test_run_inside_a_loop_names_the_fix():
    """L1: `run` inside a running loop says what to call instead."""
    with pytest.raises(RuntimeError, match="await arun"):
        processor(double).run([1])


def test_stop_from_another_thread():
    """L2: `stop` drains as a signal does, from any thread."""
    batch = None

    async def handler(item, ctx):
        if item == 3:
            thread = threading.Thread(target=batch.stop)
            thread.start()
            thread.join()
        await asyncio.sleep(0.001)

    batch = processor(handler, concurrency=1)
    report = batch.run(range(10))
    assert (report.result, report.exit_code, report.stopped_by) == ("cancellation", 75, "stop")
    assert (report.counts["success"], report.not_started) == (4, 6)


def test_what_was_finished_is_not_done_again(tmp_path):
    """L3: resumed items come with the result that the journal kept."""
    journal = tmp_path / "leads.jsonl"
    processor(double, journal=journal).run([1, 2])

    async def never(item, ctx):
        pytest.fail("paid twice")

    report = processor(never, journal=journal).run([2, 1])
    assert [
        (outcome.key, outcome.outcome, outcome.earlier, outcome.result)
        for outcome in report.outcomes
    ] == [("2", "resumed", "success", 4), ("1", "resumed", "success", 2)]
    assert (report.attempt, report.exit_code) == (2, 0)


def test_what_resume_means(tmp_path):
    """L3: `unfinished` keeps failures, `failed` works on them again, `all` on everything."""
    journal = tmp_path / "leads.jsonl"

    async def odd(item, ctx):
        if item % 2:
            raise ValueError

    def again(resume, handler=double):
        return counts(processor(handler, journal=journal, resume=resume).run(range(4)))

    assert again("unfinished", odd) == {"success": 2, "failure": 2}
    assert again("unfinished") == {"resumed": 4}
    assert again("failed") == {"success": 2, "resumed": 2}
    assert again("all") == {"success": 4}
    with pytest.raises(JournalUnusable, match="holds 4 finished items"):
        again(False)


def test_failures_of_earlier_runs_count_for_the_exit_code(tmp_path):
    """L3: a resumed run that only finds old failures does not call itself a success."""

    async def handler(item, ctx):
        raise ValueError

    for _ in range(2):
        assert processor(handler, journal=tmp_path / "j").run([1, 2]).exit_code == 1


def test_a_journal_is_held_within_a_process_too(tmp_path):
    """L3: a second run on the same journal in the same process is refused as well."""

    async def outer(item, ctx):
        with pytest.raises(JournalInUse):
            await processor(double, journal=tmp_path / "j").arun([1])
        return "refused"

    report = processor(outer, journal=tmp_path / "j").run([1])
    assert [outcome.result for outcome in report.outcomes] == ["refused"]


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"deadline": 0},
        {"attempt_timeout": -1},
        {"item_timeout": float("inf")},
        {"resume": "everything"},
        {"resume": True},
        {"fsync": "often"},
        {"display": "both"},
        {"spans": "many"},
        {"duplicates": "maybe"},
        {"key": "id"},
        {"fingerprint": object()},
    ],
)
def test_bad_arguments_are_refused_at_once(options):
    """L1: what cannot work is a ValueError that names the argument and the fix."""
    with pytest.raises(ValueError, match=next(iter(options))):
        processor(double, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rate(0),
        lambda: Rate(1, burst=0),
        lambda: Retry(attempts=0),
        lambda: Retry(backoff=(2, 1)),
        lambda: Limits(failures=10),
        lambda: Limits(cost=-1),
        lambda: Stop(signals=("SIGNOT",)),
        lambda: Stop(grace=-1),
        lambda: BackgroundProcessor("no/slash", double, key=str),
    ],
)
def test_bad_options_are_refused_at_once(make):
    """L1: so are options that cannot work."""
    with pytest.raises(ValueError, match="give"):
        make()


def test_items_that_cannot_be_read():
    """L1: what is no iterable is refused with the fix."""
    with pytest.raises(BatchError, match="iterable"):
        processor(double).run(5)


def together(first, log):
    """A handler whose first items all end in the same turn of the loop."""
    all_here = asyncio.Event()

    async def handler(item, ctx):
        log(f"begun {item}")
        if item < first:
            if item == first - 1:
                all_here.set()
            await all_here.wait()
        else:
            await asyncio.sleep(0)
        return item

    return handler


def test_items_with_spans_that_end_together_are_followed_one_by_one():
    """L9: the next item begins before the one after it is prepared, not when all are."""
    seen = []

    def items():
        for number in range(8):
            seen.append(f"taken {number}")
            yield number

    with capture():
        processor(together(4, seen.append), concurrency=4).run(items())
    assert seen.index("begun 4") < seen.index("taken 6")
    assert seen.index("begun 5") < seen.index("taken 7")


def test_what_has_ended_is_told_when_the_next_one_has_begun(tmp_path):
    """L9: the next item does not wait until those that ended together are counted and told."""
    results = tmp_path / "results.jsonl"
    told = {}

    def log(word):
        told[word] = len(results.read_text().splitlines())

    processor(together(4, log), concurrency=4, results=results).run(range(8))
    assert told["begun 4"] == 0
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["type"] for line in lines] == ["item"] * 8 + ["summary"]


def test_what_is_told_late_is_told_once_and_in_order(tmp_path):
    """L9: an error, which is told at once, comes after what ended before it."""
    results = tmp_path / "results.jsonl"

    async def handler(item, ctx):
        await asyncio.sleep(0)
        if item % 3 == 2:
            raise ValueError

    processor(handler, concurrency=1, results=results).run(range(9))
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["key"] for line in lines if line["type"] == "item"] == list("012345678")


def test_what_has_ended_is_in_the_journal_before_anything_else_begins(tmp_path):
    """L3: items that end together are all written down before the next handler is called."""
    journal = tmp_path / "journal.jsonl"
    written = {}

    def log(word):
        lines = map(json.loads, journal.read_text().splitlines())
        written[word] = {line["key"] for line in lines if line["type"] == "item"}

    report = processor(together(4, log), concurrency=4, journal=journal).run(range(8))
    assert written["begun 3"] == set()
    assert written["begun 4"] == {"0", "1", "2", "3"}
    assert report.counts["success"] == 8
