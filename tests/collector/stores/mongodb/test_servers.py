"""The MongoDB store on servers of its own: killed in mid-bulk, standalone, with roles and TLS, elections."""

import asyncio
import datetime
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pymongo
import pytest
from click.testing import CliRunner
from pymongo.errors import AutoReconnect

from collector.cli.dead_letters import rewrite
from collector.cli.mongo import mongo
from collector.errors import Retryable
from collector.model import Duration, Secret, Signal
from collector.stores.base import Query, Refused, Written
from collector.stores.mongodb.bulk import retryable
from collector.stores.mongodb.store import MongoDB
from tests import servers
from tests.contracts import keeping
from tests.contracts import stores as contract
from tests.contracts.stores import exactly, host, log, span

ROOT = Path(__file__).parent.parent.parent.parent.parent
DAYS = [number % 3 for number in range(10_000)]


def binary():
    found = servers.mongod_binary()
    if found is None:
        servers.missing("no mongod (requirements/mongod.txt)")
    return found


def mongodb(uri, *, timeout=5.0, **keys):
    options = {name: keys.pop(name) for name in ("read_only", "tend") if name in keys}
    config = MongoDB.Config(uri=Secret(uri), timeout=Duration(timeout), **keys)
    return MongoDB(config, host(), **options)


async def taken(store, signal, documents):
    """Send until it is taken, as a queue does."""
    while True:
        try:
            return await store.write(signal, documents)
        except Retryable:
            await asyncio.sleep(0.05)


class Load:
    """
    Writers that send facts and spans until they are told to stop; what was taken is remembered.

    Each request is sent twice now and then, as an SDK does that got no answer.
    """

    def __init__(self, store):
        self.store = store
        self.acknowledged = {Signal.LOGS: [], Signal.TRACES: []}
        self.numbers = iter(range(0, 10**9, 50))
        self.stopped = False
        self.tasks = []

    async def __aenter__(self):
        self.tasks = [
            asyncio.create_task(self.write(signal)) for signal in (Signal.LOGS, Signal.TRACES) * 3
        ]
        return self

    async def __aexit__(self, *exc):
        self.stopped = True
        await asyncio.gather(*self.tasks)

    async def write(self, signal):
        while not self.stopped:
            first = next(self.numbers)
            make = span if signal is Signal.TRACES else self.fact
            batch = [make(first + number) for number in range(50)]
            await taken(self.store, signal, batch)
            if first % 350 == 0:
                await taken(self.store, signal, batch)
            self.acknowledged[signal] += batch
            await asyncio.sleep(0.02)  # enough to be in the middle of something, quick to judge

    @staticmethod
    def fact(number):
        return keeping.evaluated(number, day=number % 3)

    async def grown(self, by=600):
        """Wait until more was acknowledged."""
        before = self.count()

        async def enough():
            return self.count() >= before + by

        await keeping.until(enough)

    def count(self):
        return sum(map(len, self.acknowledged.values()))


