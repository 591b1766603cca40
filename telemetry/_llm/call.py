"""
One call of a language model, from the request to its place in the totals.

`telemetry.llm.call` opens and closes it; the application reports to it what it learns on the way.
That may be anything (a provider's own objects, numpy, None): it is checked when it is given, and what
makes no sense is left out, with one line on stderr.

The chain that a call belongs to is a small mutable object in a ContextVar: a chain asks one model
after the other, so the next call can see how the one before it ended.
"""

import functools
import os
import time
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import attach, detach

from telemetry import _diagnostics, _values
from telemetry import attributes as names
from telemetry._context import scope, spending
from telemetry._context.recorded import already_recorded
from telemetry._llm import metrics, prices, totals
from telemetry._logs import logger as _logging
from telemetry._logs import record
from telemetry._traces import span as spans
from telemetry._values import Value

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that asks for content, as OpenTelemetry defines it."""
CAPTURED: Final = ("true", "1", "span_only", "span_and_event")
TRIED: Final = 32
_REQUEST: Final = {
    "temperature": names.GEN_AI_REQUEST_TEMPERATURE,
    "top_p": names.GEN_AI_REQUEST_TOP_P,
    "top_k": names.GEN_AI_REQUEST_TOP_K,
    "max_tokens": names.GEN_AI_REQUEST_MAX_TOKENS,
    "seed": names.GEN_AI_REQUEST_SEED,
    "stream": names.GEN_AI_REQUEST_STREAM,
    "llm_conversation_id": names.GEN_AI_CONVERSATION,
}
"""Keyword of `call` -> attribute."""


class ChainState:
    """How far a chain of models has come."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.position = 0
        self.given_up: str | None = None
        """Why the last call did not do; None when it did."""

    def next(self, model: str) -> tuple[str, str] | None:
        """One more call, of `provider/model`; the model that it stands in for, and why, if it does."""
        self.position += 1
        given_up = None if self.given_up is None else (self.tried[-1], self.given_up)
        if len(self.tried) < TRIED:
            self.tried.append(model)
        return given_up


chain_of: ContextVar[ChainState | None] = ContextVar("otelier_llm_chain", default=None)
call_of: ContextVar["Call | None"] = ContextVar("otelier_llm_call", default=None)


