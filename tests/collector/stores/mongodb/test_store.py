"""The MongoDB store: the contract, and what only a server can do."""

import asyncio
import logging
import os
import time
import uuid

import pymongo
import pymongo.monitoring
import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from pymongo.errors import OperationFailure

from collector.documents.build import Binary
from collector.errors import Retryable, StartFailed
from collector.model import Duration, Secret, Signal
from collector.stores.base import Query, Refused, Written
from collector.stores.mongodb.store import MongoDB
from telemetry.attributes import LOOKUP
from tests import servers
from tests.contracts import keeping, lists, reading
from tests.contracts import stores as contract
from tests.contracts.stores import exactly, log, point, span

DAY = 86_400


@pytest.fixture
def store(mongodb_uri, mongodb_database):
    """A new, unopened store on the same database each time."""
    return lambda **keys: mongodb(mongodb_uri, mongodb_database, **keys)


class TestContract(contract.StoreContract):
    """MongoDB keeps every promise of a store."""


class TestLists(lists.ListsContract):
    """MongoDB keeps every promise about lists of traces, services, operations and metrics."""


class TestReading(reading.ReadingContract):
    """MongoDB keeps every promise about summaries, following, walking and taking over."""


class TestKeeping(keeping.KeepingContract):
    """MongoDB keeps every promise about places, retention, dead letters and statistics."""


def mongodb(uri, database="telemetry", *, read_only=False, tend=True, stats=None, **keys):
    times = {
        name: Duration(keys.pop(name)) for name in ("timeout", "query_timeout") if name in keys
    }
    config = MongoDB.Config(uri=Secret(uri), database=database, **times, **keys)
    return MongoDB(config, contract.host(stats), read_only=read_only, tend=tend)


@pytest.fixture
def client(mongodb_uri):
    with pymongo.MongoClient(mongodb_uri, tz_aware=True) as opened:
        yield opened


@pytest.fixture
def database(client, mongodb_database):
    return client[mongodb_database]


@pytest.fixture
def opened(mongodb_uri, mongodb_database):
    """The store of this test's database, to be entered by the test."""
    return mongodb(mongodb_uri, mongodb_database)


async def until(condition, give_up_s=30.0):
    """Wait for something that a background thread does."""
    deadline = time.monotonic() + give_up_s
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


def keys_of(collection):
    """The keys of the indexes of a collection, once they are built."""
    # `list_indexes` names an index while it is built; a question walks the collection until then.
    try:
        stats = list(collection.aggregate([{"$indexStats": {}}]))
    except OperationFailure as error:
        if error.code == 27:  # an index was finished under the server's feet: ask again
            return []
        raise
    building = {index["name"] for index in stats if "building" in index}
    return [
        index["key"].to_dict()
        for index in collection.list_indexes()
        if index["name"] not in building
    ]


# --- documents as people see them ---


@pytest.mark.anyio
async def test_people_find_documents_by_plain_filters(opened, database):
    """Levels have their collections; dates are dates, ids strings, and names with dots are paths."""
    levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    names = ["debug_logs", "info_logs", "warning_logs", "error_logs", "critical_logs"]
    async with opened:
        await opened.write(
            Signal.LOGS,
            [
                log(
                    number,
                    level=level,
                    context={"organization_id": "o"},
                    attributes={"http.request.method": "GET", "count": 2**63 - 1},
                )
                for number, level in enumerate(levels)
            ],
        )
        await opened.write(Signal.TRACES, [span(9)])
        await opened.write(Signal.METRICS, [point(9, count=2**64 - 1)])
    wanted = {
        "attributes.http.request.method": "GET",
        "context.organization_id": "o",
        "timestamp": {"$gte": contract.moment(contract.T0 - 10**9)},
    }
    assert [database[name].count_documents(wanted) for name in names] == [1] * 5
    assert [database[name].find_one()["level"] for name in names] == levels
    assert database["metrics"].count_documents({"count": {"$gt": 2**63 - 1}}) == 1
    stored = database["error_logs"].find_one()
    assert str(stored.pop("_id")) == contract.identity(3)
    assert stored == {
        "timestamp": contract.moment(contract.T0).replace(microsecond=123000),
        "time_unix_nano": contract.T0 + 3,
        "level": "ERROR",
        "severity_number": 9,
        "received_at": contract.RECEIVED,
        "service": "web",
        "message": "hello",
        "context": {"organization_id": "o"},
        "attributes": {"http": {"request": {"method": "GET"}}, "count": 2**63 - 1},
    }
    types = {"time_unix_nano": "long", "timestamp": "date", "_id": "objectId"}
    assert all(database["error_logs"].count_documents({k: {"$type": t}}) for k, t in types.items())


