"""docker-compose.yaml without a Docker engine: what it says is read, and run where its program is here."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pymongo
import pytest
import yaml
from pymongo.errors import OperationFailure

from tests.servers import free_port, mongod_binary

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_and_private(name):
    """Ports are on loopback, privileges cannot grow, memory is bounded; one-shot jobs end by themselves."""
    service = SERVICES[name]
    assert [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")] == []
    once = name in ("setup", "mongo-init")
    assert once or service["security_opt"] == ["no-new-privileges:true"]
    assert once or service["mem_limit"]
    assert once or service["restart"] == "unless-stopped"
    assert "healthcheck" in service or name == "collector"  # the image has its own
    assert name == "mongo" or service.get("read_only") is True


def test_files_that_are_mounted_exist():
    """Every file and folder of this repository that a service mounts is there."""
    mounts = [mount for each in SERVICES.values() for mount in each.get("volumes", [])]
    ours = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert [path for path in ours if not (ROOT / path).exists()] == []
    named = {mount.partition(":")[0] for mount in mounts if not mount.startswith("./")}
    assert named == set(COMPOSE["volumes"])


def test_what_a_service_waits_for_exists_and_can_be_waited_for():
    """The start order names services, and conditions that those can reach."""
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            target = SERVICES[other]
            if how["condition"] == "service_healthy":
                checked = other == "collector" or "test" in target["healthcheck"]
                assert checked, f"{name} waits for the health of {other}, which has none"
            if how["condition"] == "service_completed_successfully":
                assert other in ("setup", "mongo-init")


def test_the_file_is_a_compose_file():
    """Where the client is installed it reads the file without a complaint."""
    asked = ["docker", "compose", "version"]
    if (
        not shutil.which("docker")
        or subprocess.run(asked, capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no `docker compose` here: `docker compose config` was not run")
    done = subprocess.run(
        ["docker", "compose", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- secrets ---


def setup(folder, **environment):
    return subprocess.run(
        ["sh", str(ROOT / "deploy/secrets/setup.sh")],
        env={"PATH": os.environ["PATH"], "SECRETS": str(folder), **environment},
        preexec_fn=lambda: os.umask(0),
        capture_output=True,
        text=True,
        check=False,
    )


def test_secrets_are_made_once_and_are_nobody_elses(tmp_path):
    """The first start makes four files that only their user reads; the second changes nothing."""
    first = setup(tmp_path)
    assert first.returncode == 0, first.stderr
    names = ["mongo-password", "mongo.key", "mongodb-uri", "query-token"]
    assert sorted(each.name for each in tmp_path.iterdir()) == names
    assert {oct(each.stat().st_mode & 0o777) for each in tmp_path.iterdir()} == {"0o400"}
    before = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert 6 <= len(before["mongo.key"].strip()) <= 1024
    assert len(before["query-token"].strip()) >= 32
    assert re.fullmatch(
        rf"mongodb://otelier:{before['mongo-password'].strip()}@mongo:27017/\?authSource=admin&replicaSet=rs0",
        before["mongodb-uri"],
    )
    second = setup(tmp_path)
    assert (second.returncode, second.stdout) == (0, "")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == before


def test_a_secret_that_cannot_be_read_is_said(tmp_path):
    """The entry point names the variable and the file, and starts nothing."""
    done = subprocess.run(
        ["sh", str(ROOT / "deploy/entrypoint.sh"), "echo", "started"],
        env={"PATH": os.environ["PATH"], "MONGODB_URI_FILE": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"MONGODB_URI_FILE names {tmp_path / 'none'}, which cannot be read" in done.stderr


def test_a_secret_becomes_a_variable(tmp_path):
    """The content of the file is the variable of the program, whose process replaces the shell."""
    (tmp_path / "uri").write_text("mongodb://u:p@db\n")
    done = subprocess.run(
        ["sh", str(ROOT / "deploy/entrypoint.sh"), "sh", "-c", 'printf %s "$MONGODB_URI"; exit 7'],
        env={"PATH": os.environ["PATH"], "MONGODB_URI_FILE": str(tmp_path / "uri")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "mongodb://u:p@db")


# --- MongoDB ---


@pytest.fixture
def mongo(tmp_path):
    """A mongod as the service starts it: its command with this machine's paths and a free port."""
    binary = mongod_binary()
    if binary is None:
        pytest.skip("there is no mongod")
    setup(tmp_path, MONGO_HOST="127.0.0.1:1")
    port = free_port()
    (tmp_path / "db").mkdir()
    command = [
        word.replace("/run/otelier", str(tmp_path)).replace("${MONGO_CACHE_GB:-0.5}", "0.25")
        for word in SERVICES["mongo"]["command"]
        if word != "--bind_ip_all"
    ]
    place = ["--dbpath", str(tmp_path / "db"), "--port", str(port), "--bind_ip", "127.0.0.1"]
    process = subprocess.Popen([binary, *command[1:], *place], stdout=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


def init(folder, port, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "deploy/mongo/init.py")],
        env={
            **os.environ,
            "MONGO_LOCAL": f"mongodb://127.0.0.1:{port}",
            "MONGO_MEMBER": f"127.0.0.1:{port}",
            "MONGO_PASSWORD_FILE": str(folder / "mongo-password"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_mongodb_becomes_a_replica_set_with_a_user_and_stays_one(mongo, tmp_path):
    """The first run makes set and user, the second nothing; a foreign password is told from a lost one."""
    first = init(tmp_path, mongo)
    assert (first.returncode, first.stdout.splitlines()) == (
        0,
        [
            f"otelier: made the replica set rs0 of 127.0.0.1:{mongo}",
            "otelier: made the user otelier",
            "otelier: MongoDB is ready",
        ],
    ), first.stderr
    second = init(tmp_path, mongo)
    assert (second.returncode, second.stdout) == (0, "otelier: MongoDB is ready\n"), second.stderr
    uri = (tmp_path / "mongodb-uri").read_text().replace("127.0.0.1:1/", f"127.0.0.1:{mongo}/")
    with pymongo.MongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        client.telemetry.probe.insert_one({"a": 1})
        assert client.telemetry.probe.count_documents({}) == 1
    with (
        pymongo.MongoClient(f"mongodb://127.0.0.1:{mongo}", directConnection=True) as stranger,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        stranger.telemetry.probe.find_one()
    (tmp_path / "mongo-password").chmod(0o600)
    (tmp_path / "mongo-password").write_text("another")
    third = init(tmp_path, mongo)
    assert third.returncode == 1
    assert "the user otelier is there with another password" in third.stderr


def test_mongodb_that_does_not_answer_is_said(tmp_path):
    """A server that is not there yet is waited for, and then named."""
    (tmp_path / "mongo-password").write_text("x")
    done = init(tmp_path, free_port(), MONGO_WAIT="3")
    assert done.returncode == 1
    assert "otelier: MongoDB does not answer within 3 s" in done.stderr


# --- the collector ---


def test_the_collector_of_the_image_runs_and_drains(tmp_path):
    """The command and the file of the service start a collector that is healthy and ends with 0 on SIGTERM."""
    ports = {port: free_port() for port in (4317, 4318, 4319, 8888, 8889, 13133)}
    text = (ROOT / "deploy/collector/otel-collector.yaml").read_text()
    for port, free in ports.items():
        text = text.replace(f"0.0.0.0:{port}", f"0.0.0.0:{free}").replace(
            f"port: {port}}}", f"port: {free}}}"
        )
    (tmp_path / "config.yaml").write_text(text)
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    command = yaml.safe_load(re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[1])
    command[command.index("/etc/otelier/otel-collector.yaml")] = str(tmp_path / "config.yaml")
    process = subprocess.Popen(
        ["sh", str(ROOT / "deploy/entrypoint.sh"), *command],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TELEMETRY_STORE": "sqlite",
            "TELEMETRY_DATA": str(tmp_path / "data"),
            "TELEMETRY_ALLOW_UNAUTHENTICATED": "1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        health = re.search(r"^  CMD (\[.*\])$", dockerfile, re.MULTILINE)[1]
        check = [word.replace("13133", str(ports[13133])) for word in yaml.safe_load(health)]
        end = time.monotonic() + 30
        while subprocess.run(
            [sys.executable, *check[1:]], capture_output=True, check=False
        ).returncode:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end, "the health check of the image does not pass"
            time.sleep(0.2)
        for port in (8888, 8889):
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[port]}/metrics") as answer:
                assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert (process.returncode, "Shutdown complete." in said) == (0, True), said


def test_the_image_builds_from_what_the_repository_has():
    """Every COPY of the Dockerfile names something that is here, and nothing runs as root."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for word in [each for each in shlex.split(line) if not each.startswith("--")][:-1]
    ]
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["65532:65532"]
