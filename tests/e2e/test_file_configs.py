"""The log folders of the examples: real telemetry, the shipped configurations, which file got what."""

import collections
import contextlib
import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collector import cli
from collector.config import load
from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
# The example of an exporter is a distribution of its own, with its own test.
CONFIGS = sorted(
    path for path in EXAMPLES.glob("*/collector.yaml") if path.parent.name != "custom_exporter"
)
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ([A-Z]+) - (.*) \[(.*)\]")
GIVE_UP_S = 90
ROLES = (
    "dispatcher",
    "worker_open",
    "worker_close",
    "worker_pending",
    "worker_cancel",
    "worker_reject",
    "worker_stoploss",
    "worker_takeprofit",
    "orders_calculated",
)
AUDITS = (
    "order.dispatched",
    "order.opened",
    "order.closed",
    "order.pending",
    "order.cancelled",
    "order.rejected",
    "order.stopped",
    "order.profit_taken",
    "order.calculated",
)


@contextlib.contextmanager
def collecting(folder, name):
    """The shipped configuration of an example, running in a folder; ends with all that it took."""
    zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}  # days are local time
    with Collector(folder, config=EXAMPLES / name / "collector.yaml", **zone) as collector:
        collector.wait_for(READY)
        yield "http://" + collector.address("receivers::otlp", "http")
        assert collector.stop() == 0


def start(folder, endpoint, service, program, *arguments):
    """A program that is observed."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_SERVICE_NAME": service,
            "LOG_FORMAT": "none",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    for process in processes:
        out, _ = process.communicate(timeout=GIVE_UP_S)
        assert process.returncode == 0, out


def wait_for_lines(path, number):
    """Wait until a file has so many lines that are no part of a stack."""
    give_up = time.monotonic() + GIVE_UP_S
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        found = [line for line in lines if not line.startswith("    ")]
        if len(found) >= number:
            return
        assert time.monotonic() < give_up, found
        time.sleep(0.05)


def read(path):
    """(level, message, details) of each record of a text file, and the lines of stacks."""
    records, stacks = [], []
    for line in path.read_text().splitlines():
        if line.startswith("    "):
            stacks.append(line.strip())
        else:
            level, message, pairs = TEXT_LINE.fullmatch(line).groups()
            records.append((level, message, dict(p.partition("=")[::2] for p in pairs.split(", "))))
    return records, stacks


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.parent.name)
def test_each_shipped_configuration_is_valid(config):
    """`collector validate` passes."""
    assert cli.main(["validate", "--config", str(config)]) == 0


def test_the_folders_of_the_seeds_are_shipped():
    """The fleet, the batch and the Celery worker have a configuration each."""
    assert [path.parent.name for path in CONFIGS] == ["celery_worker", "lead_batch", "order_fleet"]


FLEET = """
import logging, sys
import telemetry
from telemetry.workers import Worker

telemetry.configure()
if sys.argv[1:] == ["library"]:
    logging.getLogger("redis.pool").warning("connection is slow")
    logging.getLogger("redis.pool").error("connection is lost")
else:
    telemetry.get_logger("main").warning("fleet begins")
for role in sys.argv[2:]:
    worker = Worker(role, group="provider")
    with worker.order(order_id=f"{sys.argv[1]}-good", user_id="u-1", symbol="EURUSD") as order:
        if role == "worker_close":
            order.retry("finalize")
    try:
        with worker.order(order_id=f"{sys.argv[1]}-bad", symbol="NOSUCH"):
            raise LookupError("no such instrument")
    except LookupError:
        pass
