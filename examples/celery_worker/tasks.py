r"""
A worker with four kinds of tasks; `send.py` beside it publishes some of each.

    opentelemetry-instrument --service_name worker \
        celery --workdir examples/celery_worker -A tasks worker --concurrency 2
    opentelemetry-instrument --service_name shop python examples/celery_worker/send.py
    collector trace signup-4711

It is ordinary Celery code. The wrapper records when each task started and how it ended, and gives
every line of a task its tenant, user, correlation id and trace. What the application adds are its
own lines, and for some steps the name of the operation.
"""

import os
import time

from celery import Celery, Task

from telemetry import get_logger, log_context

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("worker", broker=REDIS, backend=REDIS)
app.conf.update(
    task_default_queue="celery_worker_example",
    broker_connection_retry_on_startup=True,
    beat_schedule={"expired tokens": {"task": "cleanup_expired_tokens", "schedule": 3600.0}},
)
logger = get_logger(__name__)


class MailServerBusy(ConnectionError):
    """The mail server asks to come back later."""


@app.task(bind=True, name="send_verification_email", max_retries=5)
def send_verification_email(
    self: Task, *, user_id: str, template: str, busy_for: int = 0, tenant_id: str | None = None
) -> dict[str, str]:
    """Send a mail; a busy server is asked again after 1, 2, 4 ... tenths of a second."""
    with log_context(operation="email.send_verification", email_type="verification"):
        logger.info("sending verification email", template=template)
        try:
            deliver(attempt=self.request.retries, busy_for=busy_for)
        except MailServerBusy as error:
            raise self.retry(exc=error, countdown=0.1 * 2**self.request.retries) from error
        logger.info("verification email sent", tenant=tenant_id)
        return {"status": "sent", "user_id": user_id}


def deliver(*, attempt: int, busy_for: int) -> None:
    """Hand the mail over, which fails for the first `busy_for` attempts."""
    if attempt < busy_for:
        raise MailServerBusy("421 too many connections")


@app.task(name="process_artifact_data")
def process_artifact_data(
    artifact_id: str,
    tenant_id: str,  # noqa: ARG001 - telemetry reads both from the arguments
    user_id: str,  # noqa: ARG001
    rows: int = 3000,
) -> int:
    """Work for a while and say how far it is."""
    with log_context(operation="data.process_artifact", artifact_id=artifact_id):
        logger.info("artifact processing started", total_rows=rows)
        for row in range(rows):
            if row and row % 1000 == 0:
                logger.info("artifact processing", processed_rows=row, total_rows=rows)
        index_artifact.delay(artifact_id)
        logger.info("artifact processed", processed_rows=rows)
        return rows


@app.task(name="index_artifact")
def index_artifact(artifact_id: str) -> None:
    """A task of a task: it gets tenant, user and correlation id without being told."""
    logger.info("artifact indexed", artifact_id=artifact_id)


@app.task(name="cleanup_expired_tokens")
def cleanup_expired_tokens() -> int:
    """Maintenance, from beat or by hand."""
    with log_context(operation="maintenance.cleanup_tokens"):
        begun = time.perf_counter()
        removed = 42
        logger.info(
            "tokens cleaned up",
            removed_count=removed,
            cleanup_duration_ms=round((time.perf_counter() - begun) * 1000, 3),
        )
        return removed


@app.task(name="charge_card")
def charge_card(order_id: str, tenant_id: str) -> None:  # noqa: ARG001 - as above
    """Fail for good, so that there is a failure to look at."""
    with log_context(order_id=order_id):
        logger.info("charging card", amount=129.90)
        raise PermissionError(f"card of {order_id} was declined")
