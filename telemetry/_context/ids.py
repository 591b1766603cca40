"""
Random bits for ids: not secret, never the same in two processes.

`random.seed(42)` in the application must not repeat ids in every run, so the generator is our own.
Each process draws its seed from the system once: a system call per id would let go of the GIL, and
wait for it. A fork that runs no hooks (uWSGI) is noticed by pid.
"""

import random

from telemetry._native import process_id

_source = random.Random()
_pid = 0


def bits(count: int) -> int:
    """A number of so many random bits: 64 or 128."""
    global _pid, _source  # noqa: PLW0603 - one generator per process
    if _pid != process_id():
        _source = random.Random(random.SystemRandom().getrandbits(256))
        _pid = process_id()
    return _source.getrandbits(count)
