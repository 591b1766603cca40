"""Logs: how many of which level, and the lines."""

from panels import choice, dashboard, lines, logql, logs, rows_of_logs, text, traces

CHOSEN = '{service_name=~"$service"} |~ "(?i)$text"'
TRACES = traces('{resource.service.name=~"${service:pipe}"}')

DASHBOARD = dashboard(
    "otelier-logs",
    "otelier: logs",
    "Lines of the chosen services; a line leads to its trace.",
    [choice("service", "service", "service_name", kind="loki"), text("text", "text")],
    [
        lines(
            "Lines by level",
            "How much is logged, and how bad it is.",
            logql(
                f"sum by (detected_level) (count_over_time({CHOSEN} [$__auto]))",
                "{{detected_level}}",
            ),
            width=24,
            bars=True,
            unit="short",
            links=[logs(CHOSEN), TRACES],
        ),
        rows_of_logs(
            "Lines",
            "The newest on top; open one for its fields and its trace.",
            CHOSEN,
            height=20,
            link=TRACES,
        ),
    ],
)
