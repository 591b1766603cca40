"""
What an evaluation leaves behind when it ends: span attributes, histogram points, events.

Everything is computed from the parts that the evaluation holds, once, and recorded three times with
the same names. The check of the arithmetic is here too: a blend that the application computed is
compared with the declared weights, and a difference is classified, because a silent fallback, a
clamp and a drifted weight are different faults.
"""

from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber

from telemetry import _events, attributes
from telemetry._context import scope
from telemetry._ml.evaluation import Evaluation, Rules
from telemetry._ml.metrics import SCOPE, short
from telemetry._traces import span

NO_SCORE: Final = "no_score"
LEAST_SPREAD: Final = 0.01
"""Below this share of the scale the members are too close to distinguish a weight from rounding."""
NEAR: Final = 0.02
"""So close to 0 or 1 an effective weight is a fallback."""


def finish(
    e: Evaluation,
    ensemble: Rules,
    current: trace.Span,
    seconds: float,
    error: BaseException | None,
) -> None:
    """Record all of it; nothing is raised."""
    try:
        _finish(e, ensemble, current, seconds, error)
    except Exception as failure:
        _events.lost("Ensemble", failure)


def _finish(
    e: Evaluation,
    ensemble: Rules,
    current: trace.Span,
    seconds: float,
    error: BaseException | None,
) -> None:
    found = _attributes(e, ensemble, seconds)
    kind = None
    if error is not None:
        kind = span.error_type(error)
    elif attributes.RISK_SCORE_FINAL not in found:
        kind = NO_SCORE
    if kind is not None:
        found[attributes.ERROR_TYPE] = kind
    _measure(e, ensemble, found, seconds)
    current.set_attributes(found)
    if isinstance(error, Exception):
        _events.record_once(
            attributes.RISK_EVALUATION_EXCEPTION,
            error,
            {**ensemble.attributes, attributes.ERROR_TYPE: kind},
            scope=SCOPE,
            body="the evaluation failed",
            severity=SeverityNumber.ERROR,
        )
    _events.emit(
        attributes.RISK_SCORE_EVALUATED, dict(found), scope=SCOPE, body=_sentence(e, found)
    )
    if kind is None:
        _check(e, ensemble, found)
        _follow(e, ensemble, found)


