"""The order fleet: each role of it, what it waits for, and what its steps cost."""

from panels import bars, choice, dashboard, lines, logs, prom, quantile, rate, stat, table, traces

OUTCOMES, ROLE = "order_process_outcomes_total", "order_worker_role"
CHOSEN = {ROLE: "=~$role"}
FAILED = {**CHOSEN, "order_outcome": "!=success"}
TRACES = traces('{span.order.worker.role=~"${role:pipe}"}')
BROKEN = traces('{span.order.worker.role=~"${role:pipe}" && status=error}')
LINES = logs(
    '{service_name=~".+"} | order_worker_role=~"$role" | detected_level=~"warn|error|critical|fatal"'
)


DASHBOARD = dashboard(
    "otelier-orders",
    "otelier: order fleet",
    "Workers by role: orders, waits, retries, and the time of each step.",
    [choice("role", "role", f"label_values({OUTCOMES}, {ROLE})")],
    [
        stat(
            "Orders",
            "How many steps of orders end, however they end.",
            prom(rate(OUTCOMES, **CHOSEN)),
            unit="reqps",
            links=TRACES,
        ),
        stat(
            "Failed",
            "Which share of them fails.",
            prom(f"({rate(OUTCOMES, **FAILED)} or vector(0)) / {rate(OUTCOMES, **CHOSEN)}"),
            unit="percentunit",
            steps=(0.05, 0.1),
            links=BROKEN,
        ),
        stat(
            "95 % are done within",
            "How long one step in twenty takes at least.",
            prom(quantile(0.95, "order_process_duration_seconds", **CHOSEN)),
            unit="s",
            links=TRACES,
        ),
        stat(
            "In hand",
            "How many orders are being worked on.",
            prom('sum(order_active{order_worker_role=~"$role"})'),
            unit="short",
            links=TRACES,
        ),
        lines(
            "Orders by role",
            "Who does how much.",
            prom(rate(OUTCOMES, ROLE, **CHOSEN), "{{order_worker_role}}"),
            width=8,
            unit="reqps",
            stacked=True,
            links=TRACES,
        ),
        lines(
            "Failed share by role",
            "Who fails.",
            prom(
                f"{rate(OUTCOMES, ROLE, **FAILED)} / {rate(OUTCOMES, ROLE, **CHOSEN)}",
                "{{order_worker_role}}",
            ),
            width=8,
            unit="percentunit",
            steps=(0.05, 0.1),
            links=[BROKEN, LINES],
        ),
        lines(
            "95 % by role",
            "Who is slow; the dots are examples, with their traces.",
            prom(
                quantile(0.95, "order_process_duration_seconds", ROLE, **CHOSEN),
                "{{order_worker_role}}",
                exemplars=True,
            ),
            width=8,
            unit="s",
            links=TRACES,
        ),
        lines(
            "Wait by role",
            "How long one order in twenty waits at least, before a role takes it.",
            prom(
                quantile(0.95, "order_wait_duration_seconds", ROLE, **CHOSEN),
                "wait for {{order_worker_role}}",
            ),
            unit="s",
            links=TRACES,
        ),
        lines(
            "Retries, fallbacks and pool errors by reason",
            "What had to be done twice, or another way.",
            [
                prom(
                    rate(f"order_process_{what}_total", f"{ROLE}, order_reason", **CHOSEN),
                    f"{word} {{{{order_worker_role}}}} {{{{order_reason}}}}",
                )
                for what, word in (
                    ("retries", "retry"),
                    ("fallbacks", "fallback"),
                    ("pool_errors", "pool error"),
                )
            ],
            unit="reqps",
            links=LINES,
        ),
        bars(
            "Cost of a step",
            "How long each step takes on the average.",
            prom(
                "sum by (order_step_name) (rate(order_step_time_seconds_total"
                '{order_worker_role=~"$role"}[$__range])) / sum by (order_step_name) '
                '(rate(order_step_runs_total{order_worker_role=~"$role"}[$__range]))',
                "{{order_step_name}}",
            ),
            unit="s",
            links=TRACES,
        ),
        table(
            "What roles count",
            "The counters that workers keep themselves, in this range of time.",
            prom(
                "sum by (order_worker_role, order_worker_counter) (increase(order_worker_counts_total"
                '{order_worker_role=~"$role"}[$__range]))',
                form="table",
            ),
            width=12,
            unit="short",
            renamed={"Value": "times", "order_worker_role": "role", "order_worker_counter": "what"},
            links=TRACES,
        ),
    ],
)
