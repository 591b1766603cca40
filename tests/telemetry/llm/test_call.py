"""Calls of language models: span, metrics, tokens, cost, content, failures, chains (L7)."""

import asyncio
import threading
from decimal import Decimal

import numpy as np
import pytest

import telemetry
from telemetry import attributes, llm
from telemetry.testing import capture

BARE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "a",
}


def call(model="a", **given):
    return llm.call(provider="openai", model=model, **given)


def test_a_call_in_full(captured):
    """All that a call is told is on one CLIENT span, under the names of the conventions."""
    with call(
        temperature=0.1, top_p=0.9, top_k=40, max_tokens=500, seed=7, stream=True, purpose="demo"
    ) as running:
        running.first_token()
        running.tokens(input=100, output=20, cached=30, cache_created=10, reasoning=5)
        running.cost(Decimal("0.0125"))
        running.finish("stop", "length")
        running.response(id="r-1", model="a-2026-01")
        running.confidence(np.float32(0.5))
        running.add(lead="l-1")
    (span,) = captured.spans
    first = span["attributes"].pop("gen_ai.response.time_to_first_chunk")
    assert first >= 0
    assert span == {
        "name": "chat a",
        "trace_id": 1,
        "span_id": 1,
        "parent_id": None,
        "start": 1,
        "end": 2,
        "kind": "CLIENT",
        "status": "UNSET",
        "attributes": {
            **BARE,
            "gen_ai.request.temperature": 0.1,
            "gen_ai.request.top_p": 0.9,
            "gen_ai.request.top_k": 40,
            "gen_ai.request.max_tokens": 500,
            "gen_ai.request.seed": 7,
            "gen_ai.request.stream": True,
            "purpose": "demo",
            "lead": "l-1",
            "gen_ai.response.finish_reasons": ["stop", "length"],
            "gen_ai.response.id": "r-1",
            "gen_ai.response.model": "a-2026-01",
            "llm.confidence": 0.5,
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 30,
            "gen_ai.usage.cache_creation.input_tokens": 10,
            "gen_ai.usage.reasoning.output_tokens": 5,
            "gen_ai.usage.cost.amount": 0.0125,
            "gen_ai.usage.cost.currency": "USD",
            "gen_ai.usage.cost.source": "provider",
        },
    }
    assert captured.logs == []


def test_the_metrics_of_the_conventions(captured):
    """Duration and token usage, by operation, provider, models, kind and error.type; never by id."""
    with telemetry.log_context(tenant_id="t-1"):
        with call("m") as running:
            running.tokens(input=100, output=20)
            running.response(id="r-1", model="m-1")
        with pytest.raises(TimeoutError), call("m"):
            raise TimeoutError
    base = {**BARE, "gen_ai.request.model": "m"}
    told = [
        (point["name"], point["unit"], point["attributes"], point["count"])
        for point in captured.metrics
    ]
    full = {**base, "gen_ai.response.model": "m-1"}
    assert told == [
        ("gen_ai.client.operation.duration", "s", full, 1),
        ("gen_ai.client.operation.duration", "s", {**base, "error.type": "TimeoutError"}, 1),
        ("gen_ai.client.token.usage", "{token}", {**full, "gen_ai.token.type": "input"}, 1),
        ("gen_ai.client.token.usage", "{token}", {**full, "gen_ai.token.type": "output"}, 1),
    ]
    assert [point["sum"] for point in captured.metrics[2:]] == [100, 20]


def test_the_buckets_are_those_of_the_conventions():
    """0.01 s doubled up to 81.92 s, and powers of four up to 67 million tokens."""
    durations, tokens = attributes.GEN_AI_DURATION_BUCKETS_S, attributes.GEN_AI_TOKEN_BUCKETS
    assert durations[:3] == (0.01, 0.02, 0.04)
    assert (durations[-1], len(durations)) == (81.92, 14)
    assert tokens[:3] == (1, 4, 16)
    assert (tokens[-1], len(tokens)) == (67108864, 14)


def test_a_failure_is_one_warning_with_its_stack():
    """The exception goes through; the span has status and error.type, the record the rest."""
    problem = TimeoutError("slow")
    with (
        capture(varying=True) as captured,
        pytest.raises(TimeoutError) as raised,
        call(),
    ):
        raise problem
    assert raised.value is problem
    (span,), (record,) = captured.spans, captured.logs
    assert (span["status"], span["attributes"]) == ("ERROR", {**BARE, "error.type": "TimeoutError"})
    assert record["attributes"].pop("exception.stacktrace").startswith("Traceback")
    assert record["attributes"].pop("code.file.path") == __file__
    assert record["attributes"].pop("code.function.name").startswith("test_a_failure")
    record["attributes"].pop("code.line.number")
    assert record == {
        "time": 2,
        "level": "WARN",
        "logger": __name__,
        "message": "chat a failed: slow",
        "event": "gen_ai.client.operation.exception",
        "trace_id": 1,
        "span_id": 1,
        "attributes": {
            **BARE,
            "error.type": "TimeoutError",
            "exception.type": "TimeoutError",
            "exception.message": "slow",
        },
    }


