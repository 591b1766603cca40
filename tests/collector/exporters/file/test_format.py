"""What stands in a file: text, logfmt, OTLP frames."""

import datetime as dt
import re

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.errors import StartFailed
from collector.exporters.file.config import Match, Route
from collector.stats import Stats
from tests.collector.exporters.batches import BEGIN, exporter, log, logs, points, spans

pytestmark = pytest.mark.anyio

LOCAL = dt.datetime.fromtimestamp(BEGIN / 1e9, dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
STACK = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no\n'
FAILED = {
    "exception__type": "ValueError",
    "exception__message": "no",
    "exception__stacktrace": STACK,
}


async def written(tmp_path, style, *batches):
    path = tmp_path / "out"
    async with exporter(path=str(path), format=style) as file:
        for batch in batches:
            await file(batch)
    return path.read_text()


async def test_text_is_the_line_of_the_risk_worker(tmp_path):
    """R6: time, level, message and key=value details in brackets, ids by the names people type."""
    batch = logs(
        log(
            "Risk analysis completed",
            service="risk",
            risk_score=4440,
            ml_latency_ms=187.5,
            passport_status="ready to claim",
            cached=True,
            celery__task__id="uuid123",
            log__record__uid="0f0f",
        ),
        log("nothing more", level="WARNING"),
    )
    assert await written(tmp_path, "text", batch) == (
        f"{LOCAL} - INFO - Risk analysis completed [risk_score=4440, ml_latency_ms=187.5, "
        "passport_status=ready to claim, cached=True, task_id=uuid123, service=risk]\n"
        f"{LOCAL} - WARNING - nothing more [service=app]\n"
    )


async def test_text_shows_a_stack_below_its_line(tmp_path):
    """The stack of an exception is indented, so that none of its lines can pass for a record."""
    batch = logs(
        log("failed", level="ERROR", order__id="o-1", event="order.failed", **FAILED),
        log("short", level="ERROR", exception__type="KeyError", exception__message="'x'"),
    )
    assert await written(tmp_path, "text", batch) == (
        f"{LOCAL} - ERROR - failed [order_id=o-1, event=order.failed, service=app]\n"
        "    Traceback (most recent call last):\n"
        '      File "a.py", line 1\n'
        "    ValueError: no\n"
        f"{LOCAL} - ERROR - short [service=app]\n"
        "    KeyError: 'x'\n"
    )


async def test_text_has_spans_and_points_too(tmp_path):
    """Spans and metric points are lines with a word in the place of the level."""
    found = await written(
        tmp_path, "text", spans("GET /", http__route="/"), points("load", 0.5, 1.5)
    )
    trace_id = "0" * 31 + "1"
    assert found == (
        f"{LOCAL} - SPAN - GET / [http.route=/, kind=INTERNAL, duration_ms=1.5, status=UNSET, "
        f"service=app, trace_id={trace_id}]\n"
        f"{LOCAL} - METRIC - load [value=0.5, unit=s, service=app]\n"
        f"{LOCAL} - METRIC - load [value=1.5, unit=s, service=app]\n"
    )


async def test_logfmt_is_pairs_in_one_line(tmp_path):
    """Logfmt quotes what has blanks, quotes or backslashes; a stack stays in its line."""
    batch = logs(
        log("it is", path="C:\\x", said='"no"', rate=0.5, ok=True, tags=["a", "b"], correlation__id="c-1"),
        log("failed", level="ERROR", service="a b", **FAILED),
    )  # fmt: skip
    at = "2023-11-14T22:13:20.000+00:00"
    assert await written(tmp_path, "logfmt", batch) == (
        f'ts={at} level=info service=app logger=app msg="it is" path="C:\\\\x" said="\\"no\\"" '
        'rate=0.5 ok=true tags="[\\"a\\",\\"b\\"]" correlation_id=c-1\n'
        f'ts={at} level=error service="a b" logger=app msg=failed exception="ValueError: no" '
        'stacktrace="Traceback (most recent call last):\\n  File \\"a.py\\", line 1\\n'
        'ValueError: no\\n"\n'
    )


EVIL = "a\r\n2025-01-01 00:00:00 - INFO - forged\x1b[2J\x1b]0;t\x07\u202e\u2028\x85\0b"


@pytest.mark.parametrize("style", ["text", "logfmt"])
async def test_data_makes_no_line_and_no_escape_code(tmp_path, style):
    """B60: CR, LF, ANSI, OSC, bidi and NUL are spelled out, wherever in a record they stand."""
    batch = logs(
        log(EVIL, service=EVIL, logger=EVIL, event=EVIL, **{"key": EVIL, EVIL: 1, "more": [EVIL]}),
        log("last", correlation__id=EVIL),
    )
    found = await written(tmp_path, style, batch)
    assert found.count("\n") == 2
    assert re.findall("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", found) == []
    assert not any(line.startswith("2025-01-01") for line in found.splitlines())
    assert "\\x1b[2J" in found


async def test_a_stack_forges_no_record(tmp_path):
    """A line break in an exception's text makes an indented line, never one that looks like a record."""
    stack = f"Traceback\n{EVIL}\n2025-01-01 00:00:00 - INFO - forged"
    found = await written(
        tmp_path,
        "text",
        logs(log("failed", exception__type="E", exception__stacktrace=stack), "next"),
    )
    heads = [line for line in found.splitlines() if not line.startswith("    ")]
    assert heads == [
        f"{LOCAL} - INFO - failed [service=app]",
        f"{LOCAL} - INFO - next [service=app]",
    ]
    assert "\x1b" not in found


def frames(data):
    """The requests in a file of frames."""
    while data:
        length = int.from_bytes(data[:4])
        yield ExportLogsServiceRequest.FromString(data[4 : 4 + length])
        data = data[4 + length :]


@pytest.mark.parametrize("word", ["otlp_proto", "proto"])
async def test_otlp_proto_is_frames_of_requests(tmp_path, word):
    """Each request stands behind four bytes of length, as the OpenTelemetry Collector writes them."""
    path = tmp_path / "out.bin"
    sent = [logs("one", "two"), logs(log("\n\0", number=7))]
    async with exporter(path=str(path), format=word) as file:
        for batch in sent:
            await file(batch)
    assert list(frames(path.read_bytes())) == [batch.message for batch in sent]


async def test_a_route_in_otlp_proto_holds_its_records(tmp_path):
    """A part of a batch is a request of its own that loses nothing of its records."""
    one, two = log("one", service="a", number=7), log("two", service="b")
    routes = [Route(path=str(tmp_path / "a"), match=[Match(service=["a"])], format="otlp_proto")]
    async with exporter(path="", routes=routes) as file:
        await file(logs(one, two))
    assert list(frames((tmp_path / "a").read_bytes())) == [logs(one).message]


@pytest.mark.parametrize("torn", [b"\0", b"\0\0\1", b"\0\0\0\x09short", b"\0" * 5000])
async def test_a_torn_frame_is_moved_aside(tmp_path, torn):
    """What a crash left behind the last whole frame is kept in `.torn` and counted."""
    path = tmp_path / "out.bin"
    sent = [logs("one"), logs("two")]
    stats = Stats()
    for batch in sent:
        async with exporter(stats, path=str(path), format="otlp_proto") as file:
            await file(batch)
        with path.open("ab") as raw:
            raw.write(torn)
    async with exporter(stats, path=str(path), format="otlp_proto"):
        pass
    assert list(frames(path.read_bytes())) == [batch.message for batch in sent]
    assert (tmp_path / "out.bin.torn").read_bytes() == torn * 2
    assert stats.snapshot() == {'otelier_file_torn_bytes{exporter="file"}': 2 * len(torn)}


async def test_a_file_of_another_kind_is_not_cut(tmp_path):
    """A file that does not begin with a frame is refused at start and stays as it is."""
    path = tmp_path / "out.bin"
    path.write_text("these are lines\n")
    with pytest.raises(StartFailed, match="this is another kind of file: change path"):
        await exporter(path=str(path), format="otlp_proto").__aenter__()
    assert path.read_text() == "these are lines\n"


@pytest.mark.parametrize("style", ["json", "text", "logfmt", "otlp_json", "otlp_proto"])
async def test_an_empty_batch_is_nothing(tmp_path, style):
    """A request without items adds nothing in any format."""
    assert await written(tmp_path, style, logs()) == ""
