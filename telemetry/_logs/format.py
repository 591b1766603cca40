"""
Lines for consoles and files: text, json, logfmt.

`json` is the record of the chat API (timestamp, level, logger_name, function_name, line_number,
message, context, trace, exception; further fields under `attributes`), which is also the shape of
a stored document. `text` is the line of the risk worker. One record is one line, whatever the data
holds: control characters are escaped, so that nobody writes a second line or a terminal command
through a user name. Only a traceback adds lines of its own, in `text`.
"""

import base64
import datetime as dt
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace

from telemetry import _values
from telemetry._context import scope
from telemetry._logs import record as records
from telemetry._redaction import redactor as redaction
from telemetry._values import Value
from telemetry.attributes import (
    CONTEXT,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXECUTION_STATUS,
    EXECUTION_TIME_MS,
)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BARE = re.compile(r"[^\s\"=\\]+")
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """`text` without control characters: no line break, escape code or direction mark."""
    return _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def split(record: logging.LogRecord) -> tuple[dict[str, Value], dict[str, Value]]:
    """The record's own fields and the ids in force, by the names that people type."""
    redactor = redaction.local()
    fields = redactor.attributes(records.fields(record))
    ids: dict[str, Value] = {}
    for name, value in redactor.attributes(scope.effective()).items():
        ids[CONTEXT.get(name, name)] = value
    named = {CONTEXT.get(name, name): value for name, value in fields.items()}
    return named, {key: value for key, value in ids.items() if key not in named}


def message(record: logging.LogRecord) -> str:
    """The record's message as it may be seen."""
    return redaction.local().text(records.message(record))


def exception(error: BaseException) -> tuple[str, str, str]:
    """Type, message and traceback of an exception as they may be seen."""
    kind, text, stack = _values.exception(error)
    seen = redaction.local().attributes({EXCEPTION_MESSAGE: text, EXCEPTION_STACKTRACE: stack})
    return kind, str(seen.get(EXCEPTION_MESSAGE, "")), str(seen.get(EXCEPTION_STACKTRACE, ""))


class Json(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        named, ids = split(record)
        context = {key: value for key, value in {**ids, **named}.items() if key in scope.ATTRIBUTE}
        rest = {**{key: value for key, value in ids.items() if key not in context}, **named}
        line: dict[str, Any] = {
            "timestamp": _utc(record).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger_name": redaction.local().text(record.name),
            "function_name": record.funcName,
            "line_number": record.lineno,
            "message": message(record),
            "context": context,
            "trace": _trace(rest),
        }
        error = records.error(record)
        if error is not None:
            kind, text, stack = exception(error)
            line["exception"] = {"type": kind, "message": text, "stacktrace": stack}
        attributes = {key: value for key, value in rest.items() if key not in context}
        if attributes:
            line["attributes"] = attributes
        return json.dumps(
            {key: value for key, value in line.items() if value not in ({}, None)},
            default=_jsonable,
            ensure_ascii=False,
        ).translate(_SEPARATORS)


class Text(logging.Formatter):
    """`2025-10-03 10:30:15 - INFO - message [key=value, ...]`, in local time."""

    coloured = False
    """Whether the level has its colour: for terminals."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, with the traceback below it."""
        named, ids = split(record)
        pairs = ", ".join(
            f"{escaped(key)}={_shown(value)}" for key, value in {**named, **ids}.items()
        )
        time = _utc(record).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        level = escaped(record.levelname)
        if self.coloured:
            level = f"\x1b[{_colour(record.levelno)}m{level}\x1b[0m"
        line = f"{time} - {level} - {escaped(message(record))}"
        if pairs:
            line = f"{line} [{pairs}]"
        error = records.error(record)
        if error is not None:
            stack = exception(error)[2].rstrip("\n")
            line = "\n".join([line, *(escaped(part) for part in stack.split("\n"))])
        return line


def _colour(level: int) -> int:
    """Grey, green, yellow, red: as other tools have it."""
    if level < logging.INFO:
        return 90
    if level < logging.WARNING:
        return 32
    return 33 if level < logging.ERROR else 31


class Logfmt(logging.Formatter):
    """`ts=... level=info logger=... msg="..." key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        named, ids = split(record)
        pairs: dict[str, Value] = {
            "ts": _utc(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": redaction.local().text(record.name),
            "msg": message(record),
        }
        rest = {**named, **ids}
        pairs.update({key: value for key, value in _trace(rest).items() if key.endswith("_id")})
        pairs.update({key: value for key, value in rest.items() if key not in pairs})
        error = records.error(record)
        if error is not None:
            kind, text, stack = exception(error)
            pairs |= {"exception": f"{kind}: {text}", "stacktrace": stack}
        return " ".join(f"{_key(key)}={_quoted(value)}" for key, value in pairs.items())


FORMATS: Final[Mapping[str, type[logging.Formatter]]] = {
    "text": Text,
    "json": Json,
    "logfmt": Logfmt,
}
"""LOG_FORMAT -> formatter; usable in an application's own logging configuration too."""

_UNSAFE = (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SEPARATORS = {code: f"\\u{code:04x}" for code in _UNSAFE}


def _utc(record: logging.LogRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.created, dt.UTC)


def _trace(fields: dict[str, Value]) -> dict[str, Value]:
    """Takes the execution time and status out of `fields`, beside the ids of the running span."""
    result: dict[str, Value] = {}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        result["trace_id"] = trace.format_trace_id(span.trace_id)
        result["span_id"] = trace.format_span_id(span.span_id)
    for name, key in ((EXECUTION_TIME_MS, "execution_time_ms"), (EXECUTION_STATUS, "status")):
        if name in fields:
            result[key] = fields.pop(name)
    return result


def _jsonable(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else _values.text(value)


def _shown(value: Value) -> str:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, (int, float)) or value is None:
        return str(value)
    return escaped(json.dumps(value, default=_jsonable, ensure_ascii=False))


def _key(key: str) -> str:
    return "".join(_BARE.findall(escaped(key))) or "_"


def _quoted(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = _shown(value)
    if _BARE.fullmatch(shown):
        return shown
    quoted = (
        shown.replace("\\", "\\\\")
        if not isinstance(value, str)
        else escaped(value.replace("\\", "\\\\"))
    )
    return '"' + quoted.replace('"', '\\"') + '"'
