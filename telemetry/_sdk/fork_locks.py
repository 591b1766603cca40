"""
New locks for the SDK's objects in a forked child.

A thread of the parent may have been inside `get_tracer`, `get_logger` or an instrument at the moment
of the fork; its lock stays held in the child for ever, as the thread is not there. Newer SDKs renew
some of their locks themselves, none of them all (opentelemetry-python#3307). The objects are walked
without naming a field, so that a release which moves or adds a lock changes nothing here: plain
attributes of SDK objects and of their classes, and containers of these.
"""

import threading
from collections.abc import Iterable
from typing import Any, Final

MOST: Final = 20_000
"""Objects that are looked at; a child must not spend longer than that on it."""
_LOCK: Final = type(threading.Lock())
_RLOCK: Final = type(threading.RLock())
_OWNERS: Final = ("opentelemetry.sdk.", "opentelemetry.attributes", "opentelemetry.util.")
_CONTAINERS: Final = (list, tuple, set, frozenset)


def renew(roots: Iterable[object]) -> None:
    """Give SDK objects that can be reached from the roots new locks; only for a forked child."""
    seen: set[int] = set()
    stack: list[Any] = list(roots)
    while stack and len(seen) < MOST:
        thing = stack.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            stack += thing.values()
        elif isinstance(thing, _CONTAINERS):
            stack += thing
        elif _is_of_the_sdk(type(thing)):
            stack += _renew_own(thing)
            for kind in type(thing).__mro__:
                if _is_of_the_sdk(kind) and id(kind) not in seen:
                    seen.add(id(kind))
                    _renew_own(kind)


def _is_of_the_sdk(kind: type) -> bool:
    return kind.__module__.startswith(_OWNERS)


def _renew_own(thing: Any) -> list[Any]:
    """Renew the locks that are attributes of an object or class; the other attributes."""
    others = []
    for name, value in list(getattr(thing, "__dict__", {}).items()):
        if isinstance(value, _LOCK):
            setattr(thing, name, threading.Lock())
        elif isinstance(value, _RLOCK):
            setattr(thing, name, threading.RLock())
        elif isinstance(value, threading.Condition):
            setattr(thing, name, threading.Condition())
        else:
            others.append(value)
    return others
