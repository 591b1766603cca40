"""One tenant: what it asks for, what fails for it, and what is said about it."""

from panels import dashboard, lines, logs, rows_of_logs, rows_of_traces, text, traceql, traces

MINE = 'span.tenant.id="$tenant"'
BAD = f"{{{MINE} && status=error}}"
LINES = '{service_name=~".+"} | tenant_id="$tenant"'

DASHBOARD = dashboard(
    "otelier-tenant",
    "otelier: one tenant",
    "Everything about one tenant; type its id.",
    [text("tenant", "tenant", "tenant-2")],
    [
        lines(
            "Spans by service",
            "How much is done for this tenant.",
            traceql(f"{{{MINE}}} | rate() by (resource.service.name)"),
            width=8,
            unit="reqps",
            links=[traces(f"{{{MINE}}}"), logs(LINES)],
        ),
        lines(
            "Failed by service",
            "What fails for it.",
            traceql(f"{BAD} | rate() by (resource.service.name)"),
            width=8,
            unit="reqps",
            links=[traces(BAD), logs(LINES)],
        ),
        lines(
            "95 % by service",
            "How long it waits.",
            traceql(f"{{{MINE}}} | quantile_over_time(duration, 0.95) by (resource.service.name)"),
            width=8,
            unit="s",
            links=traces(f"{{{MINE} && duration>1s}}"),
        ),
        rows_of_traces("Its failures", "The newest traces that failed for it.", BAD),
        rows_of_logs("Its lines", "What was logged about it.", LINES, link=logs(LINES)),
    ],
)
