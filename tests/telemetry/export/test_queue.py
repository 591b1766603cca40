"""The queue: every record ends in one column of the ledger, and nobody waits for the network."""

import ast
import ctypes
import os
import sys
import threading
import time

import pytest

from telemetry._export.metrics import PeriodicMetrics
from telemetry._export.queue import ExportQueue, Outcome, Result

FAR = 60.0


def soon(seconds=FAR):
    return time.monotonic() + seconds


class Sink:
    """An Export that keeps what it gets and answers as told; `gate` holds it back."""

    target = "memory"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.batches = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()
        self.called = threading.Event()
        self.closed = threading.Event()

    def __call__(self, batch, deadline):
        self.threads.add(threading.current_thread().name)
        self.called.set()
        self.gate.wait()
        answer = self.answers.pop(0) if self.answers else Outcome(Result.DELIVERED)
        outcome = answer(batch) if callable(answer) else answer
        if outcome.result is Result.DELIVERED:
            self.batches.append(batch)
        return outcome

    def close(self):
        self.closed.set()


def queue_to(sink, **options):
    return ExportQueue("logs", lambda: sink, **options)


def end(queue):
    queue.close_soon(soon())
    queue.close()


def test_no_thread_before_the_first_record():
    """A queue that has nothing to carry costs nothing."""
    before = set(threading.enumerate())
    queue = queue_to(Sink())
    assert queue.flush(soon())
    assert set(threading.enumerate()) == before
    queue.put("a", 1)
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"otelier-logs"}
    end(queue)


def test_records_arrive_in_order_and_in_batches():
    """Batches are as large as configured, and the ledger adds up."""
    sink = Sink()
    queue = queue_to(sink, batch_size=4, delay_s=FAR)
    for number in range(10):
        queue.put(number, 1)
    assert queue.flush(soon())
    assert [item for batch in sink.batches for item in batch] == list(range(10))
    assert max(map(len, sink.batches)) <= 4
    end(queue)
    assert queue.report() == {"produced": 10, "exported": 10, "pending": 0, "dropped": {}}
    assert sink.closed.wait(FAR)


def test_batches_are_bounded_in_bytes():
    """Large records go in smaller batches: about 1 MiB a request."""
    sink = Sink()
    queue = queue_to(sink, delay_s=FAR)
    for number in range(6):
        queue.put(number, 400_000)
    assert queue.flush(soon())
    assert max(map(len, sink.batches)) == 2
    end(queue)


def test_the_application_does_not_wait_for_a_held_exporter():
    """Emitting goes on while the exporter hangs: the work ends before it is released (R1, G02)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, delay_s=0.001)
    queue.put("first", 1)
    assert sink.called.wait(FAR)
    for number in range(5000):
        queue.put(number, 1)
    assert sink.batches == []
    sink.gate.set()
    end(queue)
    report = queue.report()
    assert report["produced"] == 5001
    assert report["exported"] + report["dropped"]["queue_full"] == 5001
    assert sink.batches[0] == ["first"]


def test_a_full_queue_drops_the_newest_and_keeps_room_for_errors():
    """Of 16 places two are for errors; what does not fit is counted as queue_full."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, queue_size=16, batch_size=1, delay_s=0.001)
    queue.put("held", 1)
    assert sink.called.wait(FAR)
    for number in range(20):
        queue.put(number, 1)
    for number in range(4):
        queue.put(f"error {number}", 1, important=True)
    assert queue.report() == {
        "produced": 25,
        "exported": 0,
        "pending": 16,
        "dropped": {"queue_full": 9},
    }
    sink.gate.set()
    end(queue)
    arrived = [item for batch in sink.batches for item in batch]
    assert arrived == ["held", *range(13), "error 0", "error 1"]


