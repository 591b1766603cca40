"""
Publish some tasks, as a web application would within a request, and wait for the last of them.

    opentelemetry-instrument --service_name shop python examples/celery_worker/send.py
"""

import sys

from celery.exceptions import TimeoutError as TooLate
from tasks import (
    charge_card,
    cleanup_expired_tokens,
    process_artifact_data,
    send_verification_email,
)

from telemetry import get_logger, log_context, span

logger = get_logger("shop")
WAIT_S = 60


def main() -> int:
    ids = {"correlation_id": "signup-4711", "tenant_id": "tenant-1", "user_id": "user-1"}
    with log_context(**ids), span("POST /signup"):
        logger.info("signup accepted")
        mail = send_verification_email.delay(user_id="user-1", template="welcome", busy_for=2)
        upload = process_artifact_data.delay("artifact-9", "tenant-1", "user-1")
    # Without a scope the ids come from the task's own arguments.
    charge = charge_card.delay(order_id="order-77", tenant_id="tenant-2")
    cleanup = cleanup_expired_tokens.delay()
    try:
        for name, task in (
            ("mail", mail),
            ("upload", upload),
            ("charge", charge),
            ("clean", cleanup),
        ):
            task.get(timeout=WAIT_S, propagate=False)
            print(f"{name} {task.state} {task.id}")
        for child in upload.children or ():
            child.get(timeout=WAIT_S)
    except TooLate:
        print("no worker takes these tasks: start it as tasks.py says", file=sys.stderr)
        return 1
    print("collector trace signup-4711")
    return 0


if __name__ == "__main__":
    sys.exit(main())
