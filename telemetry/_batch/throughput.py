"""
When will it be done: throughput from completions, not from how long items take.

The rate is a weighted count of completions over weighted time; weights halve every 60 s, and time
starts when the first item does, so that the beginning is not underestimated. Completions belong to
the interval since the completion before them: workers that started together finish together, and
a burst then reads as the work of the whole interval, neither as a peak nor as the lull after it.
Items that were resumed never come here. All times are monotonic seconds, given by the caller.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

HALF_LIFE_S: Final = 60.0
RANGE_HALF_LIVES_S: Final = (30.0, 300.0)
SURE: Final = 20
"""From so many completions on, one number is honest; before, a range."""
STALLED_HALF_LIVES: Final = 3
SAMPLE: Final = 4096
BURST: Final = 0.1
PATIENCE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    What is known about the rest.

    Args:
        rate: completions per second; 0 when stalled or before the first one.
        seconds: until the last item is done, if that can be said.
        between: the least and the most that `seconds` may be, while there are few completions.
        stalled: nothing was completed for so long that no estimate holds.
    """

    rate: float
    seconds: float | None
    between: tuple[float, float] | None
    stalled: bool


class Durations:
    """How long items took: a uniform sample of bounded size, and its quantiles."""

    def __init__(self) -> None:
        self._sample: list[float] = []
        self._seen = 0
        self._dice = random.Random(0)

    def add(self, seconds: float) -> None:
        """Count one item."""
        self._seen += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(seconds)
        elif (place := self._dice.randrange(self._seen)) < SAMPLE:
            self._sample[place] = seconds

    def quantile(self, share: float) -> float | None:
        """The smallest time that `share` of the items did not exceed."""
        if not self._sample:
            return None
        ordered = sorted(self._sample)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Rate:
    """Weighted completions over weighted time, for one half-life."""

    __slots__ = ("_count", "_half_life", "_time", "_unit", "_weight")

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._unit = half_life / math.log(2)
        self._count = 0.0
        self._time = 0.0
        self._weight = 1.0

    def add(self, interval: float, burst: bool) -> None:
        """One completion, `interval` seconds after the one before."""
        decay = 2.0 ** (-interval / self._half_life)
        area = self._unit * (1 - decay)
        if not burst:
            self._weight = area / interval if interval > 0 else 1.0
        self._count = self._count * decay + self._weight
        self._time = self._time * decay + area

    def more(self, count: int) -> None:
        """So many completions at the same moment as the last one."""
        self._count += count * self._weight

    def read(self, idle: float) -> float:
        """Completions per second, when the last `idle` seconds had none that were due."""
        decay = 2.0 ** (-idle / self._half_life)
        time = self._time * decay + self._unit * (1 - decay)
        return self._count * decay / time if time > 0 else 0.0


class Throughput:
    """
    The estimator.

    Args:
        now: when the first item starts.
    """

    def __init__(self, now: float) -> None:
        self.durations = Durations()
        self.completions = 0
        self._start = now
        self._last = now
        self._gap = 0.0
        self._rates = tuple(map(_Rate, (HALF_LIFE_S, *RANGE_HALF_LIVES_S)))

    def completed(self, now: float, *durations: float) -> None:
        """Items that this run worked on are done; more than one only if they ended together."""
        interval = now - self._last
        if interval < 0.0:
            interval = 0.0
        else:
            self._last = now
        burst = self.completions > 0 and interval <= BURST * self._gap
        together = len(durations) - 1
        for rate in self._rates:
            rate.add(interval, burst)
            if together:
                rate.more(together)
        if not burst:
            self._gap = interval if not self._gap else 0.7 * self._gap + 0.3 * interval
        self.completions += len(durations)
        for duration in durations:
            self.durations.add(duration)

    def estimate(
        self, now: float, remaining: int | None, workers: int, ages: Iterable[float] = ()
    ) -> Estimate:
        """
        What can be said now.

        Args:
            now: monotonic seconds.
            remaining: items not done yet, with those that run; None when that is not known.
            workers: how many items can run at once.
            ages: for how long each running item has been running.
        """
        since = max(now - self._last, 0.0)
        if since > STALLED_HALF_LIVES * HALF_LIFE_S and remaining != 0:
            return Estimate(0.0, None, None, stalled=True)
        if not self.completions:
            return Estimate(0.0, None, None, stalled=False)
        idle = since if since > PATIENCE * self._gap else 0.0
        rate, *others = (rate.read(idle) for rate in self._rates)
        if remaining is None:
            return Estimate(rate, None, None, stalled=False)
        credit = 0.0 if idle else since  # the work of the interval that runs is under way
        usual = self.durations.quantile(0.9)
        running = list(ages)
        if remaining < workers and running and usual is not None:
            # All that is left is running: the youngest of them ends last.
            return Estimate(rate, max(usual - min(running), 0.0), None, stalled=False)
        seconds = max(remaining / rate - credit, 0.0)
        between = None
        if self.completions < SURE:
            ends = [seconds, *(max(remaining / other - credit, 0.0) for other in others)]
            between = (min(ends), max(ends))
        return Estimate(rate, seconds, between, stalled=False)
