"""
The parts that dashboards are made of: queries, panels, links, variables, and the layout.

Plain dicts in Grafana's dashboard schema 39, which every Grafana from 10 on reads. There are libraries that
write this schema; none of them knows the panel for traces, and all are larger than what is needed of them here.
A panel cannot be made without unit, description, query and link, so that none of the four is ever missing.

Colours have one meaning everywhere: red failed, orange retried or warned, purple waiting, grey-blue the rest.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

Json = dict[str, Any]

SCHEMA: Final = 39
WIDTH: Final = 24
GREY_BLUE: Final = "#7a8ba8"
SOURCES: Final = {
    "prom": ("prometheus", "Prometheus", "prometheus"),
    "tempo": ("tempo", "Traces", "otelier-traces"),
    "loki": ("loki", "Logs", "otelier-logs"),
}
COLOURS: Final = (
    ("/fail|error|refused|lost|dead|5\\d\\d|critical|fatal|timeout/i", "red", False),
    ("/retr|warn|fallback|redeliver|overlap|4\\d\\d/i", "orange", False),
    ("/wait|queue|unsent|before/i", "purple", True),
)


# --- queries ---


def source(name: str) -> Json:
    """A reference to the data source of a variable."""
    return {"type": SOURCES[name][0], "uid": f"${{{name}}}"}


def prom(expr: str, legend: str = "", *, exemplars: bool = False, form: str = "") -> Json:
    """
    A PromQL query.

    Args:
        expr: the query.
        legend: what a series is called, with `{{label}}`.
        exemplars: whether to show exemplars.
        form: "table" asks once, for now; "heatmap" wants buckets.
    """
    found: Json = {"datasource": source("prom"), "expr": expr, "legendFormat": legend or "__auto"}
    if exemplars:
        found["exemplar"] = True
    if form == "table":
        found |= {"format": "table", "instant": True, "range": False}
    elif form:
        found["format"] = form
    return found


def logql(expr: str, legend: str = "", *, instant: bool = False) -> Json:
    """A LogQL query: lines, or numbers made of lines; `instant` asks once, over the whole range."""
    kind = "instant" if instant else "range"
    return {
        "datasource": source("loki"),
        "expr": expr,
        "queryType": kind,
        **({"legendFormat": legend} if legend else {}),
    }


def traceql(query: str, *, table: str = "traces", limit: int = 20) -> Json:
    """A TraceQL query; with a function of metrics behind `|` it is a time series."""
    return {
        "datasource": source("tempo"),
        "queryType": "traceql",
        "query": query,
        "tableType": table,
        "limit": limit,
    }


def rate(metric: str, by: str = "", **labels: str) -> str:
    """What a counter grows by in a second, in all or by labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{braces(labels)}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "", **labels: str) -> str:
    """A quantile of a histogram; `histogram` is its name without `_bucket`."""
    inner = f"le, {by}" if by else "le"
    buckets = f"rate({histogram}_bucket{braces(labels)}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by ({inner}) ({buckets}))"


def braces(labels: dict[str, str]) -> str:
    """Matchers: a value that begins with an operator has it, others are equal."""
    parts = []
    for name, text in labels.items():
        found = re.match(r"(=~|!~|!=)(.*)", text)
        operator, value = (found[1], found[2]) if found else ("=", text)
        parts.append(f'{name}{operator}"{value}"')
    return "{" + ",".join(parts) + "}" if parts else ""


# --- links ---


def encoded(text: str) -> str:
    """Percent-encoding that leaves Grafana's variables as they are."""
    parts = re.split(r"(\$\{[^}]+\})", text)
    return "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)


def explore(title: str, name: str, query: Json) -> Json:
    """A link to Explore with a query, in the same range of time."""
    kind, _, uid = SOURCES[name]
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": uid}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = encoded(json.dumps({"a": pane}, separators=(",", ":")))
    return {"title": title, "url": f"/explore?schemaVersion=1&orgId=1&panes={panes}"}


def traces(query: str) -> Json:
    """A link to the traces of a panel."""
    return explore("Traces", "tempo", {"queryType": "traceql", "query": query, "limit": 50})


