"""The `telemetry` program, as a person or a script runs it."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from telemetry._config import settings
from telemetry._spool import file as _spool

PROGRAM = str(Path(sys.executable).parent / "telemetry")


def program(*arguments, **env):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_"))
    }
    return subprocess.run(
        [PROGRAM, *arguments],
        env={**clean, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_version_and_help():
    """Both answer with exit code 0; a wrong command is 2."""
    assert program("--version").stdout == "telemetry, version 0.1.0\n"
    assert "doctor" in program("--help").stdout
    assert (program("doctor", "--help").returncode, program("nonsense").returncode) == (0, 2)


def test_doctor_says_that_all_is_well(receiver):
    """With a collector there, every endpoint is reachable, and the exit code is 0."""
    done = program("doctor", "--json", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    findings = json.loads(done.stdout)
    assert done.returncode == 0
    assert findings["distro"] == {"chosen": "otelier", "installed": ["otelier"]}
    assert findings["configurator"] == {"chosen": "otelier", "installed": ["otelier"]}
    assert findings["problems"] == []
    assert findings["endpoints"] == {
        signal: {
            "url": f"{receiver.url}/v1/{signal}",
            "reachable": True,
            "answer": "takes OTLP",
        }
        for signal in settings.SIGNALS
    }
    assert [row["name"] for row in findings["settings"]] == list(settings.TABLE)


def test_doctor_names_sources_and_masks_secrets(receiver):
    """Each value comes with where it was set; a token never appears."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer hunter2",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "authorization=Bearer hunter3",
        "LOG_LEVEL": "debug",
    }
    done = program("doctor", "--json", **env)
    rows = {row["name"]: row for row in json.loads(done.stdout)["settings"]}
    assert rows["log_level"] == {"name": "log_level", "value": "DEBUG", "source": "LOG_LEVEL"}
    assert rows["headers"] == {
        "name": "headers",
        "value": {"authorization": "[REDACTED]"},
        "source": "OTEL_EXPORTER_OTLP_HEADERS",
        "per_signal": {"logs": {"authorization": "[REDACTED]"}},
    }
    assert rows["timeout"]["source"] == "default"
    assert "hunter" not in done.stdout + program("doctor", **env).stdout


def test_doctor_names_each_problem_and_its_fix(refused):
    """Exit code 1, with one line per problem at the end of the page."""
    done = program(
        "doctor",
        OTEL_EXPORTER_OTLP_ENDPOINT=refused,
        OTEL_METRICS_EXPORTER="none",
        OTEL_PYTHON_DISTRO="other",
        LOG_FORMAT="xml",
    )
    assert done.returncode == 1
    answer = "[Errno 111] Connection refused"
    assert done.stdout.splitlines()[-4:] == [
        "LOG_FORMAT='xml' cannot be used; give one of text, json, logfmt, none, or leave it out",
        "opentelemetry_distro: nothing is taken, not otelier; set OTEL_PYTHON_DISTRO=otelier",
        f"traces: nothing answers at {refused}/v1/traces ({answer}); start the collector",
        f"logs: nothing answers at {refused}/v1/logs ({answer}); start the collector",
    ]


def test_doctor_looks_at_a_real_process(receiver):
    """`doctor -- command` runs it under the wrapper and says what it had, and what became of it."""
    code = "import telemetry; telemetry.get_logger('app').warning('from the command')"
    done = program(
        "doctor",
        "--json",
        "--",
        sys.executable,
        "-c",
        code,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        LOG_FORMAT="json",
    )
    (process,) = json.loads(done.stdout)["processes"]
    assert process["handlers"] == {
        "root": ["telemetry._logs.logger.OtelHandler (ours)", "telemetry._logs.root.Console (ours)"]
    }
    assert process["providers"] == {
        "traces": "opentelemetry.sdk.trace.TracerProvider",
        "metrics": "telemetry._sdk.meter_provider.GuardedMeterProvider",
        "logs": "opentelemetry.sdk._logs._internal.LoggerProvider",
    }
    assert (process["joined"], process["threads"]) == ([], ["otelier-logs"])
    assert process["report"]["logs"] == {
        "produced": 1,
        "exported": 1,
        "pending": 0,
        "dropped": {},
    }
    assert receiver.messages == ["from the command"]
    assert '"message": "from the command"' in done.stderr
    assert done.returncode == 0


