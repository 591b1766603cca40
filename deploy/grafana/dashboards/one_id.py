"""One id: a trace, correlation, request, task or order id, and everything that knows it."""

from panels import dashboard, logs, rows_of_logs, rows_of_traces, text

IDS = (
    "span.correlation.id",
    "span.request.id",
    "span.celery.task.id",
    "span.order.id",
    "span.batch.run.id",
)
ANY = " || ".join(f'{name}="$id"' for name in (*IDS, "trace:id"))
LABELS = (
    "correlation_id",
    "request_id",
    "task_id",
    "celery_task_id",
    "order_id",
    "batch_run_id",
    "trace_id",
)
LINES = '{service_name=~".+"} | ' + " or ".join(f'{name}="$id"' for name in LABELS)

DASHBOARD = dashboard(
    "otelier-id",
    "otelier: one id",
    "Type any id: of a trace, a correlation, a request, a task, an order, a batch run.",
    [text("id", "id", "demo-1")],
    [
        rows_of_traces("Traces", "The traces in which the id is.", f"{{{ANY}}}"),
        rows_of_logs("Lines", "The lines that have the id.", LINES, height=18, link=logs(LINES)),
    ],
)
