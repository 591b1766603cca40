"""The exporter against a real HTTP server, and its configuration through `collector validate`."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from alert_webhook import AlertWebhook
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.errors import Denied, Permanent, Retryable
from collector.model import Batch, Host, Request, Signal
from collector.stats import Stats

HERE = Path(__file__).parent


def logs(*records: tuple[int, str]) -> Batch:
    """A batch of log records: severity number and message."""
    message = ExportLogsServiceRequest()
    found = message.resource_logs.add().scope_logs.add().log_records
    for severity, text in records:
        found.add(severity_number=severity, body={"string_value": text})
    return Batch(Signal.LOGS, message, Request(1, b"k" * 16), message.SerializeToString())


def deliver(batch: Batch, status: str = "204 No Content") -> tuple[list[object], dict[str, int]]:
    """What a server that answers with `status` gets from the exporter, and the counters."""
    got: list[object] = []
    stats = Stats()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        got.append(json.loads(await reader.readexactly(length)))
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nretry-after: 7\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        host = Host("alert", stats, logging.getLogger("alert"))
        async with server, AlertWebhook(AlertWebhook.Config(url=url), host) as exporter:
            await exporter(batch)

    asyncio.run(run())
    return got, stats.snapshot()


def test_failures_are_posted_and_counted() -> None:
    """Records of level error and above go out as JSON; the others do not."""
    got, counted = deliver(logs((9, "fine"), (17, "no margin"), (21, "out of memory")))
    expected = [
        {"service": "unknown_service", "level": level, "message": text}
        for level, text in (("ERROR", "no margin"), ("CRITICAL", "out of memory"))
    ]
    assert got == [{"failures": expected}]
    assert counted == {'alert_webhook_failures{exporter="alert"}': 2}


def test_a_batch_without_failures_is_no_request() -> None:
    """Nothing is sent for records below the level."""
    assert deliver(logs((9, "fine"))) == ([], {})


@pytest.mark.parametrize(
    ("status", "kind"),
    [("503 Busy", Retryable), ("400 Bad", Permanent), ("401 Who", Denied)],
)
def test_answers_become_errors_that_the_queue_understands(
    status: str, kind: type[Exception]
) -> None:
    """Try again later, never again, or put aside as a whole: the table of http/retry_after.py."""
    with pytest.raises(kind) as caught:
        deliver(logs((17, "x")), status)
    assert getattr(caught.value, "delay_s", 7.0) == 7.0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("", ""), ""),
        (("exporters: [sqlite]}", 'exporters: ["alert_webhook:AlertWebhook"]}'), "it takes logs"),
        (("${env:ALERT_URL:-http://", "${env:ALERT_URL:-ftp://"), "must begin with http://"),
    ],
    ids=["as it is", "in a traces pipeline", "a bad address"],
)
def test_the_configuration_is_validated(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    """`collector validate` takes the file of this folder, and says what is wrong with others."""
    path = tmp_path / "c.yaml"
    path.write_text((HERE / "collector.yaml").read_text().replace(*change))
    command = [sys.executable, "-m", "collector", "validate", "--config", str(path)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == int(bool(problem)), done.stderr
    assert problem in done.stderr
