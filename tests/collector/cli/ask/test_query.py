"""`collector query`: LogQL from files of every kind, from a store and from a collector, alike."""

import asyncio
import contextlib
import gzip
import json
import logging
import random
import shutil

import pytest
import zstandard

from collector import cli
from collector.cli.ask import log_files
from collector.cli.ask.log_files import LogFiles
from collector.documents.build import dumps
from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.query.logql import parse_log
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.logql import GRAFANA, log_documents

ALL = '{service_name=~".+"}'
FAILED = '{service_name="worker"} |= "failed" | pattern "<_>: <why>"'
FIRST = (
    "2026-11-30 12:01:30.230 - ERROR - worker - settle failed task=task-003: bank did not answer "
    "[why=bank did not answer, trace_id=659ce23066fd5d39e5f986a55133911f]"
)
COUNTS = "79  {service_name=checkout}\n39  {service_name=scoring}\n59  {service_name=worker}\n"
COUNT = f"sum by (service_name) (count_over_time({ALL}[30m]))"
TIMES = ["--since", "2026-11-30T12:00", "--until", "2026-11-30T12:20"]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No collector, no configuration: only what a test names."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLLECTOR_QUERY_ENDPOINT", "COLLECTOR_STORE", "COLLECTOR_QUERY_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def shuffled():
    """The documents of the data set, in no order."""
    documents = list(log_documents())
    random.Random(3).shuffle(documents)
    return documents


