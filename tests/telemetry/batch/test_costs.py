"""What a batch spends: counted to the cent, over all runs, with the calls of language models in it."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from fractions import Fraction

import pytest
from click.testing import CliRunner

from telemetry import llm
from telemetry._cli.progress import progress as command
from telemetry.batch import BackgroundProcessor, Limits, Retry, Stop
from telemetry.testing import capture

STOP = Stop(signals=(), grace=0.05, cleanup=0.05)


def processor(handler, **options):
    return BackgroundProcessor(
        "costs", handler, **{"key": str, "display": "off", "stop": STOP, **options}
    )


def paid(journal):
    """The sum of a journal, by exact arithmetic on its text."""
    lines = [json.loads(line, parse_float=Fraction) for line in journal.read_text().splitlines()]
    return sum((Fraction(line.get("cost") or 0) for line in lines), Fraction(0))


def test_an_amount_counts_without_tokens(capsys):
    """Issue 19.1: tokens that are None or nonsense do not take the amount with them."""

    async def handler(item, ctx):
        ctx.add_cost(1.0, tokens_in=None, tokens_out=None)
        ctx.add_cost("0.25", tokens_in=2.5, tokens_out=-1)
        ctx.add_cost(0, tokens_in=3, tokens_out=4)

    report = processor(handler).run([1, 2])
    assert (report.cost.amount, report.cost.tokens_in, report.cost.tokens_out) == (2.5, 6, 8)
    assert "give a whole number, 0 or more" in capsys.readouterr().err


def test_a_negative_cost_is_not_counted(capsys):
    """Issue 19.1: nothing moves a limit away."""

    async def handler(item, ctx):
        ctx.add_cost(1)
        ctx.add_cost(-100)

    report = processor(handler, concurrency=1, limits=Limits(cost=5)).run(range(50))
    assert (report.cost.amount, report.counts["success"]) == (5.0, 5)
    assert "add_cost(-100) is not counted; give 0 or more" in capsys.readouterr().err


def test_sums_are_exact():
    """Issue 19.1: a thousand times a tenth of a cent is a dollar, as fractions say."""
    amounts = [random.Random(7).randrange(1, 10**6) for _ in range(1000)]

    async def handler(item, ctx):
        ctx.add_cost(amounts[item] / 10**6)

    report = processor(handler).run(range(1000))
    assert report.cost.amount == float(sum(Fraction(amount, 10**6) for amount in amounts))


def test_a_limit_is_for_all_runs_of_a_journal(tmp_path):
    """Issue 19.1: running the same command again spends nothing more, and says why."""
    journal = tmp_path / "j.jsonl"
    calls = []

    async def handler(item, ctx):
        calls.append(item)
        ctx.add_cost(0.25)

    reports = [
        processor(handler, journal=journal, concurrency=1, limits=Limits(cost=1.0)).run(range(20))
        for _ in range(5)
    ]
    assert len(calls) == 4
    assert [report.cost.amount for report in reports] == [1.0, 0, 0, 0, 0]
    assert [(report.cost_all_runs.amount, report.exit_code) for report in reports] == [
        (1.0, 75)
    ] * 5
    assert reports[-1].resume_hint == "1 of 1 is spent: raise the limit to go on with what is left"
    more = processor(handler, journal=journal, concurrency=1, limits=Limits(cost=2.0))
    assert more.run(range(20)).cost_all_runs.amount == 2.0
    assert paid(journal) == 2


def test_a_limit_of_each_run(tmp_path):
    """Issue 19.1: `run_cost` is what each run may spend; a journal that is done is no budget."""

    async def handler(item, ctx):
        ctx.add_cost(1)

    def run(limits):
        made = processor(handler, journal=tmp_path / "j.jsonl", concurrency=1, limits=limits)
        return made.run(range(5))

    assert [run(Limits(run_cost=2)).cost_all_runs.amount for _ in range(3)] == [2, 4, 5]
    done = run(Limits(cost=5))
    assert (done.exit_code, done.result, done.counts["resumed"]) == (0, "success", 5)


@pytest.mark.parametrize("threads", [False, True])
def test_calls_of_language_models_count_by_themselves(threads):
    """Issue 19.1: cost and tokens of `llm.call` reach the item, the run, the limit and the span."""

    def asked():
        with llm.call(provider="openai", model="m") as call:
            call.tokens(input=10, output=5)
            call.cost(0.01)

    def plain(item, ctx):
        asked()

    async def coroutine(item, ctx):
        await asyncio.sleep(0)
        asked()

    handler = plain if threads else coroutine
    with capture() as captured:
        report = processor(handler, concurrency=1, limits=Limits(cost=0.05)).run(range(100))
    assert (report.cost.amount, report.cost.tokens_in, report.cost.tokens_out) == (0.05, 50, 25)
    costs = [span["attributes"].get("batch.item.cost") for span in captured.spans]
    assert [cost for cost in costs if cost is not None] == [0.01] * 5


def test_a_cost_that_is_added_and_called_counts_once():
    """Issue 19.1: what a handler adds inside a call is that call's cost; a failed call counts too."""

    async def handler(item, ctx):
        with llm.chain("models"):
            with llm.call(provider="a", model="m") as call:
                call.tokens(input=7, output=1)
                call.cost(0.04)
                ctx.add_cost(0.04, 7, 1)
                call.reject("low")
            with llm.call(provider="b", model="n") as call:
                call.tokens(input=2, output=2)
                call.cost(0.10)
                ctx.add_cost(0.03)
                raise ConnectionError("gone")

    report = processor(handler, retry=Retry(attempts=2, backoff=(0, 0))).run([1])
    assert (report.cost.amount, report.cost.tokens_in, report.cost.tokens_out) == (0.28, 18, 6)


