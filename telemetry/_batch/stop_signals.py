"""
Three steps to stop a run by signals: drain, cancel, leave.

Python's own handlers and not the event loop's: they also run while a handler blocks the loop, and
then the third signal still works. The first two steps only ask the loop; nothing is done in the
signal handler itself. A signal that the process was started to ignore (nohup, `&` in a script)
stays ignored. A forked child inherits our handlers, and with them the parent's loop: there the
signal does what it would do by default. The handlers of before come back with the last run's end.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

LEAVE: Final = 3
"""The step at which the process ends at once."""

_Listener = Callable[[int, int], None]
_listeners: list[_Listener] = []
_before: dict[int, Any] = {}
_state = {"steps": 0, "pid": 0}


def number(name: str) -> int:
    """The number of a signal by its name; raises ValueError with the fix."""
    found = signal.Signals.__members__.get(name)
    if found is None:
        message = f"{name!r} is no signal of this system; give names such as SIGINT, SIGTERM"
        raise ValueError(message)
    return found.value


@contextlib.contextmanager
def caught(names: tuple[str, ...], listener: _Listener) -> Iterator[bool]:
    """
    Call `listener(signal, step)` on signals, from the signal handler, for the length of a block.

    Yields whether signals are caught at all: Python allows that in the main thread only.

    Args:
        names: of signals.
        listener: must only pass it on; called with step 1 and step 2.
    """
    if not names or threading.current_thread() is not threading.main_thread():
        yield False
        return
    if not _listeners:
        _state.update(steps=0, pid=os.getpid())
    _listeners.append(listener)
    for name in names:
        given = number(name)
        before = signal.getsignal(given)
        if given not in _before and before not in (signal.SIG_IGN, None):
            _before[given] = before
            signal.signal(given, _on_signal)
    try:
        yield True
    finally:
        _listeners.remove(listener)
        if not _listeners:
            for given, before in _before.items():
                signal.signal(given, before)
            _before.clear()


def _on_signal(given: int, _: FrameType | None) -> None:
    if os.getpid() != _state["pid"]:
        signal.signal(given, signal.SIG_DFL)
        os.kill(os.getpid(), given)
        return
    _state["steps"] += 1
    if _state["steps"] >= LEAVE:
        with contextlib.suppress(Exception):
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
        os._exit(128 + given)
    for listener in tuple(_listeners):
        listener(given, _state["steps"])