def logs(query: str) -> Json:
    """A link to the log lines of a panel."""
    return explore("Logs", "loki", {"expr": query, "queryType": "range"})


def board(title: str, uid: str) -> Json:
    """A link to another dashboard, with variables and time kept."""
    url = f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}"
    return {"title": title, "url": url}


def numbers(query: str) -> Json:
    """A link to the numbers behind a panel, by the labels that it leaves out."""
    return explore("Numbers by cause", "prom", {"expr": query})


# --- panels ---


def panel(
    kind: str,
    title: str,
    question: str,
    queries: Json | Sequence[Json],
    *,
    unit: str,
    links: Json | Sequence[Json],
    size: tuple[int, int],
    steps: tuple[float, float] | None = None,
    options: Json | None = None,
    custom: Json | None = None,
    **more: Any,
) -> Json:
    """
    Any panel.

    Args:
        kind: of Grafana's panels.
        title: what is shown.
        question: the question that it answers, as its description.
        queries: one or more; they get the letters A, B, ...
        unit: of its values, as Grafana calls it.
        links: where its traces, its logs or the numbers behind it are.
        size: width of 24, and height.
        steps: from where on it is orange and red; only where an alert or a promise has the numbers.
        options: of this kind of panel.
        custom: how fields are drawn.
        more: further keys.
    """
    asked = [queries] if isinstance(queries, dict) else list(queries)
    linked = [links] if isinstance(links, dict) else list(links)
    ladder: list[Json] = [{"color": "text", "value": None}]
    if steps:
        ladder += [{"color": "orange", "value": steps[0]}, {"color": "red", "value": steps[1]}]
    overrides = [
        {
            "matcher": {"id": "byRegexp", "options": pattern},
            "properties": [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}},
                *([dashes()] if dashed and kind == "timeseries" else []),
            ],
        }
        for pattern, colour, dashed in COLOURS
        if kind in ("timeseries", "barchart")
    ]
    colour = {"mode": "thresholds"} if kind in ("stat", "bargauge", "gauge") else None
    return {
        "type": kind,
        "title": title,
        "description": question,
        "datasource": asked[0]["datasource"],
        "targets": [{"refId": chr(65 + n), **each} for n, each in enumerate(asked)],
        "links": [{"targetBlank": False, **each} for each in linked],
        "gridPos": {"w": size[0], "h": size[1]},
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "color": colour or {"mode": "shades", "fixedColor": GREY_BLUE},
                "thresholds": {"mode": "absolute", "steps": ladder},
                "custom": custom or {},
            },
            "overrides": overrides,
        },
        "options": options or {},
        **more,
    }


def dashes() -> Json:
    """A dashed line."""
    return {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 4]}}


