"""
What a stdlib LogRecord says, read safely: message, fields, ids, exception.

Used by the OTel handler and by the line formats, so that both tell the same story. Fields are what
the application added (`extra=`, keyword arguments of our logger). Ids in an application's own
spelling (`user_id`) are renamed to the attribute (`user.id`) and become text; a field of a call
wins over the id of the scope.
"""

import logging
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from telemetry import _attribute_loops, _native, _values
from telemetry._context import scope
from telemetry._logs import severity
from telemetry._values import Value

CALL: Final = "_otelier_call"
"""Where the ids that a call gave wait while filters of its logger run: see `as_logged`."""
EVENT_NAME: Final = "otel.event.name"
"""The key in `extra` that makes a record an event with that name."""
FIELDS: Final = "_otelier_fields"
"""Where our logger keeps fields whose names the LogRecord itself uses."""

DIGITS: Final = 1000
_WIDE = re.compile(r"%(?:\([^)]{0,99}\))?[-+ #0]*(?:[0-9]{5}|[0-9]{0,4}\.[0-9]{5}|[0-9.]{0,9}\*)")
NESTED: Final = 4

NEVER: Final = ("opentelemetry", "otelier")
"""Loggers about ourselves: a record per failed delivery would make the next one fail too."""
WHILE_EXPORTING: Final = ("urllib3", "grpc", "requests", "http", "pymongo")
"""Loggers that speak about our own requests while we make them, and else about the application's."""
WATCHED: Final = frozenset((*NEVER, *WHILE_EXPORTING))

SEVERITY: Final = severity.NUMBER
"""stdlib's level -> OpenTelemetry's severity number."""
SEVERITY_TEXT: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}
OVERHEAD: Final = 200
"""About how many bytes a record has besides its texts."""


nesting: Final = _values.Recursion()
"""How many log calls and handlers of ours this thread is inside of: each would double what one logs."""


class NoLock:
    """The lock of a handler that shares nothing: since Python 3.13 `Handler.handle` enters any lock."""

    def acquire(self, *_: object) -> bool:
        """Have it at once."""
        return True

    def release(self) -> None:
        """Nothing is held."""

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


NO_LOCK: Final[Any] = NoLock()
"""`Handler.lock` is typed as a lock or None; this is neither, and works as both Pythons use it."""

STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    FIELDS,
    EVENT_NAME,
    CALL,
}


_plain_fields: Final[
    Callable[[dict[str, Any], frozenset[str], dict[str, str]], dict[str, Value] | None] | None
] = getattr(_native.core, "fields", None)


def message(record: logging.LogRecord) -> str:
    """The formatted message; with a format that does not fit, what there is of it."""
    try:
        if record.args and not _reasonable(record.msg, record.args):
            raise ValueError("as a format that does not fit")
        plain = type(record.msg) is str and not record.args
        whole = record.msg if plain else _values.nested(record.getMessage)
    except Exception:
        whole = f"{_values.text(record.msg)} {_values.clean(record.args)}"
    return _values.bounded(whole, _values.BODY_TEXT)


def _reasonable(text: Any, args: Any) -> bool:
    """Whether formatting ends soon: `%.1000000000f` and `%d` of Decimal("1e999999") do not."""
    if isinstance(text, str) and _WIDE.search(text):
        return False
    values: Any = args if type(args) is tuple else ()
    if type(args) is dict and len(args) <= DIGITS:
        values = args.values()
    return not any(isinstance(value, Decimal) and value.adjusted() > DIGITS for value in values)


def fields(record: logging.LogRecord) -> dict[str, Value]:
    """The application's fields by attribute name, cleaned and bounded."""
    own = record.__dict__
    if _plain_fields is not None and FIELDS not in own:
        plain = _plain_fields(own, STANDARD, scope.ATTRIBUTE)
        if plain is not None:
            return plain
    result: dict[str, Value] = {}
    named, clean = scope.ATTRIBUTE, _values.clean
    for source in (_attribute_loops.without_keys(own, STANDARD), own.get(FIELDS)):
        for key, value in source.items() if source else ():
            if len(result) >= _values.ITEMS - 32:
                break
            name = named.get(key)
            if name is None:
                result[_values.text(key, _values.ID_TEXT)] = clean(value)
            elif value is not None:
                result[name] = _values.text(value, _values.ID_TEXT)
    return result


def error(record: logging.LogRecord) -> BaseException | None:
    """The exception that the record carries."""
    info: Any = record.exc_info
    if isinstance(info, tuple) and len(info) > 1 and isinstance(info[1], BaseException):
        return info[1]
    return None