def test_a_full_queue_is_full_by_bytes_too():
    """The budget in bytes holds whatever the number of records is (G03)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, queue_bytes=800_000, delay_s=FAR)
    for number in range(10):
        queue.put(number, 100_000)
    queue.put("error", 100_000, important=True)
    queue.put("huge", 2_000_000)
    assert queue.report() == {
        "produced": 12,
        "exported": 0,
        "pending": 8,
        "dropped": {"queue_full": 3, "too_large": 1},
    }
    sink.gate.set()
    end(queue)


def test_an_outage_is_waited_out():
    """Retryable answers keep the batch; it arrives once, when the collector is back."""
    away = Outcome(Result.UNREACHABLE, "refused")
    busy = Outcome(Result.RETRY, "503", 0.01)
    sink = Sink(away, busy)
    queue = queue_to(sink, delay_s=0.001)
    queue.put("a", 1)
    while not queue.flush(soon()):
        pass
    end(queue)
    assert sink.batches == [["a"]]
    assert queue.report() == {"produced": 1, "exported": 1, "pending": 0, "dropped": {}}


def test_flush_says_no_after_one_failed_try():
    """A flush does not wait out its time when nobody answers, and loses nothing."""
    sink = Sink(*[Outcome(Result.UNREACHABLE, "refused")] * 2)
    queue = queue_to(sink, delay_s=FAR)
    queue.put("a", 1)
    assert queue.flush(soon()) is False
    assert queue.report()["pending"] == 1
    assert queue.flush(soon()) is False
    assert queue.flush(soon()) is True
    end(queue)


def test_flush_is_bounded_while_the_exporter_hangs():
    """flush(0) returns at once, with the exporter still held (G06)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, delay_s=0.001)
    queue.put("a", 1)
    assert sink.called.wait(FAR)
    assert queue.flush(soon(0.0)) is False
    sink.gate.set()
    end(queue)


def test_what_the_collector_refuses_is_counted_once():
    """A permanent refusal drops the batch, a partial success the rejected part."""
    sink = Sink(Outcome(Result.REFUSED, "400"), Outcome(Result.DELIVERED, rejected=2))
    queue = queue_to(sink, batch_size=3, delay_s=FAR)
    for number in range(6):
        queue.put(number, 1)
    queue.flush(soon())
    end(queue)
    assert queue.report() == {
        "produced": 6,
        "exported": 1,
        "pending": 0,
        "dropped": {"export_failed": 5},
    }


@pytest.mark.parametrize(
    ("result", "reason"),
    [(Result.TOO_LARGE, "too_large"), (Result.UNREADABLE, "conversion_error")],
)
def test_one_bad_record_does_not_take_its_neighbours_along(result, reason):
    """A batch that is too much, or cannot be encoded, is halved down to the culprit."""

    def answer(batch):
        return Outcome(result if "bad" in batch else Result.DELIVERED)

    sink = Sink(*[answer] * 20)
    queue = queue_to(sink, delay_s=FAR)
    for item in [*range(5), "bad", *range(5, 8)]:
        queue.put(item, 1)
    queue.flush(soon())
    end(queue)
    assert [item for batch in sink.batches for item in batch] == list(range(8))
    assert queue.report()["dropped"] == {reason: 1}


