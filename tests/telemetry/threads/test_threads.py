"""Ids and trace in threads and executors, alone and beside OpenTelemetry's threading instrumentation."""

import pytest

PROGRAM = """
import asyncio, concurrent.futures, logging, threading, telemetry
log = logging.getLogger("ex")
log.setLevel("INFO")

class Own(threading.Thread):
    def run(self):
        log.info("subclass")

def started(thread):
    thread.start()
    thread.join()

async def main():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with telemetry.span("work"), telemetry.log_context(correlation_id="ex-1", tenant_id="t-1"):
        await asyncio.to_thread(log.info, "to_thread")
        await asyncio.get_running_loop().run_in_executor(None, log.info, "run_in_executor")
        await asyncio.get_running_loop().run_in_executor(pool, log.info, "own pool")
        pool.submit(log.info, "submit").result()
        list(pool.map(log.info, ["map"]))
        started(threading.Thread(target=log.info, args=("thread",)))
        started(threading.Thread(target=log.info, args=("daemon",), daemon=True))
        started(threading.Timer(0.01, log.info, args=("timer",)))
        started(Own())
        pool.submit(pool.submit, log.info, "nested").result().result()
    pool.submit(log.info, "after").result()
    started(threading.Thread(target=log.info, args=("after thread",)))

asyncio.run(main())
"""
CARRIED = [
    *("to_thread", "run_in_executor", "own pool", "submit", "map", "thread", "daemon", "timer"),
    *("subclass", "nested"),
]


def arrived(receiver):
    """Message -> its ids and whether it belongs to the span."""
    (span,) = receiver.spans
    return {
        log["message"]: (
            log["attributes"].get("correlation.id"),
            log["attributes"].get("tenant.id"),
            log["span_id"] == span["span_id"],
        )
        for log in receiver.logs
    }


@pytest.mark.parametrize("also", ["", "opentelemetry"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_threads_carry_ids_and_trace(run, receiver, also, wrapped):
    """Everything that is started in the block has its ids; a pool's thread forgets them after it."""
    head = "" if wrapped else "import telemetry; telemetry.configure()\n"
    if also:
        pytest.importorskip("opentelemetry.instrumentation.threading")
        head += (
            "from opentelemetry.instrumentation.threading import ThreadingInstrumentor\n"
            "ThreadingInstrumentor().instrument()\n"
        )
    run(
        head + PROGRAM,
        wrapped=wrapped,
        endpoint=receiver.url,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="threading",
    )
    assert arrived(receiver) == {
        **dict.fromkeys(CARRIED, ("ex-1", "t-1", True)),
        **dict.fromkeys(("after", "after thread"), (None, None, False)),
    }


def test_it_can_be_switched_off(run, receiver):
    """TELEMETRY_THREADS=false leaves threads as Python makes them; to_thread copies the context itself."""
    run(
        PROGRAM,
        wrapped=True,
        endpoint=receiver.url,
        TELEMETRY_THREADS="false",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="threading",
    )
    assert {name for name, (id_, *_) in arrived(receiver).items() if id_} == {"to_thread"}


def test_threads_of_libraries_take_nothing_over(run, receiver):
    """A pool of threads that a library makes in a block does not keep the block's ids."""
    run(
        """
        import concurrent.futures, logging, telemetry
        log = logging.getLogger("ex")
        log.setLevel("INFO")
        def begin():
            log.info("initialized")
        pool = concurrent.futures.ThreadPoolExecutor(1, initializer=begin)
        with telemetry.log_context(correlation_id="ex-1"):
            pool.submit(log.info, "inside").result()
        pool.submit(log.info, "after").result()
        """,
        wrapped=True,
        endpoint=receiver.url,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="threading",
    )
    assert {log["message"]: log["attributes"].get("correlation.id") for log in receiver.logs} == {
        "initialized": None,
        "inside": "ex-1",
        "after": None,
    }