"""


def test_the_ten_files_of_the_order_fleet(tmp_path):
    """O1: a file per role with all of it, one for the errors of all, with two processes per role."""
    folder = tmp_path / "logs" / "provider"
    with collecting(tmp_path, "order_fleet") as endpoint:
        finish(
            start(tmp_path, endpoint, "fleet-a", FLEET, "a", *ROLES),
            start(tmp_path, endpoint, "fleet-b", FLEET, "b", *ROLES),
            start(tmp_path, endpoint, "worker_open", FLEET, "library"),
        )
        for role in ROLES:
            wait_for_lines(
                folder / f"{role}.log", 8 + 2 * (role in {"worker_open", "worker_close"})
            )
        wait_for_lines(folder / "provider_errors.log", 19)
        wait_for_lines(tmp_path / "logs" / "unrouted.log", 2)
    assert sorted(path.stem for path in folder.iterdir()) == sorted([*ROLES, "provider_errors"])
    failed = ("ERROR", "order failed: LookupError: no such instrument")
    for role, audit in zip(ROLES, AUDITS, strict=True):
        records, stacks = read(folder / f"{role}.log")
        for process in ("a", "b"):
            mine = [
                (level, message, details.get("order_id"))
                for level, message, details in records
                if details["service"] == f"fleet-{process}"
            ]
            retried = [("WARNING", "retry: finalize", f"{process}-good")]
            assert [(level, told(message), order) for level, message, order in mine] == [
                *(retried if role == "worker_close" else []),
                ("INFO", audit, f"{process}-good"),
                (*failed, f"{process}-bad"),
                ("INFO", "order.failed", f"{process}-bad"),
                ("INFO", f"{role}: processed 2, failed 1", None),
            ]
        roles = collections.Counter(details.get("order.worker.role") for _, _, details in records)
        own = {role: 10 if role == "worker_close" else 8}
        assert roles == ({**own, None: 2} if role == "worker_open" else own)
        assert stacks.count("LookupError: no such instrument") == 2
    library = [
        ("WARNING", "connection is slow", "worker_open"),
        ("ERROR", "connection is lost", "worker_open"),
    ]
    records, _ = read(folder / "worker_open.log")
    assert [
        (*r[:2], r[2]["service"]) for r in records if "order.worker.role" not in r[2]
    ] == library
    errors, stacks = read(folder / "provider_errors.log")
    assert collections.Counter(
        (level, message, details["service"], details.get("order.worker.role"))
        for level, message, details in errors
    ) == {
        (*library[1], None): 1,
        **{(*failed, f"fleet-{process}", role): 1 for process in ("a", "b") for role in ROLES},
    }
    assert stacks.count("LookupError: no such instrument") == 18
    records, _ = read(tmp_path / "logs" / "unrouted.log")
    assert sorted((*record[:2], record[2]["service"]) for record in records) == [
        ("WARNING", "fleet begins", "fleet-a"),
        ("WARNING", "fleet begins", "fleet-b"),
    ]


def told(message):
    """Statistics without their times."""
    return re.sub(r" in [0-9.]+ s, p50 .*", "", message)


def test_the_fleet_has_the_sizes_of_the_seed():
    """O1: each file has the size and the number of backups that the fleet's people had."""
    config = (
        load([str(EXAMPLES / "order_fleet" / "collector.yaml")], [], {}).exporters["file"].config
    )
    sizes = {
        Path(route.path).stem: (rotation.max_megabytes, rotation.max_backups)
        for route in config.routes
        if (rotation := route.rotation or config.rotation)
    }
    assert sizes == {
        "dispatcher": (100, 15),
        "worker_open": (75, 12),
        "worker_close": (75, 12),
        "worker_pending": (50, 10),
        "worker_cancel": (50, 10),
        "worker_reject": (50, 10),
        "worker_stoploss": (50, 10),
        "worker_takeprofit": (50, 10),
        "orders_calculated": (200, 20),
        "provider_errors": (100, 15),
    }


LEADS = """
import logging
import telemetry
from telemetry import get_logger, llm, track
from telemetry.batch import BackgroundProcessor

telemetry.configure()
logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
logging.getLogger("leads").setLevel(logging.DEBUG)
logger = get_logger("leads")

async def classify(lead, ctx):
    logger.debug("rule failed", reason="not on a list")
    logging.getLogger("httpx._client").info("request sent")
    with llm.call(provider="openai", model="gpt-4o-mini") as call:
        call.tokens(input=100, output=20)
    logger.info("lead classified", duration_ms=12.5)
    if lead == 2:
        raise ValueError("no such lead")

BackgroundProcessor("leads", classify, key=str, concurrency=1).run([1, 2, 3])
track("leads.classified", leads=3)
"""


