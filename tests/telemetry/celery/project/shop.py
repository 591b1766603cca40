"""The application that the tests run: ordinary Celery, nothing of telemetry's in it."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from opentelemetry import trace

app = Celery("shop", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_default_queue=os.environ.get("QUEUE", "celery"),
    worker_hijack_root_logger=os.environ.get("HIJACK", "1") == "1",
    worker_lost_wait=1,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=int(os.environ.get("PREFETCH", "4")),
    result_expires=300,
    task_serializer="json",
    accept_content=["json", "pickle"],
)
if os.environ.get("LATE"):
    app.conf.update(task_acks_late=True, worker_deduplicate_successful_tasks=True)
if os.environ.get("VISIBILITY"):
    app.conf.broker_transport_options = {"visibility_timeout": int(os.environ["VISIBILITY"])}
if os.environ.get("BEAT"):
    app.conf.beat_schedule = {"each second": {"task": "shop.work", "schedule": 1.0}}
KEPT = []
log = logging.getLogger("shop.plain")
task_log = get_task_logger("shop.tasks")


@signals.worker_ready.connect
def ready(**_):
    sys.__stdout__.write("READY\n")
    sys.__stdout__.flush()


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


@app.task
def add(a, b):
    log.info("adding")
    return a + b


@app.task
def work(seconds=0.0, **_ids):
    """Speak at each step, as a task that other tasks run beside."""
    log.info("begin")
    time.sleep(seconds)
    task_log.info("end")


@app.task
def chatter():
    log.warning("plain line")
    task_log.warning("task line")
    print("printed line")
    logging.getLogger("shop.debug").debug("not seen")


@app.task
def fail(kind="ValueError"):
    log.info("before the failure")
    if kind == "unpicklable":
        raise Unpicklable("one", "two")
    raise ValueError("broken by the test")


@app.task(bind=True, max_retries=3)
def flaky(self, until, countdown=0.01, **_ids):
    log.info("attempt %d", self.request.retries)
    if self.request.retries < until:
        raise self.retry(exc=ConnectionError("not yet"), countdown=countdown)
    log.info("through")


@app.task(bind=True, max_retries=None)
def header_size(self, sizes, until):
    names = sorted(self.request.headers)
    sizes = [*sizes, [len(names), sum(len(str(self.request.headers[name])) for name in names)]]
    if len(sizes) < until:
        raise self.retry(args=(sizes, until), countdown=0)
    return sizes


@app.task(soft_time_limit=1, time_limit=30)
def soft(catch=False):
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        if not catch:
            raise
        log.warning("cleaned up")


@app.task(time_limit=1)
def hard(**_ids):
    log.info("working too long")
    while True:
        time.sleep(1)


@app.task
def die(**_ids):
    log.info("about to die")
    time.sleep(0.5)
    os._exit(3)


@app.task
def last_words(path, how):
    """Speak until the end, and keep count beside: each step is a span and a line."""
    for number in range(1_000_000):
        with trace.get_tracer("shop").start_as_current_span(f"{how} {number}"):
            log.info("%s %d", how, number)
        with Path(path).open("ab") as count:  # a byte is there or not, whenever this ends
            count.write(b".")
        if how == "exit" and number == 20:
            os._exit(3)
        time.sleep(0.02)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def die_once(self, path):
    if not Path(path).exists():
        Path(path).touch()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@app.task
def reject(requeue=False):
    raise Reject("no good", requeue=requeue)


@app.task
def ignore():
    raise Ignore("not needed")


@app.task(bind=True)
def parent(self, ids=None):
    log.info("parent runs")
    add.apply_async((1, 1), task_id=ids[0], queue=os.environ["QUEUE"])
    add.apply_async((2, 2), task_id=ids[1], queue=os.environ["QUEUE"], countdown=0.1)


@app.task
def total(numbers):
    log.info("total")
    return sum(numbers)


@app.task(telemetry_mode="link")
def linked():
    log.info("linked")


@app.task
def positional(what, tenant_id, user_id="u-default"):
    log.info("positional")


@app.task
def hostile(value=None, tenant_id=None):
    log.info("survived")


@app.task(bind=True)
def eager_outer(self):
    from telemetry import current_context

    before = current_context()
    inner = add.apply((3, 4)).get(disable_sync_subtasks=False)
    return [inner, before == current_context()]


@app.task
def scope():
    from telemetry import bind_context, current_context

    before = current_context()
    bind_context(tenant_id="left-behind", user_id="left-behind", favourite="left-behind")
    return sorted(before)


@app.task(throws=(KeyError,))
def expected():
    raise KeyError("no such order")


@app.task
def burn():
    data = bytearray(20_000_000)
    for i in range(0, len(data), 4096):
        data[i] = 1
    begin = time.thread_time()
    while time.thread_time() - begin < 0.05:
        pass
    KEPT.append(data)


class Stop(BaseException):
    """No Exception: a library's way to leave a program."""


@app.task
def stopped(kind):
    import asyncio

    raise {
        "cancelled": asyncio.CancelledError(),
        "generator": GeneratorExit("g"),
        "own": Stop("stop"),
        "group": BaseExceptionGroup("b", [asyncio.CancelledError(), KeyError("k")]),
    }[kind]


class HookFails(Task):
    def on_failure(self, *args):
        raise RuntimeError("hook")


@app.task(base=HookFails)
def failing_hook():
    raise ValueError("original")


@app.task
def own_redis():
    import redis

    redis.Redis.from_url(app.conf.broker_url).set("own", "1")
