"""
The life of a worker's processes: what starts in each, and what is sent before each one ends.

Children of the prefork pool leave by `os._exit`, so no exit hook runs in them. Celery's
`worker_process_shutdown` does, also when a child is recycled, and billiard then waits one second
before it leaves: that second is the budget. The main process ends by its exit hook as any program,
and sends once more at `worker_shutdown`, since a supervisor may kill it soon after.

A child may also be killed from outside: by a hard time limit, a signal, the out-of-memory killer.
Where there is a spool, each of its records is therefore on disk before the call returns, unless
TELEMETRY_SPOOL_WRITE_THROUGH says no; the main process, which sees the death, delivers them.

Nothing is started here: providers are inherited, and threads, connections and metric readers begin
at the first record of each process.

gevent and eventlet replace threads and locks under a library that has already made some; records
would be sent from greenlets that a busy task never yields to, and a wait could stop the whole
worker. A worker with these pools therefore runs without telemetry, and says so.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._config import configure
from telemetry._logs import root
from telemetry.instrumentation._celery import (
    broker,
    chatter,
    logs,
    main_process,
    message,
    metrics,
    publish,
)
from telemetry.instrumentation._celery.options import guarded

FLUSH_S: Final = 1.0
GREEN: Final = ("gevent", "eventlet")
_NAMES: Final = {"processes": "prefork", "thread": "threads"}


def worker_init(uninstrument: Callable[[], None]) -> Callable[..., None]:
    """
    The receiver of `worker_init`, in the main process.

    Args:
        uninstrument: called for a pool that cannot be observed.
    """

    @guarded("worker start")
    def receive(sender: Any = None, **_: Any) -> None:
        pool = getattr(sender, "pool_cls", "")
        name = pool if isinstance(pool, str) else pool.__module__.rpartition(".")[2]
        name = _NAMES.get(name, name)
        if name in GREEN or any(_patches_threads(library) for library in GREEN):
            _refuse(name, uninstrument)
            return
        message.pool = name
        chatter.worker_begins()

    return receive


@guarded("beat start")
def beat_init(**_: Any) -> None:
    """Receiver of `beat_init`: the connection that it keeps to the broker is Celery's own talk."""
    chatter.worker_begins()


@guarded("worker ready")
def worker_ready(sender: Any = None, **_: Any) -> None:
    """Receiver of `worker_ready`, in the main process."""
    logs.ensure()
    metrics.observe_active()
    broker.check(sender.app)


@guarded("process start")
def process_init(**_: Any) -> None:
    """Receiver of `worker_process_init`, in each child."""
    publish.finish(None)
    main_process.forget()
    root.ensure()
    logs.ensure()
    pipeline = configure.pipeline()
    if pipeline is not None and pipeline.spool is not None:
        asked = pipeline.settings.given("spool_write_through")
        pipeline.spool.through = pipeline.settings.spool_write_through if asked else True


@guarded("process end")
def process_shutdown(**_: Any) -> None:
    """Receiver of `worker_process_shutdown`, in each child; and of `worker_shutdown`."""
    pipeline = configure.pipeline()
    if pipeline is None:
        return
    if not configure.flush(min(FLUSH_S, pipeline.settings.exit_timeout)):
        pipeline.set_aside()
    if pipeline.spool is not None:
        pipeline.spool.tidy()


def _patches_threads(library: str) -> bool:
    monkey = sys.modules.get(f"{library}.monkey") or sys.modules.get(f"{library}.patcher")
    if monkey is None:
        return False
    for question in ("is_module_patched", "is_monkey_patched"):
        ask = getattr(monkey, question, None)
        if ask is not None and (ask("threading") or ask("thread")):
            return True
    return False


def _refuse(name: str, uninstrument: Callable[[], None]) -> None:
    _diagnostics.say(
        "celery pool",
        f"the pool {name} is not supported: threads are replaced under the running library."
        " This worker runs without telemetry; use --pool=prefork or --pool=threads",
        level="error",
        always=True,
    )
    uninstrument()
    os.environ["OTEL_SDK_DISABLED"] = "true"
    configure.shutdown(0)
