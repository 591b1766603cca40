"""Whole processes: under the wrapper, by configure(), through forks, and at the exit."""

import json

import pytest

SCRIPT = """
    import logging, telemetry
    logger = telemetry.get_logger("app")
    with telemetry.log_context(correlation_id="c-1"), telemetry.span("work"):
        logger.info("from ours", n=1)
        logging.getLogger("std").warning("from stdlib")
        with telemetry.LogContext("timed"):
            pass
"""


def check(receiver):
    """What SCRIPT emits has arrived, once, and hangs together."""
    assert [span["name"] for span in receiver.spans] == ["timed", "work"]
    assert receiver.messages == ["from ours", "from stdlib", "timed completed"]
    (trace_id,) = {item["trace_id"] for item in [*receiver.spans, *receiver.logs]}
    assert len(trace_id) == 32
    assert {item["attributes"]["correlation.id"] for item in [*receiver.spans, *receiver.logs]} == {
        "c-1"
    }
    labels = {"operation.name": "timed", "operation.status": "success"}
    assert receiver.points == [("operation.duration", labels, 1)]


@pytest.mark.parametrize(
    "env",
    [{}, {"OTEL_PYTHON_DISTRO": "otelier", "OTEL_PYTHON_CONFIGURATOR": "otelier"}],
    ids=["unnamed", "named"],
)
def test_the_wrapper_is_enough(run, receiver, env):
    """`opentelemetry-instrument python app.py` sends three signals, with no set-up code (D2)."""
    run(SCRIPT, wrapped=True, endpoint=receiver.url, OTEL_SERVICE_NAME="shop", **env)
    check(receiver)
    for resource in receiver.resources:
        assert (
            resource["service.name"],
            resource["telemetry.distro.name"],
            resource["telemetry.distro.version"],
        ) == ("shop", "otelier", "0.1.0")


def test_configure_is_enough(run, receiver):
    """One call does the same without the wrapper; its arguments win over the environment (D1)."""
    code = f"""
    import telemetry
    telemetry.configure(
        endpoint={receiver.url!r}, service_name="shop", resource_attributes={{"team": "a"}}
    )
    {SCRIPT}
    """
    run(code, endpoint="http://127.0.0.1:9", OTEL_SERVICE_NAME="env")
    check(receiver)
    assert {(resource["service.name"], resource["team"]) for resource in receiver.resources} == {
        ("shop", "a")
    }


def test_configure_under_the_wrapper_changes_nothing(run, receiver):
    """A program may call configure() always: the wrapper has run, each record arrives once."""
    code = f"""
    import telemetry
    telemetry.configure(endpoint="http://127.0.0.1:9", service_name="other")
    telemetry.configure()
    {SCRIPT}
    """
    run(code, wrapped=True, endpoint=receiver.url, OTEL_SERVICE_NAME="shop")
    check(receiver)
    assert {resource["service.name"] for resource in receiver.resources} == {"shop"}


def test_wrong_settings_under_the_wrapper_do_not_stop_the_program(run, receiver):
    """A bad variable is said on stderr, its default is used, and the program runs (G01)."""
    done = run(
        SCRIPT,
        wrapped=True,
        endpoint=receiver.url,
        OTEL_BSP_MAX_QUEUE_SIZE="many",
        LOG_FORMAT="none",
    )
    assert done.stderr == (
        "otelier: OTEL_BSP_MAX_QUEUE_SIZE='many' cannot be used; give a whole number, 1 or more,"
        " or leave it out\n"
    )
    check(receiver)


def test_an_impossible_setting_under_the_wrapper_is_said_and_its_default_used(run):
    """An exporter that does not exist is one line with the fix; telemetry goes on with the default."""
    done = run(
        "print('ran')", wrapped=True, OTEL_TRACES_EXPORTER="carrier_pigeon", LOG_FORMAT="none"
    )
    assert done.stdout == "ran\n"
    assert done.stderr == (
        "otelier: OTEL_TRACES_EXPORTER='carrier_pigeon': no such exporter is installed; use otlp, console"
        " or none; for traces the default is used\n"
    )


def test_wrong_settings_in_code_are_an_error(run):
    """configure() raises before anything is built; the program may go on without."""
    code = """
    import telemetry
    try:
        telemetry.configure(endpoint="nowhere")
    except telemetry.ConfigError as error:
        print(error)
    telemetry.get_logger("app").warning("still fine")
    """
    assert run(code).stdout == (
        "endpoint='nowhere' cannot be used; give a URL such as http://localhost:4318,"
        " or leave it out\n"
    )


