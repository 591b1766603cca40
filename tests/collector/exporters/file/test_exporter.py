"""The file exporter on real files."""

import asyncio
import fcntl
import json
import logging
import os
import resource
import subprocess
import sys

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.documents.build import documents, dumps
from collector.errors import Retryable, StartFailed
from collector.exporters.file.exporter import File
from collector.model import Batch, Duration, Host, Request, Signal
from collector.stats import Stats

pytestmark = pytest.mark.anyio

BEGIN = 1_700_000_000_000_000_000


def spans(*names):
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add().scope_spans.add()
    for number, name in enumerate(names, 1):
        group.spans.add(
            trace_id=bytes(15) + b"\1",
            span_id=number.to_bytes(8, "big"),
            name=name,
            start_time_unix_nano=BEGIN,
            end_time_unix_nano=BEGIN + 1_000_000,
        )
    return Batch(Signal.TRACES, message, Request(BEGIN, b"k" * 16))


def records(*bodies):
    message = ExportLogsServiceRequest()
    group = message.resource_logs.add().scope_logs.add()
    for body in bodies:
        group.log_records.add(time_unix_nano=BEGIN).body.string_value = body
    return Batch(Signal.LOGS, message, Request(BEGIN, b"k" * 16))


def host(stats=None):
    return Host("file", stats or Stats(), logging.getLogger("collector.component.file"))


def exporter(path, stats=None, **settings):
    return File(File.Config(path=str(path), **settings), host(stats))


def bodies(path):
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


async def test_json_writes_one_document_per_line(tmp_path):
    """`format: json` holds what a store would hold, one item per line, in order."""
    path = tmp_path / "out.jsonl"
    sent = [spans("a", "b"), records("line\nbreak", "\u2028 snow")]
    async with exporter(path) as file:
        for batch in sent:
            await file(batch)
    expected = [dumps(document) for batch in sent for document in documents(batch)]
    expected[3] = expected[3].replace("\u2028".encode(), b"\\u2028")  # the same JSON, visible
    assert path.read_bytes().splitlines() == expected
    assert len(expected) == 4