async def judge(load, store):
    """Nothing acknowledged is lost, nothing is there twice, and the statistics equal a recount."""
    for signal, sent in load.acknowledged.items():
        found = await contract.everything(store, signal)
        by_id = {document["_id"]: document for document in found}
        assert len(by_id) == len(found)
        assert [each["_id"] for each in sent if each["_id"] not in by_id] == []
        assert exactly(by_id[each["_id"]] for each in sent) == exactly(sent)
    facts = await contract.everything(store, Signal.LOGS)

    async def counted():
        return await store.daily_statistics(*keeping.ALWAYS) == keeping.recount(facts)

    await keeping.until(counted)
    return len(facts)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "kills", [5, pytest.param(50, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
async def test_r04_kill_9_of_the_server_in_mid_bulk(mongod, kills):
    """However often mongod is killed while six writers write, nothing acknowledged is lost, doubled or miscounted (R4)."""
    await asyncio.to_thread(mongod.start)
    async with mongodb(mongod.uri) as store:
        async with Load(store) as load:
            for _ in range(kills):
                await load.grown()
                await asyncio.sleep(random.uniform(0.0, 0.1))
                await asyncio.to_thread(mongod.kill)
                await asyncio.to_thread(mongod.start)
            await load.grown()
        assert await judge(load, store) >= kills * 100


WRITE_UNTIL_KILLED = """
import asyncio, itertools, sys
from collector.model import Signal
from tests.collector.stores.mongodb.test_servers import Load, mongodb

async def main():
    async with mongodb(sys.argv[1]) as store:
        for first in itertools.count(int(sys.argv[2]), 50):
            await store.write(Signal.LOGS, [Load.fact(first + each) for each in range(50)])
            print(first, flush=True)

asyncio.run(main())
"""


@pytest.mark.anyio
async def test_r5_statistics_survive_kill_9_of_collectors(mongod):
    """Two collectors killed in mid-write and a third that sends it all again leave statistics equal to a recount (R5)."""
    await asyncio.to_thread(mongod.start)

    def killed():
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", WRITE_UNTIL_KILLED, mongod.uri, str(first)],
                stdout=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            for first in (0, 500)  # they meet, and send the same
        ]
        acknowledged = set()
        for process in processes:
            with process:
                acknowledged |= {int(process.stdout.readline()) for _ in range(30)}
                process.kill()
        return acknowledged

    acknowledged = await asyncio.to_thread(killed)
    async with mongodb(mongod.uri) as store:
        facts = await contract.everything(store, Signal.LOGS)
        ids = {document["_id"] for document in facts}
        sent = [Load.fact(first + each) for first in acknowledged for each in range(50)]
        assert [each["_id"] for each in sent if each["_id"] not in ids] == []
        await store.write(Signal.LOGS, sent)

        async def counted():
            return await store.daily_statistics(*keeping.ALWAYS) == keeping.recount(facts)

        await keeping.until(counted)


@pytest.mark.anyio
async def test_a_standalone_server_is_enough(tmp_path):
    """Without a replica set everything works: writes, repeats, dead letters, retention, statistics."""
    server = servers.Mongod(binary(), tmp_path, replica_set=False)
    try:
        await asyncio.to_thread(server.start)
        old = keeping.NOW - datetime.timedelta(days=9)
        bad = {**log(901), "_id": "x"}
        async with mongodb(server.uri) as store:
            await store.write(Signal.LOGS, [log(900, level="DEBUG", received_at=old)])
            given = [*keeping.FACTS, log(902), log(902), bad]
            assert await store.write(Signal.LOGS, given) == Written(
                len(given) - 2, duplicates=1, refused=(Refused(bad, "invalid_id"),)
            )
            assert len(await store.dead_letters(limit=9)) == 1
            assert await rewrite(store) == (0, 1)

            async def settled():
                found = await store.find(Query(signal=Signal.LOGS, limit=1000))
                statistics = await store.daily_statistics(*keeping.ALWAYS)
                return len(found) == len(given) - 2 and statistics == keeping.recount(keeping.FACTS)

            await keeping.until(settled)
    finally:
        server.kill()


@pytest.mark.anyio
async def test_elections_under_load_lose_and_double_nothing(tmp_path):
    """In a replica set of three, step-downs and the loss of a primary under load: 0 lost, 0 twice, statistics exact."""
    replica_set = servers.ReplicaSet(binary(), tmp_path)
    try:
        await asyncio.to_thread(replica_set.start)
        async with mongodb(replica_set.uri) as store:
            async with Load(store) as load:
                await load.grown()
                await asyncio.to_thread(replica_set.step_down)
                await load.grown()
                primary = await asyncio.to_thread(replica_set.primary)
                await asyncio.to_thread(primary.kill)
                await load.grown()
            await judge(load, store)
    finally:
        replica_set.kill()


# --- roles and TLS ---


def commands(title):
    """A block of the documentation that makes a role, as Python reads it."""
    text = (ROOT / "docs/reference/collector/exporters/mongodb.md").read_text()
    block = re.search(rf"^// {title}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    found = []
    for call in re.findall(
        r"^db\.create(Role|User)\((\{.*?^\})\)", block, re.MULTILINE | re.DOTALL
    ):
        kind, body = call
        body = re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', body)
        body = re.sub(r",(\s*[}\]])", r"\1", body)
        values = eval(body, {"passwordPrompt": lambda: "secret"})
        name = values.pop(kind.lower())
        found.append({f"create{kind}": name, **values})
    return found


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A standalone mongod with TLS and authorization, and the documented users; URI of a user."""
    tmp_path = tmp_path_factory.mktemp("secured")
    certificate = tmp_path / "mongod.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"],
        check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        servers.missing("no openssl")
    certificate.write_bytes(made.stdout)
    tls = ("--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(certificate))
    server = servers.Mongod(binary(), tmp_path, "--auth", *tls, replica_set=False)
    try:
        server.start()
        with pymongo.MongoClient(server.uri) as client:  # the exception for localhost
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        with pymongo.MongoClient(server.uri, username="root", password="root") as client:
            for command in (*commands("the collector"), *commands("people and commands that read")):
                client["telemetry"].command(command)
            client["telemetry"].command("createUser", "nobody", pwd="secret", roles=[])
        options = f"authSource=telemetry&tls=true&tlsCAFile={certificate}"
        yield (
            lambda user, word="secret": (
                f"mongodb://{user}:{word}@127.0.0.1:{server.port}/telemetry?{options}"
            )
        )
    finally:
        server.kill()


@pytest.mark.anyio
async def test_the_documented_roles_are_enough_and_no_more(secured, caplog):
    """Over TLS the writer's role does all that a collector does and cannot change records; the reader's only reads."""
    async with mongodb(secured("collector")) as writer:
        bad = {**log(901), "_id": "x"}
        await writer.write(Signal.LOGS, [*keeping.FACTS, bad])
        await writer.write(Signal.TRACES, [span(1, kind="SERVER")])
        assert await rewrite(writer) == (0, 1)

        async def counted():
            statistics = await writer.daily_statistics(*keeping.ALWAYS)
            return statistics == keeping.recount(keeping.FACTS)

        await keeping.until(counted)
        async with mongodb(secured("reader"), read_only=True) as reader:
            assert len(await reader.find(Query(signal=Signal.LOGS))) == len(keeping.FACTS)
            trail = Query(signal=Signal.LOGS, collection="trace_logs")
            assert len(await reader.find(trail)) == 1
            (letter,) = await reader.dead_letters(limit=9)
            assert await reader.daily_statistics(*keeping.ALWAYS) == keeping.recount(keeping.FACTS)
        assert await writer.forget([letter.id]) == 1
    async with mongodb(secured("collector"), retention={"spans": "9d"}):
        with pymongo.MongoClient(secured("collector")) as client:
            database = client["telemetry"]

            async def changed():
                index = database["spans"].index_information()["received_at_1"]
                return index["expireAfterSeconds"] == 9 * 86_400

            await keeping.until(changed)

            async def viewed():
                return "logs" in database.list_collection_names()

            await keeping.until(viewed)
            for forbidden in (
                lambda: database["analytics"].delete_many({}),
                lambda: database["spans"].update_many({}, {"$set": {"name": "x"}}),
                database["spans"].drop,
            ):
                with pytest.raises(pymongo.errors.OperationFailure, match="not authorized"):
                    forbidden()
    assert caplog.messages == []


@pytest.mark.anyio
async def test_missing_rights_and_wrong_passwords_keep_the_data_and_are_loud(secured):
    """A wrong password and a user without rights: Retryable, tried again slowly, with the fix and no password."""
    answers = []
    for uri in (secured("collector", "wrong-word"), secured("nobody"), secured("reader")):
        async with mongodb(uri) as store:
            with pytest.raises(Retryable) as caught:
                await store.write(Signal.LOGS, [log(1)])
            answers.append((caught.value.delay_s, str(caught.value)))
    assert [delay for delay, _ in answers] == [30.0] * 3
    texts = [re.sub(r"127\.0\.0\.1:\d+", "HOST", text) for _, text in answers]
    assert texts == [
        "MongoDB at HOST: user name or password is wrong (code 18)",
        *["MongoDB at HOST: the user may not write: grant readWrite on the database (code 13)"] * 2,
    ]


# --- collector mongo init ---


def init(*words):
    done = CliRunner().invoke(mongo, ["init", *words])
    return done.exit_code, done.output


def test_mongo_init_says_what_is_missing_makes_it_and_reports_the_rest(
    mongod, tmp_path, monkeypatch
):
    """A dry run changes nothing; `init` makes all; what another program made is reported and stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLLECTOR_STORE", raising=False)
    mongod.start()
    config = tmp_path / "otel-collector.yaml"

    def configure(retention):
        config.write_text(
            "receivers: {otlp: {protocols: {http: }}}\n"
            f'exporters: {{mongodb: {{uri: "{mongod.uri}", retention: {retention}, '
            'events: {"own.*": own_events}}}\n'
            "service: {pipelines: {logs: {receivers: [otlp], exporters: [mongodb]}}}\n"
        )

    configure("{}")
    with pymongo.MongoClient(mongod.uri) as client:
        database = client["telemetry"]
        code, output = init("--dry-run")
        assert (code, database.list_collection_names()) == (1, [])
        lines = output.splitlines()
        assert lines[0] == "debug_logs: the collection is missing"
        assert lines[1] == "debug_logs: the index on received_at is missing"
        assert "own_events: the index on event, timestamp is missing" in lines
        assert lines[-1] == "logs: the view is missing"
        where = f"MongoDB at 127.0.0.1:{mongod.port}, database telemetry"
        counted = Counter(line.split(": ")[1].split()[1] for line in lines)
        made = f"{counted['collection']} x collection, {counted['index']} x index, 1 x view"
        assert init() == (0, f"{where}: made {made}.\n{where} is as configured.\n")
        assert init("--dry-run")[0] == 0
        assert database.command("collStats", "spans")["wiredTiger"]["creationString"].count("zstd")
        assert database["logs"].count_documents({}) == 0
        # Other numbers, and what others did.
        configure("{spans: 5d}")
        database["info_logs"].drop_index("context.correlation_id_1")
        database["info_logs"].create_index("context.correlation_id")
        database["error_logs"].drop_index("trace.trace_id_1")
        told = [
            "info_logs: an index on context.correlation_id with other options is in the place of ours: drop it",
            "error_logs: the index on trace.trace_id is missing",
            "spans: documents are kept for 2592000 s, and 432000 s are configured",
        ]
        assert init("--dry-run") == (1, "\n".join(told) + "\n")
        changed = "made 1 x index, 1 x other change"
        assert init() == (1, f"{where}: {changed}.\n{told[0]}\n")
        index = database["spans"].index_information()["received_at_1"]
        assert index["expireAfterSeconds"] == 5 * 86_400


def test_mongo_init_prints_the_commands_for_shards(tmp_path, monkeypatch):
    """`--sharded` names a key for each large collection, with the reason, and connects to nothing."""
    monkeypatch.chdir(tmp_path)
    code, output = init("--sharded", "--store", "mongodb://nowhere.invalid/shop")
    assert code == 0
    assert 'sh.enableSharding("shop")' in output
    assert 'sh.shardCollection("shop.spans", {trace_id: "hashed"})' in output
    keys = dict(re.findall(r'sh\.shardCollection\("shop\.(\w+)", \{(\w+): "hashed"\}\)', output))
    assert keys.pop("spans") == "trace_id"
    assert set(keys.values()) == {"_id"}
    assert {"info_logs", "audit_logs", "metrics", "trace_logs", "dead_letters"} <= set(keys)


def test_a_call_that_the_driver_gives_up_is_a_sentence():
    """A server that hangs ends in words for a person, not in the name of a private class."""
    error = type("_OperationCancelled", (AutoReconnect,), {})("operation cancelled")
    assert str(retryable(error, "db:27017")) == (
        "MongoDB at db:27017 does not answer in time: it hangs, or is cut off"
    )