def test_a_failure_without_an_exception(captured):
    """fail() marks a call whose answer is an error of the provider."""
    with call() as running:
        running.fail("content filter", error_type="content_filter")
    assert captured.spans[0]["status"] == "ERROR"
    assert captured.spans[0]["attributes"]["error.type"] == "content_filter"
    assert captured.logs[0]["message"] == "chat a failed: content filter"


def test_a_cancelled_call_is_no_failure(captured):
    """What is broken off from outside has an error.type and no WARNING."""
    with pytest.raises(KeyboardInterrupt), call():
        raise KeyboardInterrupt
    assert captured.logs == []
    assert captured.spans[0]["status"] == "UNSET"
    assert captured.spans[0]["attributes"]["error.type"] == "KeyboardInterrupt"


MESSAGES = [{"role": "user", "content": "my secret"}]


def contents(captured):
    keys = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")
    return [[span["attributes"].get(key) for key in keys] for span in captured.spans]


def tell(running):
    running.system("be brief")
    running.input(MESSAGES)
    running.output(MESSAGES)


def test_content_is_recorded_only_on_request(captured, monkeypatch):
    """Nothing by default; with capture_content=True or the variable; the argument wins."""
    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", raising=False)
    with call() as running:
        tell(running)
        assert not running.captures_content
    with call(capture_content=True) as running:
        tell(running)
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    with call() as running:
        tell(running)
    with call(capture_content=False) as running:
        tell(running)
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "no_content")
    with call() as running:
        tell(running)
    nothing, everything = [None, None, None], [MESSAGES, MESSAGES, "be brief"]
    assert contents(captured) == [nothing, everything, everything, nothing, nothing]
    assert "my secret" not in str(captured.logs)


def test_a_decorated_function(captured):
    """Each call of a decorated function is a call of its own, which `current()` finds."""

    @call(temperature=0)
    def ask(count):
        llm.current().tokens(output=count)
        return count

    assert [ask(1), ask(2)] == [1, 2]
    told = [span["attributes"]["gen_ai.usage.output_tokens"] for span in captured.spans]
    assert told == [1, 2]
    llm.current().tokens(output=3)
    assert len(captured.spans) == 2


@pytest.mark.anyio
async def test_tasks_do_not_mix(captured):
    """Interleaved coroutines tell their own call; parents are right."""

    @call(operation="embeddings")
    async def embed(count):
        await asyncio.sleep(0)
        llm.current().tokens(input=count)

    async def ask(number):
        async with call(f"model-{number}") as running:
            await embed(number)
            running.tokens(input=number)

    await asyncio.gather(*map(ask, range(10)))
    asked = {
        span["span_id"]: span["attributes"]["gen_ai.usage.input_tokens"]
        for span in captured.spans
        if span["name"].startswith("chat model-")
    }
    assert sorted(asked.values()) == list(range(10))
    embedded = [span for span in captured.spans if span["name"] == "embeddings a"]
    assert [
        asked[span["parent_id"]] - span["attributes"]["gen_ai.usage.input_tokens"]
        for span in embedded
    ] == [0] * 10


def test_later_numbers_replace_earlier_ones(captured):
    """A stream tells its tokens with every chunk: the last number counts, once."""
    with call() as running:
        for output in (1, 5, 9):
            running.tokens(input=10, output=output)
            running.first_token()
    assert captured.spans[0]["attributes"]["gen_ai.usage.output_tokens"] == 9


class Raising:
    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__


HOSTILE = [Raising(), "x" * 100_000, "\ud800", float("nan"), float("inf"), -1, 1.5, True, [1], None]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_hurts_the_application(captured, value):
    """Nonsense is left out; the call and its span stand."""
    with llm.chain(value), llm.call(provider=value, model=value, operation=value, odd=value) as one:
        one.tokens(input=value, output=value, cached=value, reasoning=value)
        if value is not None:
            one.cost(value if not isinstance(value, float) or value != 1.5 else -1, value)
        one.finish(value, value)
        one.response(id=value, model=value)
        one.confidence(value)
        one.add(more=value)
        one.fallback_from(value, value)
        one.reject(value)
    assert len(captured.spans) == 2
    attributes_of_call = captured.spans[1]["attributes"]
    assert "gen_ai.usage.input_tokens" not in attributes_of_call
    assert "gen_ai.usage.cost.amount" not in attributes_of_call


