"""
What `make demo` does: the stack of docker-compose.yaml without Docker, from what this machine has.

    python examples/demo.py                    collector, MongoDB, Redis, Prometheus, Alertmanager
    python examples/demo.py --free-ports       beside another collector; it prints which ports
    python examples/demo.py --store sqlite     without MongoDB

Everything listens on 127.0.0.1 alone and keeps its files, logs among them, in data/demo. The files of
deploy/ are used as they are, with addresses of this machine. A program that is not installed is left
out and named. The five example systems run once; two of them stay and get a request now and then, so
that the dashboards move. Ctrl-C ends every process: each is a group of its own that is asked to end,
and after a while is ended. Should this process be killed, Linux ends its children.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn

import pymongo
from processes import BIN, Failed, Stack, answers, free_ports, is_used
from pymongo.errors import OperationFailure, PyMongoError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PORTS = {
    "otlp-grpc": 4317,
    "otlp-http": 4318,
    "query": 4319,
    "health": 13133,
    "own-metrics": 8888,
    "metrics": 8889,
    "prometheus": 9090,
    "alertmanager": 9093,
    "redis": 16379,
    "mongod": 37017,
    "chat-api": 8000,
}
INSIDE = {"otlp-grpc": 4317, "otlp-http": 4318, "query": 4319, "health": 13133, "metrics": 8889}
AGAIN_S = 20.0
"""How often chat API and Celery worker get something to do after the first round."""


class Stopped(Exception):
    """Ctrl-C or SIGTERM."""


def find(*names: str) -> str | None:
    """A program on PATH or beside this interpreter."""
    for name in names:
        beside = BIN / name
        if found := shutil.which(name) or (str(beside) if beside.exists() else None):
            return found
    return None


def mongod() -> str | None:
    """The server on PATH, else the one in the wheel of the test requirements."""
    spec = importlib.util.find_spec("fiftyone")
    for place in (spec and spec.submodule_search_locations) or ():
        inside = Path(place) / "db" / "bin" / "mongod"
        if inside.exists():
            return find("mongod") or str(inside)
    return find("mongod")


# --- what the stack is made of ---


def start_mongod(stack: Stack, binary: str) -> None:
    """A replica set of one member, which makes itself."""
    port = stack.ports["mongod"]
    (stack.folder / "mongod").mkdir(exist_ok=True)
    command = [binary, "--dbpath", "mongod", "--port", str(port), "--bind_ip", "127.0.0.1"]
    command += ["--replSet", "rs0", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    stack.start("mongod", command)
    address = f"127.0.0.1:{port}"
    client = pymongo.MongoClient[dict[str, object]](
        f"mongodb://{address}", directConnection=True, serverSelectionTimeoutMS=500
    )

    def ready() -> bool:
        try:
            hello = client.admin.command("hello")
            members = [{"_id": 0, "host": address}]
            if "setName" not in hello:
                client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            elif hello.get("me") != address:  # the data are from a run on another port
                found = client.admin.command("replSetGetConfig")["config"]
                new = {**found, "version": found["version"] + 1, "members": members}
                client.admin.command("replSetReconfig", new, force=True)
            return bool(hello.get("isWritablePrimary"))
        except (OperationFailure, PyMongoError):
            return False

    with client:
        stack.wait_for("mongod", ready)


def start_collector(stack: Stack, store: str) -> None:
    """The collector of deploy/, whose open addresses become addresses of this machine."""
    text = (ROOT / "deploy/collector/otel-collector.yaml").read_text()
    for name, port in INSIDE.items():
        text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{stack.ports[name]}")
    reader = f"host: 127.0.0.1, port: {stack.ports['own-metrics']}"
    text = text.replace("host: 0.0.0.0, port: 8888", reader)
    (stack.folder / "otel-collector.yaml").write_text(text)
    stack.start(
        "collector",
        [
            *(str(BIN / "collector"), "--config", "otel-collector.yaml"),
            *("--set", "connectors.spanmetrics.metrics_flush_interval=2s"),
            *("--set", "connectors.servicegraph.metrics_flush_interval=2s"),
        ],
        TELEMETRY_STORE=store,
        TELEMETRY_DATA=str(stack.folder / "collector"),
        MONGODB_URI=f"mongodb://127.0.0.1:{stack.ports['mongod']}/?replicaSet=rs0",
    )
    stack.wait_for("collector", lambda: answers(stack.url("health")))


def start_prometheus(stack: Stack, binary: str) -> None:
    """Prometheus with our scrape targets and rules, asking a little more often."""
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    for before, name in (
        ("collector:8888", "own-metrics"),
        ("collector:8889", "metrics"),
        ("alertmanager:9093", "alertmanager"),
    ):
        text = text.replace(before, f"127.0.0.1:{stack.ports[name]}")
    text = text.replace("scrape_interval: 15s", "scrape_interval: 2s")
    text = text.replace("[rules.yml]", json.dumps([str(ROOT / "deploy/prometheus/rules.yml")]))
    (stack.folder / "prometheus.yml").write_text(text)
    stack.start(
        "prometheus",
        [
            *(binary, "--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"),
            f"--web.listen-address=127.0.0.1:{stack.ports['prometheus']}",
            "--enable-feature=exemplar-storage",
        ],
    )
    stack.wait_for("prometheus", lambda: answers(stack.url("prometheus") + "/-/ready"))


def start_alertmanager(stack: Stack, binary: str) -> None:
    """Alertmanager without a cluster."""
    stack.start(
        "alertmanager",
        [
            binary,
            f"--config.file={ROOT / 'deploy/alertmanager/alertmanager.yml'}",
            *("--storage.path=alertmanager", "--cluster.listen-address="),
            f"--web.listen-address=127.0.0.1:{stack.ports['alertmanager']}",
        ],
    )
    stack.wait_for("alertmanager", lambda: answers(stack.url("alertmanager") + "/-/ready"))


def start_redis(stack: Stack, binary: str) -> None:
    """Redis in memory."""
    command = [binary, "--port", str(stack.ports["redis"]), "--bind", "127.0.0.1", "--save", ""]
    stack.start("redis", command)
    stack.wait_for("redis", lambda: is_used(stack.ports["redis"]))


# --- the examples ---


def example(stack: Stack, name: str, *command: str, service: str | None = None) -> None:
    """Start one of the example systems under the wrapper, as its own text says."""
    wrapper = [str(BIN / "opentelemetry-instrument"), "--service_name", service or name]
    redis = f"redis://127.0.0.1:{stack.ports['redis']}/{1 if name == 'order-fleet' else 0}"
    stack.start(
        name,
        [*(wrapper if service != "" else []), *command],
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.url("otlp-http"),
        OTEL_METRIC_EXPORT_INTERVAL="2000",
        LOG_FORMAT="none",
        REDIS_URL=redis,
        C_FORCE_ROOT="1",
    )


def run_examples(stack: Stack, *, with_redis: bool) -> None:
    """
    Start all five, one after the other, and return when those that end have ended.

    Rates need programs that live through some scrapes, so these work longer than when one tries them.
    """
    python = sys.executable
    port = str(stack.ports["chat-api"])
    app = str(EXAMPLES / "chat_api")
    example(stack, "chat-api", str(BIN / "uvicorn"), "main:app", "--app-dir", app, "--port", port)
    stack.wait_for("chat-api", lambda: answers(stack.url("chat-api") + "/health"))
    chat(stack, 1)
    risk = (python, str(EXAMPLES / "risk_worker/main.py"), "--rounds", "1000000")
    example(stack, "risk-worker", *risk)
    leads = (python, str(EXAMPLES / "lead_batch/main.py"), "--leads", "200", "--rate", "10")
    example(stack, "lead-batch", *leads)
    if with_redis:
        tasks = ("--workdir", str(EXAMPLES / "celery_worker"), "-A", "tasks", "worker")
        calm = ("--concurrency", "1", "--without-mingle", "--without-gossip")
        example(stack, "celery-worker", str(BIN / "celery"), *tasks, *calm, service="worker")
        publish(stack)
        orders = ("--orders", "300", "--rate", "15")
        fleet = (python, str(EXAMPLES / "order_fleet/main.py"), *orders)
        example(stack, "order-fleet", *fleet, service="")  # it wraps its own nine processes
        stack.finish("order-fleet")
    stack.finish("lead-batch")


def chat(stack: Stack, turn: int) -> None:
    """A conversation, a stream, something that is not there, and the route with a bug."""
    headers = {"X-Organization-ID": "org-1", "X-User-ID": "u-1", "content-type": "application/json"}
    asked: list[tuple[str, bytes | None]] = [
        ("/conversations/c-9/messages", b'{"text": "hello"}'),
        ("/conversations/c-9/answer", None),
        ("/conversations/x-1/answer", None),
        ("/reports/daily", None),
    ]
    for path, body in asked:
        named = {**headers, "X-Correlation-ID": f"demo-{turn}"}
        request = urllib.request.Request(stack.url("chat-api") + path, body, named)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                response.read()
        except (urllib.error.URLError, OSError):
            pass  # 404 and 500 are what two of them are for


def publish(stack: Stack) -> None:
    """Send the worker its four kinds of tasks, and wait until they are done."""
    send = str(EXAMPLES / "celery_worker/send.py")
    example(stack, "celery-send", sys.executable, send, service="shop")
    stack.finish("celery-send")


# --- from the first process to the last ---


def main() -> int:
    """Exit code 0 after Ctrl-C, 1 when something did not start."""
    parser = argparse.ArgumentParser(description="The whole stack, without Docker.")
    parser.add_argument("--folder", type=Path, default=ROOT / "data/demo", help="for all files")
    parser.add_argument("--free-ports", action="store_true", help="instead of the usual ones")
    parser.add_argument("--store", choices=("auto", "mongodb", "sqlite"), default="auto")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(given.folder.resolve(), free_ports(PORTS) if given.free_ports else PORTS)
    if taken := [f"{port} ({n})" for n, port in stack.ports.items() if is_used(port)]:
        print(f"in use by another program: {', '.join(taken)}. Stop it, or: --free-ports")
        return 1

    def on_signal(*_: object) -> NoReturn:
        raise Stopped

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    code = 0
    try:
        run(stack, given.store)
    except Stopped:
        print("\nstopping ...", flush=True)
    except Failed as error:
        print(error, file=sys.stderr, flush=True)
        code = 1
    finally:
        # From here on a signal must not interrupt the stopping.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stack.stop()
    print("everything is stopped; the data are in", stack.folder, flush=True)
    return code


def run(stack: Stack, store: str) -> NoReturn:
    """Start everything, say where to look, and keep the examples busy."""
    server = None if store == "sqlite" else mongod()
    if store == "mongodb" and server is None:
        raise Failed(
            "no mongod: pip install --no-deps -r requirements/mongod.txt, or --store sqlite"
        )
    redis = find("redis-server")
    prometheus = find("prometheus")
    alertmanager = find("alertmanager", "prometheus-alertmanager")
    for name, binary, package in (
        ("mongod", server or store == "sqlite", "the collector keeps everything in SQLite"),
        ("redis-server", redis, "Celery worker and order fleet are left out"),
        ("prometheus", prometheus, "no metrics dashboards; Debian: apt-get install prometheus"),
        ("alertmanager", alertmanager, "Debian: apt-get install prometheus-alertmanager"),
    ):
        if not binary:
            print(f"without {name}: {package}", flush=True)
    print(f"starting; logs are in {stack.folder} ...", flush=True)
    if server:
        start_mongod(stack, server)
    start_collector(stack, "mongodb" if server else "sqlite")
    if redis:
        start_redis(stack, redis)
    if alertmanager:
        start_alertmanager(stack, alertmanager)
    if prometheus:
        start_prometheus(stack, prometheus)
    run_examples(stack, with_redis=redis is not None)
    look_here(stack, server=server, prometheus=prometheus, alertmanager=alertmanager)
    turn = 1
    while True:
        for _ in range(int(AGAIN_S)):
            time.sleep(1)
            if ended := stack.ended():
                raise Failed(f"{ended} ended by itself; see {stack.folder / ended}.log")
        turn += 1
        chat(stack, turn)
        if redis:
            publish(stack)


def look_here(
    stack: Stack, *, server: str | None, prometheus: str | None, alertmanager: str | None
) -> None:
    """Addresses and questions, as one types them."""
    beside = shutil.which("collector") == str(BIN / "collector")
    collector = "collector" if beside else os.path.relpath(BIN / "collector")
    at = "" if stack.ports == PORTS else f" --endpoint {stack.url('query')}"
    lines = [f"  {stack.url('query'):<28} answers: traces, logs, Loki and Tempo for a Grafana"]
    lines += [
        f"  {stack.url('chat-api') + '/docs':<28} the chat API; each answer has X-Correlation-ID"
    ]
    if prometheus:
        lines += [
            f"  {stack.url('prometheus'):<28} Prometheus, with the rules of deploy/prometheus"
        ]
    if alertmanager:
        lines += [f"  {stack.url('alertmanager'):<28} Alertmanager"]
    if server:
        lines += [f"  mongodb://127.0.0.1:{stack.ports['mongod']}    the database `telemetry`"]
    lines += [f"  $ {collector} trace demo-1{at}"]
    lines += [f"  $ {collector} errors --since 1h{at}"]
    lines += [f"  $ {collector} tasks --since 1h{at}"]
    print("look here:", *lines, "Ctrl-C ends all of it.", sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
