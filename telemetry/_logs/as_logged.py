"""
The record as it was logged: what the call itself gave, and not what was written into it on its way.

Filters of a logger and record factories run before any handler, and applications use them to put
ids of other libraries, or placeholders ("-", "N/A"), on every record. A record for OpenTelemetry has
the ids of the scope, so a field that the scope knows counts only if the call gave it (`extra=`, or a
keyword of our logger). `note` keeps what a call gave, where filters or a factory are about to run;
`read` makes the record that our handlers get. What a filter or a factory adds beside (a region, a
build number), and a message that a filter of the logger has rewritten (secrets!), stay: the
application did that for all readers.

A value that says "there is none" is never an id, whoever gave it.

The application's record itself is left alone: where something must differ, our handlers get a copy.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from telemetry._context import scope
from telemetry._logs import record as records
from telemetry._logs import severity, structlog_event

PLAIN: Final = len(vars(logging.LogRecord("", 0, "", 0, "", (), None)))
"""A record with more than so many attributes has fields."""

_NONE: Final = re.compile(
    r"\W*|\W*(?:n/?a|n\.a\.?|none|null|nil|undefined|unset|not[ _-]?set|unknown|missing|empty"
    r"|no[ _-]?(?:\w+[ _-])?id|0{16}|0{32}|0{8}-0{4}-0{4}-0{4}-0{12})\W*",
    re.IGNORECASE,
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_TRACE: Final = ("trace_id", "span_id", "trace.id", "span.id")
_IDS: Final = frozenset((*scope.ATTRIBUTE, *scope.ATTRIBUTE.values(), *_TRACE))


def is_placeholder(value: object) -> bool:
    """Whether a value stands for "there is no id": "-", "", "N/A", "???", None, zeros."""
    # By type: `isinstance` asks `__class__`, which is code of the value's own.
    if value is None:
        return True
    return type(value) is str and len(value) <= 64 and _NONE.fullmatch(value) is not None


def note(logger: logging.Logger, record: logging.LogRecord, *given: Any) -> None:
    """
    Keep what a call gave, if a filter of its logger or a record factory can write over it.

    Args:
        logger: whose filters come next.
        record: made just now.
        given: mappings of fields, later ones win.
    """
    if not logger.filters and logging.getLogRecordFactory() is logging.LogRecord:
        return
    call: dict[str, Any] = {}
    for source in given:
        if isinstance(source, Mapping):
            call.update(source)
    own = record.__dict__
    before = own.get(records.CALL)
    own[records.CALL] = {**before, **call} if before else call


def read(record: logging.LogRecord) -> logging.LogRecord:
    """The record for our handlers: the same object, or a copy that says what the call said."""
    own = record.__dict__
    call = own.pop(records.CALL, None)
    changes: dict[str, Any] = {}
    without: list[str] = []
    if call is not None or len(own) > PLAIN:
        if type(record.msg) is dict and all(mark in own for mark in structlog_event.MARKS):
            return _of_structlog(record, record.msg)
        if call is not None:
            _protect(own, call, changes, without)
        if "level" in own and _by_structlog(record.name):  # `render_to_log_kwargs`
            without += [name for name in structlog_event.SAID if name in own]
        if not _IDS.isdisjoint(own):
            without += [name for name in _IDS & own.keys() if is_placeholder(own[name])]
    elif type(record.msg) is str and record.msg.startswith("{") and _by_structlog(record.name):
        event = structlog_event.of_rendered(record.msg)
        if event is not None:
            return _of_structlog(record, event)
    if record.levelname != _USUAL.get(record.levelno):
        _read_level(record, changes)
    if not changes and not without:
        return record
    return _copy(record, changes, without)


def copy_with(record: logging.LogRecord, **changes: Any) -> logging.LogRecord:
    """The record for our handlers, with some of its attributes changed."""
    return _copy(record, changes, [])


def _copy(
    record: logging.LogRecord, changes: Mapping[str, Any], without: list[str]
) -> logging.LogRecord:
    copied = logging.makeLogRecord({})
    copied.__dict__.clear()
    copied.__dict__.update(record.__dict__)
    for name in without:
        copied.__dict__.pop(name, None)
    copied.__dict__.update(changes)
    return copied


def _protect(
    own: dict[str, Any], call: Mapping[str, Any], changes: dict[str, Any], without: list[str]
) -> None:
    """Let nothing but the call replace what the scope knows, or what the call gave."""
    known = scope.effective()
    for key, value in own.items():
        if key in records.STANDARD:
            continue
        if key in call and not (key in _IDS and is_placeholder(call[key])):
            if value is not call[key]:
                changes[key] = call[key]
        elif scope.ATTRIBUTE.get(key, key) in known:
            without.append(key)


def _read_level(record: logging.LogRecord, changes: dict[str, Any]) -> None:
    """
    A level that is none of stdlib's five: its name says where it stands, where that is known.

    The name is the registered one without colours: filters and `addLevelName` paint it.
    """
    named = _COLOUR.sub("", logging.getLevelName(record.levelno))
    if named.startswith("Level ") and severity.of_word(record.levelname) is not None:
        named = record.levelname  # nobody has registered it, and whoever made the record knows
    if record.levelname != named:
        changes["levelname"] = named
    meant = severity.number(record.levelno, named)
    if meant != severity.NUMBER[min(max(record.levelno, 0), 53)]:
        changes["levelno"] = severity.LEVEL[meant]


def _by_structlog(name: str) -> bool:
    """Whether a logger is one that structlog made."""
    known = logging.root.manager.loggerDict.get(name)
    return type(known).__module__ == "structlog.stdlib"


def _of_structlog(record: logging.LogRecord, event: Mapping[str, Any]) -> logging.LogRecord:
    """A record whose message is an event of structlog, with the event's message and fields."""
    own = record.__dict__
    kept = {name: own[name] for name in own if name in _STANDARD}
    copied = logging.makeLogRecord({})
    copied.__dict__.clear()
    copied.__dict__.update(kept)
    copied.msg, copied.args = structlog_event.message(event), ()
    fields = {**_beside(own), **structlog_event.fields(event)}
    given = event.get("exc_info")
    if isinstance(given, BaseException):
        copied.exc_info = (type(given), given, given.__traceback__)
    elif isinstance(given, tuple) and len(given) == 3 and isinstance(given[1], BaseException):
        copied.exc_info = given
    elif copied.exc_info is None:
        error, known = structlog_event.exception(event)
        fields.update(known)
        if error is not None:
            copied.exc_info = (type(error), error, error.__traceback__)
    beside = {key: value for key, value in fields.items() if key in records.STANDARD}
    for key, value in fields.items():
        if key not in beside and not (key in _IDS and is_placeholder(value)):
            copied.__dict__[key] = value
    if beside:
        copied.__dict__[records.FIELDS] = beside
    return copied


def _beside(own: Mapping[str, Any]) -> dict[str, Any]:
    """What is on the record besides the event."""
    known = (*records.STANDARD, *structlog_event.MARKS)
    return {name: value for name, value in own.items() if name not in known}


_STANDARD: Final = frozenset((*records.STANDARD,)) - {records.FIELDS, records.CALL}
_USUAL: Final = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}
