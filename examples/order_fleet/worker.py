"""
One process of the fleet: takes messages of its role from Redis until it is told to stop.

    opentelemetry-instrument --service_name worker_open python examples/order_fleet/worker.py worker_open

SIGTERM lets it finish the order in hand; the last statistics are written at its exit.
"""

import os
import signal
import sys

import redis
from roles import ROLES, decode, encode, process

from telemetry.workers import Worker

POLL_S = 0.5
running = True


def stop(*_: object) -> None:
    global running  # noqa: PLW0603 - a signal handler has no other way to say it
    running = False


def main(role: str) -> int:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for main.py, which stops us in turn
    worker = Worker(role, group="provider")
    queue = redis.Redis.from_url(os.environ["REDIS_URL"])
    queue.incr("fleet:ready")
    while running:
        try:
            found = queue.blpop([f"fleet:{role}"], timeout=POLL_S)
        except redis.ConnectionError as error:
            worker.pool_error(error)
            return 1
        if found is None:
            continue
        message = decode(found[1])
        try:
            onward = process(worker, queue, message)
        except Exception:  # recorded by the block in `process`; the worker goes on
            queue.rpush("fleet:done", encode({**message, "result": "failed"}))
            continue
        if onward is None:
            queue.rpush("fleet:done", encode({**message, "result": "done"}))
        else:
            role_ahead = onward["ahead"].pop(0)
            queue.rpush(f"fleet:{role_ahead}", encode(onward))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ROLES:
        sys.exit(f"usage: worker.py ROLE, one of: {', '.join(ROLES)}")
    sys.exit(main(sys.argv[1]))
