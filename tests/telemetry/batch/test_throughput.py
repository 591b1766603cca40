"""When it will be done, on simulated clocks (L4)."""

import heapq
import itertools

import pytest

from telemetry._batch.throughput import Durations, Throughput


def simulate(durations, workers):
    """(time, duration, ages of what runs) at each completion of a pool of workers."""
    waiting = iter(durations)
    running = []
    numbers = itertools.count()

    def start(now):
        duration = next(waiting, None)
        if duration is not None:
            heapq.heappush(running, (now + duration, next(numbers), duration, now))

    for _ in range(workers):
        start(0.0)
    while running:
        now, _, duration, _ = heapq.heappop(running)
        start(now)
        yield now, duration, [now - begun for *_, begun in running]


def worst_error(durations, workers, *, offset=0.0, ask_every=1.0, settle=0.1, until=0.9):
    """The largest relative error of the estimates between two shares of the run's time."""
    done = list(simulate(durations, workers))
    end = done[-1][0]
    throughput = Throughput(offset)
    errors = []
    upcoming = iter(done)
    event = next(upcoming)
    count = 0
    now = 0.0
    ages = []
    while now < end * until:
        while event is not None and event[0] <= now:
            throughput.completed(offset + event[0], event[1])
            ages = [(event[0], age) for age in event[2]]
            count += 1
            event = next(upcoming, None)
        aged = [age + now - then for then, age in ages]
        estimate = throughput.estimate(offset + now, len(durations) - count, workers, aged)
        if now > end * settle and estimate.seconds is not None:
            errors.append(abs(estimate.seconds - (end - now)) / (end - now))
        now += ask_every
    assert len(errors) > 10
    return max(errors)


STEADY = [2.0] * 600
UNEVEN = [1.0 + (number * 7 % 11) / 5 for number in range(900)]
BURSTY = [10.0] * 400


@pytest.mark.parametrize(
    ("durations", "workers"),
    [(STEADY, 1), (STEADY, 8), (UNEVEN, 8), (BURSTY, 10), ([30.0] * 200, 10)],
    ids=["steady", "steady-8", "uneven", "bursty", "slow-bursts"],
)
def test_estimates_are_within_15_percent(durations, workers):
    """L4: on steady and bursty runs the estimate is within 15 % of what comes."""
    assert worst_error(durations, workers, until=0.85) <= 0.15


def test_a_resumed_run_estimates_its_own_pace():
    """L4: items of earlier runs are no part of the rate: 400 of 600 done at once change nothing."""
    throughput = Throughput(1000.0)
    for number in range(1, 101):
        throughput.completed(1000.0 + 2.0 * number, 2.0)
    estimate = throughput.estimate(1200.0, 100, 1)
    assert estimate.rate == pytest.approx(0.5, rel=0.01)
    assert estimate.seconds == pytest.approx(200.0, rel=0.01)


def test_the_clock_may_start_anywhere():
    """L4: only differences of the clock count."""
    assert worst_error(STEADY, 4, offset=1e6) <= 0.15


def test_a_range_until_there_is_enough():
    """L4: up to 20 completions the estimate comes with a range, then without."""
    throughput = Throughput(0.0)
    for number in range(1, 20):
        throughput.completed(float(number) ** 1.2, 1.0)
    early = throughput.estimate(19.0**1.2, 100, 1)
    assert early.between[0] < early.seconds < early.between[1]
    throughput.completed(20.0**1.2, 1.0)
    assert throughput.estimate(20.0**1.2, 100, 1).between is None


def test_stalled():
    """L4: after three half-lives without a completion there is no estimate, and it says why."""
    throughput = Throughput(0.0)
    for number in range(1, 50):
        throughput.completed(float(number), 1.0)
    assert not throughput.estimate(49.0 + 179, 10, 2).stalled
    estimate = throughput.estimate(49.0 + 181, 10, 2)
    assert (estimate.rate, estimate.seconds, estimate.stalled) == (0.0, None, True)


def test_a_pace_that_drops_is_noticed():
    """L4: when completions stop coming, the estimate grows instead of counting down to nothing."""
    throughput = Throughput(0.0)
    for number in range(1, 101):
        throughput.completed(float(number), 1.0)
    eta = [throughput.estimate(100.0 + idle, 100, 1).seconds for idle in (0, 30, 60, 120)]
    assert eta == sorted(eta)
    assert eta[3] > 2 * eta[0]


def test_an_unknown_total_has_a_rate_and_no_estimate():
    """L4: without a total nobody knows the end."""
    throughput = Throughput(0.0)
    for number in range(1, 30):
        throughput.completed(float(number), 1.0)
    estimate = throughput.estimate(29.0, None, 2)
    assert (round(estimate.rate, 2), estimate.seconds, estimate.stalled) == (1.0, None, False)


def test_the_last_items_end_when_the_youngest_does():
    """L4: when all that is left is running, its usual time minus its age is the estimate."""
    throughput = Throughput(0.0)
    for number in range(1, 101):
        throughput.completed(float(number), 10.0)
    assert throughput.estimate(100.0, 3, 8, [9.0, 5.0, 1.0]).seconds == 9.0
    assert throughput.estimate(100.0, 1, 8, [12.0]).seconds == 0.0


def test_before_the_first_completion_nothing_is_said():
    """L4: no completion, no estimate."""
    estimate = Throughput(0.0).estimate(5.0, 10, 2, [5.0, 5.0])
    assert (estimate.rate, estimate.seconds, estimate.stalled) == (0.0, None, False)


def test_durations_are_a_bounded_sample():
    """L4: quantiles of many durations take bounded memory and are close."""
    durations = Durations()
    for number in range(50_000):
        durations.add(float(number % 1000))
    assert durations.quantile(0.5) == pytest.approx(500, abs=40)
    assert durations.quantile(0.95) == pytest.approx(950, abs=20)
    assert Durations().quantile(0.5) is None


def test_completions_that_come_together():
    """L4: items told as one group count as if they had been told one by one at that moment."""
    grouped, single = Throughput(0.0), Throughput(0.0)
    for number in range(1, 40):
        durations = [0.02 + 0.001 * place for place in range(1 + number % 5)]
        grouped.completed(0.5 * number, *durations)
        for duration in durations:
            single.completed(0.5 * number, duration)
    one, other = grouped.estimate(20.0, 100, 4), single.estimate(20.0, 100, 4)
    assert (one.rate, one.seconds) == pytest.approx((other.rate, other.seconds))
    assert grouped.completions == single.completions
    assert grouped.durations.quantile(0.9) == single.durations.quantile(0.9)
