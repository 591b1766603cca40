"""
The two histograms of calls of language models, as the GenAI conventions have them.

Models come and go, so their names are bounded as labels: beyond a hundred they share one. Points
are recorded with the call's span as their context, which makes it their exemplar.
"""

import functools
from typing import Final

from opentelemetry import metrics
from opentelemetry.context import Context

from telemetry import attributes as names
from telemetry._llm.totals import OTHER, Usage

MODELS: Final = 100
_labels: set[str] = set()


def _label(text: str) -> str:
    """A label of a metric; beyond a hundred different texts they share one."""
    if text not in _labels:
        if len(_labels) >= MODELS:
            return OTHER
        _labels.add(text)
    return text


def record(
    given: dict[str, str], usage: Usage, seconds: float, error_type: str | None, here: Context
) -> None:
    """
    Record a call that has ended.

    Args:
        given: attribute -> operation, provider, model and the model that answered.
        usage: what it used.
        seconds: how long it took.
        error_type: why it failed, or None.
        here: the context in which its span is the current one.
    """
    labels = {name: _label(text) for name, text in given.items()}
    durations, used = _instruments()
    failed = labels if error_type is None else {**labels, names.ERROR_TYPE: _label(error_type)}
    durations.record(seconds, failed, here)
    for word, count in (("input", usage.input), ("output", usage.output)):
        if count is not None:
            used.record(count, {**labels, names.GEN_AI_USAGE_KIND: word}, here)


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
