"""
`errors`: what failed, as groups that mean the same.

A store counts failures by type, message and service. Messages differ in numbers and ids where the
failure is the same, so the groups are joined here by a fingerprint: the type, and the message with
numbers, ids, addresses and quoted texts left out. The first words that a group is shown with are
those of its latest failure.

A page goes on behind the last group of the page before. The cursor also keeps the time range, so
that pages that are asked for one after the other are pages of the same list.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

import msgspec

from collector.model import Signal
from collector.query.parameters import choice, read_question
from collector.query.searched import Searched
from collector.stores.base import Failure, Query, Store

MOST: Final = 10_000
"""Types, messages and services that one answer is made of."""

DEFAULT_LIMIT: Final = 20
FAILED: Final = 17
"""The severity of ERROR."""

PARAMETERS: Final[dict[str, str]] = {
    "since": "At or after: an age (15m, 1h, 7d) or an ISO 8601 time; 1h unless given.",
    "until": "Before: an age or a time, as for since.",
    "service": "The service equals this.",
    "kind": "logs (records of level error and critical, the default) or spans (those with status ERROR).",
    "order": "frequent (the most frequent first, the default) or recent (the latest first).",
    "limit": "How many groups, 20 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about errors, with its help."""

_CURSOR: Final = re.compile(r"([0-9]{1,20})\.([0-9]{1,20})\.([0-9]{1,20})\.([0-9a-f]{16})")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `query` for the store, and how the groups are ordered and cut."""

    query: Query
    frequent: bool
    limit: int
    after: tuple[int, str] | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Failures that mean the same.

    Args:
        id: the fingerprint.
        type: the exception's class, or `error.type` of spans; empty without one.
        message: what the latest of them says, at most 400 characters.
        count: how many.
        first_unix_nano, last_unix_nano: when, within the range that was asked for.
        services: where, the latest first.
        trace_id: a trace in which it happened, the latest known.
    """

    id: str
    type: str
    message: str
    count: int
    first_unix_nano: int
    last_unix_nano: int
    services: list[str]
    trace_id: str = ""


class Errors(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A page of groups.

    Args:
        errors: the groups.
        next: the cursor of the page behind this one; absent on the last page.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where was looked.
    """

    errors: list[Group] = []
    next: str | None = None
    cut: list[str] = []
    searched: Searched


def question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    asked = read_question(
        pairs, PARAMETERS, _CURSOR, now_unix_nano=now_unix_nano, since="1h",
        rows=DEFAULT_LIMIT, max_rows=max_rows,
    )  # fmt: skip
    given, behind = asked.given, asked.behind
    after = None if behind is None else (int(behind[0]), behind[1])
    kind = choice(given, "kind", "logs", "spans")
    order = choice(given, "order", "frequent", "recent")
    narrow: dict[str, Any] = {"min_severity": FAILED} if kind == "logs" else {"status": "ERROR"}
    query = Query(
        signal=Signal.LOGS if kind == "logs" else Signal.TRACES,
        service=given.get("service"),
        since_unix_nano=asked.since_unix_nano,
        until_unix_nano=asked.until_unix_nano,
        limit=MOST,
        **narrow,
    )
    return Question(
        query=query,
        frequent=order == "frequent",
        limit=asked.limit,
        after=after,
    )


async def errors(store: Store, asked: Question) -> Errors:
    """One page of groups of failures."""
    found = await store.failures(asked.query)
    groups = joined(found)

    def key(group: Group) -> tuple[int, str]:
        return (group.count if asked.frequent else group.last_unix_nano, group.id)

    groups.sort(key=key, reverse=True)
    if asked.after is not None:
        groups = [group for group in groups if key(group) < asked.after]
    page = groups[: asked.limit]
    behind = None
    if len(groups) > len(page):
        times = (asked.query.since_unix_nano, asked.query.until_unix_nano)
        behind = ".".join(map(str, (*times, *key(page[-1]))))
    cut = [f"more than {MOST} different messages; the latest are counted"]
    return Errors(
        errors=page,
        next=behind,
        cut=cut if len(found) == MOST else [],
        searched=Searched(store=store.describe()),
    )


def joined(found: Iterable[Failure]) -> list[Group]:
    """Failures with the same fingerprint as one group."""
    groups: dict[str, Group] = {}
    for failure in sorted(found, key=lambda failure: -failure.last_unix_nano):
        mark = fingerprint(failure.type, failure.message)
        old = groups.get(mark)
        if old is None:
            groups[mark] = Group(
                id=mark,
                type=failure.type,
                message=failure.message,
                count=failure.count,
                first_unix_nano=failure.first_unix_nano,
                last_unix_nano=failure.last_unix_nano,
                services=[failure.service],
                trace_id=failure.trace_id,
            )
            continue
        services = old.services
        if failure.service not in services:
            services = [*services, failure.service]
        groups[mark] = msgspec.structs.replace(
            old,
            count=old.count + failure.count,
            first_unix_nano=min(old.first_unix_nano, failure.first_unix_nano),
            services=services,
            trace_id=old.trace_id or failure.trace_id,
        )
    return list(groups.values())


# Each pattern is linear: no part of it can match what the part before could give back.
_VARIABLE: Final = re.compile(
    r"""
    (?<!\w)'[^'\n]{0,200}'(?!\w)|"[^"\n]{0,200}"                        # a quoted text
    |\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b              # a UUID
    |\b0x[0-9a-fA-F]+\b                                                    # an address in memory
    |\b(?=[0-9a-fA-F]{0,63}[0-9])[0-9a-fA-F]{8,64}\b                       # an id in hex
    |[0-9]+(?:[.,:_-][0-9]+){0,20}                                         # numbers, dates, hosts
    """,
    re.VERBOSE,
)


def fingerprint(kind: str, message: str) -> str:
    """What failures that mean the same have in common, as 16 hex digits."""
    words = " ".join(_VARIABLE.sub("*", message).split())
    return blake2b(f"{kind}\0{words}".encode("utf-8", "replace"), digest_size=8).hexdigest()
