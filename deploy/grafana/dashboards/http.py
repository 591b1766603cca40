"""HTTP routes: rate, failures and duration of each, and what the time below them goes to."""

from panels import (
    SERVICE,
    bars,
    board,
    choice,
    dashboard,
    heat,
    lines,
    logs,
    prom,
    quantile,
    rate,
    traces,
)

CALLS, TOOK = "traces_spanmetrics_calls_total", "traces_spanmetrics_duration_seconds"
SERVER = {
    "span_kind": "SPAN_KIND_SERVER",
    "service_name": "=~$service",
    "http_route": "=~$route",
}
BROKEN = {**SERVER, "http_response_status_code": "=~5.."}
WHERE = 'resource.service.name=~"${service:pipe}" && span.http.route!=nil'
SLOW = traces(f"{{{WHERE} && duration>500ms}}")
FAILED = traces(f"{{{WHERE} && status=error}}")
ERRORS = logs('{service_name=~"$service"} | detected_level=~"error|critical|fatal"')
BUDGET = 0.005


def burn(window: str) -> str:
    """How many times too fast the budget is used up, over a window."""
    found = '{span_kind="SPAN_KIND_SERVER",service_name=~"$service",http_route=~"$route"'
    broken = f'sum(rate({CALLS}{found},http_response_status_code=~"5.."}}[{window}]))'
    return f"({broken} or vector(0)) / sum(rate({CALLS}{found}}}[{window}])) / {BUDGET}"


DASHBOARD = dashboard(
    "otelier-http",
    "otelier: HTTP routes",
    "Each route of the services that answer HTTP.",
    [SERVICE, choice("route", "route", "label_values(traces_spanmetrics_calls_total, http_route)")],
    [
        lines(
            "Requests by route",
            "Which routes are asked.",
            prom(rate(CALLS, "http_route", **SERVER), "{{http_route}}"),
            unit="reqps",
            stacked=True,
            links=[traces(f"{{{WHERE}}}"), board("Fleet", "otelier-fleet")],
        ),
        lines(
            "Requests by status",
            "What they are answered with.",
            prom(
                rate(CALLS, "http_response_status_code", **SERVER), "{{http_response_status_code}}"
            ),
            unit="reqps",
            stacked=True,
            links=traces(f"{{{WHERE}}}"),
        ),
        lines(
            "Failed share by route",
            "Which routes answer with 500 and more.",
            prom(
                f"{rate(CALLS, 'http_route', **BROKEN)} / {rate(CALLS, 'http_route', **SERVER)}",
                "{{http_route}}",
            ),
            unit="percentunit",
            steps=(0.01, 0.05),
            links=[FAILED, ERRORS],
        ),
        lines(
            "How long they take",
            "Half, 95 % and 99 % of the requests are faster than this; the dots are examples, with their traces.",
            [
                prom(quantile(q, TOOK, **SERVER), f"{q:.0%}", exemplars=q == 0.95)
                for q in (0.5, 0.95, 0.99)
            ],
            unit="s",
            links=SLOW,
        ),
        heat(
            "Durations",
            "How the durations are spread: two bands are two kinds of requests.",
            prom(
                f"sum by (le) (increase({TOOK}_bucket"
                '{span_kind="SPAN_KIND_SERVER",service_name=~"$service",http_route=~"$route"}[$__rate_interval]))',
                "{{le}}",
                form="heatmap",
            ),
            unit="s",
            links=SLOW,
        ),
        bars(
            "Where the time goes below",
            "Seconds a second that the services spend in calls to others: databases, queues, APIs.",
            prom(
                f"topk(10, {rate(TOOK + '_sum', 'span_name', span_kind='=~SPAN_KIND_CLIENT|SPAN_KIND_PRODUCER', service_name='=~$service')})",
                "{{span_name}}",
            ),
            unit="s",
            links=traces('{resource.service.name=~"${service:pipe}" && kind=client}'),
        ),
        lines(
            "Burn of the objective 99.5 %",
            "How many times faster than allowed requests fail: 14.4 uses up 2 % of a month's budget in an hour, 6 uses "
            "up 5 % in six hours.",
            [prom(burn(window), window) for window in ("5m", "1h", "6h")],
            width=24,
            unit="short",
            steps=(6, 14.4),
            links=[FAILED, ERRORS],
        ),
    ],
)
