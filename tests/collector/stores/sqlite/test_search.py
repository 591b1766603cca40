"""Text search in the SQLite store: the index of messages finds what reading every record finds."""

import asyncio
import random
import re
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from sqlite3 import connect

import pytest

from collector.model import Signal
from collector.stores.base import Query
from collector.stores.query_match import matches
from collector.stores.sqlite import search
from collector.stores.sqlite.reader import statement
from collector.stores.sqlite.store import SQLite
from tests.contracts import keeping
from tests.contracts import stores as contract
from tests.contracts.stores import exactly, log

ROOT = Path(__file__).parent.parent.parent.parent.parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "telemetry.db"


def sqlite(path, *, read_only=False, **keys):
    return SQLite(
        SQLite.Config(path=str(path), **keys), contract.host(), read_only=read_only, tend=True
    )


def one(path, sql, *parameters):
    """The first value of an answer, None when there is no such table."""
    with closing(connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        if search.STATE not in tables:
            return None
        row = connection.execute(sql, parameters).fetchone()
    return row and row[0]


async def indexed(path):
    """Wait until every record is in the index."""

    async def done():
        last = one(path, f"SELECT last FROM {search.STATE}")
        return last is not None and last == one(path, "SELECT max(rowid) FROM logs")

    await keeping.until(done)


def test_folding_makes_equal_whatever_ignorecase_takes_for_equal():
    """Every character folds to what all its twins of `re.IGNORECASE` fold to, into one character each."""
    cased = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if not 0xD800 <= code <= 0xDFFF
        and (chr(code).lower(), chr(code).upper()) != (chr(code),) * 2
    ]
    everything = "".join(cased)
    assert len(search.fold(everything)) == len(everything)
    wrong = []
    for char in cased:
        twins = re.findall(re.escape(char), everything, re.IGNORECASE)
        if {search.fold(twin) for twin in twins} != {search.fold(char)}:
            wrong.append(char)
    assert wrong == []


WORDS = (
    *("timeout", "TIMEOUT", "Time-out", "order 4711", "ORDER 4712", "überlast", "ÜBERLAST", "\u017ftraße"),
    *("STRASSE", "K300", "k300", "İstanbul", "ISTANBUL", "\u0131stanbul", "Ωmega", "ωMEGA", "ς", "Σ"),
    *('"quoted"', "'; DROP TABLE logs", "a\0b", "AND OR NOT *", "{x}", "(a+)+$", "\\d", "😀😀😀", "\x02\x03\x02"),
    *("", "a", "ab", "\n\t", "%", "message:x", "NEAR(a b)", "^start", "日本語テキスト"),
)  # fmt: skip


def questions(stored, dice):
    """Pieces of the messages in other letters, and what is nowhere."""
    for message in [each["message"] for each in stored] * 2:
        first = dice.randrange(len(message) + 1)
        piece = message[first : first + dice.choice((1, 2, 3, 4, 9, 40))]
        yield dice.choice((piece, piece.upper(), piece.lower(), piece.swapcase()))
    yield from ("nowhere at all", "zzz", *WORDS)


@pytest.mark.anyio
@pytest.mark.parametrize("full_text", [True, False])
async def test_answers_are_those_of_reading_every_record(path, full_text):
    """With and without an index, any text finds exactly the records that contain it."""
    dice = random.Random(11)
    stored = [
        log(number, message=" ".join(dice.choice(WORDS) for _ in range(dice.randrange(6))))
        for number in range(300)
    ]
    stored.append(log(300, message="x" * 5000 + " the END of a long message"))
    stored.append(contract.without(log(301), "message"))
    async with sqlite(path, full_text=full_text) as store:
        await store.write(Signal.LOGS, stored)
        if full_text:
            await indexed(path)
        stored[301]["message"] = ""
        for text in {*questions(stored, dice), "the end of A"}:
            query = Query(signal=Signal.LOGS, text=text, limit=1000)
            match = matches(query)
            expected = [each["_id"] for each in stored if match(each)]
            assert [each["_id"] for each in await store.find(query)] == expected, text


