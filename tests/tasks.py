"""Hand-made events of Celery tasks, with the fields that `telemetry` gives them."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from collector.documents.build import Document, moment
from tests.contracts.stores import RECEIVED

ENDS: Final = {
    "received": None,
    "started": "STARTED",
    "succeeded": "SUCCESS",
    "failed": "FAILURE",
    "retried": "RETRY",
    "rejected": "REJECTED",
    "ignored": "IGNORED",
    "revoked": "REVOKED",
    "lost": "FAILURE",
}
"""The last part of an event's name -> `celery.task.state`."""

STEP_NS: Final = 1_000_000_000
LEVELS: Final = {"failed": "ERROR", "lost": "ERROR", "retried": "WARNING", "revoked": "WARNING"}
SEVERITY: Final = {"INFO": 9, "WARNING": 13, "ERROR": 17}


def number(text: str, size: int) -> str:
    """A number for a text, the same in every process."""
    return blake2b(text.encode(), digest_size=size).hexdigest()


def event(task_id: str, kind: str, when: int, retries: int = 0, **more: Any) -> Document:
    """One event of a task."""
    level = LEVELS.get(kind, "INFO")
    attributes = {
        "messaging.system": "redis",
        "messaging.destination.name": "celery",
        "messaging.message.id": task_id,
        "celery.task.name": "shop.open_order",
        "celery.task.retries": retries,
        "celery.worker.hostname": "celery@host",
        **({} if ENDS[kind] is None else {"celery.task.state": ENDS[kind]}),
        **({"celery.task.wait_ms": 12.5} if kind not in ("lost", "revoked", "received") else {}),
        **more.pop("attributes", {}),
    }
    trace = {"trace_id": number(task_id, 4).zfill(32)}
    if kind not in ("started", "received"):
        trace |= {"execution_time_ms": 1500.0, "status": "success"}
    return {
        "_id": f"{when // STEP_NS & 0xFFFFFFFF:08x}{number(f'{task_id} {kind} {when} {retries}', 8)}",
        "received_at": RECEIVED,
        "timestamp": moment(when),
        "time_unix_nano": when,
        "level": level,
        "severity_number": SEVERITY[level],
        "service": "worker",
        "message": f"Task {kind}",
        "event": f"celery.task.{kind}",
        "context": {"task_id": task_id, "correlation_id": f"corr-{task_id}"},
        "trace": trace,
        "attributes": attributes,
        **more,
    }


def story(task_id: str, begin: int, *kinds: str) -> Iterator[Document]:
    """The events of a task, a second apart; an attempt more behind each `retried`."""
    retries = 0
    for number, kind in enumerate(kinds):
        yield event(task_id, kind, begin + number * STEP_NS, retries)
        retries += kind == "retried"
