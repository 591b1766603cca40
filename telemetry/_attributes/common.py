"""
Names of every program: ids of a scope, where and what was logged, requests, events, delivery.

`telemetry.attributes` has them all; import from there.
"""

from typing import Final

# --- ids of a scope: set by the app, carried across processes, stamped on every span and log ---

CORRELATION_ID: Final = "correlation.id"
"""One id for everything that one cause set off, across services, tasks and retries."""
REQUEST_ID: Final = "request.id"
"""One id per HTTP request."""
TENANT_ID: Final = "tenant.id"
"""The tenant on whose behalf the work is done."""
ORGANIZATION_ID: Final = "organization.id"
"""The organisation on whose behalf the work is done."""
USER_ID: Final = "user.id"
"""The user on whose behalf the work is done; an id or a hash, never a name or an e-mail."""
CONVERSATION_ID: Final = "conversation.id"
"""The chat of the application; not an LLM thread (`gen_ai.conversation.id`)."""
SESSION_ID: Final = "session.id"
"""The client's session."""
TASK_ID: Final = "celery.task.id"
"""The id of a Celery task, the same over its retries."""
ORDER_ID: Final = "order.id"
"""The order that a worker of the fleet handles."""
BATCH_RUN_ID: Final = "batch.run.id"
"""One run of a batch."""
OPERATION: Final = "operation.name"
"""What the code is doing, in words of the domain: `email.send_verification`."""

CONTEXT: Final[dict[str, str]] = {
    CORRELATION_ID: "correlation_id",
    REQUEST_ID: "request_id",
    TENANT_ID: "tenant_id",
    ORGANIZATION_ID: "organization_id",
    USER_ID: "user_id",
    CONVERSATION_ID: "conversation_id",
    SESSION_ID: "session_id",
    TASK_ID: "task_id",
    ORDER_ID: "order_id",
    BATCH_RUN_ID: "batch_run_id",
    OPERATION: "operation",
}
"""Attribute -> key in the `context` of a document and of a log line, and keyword in the API."""

LOOKUP: Final = ("correlation_id", "request_id", "task_id", "order_id", "batch_run_id")
"""The ids of `context` that `collector trace <id>` finds a trace by; every store indexes them."""

# --- where a log record was made (semantic conventions, stable) ---

CODE_FUNCTION: Final = "code.function.name"
"""The function that logged, fully qualified where known."""
CODE_FILE: Final = "code.file.path"
"""The source file that logged."""
CODE_LINE: Final = "code.line.number"
"""The line that logged."""

# --- exceptions: recorded once, as a log record (semantic conventions, stable) ---

EXCEPTION_TYPE: Final = "exception.type"
"""The exception's class, fully qualified."""
EXCEPTION_MESSAGE: Final = "exception.message"
"""The exception's text."""
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
"""The rendered traceback."""
ERROR_TYPE: Final = "error.type"
"""Why an operation failed, in few distinct values; absent on success."""

# --- a timed block (LogContext, a finished request or task) ---

EXECUTION_TIME_MS: Final = "operation.execution_time_ms"
"""How long the block took, in milliseconds; `trace.execution_time_ms` of the stored log."""
EXECUTION_STATUS: Final = "operation.status"
"""How the block ended: `success`, `error` or `cancelled`; `trace.status` of the stored log."""
OPERATION_DURATION: Final = "operation.duration"
"""Histogram in seconds: how long blocks took, by `operation.name`, `operation.status`, `error.type`."""

DURATION_BUCKETS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(30, 60, 120, 300, 600, 1800, 3600),
)
"""Bucket boundaries of every duration: those of HTTP in the conventions, and longer ones for tasks."""

# --- HTTP requests (semantic conventions, stable) ---

HTTP_METHOD: Final = "http.request.method"
"""The method; `_OTHER` for one that HTTP does not know."""
HTTP_ROUTE: Final = "http.route"
"""The route's template: `/orders/{order_id}`; absent when no route matched."""
HTTP_STATUS: Final = "http.response.status_code"
"""The status of the answer; absent when the client left before there was one."""
URL_PATH: Final = "url.path"
"""The path as it was asked for, without the query."""
HTTP_EXCEPTION: Final = "http.server.request.exception"
"""Event: the exception that a request ended with, with its stack."""

# --- identity of a record and of this distribution ---

LOG_UID: Final = "log.record.uid"
"""An id made by the producer; records with the same uid are the same record."""
SERVICE_NAME: Final = "service.name"
"""The service; `service` of every document."""
DISTRO_NAME: Final = "telemetry.distro.name"
"""`otelier`, on the resource."""
DISTRO_VERSION: Final = "telemetry.distro.version"
"""The version of otelier, on the resource."""

# --- business events and the audit stream (track, audit) ---

AUDIT_STREAM: Final = "audit.stream"
"""The stream that a process writes: a random id, new after a fork; records that have it are audit records."""
AUDIT_SEQUENCE: Final = "audit.sequence"
"""1, 2, 3 ... within `audit.stream`: a missing number is a lost record."""
AUDIT_MONOTONIC_NS: Final = "audit.monotonic_ns"
"""Nanoseconds on a clock that never runs backwards; comparable within one host since its boot."""
AUDIT_ACTOR: Final = "audit.actor"
"""Who did it: a person's or a program's id."""
TRACK_INVALID: Final = "track.invalid_name"
"""The event whose name was not a static dotted name; the name that was given is an attribute."""
TRACK_GIVEN: Final = "track.given_name"
"""What was given as the name of an event, when it was not a static dotted name."""

# --- delivery health: what becomes of the telemetry itself ---

DELIVERY_SIGNAL: Final = "delivery.signal"
"""`traces`, `metrics` or `logs`."""
DELIVERY_OUTCOME: Final = "delivery.outcome"
"""`delivered` or `dropped` (then `error.type` has the reason)."""
DELIVERY_PRODUCED: Final = "delivery.produced.records"
"""Counter: records that the program made; the sum of delivered, dropped, spooled and unsent ones."""
DELIVERY_RECORDS: Final = "delivery.records"
"""Counter: what became of spans, metric points and log records, by signal and outcome."""
DELIVERY_SUCCESS_RATIO: Final = "delivery.success_ratio"
"""Gauge: delivered / (delivered + dropped) over the last five minutes."""
DELIVERY_UNSENT_RECORDS: Final = "delivery.unsent.records"
"""Gauge: how many records wait to be delivered."""
DELIVERY_UNSENT_AGE: Final = "delivery.unsent.age"
"""Gauge in seconds: how long the oldest of them has waited; it grows while the collector is away."""
DELIVERY_SPOOLED_RECORDS: Final = "delivery.spooled.records"
"""Gauge: how many records of this process lie in the spool."""
DELIVERY_ADOPTED_RECORDS: Final = "delivery.adopted.records"
"""Counter: what became of records that earlier processes had left in the spool."""
DELIVERY_DURATION: Final = "delivery.duration"
"""Histogram in seconds: from a record's emission until the collector has taken it."""
