"""
`Ensemble`: a score blended from members with weights, recorded whole and checked.

    scores = Ensemble(
        weights={"rule_based": 0.6, "ml": 0.4},
        scale_max=10_000,
        bands={"LOW": 3000, "MEDIUM": 6000, "HIGH": 10_000},
    )

    with scores.evaluate(subject=wallet) as e:
        e.member("rule_based", 4200)
        e.member("ml", 4800, confidence=0.92)
        e.adjust("no DeFi engagement", 4500)
    e.final, e.band          # 4500.0, "MEDIUM"

The evaluation holds the parts, not the calculator: a hundred at once do not mix, and code below
finds the running one by `current_evaluation()`. When the block ends, one span, one event
`risk.score.evaluated` and the histograms say the same. A member that is missing leaves its weight
to the others, visibly. When the application tells the blend that it computed itself (`e.blend =`),
that blend, and not the adjusted score, is compared with what the declared weights give.

`final` is a business value: it is computed without telemetry and is right even if all of it fails.
"""

import contextlib
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self

from opentelemetry import trace

from telemetry import _diagnostics, _values
from telemetry._ml import metrics, scoring
from telemetry._ml.metrics import number, ratio, short
from telemetry._redaction import pseudonyms
from telemetry._traces import span
from telemetry.attributes import (
    RISK_ENSEMBLE_NAME,
    RISK_MODEL_NAME,
    RISK_MODEL_ROLE,
    RISK_MODEL_VERSION,
    RISK_RULESET_VERSION,
)
from telemetry.errors import ConfigError

MEMBER: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
RESERVED: Final = ("ensemble", "final", "scale_max", "bands", "value", "divergence", "evaluated")
REASONS: Final = ("unavailable", "timeout")
SUBJECTS: Final = ("hashed", "shortened", "plain")
TEXTS: Final = 32
"""At most so many adjustments and rules of one evaluation."""
REMEMBERED: Final = 10_000