def run(capsys, *arguments):
    """Exit code, sorted lines of stdout, and stderr."""
    code = cli.main(["query", *arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


def files(folder):
    """The data set as the file exporter leaves it: today's file and what was put aside of it."""
    documents = [dumps(document) + b"\n" for document in shuffled()]
    (folder / "logs.jsonl").write_bytes(b"".join(documents[:50]))
    aside = gzip.compress(b"".join(documents[50:100]))
    (folder / "logs-2026-11-30.jsonl.gz").write_bytes(aside)
    packed = zstandard.ZstdCompressor().compress(b"".join(documents[100:]))
    (folder / "logs-2026-11-29T10-00-00.000.2.jsonl.zst").write_bytes(packed)
    (folder / "logs-old.jsonl").write_bytes(b"not one of them\n")
    return folder / "logs.jsonl"


@contextlib.contextmanager
def stored(tmp_path):
    """The options that read a store with the data set."""

    async def fill():
        host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
        async with SQLite(SQLite.Config(path="t.db"), host) as store:
            await store.write(Signal.LOGS, log_documents())

    asyncio.run(fill())
    yield ["--store", "sqlite:///t.db"]


def test_files_of_every_kind_give_the_same(tmp_path, capsys):
    """OTLP/JSON, our lines, packed and put aside, a folder: the same lines in order of time (A9)."""
    folder = tmp_path / "otlp"
    folder.mkdir()
    for name in ("logs.json", "traces.json"):
        shutil.copy(GRAFANA / name, folder / name)
    packed = tmp_path / "one.json.gz"
    packed.write_bytes(gzip.compress((GRAFANA / "logs.json").read_bytes()))
    pretty = tmp_path / "pretty.json"
    pretty.write_text(json.dumps(json.loads((GRAFANA / "logs.json").read_text()), indent=2))
    for path in (files(tmp_path), folder, packed, pretty):
        code, out, err = run(capsys, FAILED, str(path))
        lines = out.splitlines()
        assert (code, err, len(lines), lines[0]) == (0, "", 8, FIRST)
        assert lines == sorted(lines)


def test_a_store_and_a_collector_give_the_same_as_files(tmp_path, capsys):
    """The query of files, of a store and of the running collector: equal output (D4, A9)."""
    path = files(tmp_path)
    from_files = [run(capsys, query, str(path), *TIMES) for query in (FAILED, COUNT)]
    with stored(tmp_path) as options:
        assert [run(capsys, query, *TIMES, *options) for query in (FAILED, COUNT)] == from_files

    async def serve():
        host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
        async with SQLite(SQLite.Config(path="t.db"), host) as store:
            own = Host("query", Stats(), host.log, stores={"sqlite": store})
            config = QueryServer.Config(endpoint="localhost:0")
            async with QueryServer(config, own) as server:
                options = ["--endpoint", server.endpoints["http"]]
                answers = [
                    await asyncio.to_thread(run, capsys, query, *TIMES, *options)
                    for query in (FAILED, COUNT)
                ]
                refused = await asyncio.to_thread(
                    run, capsys, f"count_over_time({ALL} | json [30m])", *TIMES, *options
                )
        return answers, refused

    answers, (code, out, err) = asyncio.run(serve())
    assert answers == from_files
    assert sorted(from_files[1][1].splitlines()) == sorted(COUNTS.splitlines())
    assert (code, out) == (1, "")
    assert "pipeline error: 'JSONParserErr'" in err


def test_order_limit_and_json(tmp_path, capsys):
    """The newest in order of time, newest first, the oldest; `--json` is the answer of the API."""
    path = str(files(tmp_path))
    newest = run(capsys, ALL, path, "--limit", "3")[1].splitlines()
    assert [line[11:23] for line in newest] == ["12:19:30.006", "12:19:30.040", "12:19:30.230"]
    assert run(capsys, ALL, path, "--limit", "3", "--newest-first")[1].splitlines() == newest[::-1]
    oldest = run(capsys, ALL, path, "--limit", "2", "--oldest-first")[1].splitlines()
    assert [line[11:23] for line in oldest] == ["12:00:00.001", "12:00:00.005"]
    answer = json.loads(run(capsys, ALL, path, "--limit", "1", "--json")[1])
    assert answer["data"]["resultType"] == "streams"
    assert len(answer["data"]["result"][0]["values"]) == 1


def test_numbers_over_time_and_at_the_end(tmp_path, capsys):
    """Without a time: all of the files, at the last record or from the first, and a plain number."""
    path = str(files(tmp_path))
    code, out, err = run(capsys, f"sum(count_over_time({ALL}[10m]))", path, "--step", "10m")
    assert (code, err) == (0, "")
    assert out == "{}\n  2026-11-30 12:10:00.000  90\n  2026-11-30 12:20:00.000  87\n"
    assert run(capsys, "1 + 1", path)[1] == "2\n"
    assert run(capsys, f"sum(count_over_time({ALL}[1s])) > 100", path) == (0, "", "No series.\n")
    assert run(capsys, '{service_name="none"}', path) == (0, "", "No line matches.\n")


def test_what_is_no_record_is_skipped_and_counted(tmp_path, capsys):
    """Broken lines, other signals, a torn archive: the rest is read, stderr says what was not."""
    good = dumps(log_documents()[0]) + b"\n"
    odd = b'{"a": 1}\nno json\n[1]\n\n' + b'{"_id": 5, "time_unix_nano": "x"}\n'
    (tmp_path / "logs.jsonl").write_bytes(odd + good)
    code, out, err = run(capsys, ALL, "logs.jsonl")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err == "4 lines are no log records and were skipped.\n"
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(good * 1000)[:-20])
    code, out, err = run(capsys, ALL, "torn.jsonl.gz", "--limit", "1")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err.startswith("torn.jsonl.gz could not be read to its end: ")


def test_many_records_are_sorted_outside_of_memory(tmp_path, monkeypatch):
    """Parts of a few KB in temporary files merge to the same order, both ways (A9)."""
    monkeypatch.setattr(log_files, "PART_BYTES", 20_000)
    path = files(tmp_path)
    expected = sorted((document["time_unix_nano"], document["_id"]) for document in log_documents())
    for newest_first in (False, True):
        found = LogFiles([path]).documents(parse_log(ALL), 0, 2**63, newest_first=newest_first)
        order = [(document["time_unix_nano"], document["_id"]) for document in found]
        assert order == (expected[::-1] if newest_first else expected)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["{a"], "parse error at line 1, col 3: expected `=`"),
        ([ALL, "none.jsonl"], "none.jsonl: no such file, and none that was put aside of it"),
        ([ALL, "--since", "x"], "write an age such as 15m"),
        (["vector(1)", "--step", "0"], "step: must be longer than 0"),
        ([ALL, "--limit", "0"], "0 is not in the range"),
    ],
)
def test_a_wrong_word_is_a_usage_error(capsys, arguments, error):
    """Exit code 2, and the sentence with line and column or the option's name."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert error in " ".join(err.replace("│", " ").split())
