"""
Our handlers on the root logger, and how they stay there without being noticed.

A handler on root turns `logging.basicConfig()` into a no-op, and `dictConfig()` throws it out, so
those three functions run with our handlers taken off and put back after. What evades them
(`root.handlers = []`) is repaired by `ensure()`, a list lookup at each span start and each call of
our logger. The application's handlers and levels are never touched, with one exception: a root
logger that nobody configured gets LOG_LEVEL and lines on stderr, which vanish as soon as the
application adds a handler of its own.
"""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from telemetry import _diagnostics
from telemetry._logs import format as formats
from telemetry._logs import record as records

_ours: list[logging.Handler] = []
_originals: dict[str, Any] = {}
_levels: dict[str, str] = {}
"""Levels of single loggers that the operator asked for: they outlast what the program configures."""


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
    _levels.clear()
    for name, (owner, original, replacement) in list(_originals.items()):
        if getattr(owner, name) is replacement:
            setattr(owner, name, original)
    _originals.clear()


def ensure() -> None:
    """Put back what somebody removed."""
    root = logging.root
    handlers = root.handlers
    for handler in _ours:
        if handler not in handlers:
            root.addHandler(handler)


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

    for owner, name, replacement in (
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
