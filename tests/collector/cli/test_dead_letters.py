"""`collector dead-letters`: the letters of a store are shown, written again, deleted."""

import asyncio
import json
import time

import pytest
from click.testing import CliRunner
from pymongo.errors import OperationFailure

from collector.cli.dead_letters import dead_letters
from collector.model import Secret, Signal
from collector.stores.base import Query, dumps
from collector.stores.mongodb.store import MongoDB
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import exactly, host, log

CONFIG = """
exporters: {sqlite: {path: t.db}}
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
service: {pipelines: {logs: {receivers: [otlp], exporters: [sqlite]}}}
"""
BAD = {**log(1), "_id": "no id"}
BUILDING = 12587
"""MongoDB: an index is being built."""
FOREIGN = log(2, attributes={"x": object()})


def ask(*words):
    done = CliRunner().invoke(dead_letters, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """A SQLite file with two dead letters; their ids, that of `BAD` first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLLECTOR_STORE", raising=False)

    async def fill():
        async with SQLite(SQLite.Config(path="t.db"), host()) as store:
            await store.write(Signal.LOGS, [BAD, FOREIGN])
            return {each.document_id: each.id for each in await store.dead_letters(limit=9)}

    ids = asyncio.run(fill())
    return [ids["no id"], ids[FOREIGN["_id"]]]


STORE = ("--store", "sqlite:///t.db")


def test_ls_and_show_give_the_reason_and_the_exact_bytes(letters):
    """Each letter is one line; `show` prints the document as it was."""
    code, output = ask("ls", *STORE, "--json")
    rows = {row["id"]: row for row in map(json.loads, output.splitlines())}
    assert code == 0
    assert set(rows) == set(letters)
    row = rows[letters[0]]
    assert row.pop("received_at").endswith("+00:00")
    assert row == {
        "id": letters[0],
        "signal": "logs",
        "collection": "info_logs",
        "reason": "invalid_id",
        "size": len(dumps(BAD)),
        "document_id": "no id",
    }
    assert sorted(line.split()[0] for line in ask("ls", *STORE)[1].splitlines()) == sorted(letters)
    assert ask("show", letters[0], *STORE) == (0, dumps(BAD).decode() + "\n")
    code, output = ask("show", "0" * 24, *STORE)
    assert (code, output) == (1, f"Error: there is no dead letter {'0' * 24}\n")


def test_retry_says_what_remains(letters):
    """What the store refuses again stays a letter, and the exit code says so."""
    assert ask("retry", *STORE) == (1, "0 stored, 2 rejected again\n")
    assert ask("retry", letters[0], *STORE) == (1, "0 stored, 1 rejected again\n")
    assert len(ask("ls", *STORE)[1].splitlines()) == 2


def test_drop_deletes_what_is_named_and_asks(letters, tmp_path):
    """Letters go by id or all; without --yes it asks; the store may also come from the configuration."""
    (tmp_path / "otel-collector.yaml").write_text(CONFIG)
    assert ask("drop", *STORE)[0] == 2
    assert ask("drop", "--all", *STORE)[0] == 1  # nobody said yes
    assert ask("drop", letters[0], "--yes") == (0, "1 dead letters are deleted\n")
    assert [line.split()[0] for line in ask("ls")[1].splitlines()] == [letters[1]]
    assert ask("drop", "--all", "--yes") == (0, "1 dead letters are deleted\n")
    assert ask("ls") == (0, "There are no dead letters.\n")


def without_validator(database):
    """Take the validator off, which the server refuses while it builds indexes."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return database.command("collMod", "info_logs", validator={})
        except OperationFailure as error:
            if error.code != BUILDING or time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def test_retry_stores_what_the_server_takes_now(mongodb_uri, mongodb_database, monkeypatch):
    """A document that a validator refused is stored with its own id once the validator is gone, and the letter goes."""
    monkeypatch.delenv("COLLECTOR_STORE", raising=False)
    scheme, _, rest = mongodb_uri.partition("://")
    hosts, _, options = rest.partition("/")
    url = f"{scheme}://{hosts}/{mongodb_database}{options}"
    bad = log(3, message="bad", attributes={"a.b": [1, 2.5]})

    async def run():
        config = MongoDB.Config(uri=Secret(mongodb_uri), database=mongodb_database)
        async with MongoDB(config, host()) as store:
            await asyncio.to_thread(
                store._database.create_collection,
                "info_logs",
                validator={"message": {"$ne": "bad"}},
            )  # the server's own refusal, which no public seam of ours can make
            written = await store.write(Signal.LOGS, [log(1), bad])
            assert (written.stored, len(written.refused)) == (1, 1)
            first = await asyncio.to_thread(ask, "retry", "--store", url)
            await asyncio.to_thread(without_validator, store._database)
            second = await asyncio.to_thread(ask, "retry", "--store", url)
            third = await asyncio.to_thread(ask, "ls", "--store", url)
            return first, second, third, await store.find(Query(signal=Signal.LOGS))

    first, second, third, found = asyncio.run(run())
    assert first == (1, "0 stored, 1 rejected again\n")
    assert second == (0, "1 stored, 0 rejected again\n")
    assert third == (0, "There are no dead letters.\n")
    assert exactly(found) == exactly([log(1), bad])
