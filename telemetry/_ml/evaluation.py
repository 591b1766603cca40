"""
`Evaluation`: the parts of one score, and what follows from them.

The noun of this folder: it knows the rules of its ensemble (`Rules`) and neither how they are
declared (`ensemble`) nor what is recorded at the end (`scoring`), which both know it. The arithmetic is
here, without telemetry: `final` is a business value and is right even if all of telemetry fails.
"""

import contextlib
import math
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Final, Protocol, Self

from opentelemetry import trace

from telemetry import _diagnostics, _values
from telemetry._context.block import Block
from telemetry._ml.metrics import Instruments, number, ratio, short
from telemetry._traces import span

SPAN: Final = "evaluate risk.score"
REASONS: Final = ("unavailable", "timeout")
DIGITS: Final = 6
"""Scores are rounded to so many, all of them, so that equal scores are in one band."""
TEXTS: Final = 32
"""At most so many adjustments and rules of one evaluation."""


class Rules(Protocol):
    """What is declared about a score: an `Ensemble`, as its evaluations and their records see it."""

    attributes: dict[str, str]
    confidence_max: float
    labels: tuple[str, ...]
    scale_max: float
    tolerance: float
    weights: dict[str, float]

    def band(self, score: float) -> str:
        """The band that a score lies in."""

    def finish(
        self,
        evaluation: "Evaluation",
        current: trace.Span,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        """Record the evaluation that has ended; raises nothing."""

    def instruments(self) -> Instruments:
        """The histograms of the ensemble."""

    def moved(self, subject: object, band: str) -> str | None:
        """The band that the subject was in, if it was in another."""

    def named(self, subject: object) -> str:
        """The subject as it is sent."""


class Evaluation(Block["Evaluation"]):
    """
    One evaluation: give it the parts, read the score.

    Args:
        ensemble: whose rules apply; None records nothing.
        subject: whom the score is about.
        new_span: whether to make a span, or to use the running one.
        fields: what else goes on the span and the event.
    """

    def __init__(
        self,
        ensemble: Rules | None,
        subject: object = None,
        *,
        new_span: bool = True,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        self.ensemble = ensemble
        self.subject = subject
        self.fields = fields or {}
        self.scores: dict[str, float] = {}
        """Member -> score."""
        self.confidences: dict[str, float] = {}
        """Member -> confidence, from 0 to 1."""
        self.absent: dict[str, str] = {}
        """Member -> why it is missing, as far as the application said."""
        self.adjustments: list[tuple[str, float]] = []
        """What moved the score, in order."""
        self.rules: list[str] = []
        """The rules that fired."""
        self.given_blend: float | None = None
        self._given_confidence: float | None = None
        self._ended = False
        self._begun = 0.0
        self._span = span.span(SPAN) if new_span else None
        self._current: trace.Span = trace.INVALID_SPAN
        self._token: Token[Evaluation | None] | None = None

    # --- what the application reports ---

    def member(self, name: str, score: object, *, confidence: object = None) -> None:
        """
        A member's score; a number of any kind, or an array of one.

        Args:
            name: of the member, as in the weights.
            score: on the ensemble's scale; what is no finite number counts as missing.
            confidence: how sure the member is, on the scale of `confidence_max`.
        """
        if self._closed("member") or self.ensemble is None:
            return
        name = str.__str__(name) if _values.is_a(name, str) else _values.text(name, 64)
        if name not in self.ensemble.weights:
            known = ", ".join(self.ensemble.weights)
            _say("member", f"no member {name[:64]!r}; the weights have {known}")
            return
        found = number(score)
        if found is None:
            _say("score", f"the score of {name} is no finite number; the member counts as missing")
            self.scores.pop(name, None)
            return
        self.scores[name] = found
        if confidence is not None:
            self._confident(name, confidence)

    def missing(self, name: str, reason: "str | BaseException" = "unavailable") -> None:
        """
        A member has no score: `unavailable`, `timeout`, or the exception that says so.

        A member of which nothing was said counts as unavailable.
        """
        if self._closed("missing"):
            return
        if _values.is_a(reason, BaseException):
            reason = "timeout" if isinstance(reason, TimeoutError) else "unavailable"
        reason = _values.text(reason, 64)
        name = _values.text(name, _values.ID_TEXT)
        self.scores.pop(name, None)
        self.absent[name] = reason if reason in REASONS else "unavailable"

    def adjust(self, reason: str, score: object) -> None:
        """A threshold or an override that sets the score; they apply in order."""
        if self._closed("adjust"):
            return
        found = number(score)
        found = None if found is None else round(found, DIGITS)
        if found is None:
            _say("adjust", "an adjustment is left out: its score is no finite number")
        elif len(self.adjustments) < TEXTS:
            self.adjustments.append((_values.text(reason, _values.ID_TEXT), found))
        else:
            self.adjustments[-1] = (_values.text(reason, _values.ID_TEXT), found)

    def rule(self, *names: str) -> None:
        """Rules that fired."""
        if not self._closed("rule"):
            room = max(TEXTS - len(self.rules), 0)
            self.rules += [_values.text(name, _values.ID_TEXT) for name in names[:room]]

    # --- what comes of it ---

    @property
    def expected(self) -> float | None:
        """The blend that the declared weights give, over the members that are there."""
        if self.ensemble is None:
            return None
        weights = self.ensemble.weights
        total = math.fsum(weights[name] for name in self.scores)
        if total > 0:
            parts = (weights[name] * score for name, score in self.scores.items())
            return round(math.fsum(parts) / total, DIGITS)
        return None  # a member without weight watches, and decides nothing

    @property
    def blend(self) -> float | None:
        """The score before adjustments. Assign the blend that you computed, and it is checked."""
        return self.expected if self.given_blend is None else self.given_blend

    @blend.setter
    def blend(self, value: object) -> None:
        if self._closed("blend"):
            return
        found = number(value)
        self.given_blend = None if found is None else round(found, DIGITS)
        if found is None and value is not None:
            _say("blend", "the blend is no finite number; the declared weights count")

    @property
    def final(self) -> float | None:
        """The score that counts; None while no member has answered and nothing was adjusted."""
        return self.adjustments[-1][1] if self.adjustments else self.blend

    @property
    def band(self) -> str | None:
        """The band of the final score."""
        final = self.final
        return None if final is None or self.ensemble is None else self.ensemble.band(final)

    @property
    def confidence(self) -> float | None:
        """From 0 to 1: what was assigned, else the members' by weight."""
        if self._given_confidence is not None:
            return self._given_confidence
        if self.ensemble is None:
            return None
        found = {name: value for name, value in self.confidences.items() if name in self.scores}
        weights = [self.ensemble.weights[name] for name in found]
        if not math.fsum(weights) > 0:
            return None
        parts = (weight * value for weight, value in zip(weights, found.values(), strict=True))
        return round(math.fsum(parts) / math.fsum(weights), DIGITS)

    @confidence.setter
    def confidence(self, value: object) -> None:
        if not self._closed("confidence") and value is not None:
            self._confident(None, value)

    @property
    def fallback(self) -> str:
        """`none`, or which member is missing and why."""
        if self.ensemble is None:
            return "none"
        weighed = [name for name, weight in self.ensemble.weights.items() if weight > 0]
        gone = [name for name in weighed if name not in self.scores]
        if not gone:
            return "none"
        if len(gone) == len(weighed):
            return "all_unavailable"
        word = "rules" if gone[0] == "rule_based" else gone[0]
        return f"{word}_{self.absent.get(gone[0], 'unavailable')}"

    # --- the block ---

    def __enter__(self) -> Self:
        self._token = _running.set(self)
        self._current = trace.get_current_span() if self._span is None else self._span.__enter__()
        self._begun = time.perf_counter()
        return self

    def _end(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._begun
        self._ended = True
        try:
            if self.ensemble is not None:
                self.ensemble.finish(self, self._current, seconds, error)
        finally:
            if self._span is not None:
                self._span.__exit__(None, error, None)
            if self._token is not None:
                with contextlib.suppress(ValueError):  # left in another context than entered
                    _running.reset(self._token)

    def _confident(self, name: str | None, value: object) -> None:
        most = 1.0 if self.ensemble is None else self.ensemble.confidence_max
        found = ratio(value, most)
        if found is None:
            text = f"a confidence is left out: not between 0 and {short(most)}"
            _say("confidence", f"{text}; is it percent? then Ensemble(confidence_max=100)")
        elif name is None:
            self._given_confidence = found
        else:
            self.confidences[name] = found

    def _closed(self, what: str) -> bool:
        if self._ended:
            _say("late", f"{what} after the end of the evaluation changes nothing")
        return self._ended


_running: ContextVar[Evaluation | None] = ContextVar("otelier_evaluation", default=None)


def current_evaluation() -> Evaluation:
    """The running evaluation, for code below it; one that records nothing when there is none."""
    running = _running.get()
    return Evaluation(None, new_span=False) if running is None else running


def _say(site: str, text: str) -> None:
    _diagnostics.say(f"ensemble {site}", f"Ensemble: {text}")