@pytest.mark.anyio
async def test_what_cannot_be_nested_is_kept_beside(opened, database):
    """A conflict of names is searchable by `name._`, and the exact value stands in attributes_raw."""
    attributes = {"http": "x", "http.method": "GET", "$where": "1", "map": {"a": Binary(b"b")}}
    async with opened:
        await opened.write(Signal.LOGS, [log(1, attributes=attributes)])
    stored = database["info_logs"].find_one()
    assert stored["attributes"] == {
        "http": {"_": "x", "method": "GET"},
        "map": {"a": b"b"},
        "\uff04where": "1",
    }
    assert stored["attributes_raw"] == (
        '{"attributes":{"http":"x","http.method":"GET","$where":"1",'
        '"map":{"a":{"$binary":{"base64":"Yg==","subType":"00"}}}}}'
    )


# --- collections and indexes ---


LEVELS = ("debug_logs", "info_logs", "warning_logs", "error_logs", "critical_logs")
LOGS = (*LEVELS, "audit_logs", "analytics", "ml_inferences")


def expected_indexes(name):
    if name == "ledger":
        return [{"_id": 1}]
    if name == "daily_statistics":
        return [{"_id": 1}, {"day": -1}]
    if name == "dead_letters":
        return [{"_id": 1}, {"received_at": 1}, {"part_of": 1}]
    date, nano = (
        ("start", "start_unix_nano") if name == "spans" else ("timestamp", "time_unix_nano")
    )
    found = [{"_id": 1}, {"received_at": 1}, {date: -1, nano: -1, "_id": -1}]
    if name == "metrics":
        return [*found, {"name": 1, date: -1}]
    found += [{"trace_id" if name == "spans" else "trace.trace_id": 1}]
    found += [{f"context.{key}": 1} for key in LOOKUP]
    found += [{"context.organization_id": 1, date: -1}]
    if name in ("spans", "error_logs", "critical_logs", "audit_logs"):
        found += [{"service": 1, date: -1}]
    if name == "spans":
        return [*found, {"duration_ms": -1}, {"status": 1, "service": 1, date: -1}]
    if name in LEVELS:
        found += [{"event": 1, date: -1, nano: -1, "_id": -1}]
    elif name != "trace_logs":
        found += [{"event": 1, date: -1}]
    return [*found, {"context.conversation_id": 1, date: -1}, {"trace.execution_time_ms": -1}]


async def indexed(database, names):
    """Wait until some collections have their indexes."""
    for name in names:
        await until(lambda name=name: keys_of(database[name]) == expected_indexes(name))


