"""
One call of a language model, from the request to its place in the totals.

`telemetry.llm.call` opens and closes it; the application tells it what it learns on the way. What
it is told may be anything (a provider's own objects, numpy, None): it is checked when it is told,
and what makes no sense is said once on stderr and left out.

The chain that a call belongs to is a small mutable object in a ContextVar: a chain asks one model
after the other, so the next call can see how the one before it ended.
"""

import functools
import math
import os
import re
import time
from contextvars import ContextVar
from decimal import Decimal
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.context import attach, detach

from telemetry import _diagnostics, _values
from telemetry import attributes as names
from telemetry._context import scope
from telemetry._context.recorded import already_recorded
from telemetry._llm import prices, totals
from telemetry._logs import logger as _logging
from telemetry._logs import record
from telemetry._traces import span as spans
from telemetry._values import Value

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that asks for content, as OpenTelemetry defines it."""
CAPTURED: Final = ("true", "1", "span_only", "span_and_event")
MODELS: Final = 100
OTHER: Final = "_OTHER"
TRIED: Final = 32
_CURRENCY = re.compile(r"[A-Z]{3}")
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
        logger: where a failure is told.
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
        self._tenant = ""

    @property
    def span(self) -> trace.Span:
        """The OpenTelemetry span of this call."""
        return self._span

    @property
    def captures_content(self) -> bool:
        """Whether `input`, `output` and `system` record anything: ask before you build a big text."""
        return self._capture

    # --- what the application tells ---

    def tokens(
        self,
        *,
        input: object = None,  # noqa: A002 - the word that everybody uses
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
        given = {
            "input": input,
            "output": output,
            "cached": cached,
            "cache_created": cache_created,
            "reasoning": reasoning,
        }
        for kind, count in given.items():
            whole = _whole(count)
            if whole is not None:
                setattr(self._usage, kind, whole)
            elif count is not None:
                text = f"tokens({kind}=...) takes a whole number, 0 or more; it was left out"
                _diagnostics.say("tokens", text)

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
            return
        money = _money(amount)
        code = _values.text(currency, 16)
        if money is None or not _CURRENCY.fullmatch(code):
            text = "cost() takes an amount, 0 or more, and a currency such as USD; it was left out"
            _diagnostics.say("cost", text)
            return
        usage = self._usage
        usage.cost, usage.currency, usage.source = money, code, _values.text(source, 64)

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
        kind = spans.error_type(error) if _values.is_a(error, BaseException) else OTHER
        told = kind if error_type is None else _values.text(error_type, 128)
        self._failure = (problem, told)

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
        told = OTHER if why is None else _values.text(why, 128)
        self._given_up = (_values.text(model, 256), told)

    # --- its beginning and end ---

    def begin(self) -> None:
        """Open the span, below the span that runs."""
        self._pid = os.getpid()
        attributes: dict[str, Value] = {
            names.GEN_AI_OPERATION: self._operation,
            names.GEN_AI_PROVIDER: self._provider,
            names.GEN_AI_REQUEST_MODEL: self._model,
        }
        for key, value in _values.fields(self._fields).items():
            name = _REQUEST.get(key) or scope.ATTRIBUTE.get(key, key)
            if value is not None:
                attributes.setdefault(name, value)
        chain = self._chain = chain_of.get()
        if chain is not None:
            chain.position += 1
            attributes[names.LLM_CHAIN_POSITION] = chain.position
            if chain.given_up is not None and self._given_up is None:
                self._given_up = (chain.tried[-1], chain.given_up)
            if len(chain.tried) < TRIED:
                chain.tried.append(f"{self._provider}/{self._model}")
        tenant = attributes.get(names.TENANT_ID) or scope.effective().get(names.TENANT_ID)
        self._tenant = "" if tenant is None else _values.text(tenant, _values.ID_TEXT)
        self._span = _tracer().start_span(
            f"{self._operation} {self._model}", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        # the ids of the scope are stamped on every span at its start; what was given here wins
        self._span.set_attributes({key: v for key, v in attributes.items() if key in names.CONTEXT})
        self._tokens = (attach(trace.set_span_in_context(self._span)), call_of.set(self))
        self._begun = time.perf_counter()

    def end(self, error: BaseException | None) -> None:
        """Close the span; count and add up what is known."""
        tokens, self._tokens = self._tokens, None
        if tokens is None:
            return
        try:
            if self._pid == os.getpid():  # else the parent, where it began, records its end
                self._finish(error)
        except Exception as failure:
            fault("llm.call", failure)
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
            self._work_out_cost()
            self._describe(kind)
            if isinstance(problem, (Exception, str)):
                self._span.set_status(trace.StatusCode.ERROR)
                self._tell(problem, kind)
        finally:
            self._span.end()
        if self._chain is not None:
            self._chain.given_up = kind or self._rejected
        self._measure(kind, seconds)
        totals.add(
            (self._tenant, self._provider, self._model),
            self._usage,
            seconds,
            failed=kind is not None,
            fallback=self._given_up is not None,
        )

    def _problem(self, error: BaseException | None) -> tuple[object, str | None]:
        if error is not None:
            return error, spans.error_type(error)
        if self._failure is None:
            return None, None
        problem, kind = self._failure
        told = problem if isinstance(problem, BaseException) else _values.text(problem)
        return told, kind

    def _work_out_cost(self) -> None:
        usage = self._usage
        if self._priced and usage.cost is None and (usage.input or usage.output):
            model = self._response_model or self._model
            money = prices.price(usage, provider=self._provider, model=model)
            if money is not None:
                usage.cost, usage.currency, usage.source = money, "USD", "local"

    def _describe(self, kind: str | None) -> None:
        usage = self._usage
        facts: dict[str, Value] = {
            names.GEN_AI_USAGE_INPUT_TOKENS: usage.input,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output,
            names.GEN_AI_USAGE_CACHE_READ: usage.cached,
            names.GEN_AI_USAGE_CACHE_CREATION: usage.cache_created,
            names.GEN_AI_USAGE_REASONING: usage.reasoning,
            names.GEN_AI_RESPONSE_FIRST_CHUNK: self._first,
            names.ERROR_TYPE: kind,
        }
        if usage.cost is not None:
            facts[names.GEN_AI_USAGE_COST] = float(usage.cost)
            facts[names.GEN_AI_USAGE_COST_CURRENCY] = usage.currency
            facts[names.GEN_AI_USAGE_COST_SOURCE] = usage.source
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

    def _tell(self, problem: object, kind: str | None) -> None:
        """One WARN record, with the stack unless somebody has told the exception before."""
        fields: dict[str, Any] = {
            record.EVENT_NAME: names.GEN_AI_CLIENT_EXCEPTION,
            names.GEN_AI_OPERATION: self._operation,
            names.GEN_AI_PROVIDER: self._provider,
            names.GEN_AI_REQUEST_MODEL: self._model,
            names.ERROR_TYPE: kind,
        }
        stack = None
        if isinstance(problem, BaseException) and not already_recorded(problem):
            stack = problem
        text = f"{self._operation} {self._model} failed: {_values.text(problem, 1000)}"
        self._logger.warning("%s", text, extra=fields, exc_info=stack, stacklevel=6)

    def _measure(self, kind: str | None, seconds: float) -> None:
        labels = {
            names.GEN_AI_OPERATION: _label(self._operation),
            names.GEN_AI_PROVIDER: _label(self._provider),
            names.GEN_AI_REQUEST_MODEL: _label(self._model),
        }
        if self._response_model is not None:
            labels[names.GEN_AI_RESPONSE_MODEL] = _label(self._response_model)
        durations, used = _instruments()
        here = trace.set_span_in_context(self._span)
        failed = labels if kind is None else {**labels, names.ERROR_TYPE: _label(kind)}
        durations.record(seconds, failed, here)
        for word, count in (("input", self._usage.input), ("output", self._usage.output)):
            if count is not None:
                used.record(count, {**labels, names.GEN_AI_USAGE_KIND: word}, here)

    def _content(self, name: str, value: object) -> None:
        if self._capture:
            self._set({name: _values.clean(value)})

    def _set(self, attributes: dict[str, Value]) -> None:
        try:
            self._span.set_attributes(attributes)
        except Exception as error:
            fault("llm.call", error)


def capture_asked(given: bool | None) -> bool:
    """Whether content is recorded: the argument, else the variable, else no."""
    if given is not None:
        return given is True
    return os.environ.get(CAPTURE, "").strip().lower() in CAPTURED


def fault(site: str, error: Exception) -> None:
    """Say that something of ours failed, and go on."""
    _diagnostics.say(site, f"{site} failed and was skipped: {_values.text(error)}", level="error")


_tracer = functools.cache(functools.partial(trace.get_tracer, "telemetry"))
_labels: set[str] = set()


def _label(text: str) -> str:
    """A label of a metric; beyond a hundred different texts they share one."""
    if text not in _labels:
        if len(_labels) >= MODELS:
            return OTHER
        _labels.add(text)
    return text


@functools.cache
def _instruments() -> tuple[metrics.Histogram, metrics.Histogram]:
    meter = metrics.get_meter("telemetry")
    return (
        meter.create_histogram(
            names.GEN_AI_CLIENT_DURATION,
            unit="s",
            description="How long calls of language models took.",
            explicit_bucket_boundaries_advisory=names.GEN_AI_DURATION_BUCKETS_S,
        ),
        meter.create_histogram(
            names.GEN_AI_CLIENT_TOKENS,
            unit="{token}",
            description="Tokens that calls of language models used.",
            explicit_bucket_boundaries_advisory=names.GEN_AI_TOKEN_BUCKETS,
        ),
    )


def _whole(given: object) -> int | None:
    """A count of tokens; numpy and Decimal will do, and a float that is whole."""
    value = _values.clean(given)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value) or value < 0 or value != int(value):
        return None
    return int(value)


def _money(given: object) -> Decimal | None:
    """An amount of money, exact where it came exact."""
    value = given if type(given) is Decimal else _values.clean(given)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    money = value if isinstance(value, Decimal) else Decimal(str(value))
    return money if money.is_finite() and money >= 0 else None