def test_doctor_counts_what_a_command_lost(receiver):
    """A program whose records are refused is a problem, with the number of them."""
    answer = (400, {}, b"")
    receiver.answers.extend([(200, {}, b"")] * 3 + [answer])
    code = "import telemetry; telemetry.get_logger('app').warning('refused')"
    done = program(
        "doctor",
        "--",
        sys.executable,
        "-c",
        code,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        LOG_FORMAT="none",
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith(": 1 records of logs were lost")


def test_doctor_asks_for_otlp_and_not_for_a_port(receiver):
    """A server that refuses a real OTLP request is a problem, with what it said and the fix."""
    receiver.answers.extend([(404, {}, b""), (401, {}, b""), (503, {}, b"")])
    done = program("doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-3:] == [
        (
            f"traces: {receiver.url}/v1/traces does not take OTLP (HTTP 404 Not Found);"
            " is this an OTLP endpoint?"
        ),
        (
            f"metrics: {receiver.url}/v1/metrics does not take OTLP (HTTP 401 Unauthorized);"
            " check OTEL_EXPORTER_OTLP_HEADERS"
        ),
        (
            f"logs: {receiver.url}/v1/logs does not take OTLP (HTTP 503 Service Unavailable);"
            " the collector is there and takes nothing now"
        ),
    ]


def test_doctor_shows_the_spool(receiver, tmp_path):
    """What waits in the spool, by signal, who has the files, and how full it is; nothing changes."""
    file = _spool.SpoolFile.create(tmp_path, "shop")
    file.request("logs", 3, b"x")
    file.request("traces", 2, b"y")
    orphan = _spool.SpoolFile.create(tmp_path, "shop")
    orphan.request("logs", 4, b"z")
    orphan.close()
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "TELEMETRY_SPOOL_DIR": str(tmp_path),
    }
    done = program("doctor", "--json", **env)
    spool = json.loads(done.stdout)["spool"]
    assert 0 <= spool.pop("oldest_s") < 60
    assert spool == {
        "folder": str(tmp_path),
        "files": 2,
        "owned": 1,
        "bytes": _spool.used_bytes(tmp_path),
        "max_bytes": 256 * 1024 * 1024,
        "waiting": {"logs": 7, "traces": 2},
    }
    assert done.returncode == 0
    old = program("doctor", **env, TELEMETRY_SPOOL_MAX_AGE="0.001")
    assert old.returncode == 1
    assert "will be dropped after" in old.stdout.splitlines()[-1]
    file.close()


def test_doctor_knows_the_instrumentations_and_the_owner_of_the_server_span(receiver):
    """What the wrapper would switch on, what it leaves out and why, and who makes server spans."""
    done = program(
        "doctor",
        "--json",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="celery",
    )
    findings = json.loads(done.stdout)
    assert findings["instrumentations"]["celery"] == "off: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    assert findings["instrumentations"]["fastapi"] == "left out: its work is done elsewhere"
    assert findings["server_span"] == (
        f"FastAPI {version('fastapi')} itself; contrib's instrumentation is left out"
    )


def test_doctor_says_what_is_lost_on_purpose(receiver):
    """Sampling, levels, signals that go nowhere and the bounds of memory are notes, no problems."""
    done = program(
        "doctor",
        "--json",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.1",
        OTEL_METRICS_EXPORTER="none",
        LOG_LEVEL="WARNING",
        TELEMETRY_SPOOL_DIR="spool",
        TELEMETRY_SPOOL_WRITE_THROUGH="true",
    )
    *notes, subjects = json.loads(done.stdout)["notes"]
    assert subjects.startswith("hashed ids of subjects have their key from ")
    assert notes == [
        "metrics go nowhere (OTEL_METRICS_EXPORTER=none)",
        "spans are sampled: traceidratio 0.1",
        "log records below WARNING are not made (LOG_LEVEL)",
        (
            "with the collector away: 2048 spans and 2048 log records wait in memory, the rest in the"
            " spool"
        ),
    ]
    assert done.returncode == 0


@pytest.mark.parametrize("output", [(), ("--json",)])
def test_doctor_when_disabled(output):
    """Switched off is a finding, and no endpoint is tried."""
    done = program("doctor", *output, OTEL_SDK_DISABLED="true")
    assert done.returncode == 1
    assert "OTEL_SDK_DISABLED: nothing is recorded; unset it to switch telemetry on" in done.stdout