def _attributes(e: Evaluation, ensemble: Rules, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = _events.attributes(e.fields) | ensemble.attributes
    if e.subject is not None:
        found[attributes.RISK_SUBJECT_ID] = ensemble.named(e.subject)
    for name, weight in ensemble.weights.items():
        found[f"risk.weight.{name}"] = weight
        if name in e.scores:
            found[f"risk.score.{name}"] = e.scores[name]
    found[attributes.RISK_SCORE_SCALE_MAX] = ensemble.scale_max
    found[attributes.RISK_FALLBACK] = e.fallback
    found[attributes.RISK_EVALUATION_DURATION_S] = seconds
    outcome = {
        attributes.RISK_SCORE_ENSEMBLE: e.blend,
        attributes.RISK_SCORE_FINAL: e.final,
        attributes.RISK_BAND: e.band,
        attributes.RISK_CONFIDENCE: e.confidence,
    }
    found.update({name: value for name, value in outcome.items() if value is not None})
    if e.rules:
        found[attributes.RISK_RULES_FIRED] = list(e.rules)
    if e.adjustments:
        found[attributes.RISK_ADJUSTMENTS] = [
            f"{why} -> {short(score)}" for why, score in e.adjustments
        ]
    return found


def _measure(e: Evaluation, ensemble: Rules, found: dict[str, Any], seconds: float) -> None:
    instruments = ensemble.instruments()
    labels: dict[str, Any] = {
        **ensemble.attributes,
        attributes.RISK_FALLBACK: found[attributes.RISK_FALLBACK],
    }
    ids = scope.effective() if ensemble.labels else {}
    for keyword in ensemble.labels:
        name = scope.ATTRIBUTE.get(keyword, keyword)
        value = found.get(name, ids.get(name))
        if isinstance(value, (str, bool, int, float)):
            labels[name] = value
    outcome: dict[str, str] = {
        key: found[key] for key in (attributes.RISK_BAND, attributes.ERROR_TYPE) if key in found
    }
    instruments.duration.record(seconds, {**labels, **outcome})
    if attributes.ERROR_TYPE in found:
        return
    for component, score in (
        *e.scores.items(),
        ("ensemble", found.get(attributes.RISK_SCORE_ENSEMBLE)),
        ("final", found[attributes.RISK_SCORE_FINAL]),
    ):
        if score is not None:
            instruments.score.record(score, {**labels, attributes.RISK_COMPONENT: component})
    if len(e.scores) > 1:
        spread = max(e.scores.values()) - min(e.scores.values())
        instruments.divergence.record(spread, labels)
    if attributes.RISK_CONFIDENCE in found:
        instruments.confidence.record(found[attributes.RISK_CONFIDENCE], labels)


def _check(e: Evaluation, ensemble: Rules, found: dict[str, Any]) -> None:
    """Does the blend that the application computed follow from the declared weights?"""
    given, expected = e.given_blend, e.expected
    if given is None or expected is None or abs(given - expected) <= ensemble.tolerance:
        return
    weight = effective_weight(e, ensemble)
    if given in (0.0, ensemble.scale_max):
        cause = "clamped"
    elif weight is not None and min(abs(weight), abs(weight - 1)) <= NEAR:
        cause = "silent_fallback"
    else:
        cause = "weight_drift"
    mismatch = {
        **found,
        attributes.RISK_ENSEMBLE_EXPECTED: expected,
        attributes.RISK_ENSEMBLE_RESIDUAL: round(given - expected, 6),
        attributes.RISK_ENSEMBLE_CAUSE: cause,
    }
    if weight is not None:
        mismatch[attributes.RISK_ENSEMBLE_EFFECTIVE_WEIGHT] = weight
    _events.emit(
        attributes.RISK_ENSEMBLE_MISMATCH,
        mismatch,
        scope=SCOPE,
        body=f"blend {short(given)} instead of {short(expected)}: {cause}",
        severity=SeverityNumber.WARN,
    )


def effective_weight(e: Evaluation, ensemble: Rules) -> float | None:
    """The weight of the last of two members that would explain the blend; None if it says nothing."""
    names = [name for name, weight in ensemble.weights.items() if weight > 0 and name in e.scores]
    if len(names) != 2 or e.given_blend is None:
        return None
    first, last = (e.scores[name] for name in names)
    if abs(last - first) < LEAST_SPREAD * ensemble.scale_max:
        return None
    return round((e.given_blend - first) / (last - first), 6)


def _follow(e: Evaluation, ensemble: Rules, found: dict[str, Any]) -> None:
    """Has the subject come from another band?"""
    band = found[attributes.RISK_BAND]
    before = None if e.subject is None else ensemble.moved(e.subject, band)
    if before is None:
        return
    change = {attributes.RISK_BAND_FROM: before, attributes.RISK_BAND_TO: band}
    ensemble.instruments().transitions.add(1, {**ensemble.attributes, **change})
    kept = (
        attributes.RISK_SUBJECT_ID,
        attributes.RISK_SCORE_FINAL,
        attributes.RISK_SCORE_SCALE_MAX,
    )
    _events.emit(
        attributes.RISK_BAND_CHANGED,
        {**ensemble.attributes, **{key: found[key] for key in kept}, **change},
        scope=SCOPE,
        body=f"band changed from {before} to {band}",
    )


def _sentence(e: Evaluation, found: dict[str, Any]) -> str:
    """The event as a line for people."""
    parts = [f"{name}={short(score)}" for name, score in e.scores.items()]
    if attributes.RISK_SCORE_ENSEMBLE in found:
        parts.append(f"ensemble={short(found[attributes.RISK_SCORE_ENSEMBLE])}")
    parts += found.get(attributes.RISK_ADJUSTMENTS, [])
    if found[attributes.RISK_FALLBACK] != "none":
        parts.append(f"fallback={found[attributes.RISK_FALLBACK]}")
    if attributes.ERROR_TYPE in found:
        parts.append(f"error={found[attributes.ERROR_TYPE]}")
    score = "none"
    if attributes.RISK_SCORE_FINAL in found:
        score = f"{short(found[attributes.RISK_SCORE_FINAL])} {found[attributes.RISK_BAND]}"
    return f"Risk score {score} [{', '.join(parts)}]"
