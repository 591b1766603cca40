"""`collector errors`: what failed, grouped by what it means."""

from typing import Any

import click

from collector.cli.ask.paging import checked, conditions, fetched, page_options, show
from collector.cli.ask.source import Asking
from collector.cli.render import Style, clip
from collector.query.failures import DEFAULT_LIMIT, question

HELP = """
Show what failed, grouped: how often, since when, where, and a trace of it.

Failures are log records of level error and critical. They are one group when
their exception's type is the same and their message, too, apart from numbers,
ids and quoted texts.

\b
Examples:
  collector errors
  collector errors --since 7d --service shop-api --order recent
  collector errors --kind spans
  collector errors --json | jq -r 'select(.count > 100) | .trace_id'

The last hour is looked at unless --since says more. It asks the collector at
--endpoint; when none runs there, it reads the store of --config. Times are UTC.
Exit code 0 also when nothing failed.
"""


@click.command(help=HELP, short_help="Show what failed, grouped.")
@click.option(
    "--kind",
    type=click.Choice(["logs", "spans"]),
    help="Log records (the default), or spans with status ERROR.",
)
@click.option(
    "--order",
    type=click.Choice(["frequent", "recent"]),
    help="The most frequent first (the default), or the latest.",
)
@page_options(DEFAULT_LIMIT)
def errors(*, asking: Asking, style: Style, as_json: bool, limit: int, **given: Any) -> None:
    """Ask, and print group by group."""
    pairs = conditions(given)
    checked(question, pairs)
    rows, said = fetched(asking, "errors", "errors", pairs, limit)
    show(
        rows,
        said,
        lambda group: block(group, style),
        as_json=as_json,
        nothing="Nothing failed",
    )


def block(group: dict[str, Any], style: Style) -> str:
    """A group in two lines: how often and what; where, when and an example."""
    what = ": ".join(clip(group[key]) for key in ("type", "message") if group[key])
    count = style.paint(f"{group['count']:>8}", {"bold": True})
    where = [
        ", ".join(map(clip, group["services"])),
        f"first {style.time(group['first_unix_nano'])}",
        f"last {style.time(group['last_unix_nano'])}",
    ]
    if "trace_id" in group:
        where.append(f"trace {clip(group['trace_id'])}")
    what = style.paint(what or "(no message)", {"fg": "red"})
    return f"{count}  {what}\n{' ' * 10}{'  '.join(where)}"
