"""
`track` and `audit`: business events as OpenTelemetry log records with an event name.

They go straight to the LoggerProvider and not through stdlib logging: no level drops them, no
handler of the application slows them down, and no sampler sees them. The caller pays for making
the record and for one append to a queue. Each record has a uid made here, so that a resend or a
replay stores it once, and the ids of the running scope, as every log record has.

An event's name says what kind of thing happened and is written in the code. A name that is put
together at run time (`order.4711`) cannot be counted, so it is sent as an attribute of the event
`track.invalid_name` instead, and said on stderr with the fix. Nothing here raises.

`audit` numbers its records per process without gaps: a number is taken when the record is ready,
under the lock under which it is queued, so that the order of numbers is the order of records. A
forked child begins a stream of its own.
"""

import itertools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry._logs import get_logger as get_otel_logger

from telemetry import _diagnostics, _values
from telemetry import attributes as names
from telemetry._config import configure
from telemetry._context import ids
from telemetry._context import scope as context
from telemetry._context.recorded import already_recorded
from telemetry._export import health
from telemetry._export.drop_reasons import CONVERSION_ERROR
from telemetry._logs import logger as _logging
from telemetry._native import process_id
from telemetry._values import Value

NAME: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
NAME_LENGTH: Final = 128
NAMES: Final = 500
"""More distinct names than a program has events."""
FIELDS: Final = 64
SCOPES: Final = 500

_SEVERITY: Final = {
    SeverityNumber.INFO: "INFO",
    SeverityNumber.WARN: "WARN",
    SeverityNumber.ERROR: "ERROR",
}
_LEVEL: Final = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_known: set[str] = set()
_loggers: dict[str, Logger] = {}


def track(event: str, /, **fields: object) -> None:
    """
    Record that something happened in the business: fire and forget.

    The call takes microseconds, whatever the collector does; it is never sampled, never filtered
    by a level, and never raises. Tenant, correlation id and the other ids of the scope are added.

    Example:
        track("lead.qualified", lead_score=87, source="web")

    Args:
        event: a static dotted name in lower case, without ids: `order.opened`.
        fields: ids by the keywords of `log_context`, and any key of your own; numbers stay
            numbers, None is left out.
    """
    try:
        scope = sys._getframe(1).f_globals.get("__name__", "root")  # noqa: SLF001 - as logging does
        name, extra = _checked(event)
        emit(name, {**attributes(fields), **extra}, scope=scope)
    except Exception as error:
        lost("track", error)


def audit(action: str, /, *, actor: object = None, **fields: object) -> None:
    """
    Record an action that must be accounted for, numbered without gaps within this process.

    As `track`, and marked as an audit record: the stream of the process, the number in it, and
    monotonic time beside wall time. A collector keeps them apart, with a retention of their own.

    Example:
        audit("order.cancelled", actor="u-7", order_id="o-1", reason="margin call")

    Args:
        action: a static dotted name in lower case, without ids.
        actor: who did it; the `user_id` of the scope is on the record in any case.
        fields: as for `track`.
    """
    try:
        scope = sys._getframe(1).f_globals.get("__name__", "root")  # noqa: SLF001 - as logging does
        name, extra = _checked(action)
        found = {**attributes(fields), **extra}
        if actor is not None:
            found[names.AUDIT_ACTOR] = _values.text(actor, _values.ID_TEXT)
        account(name, found, scope=scope)
    except Exception as error:
        lost("audit", error)


def account(action: str, found: dict[str, Any], *, scope: str) -> None:
    """
    `audit` for a caller inside this package, which guards itself.

    Args:
        action: a name of ours.
        found: attributes, cleaned; becomes the record's.
        scope: the name of the logger that it comes from.
    """
    if _stream.pid != process_id():  # uWSGI forks without a hook of Python's
        _begin_stream()
    stream = _stream
    with stream.lock:
        stream.last += 1
        found[names.AUDIT_STREAM] = stream.id
        found[names.AUDIT_SEQUENCE] = stream.last
        found[names.AUDIT_MONOTONIC_NS] = time.monotonic_ns()
        uid = f"{stream.id}-{stream.last}"
        lines = _logging.fast_path
        if lines is None or not lines.open():
            emit(action, found, scope=scope, uid=uid)
            return
        health.observe()
        found[names.LOG_UID] = uid
        logger = lines.logger(scope)
        lines.send(logger, time.time_ns(), logging.INFO, "INFO", action, found, action)


