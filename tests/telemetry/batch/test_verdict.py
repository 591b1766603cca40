"""How a batch ends when items fail, and what it refuses before anything is paid."""

import asyncio
import datetime as dt
import functools

import pytest

from telemetry.batch import BackgroundProcessor, Limits, Rate, Retry, Stop

STOP = Stop(signals=(), grace=0.05, cleanup=0.05)


def processor(handler, **options):
    return BackgroundProcessor(
        "verdict", handler, **{"key": str, "display": "off", "stop": STOP, **options}
    )


def failing(wanted):
    calls = []

    async def handler(item, ctx):
        calls.append(item)
        await asyncio.sleep(0)
        if wanted(item):
            raise ValueError("bad")

    return handler, calls


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (50, 0), (51, 1), (99, 1), (100, 1)])
def test_more_than_half_failed_is_a_failure(failures, code):
    """Issue 19.3: without a limit the exit code is 1 above half, and the report says the limit."""
    handler, _ = failing(lambda item: item < failures)
    report = processor(handler).run(range(100))
    assert report.exit_code == code
    assert ("limit of failures 50 %" in str(report)) is bool(code)


def test_a_limit_stops_a_generator():
    """Issue 19.3: of items without a known number the share is of those done, once they are 50."""
    handler, calls = failing(lambda item: True)
    report = processor(handler, concurrency=1, limits=Limits(failures=0.1)).run(
        item for item in range(500)
    )
    assert (report.stopped_by, report.exit_code, len(calls)) == ("failures", 1, 6)


def test_a_limit_leaves_a_good_generator_alone():
    """Issue 19.3: a share below the limit, however spread, stops nothing."""
    handler, calls = failing(lambda item: item % 20 == 0)
    report = processor(handler, concurrency=1, limits=Limits(failures=0.1)).run(
        item for item in range(500)
    )
    assert (report.stopped_by, report.exit_code, len(calls)) == (None, 0, 500)


def test_a_limit_is_for_all_runs_of_a_journal(tmp_path):
    """Issue 19.3: running again pays for no more failures; what failed can be asked for again."""
    handler, calls = failing(lambda item: True)
    options = {"journal": tmp_path / "j.jsonl", "limits": Limits(failures=0.1), "concurrency": 1}
    reports = [processor(handler, **options).run(range(100)) for _ in range(3)]
    assert [report.exit_code for report in reports] == [1, 1, 1]
    assert len(calls) == 11
    assert reports[-1].resume_hint.endswith("resume='failed'")
    again, called = failing(lambda item: False)
    report = processor(again, **options, resume="failed").run(range(100))
    assert (report.exit_code, len(called)) == (0, 100)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"retry": 3}, r"retry=3 cannot be used; give Retry\(attempts=3\)"),
        ({"rate": 5}, r"rate=5 cannot be used; give Rate\(5, per=1\)"),
        ({"limits": {"failures": 0.1}}, r"give Limits\(failures=0.1\)"),
        ({"stop": 5}, r"stop=5 cannot be used; give Stop\(grace=20\)"),
        ({"deadline": dt.timedelta(minutes=5)}, "give seconds: deadline=300"),
        ({"item_timeout": "5"}, "item_timeout='5' cannot be used; give a number above 0"),
    ],
)
def test_arguments_of_the_wrong_kind(options, form):
    """Issue 19.5: refused when the processor is made, with the right form."""
    with pytest.raises(ValueError, match=form):
        processor(failing(bool)[0], **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(attempts="3"),
        lambda: Retry(attempts=2.5),
        lambda: Retry(backoff=1),
        lambda: Retry(backoff=("1", "2")),
        lambda: Rate("5"),
        lambda: Rate(5, burst=1.5),
        lambda: Limits(failures="10%"),
        lambda: Limits(cost="5"),
        lambda: Limits(run_cost=0),
        lambda: Limits(consecutive_failures=2.5),
        lambda: Stop(grace="20"),
        lambda: Stop(cleanup=dt.timedelta(seconds=2)),
    ],
)
def test_options_of_the_wrong_kind(make):
    """Issue 19.5: an option refuses what is no number with a ValueError, not with a crash later."""
    with pytest.raises(ValueError, match="give"):
        make()


def test_handlers_that_cannot_be_called():
    """Issue 19.5: a handler that does not take an item and its context is refused at the start."""

    class Named:
        def method(self, item, ctx):
            return item

    def bad_none():
        return None

    for handler in (
        bad_none,
        lambda item: item,
        lambda a, b, c: a,
        lambda item, ctx, *, must: item,
    ):
        with pytest.raises(ValueError, match=r"cannot be called with \(item, ctx\)"):
            processor(handler)
    for handler in (
        Named().method,
        lambda *args: args[0],
        lambda item, ctx, more=1: item,
        functools.partial(lambda more, item, ctx: item, 1),
    ):
        assert processor(handler).run([1]).exit_code == 0
