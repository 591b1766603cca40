"""
Brokers that deliver a message again when it is not acknowledged in time: a warning names what will run twice.

Redis and SQS have no connection that shows that a worker is still at it; they have a time, the
`visibility_timeout`. A task that is acknowledged late and may run longer, and one whose eta is
further away, is delivered again meanwhile, and runs twice with one id. A worker can see it coming.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from telemetry import _diagnostics
from telemetry.instrumentation._celery import message as celery_message

TIMEOUTS: Final = {"redis": 3600.0, "aws_sqs": 1800.0}
"""Broker -> its visibility_timeout where none is set."""
SHOWN: Final = 5
FIX: Final = "raise broker_transport_options['visibility_timeout']"

_timeout_s: float | None = None


def check(app: Any) -> None:
    """Warn at the start of a worker of tasks that may run longer than the broker waits for them."""
    global _timeout_s  # noqa: PLW0603 - one broker per worker
    system = celery_message.system(app)
    if system not in TIMEOUTS:
        return
    options = app.conf.broker_transport_options
    given = options.get("visibility_timeout") if isinstance(options, Mapping) else None
    usable = given if isinstance(given, (int, float)) and given > 0 else TIMEOUTS[system]
    _timeout_s = float(usable)
    limits = {
        name: limit
        for name, task in app.tasks.items()
        if (limit := _limit(task, app.conf)) is not None and limit > _timeout_s
    }
    if limits:
        shown = ", ".join(f"{name} ({limit:g} s)" for name, limit in sorted(limits.items())[:SHOWN])
        more = f" and {len(limits) - SHOWN} more" if len(limits) > SHOWN else ""
        _diagnostics.say(
            "celery visibility",
            f"with acks_late these tasks may run longer than the {_timeout_s:g} s after which the"
            f" broker delivers them again: {shown}{more}; {FIX} above their time limits",
            always=True,
        )


def _limit(task: Any, conf: Any) -> float | None:
    """For how long a task may run before it is acknowledged, where that is known."""
    late = task.acks_late if task.acks_late is not None else conf.task_acks_late
    limit = task.time_limit or conf.task_time_limit
    return float(limit) if late and limit else None


def check_eta(message: celery_message.Message) -> None:
    """Warn of a message that waits here for longer than the broker waits for its acknowledgement."""
    if _timeout_s is None or message.eta is None or message.eta - time.time() <= _timeout_s:
        return
    _diagnostics.say(
        "celery eta",
        f"{message.name} is to run in {message.eta - time.time():.0f} s, and the broker delivers it"
        f" again after {_timeout_s:g} s, so that it runs more than once; {FIX}, or send it later",
    )
