"""A handler that blocks the event loop: it is named, and its neighbours are not condemned for it."""

import asyncio
import contextlib
import json
import time

from telemetry.batch import BackgroundProcessor, Stop

STOP = Stop(signals=(), grace=0.05, cleanup=0.05)


def processor(handler, **options):
    return BackgroundProcessor(
        "blocked", handler, **{"key": str, "display": "off", "stop": STOP, **options}
    )


def test_neighbours_of_a_blocking_item_succeed(capsys):
    """Issue 19.2: who blocks the loop times out, named with file and line; the others do not."""

    async def handler(item, ctx):
        if item == 3:
            time.sleep(1.2)  # noqa: ASYNC251 - the fault that is looked for
        await asyncio.sleep(0.01)
        return item

    report = processor(handler, attempt_timeout=0.4).run(range(20))
    late = [outcome for outcome in report.outcomes if outcome.outcome != "success"]
    assert [(each.key, each.outcome, each.error_type) for each in late] == [
        ("3", "timeout", "timeout")
    ]
    assert f"it blocked the event loop at {__file__}:" in late[0].error
    said = capsys.readouterr().err
    assert "the handler test_neighbours_of_a_blocking_item_succeed.<locals>.handler blocks" in said
    assert f"the event loop at {__file__}:" in said


def test_what_had_no_time_is_done_by_the_next_run(tmp_path):
    """Issue 19.2: items that time out because of the loop are no result; exit code 75 asks again."""
    calls = []

    async def handler(item, ctx):
        calls.append(item)
        if item == 0 and len(calls) <= 4:
            time.sleep(1.0)  # noqa: ASYNC251 - as above
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
            time.sleep(1.0)  # noqa: ASYNC251 - goes on although it was cancelled
        await asyncio.sleep(1.2 if len(calls) <= 4 else 0.01)
        return item

    journal = tmp_path / "j.jsonl"
    first = processor(handler, journal=journal, attempt_timeout=0.5, concurrency=4).run(range(4))
    assert first.exit_code == 75
    assert sorted(first.interrupted) == ["1", "2", "3"]
    assert first.errors["loop_blocked"]["count"] == 3
    second = processor(handler, journal=journal, attempt_timeout=0.5, concurrency=4).run(range(4))
    assert sorted(calls[4:]) == [1, 2, 3]
    assert (second.counts["success"], second.counts["resumed"]) == (3, 1)
    items = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["outcome"] for line in items if line["type"] == "item"].count("success") == 3


def test_an_item_that_is_slow_by_itself_times_out(capsys):
    """Issue 19.2: a loop that is not blocked excuses no one."""

    async def handler(item, ctx):
        await asyncio.sleep(30)

    report = processor(handler, attempt_timeout=0.1).run([1])
    assert [(outcome.error_type, outcome.error) for outcome in report.outcomes] == [
        ("timeout", "no end within 0.1 s")
    ]
    assert "blocks the event loop" not in capsys.readouterr().err