def test_shutdown_counts_what_did_not_make_it():
    """At the deadline queue and flight are lost to `shutdown`, and so is what comes later (G05)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, batch_size=2, delay_s=0.001)
    for number in range(5):
        queue.put(number, 1)
    assert sink.called.wait(FAR)
    queue.close_soon(soon(0.0))
    queue.close()
    queue.put("late", 1)
    expected = {"produced": 6, "exported": 0, "pending": 0, "dropped": {"shutdown": 6}}
    assert queue.report() == expected
    sink.gate.set()
    assert sink.closed.wait(FAR)
    assert queue.report() == expected
    queue.close()


def test_shutdown_gives_up_at_once_when_nobody_listens():
    """A refused connection at exit is not tried again: the exit does not use its budget up."""
    sink = Sink(*[Outcome(Result.UNREACHABLE, "refused")] * 3)
    queue = queue_to(sink, delay_s=FAR, batch_size=1)
    queue.put("a", 1)
    queue.put("b", 1)
    end(queue)
    assert queue.report()["dropped"] == {"export_failed": 2}


def test_shutdown_tries_again_when_the_collector_is_only_busy():
    """A 503 at exit is tried again within the budget."""
    sink = Sink(Outcome(Result.RETRY, "503", 0.01))
    queue = queue_to(sink, delay_s=FAR)
    queue.put("a", 1)
    end(queue)
    assert queue.report() == {"produced": 1, "exported": 1, "pending": 0, "dropped": {}}


def test_an_export_that_cannot_be_made_is_counted():
    """A maker that raises ends the thread; every record is accounted for."""

    def broken():
        raise RuntimeError("no TLS")

    queue = ExportQueue("logs", broken, delay_s=0.001)
    queue.put("a", 1)
    assert queue.flush(soon()) is False
    queue.put("b", 1)
    end(queue)
    assert queue.report()["dropped"] == {"export_failed": 1, "shutdown": 1}


def test_a_signal_handler_may_emit_while_its_thread_emits():
    """The lock is re-entrant: a handler that logs in the middle of a put does not hang."""
    sink = Sink()
    queue = queue_to(sink, delay_s=0.001)

    class Item:
        def __del__(self):
            queue.put("from the finalizer", 1)

    with queue._lock:  # the state that a signal handler would interrupt
        queue.put(Item(), 1)
        queue.put("nested", 1)
    end(queue)
    assert queue.report()["produced"] >= 2


def test_threads_that_put_while_others_look():
    """Whoever puts, takes and looks at once: the ledger adds up at each moment (R1)."""
    sink = Sink()
    queue = queue_to(sink, queue_size=100_000, delay_s=0.001, batch_size=50)
    looks, going = [], threading.Event()

    def put(thread):
        for number in range(4000):
            queue.put((thread, number), 1, important=number % 7 == 0)

    def look():
        while not going.is_set():
            ledger = queue.report()
            looks.append(
                ledger["produced"]
                - ledger["exported"]
                - ledger["pending"]
                - sum(ledger["dropped"].values())
            )

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=put, args=(thread,)) for thread in range(4)]
        watcher = threading.Thread(target=look)
        for thread in (watcher, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.flush(soon())
        going.set()
        watcher.join()
    finally:
        sys.setswitchinterval(before)
    end(queue)
    assert set(looks) == {0}
    arrived = [item for batch in sink.batches for item in batch]
    assert sorted(arrived) == [(thread, number) for thread in range(4) for number in range(4000)]
    for thread in range(4):
        assert [number for by, number in arrived if by == thread] == list(range(4000))
    assert (queue.oldest_s(), queue.report()["exported"]) == (0.0, 16_000)


def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch):
    """Out of threads for a while: what waits goes with the next record that finds one."""
    sink = Sink()
    queue = queue_to(sink, delay_s=0.001)
    start = threading.Thread.start

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    queue.put("a", 1)
    queue.put("b", 1)
    monkeypatch.setattr(threading.Thread, "start", start)
    queue.put("c", 1)
    end(queue)
    assert [item for batch in sink.batches for item in batch] == ["a", "b", "c"]


def test_the_age_of_the_oldest_record():
    """Nothing is old when nothing waits; else it is the first one's age (R8)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, delay_s=0.001)
    assert queue.oldest_s() == 0.0
    queue.put("a", 1)
    assert sink.called.wait(FAR)
    time.sleep(0.05)
    queue.put("b", 1)
    assert queue.oldest_s() >= 0.05
    sink.gate.set()
    end(queue)
    assert queue.oldest_s() == 0.0


def test_a_record_right_after_a_delivery_has_an_age():
    """Arrivals are noted 10 ms apart, and at once when nothing is here."""
    sink = Sink()
    queue = queue_to(sink, delay_s=0.001)
    queue.put("a", 1)
    assert queue.flush(soon())
    sink.gate.clear()
    queue.put("b", 1)
    time.sleep(0.02)
    assert queue.oldest_s() >= 0.02
    sink.gate.set()
    end(queue)


def test_a_record_that_comes_while_another_is_settled_has_an_age():
    """Put between two looks of the thread, when its arrival was taken for that of the one before."""
    release = threading.Event()
    sink = Sink(Outcome(Result.DELIVERED), lambda _: release.wait() and Outcome(Result.DELIVERED))
    sink.gate.clear()
    queue = queue_to(sink, delay_s=0.001, batch_size=1)
    queue.put("a", 1)
    assert sink.called.wait(FAR)
    queue.put("b", 1)
    queue._buffer.arrivals.clear()
    sink.gate.set()
    while queue.report()["exported"] == 0:
        time.sleep(0.001)
    time.sleep(0.02)
    assert queue.oldest_s() >= 0.02
    release.set()
    end(queue)


