"""A batch that is stopped, killed and resumed, as a real process."""

import random
import signal

import pytest

ITEMS = 500
EVERY = {f"lead-{number}" for number in range(ITEMS)}
FAILING = {f"lead-{number}" for number in range(0, ITEMS, 13)}


def check_done(batch, finished_before):
    """Each item has exactly one terminal record; what was finished before did not start again."""
    assert batch.terminal() == dict.fromkeys(EVERY, 1)
    starts = batch.noted("start")
    for key, count in finished_before.items():
        assert starts[key] == count, f"{key} was finished and ran again"
    outcomes = {line["key"]: line["outcome"] for line in batch.lines() if line["type"] == "item"}
    assert {key for key, word in outcomes.items() if word == "failure"} == FAILING


def finished(batch):
    """Key -> how often it has started, for each item that has a terminal record."""
    starts = batch.noted("start")
    return {key: starts[key] for key in batch.terminal()}


def test_stopped_killed_and_resumed(batch):
    """L1-L3: a deadline, a SIGTERM, a kill -9 and a resume: each item one result, none paid twice."""
    before = {}
    assert batch.run(ITEMS, deadline=0.1) == 124
    told = batch.report
    assert (told["result"], told["stopped_by"]) == ("partial", "deadline")
    assert sum(told["counts"].values()) + told["not_started"] == told["total"] == ITEMS
    before |= finished(batch)

    process = batch.start(ITEMS)
    goal = len(before) + 60
    batch.wait_for(lambda: len(batch.terminal()) >= goal)
    process.send_signal(signal.SIGTERM)
    assert batch.end(process) == 143
    told = batch.report
    assert (told["result"], told["stopped_by"]) == ("cancellation", "signal")
    assert told["counts"]["resumed"] == len(before)
    assert told["interrupted"] == []  # the first signal lets what runs finish
    assert sum(told["counts"].values()) + told["not_started"] == ITEMS
    before = {**finished(batch), **before}

    process = batch.start(ITEMS)
    goal = len(before) + 60
    batch.wait_for(lambda: len(batch.terminal()) >= goal)
    process.kill()
    assert batch.end(process) == -signal.SIGKILL
    before = {**finished(batch), **before}

    assert batch.run(ITEMS) == 0
    told = batch.report
    assert told["result"] == "success"
    assert told["counts"]["resumed"] >= len(before)
    assert told["not_started"] == 0
    assert sum(told["counts"].values()) == ITEMS
    check_done(batch, before)


def kill_at_random(batch, kills, dice):
    """Kill the batch again and again, at moments chosen by how far its journal has come."""
    before = {}
    for _ in range(kills):
        process = batch.start(ITEMS, sleep=0.002, concurrency=4, pad=dice.randrange(300))
        goal = batch.journal.stat().st_size if batch.journal.exists() else 0
        goal += dice.randrange(100, 3000)
        batch.wait_for(
            lambda process=process, goal=goal: (
                process.poll() is not None
                or (batch.journal.exists() and batch.journal.stat().st_size >= goal)
            )
        )
        process.kill()
        batch.end(process)
        before = {**finished(batch), **before}
    assert batch.run(ITEMS, sleep=0.0) == 0, batch.stderr
    told = batch.report
    assert sum(told["counts"].values()) == told["total"] == ITEMS
    check_done(batch, before)


def test_ten_random_kills(batch):
    """L3: kill -9 at ten random points of the journal loses and repeats no finished item."""
    kill_at_random(batch, 10, random.Random(20261122))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_random_kills(batch, seed):
    """L3: the same, a hundred times."""
    kill_at_random(batch, 10, random.Random(seed))


def test_reordered_input_resumes_by_key(batch):
    """L3: items are recognised by their keys, wherever they stand in the input."""
    assert batch.run(40, deadline=0.02, concurrency=2) == 124
    before = finished(batch)
    assert batch.run(40, reverse=True) == 0
    starts = batch.noted("start")
    assert all(starts[key] == count for key, count in before.items())
    assert batch.terminal() == {f"lead-{number}": 1 for number in range(40)}


def test_a_changed_fingerprint_makes_results_void(batch):
    """L3: when what the results depend on changes, all items are worked on again."""
    assert batch.run(20, fingerprint=["prompt-v1"]) == 0
    assert batch.run(20, fingerprint=["prompt-v1"]) == 0
    assert batch.noted("start").total() == 20
    assert batch.run(20, fingerprint=["prompt-v2"]) == 0
    assert batch.noted("start") == {f"lead-{number}": 2 for number in range(20)}


def test_a_second_run_on_a_journal_is_refused(batch):
    """L3: two runs never share a journal; the message names the pid, and the exit code is 2."""
    process = batch.start(500, sleep=0.5)
    batch.wait_for(lambda: batch.noted("start").total() > 0)
    assert batch.run(500) == 2
    assert f"another run works on this journal (pid {process.pid})" in batch.stderr
    assert "Traceback" not in batch.stderr
    process.kill()