def test_flags_of_the_wrapper(run, receiver):
    """The settings that are ours are flags of the wrapper too."""
    flags = ("--console_format", "json", "--exit_timeout", "3")
    done = run(SCRIPT, wrapped=True, flags=flags, endpoint=receiver.url)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["from ours", "from stdlib", "timed completed"]
    check(receiver)


IDLE = """
    import sys, threading, logging, telemetry
    logger = telemetry.get_logger("app")
    assert [thread.name for thread in threading.enumerate()] == ["MainThread"], "a thread"
    assert "grpc" not in sys.modules, "grpc"
    assert "requests" not in sys.modules, "requests"
"""


def test_nothing_starts_before_the_first_record(run, black_hole):
    """No thread, no connection, no grpc while nothing is emitted (G07)."""
    assert run(IDLE, wrapped=True, endpoint=black_hole).stderr == ""


def test_disabled_builds_nothing(run, black_hole):
    """OTEL_SDK_DISABLED: no SDK, no handler, no thread, and every call still works (G14)."""
    code = f"""
    {IDLE}
    assert "opentelemetry.sdk.trace" not in sys.modules
    assert logging.getLogger().handlers == []
    {SCRIPT}
    assert telemetry.report() == {{}}
    assert telemetry.flush() is True
    assert threading.active_count() == 1
    assert "opentelemetry.sdk.trace" not in sys.modules
    """
    assert "from ours" not in run(code, wrapped=True, OTEL_SDK_DISABLED="true").stderr