def test_a_fork_that_runs_no_hooks():
    """A server such as uWSGI forks like this: the child's first record finds out, and begins anew (G07)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, delay_s=0.001)
    queue.put("parent", 1)
    assert sink.called.wait(FAR)
    reading, writing = os.pipe()
    child = ctypes.PyDLL(None).fork()  # with the GIL, and without a word to Python
    if child == 0:
        queue.put("child", 1)
        os.write(writing, repr(queue.report()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    report = ast.literal_eval(os.read(reading, 10_000).decode())
    os.close(reading)
    os.close(writing)
    sink.gate.set()
    end(queue)
    assert report == {"produced": 2, "exported": 0, "pending": 1, "dropped": {"fork_discard": 1}}
    assert sink.batches == [["parent"]]


def test_a_forked_child_starts_empty_and_the_parent_keeps_its_own():
    """The child sends its own records only, in a thread of its own; nothing arrives twice (G07)."""
    sink = Sink()
    sink.gate.clear()
    queue = queue_to(sink, delay_s=0.001)
    queue.put("parent", 1)
    assert sink.called.wait(FAR)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = Sink()
            queue._make_export = lambda: own  # the parent's sink is held for ever in the child
            inherited = queue.report()
            queue.put("child", 1)
            end(queue)
            text = repr((inherited, own.batches, queue.report()))
            os.write(writing, text.encode())
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    inherited, batches, report = eval(os.read(reading, 10_000))
    os.close(reading)
    os.close(writing)
    fork_discard = {"fork_discard": 1}
    assert inherited == {"produced": 1, "exported": 0, "pending": 0, "dropped": fork_discard}
    assert batches == [["child"]]
    assert report == {"produced": 2, "exported": 1, "pending": 0, "dropped": fork_discard}
    sink.gate.set()
    end(queue)
    assert sink.batches == [["parent"]]
    assert queue.report() == {"produced": 1, "exported": 1, "pending": 0, "dropped": {}}


def metrics_to(sink, states, interval_s=FAR):
    return PeriodicMetrics(
        lambda: sink,
        collect=lambda: states.pop(0) if states else None,
        interval_s=interval_s,
        timeout_s=FAR,
    )


def test_metrics_are_collected_at_flush_and_at_the_end():
    """A flush sends the state of now, and so does the end; points are counted."""
    sink = Sink()
    queue = metrics_to(sink, [("one", 3), ("two", 4)])
    queue.start()
    assert queue.flush(soon())
    end(queue)
    assert sink.batches == [["one"], ["two"]]
    assert queue.report() == {"produced": 7, "exported": 7, "pending": 0, "dropped": {}}


def test_metrics_are_collected_at_intervals():
    """Without anybody asking, the state goes out at each interval."""
    sink = Sink()
    queue = metrics_to(sink, [("one", 1), ("two", 1)], interval_s=0.01)
    queue.start()
    while len(sink.batches) < 2:
        time.sleep(0.005)
    end(queue)
    assert sink.batches == [["one"], ["two"]]


def test_stale_metrics_are_dropped_in_an_outage():
    """After an interval without success the next collection says it better."""
    sink = Sink(*[Outcome(Result.RETRY, "503", 0.02)] * 10_000)
    queue = metrics_to(sink, [("old", 2)], interval_s=0.001)
    queue.start()
    queue.flush(soon())
    end(queue)
    assert sink.batches == []
    assert queue.report()["dropped"] == {"export_failed": 2}


def test_a_callback_that_raises_costs_its_collection_only(capsys):
    """An application's gauge callback that fails does not end the thread."""
    sink = Sink()
    states = iter([RuntimeError("gauge"), ("fine", 1)])

    def collect():
        state = next(states, None)
        if isinstance(state, Exception):
            raise state
        return state

    queue = PeriodicMetrics(lambda: sink, collect=collect, interval_s=FAR, timeout_s=FAR)
    queue.start()
    queue.flush(soon())
    queue.flush(soon())
    end(queue)
    assert sink.batches == [["fine"]]
