"""Fleet overview: what comes in, what fails, what is slow, and which service it is."""

from panels import (
    SERVICE,
    board,
    dashboard,
    lines,
    logql,
    logs,
    panel,
    prom,
    quantile,
    rate,
    rows_of_traces,
    stat,
    table,
    traceql,
    traces,
)

CALLS, TOOK = "traces_spanmetrics_calls_total", "traces_spanmetrics_duration_seconds"
ENTRY = {"service_name": "=~$service", "span_kind": "=~SPAN_KIND_SERVER|SPAN_KIND_CONSUMER"}
FAILED = {**ENTRY, "status_code": "STATUS_CODE_ERROR"}
WHERE = 'resource.service.name=~"${service:pipe}"'
ERRORS = '{service_name=~"$service"} | detected_level=~"error|critical|fatal"'
SAME = "(service_name, span_name)"


def operations(q: str, later: str = "") -> str:
    """A quantile by operation, now or some time ago."""
    chosen = '{service_name=~"$service"}'
    buckets = f"rate({TOOK}_bucket{chosen}[$__range]{later})"
    return f"histogram_quantile({q}, sum by (le, service_name, span_name) ({buckets}))"


DASHBOARD = dashboard(
    "otelier-fleet",
    "otelier: fleet",
    "Rate, errors and duration of every service, from its spans.",
    [SERVICE],
    [
        stat(
            "Requests",
            "How much comes in: requests and messages that a service began to work on.",
            prom(rate(CALLS, **ENTRY)),
            unit="reqps",
            links=traces(f"{{{WHERE}}}"),
        ),
        stat(
            "Failed",
            "Which share of them fails.",
            prom(f"({rate(CALLS, **FAILED)} or vector(0)) / {rate(CALLS, **ENTRY)}"),
            unit="percentunit",
            steps=(0.01, 0.05),
            links=traces(f"{{{WHERE} && status=error}}"),
        ),
        stat(
            "95 % are faster than",
            "How long one request in twenty takes at least.",
            prom(quantile(0.95, TOOK, **ENTRY)),
            unit="s",
            steps=(1, 5),
            links=traces(f"{{{WHERE} && duration>1s}}"),
        ),
        stat(
            "Errors logged a minute",
            "How many lines say error or worse.",
            logql(f"sum(count_over_time({ERRORS} [1m]))"),
            unit="short",
            links=logs(ERRORS),
        ),
        lines(
            "Requests by service",
            "Who gets them.",
            prom(rate(CALLS, "service_name", **ENTRY), "{{service_name}}"),
            width=8,
            unit="reqps",
            links=[traces(f"{{{WHERE}}}"), board("Routes", "otelier-http")],
        ),
        lines(
            "Failed share by service",
            "Whose requests fail.",
            prom(
                f"{rate(CALLS, 'service_name', **FAILED)} / {rate(CALLS, 'service_name', **ENTRY)}",
                "{{service_name}}",
            ),
            width=8,
            unit="percentunit",
            steps=(0.01, 0.05),
            links=[traces(f"{{{WHERE} && status=error}}"), board("Routes", "otelier-http")],
        ),
        lines(
            "95 % by service",
            "Who is slow; the dots are examples, with their traces.",
            prom(quantile(0.95, TOOK, "service_name", **ENTRY), "{{service_name}}", exemplars=True),
            width=8,
            unit="s",
            links=[traces(f"{{{WHERE} && duration>1s}}"), board("Routes", "otelier-http")],
        ),
        table(
            "Operations: what got worse",
            "Every operation with its rate and its 95 % now and an hour before; those that got worse are on top.",
            [
                prom(
                    f'sum by {SAME} (rate({CALLS}{{service_name=~"$service"}}[$__range]))',
                    form="table",
                ),
                prom(operations("0.95"), form="table"),
                prom(operations("0.95", " offset 1h"), form="table"),
                prom(f"{operations('0.95')} - {operations('0.95', ' offset 1h')}", form="table"),
            ],
            unit="s",
            renamed={
                "Value #A": "per second",
                "Value #B": "95 %",
                "Value #C": "95 % an hour before",
                "Value #D": "change",
                "service_name": "service",
                "span_name": "operation",
            },
            links=traces(f"{{{WHERE}}}"),
        ),
        panel(
            "nodeGraph",
            "Service map",
            "Who calls whom, with rate, failures and duration of each edge.",
            {**traceql("", table="traces"), "queryType": "serviceMap", "serviceMapQuery": ""},
            unit="short",
            size=(12, 10),
            links=traces(f"{{{WHERE}}}"),
        ),
        table(
            "Error groups",
            "Which exceptions there are, by service; the most frequent are on top.",
            logql(
                f'topk(20, sum by (service_name, exception_type) (count_over_time({ERRORS} | exception_type!="" [$__range])))',
                instant=True,
            ),
            width=12,
            unit="short",
            renamed={"Value #A": "times", "service_name": "service", "exception_type": "exception"},
            links=logs(f'{ERRORS} | exception_type!=""'),
        ),
        rows_of_traces(
            "Failed traces",
            "The newest traces in which something failed.",
            f"{{{WHERE} && status=error}}",
        ),
    ],
)
