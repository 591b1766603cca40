"""Celery: what waits, what runs, how it ends, by queue and by task."""

from panels import (
    choice,
    dashboard,
    lines,
    logql,
    logs,
    prom,
    quantile,
    rate,
    rows_of_logs,
    stat,
    table,
    traces,
)

OUTCOMES, WAIT = "celery_task_outcomes_total", "celery_task_wait_duration_seconds"
RUN = "messaging_process_duration_seconds"
CHOSEN = {"messaging_destination_name": "=~$queue", "celery_task_name": "=~$task"}
FAILED = {**CHOSEN, "celery_task_state": "FAILURE"}
TRACES = traces('{span.messaging.destination.name=~"${queue:pipe}" && kind=consumer}')
ENDS = '{service_name=~".+"} | celery_task_name=~"$task" | messaging_destination_name=~"$queue"'
ERRORS = f'{ENDS} | detected_level=~"warn|error|critical|fatal"'
LOST = '{service_name=~".+"} | event_name="celery.task.lost"'
BY_TASK = "celery_task_name"


def of_range(metric: str, **labels: str) -> str:
    """A rate by task over the whole range, for a table."""
    return rate(metric, BY_TASK, **labels).replace("$__rate_interval", "$__range")


DASHBOARD = dashboard(
    "otelier-celery",
    "otelier: Celery",
    "Tasks and queues; what a worker without its wrapper would not say.",
    [
        choice("queue", "queue", f"label_values({OUTCOMES}, messaging_destination_name)"),
        choice("task", "task", f"label_values({OUTCOMES}, celery_task_name)"),
    ],
    [
        stat(
            "Wait in the queue",
            "How long one task in twenty waits at least, before a worker takes it.",
            prom(quantile(0.95, WAIT, messaging_destination_name="=~$queue")),
            unit="s",
            steps=(5, 60),
            links=TRACES,
        ),
        stat(
            "Ended a second",
            "How many runs end, however they end.",
            prom(rate(OUTCOMES, **CHOSEN)),
            unit="reqps",
            links=TRACES,
        ),
        stat(
            "Failed",
            "Which share of the runs fails.",
            prom(f"({rate(OUTCOMES, **FAILED)} or vector(0)) / {rate(OUTCOMES, **CHOSEN)}"),
            unit="percentunit",
            steps=(0.05, 0.1),
            links=logs(ERRORS),
        ),
        stat(
            "Lost",
            "Tasks whose process died with them, in this range of time.",
            logql(f"sum(count_over_time({LOST} [$__range])) or vector(0)", instant=True),
            unit="short",
            steps=(1, 1),
            links=logs(LOST),
        ),
        lines(
            "Wait by queue",
            "Which queue is behind.",
            prom(
                quantile(
                    0.95, WAIT, "messaging_destination_name", messaging_destination_name="=~$queue"
                ),
                "wait in {{messaging_destination_name}}",
            ),
            unit="s",
            steps=(5, 60),
            links=TRACES,
        ),
        lines(
            "How runs end",
            "Success, failure, retry, and the rarer ones.",
            prom(rate(OUTCOMES, "celery_task_state", **CHOSEN), "{{celery_task_state}}"),
            unit="reqps",
            stacked=True,
            links=[TRACES, logs(ERRORS)],
        ),
        lines(
            "Failed share by task",
            "Which task fails.",
            prom(
                f"{rate(OUTCOMES, BY_TASK, **FAILED)} / {rate(OUTCOMES, BY_TASK, **CHOSEN)}",
                "{{celery_task_name}}",
            ),
            unit="percentunit",
            steps=(0.05, 0.1),
            links=logs(ERRORS),
        ),
        lines(
            "Retries by cause",
            "Which exception makes tasks run again.",
            prom(
                rate(OUTCOMES, "error_type", **{**CHOSEN, "celery_task_state": "RETRY"}),
                "{{error_type}}",
            ),
            unit="reqps",
            links=logs(ERRORS),
        ),
        lines(
            "Running",
            "How many runs of each task are in hand, on the average: as many processes does it keep busy.",
            prom(rate(f"{RUN}_sum", BY_TASK, **CHOSEN), "{{celery_task_name}}"),
            unit="short",
            stacked=True,
            links=TRACES,
        ),
        lines(
            "Run time by task",
            "95 % of the runs are faster than this.",
            prom(quantile(0.95, RUN, BY_TASK, **CHOSEN), "{{celery_task_name}}", exemplars=True),
            unit="s",
            links=TRACES,
        ),
        lines(
            "Redelivered and overlapping",
            "Runs of a message that a worker had before, and runs of one task at the same time.",
            [
                prom(
                    "sum by (messaging_destination_name) (increase(celery_task_redeliveries_total[5m]))",
                    "redelivered {{messaging_destination_name}}",
                ),
                prom(
                    "sum by (messaging_destination_name) (increase(celery_task_overlaps_total[5m]))",
                    "overlapping {{messaging_destination_name}}",
                ),
            ],
            unit="short",
            links=TRACES,
        ),
        table(
            "Wait against run",
            "For each task, what it waits and what it runs: a long wait beside a short run asks for more workers.",
            [
                prom(
                    quantile(0.95, metric, BY_TASK, celery_task_name="=~$task").replace(
                        "$__rate_interval", "$__range"
                    ),
                    form="table",
                )
                for metric in (WAIT, RUN)
            ]
            + [prom(of_range(OUTCOMES, **CHOSEN), form="table")],
            width=12,
            unit="s",
            renamed={
                "Value #A": "wait, 95 %",
                "Value #B": "run, 95 %",
                "Value #C": "per second",
                "celery_task_name": "task",
            },
            links=TRACES,
        ),
        rows_of_logs(
            "What workers say",
            "Lines of the chosen tasks that warn or worse.",
            ERRORS,
            link=logs(ERRORS),
        ),
    ],
)