def attributes(fields: Mapping[str, object]) -> dict[str, Value]:
    """Keywords -> attributes, cleaned; ids become short text, None is left out."""
    found: dict[str, Value] = {}
    for key, value in itertools.islice(fields.items(), FIELDS):
        if value is None:
            continue
        name = context.ATTRIBUTE.get(key)
        if name is not None or key in names.CONTEXT:
            found[name or key] = _values.text(value, _values.ID_TEXT)
        else:
            found[_values.text(key, _values.ID_TEXT)] = _values.clean(value)
    return found


def emit(
    name: str,
    found: dict[str, Any],
    *,
    scope: str,
    body: str | None = None,
    severity: SeverityNumber = SeverityNumber.INFO,
    error: BaseException | None = None,
    uid: str | None = None,
) -> None:
    """
    Send an event.

    Args:
        name: of the event, static.
        found: its attributes, cleaned; becomes the record's.
        scope: the name of the logger that it comes from.
        body: a text for people; the event's name by default.
        severity: how bad it is.
        error: an exception to record in full.
        uid: what makes it the same record when it comes twice; random by default.
    """
    health.observe()
    if error is not None:
        kind, message, stack = _values.exception(error)
        found[names.EXCEPTION_TYPE] = kind
        found[names.EXCEPTION_MESSAGE] = message
        found[names.EXCEPTION_STACKTRACE] = stack
    found[names.LOG_UID] = uid or f"{ids.bits(128):032x}"
    text = _SEVERITY[severity] if severity is not SeverityNumber.INFO else "INFO"
    body = name if body is None else body
    lines = _logging.fast_path
    if lines is not None and lines.open():
        logger = lines.logger(scope)
        lines.send(logger, time.time_ns(), _LEVEL[text], text, body, found, name)
        return
    logger = _loggers.get(scope)
    if logger is None:
        if len(_loggers) >= SCOPES:
            _loggers.clear()
        logger = _loggers[scope] = get_otel_logger(scope)
    logger.emit(
        LogRecord(
            timestamp=time.time_ns(),
            severity_number=severity,
            severity_text=text,
            body=body,
            attributes=found,
            event_name=name,
        )
    )


def record_once(
    event: str,
    error: Exception,
    found: dict[str, Any],
    *,
    scope: str,
    body: str,
    severity: SeverityNumber,
) -> None:
    """Record an exception as an event, unless a block further in has recorded it."""
    if not already_recorded(error):
        emit(event, found, scope=scope, body=body, severity=severity, error=error)


def lost(site: str, error: Exception) -> None:
    """Count a record that could not be made, and say so."""
    _diagnostics.fault(site, error)
    pipeline = configure.pipeline()
    if pipeline is not None and "logs" in pipeline.queues:
        pipeline.queues["logs"].lose(CONVERSION_ERROR)


def _checked(name: object) -> tuple[str, dict[str, str]]:
    """The event's name, and what else to record when the given one is no good."""
    if type(name) is str and name in _known:
        return name, {}
    if isinstance(name, str) and len(name) <= NAME_LENGTH and NAME.fullmatch(name):
        if len(_known) < NAMES:
            _known.add(name)
        else:
            text = f"more than {NAMES} names of events, now {name!r}: put what varies into a field"
            _diagnostics.say("event names", text)
        return name, {}
    given = _values.text(name, _values.ID_TEXT)
    text = (
        f"track({given!r}): give a static name in lower case with dots, such as order.opened;"
        f" the event is sent as {names.TRACK_INVALID}"
    )
    _diagnostics.say("event name", text)
    return names.TRACK_INVALID, {names.TRACK_GIVEN: given}


class _Stream:
    """The audit records of one process."""

    def __init__(self) -> None:
        self.id = os.urandom(8).hex()
        self.last = 0
        self.pid = process_id()
        self.lock = threading.RLock()  # a signal handler may audit while its thread holds it


_stream = _Stream()


def _begin_stream() -> None:
    global _stream  # noqa: PLW0603 - one stream per process
    _stream = _Stream()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_stream)
