"""Telemetry can never hurt: hostile values, dead collectors, forks, floods and clocks (G01-G15)."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from telemetry.attributes import EXECUTION_TIME_MS

HOSTILE = Path(__file__).parent / "hostile.py"
HOSTILE_WORK = Path(__file__).parent / "hostile_work.py"
BIN = Path(sys.executable).parent


def clean_environment(**env):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
    }
    return {**kept, **env}


# --- hostile values (R15) ---

BLOCKS = ["span", "LogContext", "log_context"]
CALLS = [
    *("get_logger", "bind_context", "set_request_context", "clear_context", "current_context"),
    *("new_correlation_id", "track", "audit", "structlog_processor", "flush", "report"),
    *("configure", "shutdown"),
]


def added_up(ledger):
    """Whether every record is in exactly one column."""
    columns = ledger["exported"] + ledger["pending"] + ledger.get("spooled", 0)
    return ledger["produced"] == columns + sum(ledger["dropped"].values())


@pytest.mark.parametrize(
    "command",
    [[HOSTILE, "BoundLogger"], [HOSTILE, *BLOCKS], [HOSTILE, *CALLS], [HOSTILE_WORK]],
    ids=["loggers", "blocks", "calls", "work"],
)
def test_no_public_call_raises_whatever_the_value(command, receiver):
    """R15: over 100 hostile objects in every call of the public API: nothing comes out of it."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=clean_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, TELEMETRY_EXIT_TIMEOUT="60"
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["raised"] == []
    assert found["uncovered"] == []  # a new public name needs a row in CALLS
    assert found["objects"] >= 80
    assert found["calls"] >= 2000
    assert {signal: added_up(ledger) for signal, ledger in found["report"].items()} == {
        "traces": True,
        "metrics": True,
        "logs": True,
    }
    assert len(receiver.logs) == found["report"]["logs"]["exported"] > 0


def test_configure_takes_hostile_arguments_as_wrong_ones(run):
    """The one call that may raise says ConfigError, whatever it is given."""
    code = f"""
    import sys
    sys.path.insert(0, {str(HOSTILE.parent)!r})
    import hostile, inspect, telemetry
    from telemetry._config import settings
    wrong = []
    for name in inspect.signature(telemetry.configure).parameters:
        if name == "redaction":
            continue  # an object of its own, with its own test
        for label, make in hostile.OBJECTS.items():
            try:
                settings.load({{name: make()}}, {{}})
            except telemetry.ConfigError:
                pass
            except Exception as error:
                wrong.append((name, label, type(error).__name__))
    print(wrong)
    """
    assert run(code, PYTHONWARNINGS="ignore").stdout == "[]\n"


# --- the end of a process (R16) ---

EMIT = """
    import telemetry
    logger = telemetry.get_logger("app")
    for number in range(20):
        with telemetry.LogContext("work"):
            logger.info("step", number=number)
    print("work done")
"""


@pytest.fixture
def dripping():
    """The URL of a server that answers one byte at a time, for ever."""
    stop = threading.Event()

    def answer(connection):
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(0.1)

        def serve():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=(connection,)).start()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
        thread.join()


@pytest.fixture
def busy(receiver):
    """The URL of a collector that says 503 for ever."""
    receiver.answers.extend([(503, {}, b"")] * 10_000)
    return receiver.url


@pytest.fixture
def up(receiver):
    """The URL of a collector that is well."""
    return receiver.url


REPORT = re.compile(r"(\d+) (spans|log records|metric points) = ([^;(\n]*)")


