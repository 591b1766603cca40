"""`collector traces`, `services`, `operations` and `metrics`: what there is, without knowing an id."""

import asyncio
from typing import Any, Final

import click
import msgspec

from collector.cli.ask.paging import Pairs, checked, conditions, fetched, page_options, show
from collector.cli.ask.source import Asking, Source, source_options
from collector.cli.render import Style, clip, duration, output_options, pairs, write
from collector.query import inventory, metric_series
from collector.query import traces as listing
from collector.query.metric_series import Point, Values

TRACES: Final = """
Show recent traces, or the slowest: start, duration, service, name, spans, trace id.

\b
Examples:
  collector traces
  collector traces --errors --since 24h --service shop-api
  collector traces --slowest --min-duration 1s
  collector traces --json | jq -r .trace_id | head -1 | xargs collector trace

A trace is listed when one of its spans meets all conditions, at the place of the
newest (or longest) span that does. Exit code 0 also when nothing matches.
"""

SERVICES: Final = """
Show which services have sent spans or log records.

\b
Examples:
  collector services
  collector services --since 7d --json | jq 'select(.errors > 0).name'
"""

OPERATIONS: Final = """
Show operations: how often they run and fail, and how long they take.

\b
Examples:
  collector operations
  collector operations --service shop-api --order slow --since 24h
  collector operations --all --json

Only spans that begin the work on a request or task count, unless --all is given.
"""

METRICS: Final = """
Show which metrics are stored, or with NAME the values of one over time.

\b
Examples:
  collector metrics
  collector metrics http.server.request.duration --since 6h --step 10m
  collector metrics http.server.request.duration --group-by service,http.route
"""

TIMES: Final = (
    click.option(
        "--since", metavar="TIME", help="An age (15m, 1h, 7d) or a time; 1h unless given."
    ),
    click.option("--until", metavar="TIME", help="As --since; now unless given."),
)


@click.command(help=TRACES, short_help="Show recent or slowest traces.")
@click.option("--operation", metavar="NAME", help="A span of this name.")
@click.option("--errors", is_flag=True, help="A span that failed.")
@click.option("--min-duration", metavar="DURATION", help="A span of at least 500ms, 2s, 1m30s.")
@click.option("--slowest", is_flag=True, help="The longest first; the newest first otherwise.")
@page_options(listing.DEFAULT_LIMIT)
def traces(
    *, slowest: bool, asking: Asking, style: Style, as_json: bool, limit: int, **given: Any
) -> None:
    """Ask, and print trace by trace."""
    asked = conditions(given)
    asked += [("order", "slowest")] if slowest else []
    checked(listing.question, asked)
    rows, said = fetched(asking, "traces", "traces", asked, limit)
    show(
        rows, said, lambda row: _trace(row, style), as_json=as_json, nothing="No trace matches"
    )  # fmt: skip


def _count(number: int, word: str, *, more: bool = False) -> str:
    return f"{number}{'+' if more else ''} {word}{'' if number == 1 else 's'}"


def _trace(row: dict[str, Any], style: Style) -> str:
    spans, errors = row["spans"], row.get("errors", 0)
    failed = style.paint(f"{errors} failed", {"fg": "red"}) if errors else ""
    parts = [
        style.time(row["start_unix_nano"]),
        f"{duration(row['duration_ms']):>10}",
        clip(row["service"]),
        (clip(row["name"]) or "(no name)") + ("" if row.get("root") else " (root not stored)"),
        _count(spans, "span", more=row.get("more_spans", False)),
        failed,
        f"trace {clip(row['trace_id'])}",
    ]
    text = "  ".join(filter(None, parts))
    if style.verbose:
        services = [(part["name"], part["spans"]) for part in row["services"]]
        matched = row["matched"]
        text += f"\n{' ' * 25}spans of {pairs(services)}"
        text += f"\n{' ' * 25}here for {clip(matched['service'])} {clip(matched['name'])}"
        text += f" {duration(matched['duration_ms'])} span {clip(matched['span_id'])}"
    return text


@click.command(help=SERVICES, short_help="Show the services that have sent something.")
@TIMES[0]
@TIMES[1]
@click.option(
    "--limit", type=click.IntRange(1, 5000), default=inventory.MOST_SERVICES, show_default=True
)
@source_options
@output_options
def services(*, asking: Asking, style: Style, as_json: bool, limit: int, **given: Any) -> None:
    """Ask, and print service by service."""
    asked = conditions(given)
    checked(inventory.services_question, asked)
    rows, said = fetched(asking, "services", "services", asked, limit)
    show(
        rows, said, lambda row: _service(row, style), as_json=as_json, nothing="No service has sent"
    )  # fmt: skip


def _service(row: dict[str, Any], style: Style) -> str:
    counts = [
        _count(row.get(key, 0), word)
        for key, word in (("spans", "span"), ("requests", "request"), ("logs", "log record"))
    ]
    failed = [
        style.paint(_count(row[key], word), {"fg": "red"})
        for key, word in (("errors", "failed span"), ("error_logs", "error record"))
        if row.get(key)
    ]
    first, last = style.time(row["first_unix_nano"]), style.time(row["last_unix_nano"])
    return "  ".join([clip(row["name"]), *counts, *failed, f"first {first}", f"last {last}"])


