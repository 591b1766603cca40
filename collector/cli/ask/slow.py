"""`collector slow`: the slowest operations or traces."""

from typing import Any

import click

from collector.cli.ask.paging import checked, conditions, fetched, page_options, show
from collector.cli.ask.source import Asking
from collector.cli.render import Style, clip, duration, pairs
from collector.query.slow import DEFAULT_LIMIT, question

HELP = """
Show the slowest operations, the longest first: duration, service, name, trace.

\b
Examples:
  collector slow
  collector slow --traces --since 24h --min-duration 1s
  collector slow --service shop-api --name "POST /orders"
  collector slow --json | jq -r .trace_id | head -1 | xargs collector trace

The last hour is looked at unless --since says more; from --min-duration 1s on
that is quick however long the range is. It asks the collector at --endpoint;
when none runs there, it reads the store of --config. Times are UTC. Exit code 0
also when nothing matches.
"""


@click.command(help=HELP, short_help="Show the slowest operations or traces.")
@click.option("--name", metavar="NAME", help="The name of the span equals this.")
@click.option("--min-duration", metavar="DURATION", help="At least so long: 500ms, 2s, 1m30s.")
@click.option("--traces", is_flag=True, help="Whole traces, by their root spans.")
@page_options(DEFAULT_LIMIT)
def slow(*, asking: Asking, style: Style, as_json: bool, limit: int, **given: Any) -> None:
    """Ask, and print span by span."""
    asked = conditions(given)
    checked(question, asked)
    rows, said = fetched(asking, "slow", "spans", asked, limit)
    show(
        rows,
        said,
        lambda span: line(span, style),
        as_json=as_json,
        nothing="No span matches",
    )


def line(span: dict[str, Any], style: Style) -> str:
    """A span in one line; with `--verbose` its attributes, too."""
    parts = [
        f"{duration(span['duration_ms']):>10}",
        clip(span["service"]),
        clip(span["name"]) or "(no name)",
        style.time(span["start_unix_nano"]),
        f"trace {clip(span['trace_id'])}",
    ]
    if span["status"] == "ERROR":
        parts.append(style.paint("ERROR", {"fg": "red"}))
    text = "  ".join(parts)
    fields = [*span.get("attributes", {}).items(), *span.get("context", {}).items()]
    if style.verbose and fields:
        text += f"\n{' ' * 12}{pairs(fields)}"
    return text
