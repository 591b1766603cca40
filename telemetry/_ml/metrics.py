"""
Instruments of inferences and ensembles, and how a number is read.

Made at first use, on the global meter. Buckets of scores are every band edge plus 20 equal steps
of the scale, so that shares of bands and drift can be computed from buckets alone; a bucket ends
with its edge, as bands do. Buckets belong to an instrument, so ensembles with other scales or bands
get a meter of their own, distinguished by an attribute of its scope that spells the bands out.
"""

import functools
import math
from dataclasses import dataclass
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram

from telemetry import _values
from telemetry import attributes as names

SCOPE: Final = "telemetry.ml"
STEPS: Final = 20


@functools.cache
def inference_duration() -> Histogram:
    """How long inferences take."""
    return metrics.get_meter(SCOPE).create_histogram(
        names.RISK_INFERENCE_DURATION,
        "s",
        "How long an inference took.",
        explicit_bucket_boundaries_advisory=names.INFERENCE_BUCKETS_S,
    )


@functools.cache
def stage_duration() -> Histogram:
    """How long the stages of inferences take."""
    return metrics.get_meter(SCOPE).create_histogram(
        names.RISK_INFERENCE_STAGE_DURATION,
        "s",
        "How long a stage of an inference took.",
        explicit_bucket_boundaries_advisory=names.INFERENCE_BUCKETS_S,
    )


@dataclass(frozen=True, slots=True)
class Instruments:
    """What an ensemble measures."""

    duration: Histogram
    score: Histogram
    divergence: Histogram
    confidence: Histogram
    transitions: Counter


@functools.cache
def instruments(bands: tuple[tuple[str, float], ...], scale_max: float) -> Instruments:
    """The instruments of all ensembles with these bands and this scale."""
    spelt = ", ".join(f"{name} <= {short(edge)}" for name, edge in bands)
    scores = metrics.get_meter(SCOPE, attributes={names.RISK_SCORE_BANDS: spelt})
    meter = metrics.get_meter(SCOPE)
    return Instruments(
        duration=meter.create_histogram(
            names.RISK_EVALUATION_DURATION,
            "s",
            "How long an evaluation took.",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_S,
        ),
        score=scores.create_histogram(
            names.RISK_SCORE_VALUE,
            "1",
            "Scores, by component.",
            explicit_bucket_boundaries_advisory=edges(bands, scale_max),
        ),
        divergence=scores.create_histogram(
            names.RISK_SCORE_DIVERGENCE,
            "1",
            "How far the members of an evaluation lie apart.",
            explicit_bucket_boundaries_advisory=steps(scale_max),
        ),
        confidence=meter.create_histogram(
            names.RISK_CONFIDENCE_VALUE,
            "1",
            "Confidences of evaluations.",
            explicit_bucket_boundaries_advisory=steps(1.0),
        ),
        transitions=meter.create_counter(
            names.RISK_BAND_TRANSITIONS, "{transition}", "Subjects whose band changed."
        ),
    )


def steps(scale_max: float) -> tuple[float, ...]:
    """The upper ends of 20 equal steps."""
    return tuple(round(scale_max * step / STEPS, 9) for step in range(1, STEPS + 1))


def edges(bands: tuple[tuple[str, float], ...], scale_max: float) -> tuple[float, ...]:
    """The upper ends of bands and of 20 equal steps, each once."""
    found = [edge for _, edge in bands]
    found += [
        step
        for step in steps(scale_max)
        if not any(math.isclose(step, edge, rel_tol=1e-9) for _, edge in bands)
    ]
    return tuple(sorted(found))


def number(value: object) -> float | None:
    """A finite number from int, float, Decimal, a numpy scalar or an array of one; else None."""
    cleaned = _values.clean(value)
    while isinstance(cleaned, list) and len(cleaned) == 1:
        cleaned = cleaned[0]
    if isinstance(cleaned, bool) or not isinstance(cleaned, (int, float)):
        return None
    return float(cleaned) if math.isfinite(cleaned) else None


def ratio(value: object, of: float) -> float | None:
    """A confidence as a ratio from 0 to 1, else None."""
    found = number(value)
    if found is None or not 0 <= found <= of:
        return None
    return found / of


def short(value: float) -> str:
    """A number as people write it: 4500, 0.35."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(round(value, 6))