def test_another_currency_does_not_count(capsys):
    """Issue 19.1: amounts of two currencies are never added up."""

    async def handler(item, ctx):
        with llm.call(provider="a", model="m") as call:
            call.cost(2, "EUR")

    assert processor(handler).run([1]).cost.amount == 0
    assert processor(handler, limits=Limits(currency="EUR")).run([1]).cost.amount == 2
    assert "set Limits(currency=...)" in capsys.readouterr().err


PROGRAM = """
import asyncio, sys
from telemetry.batch import BackgroundProcessor

async def handler(item, ctx):
    ctx.add_cost("0.37")
    await asyncio.sleep(0.004)

made = BackgroundProcessor("killed", handler, key=str, journal=sys.argv[1], display="off", concurrency=4)
print(made.run(range(400)).cost_all_runs.amount)
"""


def test_twenty_kills_keep_the_sum(tmp_path):
    """Issue 19.1: after 20 kill -9 the report's sum is the journal's, and each item was recorded once."""
    journal, chance = tmp_path / "j.jsonl", random.Random(3)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(journal)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not journal.exists():
            os.sched_yield()
        try:
            process.wait(timeout=0.3 + chance.random() / 5)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(journal)], capture_output=True, text=True, check=True
    )
    assert Fraction(done.stdout.strip()) == paid(journal) == 400 * Fraction("0.37")


def test_the_runs_of_a_journal_are_shown(tmp_path):
    """Issue 19.1: `telemetry progress --runs` says what each run did and spent, and their sum."""
    journal = tmp_path / "j.jsonl"

    async def handler(item, ctx):
        ctx.add_cost(0.1, 2, 3)

    for _ in range(2):
        processor(handler, journal=journal, concurrency=1, limits=Limits(run_cost=0.3)).run(
            range(5)
        )
    shown = CliRunner().invoke(command, ["--runs", str(journal)])
    first, second, total = shown.output.splitlines()
    assert first.startswith("1. costs-")
    assert first.endswith(": budget, success 3, cost 0.3")
    assert second.endswith(": success, success 2, cost 0.2")
    assert total == "2 runs, cost 0.5"
    whole = CliRunner().invoke(command, ["--runs", "--json", str(journal)])
    lines = [json.loads(line) for line in whole.output.splitlines()]
    assert [(line["cost"], line["tokens_in"], line["outcomes"]) for line in lines] == [
        (0.3, 6, {"success": 3}),
        (0.2, 4, {"success": 2}),
    ]
    assert CliRunner().invoke(command, ["--runs", str(tmp_path)]).exit_code == 2
