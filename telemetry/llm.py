"""
Calls of language models: span, metrics, tokens, cost, fallbacks, totals.

    with llm.call(provider="openai", model="gpt-4o-mini") as call:
        answer = client.chat(...)
        call.tokens(input=answer.usage.input, output=answer.usage.output)
        call.finish(answer.finish_reason)

Names and buckets are those of the GenAI conventions (telemetry.attributes holds them; the
conventions moved house and their Python constants are deprecated). Cost is on the call's span only,
so that a sum over spans counts it once. What went in and out is recorded only when asked
for, by `capture_content=True` or OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT: it is the
user's text.

An exception of the call gives the span its status and one WARN record with the stack (the caller is
expected to handle it, by a retry or a fallback), and goes through untouched. Nothing here raises.
"""

import logging
import sys
import uuid
from contextvars import Token
from typing import Any, Self

from opentelemetry import trace

from telemetry import _diagnostics, _events, _values
from telemetry import attributes as names
from telemetry._context import scope
from telemetry._context.block import Decorator
from telemetry._llm import totals as llm_totals
from telemetry._llm.call import Call, ChainState, call_of, capture_asked, chain_of
from telemetry._logs import logger
from telemetry._traces import span

__all__ = ["Call", "call", "chain", "current", "run", "totals"]


class call(Decorator[Call]):  # noqa: N801 - used like a function
    """
    A call of a language model around a block, a function or a coroutine.

    The block gets a `Call` to report what it learns; a decorated function finds it by `current()`.

    Example:
        with llm.call(provider="anthropic", model="claude-x", max_tokens=500) as call:
            call.tokens(input=120, output=48)

    Args:
        provider: who serves the model, as the conventions name it: openai, anthropic, ...
        model: the model asked for.
        operation: chat, text_completion, embeddings, ...
        capture_content: record what goes in and out; by default as the environment says, else no.
        price: work the cost out from `genai-prices` when it is not given.
        fields: of the span: temperature, top_p, top_k, max_tokens, seed and stream of the request,
            llm_conversation_id, ids by the keywords of `log_context`, and any key of your own.
    """

    def __init__(
        self,
        *,
        provider: str,
        model: str,
        operation: str = "chat",
        capture_content: bool | None = None,
        price: bool = False,
        **fields: object,
    ) -> None:
        self._given: dict[str, Any] = {
            "provider": provider,
            "model": model,
            "operation": operation,
            "capture_content": capture_content,
            "price": price,
            **fields,
        }
        self._fields = fields
        module = sys._getframe(1).f_globals.get("__name__", "root")  # noqa: SLF001 - as logging does
        self._logger = logger.BoundLogger(logging.getLogger(module))
        self._running: list[Call] = []

    def _again(self) -> "call":
        again = call(**self._given)
        again._logger = self._logger
        return again

    def __enter__(self) -> Call:
        given = self._given
        opened = Call(
            provider=given["provider"],
            model=given["model"],
            operation=given["operation"],
            capture=capture_asked(given["capture_content"]),
            priced=given["price"] is True,
            fields=self._fields,
            logger=self._logger,
        )
        self._running.append(opened)
        try:
            opened.begin()
        except Exception as error:
            _diagnostics.fault("llm.call", error)
        return opened

    def _end(self, error: BaseException | None) -> None:
        if self._running:
            self._running.pop().end(error)