@pytest.mark.parametrize("spool", [False, True], ids=["lost", "spooled"])
@pytest.mark.parametrize("collector", ["up", "refused", "black_hole", "dripping", "busy"])
def test_the_exit_is_bounded_and_accounts_for_everything(run, request, collector, spool, tmp_path):
    """R16: whatever the collector does, the process ends and its report adds up, in one line."""
    env = {"TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")} if spool else {}
    done = run(
        EMIT,
        wrapped=True,
        endpoint=request.getfixturevalue(collector),
        TELEMETRY_EXIT_TIMEOUT="0.6",
        TELEMETRY_REPORT="true",
        LOG_FORMAT="none",
        **env,
    )
    assert done.stdout == "work done\n"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("otelier: report: ")]
    found = {}
    for produced, word, told in REPORT.findall(line):
        columns = {}
        for count, name in re.findall(r"(\d+) ([a-z_ ]+?)(?: \+|$)", told.strip()):
            columns[name] = int(count)
        assert int(produced) == sum(columns.values())
        found[word] = (int(produced), set(columns))
    fate = "exported" if collector == "up" else "spooled" if spool else None
    for word, count in (("spans", 20), ("log records", 40)):
        produced, names = found[word]
        assert produced == count
        if fate is None:
            assert names <= {"dropped shutdown", "dropped export_failed"}
        else:
            assert names == {fate}


def test_flush_is_bounded_against_a_black_hole(run, black_hole):
    """G06: flush ends by its own time, and says that it did not get through."""
    code = """
    import telemetry
    telemetry.configure(log_format="none", exit_timeout=0)
    telemetry.get_logger("app").info("hello")
    print(telemetry.flush(0.2), telemetry.flush(0), telemetry.flush(-1))
    """
    assert run(code, endpoint=black_hole).stdout == "False False False\n"


# --- forks (R18) ---


def forks(number):
    return f"""
    import os, signal, threading, telemetry
    from opentelemetry import metrics
    telemetry.configure(log_format="none", log_delay_ms=1, span_delay_ms=1, metric_interval_ms=5)
    logger = telemetry.get_logger("app")
    counter = metrics.get_meter("app").create_counter("work")
    stop = threading.Event()

    def work():
        while not stop.wait(0.001):
            counter.add(1)
            with telemetry.span("noise"):
                logger.debug("noise")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for number in range({number}):
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that hangs is killed, and its status tells
            counter.add(1, {{"child": number}})
            with telemetry.span(f"span {{number}}"):
                logger.info(f"child {{number}}")
            (telemetry.flush if number % 2 else telemetry.shutdown)(50)
            os._exit(0)
        children.append(child)
        if len(children) == 4:
            assert os.waitpid(children.pop(0), 0)[1] == 0
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    """


def check_forks(receiver, number):
    assert sorted(receiver.messages) == sorted(f"child {child}" for child in range(number))
    spans = [span["name"] for span in receiver.spans if span["name"] != "noise"]
    assert sorted(spans) == sorted(f"span {child}" for child in range(number))
    points = {(labels["child"], value) for _, labels, value in receiver.points if "child" in labels}
    assert points == {(child, 1) for child in range(number)}


def test_forks_while_threads_emit(run, receiver):
    """R18: no child hangs, each sends its own records and sums once, and nobody sends another's."""
    run(forks(50), endpoint=receiver.url)
    check_forks(receiver, 50)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_thousand_forks_while_threads_emit(receiver):
    """R18, at its full number."""
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(forks(1000))],
        env=clean_environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url),
        check=True,
        timeout=800,
    )
    check_forks(receiver, 1000)


APP = """
import logging
import telemetry
from fastapi import FastAPI

app = FastAPI()
logger = telemetry.get_logger("shop")

@app.get("/orders/{order_id}")
def order(order_id: str):
    logger.info("order loaded", order_id=order_id)
    return {"version": VERSION}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, path):
    """The answer, as soon as there is one."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.05)


