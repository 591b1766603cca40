"""
`collector run`: read the configuration, start the service, wait for a signal, stop.

SIGHUP reads the configuration again, from the same sources: what is different in it is exchanged
while requests come in, and a wrong one is rejected with every problem in the log.

The first SIGINT or SIGTERM stops gracefully: receivers answer what they hold, queues drain, exit 0.
After it the signals have their default action again, so a second one ends the process at once,
even when the loop is stuck; that is safe, because what was acknowledged is stored. A thread that
hangs on a dead disk cannot be cancelled from Python, so a timer ends the process when the deadline
has passed and closing did not help.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import click

from collector.cli import builtin
from collector.cli.options import config_options, load_config
from collector.config import Config, durations
from collector.documents import schema
from collector.errors import CollectorError, ConfigError
from collector.http.descriptors import raise_limit
from collector.model import Duration
from collector.service.service import Service
from collector.stats import QuietLog

STUCK_S: Final = 3.0
"""How long closing may take behind the shutdown timeout before the process is ended."""

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}

log = logging.getLogger("collector.service")


class Lines(logging.Formatter):
    """Log lines for people; what could steer a terminal is escaped, line breaks are kept."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger and message, with tabs between, as the OpenTelemetry Collector."""
        head = f"{stamp(record)}\t{record.levelname.lower()}\t{record.name}\t"
        return head + "".join(
            char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode()
            for char in super().format(record)
        )


def stamp(record: logging.LogRecord) -> str:
    """The time of a record, UTC, with milliseconds."""
    time = datetime.fromtimestamp(record.created, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up_logging(config: Config) -> None:
    """Send the collector's own log, and warnings of libraries, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    set_level(config)
    logging.captureWarnings(capture=True)


def set_level(config: Config) -> None:
    """Say as much as the configuration wants."""
    logging.getLogger("collector").setLevel(LEVELS[config.telemetry.logs.level])


async def serve(
    config: Config, shutdown_timeout_s: float, read: Callable[[], Config] | None = None
) -> int:
    """
    Run until a signal comes.

    Args:
        config: what to run.
        shutdown_timeout_s: how long stopping may take.
        read: gets the configuration again, for SIGHUP.

    Returns:
        0 after a clean stop, 1 when a component had to be cut off.

    Raises:
        StartFailed: a component cannot start.
    """
    loop = asyncio.get_running_loop()
    quiet_accepts(loop, log)
    raise_limit()
    running = asyncio.current_task()
    service = Service(config, shutdown_timeout_s, read=read, taken=set_level, show=True)
    stop = asyncio.Event()

    def on_stop(number: signal.Signals) -> None:
        log.info("%s received; a second signal stops at once", number.name)
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        end = threading.Timer(shutdown_timeout_s + STUCK_S, end_process)
        end.daemon = True
        end.start()
        stop.set()
        if service.health.state == "starting" and running is not None:
            running.cancel()

    async def reload() -> None:
        with suppress(CollectorError):  # it is in the log
            await service.reload()

    def on_reload() -> None:
        if len(reloads) > 1:
            return  # one is under way, and one will read what the file says then
        task = asyncio.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    reloads: set[asyncio.Task[None]] = set()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, on_stop, each)
    loop.add_signal_handler(signal.SIGHUP, on_reload)
    try:
        async with service:
            await first_of(stop, service.broken)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        log.info("stopped before everything was ready")
    return 1 if service.late or service.broken.is_set() else 0


def quiet_accepts(loop: asyncio.AbstractEventLoop, log: logging.Logger) -> None:
    """Say once a minute that nothing can be accepted, instead of a traceback for each attempt."""
    quiet = QuietLog(log)

    def handle(running: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and "accept" in str(context.get("message", "")):
            quiet.warning(
                "no connection can be accepted: %s; raise the limit of open files (ulimit -n)",
                error.strerror,
                subject="accept",
            )
            return
        running.default_exception_handler(context)

    loop.set_exception_handler(handle)


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def end_process() -> None:
    """End the process without waiting for threads: one of them hangs in a system call."""
    sys.stderr.write("collector: stopping takes too long, giving up; stored data is safe\n")
    sys.stderr.flush()
    os._exit(1)  # sys.exit would wait for the very thread that hangs


SWITCH_S = 0.0005
"""
How long a thread that computes keeps the GIL when another one wants it: a tenth of Python's default.
The thread of a store wants it for a moment between two long calls that run without it.
"""


def seldom_look_for_cycles() -> None:
    """
    Let Python look for garbage in cycles after 50,000 new objects instead of 700.

    Documents are many objects and have no cycles: looking through them again and again took a third
    of the time that making them takes. What is there before the start is never looked at again.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def positive_duration(_: click.Context, option: click.Parameter, text: str) -> Duration:
    """Seconds from text such as 10s or 1m30s."""
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 10s or 1m30s", param=option) from error
    if seconds <= 0:
        raise click.BadParameter("it must be larger than zero", param=option)
    return seconds


@click.command()
@config_options
@click.option(
    "--shutdown-timeout",
    callback=positive_duration,
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="How long a graceful stop may take.",
)
def run(config: tuple[str, ...], sets: tuple[str, ...], shutdown_timeout: Duration) -> int:
    """
    Run the collector until SIGINT or SIGTERM.

    Without --config it reads otel-collector.yaml in the working folder; when there is none, it runs
    the configuration that comes with the package and keeps its data in ~/.local/state/otelier.
    """
    try:
        loaded = load_config(config, sets)
        set_up_logging(loaded)
        if builtin.applies(config):
            log.info(
                "no %s here: the built-in configuration runs, data in %s (TELEMETRY_DATA);"
                " `collector init` writes the file to edit",
                builtin.NAME,
                builtin.make_data_folder(),
            )
        if slow := schema.why_not_native():
            log.warning("the pure-Python core runs, which is slower: %s", slow)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        seldom_look_for_cycles()
        sys.setswitchinterval(SWITCH_S)
        return asyncio.run(serve(loaded, shutdown_timeout, lambda: load_config(config, sets)))
    except CollectorError as error:
        what = "invalid configuration" if isinstance(error, ConfigError) else "cannot start"
        click.echo(f"Error: {error}", err=True)
        click.echo(f"collector server run finished with error: {what}", err=True)
        return 1
