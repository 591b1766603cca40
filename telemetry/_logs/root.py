"""
Our handlers on the root logger, how they get every record first, and how they stay unnoticed.

`Logger.callHandlers` is the one place that each record passes, whatever `propagate` and the handlers
of the application are. While we are attached it gives the record to the handler for OpenTelemetry
before any other handler runs: those write into records (colours, shortened messages, ids of other
libraries), and a handler that comes later sees what they wrote. `as_logged` says what may have
been written before that. The handler stands on the root logger too, where people look for it, and
leaves out what it has had already.

A handler on root turns `logging.basicConfig()` into a no-op, and `dictConfig()` throws it out, so
those three functions run with our handlers taken off and put back after. What evades them
(`root.handlers = []`) is repaired by `ensure()`, a list lookup at each record and each span start. The application's handlers and levels are never touched, with one exception: a root
logger that nobody configured gets LOG_LEVEL and lines on stderr, which vanish as soon as the
application adds a handler of its own.
"""

import contextlib
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from telemetry import _diagnostics, _values
from telemetry._logs import access_lines, as_logged
from telemetry._logs import format as formats
from telemetry._logs import record as records

_ours: list[logging.Handler] = []
_first: list[logging.Handler] = []
"""Those of ours that get each record before the application's handlers."""
_originals: dict[str, Any] = {}
_hooks: set[object] = set()
_left_out: list[Callable[[logging.LogRecord], bool]] = []
_on_exception: list[Callable[[BaseException], None]] = []
_levels: dict[str, str] = {}
"""Levels of single loggers that the operator asked for: they outlast what the program configures."""


class _Handling(threading.local):
    """The record whose handlers run in this thread, after ours has had it."""

    record: logging.LogRecord | None = None


_handling = _Handling()


class Console(logging.StreamHandler[TextIO]):
    """
    Lines on stderr.

    Args:
        style: text, json or logfmt.
        asked: write always; else only where the application's loggers have no handler.
    """

    otelier = True

    def __init__(self, style: str, *, asked: bool) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(formats.FORMATS[style]())
        self.asked = asked

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line to what is stderr now."""
        if not self.asked and _handled_elsewhere(record.name):
            return
        self.stream = _diagnostics.stderr()
        if isinstance(self.formatter, formats.Text):
            self.formatter.coloured = _is_terminal(self.stream)
        nesting = records.nesting
        nesting.depth += 1
        try:
            if nesting.depth <= records.NESTED:
                super().emit(record)
        finally:
            nesting.depth -= 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as in logging.Handler
        """Nothing can be said about a stderr that cannot be written."""


def _is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at the stream who wants colours (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except Exception:
        return False  # closed, or something that only looks like a stream


def attach(
    handlers: list[logging.Handler],
    *,
    level: str | None,
    fallback_level: str,
    levels: Mapping[str, str] | None = None,
) -> None:
    """
    Put handlers on root and keep them there.

    Args:
        handlers: ours.
        level: the level that somebody asked for.
        fallback_level: the level for a root logger that nobody configured.
        levels: of single loggers, by name.
    """
    root = logging.getLogger()
    if level is not None:
        root.setLevel(level)
    elif root.level == logging.WARNING and not any(map(_foreign, root.handlers)):
        root.setLevel(fallback_level)
    _ours[:] = handlers
    _first[:] = [handler for handler in handlers if not isinstance(handler, Console)]
    _levels.update(levels or {})
    ensure()
    _set_levels()
    if not _originals:
        _patch()


def detach() -> None:
    """Take our handlers off and restore what was patched."""
    root = logging.getLogger()
    for handler in _ours:
        root.removeHandler(handler)
    _ours.clear()
    _first.clear()
    _levels.clear()
    for name, (owner, original, replacement) in list(_originals.items()):
        if getattr(owner, name) is replacement:
            setattr(owner, name, original)
    _originals.clear()


def ensure() -> None:
    """Put back what somebody removed: in front, since handlers write into the records they get."""
    root = logging.root
    handlers = root.handlers
    for handler in _ours:
        if handler not in handlers:
            # A new list: another thread may be walking through the old one.
            root.handlers = [*_ours, *(other for other in handlers if other not in _ours)]

            return


def was_first(record: logging.LogRecord) -> bool:
    """Whether our handler has had this record, and meets it again on the way through the loggers."""
    return record is _handling.record


def note_call(logger: logging.Logger, record: logging.LogRecord, *given: Any) -> None:
    """See `as_logged.note`; for our own logger, which calls `Logger.handle` itself."""
    as_logged.note(logger, record, *given)


def _take(record: logging.LogRecord) -> None:
    """Give a record to our handler, as it was logged."""
    try:
        if _ours:
            ensure()
        if access_lines.is_duplicate(record) or any(check(record) for check in _left_out):
            return
        seen = as_logged.read(record)
        if access_lines.repeats_exception(seen):
            seen = as_logged.copy_with(seen, exc_info=None)
        for handler in _first:
            if handler.level <= max(seen.levelno, 0):
                handler.handle(seen)
        if seen.exc_info and _on_exception and (error := records.error(seen)) is not None:
            for notice in _on_exception:
                notice(error)
    except Exception as failure:
        text = f"a log record was lost: {_values.text(failure)}"
        _diagnostics.say("first handler", text, level="error")


def _calling_handlers(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @functools.wraps(original)
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging.Logger
        _take(record)
        before = _handling.record
        _handling.record = record
        try:
            original(self, record)
        finally:
            _handling.record = before

    return callHandlers


def _making_records(original: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    @functools.wraps(original)
    def makeRecord(  # noqa: N802, PLR0917 - as in logging.Logger
        self: logging.Logger,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        made = original(self, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        as_logged.note(self, made, extra)
        return made

    return makeRecord


def leave_out(check: Callable[[logging.LogRecord], bool]) -> None:
    """Leave out the records of which `check` says that they have arrived on another way."""
    if check not in _left_out:
        _left_out.append(check)


def is_handling(text: str) -> bool:
    """Whether a record with this message is on its way through the application's handlers."""
    record = _handling.record
    return record is not None and records.message(record) == text