@contextlib.contextmanager
def uvicorn(folder, receiver, port, *flags):
    """A uvicorn under the wrapper, with all its processes, ended as an operator ends it."""
    server = subprocess.Popen(
        [
            BIN / "opentelemetry-instrument",
            BIN / "uvicorn",
            "shop:app",
            "--port",
            str(port),
            *flags,
        ],
        cwd=folder,
        env=clean_environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, PYTHONPATH=str(folder), LOG_FORMAT="none"
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield server
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def loaded(receiver):
    return sorted(log["attributes"]["order.id"] for log in receiver.logs if log["logger"] == "shop")


def test_uvicorn_with_reload(tmp_path, receiver):
    """After `--reload` has replaced the worker, the old one's records and the new one's arrived."""
    (tmp_path / "shop.py").write_text(APP.replace("VERSION", "1"))
    port = free_port()
    with uvicorn(tmp_path, receiver, port, "--reload", "--reload-delay", "0.05"):
        assert ask(port, "/orders/before") == {"version": 1}
        (tmp_path / "shop.py").write_text(APP.replace("VERSION", "2"))
        while ask(port, "/orders/between") != {"version": 2}:
            time.sleep(0.05)
        ask(port, "/orders/after")
    assert loaded(receiver)[:2] == ["after", "before"]


# --- memory, loops, clocks ---


def test_a_flood_is_bounded_in_memory_and_counted(run, black_hole):
    """G03: 40,000 records, some of them huge, into a dead collector: bounded, and it adds up."""
    code = """
    import json, resource, telemetry
    telemetry.configure(log_format="none", exit_timeout=0, diagnostics="none", queue_bytes=4_000_000)
    logger = telemetry.get_logger("app")
    huge = "x" * 300_000
    for _ in range(1000):
        logger.info("warm", text="y" * 200, number=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(19_000):
        with telemetry.span("work", number=number):
            pass
        logger.info("record", number=number, text=f"{number}" * 40)
        if number % 500 == 0:
            logger.info(huge, structure=[[huge] * 50])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([grown, telemetry.report()]))
    """
    grown, report = json.loads(run(code, endpoint=black_hole).stdout)
    assert grown < 32 * 1024  # KiB, over two signals of 4 MB each
    assert added_up(report["logs"])
    assert added_up(report["traces"])
    assert (report["logs"]["produced"], report["traces"]["produced"]) == (20_038, 19_000)
    assert report["logs"]["dropped"]["queue_full"] > 10_000


def test_no_feedback_at_debug_with_the_collector_down_and_a_spool(run, refused, tmp_path):
    """G15, B79: a failing export, its retries, the spool and its replay make no records."""
    code = """
    import logging, time, telemetry
    telemetry.configure(log_level="DEBUG", log_format="none", log_delay_ms=1, span_delay_ms=1,
                        metric_interval_ms=10, log_queue_size=16, log_batch_size=4)
    logging.getLogger("http.client").debug("the application's own")
    for number in range(40):
        telemetry.get_logger("app").debug("one", number=number)
        telemetry.flush(0.02)
    time.sleep(1.2)
    print(telemetry.report()["logs"]["produced"])
    """
    env = {"TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")}
    assert run(code, endpoint=refused, **env).stdout == "41\n"


def test_a_clock_that_goes_back_changes_nothing(run, receiver):
    """R20, G10: an hour back in the middle: no negative duration, and every wait ends as before."""
    code = """
    import time
    shift = 0
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + shift
    time.time_ns = lambda: wall_ns() + int(shift * 1e9)
    import telemetry
    telemetry.configure(log_format="none")
    for shift in (0, -3600, 3600, -7200):
        with telemetry.span("outer"):
            shift -= 1800
            with telemetry.LogContext("inner"):
                shift -= 1800
        assert telemetry.flush(30)
    """
    run(code, endpoint=receiver.url)
    spans = [
        span
        for path, message in receiver.requests
        if path == "/v1/traces"
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == 8
    assert all(0 <= span.end_time_unix_nano - span.start_time_unix_nano < 60e9 for span in spans)
    durations = [log["attributes"][EXECUTION_TIME_MS] for log in receiver.logs]
    assert len(durations) == 4
    assert all(0 <= duration < 60_000 for duration in durations)


def test_spans_take_any_value_and_keep_numbers(captured):
    """What a block sets on its span is converted as log fields are: numpy scores stay numbers."""
    import numpy as np
    from opentelemetry import trace

    import telemetry

    with telemetry.span("score") as span:
        span.set_attribute("score", np.float32(0.5))
        span.set_attributes({"count": np.int64(3), "rows": [np.int8(1)], "odd": object})
    with trace.get_tracer("foreign").start_as_current_span("theirs") as theirs:
        theirs.set_attribute("score", np.float32(0.25))
    assert [item["attributes"] for item in captured.spans] == [
        {"score": 0.5, "count": 3, "rows": [1], "odd": "<class 'object'>"},
        {"score": 0.25},
    ]
