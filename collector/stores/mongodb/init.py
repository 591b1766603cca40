"""
What a database lacks, compared with the configuration, and how to give it that at once.

The collector does the same by itself, in the background and with the first document of each
collection. This is for people who want to see it first, to build indexes before the load comes, or
to run the collector as a user that may not create anything. Nothing is ever dropped: an index of
another program's in the place of ours is reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from collector.stores.mongodb.indexes import LEDGER, VIEW, indexes, is_ours, view_of
from collector.stores.retention import kept_s
from collector.stores.routing import SPANS, STATISTICS

_SAME: Final = ("expireAfterSeconds", "partialFilterExpression", "unique", "sparse")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as the configuration wants it."""

    collection: str
    """Which collection."""
    what: str
    """In words."""
    mine: bool = True
    """Whether it can be put right; what another program made cannot."""


def names(kept: Mapping[str, int], logs: Sequence[str]) -> list[str]:
    """Every collection of ours."""
    return list(dict.fromkeys([*kept, *logs, LEDGER, STATISTICS]))


def differences(
    database: Database[Any], kept: Mapping[str, int], logs: Sequence[str]
) -> list[Difference]:
    """Compare; changes nothing."""
    there = {found["name"]: found for found in database.list_collections()}
    found: list[Difference] = []
    for name in names(kept, logs):
        if name not in there:
            found.append(Difference(collection=name, what="the collection is missing"))
        elif there[name]["type"] != "collection":
            what = f"is a {there[name]['type']} of another program"
            found.append(Difference(collection=name, what=what, mine=False))
            continue
        have = database[name].index_information() if name in there else {}
        for index in indexes(name, kept_s(kept, name)):
            found += _compared(name, index, have)
    view = there.get(VIEW)
    if view is None:
        found.append(Difference(collection=VIEW, what="the view is missing"))
    elif not is_ours(view):
        what = "is another program's; the view is not made"
        found.append(Difference(collection=VIEW, what=what, mine=False))
    elif view["options"] != view_of(logs):
        found.append(Difference(collection=VIEW, what="the view joins other collections"))
    return found


def _compared(
    name: str, index: IndexModel, have: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    wanted = index.document
    keys = list(wanted["key"].items())
    same = [each for each in have.values() if list(each["key"]) == keys]
    title = ", ".join(field for field, _ in keys)
    if not same:
        if wanted["name"] in have:
            what = f"another index has the name {wanted['name']}: drop or rename it"
            yield Difference(collection=name, what=what, mine=False)
        else:
            yield Difference(collection=name, what=f"the index on {title} is missing")
        return
    options = [{key: each.get(key) for key in _SAME} for each in same]
    ours = {key: wanted.get(key) for key in _SAME}
    if ours in options:
        return
    if ours["expireAfterSeconds"] is not None:
        before = options[0]["expireAfterSeconds"]
        old = "for ever" if before is None else f"for {before} s"
        yield Difference(
            collection=name,
            what=f"documents are kept {old}, and {ours['expireAfterSeconds']} s are configured",
        )
        return
    what = f"an index on {title} with other options is in the place of ours: drop it"
    yield Difference(collection=name, what=what, mine=False)


def apply(database: Database[Any], kept: Mapping[str, int], logs: Sequence[str]) -> None:
    """
    Make what is missing; what another program made stays as it is.

    Raises:
        PyMongoError: the server cannot be reached, or the user may not.
    """
    there = {found["name"]: found for found in database.list_collections()}
    engine = {"wiredTiger": {"configString": "block_compressor=zstd"}}
    for name in names(kept, logs):
        if name not in there:
            try:
                database.create_collection(name, check_exists=False, storageEngine=engine)
            except OperationFailure as error:
                if error.code == 13:
                    raise
                database.create_collection(name, check_exists=False)  # no zstd there
        elif there[name]["type"] != "collection":
            continue
        have = database[name].index_information()
        for index in indexes(name, kept_s(kept, name)):
            for difference in _compared(name, index, have):
                if not difference.mine:
                    continue
                keep_s = index.document.get("expireAfterSeconds")
                if keep_s is not None and difference.what.startswith("documents"):
                    wanted = {"keyPattern": index.document["key"], "expireAfterSeconds": keep_s}
                    database.command("collMod", name, index=wanted)
                else:
                    database[name].create_indexes([index])
    view = there.get(VIEW)
    if view is None:
        database.command("create", VIEW, **view_of(logs))
    elif is_ours(view) and view["options"] != view_of(logs):
        database.command("collMod", VIEW, **view_of(logs))


def sharding(database: str, kept: Mapping[str, int], logs: Sequence[str]) -> str:
    """The commands that shard the large collections, for a person to run, with the reasons."""
    lines = [
        "// Run these in mongosh on a mongos, before the first document, after `collector mongo init`.",
        "// A key that begins with a time would send every insert to one shard.",
        f'sh.enableSharding("{database}")',
        "",
        "// Spans: all of one trace on one shard, so a trace is one shard's work. `_id` is made from",
        "// the trace id, so the same span always meets its repeat.",
        f'sh.shardCollection("{database}.{SPANS}", {{trace_id: "hashed"}})',
        "",
        "// Everything else: spread by `_id`. It is made from the data, so a resend goes to the same",
        "// shard and is found there; `_id` is unique per shard only, so no other key would do.",
    ]
    whole = (SPANS, LEDGER, STATISTICS)
    lines += [
        f'sh.shardCollection("{database}.{name}", {{_id: "hashed"}})'
        for name in names(kept, logs)
        if name not in whole
    ]
    lines += [
        "",
        f"// {LEDGER} and {STATISTICS} are small and stay on the primary shard.",
        "// Retention works per shard. Questions by correlation id ask every shard.",
    ]
    return "\n".join(lines)