def test_the_three_folders_of_the_batch(tmp_path):
    """L6: debug, production and progress, a file for each day, each record where the seed has it."""
    folder = tmp_path / "logs"
    before = today()
    with collecting(tmp_path, "lead_batch") as endpoint:
        finish(start(tmp_path, endpoint, "leads", LEADS))
        for name, number in {"classification": 7, "api-calls": 6, "performance": 4}.items():
            wait_for_lines(folder / "debug" / f"{name}-{before}.log", number)
        wait_for_lines(folder / "production" / f"operations-{before}.log", 10)
        wait_for_lines(folder / "progress" / "batch-status.json", 2)
    if today() != before:
        pytest.skip("midnight came by")
    progress = ("INFO", "leads: 0/3 (0.0 %), 0.0/s, eta unknown")
    finished = ("INFO", "leads: success in 0.0 s, success 2, failure 1")
    sent, classified = ("INFO", "request sent"), ("INFO", "lead classified")
    failure, tracked = ("ERROR", "item failure"), ("INFO", "leads.classified")
    started, call = ("INFO", "batch started"), ("SPAN", "chat gpt-4o-mini")
    day = today()
    files = {
        str(path.relative_to(folder)): collections.Counter(
            (level, re.sub(r"[0-9.]+ s,", "0.0 s,", message)) for level, message, _ in read(path)[0]
        )
        for path in folder.rglob("*.log")
    }
    assert files == {
        f"debug/classification-{day}.log": {
            started: 1,
            progress: 1,
            ("DEBUG", "rule failed"): 3,
            finished: 1,
            tracked: 1,
        },
        f"debug/api-calls-{day}.log": {sent: 3, call: 3},
        f"debug/performance-{day}.log": {classified: 3, failure: 1},
        f"production/operations-{day}.log": {
            started: 1,
            sent: 3,
            classified: 3,
            failure: 1,
            finished: 1,
            tracked: 1,
        },
        f"production/errors-{day}.log": {failure: 1},
        f"production/metrics-{day}.log": {progress: 1, finished: 1, tracked: 1},
        "progress/current-operation.log": {progress: 1, finished: 1},
    }
    _, stacks = read(folder / "production" / f"errors-{day}.log")
    assert stacks[-1] == "ValueError: no such lead"
    lines = (folder / "progress" / "batch-status.json").read_text().splitlines()
    states = [json.loads(line)["attributes"] for line in lines]
    assert [
        (each["batch.state"], each["batch.processed"], each["batch.total"]) for each in states
    ] == [
        ("running", 0, 3),
        ("finished", 3, 3),
    ]


def today():
    return dt.datetime.now().astimezone().date().isoformat()


def test_the_batch_keeps_its_days_compressed():
    """L6: daily rotation with compression, in local time; what is in progress/ has no day."""
    config = (
        load([str(EXAMPLES / "lead_batch" / "collector.yaml")], [], {}).exporters["file"].config
    )
    daily = {
        Path(route.path).stem: (route.rotation or config.rotation).daily for route in config.routes
    }
    assert daily == {
        "classification": True,
        "api-calls": True,
        "performance": True,
        "operations": True,
        "errors": True,
        "metrics": True,
        "current-operation": False,
        "batch-status": False,
    }
    assert (config.compression, config.rotation.localtime, config.rotation.max_days) == (
        "gzip",
        True,
        30,
    )


SERVICE = """
import sys
import telemetry
from telemetry import get_logger, log_context

telemetry.configure()
logger = get_logger("tasks.mail")
for number in range(3):
    with log_context(task_id=f"{sys.argv[1]}-{number}", tenant_id="tenant-1", operation="mail.send"):
        logger.info("sending", template="welcome")
"""


def test_each_celery_service_has_its_file(tmp_path):
    """C9: one JSON file per service, named after it; a name that would leave the folder cannot."""
    folder = tmp_path / "logs"
    services = {"worker": "worker.log", "../../evil": "other.log"}
    with collecting(tmp_path, "celery_worker") as endpoint:
        finish(*(start(tmp_path, endpoint, name, SERVICE, name) for name in services))
        for file in services.values():
            wait_for_lines(folder / file, 3)
    found = {}
    for path in folder.glob("*.log"):
        for document in map(json.loads, path.read_text().splitlines()):
            context = document["context"]
            found.setdefault(path.name, []).append(
                (
                    document["service"],
                    document["level"],
                    document["logger_name"],
                    document["message"],
                )
            )
            assert (context["tenant_id"], context["operation"]) == ("tenant-1", "mail.send")
            assert context["task_id"].startswith(f"{document['service']}-")
    assert found == {
        file: [(name, "INFO", "tasks.mail", "sending")] * 3 for name, file in services.items()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "logs"]
    assert not (tmp_path.parent / "evil.log").exists()
    config = (
        load([str(EXAMPLES / "celery_worker" / "collector.yaml")], [], {}).exporters["file"].config
    )
    assert (config.rotation.max_megabytes, config.rotation.max_backups) == (10, 5)