def stat(
    title: str, question: str, queries: Json | Sequence[Json], *, width: int = 6, **more: Any
) -> Json:
    """One number with a sparkline."""
    options = {
        "graphMode": "area",
        "colorMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel("stat", title, question, queries, size=(width, 4), options=options, **more)


def lines(
    title: str,
    question: str,
    queries: Json | Sequence[Json],
    *,
    width: int = 12,
    stacked: bool = False,
    bars: bool = False,
    **more: Any,
) -> Json:
    """A time series."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 20 if stacked else 0,
        "stacking": {"mode": "normal" if stacked or bars else "none"},
        "spanNulls": False,
        "showPoints": "never",
    }
    if more.get("steps"):
        custom["thresholdsStyle"] = {"mode": "line"}
    options = {
        "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel(
        "timeseries",
        title,
        question,
        queries,
        size=(width, 8),
        custom=custom,
        options=options,
        **more,
    )


def bars(
    title: str, question: str, queries: Json | Sequence[Json], *, width: int = 12, **more: Any
) -> Json:
    """Bars beside each other, for now."""
    options = {"orientation": "horizontal", "displayMode": "gradient"}
    return panel("bargauge", title, question, queries, size=(width, 8), options=options, **more)


def table(
    title: str,
    question: str,
    queries: Json | Sequence[Json],
    *,
    width: int = 24,
    renamed: dict[str, str] | None = None,
    **more: Any,
) -> Json:
    """Rows; several queries are joined by their labels, `renamed` says what the columns are called."""
    count = 1 if isinstance(queries, dict) else len(queries)
    steps: list[Json] = [{"id": "merge", "options": {}}] if count > 1 else []
    organize = {"excludeByName": {"Time": True}, "renameByName": renamed or {}}
    steps.append({"id": "organize", "options": organize})
    return panel("table", title, question, queries, size=(width, 8), transformations=steps, **more)


def heat(title: str, question: str, query: Json, *, width: int = 12, **more: Any) -> Json:
    """A heat map of the buckets of a histogram."""
    options = {
        "calculate": False,
        "yAxis": {"unit": more["unit"]},
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 32},
        "cellGap": 1,
    }
    return panel("heatmap", title, question, query, size=(width, 8), options=options, **more)


def rows_of_logs(title: str, question: str, query: str, *, height: int = 10, link: Json) -> Json:
    """Log lines."""
    options = {"showTime": True, "wrapLogMessage": True, "enableLogDetails": True}
    asked = logql(query)
    size = (24, height)
    return panel(
        "logs", title, question, asked, unit="short", links=link, size=size, options=options
    )


def rows_of_traces(title: str, question: str, query: str, *, width: int = 24) -> Json:
    """Traces, the newest first; a click opens one."""
    return panel(
        "table",
        title,
        question,
        traceql(query),
        unit="short",
        links=traces(query),
        size=(width, 9),
    )


# --- a dashboard ---


def choice(
    name: str, label: str, query: str, *, every: bool = True, kind: str = "prom", only: str = ""
) -> Json:
    """
    A variable with the values of a label.

    Args:
        name: of the variable.
        label: what stands before it.
        query: `label_values(metric, label)`; of Loki, the label.
        every: whether several values, and all of them, can be chosen.
        kind: of the data source.
        only: a regular expression between slashes that values must match.
    """
    asked: Any = query
    if kind == "loki":
        asked = {"label": query, "stream": "", "type": 1, "refId": "A"}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": source(kind),
        "query": asked,
        "regex": only,
        "refresh": 2,
        "sort": 1,
        "multi": every,
        "includeAll": every,
        "allValue": ".+",
        **({"current": {"text": "All", "value": "$__all"}} if every else {}),
    }


def text(name: str, label: str, value: str = "") -> Json:
    """A variable that is typed."""
    current = {"text": value, "value": value}
    return {"type": "textbox", "name": name, "label": label, "query": value, "current": current}


SERVICE: Final = choice(
    "service", "service", "label_values(traces_spanmetrics_calls_total, service_name)"
)


def dashboard(
    uid: str, title: str, description: str, variables: Sequence[Json], panels: Sequence[Json]
) -> Json:
    """
    A dashboard.

    Args:
        uid: under which links find it.
        title: its name.
        description: what it is for.
        variables: beside those of the data sources.
        panels: in the order in which they are read, from left to right.
    """
    x = y = height = 0
    placed = []
    for number, each in enumerate(panels, 1):
        size = each["gridPos"]
        if x + size["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        placed.append({"id": number, **each, "gridPos": {"x": x, "y": y, **size}})
        x, height = x + size["w"], max(height, size["h"])
    sources = [
        {
            "type": "datasource",
            "name": name,
            "label": label.lower(),
            "query": kind,
            "current": {"text": label, "value": where},
            "hide": 2,
        }
        for name, (kind, label, where) in SOURCES.items()
    ]
    deployments = {
        "name": "Deployments",
        "datasource": source("loki"),
        "enable": True,
        "iconColor": "blue",
        "expr": '{service_name=~".+"} | event_name="service.deployed"',
        "titleFormat": "{{service_name}}",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["otelier"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "otelier",
                "tags": ["otelier"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "annotations": {"list": [deployments]},
        "templating": {"list": [*sources, *variables]},
        "panels": placed,
    }
