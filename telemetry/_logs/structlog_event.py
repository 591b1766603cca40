"""
An event of structlog, read: message, fields, level and exception.

Two ways lead here. `structlog_processor` sees the event itself. And structlog's own stdlib set-up
(`ProcessorFormatter.wrap_for_formatter`) logs the event as a *dict in the place of the message*,
which its formatter renders later; our handler sees the record before that, and would otherwise
store the dict's repr.

`format_exc_info` and `dict_tracebacks` run before both, and leave a text or a list of dicts where the
exception was. While the exception is still being handled it is at hand; else its type and message
are read from what there is.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from telemetry import _values
from telemetry.attributes import EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE

OWN: Final = frozenset(
    (
        "event",
        "exc_info",
        "exception",
        "level",
        "level_number",
        "logger",
        "logger_name",
        "positional_args",
        "stack_info",
        "timestamp",
        "_record",
        "_from_structlog",
        "_logger",
        "_name",
    )
)
"""Keys of structlog's own: they are said elsewhere in the record."""
SAID: Final = ("level", "logger", "timestamp")
"""Those of them that structlog puts among the fields of a record of its own loggers."""
MARKS: Final = ("_logger", "_name")
"""What structlog puts on a record whose message is an event."""
PARSED: Final = 65_536
"""A longer rendered line is left as it is."""

_RAISED = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?\Z", re.DOTALL)


def message(event: Mapping[str, Any]) -> str:
    """The event's name, with positional arguments put in."""
    said = event.get("event", "")
    text = said if isinstance(said, str) else _values.text(said)
    args = event.get("positional_args")
    if args:
        try:
            return str(text % args)
        except Exception:
            return f"{text} {_values.clean(args)}"
    return text


def fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """What the application added."""
    return {key: value for key, value in event.items() if key not in OWN}


def exception(event: Mapping[str, Any]) -> tuple[BaseException | None, dict[str, Any]]:
    """
    The exception of an event whose `exc_info` was rendered already.

    Returns:
        The exception itself where it is still being handled, and else the attributes that say
        what is known of it.
    """
    rendered = event.get("exception")
    if not rendered:
        return None, {}
    if isinstance(rendered, str):
        kind, text, stack = _of_text(rendered)
    elif isinstance(rendered, list) and rendered and isinstance(rendered[0], Mapping):
        kind, text, stack = _of_dicts(rendered)
    else:
        return None, {"exception": rendered}
    current = sys.exc_info()[1]
    if current is not None and type(current).__name__ == kind.rpartition(".")[2]:
        return current, {}
    known = {EXCEPTION_TYPE: kind, EXCEPTION_MESSAGE: text, EXCEPTION_STACKTRACE: stack}
    return None, {name: value for name, value in known.items() if value}


def _of_text(rendered: str) -> tuple[str, str, str]:
    """Type and message from the end of a traceback: the lines after the last frame."""
    lines = rendered.rstrip().split("\n")
    first = len(lines) - 1
    for place in range(len(lines) - 1, -1, -1):
        if lines[place].startswith(("  ", "Traceback ", "    ")):
            break
        if _RAISED.match(lines[place]):
            first = place
    found = _RAISED.match("\n".join(lines[first:]))
    if found is None:
        return "", "", rendered
    return found["kind"], found["text"] or "", rendered


def _of_dicts(rendered: list[Any]) -> tuple[str, str, str]:
    """From the list of `dict_tracebacks`, whose first item is what was raised."""
    raised = rendered[0]
    kind, text = str(raised.get("exc_type", "")), str(raised.get("exc_value", ""))
    lines = ["Traceback (most recent call last):"]
    frames = raised.get("frames")
    for frame in frames if isinstance(frames, list) else ():
        if isinstance(frame, Mapping):
            place = f'  File "{frame.get("filename")}", line {frame.get("lineno")}'
            lines.append(f"{place}, in {frame.get('name')}")
    return kind, text, "\n".join([*lines, f"{kind}: {text}"])


def of_rendered(text: object) -> dict[str, Any] | None:
    """The event of a line that structlog's JSONRenderer has made, or None."""
    if type(text) is not str or not text.startswith("{") or len(text) > PARSED:
        return None
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
