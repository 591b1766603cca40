"""examples/celery_worker under the wrapper: a real worker, Redis and collector, and one question."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.e2e.test_run import READY, Collector
from tests.servers import die_with_parent

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "celery_worker"
BIN = Path(sys.executable).parent


def environment(endpoint, redis_url):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_", "CELERY_"))
    }
    return {
        **clean,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "REDIS_URL": redis_url,
        "C_FORCE_ROOT": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class Worker:
    """The example's worker; its lines are kept."""

    def __init__(self, env):
        command = [
            *(BIN / "opentelemetry-instrument", "--service_name", "worker"),
            *(BIN / "celery", "--workdir", EXAMPLE, "-A", "tasks", "worker"),
            *("--concurrency", "2", "--without-mingle", "--without-gossip"),
        ]
        self.process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(60)
        self.reader.join()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def ran(tmp_path_factory, redis_url):
    """What the example printed, the collector's answer, and everything that was stored."""
    folder = tmp_path_factory.mktemp("celery_worker")
    with Collector(folder) as collector:
        collector.wait_for(READY)
        env = environment("http://" + collector.address("receivers::otlp", "http"), redis_url)
        with Worker(env) as worker:
            sent = subprocess.run(
                [
                    *(BIN / "opentelemetry-instrument", "--service_name", "shop"),
                    *(sys.executable, EXAMPLE / "send.py"),
                ],
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
        assert sent.returncode == 0, sent.stderr + "".join(worker.lines)
        query = "http://" + collector.address("extensions::query", "http")
        asked = subprocess.run(
            [BIN / "collector", "trace", "signup-4711", "--json", "--endpoint", query],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        tasks = subprocess.run(
            [BIN / "collector", "tasks", "--json", "--endpoint", query],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert collector.stop() == 0
    lines = (folder / "data" / "telemetry.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in tasks.stdout.splitlines()]
    return sent.stdout, json.loads(asked.stdout), [json.loads(line) for line in lines], rows


def test_it_prints_how_each_task_ended(ran):
    """Three tasks succeed, one after two busy answers; one fails; the question comes last."""
    printed = [line.split()[:2] for line in ran[0].splitlines()]
    assert printed == [
        ["mail", "SUCCESS"],
        ["upload", "SUCCESS"],
        ["charge", "FAILURE"],
        ["clean", "SUCCESS"],
        ["collector", "trace"],
    ]


def test_each_task_has_a_line_with_what_became_of_it(ran):
    """`collector tasks` knows state, retries, duration, wait, queue and worker of each task (C1)."""
    found = sorted((row["name"], row["state"], row["retries"], row["attempts"]) for row in ran[3])
    assert found == [
        ("charge_card", "FAILURE", 0, 1),
        ("cleanup_expired_tokens", "SUCCESS", 0, 1),
        ("index_artifact", "SUCCESS", 0, 1),
        ("process_artifact_data", "SUCCESS", 0, 1),
        ("send_verification_email", "SUCCESS", 2, 3),
    ]
    for row in ran[3]:
        assert row["duration_ms"] > 0
        assert row["wait_ms"] >= 0
        assert row["worker"].startswith("celery@")
        assert row["queue"] == "celery_worker_example"
        assert (bool(row["correlation_id"]), len(row["trace_id"])) == (True, 32)


def test_one_id_leads_to_everything_that_a_signup_set_off(ran):
    """C1, C2, C4, D2: request, mail with its retries, artifact and its index, by the correlation id."""
    rows = [row for trace in ran[1]["traces"] for row in trace["rows"]]
    names = sorted(row["span"]["name"] for row in rows)
    queue = "celery_worker_example"
    assert names == sorted(
        [
            "POST /signup",
            *[f"send {queue}"] * 5,
            *["process send_verification_email"] * 3,
            *("process process_artifact_data", "process index_artifact"),
        ]
    )
    # two retries are traces of their own that link to the one before
    assert len(ran[1]["traces"]) == 3
    logs = [log for row in rows for log in row.get("logs", ())]
    assert {
        (log["context"]["tenant_id"], log["context"]["user_id"], log["context"]["correlation_id"])
        for log in logs
    } == {("tenant-1", "user-1", "signup-4711")}
    mail = [
        log["message"]
        for log in sorted(logs, key=lambda log: log["time_unix_nano"])
        if log.get("attributes", {}).get("celery.task.name") == "send_verification_email"
        or log["context"].get("operation") == "email.send_verification"
    ]
    assert mail == [
        *("Task started", "sending verification email", "Task retrying") * 2,
        *("Task started", "sending verification email", "verification email sent"),
        "Task completed",
    ]


def test_progress_and_operation_are_on_the_records(ran):
    """C2, C7: each step of a long task is a record with the operation and the artifact."""
    steps = [
        (log["message"], log["attributes"].get("processed_rows"))
        for log in ran[2]
        if log.get("context", {}).get("operation") == "data.process_artifact" and "message" in log
    ]
    assert steps == [
        ("artifact processing started", None),
        ("artifact processing", 1000),
        ("artifact processing", 2000),
        ("artifact processed", 3000),
    ]


def test_a_failure_has_the_ids_of_its_arguments(ran):
    """C1, C2: the failed record has the exception, and the tenant from the task's arguments."""
    (failed,) = [log for log in ran[2] if log.get("message") == "Task failed"]
    assert (failed["exception"]["type"], failed["exception"]["message"]) == (
        "PermissionError",
        "card of order-77 was declined",
    )
    assert (failed["context"]["tenant_id"], failed["trace"]["status"]) == ("tenant-2", "error")
    assert failed["trace"]["execution_time_ms"] > 0
    assert failed["level"] == "ERROR"
