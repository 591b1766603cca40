"""The arguments of a BackgroundProcessor, checked, as its runs read it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry._batch.types import ItemContext, Limits, Logs, Rate, Retry, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arguments of `BackgroundProcessor`, which documents them."""

    name: str
    handler: Callable[[Any, ItemContext], Any]
    key: Callable[[Any], Any]
    fingerprint: Any
    concurrency: int
    rate: Rate | None
    retry: Retry
    attempt_timeout: float | None
    item_timeout: float | None
    deadline: float | None
    limits: Limits
    journal: Path | None
    fsync: str
    progress_file: Path | None
    resume: str | bool
    stop: Stop
    duplicates: str
    logs: Logs | None
    display: str
    show_items: bool
    spans: str
    results: str | Path | None
    keep_outcomes: int
