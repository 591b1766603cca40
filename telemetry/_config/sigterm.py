"""
SIGTERM kills a Python program on the spot, and with it what waits to be sent. Here it ends first.

`catch` puts a handler in the place of the default action, and of nothing else. A handler of the
application's own ends the program in its own way, and then exit hooks run; one that is set later
takes the place of ours, and may call it. A signal that is ignored stays ignored. uvicorn puts back
what was there before it and raises the signal again: so its processes end here too.

The handler restores the default action first, so that a second SIGTERM ends the process at once;
then it delivers within the exit's budget, and raises the signal again, so that the parent sees a
process that SIGTERM has killed. It works in the main thread that it interrupts, which does nothing
more: the locks of the queues are re-entrant, and every wait ends with the budget. A lock of somebody
else's that the interrupted code holds would never be let go, so an alarm ends the wait for that.

Process 1 of a container is left alone: the kernel keeps a SIGTERM without a handler away from it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


class _Late(BaseException):
    """The time is up."""


def catch(deliver: Callable[[], None], within_s: float) -> bool:
    """
    Deliver before SIGTERM ends this process, or a forked child; whether there is a handler now.

    Args:
        deliver: sends what waits, within its own time.
        within_s: seconds after which even a lock that is never let go is not waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # Python allows handlers in the main thread only
    if os.getpid() == 1 or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False

    def on_sigterm(given: int, _: FrameType | None) -> None:
        signal.signal(given, signal.SIG_DFL)
        with contextlib.suppress(Exception, KeyboardInterrupt, _Late):
            _limit(within_s)
            deliver()
            _limit(0.0)
        signal.raise_signal(given)
        os.kill(os.getpid(), given)  # where this thread blocks the signal, another one takes it

    try:
        signal.signal(signal.SIGTERM, on_sigterm)
    except ValueError:  # a subinterpreter
        return False
    return True


def _limit(seconds: float) -> None:
    """Interrupt what runs after so many seconds, and again until it ends; 0 switches that off."""
    if not hasattr(signal, "setitimer"):
        return

    def late(*_: object) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, late if seconds else signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5 if seconds else 0.0)