def test_grpc_is_imported_when_asked_for(run, refused):
    """OTLP over gRPC is one variable; without it the package is never loaded."""
    code = """
    import sys, telemetry
    telemetry.configure()
    assert "grpc" in sys.modules
    """
    run(code, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", endpoint=refused)


def test_other_exporters_work(run):
    """OTEL_*_EXPORTER=console is OpenTelemetry's console exporter behind our queue."""
    done = run(
        SCRIPT,
        wrapped=True,
        OTEL_TRACES_EXPORTER="console",
        OTEL_LOGS_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        LOG_FORMAT="none",
    )
    assert done.stdout.count('"name": "work"') == 1
    assert done.stdout.count('"body": "from ours"') == 1
    assert done.stderr == ""


def test_a_black_hole_does_not_hold_the_exit(run, black_hole):
    """The collector accepts and never answers: the process leaves and says what it lost (G05)."""
    code = f"""
    {SCRIPT}
    print("work done")
    """
    done = run(
        code, wrapped=True, endpoint=black_hole, TELEMETRY_EXIT_TIMEOUT="0.3", LOG_FORMAT="none"
    )
    assert done.stdout == "work done\n"
    lost = [line for line in done.stderr.splitlines() if "lost " in line and "so far" not in line]
    assert lost == [
        (
            "otelier: lost 2 spans (shutdown 2); 3 log records (shutdown 3);"
            " 1 metric points (shutdown 1)"
        )
    ]


def test_a_refused_endpoint_does_not_hold_the_exit(run, refused):
    """Nobody listens: one try, one line about the loss, and the exit code is the program's."""
    code = f"""
    {SCRIPT}
    import sys
    sys.exit(7)
    """
    done = run(
        code,
        wrapped=True,
        endpoint=refused,
        check=False,
        TELEMETRY_EXIT_TIMEOUT="3600",
        LOG_FORMAT="none",
    )
    assert done.returncode == 7
    lost = [line for line in done.stderr.splitlines() if "lost 2 spans" in line]
    assert lost == [
        (
            "otelier: lost 2 spans (export_failed 2); 3 log records (export_failed 3);"
            " 1 metric points (export_failed 1)"
        )
    ]
    assert len(done.stderr.splitlines()) <= 4  # at most one line per signal beside it


def test_conservation(run, receiver):
    """Produced = exported + pending + dropped, and what is exported has arrived (G04)."""
    code = """
    import json, threading, telemetry
    telemetry.configure(log_queue_size=64, log_format="none")
    logger = telemetry.get_logger("app")

    def work(number):
        for index in range(500):
            logger.info("record", number=number, index=index)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    telemetry.shutdown()
    logger.warning("too late")
    print(json.dumps(telemetry.report()["logs"]))
    """
    ledger = json.loads(run(code, endpoint=receiver.url).stdout)
    assert ledger["produced"] == 2000
    assert ledger["pending"] == 0
    assert ledger["exported"] + sum(ledger["dropped"].values()) == 2000
    assert len(receiver.logs) == ledger["exported"]
    keys = {(log["attributes"]["number"], log["attributes"]["index"]) for log in receiver.logs}
    assert len(keys) == ledger["exported"]


def test_a_long_running_process_sends_soon(run, receiver):
    """The first records leave after a tenth of a second, without flush or exit."""
    code = """
    import sys, telemetry
    telemetry.configure(log_format="none")
    telemetry.get_logger("app").info("early")
    sys.stdin.read()
    """
    import threading

    thread = threading.Thread(target=run, args=(code,), kwargs={"endpoint": receiver.url})
    # stdin of the test is empty, so the script ends by itself: what counts is that flush() in it
    # is never called and the record arrives all the same
    thread.start()
    receiver.wait(lambda taken: taken.messages == ["early"])
    thread.join()


def test_fork(run, receiver):
    """A child sends its own records and metrics once, and so does the parent (G07, notes 5)."""
    code = """
    import os, telemetry
    from opentelemetry import metrics
    telemetry.configure(log_format="none")
    logger = telemetry.get_logger("app")
    counter = metrics.get_meter("app").create_counter("work")
    counter.add(5, {"who": "parent"})
    logger.info("parent before")
    child = os.fork()
    who = "parent" if child else "child"
    logger.info(f"{who} after")
    counter.add(1, {"who": who})
    if child == 0:
        telemetry.shutdown()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    run(code, endpoint=receiver.url)
    assert sorted(receiver.messages) == ["child after", "parent after", "parent before"]
    totals = {}
    for _, labels, value in receiver.points:
        totals.setdefault(labels["who"], set()).add(value)
    assert totals == {"child": {1}, "parent": {6}}
    instances = {resource["service.instance.id"] for resource in receiver.resources}
    assert len(instances) == 2


def test_threads_import_nothing(run, receiver, refused, tmp_path):
    """All is imported before the first thread: a fork in the middle of an import would be final."""
    code = """
    import sys, telemetry
    from opentelemetry import metrics
    telemetry.configure(log_format="none", log_queue_size=16, exit_timeout=1)
    before = set(sys.modules)
    with telemetry.span("work"):
        for number in range(40):
            telemetry.get_logger("app").info("hello")
    metrics.get_meter("app").create_counter("work").add(1)
    telemetry.flush(1)
    telemetry.shutdown()
    print(sorted(set(sys.modules) - before))
    """
    for url in (receiver.url, refused):
        for spool in ("", str(tmp_path / "spool")):
            done = run(code, endpoint=url, TELEMETRY_SPOOL_DIR=spool, OTEL_LOG_LEVEL="none")
            assert done.stdout == "[]\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(run, receiver, method):
    """Children of multiprocessing deliver before they leave, although they skip exit hooks."""
    code = f"""
    import multiprocessing, telemetry

    def work(number):
        telemetry.get_logger("app").info(f"child {{number}}")

    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        children = [context.Process(target=work, args=(number,)) for number in range(3)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
    """
    run(code, wrapped=True, endpoint=receiver.url)
    assert sorted(receiver.messages) == ["child 0", "child 1", "child 2"]


def test_the_programs_own_exception_is_unchanged(run, receiver):
    """An unhandled error ends the program as it would without us: same traceback, code 1."""
    code = """
    import telemetry
    telemetry.configure(log_format="none")
    with telemetry.span("a"), telemetry.LogContext("b"), telemetry.log_context(user_id="u"):
        raise ZeroDivisionError("mine")
    """
    done = run(code, endpoint=receiver.url, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: mine"
    assert done.stderr.count("Traceback") == 1
    assert [log["attributes"]["exception.type"] for log in receiver.logs] == ["ZeroDivisionError"]


def test_a_raising_processor_does_not_reach_the_program(run, receiver):
    """Somebody's broken span and log processors are said, and the work goes on (py#5624)."""
    code = """
    import telemetry
    from opentelemetry import trace
    from opentelemetry._logs import get_logger_provider
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk._logs import LogRecordProcessor

    class BrokenSpans(SpanProcessor):
        def on_start(self, span, parent_context=None): raise RuntimeError("start")
        def on_end(self, span): raise RuntimeError("end")

    class BrokenLogs(LogRecordProcessor):
        def on_emit(self, log_record): raise RuntimeError("emit")
        def shutdown(self): pass
        def force_flush(self, timeout_millis=0): return True

    telemetry.configure(log_format="none")
    trace.get_tracer_provider().add_span_processor(BrokenSpans())
    get_logger_provider().add_log_record_processor(BrokenLogs())
    with telemetry.span("a"):
        telemetry.get_logger("app").info("hello")
    """
    done = run(code, endpoint=receiver.url)
    assert sorted(done.stderr.splitlines()) == [
        "otelier: BrokenLogs raised RuntimeError: emit",
        "otelier: BrokenSpans raised RuntimeError: start",
    ]
    assert ([span["name"] for span in receiver.spans], receiver.messages) == (["a"], ["hello"])


def test_no_feedback_when_the_collector_is_down(run, refused):
    """Root at DEBUG and nobody listening: our own failures make no records (G15)."""
    code = """
    import logging, json, telemetry
    telemetry.configure(log_level="DEBUG", log_format="none", log_delay_ms=1, span_delay_ms=1)
    telemetry.get_logger("app").info("one")
    for _ in range(20):
        telemetry.flush(0.05)
    print(telemetry.report()["logs"]["produced"])
    """
    assert run(code, endpoint=refused).stdout == "1\n"


def test_ids_do_not_follow_the_programs_seed(run, receiver):
    """random.seed(42), which ML programs call, does not repeat trace ids."""
    code = """
    import random, telemetry
    telemetry.configure(log_format="none")
    for _ in range(2):
        random.seed(42)
        with telemetry.span("a"):
            pass
    """
    run(code, endpoint=receiver.url)
    assert len({span["trace_id"] for span in receiver.spans}) == 2


def test_the_console_steps_back_for_the_programs_own_handlers(run, receiver):
    """Lines appear on stderr only while the program has no handler; LOG_FORMAT makes them stay."""
    code = """
    import logging, sys, telemetry
    telemetry.configure()
    log = logging.getLogger("app")
    log.info("before")
    logging.basicConfig(stream=sys.stdout, format="mine: %(message)s", level="INFO")
    log.info("after")
    """
    done = run(code, endpoint=receiver.url)
    assert done.stdout == "mine: after\n"
    assert [line.partition(" - ")[2] for line in done.stderr.splitlines()] == ["INFO - before"]
    done = run(code, endpoint=receiver.url, LOG_FORMAT="logfmt")
    assert [line.partition("msg=")[2] for line in done.stderr.splitlines()] == ["before", "after"]


def test_the_programs_level_is_respected(run, receiver):
    """A level that the program has set stays; LOG_LEVEL sets it without a change of code (A8)."""
    code = """
    import logging, telemetry
    logging.getLogger().setLevel("ERROR")
    telemetry.configure(log_format="none")
    log = telemetry.get_logger("app")
    log.info("info"); log.error("error")
    """
    run(code, endpoint=receiver.url)
    assert receiver.messages == ["error"]
    run(code, endpoint=receiver.url, LOG_LEVEL="DEBUG")
    assert receiver.messages == ["error", "info", "error"]


def test_an_sdk_that_was_set_up_before_is_joined(run, receiver):
    """Providers that another package has set are not replaced: ids and delivery are added."""
    code = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)
    import telemetry
    telemetry.configure(log_format="none")
    assert trace.get_tracer_provider() is provider
    with telemetry.log_context(tenant_id="t"), telemetry.span("a"):
        pass
    """
    assert run(code, endpoint=receiver.url).stderr == ""
    assert [(span["name"], span["attributes"]) for span in receiver.spans] == [
        ("a", {"tenant.id": "t"})
    ]


def test_observable_metrics_count_without_measurements(run, receiver):
    """A program that only has callbacks sends what they say."""
    code = """
    import telemetry
    from opentelemetry import metrics
    telemetry.configure(log_format="none")
    gauge = lambda options: [metrics.Observation(42)]
    metrics.get_meter("app").create_observable_gauge("answer", callbacks=[gauge])
    assert telemetry.flush() is True
    """
    run(code, endpoint=receiver.url)
    assert set(map(repr, receiver.points)) == {repr(("answer", {}, 42))}


def test_import_is_lean(run):
    """`import telemetry` loads neither the SDK nor an HTTP client nor grpc."""
    code = """
    import sys, telemetry
    heavy = ("opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "http.client", "ssl", "grpc",
             "requests", "numpy", "fastapi", "celery", "logging.config")
    print([name for name in heavy if name in sys.modules])
    """
    assert run(code).stdout == "[]\n"