class chain(Decorator["chain"]):  # noqa: N801 - used like a function
    """
    A block that asks one model after the other until one does.

    Calls inside it know their position, and that they are a fallback when the call before them
    failed or was rejected. One span shows the chain.

    Example:
        with llm.chain("classify"):
            for provider, model in candidates:
                try:
                    with llm.call(provider=provider, model=model) as call:
                        return ask(provider, model)
                except ProviderError:
                    continue

    Args:
        name: what the chain is for, in few distinct words.
    """

    def __init__(self, name: str = "chain") -> None:
        self._name = _values.text(name, 128)
        self._state = ChainState()
        self._span = span.span(f"chain {self._name}")
        self._current: trace.Span = trace.INVALID_SPAN
        self._token: Token[ChainState | None] | None = None

    @property
    def tried(self) -> list[str]:
        """The models asked so far, as `provider/model`."""
        return list(self._state.tried)

    def _again(self) -> "chain":
        return chain(self._name)

    def __enter__(self) -> Self:
        self._state = ChainState()
        self._current = self._span.__enter__()
        self._current.set_attribute(names.LLM_CHAIN_NAME, self._name)
        self._token = chain_of.set(self._state)
        return self

    def _end(self, error: BaseException | None) -> None:
        try:
            state = self._state
            if state.position == 0:
                outcome = "unused"
            elif state.given_up is not None or isinstance(error, Exception):
                outcome = "failed"
            else:
                outcome = "first" if state.position == 1 else "fallback"
            self._current.set_attributes(
                {names.LLM_CHAIN_TRIED: state.tried, names.LLM_CHAIN_OUTCOME: outcome}
            )
            if self._token is not None:
                chain_of.reset(self._token)
        except ValueError:
            chain_of.set(None)  # ended in another context than it began in
        except Exception as failure:
            _diagnostics.fault("llm.chain", failure)
        finally:
            self._span.__exit__(None, error, None)


class run(Decorator["run"]):  # noqa: N801 - used like a function
    """
    A block whose calls are added up apart; runs inside runs count for both.

    Its end emits `llm.run.finished` with one row for each tenant, provider and model.

    Example:
        with llm.run() as current_run:
            classify(leads)
        print(current_run.totals())

    Args:
        run_id: names the run; the scope's `batch_run_id` by default, else a new one.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self._given = "" if run_id is None else _values.text(run_id, _values.ID_TEXT)
        self._table = llm_totals.Table()
        self._token: Token[tuple[llm_totals.Table, ...]] | None = None
        self.id = ""
        """The id of the run."""

    def totals(self) -> list[dict[str, Any]]:
        """What the calls of this run used and cost so far: one row per tenant, provider, model."""
        return self._table.rows()

    def _again(self) -> "run":
        return run(self._given)

    def __enter__(self) -> Self:
        known = self._given or scope.effective().get(names.BATCH_RUN_ID) or uuid.uuid4().hex
        self.id = _values.text(known, _values.ID_TEXT)
        self._table = llm_totals.Table()
        self._token = llm_totals.runs.set((*llm_totals.runs.get(), self._table))
        return self

    def _end(self, error: BaseException | None) -> None:
        try:
            rows = self._table.rows()
            calls = sum(row["calls"] for row in rows)
            found: dict[str, Any] = {names.LLM_RUN_ID: self.id, names.LLM_RUN_TOTALS: rows}
            if isinstance(error, Exception):
                found[names.ERROR_TYPE] = span.error_type(error)
            text = f"llm run finished: {calls} calls"
            _events.emit(names.LLM_RUN_FINISHED, found, scope="telemetry.llm", body=text)
            if self._token is not None:
                llm_totals.runs.reset(self._token)
        except ValueError:
            llm_totals.runs.set(())  # ended in another context than it began in
        except Exception as failure:
            _diagnostics.fault("llm.run", failure)


def current() -> Call:
    """The call that runs here; outside of one, a call that records nothing."""
    found = call_of.get()
    if found is not None:
        return found
    return Call(
        provider="",
        model="",
        operation="",
        capture=False,
        priced=False,
        fields={},
        logger=logger.BoundLogger(logging.getLogger("telemetry.llm")),
    )


def totals() -> list[dict[str, Any]]:
    """
    What calls used and cost: in the innermost run, or, outside of runs, in this process.

    Returns:
        One row for each tenant, provider and model: calls, failures, fallbacks, input_tokens,
        output_tokens, cached_tokens, reasoning_tokens, seconds, and cost by currency.
    """
    running = llm_totals.runs.get()
    return (running[-1] if running else llm_totals.process()).rows()