KEEP_DAYS = {
    **dict(zip(LEVELS, (7, 30, 60, 90, 120), strict=True)),
    "audit_logs": 365,
    "trace_logs": 30,
    "analytics": 365,
    "ml_inferences": 90,
    "spans": 30,
    "metrics": 30,
    "dead_letters": 90,
}
ONE_OF_EACH = [
    *(
        log(number, level=level)
        for number, level in enumerate(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    ),
    log(5, attributes={"audit.sequence": 1}),
    log(6, event="risk.score.evaluated", trace={"execution_time_ms": 1.0}),
    log(7, event="risk.inference.finished"),
]


@pytest.mark.anyio
async def test_a5_collections_get_indexes_retention_and_compression(opened, database):
    """The first document of a collection brings its indexes, its days of retention and zstd (A5)."""
    async with opened:
        await opened.write(Signal.LOGS, [*ONE_OF_EACH, {**log(8), "_id": "x"}])
        await opened.write(Signal.TRACES, [span(1)])
        await opened.write(Signal.METRICS, [point(1)])
        await until(lambda: "daily_statistics" in database.list_collection_names())
        names = [*KEEP_DAYS, "ledger", "daily_statistics"]
        await indexed(database, names)
        await until(lambda: "logs" in database.list_collection_names())
    there = set(database.list_collection_names()) - {"system.views"}
    assert there == {*names, "logs"}
    assert {
        name: database[name].index_information()["received_at_1"]["expireAfterSeconds"] // DAY
        for name in KEEP_DAYS
    } == KEEP_DAYS
    engines = [database[name].options()["storageEngine"]["wiredTiger"] for name in names]
    assert engines == [{"configString": "block_compressor=zstd"}] * len(names)


@pytest.mark.anyio
async def test_no_question_by_id_or_time_walks_a_collection(opened, database):
    """Ids, organisation, service and plain time order use indexes in every collection (by the server's profile)."""
    levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    async with opened:
        stored = [
            log(number, level=levels[number % 5], trace={"trace_id": f"{number:032x}"})
            for number in range(500)
        ]
        await opened.write(
            Signal.LOGS,
            [*stored, *(log(each, event="risk.inference.finished") for each in range(900, 950))],
        )
        await opened.write(
            Signal.LOGS,
            [{**each, "_id": contract.identity(600 + at)} for at, each in enumerate(ONE_OF_EACH)],
        )
        await opened.write(Signal.TRACES, [span(number) for number in range(500)])
        await indexed(database, (*LOGS, "spans"))
        database.command("profile", 2)
        try:
            for kind in (Signal.LOGS, Signal.TRACES):
                for asked in (
                    {"id": f"{7:032x}"},
                    {"id": "nobody", "newest_first": True},
                    {"trace_ids": (f"{7:032x}", f"{8:032x}")},
                    *({"context": {key: "x"}} for key in (*LOOKUP, "organization_id")),
                    {"newest_first": True, "limit": 10},
                    {"limit": 10},
                    {"since_unix_nano": contract.T0, "until_unix_nano": contract.T0 + 5},
                    {"after": (contract.T0 + 7, contract.identity(7)), "limit": 10},
                ):
                    await opened.find(Query(signal=kind, **asked))
            await opened.find(Query(signal=Signal.TRACES, service="web", newest_first=True))
        finally:
            database.command("profile", 0)
    asked = asked_of(database)
    # By an id all collections of logs are one command, else each of them has its own.
    assert len(asked) == (3 + 10 * 8) + 13 + 1
    for command in asked:
        plan = explained(database, command)
        assert "COLLSCAN" not in stages(plan), command
        # An index on what was asked, not the whole index of times.
        assert max(every(plan, "totalKeysExamined")) <= 108, command


def asked_of(database):
    """The questions that the store has asked while the profile was on."""
    profile = database["system.profile"].find(
        {"command.aggregate": {"$type": "string"}, "appName": "otelier-collector"}
    )
    return [
        {key: each["command"][key] for key in ("aggregate", "pipeline")}
        for each in profile
        if not any("$merge" in stage for stage in each["command"]["pipeline"])
    ]


def explained(database, command):
    """What the server did for a question, in every branch of it."""
    whole = {**command, "cursor": {}}
    return database.command("explain", whole, verbosity="executionStats")


def every(plan, key):
    """All values of a key, however deep."""
    if isinstance(plan, dict):
        found = [plan[key]] if key in plan else []
        return found + [each for value in plan.values() for each in every(value, key)]
    if isinstance(plan, list):
        return [each for value in plan for each in every(value, key)]
    return []


# --- the chat application's queries, as they are written ---


def stages(plan):
    """The stages of a plan, from the top."""
    found = []
    if isinstance(plan, dict):
        found += [plan["stage"]] if isinstance(plan.get("stage"), str) else []
        for value in plan.values():
            found += stages(value)
    elif isinstance(plan, list):
        for value in plan:
            found += stages(value)
    return found


@pytest.mark.anyio
async def test_a5_the_documented_queries_run_as_written_and_use_an_index(opened, database):
    """Each query of the chat application's pages finds what it should, by an index (A5)."""
    t0 = contract.moment(contract.T0)
    organization = {"context.organization_id": "org_123"}
    chat = {
        "organization_id": "org_123",
        "conversation_id": "conv_789",
        "correlation_id": "corr_456",
    }
    async with opened:
        await opened.write(
            Signal.LOGS,
            [
                *(log(number) for number in range(200)),
                *(log(number, level="ERROR", severity_number=17) for number in range(200, 400)),
                log(500, context=chat, level="ERROR", severity_number=17),
                log(501, context=chat, trace={"execution_time_ms": 1500.0, "status": "success"}),
                log(502, trace={"execution_time_ms": 2500.0, "status": "success"}),
                log(503, trace={"execution_time_ms": 45.23, "status": "success"}),
            ],
        )
        await indexed(database, ("error_logs", "info_logs", "trace_logs"))
    errors, infos, trail = (database[name] for name in ("error_logs", "info_logs", "trace_logs"))
    slow = {"trace.execution_time_ms": {"$gt": 1000}}  # Longer than 1 second
    queries = [
        (errors.find(organization).sort({"timestamp": -1}).limit(100), [500]),
        (trail.find({"context.correlation_id": "corr_456"}).sort({"timestamp": 1}), [501]),
        (infos.find(slow).sort({"trace.execution_time_ms": -1}), [502, 501]),
        (errors.find().sort({"timestamp": -1}).limit(10), None),
        (infos.find(organization), [501]),
    ]
    for cursor, expected in queries:
        plan = stages(cursor.clone().explain()["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in plan, plan
        assert "COLLSCAN" not in plan
        found = [str(each["_id"]) for each in cursor]
        if expected is not None:
            assert found == [contract.identity(number) for number in expected]
        else:
            assert len(found) == 10
    # A date is a date: `timestamp` compared with a text, as older pages have it, finds nothing.
    statistics = [
        {"$match": {"context.conversation_id": "conv_789", "timestamp": {"$gte": t0}}},
        {"$group": {"_id": "$level", "count": {"$sum": 1}}},
    ]
    assert list(infos.aggregate(statistics)) == [{"_id": "INFO", "count": 1}]
    plan = stages(
        database.command(
            "explain", {"aggregate": "info_logs", "pipeline": statistics, "cursor": {}}
        )
    )
    assert ("IXSCAN" in plan, "COLLSCAN" in plan) == (True, False)
    assert (infos.count_documents({}), errors.count_documents({})) == (203, 201)


# --- the view, and what others have made ---


@pytest.mark.anyio
async def test_the_view_shows_every_record_once(store, database):
    """`logs` is one view over all collections of records, and follows a change of the configuration."""
    async with store() as opened:
        await opened.write(Signal.LOGS, ONE_OF_EACH)
        await until(lambda: "logs" in database.list_collection_names())
    ids = sorted(str(each["_id"]) for each in database["logs"].find())
    assert ids == [contract.identity(number) for number in range(8)]
    async with store(events={"own.*": "own_events"}) as opened:
        await opened.write(Signal.LOGS, [log(9, event="own.thing")])
        await until(lambda: database["logs"].count_documents({}) == 9)


@pytest.mark.anyio
async def test_a_collection_called_logs_is_left_alone(opened, database, caplog):
    """Somebody else's `logs` is reported once and not touched."""
    database["logs"].insert_one({"theirs": 1})
    async with opened:
        await opened.write(Signal.LOGS, [log(1)])
        await until(lambda: caplog.messages)
    assert [message for message in caplog.messages if "of another program" in message]
    assert database["logs"].count_documents({"theirs": 1}) == 1


@pytest.mark.anyio
async def test_retention_is_changed_in_place(store, database, caplog):
    """Another number in the configuration changes the index that is there, also a plain one (A5)."""
    database["info_logs"].create_index("received_at")

    def kept(name):
        return database[name].index_information().get("received_at_1", {}).get("expireAfterSeconds")

    async with store(retention={"error_logs": "12h"}) as opened:
        await opened.write(Signal.LOGS, [log(1), log(2, level="ERROR")])
        await until(lambda: (kept("info_logs"), kept("error_logs")) == (30 * DAY, DAY // 2))
        await indexed(database, ("info_logs", "error_logs"))
    async with store(retention={"error_logs": "unlimited", "info_logs": 2}):
        await until(lambda: (kept("info_logs"), kept("error_logs")) == (2 * DAY, 2**31 - 1))
    assert caplog.messages == []


@pytest.mark.anyio
async def test_an_index_in_the_way_never_stops_the_data(opened, database, caplog):
    """An existing index with the same keys and other options is reported once; documents and other indexes are stored."""
    database["info_logs"].create_index([("trace.trace_id", 1)], sparse=True)
    async with opened:
        with caplog.at_level(logging.WARNING, "tests.store"):
            assert await opened.write(Signal.LOGS, [log(1)]) == Written(1)
            expected = {str(key) for key in expected_indexes("info_logs")}
            await until(lambda: {str(key) for key in keys_of(database["info_logs"])} == expected)
            await until(lambda: caplog.messages)
    (message,) = caplog.messages
    assert "refuses the index trace.trace_id_1 of info_logs (code 8" in message


@pytest.mark.anyio
async def test_read_only_creates_nothing(mongodb_uri, mongodb_database, client):
    """Asking a database that does not exist leaves it non-existent."""
    async with mongodb(mongodb_uri, mongodb_database, read_only=True) as store:
        assert await store.find(Query(signal=Signal.LOGS, id="x")) == []
    assert mongodb_database not in client.list_database_names()


# --- what the server refuses ---


@pytest.mark.anyio
async def test_documents_that_the_server_refuses_are_reported_alone(opened, database):
    """A validator, a unique index of somebody else and parallel arrays refuse single documents, with a reason."""
    database.create_collection("info_logs", validator={"message": {"$ne": "bad"}})
    database["info_logs"].create_index("event", unique=True, sparse=True)
    database["info_logs"].create_index([("attributes.a", 1), ("attributes.b", 1)])
    bad = log(1, message="bad")
    twin = log(2, event="e")
    arrays = log(3, attributes={"a": [1], "b": [1]})
    async with opened:
        given = [bad, log(4, event="e"), twin, arrays, log(5), log(5)]
        assert await opened.write(Signal.LOGS, given) == Written(
            2,
            duplicates=1,
            refused=(
                Refused(bad, "validator"),
                Refused(twin, "unique_index"),
                Refused(arrays, "index"),
            ),
        )


# --- faults ---


@pytest.fixture
def fail(client):
    """Switch a fail point of the server; all are switched off at the end."""
    names = set()

    def switch(name="failCommand", mode="alwaysOn", **data):
        names.add(name)
        command = {"configureFailPoint": name, "mode": mode}
        if data:
            command["data"] = {"appName": "otelier-collector", **data}
        client.admin.command(command)

    try:
        switch(mode="off")
    except pymongo.errors.OperationFailure:
        servers.missing("the server has no fail points (enableTestCommands)")
    yield switch
    for name in names:
        switch(name, mode="off")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault",
    [
        *({"errorCode": code} for code in (1, 6, 50, 91, 134, 189, 262, 10107, 11600, 13435)),
        *({"errorCode": code} for code in (13, 18, 8000, 12501, 14031)),
        {"closeConnection": True},
        {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
        {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},
    ],
    ids=str,
)
async def test_every_fault_of_the_server_keeps_the_data(mongodb_uri, mongodb_database, fail, fault):
    """Whatever the server answers, a write is Retryable and a resend stores each document once."""
    separator = "&" if "?" in mongodb_uri else "/?"
    uri = f"{mongodb_uri}{separator}heartbeatFrequencyMS=500"
    written = [log(number) for number in range(3)]
    async with mongodb(uri, mongodb_database, timeout=0.3) as store:
        assert await resent(store, written[:1]) == 1
        fail(failCommands=["insert"], **fault)
        with pytest.raises(Retryable) as caught:
            await store.write(Signal.LOGS, written)
        assert str(caught.value).startswith("MongoDB at ")
        slow = fault.get("errorCode") in (13, 18, 8000, 12501, 14031)
        assert caught.value.delay_s == (30.0 if slow else 1.0)
        fail(mode="off")
        assert await resent(store, written) == 3
        assert exactly(await store.find(Query(signal=Signal.LOGS))) == exactly(written)


@pytest.mark.anyio
async def test_a_command_that_fails_for_one_document_is_halved(opened, fail):
    """When the server refuses a whole command for its size, the documents are tried in ever smaller parts."""
    written = [log(number) for number in range(5)]
    async with opened:
        fail(mode={"times": 2}, failCommands=["insert"], errorCode=10334)
        assert await opened.write(Signal.LOGS, written) == Written(5)
        fail(failCommands=["insert"], errorCode=10334)
        more = [log(number) for number in range(5, 8)]
        assert await opened.write(Signal.LOGS, more) == Written(
            0, refused=tuple(Refused(document, "too_large") for document in more)
        )


async def resent(store, documents):
    """How many documents the store says it has, once it takes them."""
    for _ in range(100):
        try:
            written = await store.write(Signal.LOGS, documents)
        except Retryable:
            await asyncio.sleep(0.05)
        else:
            return written.stored + written.duplicates
    return 0


@pytest.mark.anyio
async def test_a_question_that_takes_too_long_is_ended(opened, fail):
    """A question that the server ends for its time says what to do about it."""
    async with opened:
        await opened.write(Signal.LOGS, [log(1)])
        fail("maxTimeAlwaysTimeOut")
        with pytest.raises(Retryable) as caught:
            await opened.find(Query(signal=Signal.LOGS))
    assert str(caught.value) == (
        "the question took longer than 10 s: narrow it by an id, a service or a time range, "
        "or raise `query_timeout`"
    )


@pytest.mark.anyio
async def test_r04_a_server_that_comes_and_goes(mongod):
    """Down at start, killed in mid-write, frozen: Retryable each time, nothing acknowledged is lost, no restart (R4)."""
    acknowledged = []
    async with mongodb(mongod.uri, timeout=1.5, query_timeout=1.5) as store:
        # Down at the start.
        with pytest.raises(Retryable, match=r"127\.0\.0\.1"):
            await store.write(Signal.TRACES, [span(0)])
        with pytest.raises(Retryable, match=r"127\.0\.0\.1"):
            await store.find(Query(signal=Signal.TRACES))
        await asyncio.to_thread(mongod.start)

        async def write(first, count=200):
            batch = [span(first * 1000 + number) for number in range(count)]
            while True:
                try:
                    await store.write(Signal.TRACES, batch)
                except Retryable:
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.extend(batch)
                    return

        # Killed while ten writers write.
        await write(0)
        writers = [asyncio.create_task(write(first)) for first in range(1, 11)]
        await asyncio.wait(writers, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(mongod.kill)
        await asyncio.to_thread(mongod.start)
        await asyncio.gather(*writers)
        # Frozen: the outcome of the write is unknown.
        await asyncio.to_thread(mongod.freeze)
        try:
            with pytest.raises(Retryable):
                await store.write(Signal.TRACES, [span(50_000)])
        finally:
            mongod.thaw()
        await write(50)
        found = await contract.everything(store, Signal.TRACES)
    expected = sorted(acknowledged, key=lambda document: document["start_unix_nano"])
    by_id = {document["_id"]: document for document in found}
    assert len(by_id) == len(found)
    assert exactly(by_id[each["_id"]] for each in expected) == exactly(expected)


@pytest.mark.anyio
async def test_a_stop_while_the_server_is_down_ends(caplog):
    """Leaving the store with the server unreachable takes no longer than the running calls' deadlines."""
    port = servers.free_port()
    async with mongodb(f"mongodb://127.0.0.1:{port}", timeout=0.5) as store:
        with pytest.raises(Retryable):
            await store.write(Signal.LOGS, [log(1)])
    assert caplog.messages == []


# --- secrets, settings, tracing ---


@pytest.mark.anyio
async def test_the_password_is_shown_nowhere(caplog):
    """Description, configuration, log lines and errors name the server, never the credentials."""
    port = servers.free_port()
    uri = f"mongodb://admin:hunter2@127.0.0.1:{port}/?authSource=admin&connectTimeoutMS=100"
    store = mongodb(uri, timeout=0.3, query_timeout=0.3)
    with caplog.at_level(logging.DEBUG, "tests.store"):
        async with store:
            with pytest.raises(Retryable) as written:
                await store.write(Signal.LOGS, [log(1)])
            with pytest.raises(Retryable) as found:
                await store.find(Query(signal=Signal.LOGS))
    assert store.describe() == f"MongoDB at 127.0.0.1:{port}, database telemetry"
    shown = [
        *(repr(store._config), store.describe(), str(written.value), str(found.value)),
        caplog.text,
    ]  # what `print-config` shows is the struct itself
    assert [text for text in shown if "hunter2" in text or "admin" in text] == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("compressors=zlib", True),
        ("w=1&Compressors=zlib%2Czlib", True),
        ("appname=zlib", False),
        ("", False),
    ],
)
async def test_b24_zlib_is_advised_against(caplog, options, told):
    """B24: said once at the start, with the fix; never with the password."""
    uri = f"mongodb://admin:hunter2@127.0.0.1:{servers.free_port()}/?{options}"
    with caplog.at_level(logging.WARNING, "tests.store"):
        async with mongodb(uri, timeout=0.3):
            pass
    lines = [record.getMessage() for record in caplog.records if "zlib" in record.getMessage()]
    assert len(lines) == told
    assert all("use compressors=zstd (pip install zstandard) or none" in line for line in lines)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "uri",
    [
        "localhost:27017",
        "http://admin:hunter2@localhost",
        "mongodb://admin:hun@ter2@localhost",
        "mongodb://admin:hunter2/@localhost:x",
        "mongodb://admin:hunter2@localhost:99999999",
        "mongodb://",
        "",
    ],
)
def test_a_uri_that_is_none_is_refused_without_showing_it(uri):
    """A malformed connection string is an error of the configuration, with the form to write."""
    with pytest.raises(ValueError, match=r"^uri: not a MongoDB connection string") as caught:
        MongoDB.Config(uri=Secret(uri))
    assert "hun" not in str(caught.value)


def test_a_database_name_that_mongodb_refuses_is_refused_first():
    """A name with a dot or a slash is an error of the configuration."""
    with pytest.raises(ValueError, match="is no name of a database"):
        MongoDB.Config(database="a.b")


@pytest.mark.anyio
async def test_an_option_that_the_driver_refuses_ends_the_start_in_one_line():
    """Contradicting options of the URI become one line without the URI."""
    store = mongodb(
        "mongodb://admin:hunter2@localhost/?tls=false&tlsInsecure=true&w=x&journal=maybe"
    )
    with pytest.raises(StartFailed) as caught:
        async with store:
            pass
    assert "hunter2" not in str(caught.value)
    assert "check its options" in str(caught.value)


class Watcher(pymongo.monitoring.CommandListener):
    """What an instrumentation of pymongo sees: the context in which commands run."""

    def __init__(self):
        self.databases = set()
        self.seen = []

    def started(self, event):
        if event.database_name in self.databases:
            self.seen.append((event.command_name, is_instrumentation_enabled()))

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.mark.anyio
async def test_the_store_is_never_traced(mongodb_uri):
    """Every command runs under suppressed instrumentation, or telemetry would make telemetry."""
    name = f"t_{uuid.uuid4().hex}"
    watcher = Watcher()
    watcher.databases.add(name)
    pymongo.monitoring.register(watcher)
    try:
        async with mongodb(mongodb_uri, name) as store:
            await store.write(Signal.LOGS, [log(1)])
            await store.find(Query(signal=Signal.LOGS, min_severity=21))
            await until(lambda: "createIndexes" in {command for command, _ in watcher.seen})
    finally:
        watcher.databases.clear()
        if "MONGODB_URI" in os.environ:
            with pymongo.MongoClient(mongodb_uri) as client:
                client.drop_database(name)
    assert set(watcher.seen) == {
        ("create", False),
        ("insert", False),
        ("createIndexes", False),
        ("listCollections", False),
        ("aggregate", False),
    }
