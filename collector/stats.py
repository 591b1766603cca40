"""
The collector's counters about itself: a dict of integers behind one lock-free `add`.

Names and attributes are the OpenTelemetry Collector's (`otelcol_receiver_accepted_spans`
{receiver, transport}, ...), so that dashboards written for it keep working, plus a few that it
lacks (dropped by reason, repaired, deduplicated). Everything runs on one event loop or adds whole
integers under the GIL, so a dict is enough; a metrics SDK in here would observe itself.

`QuietLog` stands beside the counters because the two belong together: the count says how often, and
one log line a minute says what it looks like.
"""

import logging
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Attributes = tuple[tuple[str, str], ...]
Key = tuple[str, Attributes]

BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
"""Upper bounds of times, in seconds: from a fast disk to one that hangs."""
QUIET_S: Final = 60.0
"""A log line that could come up for every item is written at most so often."""


@dataclass(slots=True)
class Times:
    """How long something took: how often up to each of BOUNDS, and in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


@dataclass(slots=True, frozen=True)
class Number:
    """One counter or gauge with its value now."""

    name: str
    attributes: Attributes
    kind: Literal["counter", "gauge", "times"]
    value: float = 0
    times: Times | None = None


class Stats:
    """Counters by name and attributes."""

    def __init__(self) -> None:
        self._values: defaultdict[Key, int] = defaultdict(int)
        self._gauges: set[str] = set()
        self._times: defaultdict[Key, Times] = defaultdict(Times)
        self._watched: list[Callable[[], None]] = []

    def add(self, name: str, amount: int = 1, **attributes: str) -> None:
        """Count `amount` more of `name`; attributes are low-cardinality words such as a reason."""
        self._values[name, tuple(sorted(attributes.items()))] += amount

    def set(self, name: str, value: int, **attributes: str) -> None:
        """Set a gauge: a number that may also fall, such as the length of a queue."""
        self._gauges.add(name)
        self._values[name, tuple(sorted(attributes.items()))] = value

    def time(self, name: str, seconds: float, **attributes: str) -> None:
        """Count how long something took."""
        found = self._times[name, tuple(sorted(attributes.items()))]
        found.counts[bisect_left(BOUNDS, seconds)] += 1
        found.total += seconds

    def watch(self, publish: Callable[[], None]) -> None:
        """Call this before numbers are looked at: it sets gauges that time changes."""
        self._watched.append(publish)

    def unwatch(self, publish: Callable[[], None]) -> None:
        """Call this no more."""
        if publish in self._watched:
            self._watched.remove(publish)

    def numbers(self) -> Iterator[Number]:
        """Everything as of now, in alphabetical order; on the event loop."""
        for publish in list(self._watched):
            publish()
        for (name, attributes), value in sorted(self._values.items()):
            kind: Literal["counter", "gauge"] = "gauge" if name in self._gauges else "counter"
            yield Number(name, attributes, kind, value)
        for (name, attributes), times in sorted(self._times.items()):
            yield Number(name, attributes, "times", times=times)

    def snapshot(self) -> dict[str, int]:
        """All counters, as `name{key="value"}` in alphabetical order."""
        lines = {}
        for (name, attributes), value in sorted(self._values.items()):
            inner = ",".join(f'{key}="{text}"' for key, text in attributes)
            lines[f"{name}{{{inner}}}" if inner else name] = value
        return lines


class QuietLog:
    """
    Writes a log line that could come up for every item, once a minute at most.

    Args:
        log: where the lines go.
        clock: seconds that only grow.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._until: dict[str, float] = {}

    def warning(
        self, text: str, *values: Any, subject: str = "", error: BaseException | None = None
    ) -> None:
        """
        Log a warning, unless one about the same subject was logged a moment ago.

        Args:
            text: the line, with `%s` for values.
            values: what stands in it.
            subject: a word out of few; lines about different subjects do not silence each other.
            error: an exception whose traceback is shown.
        """
        self._write(logging.WARNING, text, values, subject, error)

    def error(
        self, text: str, *values: Any, subject: str = "", error: BaseException | None = None
    ) -> None:
        """The same as an error, for what is a fault of the collector."""
        self._write(logging.ERROR, text, values, subject, error)

    def _write(
        self,
        level: int,
        text: str,
        values: tuple[Any, ...],
        subject: str,
        error: BaseException | None,
    ) -> None:
        now = self._clock()
        if now >= self._until.get(subject, 0.0):
            self._until[subject] = now + QUIET_S
            self._log.log(level, text, *values, exc_info=error)
