"""
Daily statistics of analyses and inferences: what is counted, and the shape of an answer.

A row is never incremented, because an increment counts twice what is sent twice and forgets what
was on its way during a crash. Each store marks the day of a fact as dirty before it can be lost
from sight, and soon makes all rows of a dirty day again from the facts that are stored: the same
facts give the same rows, however often and by however many.

A fact is a log record with one of two events, in the collection where the routes send it. A day is
a day in UTC of the fact's own time. Of two rows the one that counts more stays, so a day whose facts
begin to go (retention) keeps its numbers.
"""

import datetime
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from collector.documents.build import Document
from telemetry.attributes import (
    ERROR_TYPE,
    RISK_BAND,
    RISK_ENSEMBLE_NAME,
    RISK_EVALUATION_DURATION_S,
    RISK_FALLBACK,
    RISK_INFERENCE_DURATION_S,
    RISK_INFERENCE_FINISHED,
    RISK_INFERENCE_SCORE,
    RISK_MODEL_NAME,
    RISK_MODEL_VERSION,
    RISK_SCORE_EVALUATED,
    RISK_SCORE_FINAL,
)

Kind = Literal["analysis", "inference"]


class Fact(msgspec.Struct, frozen=True):
    """Which attributes of an event are counted."""

    kind: Kind
    event: str
    score: str
    duration_s: str


FACTS: Final = (
    Fact("analysis", RISK_SCORE_EVALUATED, RISK_SCORE_FINAL, RISK_EVALUATION_DURATION_S),
    Fact("inference", RISK_INFERENCE_FINISHED, RISK_INFERENCE_SCORE, RISK_INFERENCE_DURATION_S),
)
EVENTS: Final = frozenset(fact.event for fact in FACTS)
MODEL: Final = (RISK_MODEL_NAME, RISK_ENSEMBLE_NAME, RISK_MODEL_VERSION)
"""The first of these that is a text names the model of a row."""
TENANT: Final = ("tenant_id", "organization_id")
"""The first of these keys of `context` that is there names the tenant of a row."""
BAND: Final = RISK_BAND
ERROR: Final = ERROR_TYPE
FALLBACK: Final = RISK_FALLBACK
NO_FALLBACK: Final = "none"

DEBOUNCE_S: Final = 2.0
"""A day is made again at most so often."""
_SHARE: Final = 10.0
_LONGEST_S: Final = 600.0

DAY_NS: Final = 86_400 * 1_000_000_000
_EPOCH: Final = datetime.date(1970, 1, 1)
_LAST: Final = (datetime.date(9999, 12, 31) - _EPOCH).days


class DailyStatistic(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a day, what was counted, and of whom."""

    day: datetime.date
    """The day, UTC."""
    kind: Kind
    """`analysis` (`risk.score.evaluated`) or `inference` (`risk.inference.finished`)."""
    band: str
    """The band of the final score; empty without one."""
    model: str
    """The model, else the ensemble, else the version; empty without any."""
    tenant: str
    """The tenant, else the organisation; empty without any."""
    count: int
    """How many."""
    errors: int
    """How many of them failed (`error.type`)."""
    fallbacks: int
    """How many of them did without a member (`risk.fallback`)."""
    scores: int
    """How many of them have a score."""
    score_sum: float
    """Of the scores; their mean is `score_sum / scores`."""
    score_min: float | None = None
    """The lowest score; None without any."""
    score_max: float | None = None
    """The highest score; None without any."""
    durations: int = 0
    """How many of them have a duration."""
    duration_s_sum: float = 0.0
    """Of the durations, in seconds."""
    duration_s_max: float | None = None
    """The longest; None without any."""


def pause_s(took_s: float) -> float:
    """How long to wait after making days again: a tenth of the time at most goes into that."""
    return min(max(DEBOUNCE_S, took_s * _SHARE), _LONGEST_S)


def days_of(documents: Iterable[Document]) -> set[int]:
    """The days, counted from 1970, of the facts among log records."""
    return {
        document.get("time_unix_nano", 0) // DAY_NS
        for document in documents
        if document.get("event") in EVENTS
    }


def date_of(day: int) -> datetime.date:
    """The date of a day counted from 1970."""
    return _EPOCH + datetime.timedelta(days=min(day, _LAST))


def day_of(date: datetime.date) -> int:
    """The day, counted from 1970, of a date."""
    return (date - _EPOCH).days