async def test_otlp_json_writes_one_request_per_line(tmp_path):
    """`format: otlp_json` is OTLP/JSON: hex ids, integer enums, 64-bit integers as text."""
    path = tmp_path / "out.jsonl"
    async with exporter(path, format="otlp_json") as file:
        await file(spans("a"))
        await file(records("hello"))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    span = first["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (span["name"], span["traceId"], span["startTimeUnixNano"]) == (
        "a",
        "00000000000000000000000000000001",
        str(BEGIN),
    )
    record = second["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert record["body"] == {"stringValue": "hello"}


async def test_starting_appends(tmp_path):
    """What an earlier run wrote stays: the file is never truncated."""
    path = tmp_path / "out.jsonl"
    for body in ("one", "two"):
        async with exporter(path) as file:
            await file(records(body))
    assert bodies(path) == ["one", "two"]
    assert path.stat().st_mode & 0o777 == 0o640


async def test_lines_are_there_when_the_call_returns(tmp_path):
    """An answer means stored: another process sees the line before the exporter is closed."""
    path = tmp_path / "out.jsonl"
    async with exporter(path) as file:
        await file(records("one"))
        cat = await asyncio.create_subprocess_exec("cat", path, stdout=subprocess.PIPE)
        seen, _ = await cat.communicate()
    assert json.loads(seen)["message"] == "one"


@pytest.mark.parametrize("fsync", ["batch", "interval", "never"])
async def test_concurrent_batches_never_mix(tmp_path, fsync):
    """Batches written at the same time stand one behind the other, whole."""
    path = tmp_path / "out.jsonl"
    async with exporter(path, fsync=fsync, flush_interval=Duration(0.01)) as file:
        sent = [[f"{number}.{item}" for item in range(20)] for number in range(30)]
        await asyncio.gather(*(file(records(*batch)) for batch in sent))
    found = bodies(path)
    groups = [found[start : start + 20] for start in range(0, len(found), 20)]
    assert sorted(groups) == sorted(sent)


async def test_cancelled_caller_leaves_whole_lines(tmp_path):
    """A sender that goes away in the middle of a write tears nothing."""
    path = tmp_path / "out.jsonl"
    async with exporter(path) as file:
        calls = [asyncio.create_task(file(records(*["x" * 1000] * 200))) for _ in range(10)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await file(records("last"))
    found = bodies(path)
    assert found[-1] == "last"
    assert (len(found) - 1) % 200 == 0


@pytest.mark.parametrize("torn", ['{"message": "ha', "x" * 200_000, "\0\0\0"])
async def test_torn_last_line_is_moved_aside(tmp_path, torn):
    """What a crash left behind the last newline is kept in `.torn` and counted."""
    path = tmp_path / "out.jsonl"
    path.write_text('{"message": "whole"}\n' + torn)
    stats = Stats()
    async with exporter(path, stats) as file:
        await file(records("next"))
    assert bodies(path) == ["whole", "next"]
    assert (tmp_path / "out.jsonl.torn").read_text() == torn + "\n"
    assert stats.snapshot() == {'otelier_file_torn_bytes{exporter="file"}': len(torn)}


async def test_failed_write_is_retryable_and_leaves_nothing(tmp_path):
    """A write that the system cuts short is cut back; the resend stands in the file once."""
    path = tmp_path / "out.jsonl"
    filler = json.dumps({"message": "x" * 1000}) + "\n"
    path.write_text(filler * 4000)
    size = path.stat().st_size
    batch = records("one " * 100, "two " * 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with exporter(path) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        try:
            with pytest.raises(Retryable, match="File too large"):
                await file(batch)
            left = path.stat().st_size
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert left == size
        await file(batch)
    assert bodies(path)[4000:] == ["one " * 100, "two " * 100]
    assert not (tmp_path / "out.jsonl.torn").exists()


async def test_moved_file_is_opened_again(tmp_path):
    """After logrotate moved the file, or somebody deleted it, the next batch makes a new one."""
    path = tmp_path / "out.jsonl"
    async with exporter(path) as file:
        await file(records("one"))
        path.rename(tmp_path / "out.1")
        await file(records("two"))
        path.unlink()
        await file(records("three"))
    assert bodies(tmp_path / "out.1") == ["one"]
    assert bodies(path) == ["three"]


async def test_missing_folder_is_made_on_request(tmp_path):
    """`create_directory` makes every missing folder with the given mode."""
    path = tmp_path / "a" / "b" / "out.jsonl"
    async with exporter(path, create_directory=True, directory_permissions="0700") as file:
        await file(records("one"))
    assert bodies(path) == ["one"]
    assert [part.stat().st_mode & 0o777 for part in path.parents[:2]] == [0o700, 0o700]


def a_missing_folder(tmp_path):
    return tmp_path / "no" / "out", "the folder does not exist; create it, or set create_directory"


def a_folder(tmp_path):
    return tmp_path, "this is a folder; add a file name to path"


def a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "out", "a part of the path is a file, not a folder; change path"


def a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "link", "this is a symbolic link, which is not followed; write the real path"


def a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe", "this is no regular file; change path"


@pytest.mark.parametrize(
    "place",
    [a_missing_folder, a_folder, a_file_in_the_way, a_link, a_pipe],
    ids=lambda f: f.__name__,
)
async def test_start_names_path_reason_and_fix(tmp_path, place):
    """A file that cannot be opened is one line with path, reason and fix, before any data comes."""
    path, fix = place(tmp_path)
    with pytest.raises(StartFailed) as caught:
        await exporter(path).__aenter__()
    assert str(caught.value).startswith(f"cannot open {path}: {fix}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_unwritable_folder_is_refused_at_start(tmp_path):
    """A folder without the right to write is one line with path, reason and fix."""
    tmp_path.chmod(0o500)
    with pytest.raises(StartFailed, match="permission denied; give this user the right to write"):
        await exporter(tmp_path / "out").__aenter__()


async def test_second_owner_is_refused(tmp_path):
    """Two exporters on one file would cut into each other's lines: the second does not start."""
    path = tmp_path / "out.jsonl"
    async with exporter(path):
        with pytest.raises(StartFailed, match="another collector or exporter has it open"):
            await exporter(path).__aenter__()
    async with exporter(path) as file:
        await file(records("free again"))
    assert bodies(path) == ["free again"]


async def test_foreign_lock_while_running_is_retryable(tmp_path):
    """When the path is taken over by another process, batches wait with their senders."""
    path = tmp_path / "out.jsonl"
    async with exporter(path) as file:
        await file(records("one"))
        path.rename(tmp_path / "old")
        with path.open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(Retryable, match="cannot write to"):
                await file(records("two"))
        await file(records("two"))
    assert bodies(path) == ["two"]


async def test_empty_batch_writes_nothing(tmp_path):
    """A request without items is no line."""
    path = tmp_path / "out.jsonl"
    async with exporter(path) as file:
        await file(records())
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"path": ""}, "path must be non-empty"),
        ({"path": "x", "append": False}, "'append: false' would delete acknowledged data"),
        ({"path": "x", "directory_permissions": "rwx"}, "is not an octal mode"),
        ({"path": "x", "flush_interval": Duration(0)}, "flush_interval must be larger than zero"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, text):
    """A setting that would lose data or mean nothing is an error with its fix."""
    with pytest.raises(ValueError, match=text):
        File.Config(**settings)


def test_weaker_durability_is_named():
    """The start banner says what an answer means."""
    assert [exporter("x", fsync=word).durability for word in ("batch", "interval", "never")] == [
        "answered after fsync",
        "fsync every 1s: a power cut loses what was answered since the last one",
        "no fsync: a power cut loses what was answered",
    ]


WRITER = """
import asyncio, logging, sys
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from collector.exporters.file.exporter import File
from collector.model import Batch, Host, Request, Signal
from collector.stats import Stats

async def main():
    host = Host("file", Stats(), logging.getLogger("x"))
    async with File(File.Config(path=sys.argv[1]), host) as file:
        for number in range(1_000_000):
            message = ExportLogsServiceRequest()
            group = message.resource_logs.add().scope_logs.add()
            group.log_records.add(time_unix_nano=1).body.string_value = str(number)
            await file(Batch(Signal.LOGS, message, Request(1, b"k" * 16)))
            print(number, flush=True)

asyncio.run(main())
"""


def test_kill_9_loses_nothing_answered(tmp_path):
    """R1 on the writer: after kill -9 every answered line is there, once and whole."""
    path = tmp_path / "out.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as process:
        for _ in range(200):
            process.stdout.readline()
        process.kill()
        answered = 200 + len(process.stdout.read().splitlines())

    async def repair():
        async with exporter(path):
            pass

    asyncio.run(repair())
    found = [int(body) for body in bodies(path)]
    assert found == list(range(len(found)))
    assert len(found) >= answered >= 200