class Call:
    """
    A running call of a language model; `with llm.call(...) as call` gives one.

    Args:
        provider: who serves the model.
        model: the model asked for.
        operation: what is asked of it.
        capture: whether content is recorded.
        priced: whether the cost is worked out from the price table.
        fields: of the span; ids by the keywords of `log_context`.
        logger: where a failure is logged.
    """

    def __init__(
        self,
        *,
        provider: object,
        model: object,
        operation: object,
        capture: bool,
        priced: bool,
        fields: dict[str, object],
        logger: _logging.BoundLogger,
    ) -> None:
        self._provider = _values.text(provider, 128)
        self._model = _values.text(model, 128)
        self._operation = _values.text(operation, 64)
        self._capture = capture
        self._priced = priced
        self._fields = fields
        self._logger = logger
        self._usage = totals.Usage()
        self._response_model: str | None = None
        self._failure: tuple[object, str] | None = None
        self._rejected: str | None = None
        self._given_up: tuple[str, str] | None = None
        self._pid = 0
        self._begun = 0.0
        self._first: float | None = None
        self._span: trace.Span = trace.INVALID_SPAN
        self._tokens: tuple[Any, Any] | None = None
        self._chain: ChainState | None = None
        self._bill: spending.Bill | None = None
        self._tenant = ""

    @property
    def span(self) -> trace.Span:
        """The OpenTelemetry span of this call."""
        return self._span

    @property
    def captures_content(self) -> bool:
        """Whether `input`, `output` and `system` record anything: ask before you build a big text."""
        return self._capture

    # --- what the application reports ---

    def tokens(
        self,
        *,
        input: object = None,  # noqa: A002 - the field's own word
        output: object = None,
        cached: object = None,
        cache_created: object = None,
        reasoning: object = None,
    ) -> None:
        """
        What the call used; a later number replaces an earlier one, as in the chunks of a stream.

        Args:
            input: tokens read, cached ones included.
            output: tokens written, reasoning included.
            cached: those of the input that came from the provider's cache.
            cache_created: those of the input that were written to the provider's cache.
            reasoning: those of the output that were spent on reasoning.
        """
        self._usage.count(
            input=input,
            output=output,
            cached=cached,
            cache_created=cache_created,
            reasoning=reasoning,
        )

    def cost(
        self, amount: object = None, currency: str = "USD", *, source: str = "provider"
    ) -> None:
        """
        What the call cost; without an amount it is worked out by `genai-prices`, if installed.

        Args:
            amount: in the currency; a Decimal or any number.
            currency: as ISO 4217 writes it.
            source: who worked it out: `provider` or `local`.
        """
        if amount is None:
            self._priced = True
        else:
            self._usage.pay(amount, currency, source)

    def first_token(self) -> None:
        """The first token has come; later calls change nothing."""
        if self._first is None and self._begun:
            self._first = time.perf_counter() - self._begun

    def finish(self, *reasons: object) -> None:
        """Why the model stopped, one reason for each choice: `stop`, `length`, `tool_calls`, ..."""
        found = [_values.text(reason, 64) for reason in reasons[:16] if reason is not None]
        if found:
            self._set({names.GEN_AI_RESPONSE_FINISH_REASONS: found})

    def response(self, *, id: object = None, model: object = None) -> None:  # noqa: A002 - as above
        """What the provider calls the answer, and the model that gave it."""
        if id is not None:
            self._set({names.GEN_AI_RESPONSE_ID: _values.text(id, _values.ID_TEXT)})
        if model is not None:
            self._response_model = _values.text(model, 128)
            self._set({names.GEN_AI_RESPONSE_MODEL: self._response_model})

    def confidence(self, value: object) -> None:
        """How sure the answer is, 0 to 1."""
        self._set({names.LLM_CONFIDENCE: _values.clean(value)})

    def add(self, **fields: object) -> None:
        """Add fields to the span; numbers stay numbers."""
        self._set(_values.fields(fields))

    def input(self, messages: object) -> None:
        """What the model is given; recorded only when content is asked for."""
        self._content(names.GEN_AI_INPUT_MESSAGES, messages)

    def output(self, messages: object) -> None:
        """What the model answered; recorded only when content is asked for."""
        self._content(names.GEN_AI_OUTPUT_MESSAGES, messages)

    def system(self, instructions: object) -> None:
        """The instructions of the system; recorded only when content is asked for."""
        self._content(names.GEN_AI_SYSTEM_INSTRUCTIONS, instructions)

    def fail(self, error: object, *, error_type: str | None = None) -> None:
        """
        Say that the call failed, without raising.

        Args:
            error: an exception that was handled, or a text.
            error_type: a label, one of few; the exception's class by default.
        """
        problem: object = error if _values.is_a(error, BaseException) else _values.text(error)
        kind = spans.error_type(error) if _values.is_a(error, BaseException) else totals.OTHER
        word = kind if error_type is None else _values.text(error_type, 128)
        self._failure = (problem, word)

    def reject(self, reason: object) -> None:
        """The answer is not good enough, so that the next call of the chain is a fallback."""
        self._rejected = _values.text(reason, 128)

    def fallback_from(self, model: object, reason: object = None) -> None:
        """
        This call stands in for another model; inside `llm.chain` it is known already.

        Args:
            model: the model that was given up, as `provider/model`.
            reason: why; an exception or a word.
        """
        why = spans.error_type(reason) if _values.is_a(reason, BaseException) else reason
        word = totals.OTHER if why is None else _values.text(why, 128)
        self._given_up = (_values.text(model, 256), word)

    # --- its beginning and end ---

    def begin(self) -> None:
        """Open the span, below the span that runs."""
        self._pid = os.getpid()
        attributes: dict[str, Value] = {**self._named()}
        for key, value in _values.fields(self._fields).items():
            name = _REQUEST.get(key) or scope.ATTRIBUTE.get(key, key)
            if value is not None:
                attributes.setdefault(name, value)
        chain = self._chain = chain_of.get()
        if chain is not None:
            given_up = chain.next(f"{self._provider}/{self._model}")
            self._given_up = self._given_up or given_up
            attributes[names.LLM_CHAIN_POSITION] = chain.position
        tenant = attributes.get(names.TENANT_ID) or scope.effective().get(names.TENANT_ID)
        self._tenant = "" if tenant is None else _values.text(tenant, _values.ID_TEXT)
        self._span = _tracer().start_span(
            f"{self._operation} {self._model}", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        # the ids of the scope are stamped on every span at its start; what was given here wins
        self._span.set_attributes({key: v for key, v in attributes.items() if key in names.CONTEXT})
        self._tokens = (attach(trace.set_span_in_context(self._span)), call_of.set(self))
        self._begun = time.perf_counter()
        self._bill = spending.begin_call()

    def end(self, error: BaseException | None) -> None:
        """Close the span; count and add up what is known."""
        tokens, self._tokens = self._tokens, None
        if tokens is None:
            return
        try:
            if self._pid == os.getpid():  # else the parent, where it began, records its end
                self._finish(error)
        except Exception as failure:
            _diagnostics.fault("llm.call", failure)
        finally:
            attached, mine = tokens
            try:
                call_of.reset(mine)
            except ValueError:
                call_of.set(None)  # ended in another context than it began in
            detach(attached)

    def _finish(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._begun
        problem, kind = self._problem(error)
        try:
            if self._priced:
                prices.work_out(self._usage, self._provider, self._response_model or self._model)
            self._describe(kind)
            if isinstance(problem, (Exception, str)):
                self._span.set_status(trace.StatusCode.ERROR)
                self._record(problem, kind)
        finally:
            self._span.end()
        if self._chain is not None:
            self._chain.given_up = kind or self._rejected
        here = trace.set_span_in_context(self._span)
        labels = self._named()
        if self._response_model is not None:
            labels[names.GEN_AI_RESPONSE_MODEL] = self._response_model
        metrics.record(labels, self._usage, seconds, kind, here)
        usage = self._usage
        if self._bill is not None:
            tokens = (usage.input or 0, usage.output or 0)
            spending.end_call(self._bill, usage.cost, usage.currency, *tokens)
        totals.add(
            (self._tenant, self._provider, self._model),
            self._usage,
            seconds,
            failed=kind is not None,
            fallback=self._given_up is not None,
        )

    def _problem(self, error: BaseException | None) -> tuple[object, str | None]:
        """What went wrong, an exception or a text, and its label."""
        if error is not None:
            return error, spans.error_type(error)
        return (None, None) if self._failure is None else self._failure

    def _describe(self, kind: str | None) -> None:
        facts: dict[str, Value] = {
            **self._usage.attributes(),
            names.GEN_AI_RESPONSE_FIRST_CHUNK: self._first,
            names.ERROR_TYPE: kind,
        }
        if self._given_up is not None:
            facts[names.LLM_FALLBACK_FROM], facts[names.LLM_FALLBACK_REASON] = self._given_up
            text = f"{self._provider}/{self._model} instead of {self._given_up[0]}"
            extra = {
                record.EVENT_NAME: names.LLM_FALLBACK_USED,
                names.GEN_AI_PROVIDER: self._provider,
                names.GEN_AI_REQUEST_MODEL: self._model,
                names.LLM_FALLBACK_FROM: self._given_up[0],
                names.LLM_FALLBACK_REASON: self._given_up[1],
            }
            self._logger.warning("%s", text, extra=extra, stacklevel=6)
        self._span.set_attributes({key: v for key, v in facts.items() if v is not None})

    def _record(self, problem: object, kind: str | None) -> None:
        """One WARN record, with the stack unless the exception was recorded before."""
        fields: dict[str, Any] = {
            **self._named(),
            record.EVENT_NAME: names.GEN_AI_CLIENT_EXCEPTION,
            names.ERROR_TYPE: kind,
        }
        stack = None
        if isinstance(problem, BaseException) and not already_recorded(problem):
            stack = problem
        text = f"{self._operation} {self._model} failed: {_values.text(problem, 1000)}"
        self._logger.warning("%s", text, extra=fields, exc_info=stack, stacklevel=6)

    def _named(self) -> dict[str, str]:
        """Operation, provider and model, by their attributes."""
        return {
            names.GEN_AI_OPERATION: self._operation,
            names.GEN_AI_PROVIDER: self._provider,
            names.GEN_AI_REQUEST_MODEL: self._model,
        }

    def _content(self, name: str, value: object) -> None:
        if self._capture:
            self._set({name: _values.clean(value)})

    def _set(self, attributes: dict[str, Value]) -> None:
        try:
            self._span.set_attributes(attributes)
        except Exception as error:
            _diagnostics.fault("llm.call", error)


def capture_asked(given: bool | None) -> bool:
    """Whether content is recorded: the argument, else the variable, else no."""
    if given is not None:
        return given is True
    return os.environ.get(CAPTURE, "").strip().lower() in CAPTURED


_tracer = functools.cache(functools.partial(trace.get_tracer, "telemetry"))