def notice_exceptions(notice: Callable[[BaseException], None]) -> None:
    """Have each exception reported that a log record has in full."""
    if notice not in _on_exception:
        _on_exception.append(notice)


def is_ours(method: object) -> bool:
    """Whether a method of `logging.Logger` is one that we put there, around logging's own."""
    return method in _hooks


def ours() -> list[logging.Handler]:
    """The list of our handlers itself, for the native core to look into."""
    return _ours


def handlers() -> list[logging.Handler]:
    """Our handlers."""
    return list(_ours)


def consoles() -> list[Console]:
    """Those of our handlers that write lines on stderr."""
    return [handler for handler in _ours if isinstance(handler, Console)]


@contextlib.contextmanager
def taken_off() -> Iterator[None]:
    """Root as the application left it."""
    root = logging.getLogger()
    ours = list(_ours)
    _ours.clear()  # so that nobody puts them back meanwhile
    for handler in ours:
        root.removeHandler(handler)
    try:
        yield
    finally:
        _ours[:] = ours
        ensure()
        _set_levels()


def _set_levels() -> None:
    for name, level in _levels.items():
        logging.getLogger(name).setLevel(level)


def _patch() -> None:
    import logging.config  # noqa: PLC0415 - 5 ms that a bare `import telemetry` need not pay

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            with taken_off():
                return original(*args, **kwargs)

        return call

    kind: Any = logging.config.dictConfigClass

    class Configurator(kind):  # type: ignore[misc]  # the base is whatever stands there now
        """Configures as its base does, with our handlers out of the way."""

        def configure(self) -> None:
            with taken_off():
                super().configure()

    calling = _calling_handlers(logging.Logger.callHandlers)
    making = _making_records(logging.Logger.makeRecord)
    for replacement in (calling, making):
        wrapped_code = getattr(getattr(replacement, "__wrapped__", None), "__code__", None)
        if wrapped_code is not None and wrapped_code.co_filename == logging.__file__:
            _hooks.add(replacement)  # what somebody else has put there stays visible as theirs
    for owner, name, replacement in (
        (logging.Logger, "callHandlers", calling),
        (logging.Logger, "makeRecord", making),
        (logging, "basicConfig", wrapped(logging.basicConfig)),
        (logging.config, "fileConfig", wrapped(logging.config.fileConfig)),
        (logging.config, "dictConfigClass", Configurator),
    ):
        _originals[name] = (owner, getattr(owner, name), replacement)
        setattr(owner, name, replacement)


def _foreign(handler: logging.Handler) -> bool:
    return not getattr(handler, "otelier", False)


def _handled_elsewhere(name: str) -> bool:
    """Whether a record of this logger reaches a handler of the application."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(map(_foreign, logger.handlers)):
            return True
        logger = logger.parent if logger.propagate else None
    return False