@click.command(help=OPERATIONS, short_help="Show how often operations run, fail, and how long.")
@click.option("--all", "every", is_flag=True, help="Spans of every kind.")
@click.option(
    "--order",
    type=click.Choice(("count", "errors", "slow", "name")),
    default="count",
    help="The most frequent, failing or slow (p95) first, or by name.",
)
@page_options(100)
def operations(
    *, every: bool, asking: Asking, style: Style, as_json: bool, limit: int, **given: Any
) -> None:
    """Ask, and print operation by operation."""
    asked = conditions(given)
    asked += [("kind", "all")] if every else []
    checked(inventory.operations_question, asked)
    rows, said = fetched(asking, "operations", "operations", asked, limit)
    show(
        rows, said, lambda row: _operation(row, style), as_json=as_json, nothing="No operation ran"
    )  # fmt: skip


def _operation(row: dict[str, Any], style: Style) -> str:
    failed = style.paint(f"{row['errors']} failed", {"fg": "red"}) if row.get("errors") else ""
    times = "  ".join(f"{key} {duration(row[f'{key}_ms'])}" for key in ("p50", "p95", "p99", "max"))
    parts = [
        f"{row['count']:>8}",
        f"{row['rate_per_s']:.3g}/s",
        clip(row["service"]),
        clip(row["name"]) or "(no name)",
        row.get("kind", ""),
        failed,
        times,
    ]
    return "  ".join(filter(None, parts))


@click.command(help=METRICS, short_help="Show metrics, or the values of one over time.")
@click.argument("name", required=False)
@click.option("--group-by", metavar="NAMES", help="With NAME: attributes that tell series apart.")
@click.option("--step", metavar="TIME", help="With NAME: how far apart values are (30s, 5m).")
@click.option("--where", metavar="KEY=VALUE", multiple=True, help="With NAME: an attribute.")
@page_options(inventory.MOST_SERVICES)
def metrics(
    *,
    name: str | None,
    group_by: str | None,
    step: str | None,
    where: tuple[str, ...],
    asking: Asking,
    style: Style,
    as_json: bool,
    limit: int,
    **given: Any,
) -> None:
    """Ask, and print metric by metric, or series by series."""
    if name is None:
        if group_by or step or where:
            raise click.UsageError("--group-by, --step and --where need the NAME of a metric")
        asked = conditions(given)
        checked(inventory.metrics_question, asked)
        rows, said = fetched(asking, "metrics", "metrics", asked, limit)
        show(
            rows,
            said,
            lambda row: _metric(row, style),
            as_json=as_json,
            nothing="No metric is stored",
        )
        return
    if given.pop("cursor", None):
        raise click.UsageError("--cursor goes without a NAME: values have no pages")
    asked = conditions({**given, "group_by": group_by, "step": step})
    asked += [("name", name), ("limit", str(min(limit, metric_series.MOST)))]
    asked += [("where", pair) for pair in where]
    checked(metric_series.question, asked)
    _values(asking, asked, style, as_json=as_json)


def _metric(row: dict[str, Any], style: Style) -> str:
    about = " ".join(filter(None, (clip(row.get("type", "")), clip(row.get("unit", "")))))
    services = ", ".join(map(clip, row.get("services", ())))
    last = style.time(row["last_unix_nano"])
    parts = [clip(row["name"]), about, services, _count(row["points"], "point"), f"last {last}"]
    return "  ".join(filter(None, [*parts, clip(row.get("description", ""))]))


def _values(asking: Asking, asked: Pairs, style: Style, *, as_json: bool) -> None:
    async def question(source: Source) -> bytes:
        return await source.ask("metrics/series", asked)

    body = asyncio.run(asking.ask(question))
    try:
        answer = msgspec.json.decode(body, type=Values)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"this is not the answer of a collector: {error}") from error
    if as_json:
        write(body.decode() + "\n")
        return
    for one in answer.series:
        write(
            style.paint(f"{clip(answer.name)} {pairs(one.labels.items())}", {"bold": True}) + "\n"
        )
        for point in one.points:
            write(f"  {style.time(point.time_unix_nano)}  {_point(point)}\n")
    if answer.series:
        unit = f" ({clip(answer.unit)})" if answer.unit else ""
        click.echo(f"{answer.values} every {answer.step_s:g} s{unit}.", err=True)
    else:
        click.echo(f"No values in {clip(answer.searched.store)}.", err=True)
    for sentence in answer.cut:
        click.echo(f"Not complete: {clip(sentence)}.", err=True)


def _point(point: Point) -> str:
    text = f"{point.value:.6g}"
    for name in ("count", "p50", "p95", "p99"):
        if (found := getattr(point, name)) is not None:
            text += f"  {name} {found:.6g}"
    return text
