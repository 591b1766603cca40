"""`collector queue`: what it shows beside a running collector, and what it changes without one."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from collector.cli.queue import queue
from collector.sending_queue.sender import DeadLetters, dead_letters_path
from collector.wal.storage import Files, FileStorage
from tests.durability import config, drain, host, ids_of, logs

FOLDER = "--directory"


def ask(*words):
    done = CliRunner().invoke(queue, [str(word) for word in words])
    return done.exit_code, done.output


async def waiting(folder):
    """Two exporters, of which one has delivered the first of three requests."""
    async with FileStorage(config(folder), host()) as wal:
        first = await wal.reader("first", ["logs"])
        await wal.reader("second", ["traces"])
        for each in ("a", "b", "c"):
            await wal.append(logs(each, received_at=1_700_000_000_000_000_000), "logs", 1)
        await first.read()
        first.done([1])
    await DeadLetters(folder, "first", 1 << 20, Files()).add(logs("poison"), "bad value")


def test_ls_shows_what_waits_for_each_exporter(tmp_path):
    """One line for each exporter: requests, items, bytes, age, dead letters."""
    asyncio.run(waiting(tmp_path))
    code, output = ask("ls", FOLDER, tmp_path, "--json")
    rows = [json.loads(line) for line in output.splitlines()]
    assert rows[0].pop("oldest_s") > 0
    size = len(logs("b").wire)
    assert (code, rows) == (
        0,
        [
            {"exporter": "first", "requests": 2, "items": 2, "bytes": 2 * size, "dead_letters": 1},
            {
                "exporter": "second",
                "requests": 0,
                "items": 0,
                "bytes": 0,
                "oldest_s": None,
                "dead_letters": 0,
            },
        ],
    )
    assert "second: nothing waits; 0 dead letters" in ask("ls", FOLDER, tmp_path)[1]


def test_peek_prints_requests_as_otlp_json(tmp_path):
    """What waits is shown oldest first, without taking it away."""
    asyncio.run(waiting(tmp_path))
    for _ in range(2):
        code, output = ask("peek", "first", FOLDER, tmp_path, "--limit", 1)
        request = json.loads(output)
        records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
        assert (code, [each["body"]["stringValue"] for each in records]) == (0, ["b"])
    code, output = ask("peek", "first", "--dead-letters", FOLDER, tmp_path)
    letter = json.loads(output)
    assert (code, letter["reason"], "poison" in output) == (0, "bad value", True)


def test_looking_works_beside_a_collector_and_changing_does_not(tmp_path):
    """`ls` and `peek` read; `replay` and `drop` name the process that has the folder."""

    async def beside():
        async with FileStorage(config(tmp_path), host()) as wal:
            reader = await wal.reader("first", ["logs"])
            await wal.append(logs("a"), "logs", 1)
            await DeadLetters(tmp_path, "first", 1 << 20, Files()).add(logs("x"), "no")
            found = [
                await asyncio.to_thread(ask, *words, FOLDER, tmp_path)
                for words in (["ls"], ["peek", "first"], ["drop", "first", "--yes"])
            ]
            assert await drain(reader, wal) == ["a"]
            return found

    looked, peeked, dropped = asyncio.run(beside())
    assert (looked[0], peeked[0]) == (0, 0)
    assert dropped[0] == 1


def test_replay_gives_dead_letters_to_their_exporter_alone(tmp_path):
    """Replayed letters are delivered again, also a second time, and to nobody else."""
    asyncio.run(waiting(tmp_path))

    async def fetch():
        async with FileStorage(config(tmp_path), host()) as wal:
            readers = [await wal.reader(name, ["logs"]) for name in ("first", "second")]
            assert readers[1].lag_items == 3  # of the pipeline that it is in now, nothing else
            records = await readers[0].read()
            readers[0].done([record.number for record in records])
            return [each for record in records for each in ids_of(record)]

    assert ask("replay", "first", FOLDER, tmp_path) == (
        0,
        "1 dead letters are in the queue again\n",
    )
    assert not dead_letters_path(tmp_path, "first").exists()
    assert asyncio.run(fetch()) == ["b", "c", "poison"]
    asyncio.run(DeadLetters(tmp_path, "first", 1 << 20, Files()).add(logs("poison"), "bad value"))
    assert ask("replay", "first", FOLDER, tmp_path)[0] == 0
    assert asyncio.run(fetch()) == ["poison"]


def test_drop_forgets_an_exporter_and_frees_the_log(tmp_path):
    """A removed exporter keeps nothing on disk any more."""
    asyncio.run(waiting(tmp_path))
    assert ask("drop", "second", FOLDER, tmp_path, "--yes") == (0, '"second" is forgotten\n')
    _, output = ask("ls", FOLDER, tmp_path, "--json")
    assert [json.loads(line)["exporter"] for line in output.splitlines()] == ["first"]
    assert ask("drop", "second", FOLDER, tmp_path, "--yes") == (
        1,
        'Error: no exporter "second" has a cursor here; there are: first\n',
    )


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_drop_asks_first(tmp_path, answer):
    """Without a yes nothing is dropped."""
    asyncio.run(waiting(tmp_path))
    done = CliRunner().invoke(queue, ["drop", "first", FOLDER, str(tmp_path)], input=answer)
    assert done.exit_code == 1
    assert '"exporter":"first"' in ask("ls", FOLDER, tmp_path, "--json")[1]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    """The error names the folder."""
    code, output = ask("ls", FOLDER, tmp_path / "none")
    assert code == 1
    assert output == f"Error: there is no queue folder {tmp_path}/none: nothing was stored there\n"
