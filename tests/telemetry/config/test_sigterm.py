"""Programs that are ended by SIGTERM: what waits is delivered, and they still die of the signal."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.servers import die_with_parent

BIN = Path(sys.executable).parent
HEAD = """
import asyncio, multiprocessing, os, signal, sys, threading, time
from opentelemetry import metrics
import telemetry

def emit(flush_s=30):
    logger = telemetry.get_logger("app")
    logger.info("first")
    telemetry.flush(flush_s)  # what follows waits for a minute
    for number in range(10):
        with telemetry.span("work"):
            logger.info(f"waiting {number}")
    metrics.get_meter("app").create_counter("work").add(3)
    print("ready", flush=True)

def mine(*_):
    print("mine", flush=True)
    sys.exit(7)
"""
WAITING = {"OTEL_BLRP_SCHEDULE_DELAY": "60000", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
MESSAGES = ["first", *(f"waiting {number}" for number in range(10))]


class Program:
    """A script in a process of its own, which says `ready` when it can be ended."""

    def __init__(self, code, endpoint, *, wrapped=True, **env):
        command = [sys.executable, "-c", HEAD + textwrap.dedent(code)]
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
        }
        self.process = subprocess.Popen(
            [str(BIN / "opentelemetry-instrument"), *command] if wrapped else command,
            env={
                **clean,
                **WAITING,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "LOG_FORMAT": "none",
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
        self.first = self.process.stdout.readline()

    def end(self):
        """Its return code, what it has said since, and what on stderr, after a SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, out, err


@pytest.fixture
def program():
    """Start programs; what still runs at the end is killed."""
    started = []

    def start(*args, **kwargs):
        started.append(Program(*args, **kwargs))
        assert started[-1].first == "ready\n"
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def arrived(receiver):
    """How many spans, which messages, and which sums have arrived."""
    counts = [value for name, _, value in receiver.points if name == "work"]
    return len(receiver.spans), receiver.messages, counts


@pytest.mark.parametrize(
    "rest",
    [
        "emit(); time.sleep(300)",
        "emit(); threading.Thread(target=time.sleep, args=(300,)).start()",
        "async def main():\n    emit(); await asyncio.sleep(300)\nasyncio.run(main())",
    ],
    ids=["sleeping", "in a thread", "asyncio"],
)
def test_what_waits_is_delivered(program, receiver, rest):
    """A plain program under the wrapper loses nothing, and its parent sees the signal (G08, G09)."""
    assert program(rest, receiver.url).end() == (-signal.SIGTERM, "", "")
    assert arrived(receiver) == (10, MESSAGES, [3])


def test_the_end_is_bounded(program, black_hole):
    """Nobody answers: the process ends within its budget, of the signal, and says what it lost."""
    one = program("emit(0); time.sleep(300)", black_hole, TELEMETRY_EXIT_TIMEOUT="0.5")
    code, out, err = one.end()
    assert (code, out) == (-signal.SIGTERM, "")
    (line,) = [line for line in err.splitlines() if line.startswith("otelier: lost ")]
    assert "10 spans (shutdown 10); " in line
    assert "11 log records (shutdown 11)" in line


def test_a_second_signal_ends_it_at_once(program, black_hole):
    """Who does not want to wait for the delivery sends the signal again."""
    one = program("emit(0); time.sleep(300)", black_hole, TELEMETRY_EXIT_TIMEOUT="600")
    one.process.send_signal(signal.SIGTERM)
    status = Path(f"/proc/{one.process.pid}/status")
    ours = 1 << (signal.SIGTERM - 1)
    while int(status.read_text().partition("SigCgt:")[2].split()[0], 16) & ours:
        time.sleep(0.01)
    assert one.end() == (-signal.SIGTERM, "", "")


def test_a_handler_that_comes_later_wins(program, receiver):
    """It ends the program in its own way, and nothing is lost either."""
    one = program("signal.signal(signal.SIGTERM, mine); emit(); time.sleep(300)", receiver.url)
    assert one.end() == (7, "mine\n", "")
    assert arrived(receiver) == (10, MESSAGES, [3])


def test_a_handler_that_was_there_before_stays(program, receiver):
    """configure() in code changes nothing where the program has chosen, an ignored signal included."""
    code = "signal.signal(signal.SIGTERM, {}); telemetry.configure(); emit(); time.sleep(300)"
    assert program(code.format("mine"), receiver.url, wrapped=False).end() == (7, "mine\n", "")
    code = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN); telemetry.configure()
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, mine); emit(); time.sleep(300)
    """
    assert program(code, receiver.url, wrapped=False).end() == (7, "mine\n", "")


def test_a_handler_may_call_the_one_before(program, receiver):
    """A chain ends with ours: the program's clean-up, the delivery, the end by the signal."""
    code = """
    before = signal.getsignal(signal.SIGTERM)
    def chained(given, frame):
        telemetry.get_logger("app").info("cleaned up")
        before(given, frame)
    signal.signal(signal.SIGTERM, chained)
    emit(); time.sleep(300)
    """
    assert program(code, receiver.url).end() == (-signal.SIGTERM, "", "")
    assert arrived(receiver) == (10, [*MESSAGES, "cleaned up"], [3])


def test_a_terminated_child_delivers(program, receiver):
    """`Process.terminate()` of multiprocessing loses nothing of a forked child."""
    code = """
    told = multiprocessing.get_context("fork")
    handled = told.Event()
    child = told.Process(target=lambda: (handled.wait(), emit(), time.sleep(300)))
    child.start()
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    handled.set()
    child.join()
    print(child.exitcode)
    """
    assert program(code, receiver.url).end() == (0, f"{-signal.SIGTERM}\n", "")
    assert arrived(receiver) == (10, MESSAGES, [3])


def test_a_lock_that_is_never_let_go_does_not_keep_the_process(program, receiver):
    """The signal may interrupt code that holds a lock: then the time ends the wait for it."""
    code = """
    from telemetry._config import configure
    emit(1)
    telemetry.flush()
    lock, held = configure.pipeline().queues["logs"]._lock, threading.Event()
    threading.Thread(target=lambda: (lock.acquire(), held.set(), time.sleep(300)), daemon=True).start()
    held.wait()
    print("held", flush=True)
    time.sleep(300)
    """
    one = program(code, receiver.url, TELEMETRY_EXIT_TIMEOUT="1")
    assert one.process.stdout.readline() == "held\n"
    assert one.end()[:2] == (-signal.SIGTERM, "")


def test_it_can_be_switched_off(program, receiver):
    """TELEMETRY_SIGTERM=false, or no telemetry at all: the default action, and no handler."""
    code = "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; emit(0); time.sleep(300)"
    off = program(code, receiver.url, TELEMETRY_SIGTERM="false")
    none = program(code, receiver.url, OTEL_SDK_DISABLED="true")
    assert [one.end() for one in (off, none)] == [(-signal.SIGTERM, "", "")] * 2


def test_other_threads_cannot_have_handlers(program, receiver):
    """configure() in a thread works, without a handler, since Python has none there."""
    code = """
    thread = threading.Thread(target=telemetry.configure)
    thread.start(); thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    emit(0); time.sleep(300)
    """
    assert program(code, receiver.url, wrapped=False).end()[0] == -signal.SIGTERM