class Evaluation:
    """
    One evaluation: tell it the parts, read the score.

    Args:
        ensemble: whose rules apply; None records nothing.
        subject: whom the score is about.
        new_span: whether to make a span, or to use the running one.
        fields: what else goes on the span and the event.
    """

    def __init__(
        self,
        ensemble: "Ensemble | None",
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
        self._span = span.span(scoring.SPAN) if new_span else None
        self._current: trace.Span = trace.INVALID_SPAN
        self._token: Token[Evaluation | None] | None = None

    # --- what the application tells ---

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
            return round(math.fsum(parts) / total, 6)
        if self.scores:  # only members without weight answered
            return round(math.fsum(self.scores.values()) / len(self.scores), 6)
        return None

    @property
    def blend(self) -> float | None:
        """The score before adjustments. Assign the blend that you computed, and it is checked."""
        return self.expected if self.given_blend is None else self.given_blend

    @blend.setter
    def blend(self, value: object) -> None:
        if self._closed("blend"):
            return
        self.given_blend = number(value)
        if self.given_blend is None and value is not None:
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
        if not found:
            return None
        if not math.fsum(weights) > 0:
            weights = [1.0] * len(found)
        parts = (weight * value for weight, value in zip(weights, found.values(), strict=True))
        return round(math.fsum(parts) / math.fsum(weights), 6)

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._begun
        self._ended = True
        try:
            scoring.finish(self, self._current, seconds, error)
        finally:
            if self._span is not None:
                self._span.__exit__(kind, error, stack)
            if self._token is not None:
                with contextlib.suppress(ValueError):  # left in another context than entered
                    _running.reset(self._token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, stack)

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


class Ensemble:
    """
    What is declared about a blended score; make one per kind of score, where the program starts.

    Args:
        weights: member -> weight; they add up to 1. Weight 0 is for a member that only watches.
        scale_max: the highest score; the lowest is 0.
        bands: name -> highest score that is still in the band, in rising order; the last one ends
            with the scale.
        model: the name of the ML member's model, on every span, event and metric.
        version: its version.
        role: `champion` or `challenger`, when two run side by side.
        ruleset: the version of the rules.
        confidence_max: the confidence that means "certain": 100 for a model that gives percent.
        tolerance: how far a blend that the application computed may be from the declared weights.
        subjects: how the subject is sent: `hashed`, `shortened` or `plain`.
        labels: ids or fields (`tenant_id`, `chain`) that also label the metrics; few values each.
        name: tells ensembles of one program apart.

    Raises:
        ConfigError: the declaration is inconsistent; all problems are listed. Nothing later raises.
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        scale_max: float,
        bands: Mapping[str, float] | Iterable[tuple[str, float]],
        model: str | None = None,
        version: str | None = None,
        role: str | None = None,
        ruleset: str | None = None,
        confidence_max: float = 1.0,
        tolerance: float = 1.0,
        subjects: str = "hashed",
        labels: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        self.weights: dict[str, float] = dict(weights)
        self.scale_max = scale_max
        self.bands: dict[str, float] = dict(bands)
        self.confidence_max = confidence_max
        self.tolerance = tolerance
        self.subjects = subjects
        problems = list(_problems(self))
        if problems:
            raise ConfigError(problems)
        # as plain floats from here on: a Decimal or a numpy scalar would infect the score
        self.weights = {member: float(weight) for member, weight in self.weights.items()}
        self.bands = {band: float(edge) for band, edge in self.bands.items()}
        self.scale_max, self.confidence_max = float(scale_max), float(confidence_max)
        self.tolerance = float(tolerance)
        self.labels = tuple(labels)
        given = {
            RISK_MODEL_NAME: model,
            RISK_MODEL_VERSION: version,
            RISK_MODEL_ROLE: role,
            RISK_RULESET_VERSION: ruleset,
            RISK_ENSEMBLE_NAME: name,
        }
        self.attributes = {
            key: _values.text(value, _values.ID_TEXT)
            for key, value in given.items()
            if value is not None
        }
        self._last_bands: dict[str, str] = {}

    def evaluate(
        self, subject: object = None, *, new_span: bool = True, **fields: object
    ) -> Evaluation:
        """
        A block that computes one score: `with ensemble.evaluate(subject=wallet) as e:`.

        Args:
            subject: whom the score is about; it is hashed before it leaves the process.
            new_span: False puts the attributes on the running span instead of a new one.
            fields: of the span and the event; ids by the keywords of `log_context`.
        """
        return Evaluation(self, subject, new_span=new_span, fields=fields)

    def band(self, score: float) -> str:
        """The band that a score lies in; below and above the scale the first and the last."""
        return next((name for name, edge in self.bands.items() if score <= edge), [*self.bands][-1])

    def instruments(self) -> metrics.Instruments:
        """What this ensemble measures."""
        return metrics.instruments(tuple(self.bands.items()), self.scale_max)

    def named(self, subject: object) -> str:
        """The subject as it is sent."""
        if self.subjects == "hashed":
            return pseudonyms.pseudonym(subject)
        if self.subjects == "shortened":
            return pseudonyms.shorten(subject)
        return _values.text(subject, _values.ID_TEXT)

    def moved(self, subject: object, band: str) -> str | None:
        """The band that the subject was in, if it was in another; remembers this one."""
        key = pseudonyms.pseudonym(subject)
        # pop and set are atomic each, and the order of a dict is the order of setting
        before = self._last_bands.pop(key, None)
        self._last_bands[key] = band
        if len(self._last_bands) > REMEMBERED:
            with contextlib.suppress(RuntimeError, StopIteration, KeyError):
                del self._last_bands[next(iter(self._last_bands))]
        return None if before in (None, band) else before


def _problems(ensemble: Ensemble) -> Iterable[str]:
    weights, bands, top = ensemble.weights, ensemble.bands, number(ensemble.scale_max)
    bad = [name for name in weights if not isinstance(name, str) or not MEMBER.fullmatch(name)]
    bad += [name for name in weights if name in RESERVED]
    for name in bad:
        yield f"weights: {name!r} cannot be a member's name; use a word such as rule_based or ml"
    values = [number(weight) for weight in weights.values()]
    if not weights or any(value is None or value < 0 for value in values):
        yield f"weights={weights!r}: give each member a number, 0 or more"
    elif not math.isclose(math.fsum(value or 0.0 for value in values), 1.0, abs_tol=1e-6):
        total = short(math.fsum(value or 0.0 for value in values))
        yield f"weights={weights!r}: they add up to {total}, and should add up to 1"
    if top is None or top <= 0:
        yield f"scale_max={ensemble.scale_max!r}: give the highest score, above 0"
        return
    edges = [number(edge) for edge in bands.values()]
    rising = [edge for edge in edges if edge is not None]
    if not bands or len(rising) < len(edges) or rising != sorted(set(rising)) or rising[0] <= 0:
        yield f"bands={bands!r}: give each band its highest score, rising, above 0"
    elif not math.isclose(rising[-1], top):
        last = [*bands][-1]
        yield f"bands={bands!r}: the last band ends the scale; give {last!r} {short(top)}"
    most, tolerance = number(ensemble.confidence_max), number(ensemble.tolerance)
    if most is None or most <= 0:
        yield f"confidence_max={ensemble.confidence_max!r}: give 1, or 100 for percent"
    if tolerance is None or tolerance < 0:
        yield f"tolerance={ensemble.tolerance!r}: give points of the scale, 0 or more"
    if ensemble.subjects not in SUBJECTS:
        yield f"subjects={ensemble.subjects!r}: give one of {', '.join(SUBJECTS)}"


def _say(site: str, text: str) -> None:
    _diagnostics.say(f"ensemble {site}", f"Ensemble: {text}")
