"""
An order fleet: nine roles as nine processes over Redis, each under `opentelemetry-instrument`.

    python examples/order_fleet/main.py --orders 30

Starts a redis-server of its own unless REDIS_URL names one, sends orders to the dispatcher, waits
until each has gone its way, stops the processes, and prints what to ask the collector. Telemetry
goes to OTEL_EXPORTER_OTLP_ENDPOINT (http://localhost:4318 by default); without a collector the
fleet works all the same.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import redis
from roles import BALANCES, PRICES, ROLES, WAYS, decode, encode

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
FIRST = 12345
START_S, ORDER_S, STOP_S = 60.0, 60.0, 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run an order fleet and send it orders.")
    parser.add_argument("--orders", type=int, default=30, help="how many orders (default: 30)")
    parser.add_argument("--rate", type=float, help="orders a second (default: all at once)")
    given = parser.parse_args()
    orders = given.orders
    if orders < 1:
        parser.error("--orders must be 1 or more")
    if given.rate is not None and given.rate <= 0:
        parser.error("--rate must be more than 0")
    pause_s = 1 / given.rate if given.rate else 0.0
    with redis_server() as url, redis.Redis.from_url(url) as queue:
        queue.delete("fleet:done", "fleet:ready", *(f"fleet:{role}" for role in ROLES))
        cached = list(BALANCES.items())[:4]  # the others are a fallback to the database
        queue.hset("fleet:balances", mapping=dict(cached))
        with workers(url) as processes:
            try:
                wait_until_ready(queue, processes)
                results = run(queue, processes, orders, pause_s)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
    told = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
    print(f"{orders} orders through {len(ROLES)} roles: {told}")
    print(f"collector trace ORDER-{FIRST}")
    return 0


def order(number: int) -> dict[str, object]:
    """The order with this number; one in ten has an instrument that nobody knows."""
    kind = list(WAYS)[number % len(WAYS)]
    return {
        "order_id": f"ORDER-{FIRST + number}",
        "number": number,
        "kind": kind,
        "type": "sl" if kind == "pending_cancel" else "market",
        "user_id": f"user-{number % len(BALANCES) + 1}",
        "symbol": "NOSUCH" if number % 10 == 1 else list(PRICES)[number % len(PRICES)],
        "lots": 0.1 * (number % 5 + 1),
        "ahead": ["dispatcher"],
        "headers": {},
    }


def run(
    queue: redis.Redis, processes: dict[str, subprocess.Popen[bytes]], orders: int, pause_s: float
) -> Counter[str]:
    """Send the orders, with pauses between them, and count how they end."""
    for number in range(orders):
        queue.rpush("fleet:dispatcher", encode(order(number)))
        time.sleep(pause_s)
    results: Counter[str] = Counter()
    deadline = time.monotonic() + ORDER_S
    while results.total() < orders:
        found = queue.blpop(["fleet:done"], timeout=0.5)
        if found is not None:
            results[decode(found[1])["result"]] += 1
        elif time.monotonic() > deadline:
            raise RuntimeError(f"only {results.total()} of {orders} orders are done")
        check(processes)
    return results


def wait_until_ready(queue: redis.Redis, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Return when each process listens to its queue."""
    deadline = time.monotonic() + START_S
    while int(queue.get("fleet:ready") or 0) < len(processes):
        check(processes)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the workers did not get ready within {START_S:.0f} s")
        time.sleep(0.05)


def check(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Raise if a worker has ended."""
    for role, process in processes.items():
        if process.poll() is not None:
            raise RuntimeError(f"{role} ended with exit code {process.returncode}")


@contextlib.contextmanager
def workers(url: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The nine processes; at the end each finishes what it has in hand."""
    environ = {**os.environ, "REDIS_URL": url}
    environ.setdefault("LOG_FORMAT", "none")  # nine processes on one terminal would be hard to read
    processes = {
        role: subprocess.Popen(
            [
                str(BIN / "opentelemetry-instrument"),
                *("--service_name", role),
                *(sys.executable, str(HERE / "worker.py"), role),
            ],
            env=environ,
        )
        for role in ROLES
    }
    try:
        yield processes
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process in processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """REDIS_URL, else a redis-server of our own on a free port."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    binary = shutil.which("redis-server") or shutil.which("redis-server", path=str(BIN))
    if binary is None:
        sys.exit("no redis-server on PATH; install Redis, or set REDIS_URL")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            await_redis(url, server)
            yield url
        finally:
            server.terminate()
            server.wait()


def await_redis(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    with redis.Redis.from_url(url) as probe:
        while True:
            try:
                probe.ping()
                return
            except redis.ConnectionError:
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("redis-server did not start; set REDIS_URL to use another one")
                time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
