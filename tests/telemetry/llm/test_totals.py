"""Totals of calls: per run, tenant and model; bounded; exact money (L7)."""

import asyncio
import json
import threading

import pytest

import telemetry
from telemetry import llm


def ask(model="a", *, tokens=10, cost=0.1, currency="USD", fail=False):
    try:
        with llm.call(provider="openai", model=model) as running:
            running.tokens(input=tokens, output=1)
            if cost is not None:
                running.cost(cost, currency)
            if fail:
                raise TimeoutError
    except TimeoutError:
        pass


def untimed(rows):
    for row in rows:
        assert row["seconds"] >= 0
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def row(tenant="", model="a", **numbers):
    return {
        "tenant_id": tenant,
        "provider": "openai",
        "model": model,
        "calls": 1,
        "failures": 0,
        "fallbacks": 0,
        "input_tokens": 10,
        "output_tokens": 1,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": {"USD": 0.1},
        **numbers,
    }


def test_a_run_adds_up_by_tenant_and_model(captured):
    """One row for each tenant and model; failed attempts count, with their cost."""
    with llm.run("run-1") as run:
        with telemetry.log_context(tenant_id="t-1"):
            ask()
            ask(fail=True)
            ask("b", cost=None)
        ask(currency="EUR")
        inside = llm.totals()
    expected = [
        row("t-1", calls=2, failures=1, input_tokens=20, output_tokens=2, cost={"USD": 0.2}),
        row("t-1", "b", cost={}),
        row("", cost={"EUR": 0.1}),
    ]
    assert untimed(run.totals()) == untimed(inside) == expected
    record = next(each for each in captured.logs if each.get("event") == "llm.run.finished")
    assert record["message"] == "llm run finished: 4 calls"
    assert record["attributes"]["llm.run.id"] == "run-1"
    assert untimed(record["attributes"]["llm.run.totals"]) == expected


def test_money_adds_up_exactly(captured):
    """Ten times 0.1 is 1, not 0.9999999999999999."""
    with llm.run() as run:
        for _ in range(10):
            ask()
    assert run.totals()[0]["cost"] == {"USD": 1.0}


def test_runs_inside_runs_count_for_both(captured):
    """An item's run is part of the batch's run; afterwards the outer one goes on alone."""
    with llm.run() as outer:
        with llm.run() as inner:
            ask()
        ask()
        assert llm.totals() == outer.totals()
    assert (inner.totals()[0]["calls"], outer.totals()[0]["calls"]) == (1, 2)
    assert inner.id != outer.id


def test_a_run_takes_the_id_of_the_batch(captured):
    """Inside a batch run the totals have its id."""
    with telemetry.log_context(batch_run_id="b-7"), llm.run() as run:
        pass
    assert run.id == "b-7"


def test_fallbacks_are_counted(captured):
    """A model that stood in for another one says so in its row."""
    with llm.run() as run, llm.chain("c"):
        ask("a", fail=True)
        ask("b")
    assert [(each["model"], each["failures"], each["fallbacks"]) for each in run.totals()] == [
        ("a", 1, 0),
        ("b", 0, 1),
    ]


def test_a_run_that_fails_still_tells(captured):
    """The record names the exception, which goes through."""
    with pytest.raises(ZeroDivisionError), llm.run():
        ask(tokens=1 // 0)
    record = next(each for each in captured.logs if each.get("event") == "llm.run.finished")
    assert record["attributes"]["error.type"] == "ZeroDivisionError"


def test_the_table_is_bounded(captured):
    """Beyond 1,000 rows the rest shares one."""
    with llm.run() as run:
        for number in range(1100):
            with telemetry.log_context(tenant_id=number):
                ask(cost=None)
    rows = run.totals()
    assert len(rows) == 1001
    assert untimed(rows)[-1] == {
        **row("_OTHER", "_OTHER", calls=100, input_tokens=1000, output_tokens=100, cost={}),
        "provider": "_OTHER",
    }


def test_labels_of_models_are_bounded(run):
    """A hundred texts are labels; what a user can name beyond them cannot flood the metrics."""
    done = run(
        """
        import json
        from telemetry import llm
        from telemetry.testing import capture

        with capture() as captured:
            for number in range(150):
                with llm.call(provider="p", model=f"model-of-user-{number}"):
                    pass
        labels = [point["attributes"]["gen_ai.request.model"] for point in captured.metrics]
        print(json.dumps([len(labels), labels[0], labels[-1], captured.metrics[-1]["count"]]))
        """
    )
    # two of the hundred texts are the operation and the provider
    assert json.loads(done.stdout) == [99, "model-of-user-0", "_OTHER", 52]


def test_threads_share_a_run_only_by_context(captured):
    """A thread without the context of the run counts for the process, not for the run."""
    with llm.run() as run:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        ask()
    assert run.totals()[0]["calls"] == 1


@pytest.mark.anyio
async def test_tasks_of_a_run_add_up(captured):
    """Concurrent tasks of one run count once each; concurrent runs stay apart."""

    async def one(cost):
        await asyncio.sleep(0)
        ask(cost=cost)

    async def whole(cost):
        async with llm.run() as run:
            await asyncio.gather(*(one(cost) for _ in range(10)))
        return run.totals()[0]

    first, second = await asyncio.gather(whole(0.1), whole(0.2))
    assert [(each["calls"], each["cost"]) for each in (first, second)] == [
        (10, {"USD": 1.0}),
        (10, {"USD": 2.0}),
    ]


def test_a_forked_child_begins_at_zero(run):
    """The totals of the process belong to the process."""
    done = run(
        """
        import json, os, sys
        from telemetry import llm

        def ask():
            with llm.call(provider="p", model="m") as call:
                call.tokens(input=1)

        ask()
        child = os.fork()
        ask()
        os.write(1, json.dumps(llm.totals()[0]["calls"]).encode() + b"\\n")
        if child:
            os.waitpid(child, 0)
        else:
            os._exit(0)
        """
    )
    assert sorted(map(json.loads, done.stdout.split())) == [1, 2]
