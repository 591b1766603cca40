"""
Batches as lines for people and as frames for programs.

`text` and `logfmt` look like what `telemetry` writes without a collector, with the service and the
trace id added, because here several services meet in a file:

    2025-10-03 10:30:15 - INFO - Risk analysis completed [risk_score=4440, task_id=t-1, service=worker]
    ts=2025-10-03T10:30:15.120+00:00 level=info service=worker logger=risk msg="..." risk_score=4440

A record is one line, whatever data holds: control characters, line breaks and marks that turn text
around are spelled out. Only the stack of an exception adds lines, in `text`; they are indented, so
that no text in it can pass for a record of its own.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from collector.documents.build import Document, dumps, rebuild
from collector.documents.visible import visible_json
from collector.model import Batch, Signal
from collector.otlp import attribute_text, encode, encode_json

_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
_BARE: Final = re.compile(r"[^\s\"=\\]+")
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HIDDEN: Final = frozenset({"log.record.uid"})
"""For machines, which read `json`."""
_SPAN: Final = ("kind", "duration_ms", "status", "status_message")
_POINT: Final = ("value", "count", "sum", "min", "max", "unit")
_IDS: Final = ("trace_id", "span_id", "parent_span_id")
INDENT: Final = "    "


def encoded(style: str, batch: Batch, found: list[Document] | None) -> bytes:
    """
    What to append to a file.

    Args:
        style: the format.
        batch: where the documents are from.
        found: those that belong into the file; None is the whole batch, which the OTLP formats
            write without making documents.
    """
    if style == "otlp_json":
        return visible_json(encode_json(_message(batch, found), batch.signal)) + b"\n"
    if style == "otlp_proto":
        data = encode(batch) if found is None else _message(batch, found).SerializeToString()
        return len(data).to_bytes(4) + data
    if style == "json":
        return visible_json(b"".join(dumps(document) + b"\n" for document in found or ()))
    write = text_line if style == "text" else logfmt_line
    lines = "".join(f"{write(document, batch.signal)}\n" for document in found or ())
    return lines.encode("utf-8", "backslashreplace")


def _message(batch: Batch, found: list[Document] | None) -> Any:
    return batch.message if found is None else rebuild(batch.signal, found)


def escaped(value: str) -> str:
    """`value` without control characters: no line break, escape code or direction mark."""
    return _CONTROL.sub(_escape, value)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    return _NAMED.get(character) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def text_line(document: Document, signal: Signal) -> str:
    """`2025-10-03 10:30:15 - INFO - message [key=value, ...]`, in local time."""
    moment = document["start" if signal is Signal.TRACES else "timestamp"].astimezone()
    pairs = dict(_fields(document))
    for name, value in _own(document, signal):
        pairs.setdefault(name, value)
    pairs["service"] = document["service"]
    trace = _trace(document, signal)
    pairs.update({key: trace[key] for key in _IDS if key in trace and key != "span_id"})
    shown = ", ".join(f"{escaped(key)}={_shown(value)}" for key, value in pairs.items())
    head = f"{moment:%Y-%m-%d %H:%M:%S} - {_word(document, signal)}"
    line = f"{head} - {escaped(_title(document, signal))} [{shown}]"
    exception = document.get("exception", {})
    stack = exception.get("stacktrace", "").rstrip("\n")
    if stack:
        return "\n".join([line, *(INDENT + escaped(part) for part in stack.split("\n"))])
    if exception:
        return f"{line}\n{INDENT}{escaped(_problem(exception))}"
    return line


def logfmt_line(document: Document, signal: Signal) -> str:
    """`ts=... level=info service=... logger=... msg="..." key=value`."""
    moment = document["start" if signal is Signal.TRACES else "timestamp"]
    pairs: dict[str, Any] = {
        "ts": moment.isoformat(timespec="milliseconds"),
        "level": _word(document, signal).lower(),
        "service": document["service"],
    }
    if "logger_name" in document:
        pairs["logger"] = document["logger_name"]
    pairs["msg"] = _title(document, signal)
    pairs.update(_trace(document, signal))
    for key, value in (*_own(document, signal), *_fields(document)):
        pairs.setdefault(key, value)
    exception = document.get("exception", {})
    if exception:
        pairs["exception"] = _problem(exception)
    if "stacktrace" in exception:
        pairs["stacktrace"] = exception["stacktrace"]
    return " ".join(f"{_key(key)}={_quoted(value)}" for key, value in pairs.items())


def _word(document: Document, signal: Signal) -> str:
    """The level of a log record; a word for what has none."""
    if signal is Signal.LOGS:
        return str(document["level"])
    return "SPAN" if signal is Signal.TRACES else "METRIC"


def _title(document: Document, signal: Signal) -> str:
    if signal is Signal.LOGS:
        return str(document.get("message") or document.get("event") or "")
    return str(document["name"])


def _fields(document: Document) -> Iterator[tuple[str, Any]]:
    """What the application said: attributes, then ids, each once."""
    for key, value in document.get("attributes", {}).items():
        if key not in _HIDDEN:
            yield key, value
    yield from document.get("context", {}).items()


def _own(document: Document, signal: Signal) -> Iterator[tuple[str, Any]]:
    """What the kind of record adds."""
    if signal is Signal.LOGS:
        event = document.get("event")
        if event is not None and event != document.get("message"):
            yield "event", event
        trace = document.get("trace", {})
        for key in ("execution_time_ms", "status"):
            if key in trace:
                yield key, trace[key]
        return
    for key in _SPAN if signal is Signal.TRACES else _POINT:
        if key in document:
            yield key, document[key]


def _trace(document: Document, signal: Signal) -> dict[str, Any]:
    found = document.get("trace", {}) if signal is Signal.LOGS else document
    return {key: found[key] for key in _IDS if key in found}


def _problem(exception: Document) -> str:
    parts = (exception.get("type"), exception.get("message"))
    return ": ".join(str(part) for part in parts if part)


def _shown(value: Any) -> str:
    if isinstance(value, int | float) or value is None:
        return str(value)  # as `telemetry` writes it without a collector
    return escaped(attribute_text(value))


def _key(key: str) -> str:
    return "".join(_BARE.findall(escaped(key))) or "_"


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = value if isinstance(value, str) else _shown(value)
    if _BARE.fullmatch(escaped(shown)):
        return shown
    doubled = shown.replace("\\", "\\\\")
    return '"' + escaped(doubled).replace('"', '\\"') + '"'