@pytest.mark.anyio
async def test_a_rare_text_is_found_by_the_index(path):
    """The plan of a search goes through the index to single rows, and orders what it found."""
    stored = [log(number, message=f"request {number} done") for number in range(2000)]
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, stored)
        await indexed(path)
        query = Query(signal=Signal.LOGS, text="QUEST 1234", newest_first=True)
        assert exactly(await store.find(query)) == exactly([stored[1234]])
        with closing(connect(path)) as connection:
            sql, parameters = statement(query, search.condition(connection, query.text))
            plan = [
                step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
            ]
            common = search.condition(connection, "re")
    assert any(step.startswith("SEARCH logs USING INTEGER PRIMARY KEY") for step in plan)
    assert any(f"SCAN {search.TABLE} VIRTUAL TABLE" in step for step in plan)
    assert [step for step in plan if step.startswith("SCAN logs")] == []
    assert common is None


@pytest.mark.anyio
async def test_other_conditions_narrow_a_search_down(path):
    """Level, service, time, attributes, collection, limit and pages hold beside a text."""
    stored = [
        log(
            number,
            message=f"payment {number} failed",
            service="web" if number % 2 else "db",
            level="ERROR" if number % 3 else "INFO",
            severity_number=17 if number % 3 else 9,
            attributes={"k": number % 5},
        )
        for number in range(60)
    ]
    asked = {
        "text": "PAYMENT",
        "service": "web",
        "min_severity": 17,
        "collection": "error_logs",
        "where": (("k", "2"),),
        "since_unix_nano": contract.T0 + 7,
        "until_unix_nano": contract.T0 + 50,
    }
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, stored)
        await indexed(path)
        query = Query(signal=Signal.LOGS, **asked)
        expected = [n for n in range(7, 50) if n % 2 and n % 3 and n % 5 == 2]
        assert exactly(await store.find(query)) == exactly(stored[n] for n in expected)
        first = await store.find(Query(signal=Signal.LOGS, **asked, newest_first=True, limit=1))
        after = (first[0]["time_unix_nano"], first[0]["_id"])
        rest = await store.find(Query(signal=Signal.LOGS, **asked, newest_first=True, after=after))
        assert exactly([*first, *rest]) == exactly(stored[n] for n in reversed(expected))
        other = Query(signal=Signal.LOGS, text="payment", id="nobody")
        assert await store.find(other) == []


@pytest.mark.anyio
async def test_the_index_comes_and_goes_with_the_configuration(path):
    """A file without an index gets one while it is open; `full_text: false` takes it away; answers stay."""
    stored = [log(number, message=f"number {number}") for number in range(2500)]
    query = Query(signal=Signal.LOGS, text="NUMBER 2017")
    async with sqlite(path, full_text=False) as store:
        await store.write(Signal.LOGS, stored)
        assert exactly(await store.find(query)) == exactly([stored[2017]])
    assert one(path, f"SELECT last FROM {search.STATE}") is None
    async with sqlite(path) as store:
        assert exactly(await store.find(query)) == exactly([stored[2017]])
        await indexed(path)
        assert exactly(await store.find(query)) == exactly([stored[2017]])
    async with sqlite(path, read_only=True) as reader:
        assert exactly(await reader.find(query)) == exactly([stored[2017]])
    async with sqlite(path, full_text=False) as store:

        async def gone():
            return one(path, f"SELECT last FROM {search.STATE}") is None

        await keeping.until(gone)
        assert exactly(await store.find(query)) == exactly([stored[2017]])
    with closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.anyio