def test_numbers_of_numpy_are_numbers(captured):
    """Counts and amounts from numpy and Decimal arrive as numbers."""
    with call() as running:
        running.tokens(input=np.int64(5), output=Decimal(7))
        running.cost(np.float64(0.25), "EUR", source="local")
    told = captured.spans[0]["attributes"]
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (5, 7)
    assert told["gen_ai.usage.cost.amount"] == 0.25
    assert told["gen_ai.usage.cost.currency"] == "EUR"
    assert told["gen_ai.usage.cost.source"] == "local"


def test_a_chain_shows_its_fallbacks(captured):
    """The second model knows the first and why it was given up; an event and a span tell it too."""
    with llm.chain("classify") as chain:
        for model in ("a", "b", "c"):
            try:
                with call(model) as running:
                    if model == "a":
                        raise TimeoutError("slow")
                    if model == "b":
                        running.reject("low confidence")
            except TimeoutError:
                continue
    assert chain.tried == ["openai/a", "openai/b", "openai/c"]
    top, *calls = captured.spans
    assert top["attributes"] == {
        "llm.chain.name": "classify",
        "llm.chain.tried": ["openai/a", "openai/b", "openai/c"],
        "llm.chain.outcome": "fallback",
    }
    keys = ("llm.chain.position", "llm.fallback.from", "llm.fallback.reason")
    assert [[span["attributes"].get(key) for key in keys] for span in calls] == [
        [1, None, None],
        [2, "openai/a", "TimeoutError"],
        [3, "openai/b", "low confidence"],
    ]
    assert {span["parent_id"] for span in calls} == {top["span_id"]}
    used = [record for record in captured.logs if record["event"] == "llm.fallback.used"]
    assert [(record["level"], record["message"]) for record in used] == [
        ("WARN", "openai/b instead of openai/a"),
        ("WARN", "openai/c instead of openai/b"),
    ]


def outcome(*answers):
    """How a chain ends whose calls end so: None for well, an exception that is handled."""
    with capture() as captured, llm.chain("c"):
        for answer in answers:
            try:
                with call():
                    if answer is not None:
                        raise answer
            except ValueError:
                pass
    return captured.spans[0]["attributes"]["llm.chain.outcome"]


def test_the_outcomes_of_a_chain():
    """first, fallback, failed, and unused when no model was asked."""
    bad = ValueError()
    assert [outcome(None), outcome(bad, None), outcome(bad, ValueError()), outcome()] == [
        "first",
        "fallback",
        "failed",
        "unused",
    ]


def test_a_fallback_without_a_chain(captured):
    """fallback_from() says it by hand."""
    with call("b") as running:
        running.fallback_from("openai/a", TimeoutError())
    told = captured.spans[0]["attributes"]
    assert (told["llm.fallback.from"], told["llm.fallback.reason"]) == ("openai/a", "TimeoutError")
    assert [record["event"] for record in captured.logs] == ["llm.fallback.used"]


def test_chains_of_threads_do_not_mix(captured):
    """A chain belongs to the thread that runs it."""
    told = []

    def work(number):
        with llm.chain(f"chain-{number}") as chain:
            for attempt in range(3):
                with call(f"m-{number}-{attempt}"):
                    pass
        told.append((number, chain.tried))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [
        (number, [f"openai/m-{number}-{attempt}" for attempt in range(3)]) for number in range(4)
    ]


def test_ids_that_are_given_win_over_the_scope(captured):
    """tenant_id= of a call is on its span, whatever the scope says."""
    with telemetry.log_context(tenant_id="t-1"), call(tenant_id="t-2"):
        pass
    assert captured.spans[0]["attributes"]["tenant.id"] == "t-2"


def test_without_the_price_package_there_is_no_cost(run):
    """price=True without genai-prices: the call works, one line says what to install."""
    done = run(
        """
        import sys
        sys.modules["genai_prices"] = None  # as if it were not installed
        from telemetry import llm
        for _ in range(3):
            with llm.call(provider="openai", model="gpt-4o", price=True) as call:
                call.tokens(input=10, output=5)
        print(llm.totals()[0]["cost"])
        """
    )
    assert done.stdout == "{}\n"
    assert done.stderr.count("pip install genai-prices") == 1


def test_the_price_package_works_the_cost_out(captured):
    """With genai-prices installed, tokens become an amount in USD, marked as worked out here."""
    pytest.importorskip("genai_prices")
    with llm.call(provider="openai", model="gpt-4o", price=True) as running:
        running.tokens(input=1000, output=500)
    told = captured.spans[0]["attributes"]
    assert told["gen_ai.usage.cost.amount"] > 0
    assert told["gen_ai.usage.cost.currency"] == "USD"
    assert told["gen_ai.usage.cost.source"] == "local"
