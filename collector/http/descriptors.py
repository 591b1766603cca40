"""
File descriptors: how many there are, how many connections may have, and what happens without any.

A connection is a descriptor, and so is every file of a store. When none is left nothing can be
accepted, opened or rotated, and asyncio writes a traceback for every attempt. So the soft limit is
raised to the hard one, and each listener gets a share that leaves some for files.
"""

import contextlib
import resource
from typing import Final

KEPT: Final = 64
"""Descriptors for files, the log, the event loop and the ports of the collector itself."""
SHARES: Final = 4
"""Two transports of a receiver, its clients' bursts, and everything else that connects."""
FEWEST: Final = 8
WANTED: Final = 1 << 16
"""More than this nobody needs; some systems have no limit at all."""


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft


def share(wanted: int) -> int:
    """How many connections a listener may have: what it wants, unless that is more than its share."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(FEWEST, (soft - KEPT) // SHARES))