async def test_an_index_that_may_not_fit_is_left_alone_and_made_again(path):
    """After a VACUUM by hand, or for other Unicode tables, answers stay right and the next start makes a new index."""
    stored = [log(number, message=f"number {number}") for number in range(100)]
    query = Query(signal=Signal.LOGS, text="number 42")
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, stored)
        await indexed(path)
    with closing(connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute(f"UPDATE {search.STATE} SET last = 1000")  # what it says is void
        assert search.condition(connection, "number 42") is None
    async with sqlite(path, read_only=True) as reader:
        assert exactly(await reader.find(query)) == exactly([stored[42]])
    async with sqlite(path) as store:
        await indexed(path)
        assert exactly(await store.find(query)) == exactly([stored[42]])
    with closing(connect(path)) as connection:
        assert search.condition(connection, "number 42") is not None


@pytest.mark.anyio
async def test_a_damaged_index_stops_no_answer(path):
    """When the index cannot be read, the records are."""
    stored = [log(number, message=f"number {number}") for number in range(100)]
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, stored)
        await indexed(path)
    with closing(connect(path)) as connection, connection:
        connection.execute(f"DELETE FROM {search.TABLE}_data")
    async with sqlite(path, read_only=True) as reader:
        found = await reader.find(Query(signal=Signal.LOGS, text="number 42"))
    assert exactly(found) == exactly([stored[42]])


@pytest.mark.anyio
async def test_what_retention_deletes_leaves_the_index_and_its_place_is_used_again(path):
    """Deleted records are no candidates any more, and records that come after all others went are found."""
    old = keeping.NOW - timedelta(days=2)
    gone = [log(number, message=f"secret {number}", received_at=old) for number in range(1200)]
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, gone)
        await indexed(path)
        assert len(await store.find(Query(signal=Signal.LOGS, text="secret", limit=2000))) == 1200
    asked = search.expression("secret")
    sql = f"SELECT count(*) FROM {search.TABLE} WHERE {search.TABLE} MATCH ?"
    assert one(path, sql, asked) == 1200
    async with sqlite(path, retention={"info_logs": "1d"}) as store:

        async def empty():
            return await store.find(Query(signal=Signal.LOGS)) == []

        await keeping.until(empty)
        assert one(path, sql, asked) == 0
        assert one(path, f"SELECT last FROM {search.STATE}") == 0
        new = [log(number, message=f"public {number}") for number in range(2000, 2010)]
        await store.write(Signal.LOGS, new)
        found = await store.find(Query(signal=Signal.LOGS, text="PUBLIC 2003"))
        assert exactly(found) == exactly([new[3]])
        await indexed(path)
        found = await store.find(Query(signal=Signal.LOGS, text="PUBLIC 2003"))
        assert exactly(found) == exactly([new[3]])
        assert await store.find(Query(signal=Signal.LOGS, text="secret")) == []


WRITE_UNTIL_KILLED = """
import asyncio, itertools, sys
from collector.model import Signal
from tests.collector.stores.sqlite.test_search import log, sqlite

async def main():
    async with sqlite(sys.argv[1]) as store:
        for first in itertools.count(0, 300):
            records = [log(first + each, message=f"number {first + each}.") for each in range(300)]
            await store.write(Signal.LOGS, records)
            print(first, flush=True)
            await asyncio.sleep(0.05)

asyncio.run(main())
"""


def test_r01_reading_beside_a_writer_that_is_killed(path):
    """What the writing process has acknowledged another process finds at once, by text and by time, also after kill -9 (R1)."""

    def found(number):
        async def main():
            async with sqlite(path, read_only=True) as reader:
                by_text = Query(signal=Signal.LOGS, text=f"NUMBER {number}.")
                by_time = Query(
                    signal=Signal.LOGS,
                    since_unix_nano=contract.T0 + number,
                    until_unix_nano=contract.T0 + number + 1,
                )
                return [await reader.find(by_text), await reader.find(by_time)]

        return [[each["message"] for each in answer] for answer in asyncio.run(main())]

    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        for _ in range(10):
            number = int(process.stdout.readline()) + 299
            assert found(number) == [[f"number {number}."]] * 2
        process.kill()
        last = [number, *map(int, process.stdout.read().splitlines())][-1]
    assert found(last) == [[f"number {last}."]] * 2

    async def settled():
        async with sqlite(path):
            await indexed(path)

    asyncio.run(settled())
    for number in (0, 299, 300, 1711, last):
        assert found(number) == [[f"number {number}."]] * 2
    with closing(connect(path)) as connection:
        connection.execute(f"INSERT INTO {search.TABLE}({search.TABLE}) VALUES ('integrity-check')")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
