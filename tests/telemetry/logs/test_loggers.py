"""structlog, levels per logger, colours: what an operator chooses without a change of code."""

import logging
import os
import pty
import subprocess
import sys

import pytest

import telemetry
from telemetry.testing import capture
from tests.telemetry.structlog_protocol import PrintLogger, Structlog


def rendered(_, __, event):
    return " ".join(f"{key}={value}" for key, value in sorted(event.items()))


def test_structlog_events_arrive_with_their_fields():
    """The processor sends the event as a record, and what structlog writes stays as it was."""
    lines = []
    log = Structlog(PrintLogger(lines), telemetry.structlog_processor, rendered, service="shop")
    with capture() as captured, telemetry.span("work"), telemetry.log_context(tenant_id="t-1"):
        log.warning("slow answer", seconds=1.5, order_id="o-1", level="warning", timestamp="now")
    assert lines == [
        "event=slow answer level=warning order_id=o-1 seconds=1.5 service=shop timestamp=now"
    ]
    (record,) = captured.logs
    assert (record["level"], record["logger"], record["message"]) == (
        "WARN",
        "tests.telemetry.logs.test_loggers",
        "slow answer",
    )
    assert (record["trace_id"], record["span_id"]) == (1, 1)
    assert record["attributes"] == {
        "seconds": 1.5,
        "order.id": "o-1",
        "service": "shop",
        "tenant.id": "t-1",
    }


def test_structlog_on_top_of_stdlib_arrives_once():
    """The rendered line, which stdlib hands to our handler too, is no second record (A1)."""
    std = logging.getLogger("shop.orders")
    std.setLevel("INFO")
    log = Structlog(std, telemetry.structlog_processor, rendered)
    with capture() as captured:
        log.info("loaded", items=3)
        std.info("direct")
        log.debug("below the level")
        std.info("direct again")
    assert [(record["logger"], record["message"]) for record in captured.logs] == [
        ("shop.orders", "loaded"),
        ("shop.orders", "direct"),
        ("shop.orders", "direct again"),
    ]
    assert captured.logs[0]["attributes"] == {"items": 3}


def test_an_event_that_a_later_processor_drops_does_not_hide_the_next_record():
    """A processor that raises in between leaves no mark behind."""

    def dropped(_, __, event):
        raise LookupError("as DropEvent")

    std = logging.getLogger("shop.dropped")
    with capture() as captured:
        with pytest.raises(LookupError):
            Structlog(std, telemetry.structlog_processor, dropped).info("half")
        std.info("whole")
    assert [record["message"] for record in captured.logs] == ["half", "whole"]


def test_structlog_exceptions_are_recorded():
    """`exc_info` in any of structlog's forms is the record's exception."""
    log = Structlog(PrintLogger([]), telemetry.structlog_processor, rendered)
    with capture() as captured:
        try:
            raise KeyError("o-1")
        except KeyError as error:
            log.error("failed", exc_info=True)  # noqa: G201 - structlog's forms, one by one
            log.error("failed", exc_info=error)
    kinds = [record["attributes"]["exception.type"] for record in captured.logs]
    assert kinds == ["KeyError", "KeyError"]


def test_levels_of_single_loggers(run, receiver):
    """TELEMETRY_LOG_LEVELS sets them, and they outlast what the program configures (A8)."""
    code = """
    import logging, logging.config, telemetry
    telemetry.configure(log_format="none")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False,
                               "loggers": {"app.db": {"level": "ERROR"}}})
    telemetry.get_logger("app.db").debug("query")
    telemetry.get_logger("app.other").debug("hidden")
    logging.getLogger("urllib3.pool").info("hidden")
    logging.getLogger("urllib3.pool").warning("retry")
    telemetry.get_logger("app").info("hello")
    """
    run(code, endpoint=receiver.url, TELEMETRY_LOG_LEVELS="app.db=debug, urllib3=WARNING")
    assert receiver.messages == ["query", "retry", "hello"]


LINE = """
import telemetry
telemetry.configure(logs_exporter="none", traces_exporter="none", metrics_exporter="none")
telemetry.get_logger("app").error("user \\x1b[2Jsaid\\nno", name="a\\rb")
"""
PLAIN = "ERROR - user \\x1b[2Jsaid\\nno [name=a\\rb]"


@pytest.mark.parametrize(
    ("env", "level"),
    [({}, "\x1b[31mERROR\x1b[0m"), ({"NO_COLOR": "1"}, "ERROR"), ({"TERM": "dumb"}, "ERROR")],
)
def test_colours_only_on_a_terminal_and_only_ours(env, level):
    """On a terminal the level has its colour; codes and line breaks of data are escaped (A1)."""
    main, terminal = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    subprocess.run(
        [sys.executable, "-c", LINE],
        env={**kept, "TERM": "xterm", **env},
        stderr=terminal,
        check=True,
        timeout=60,
    )
    os.close(terminal)
    shown = os.read(main, 10_000).decode()
    os.close(main)
    assert shown.partition(" - ")[2] == PLAIN.replace("ERROR", level) + "\r\n"


def test_no_colours_in_a_pipe(run):
    """What goes into a file or a pipe has no codes at all."""
    done = run(LINE)
    assert done.stderr.partition(" - ")[2] == PLAIN + "\n"
