"""
How long documents are kept: one table of defaults, and the words of the configuration.

Retention counts from `received_at`, the collector's clock, because a client's clock can be wrong by
years: a document without a time, or with an absurd one, lives as long as its neighbours.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from collector.stores.routing import (
    ANALYTICS,
    AUDIT,
    INFERENCES,
    LETTERS,
    LEVELS,
    METRICS,
    OWN_NAME,
    SPANS,
    TRAIL,
)

DAY_S: Final = 86_400
FOREVER: Final = 2_147_483_647
"""The most seconds that a TTL index takes, 68 years: what `unlimited` becomes."""

DAYS: Final[Mapping[str, int]] = MappingProxyType(
    {
        LEVELS["DEBUG"]: 7,
        LEVELS["INFO"]: 30,
        LEVELS["WARNING"]: 60,
        LEVELS["ERROR"]: 90,
        LEVELS["CRITICAL"]: 120,
        AUDIT: 365,
        TRAIL: 30,
        ANALYTICS: 365,
        INFERENCES: 90,
        SPANS: 30,
        METRICS: 30,
        LETTERS: 90,
    }
)
"""Days that documents are kept when the configuration says nothing."""

OWN_DAYS: Final = 30
"""The same for collections of the user's."""

UNLIMITED: Final = "unlimited"
_PART: Final = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,3})?)(s|m|h|d|w)")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S}


def seconds(name: str, given: str | int) -> int:
    """
    What one entry of `retention` says, in seconds; FOREVER for `unlimited`.

    Raises:
        ValueError: with the form to write.
    """
    if given == UNLIMITED:
        return FOREVER
    if isinstance(given, int):
        total: float = given * DAY_S
    else:
        parts = _PART.findall(given)
        if "".join(number + unit for number, unit in parts) != given or not parts:
            parts = []
        total = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if not 1 <= total < FOREVER:
        raise ValueError(
            f"retention.{name}: {given!r} is no time to keep something; write days (30), a duration "
            f"with s, m, h, d or w (36h, 30d), or {UNLIMITED}"
        )
    return int(total)


def table(given: Mapping[str, str | int]) -> dict[str, int]:
    """
    Seconds by collection: the defaults with the configuration's words on top.

    Raises:
        ValueError: a collection that there is not, or a time that is none.
    """
    found = {name: days * DAY_S for name, days in DAYS.items()}
    for name, word in given.items():
        if name not in found and not OWN_NAME.fullmatch(name):
            raise ValueError(
                f"retention.{name}: no such collection; there are {', '.join(DAYS)}, and those of "
                "your own that end in _events"
            )
        found[name] = seconds(name, word)
    return found


def kept_s(kept: Mapping[str, int], name: str) -> int:
    """How long documents of a collection are kept, in seconds."""
    return kept.get(name, OWN_DAYS * DAY_S)
