"""
The log handlers in a worker: there, once, and not in Celery's way.

Celery empties the root logger and cuts `celery.task` off from it, so nothing of a task's log would
be exported. With `worker_hijack_root_logger=False` it adds its console handler only to a root that
has none, so that a handler of ours would silence the console. Both are solved by taking our
handlers off while Celery sets up logging and putting them back after. `setup_logging` is not used:
connecting to it switches Celery's own logging off.

`celery.task` gets a bridge to our handlers that looks at `propagate` for each record: a record
never comes twice. The bridge stands first, because Celery's formatter writes into the record.

Levels: a worker without `--loglevel` and without LOG_LEVEL logs warnings only. Then Celery's own
console keeps that level, and OpenTelemetry gets INFO, as in any other program.
"""

import functools
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

from telemetry._config import configure
from telemetry._logs import record as records
from telemetry._logs import root as attach
from telemetry.instrumentation._celery import state

TASK_LOGGER: Final = "celery.task"
WRAPPED: Final = "_otelier_wrapped"

_CHANGES: Final = frozenset(("return_value", "exc", "description"))
_SAID_BY_REQUEST: Final = ("Hard time limit", "Discarding revoked task")


class Bridge(logging.Handler):
    """Passes the records of `celery.task` to our handlers while the root does not get them."""

    otelier = True

    def createLock(self) -> None:  # noqa: N802 - the name in logging.Handler
        """No lock: nothing is shared."""
        self.lock = records.NO_LOCK

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on, unless it reaches the root by itself."""
        if not logging.getLogger(TASK_LOGGER).propagate:
            for handler in attach.handlers():
                handler.handle(record)


_bridge = Bridge()


def ensure() -> None:
    """Put the bridge where it belongs, and the filter on our handlers."""
    logger = logging.getLogger(TASK_LOGGER)
    if not logger.handlers or logger.handlers[0] is not _bridge:
        if _bridge in logger.handlers:
            logger.handlers.remove(_bridge)
        logger.handlers.insert(0, _bridge)
    for handler in attach.handlers():
        if recorded_elsewhere not in handler.filters:
            handler.addFilter(recorded_elsewhere)


def detach() -> None:
    """Take bridge and filter off."""
    logging.getLogger(TASK_LOGGER).removeHandler(_bridge)
    for handler in attach.handlers():
        handler.removeFilter(recorded_elsewhere)


def recorded_elsewhere(record: logging.LogRecord) -> bool:
    """False for Celery's lines about changes of state: our records have them, once."""
    name = record.name
    if not name.startswith("celery."):
        return True
    args = record.args
    if name == "celery.app.trace":
        return not (isinstance(args, Mapping) and _CHANGES & args.keys())
    if name == "celery.worker.strategy":
        return not (isinstance(args, Mapping) and "eta" in args)
    if name == "celery.worker.request":
        text = str(record.msg)
        if text.startswith("Task handler raised error"):
            error = args[0] if isinstance(args, tuple) and args else None
            lost = type(error).__name__ == "WorkerLostError"
            return not (lost or state.has_recorded(error))
        return not text.startswith(_SAID_BY_REQUEST)
    if name == "celery.worker.consumer.consumer":
        return not str(record.msg).startswith("Received unregistered task")
    return True


def wrap_set_up(module: Any) -> None:
    """Wrap `Logging.setup_logging_subsystem` of `celery.app.log`."""
    owner = module.Logging
    original = owner.setup_logging_subsystem
    if hasattr(original, WRAPPED):
        return

    @functools.wraps(original)
    def setup_logging_subsystem(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.already_setup:
            return original(self, *args, **kwargs)
        logging.getLogger(TASK_LOGGER).removeHandler(_bridge)
        with attach.taken_off():
            result = original(self, *args, **kwargs)
        after_set_up()
        return result

    setattr(setup_logging_subsystem, WRAPPED, original)
    owner.setup_logging_subsystem = setup_logging_subsystem


def unwrap_set_up(module: Any) -> None:
    """Undo `wrap_set_up`."""
    original = getattr(module.Logging.setup_logging_subsystem, WRAPPED, None)
    if original is not None:
        module.Logging.setup_logging_subsystem = original


def after_set_up(**_: Any) -> None:
    """Attach again, agree on levels, and leave stderr to one of us."""
    attach.ensure()
    ensure()
    pipeline = configure.pipeline()
    if pipeline is None:
        return
    root, tasks = logging.getLogger(), logging.getLogger(TASK_LOGGER)
    foreign = [
        (logger, handler)
        for logger in (root, tasks)
        for handler in logger.handlers
        if not getattr(handler, "otelier", False) and not isinstance(handler, logging.NullHandler)
    ]
    if any(console.asked for console in attach.consoles()):
        for logger, handler in foreign:
            if _is_celerys(handler) and getattr(handler, "stream", None) is sys.__stderr__:
                logger.removeHandler(handler)
    if pipeline.settings.given("log_level"):
        root.setLevel(pipeline.settings.log_level)
        tasks.setLevel(pipeline.settings.log_level)
    elif _level_is_default() and all(_is_celerys(handler) for _logger, handler in foreign):
        for logger, handler in foreign:
            handler.setLevel(max(handler.level, logger.level))
        for logger in (root, tasks):
            logger.setLevel(min(logger.level, logging.INFO))


def _is_celerys(handler: logging.Handler) -> bool:
    """Whether Celery made this handler."""
    return type(handler.formatter).__module__ in ("celery.app.log", "celery.utils.log")


def _level_is_default() -> bool:
    """Whether this is a `celery` command that was given no --loglevel."""
    import click  # noqa: PLC0415 - Celery's command line is made of it

    context = click.get_current_context(silent=True)
    if context is None or "loglevel" not in context.params:
        return False
    return context.get_parameter_source("loglevel") is click.core.ParameterSource.DEFAULT
