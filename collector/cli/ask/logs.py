"""
`collector logs`: log records that match, one per line, as text or as JSON.

The newest records are asked for and printed in order of time, as `tail` and `journalctl` do. More
than one page is fetched when `--limit` wants it. Finding nothing is no failure: a filter that
matches nothing is an answer, so the exit code is 0 and stderr says where it looked.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import click
import msgspec

from collector.cli.ask.source import Asking, Source, source_options
from collector.cli.render import Style, clip, log_line, output_options, write
from collector.query.parameters import LEVELS, BadParameter, log_query
from collector.query.searched import Searched

HELP = """
Show log records that match all the given conditions, the newest --limit of
them in order of time.

\b
Examples:
  collector logs --since 1h --level error
  collector logs --correlation-id c-42
  collector logs --service shop-api --where http.response.status_code=500
  collector logs --where context.organization_id=org_123 --since 7d --json
  collector logs --text "card declined" --since 2026-11-22T10:00 --oldest-first

It asks the collector at --endpoint; when none runs there, it reads the store of
--config (otel-collector.yaml). Times are UTC. Exit code 0 also when nothing matches.
"""

PAGE_ROWS: Final = 1000


_CONDITIONS: Final = (
    click.option("--correlation-id", metavar="X", help="The correlation id equals this."),
    click.option(
        "--trace-id", metavar="X", help="The trace: hex in any case, a UUID or a traceparent."
    ),
    click.option("--request-id", metavar="X", help="The request id equals this."),
    click.option("--task-id", metavar="X", help="The Celery task id equals this."),
    click.option("--order-id", metavar="X", help="The order id equals this."),
    click.option("--batch-run-id", metavar="X", help="The batch run id equals this."),
    click.option(
        "--level",
        type=click.Choice(list(LEVELS), case_sensitive=False),
        metavar="LEVEL",
        help="At least this level: debug, info, warning, error, critical.",
    ),
    click.option("--service", metavar="NAME", help="The service equals this."),
    click.option("--event", metavar="NAME", help="The event name equals this."),
    click.option(
        "--where",
        multiple=True,
        metavar="KEY=VALUE",
        help="An attribute or resource attribute equals this text; also context.KEY. Repeatable.",
    ),
    click.option("--text", metavar="TEXT", help="The message contains this, in any case."),
)


def condition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the conditions on log records: `where`, and each other one by its name."""
    for option in reversed(_CONDITIONS):
        command = option(command)
    return command


class _Page(msgspec.Struct):
    """A page of `GET /api/v1/logs` whose documents keep their bytes."""

    searched: Searched
    logs: list[msgspec.Raw] = []
    next: str | None = None


@click.command(help=HELP, short_help="Show log records that match.")
@condition_options
@click.option("--since", metavar="TIME", help="An age (15m, 1h, 7d) or a time (2026-11-22T10:00).")
@click.option("--until", metavar="TIME", help="As --since.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
@click.option(
    "--newest-first/--oldest-first",
    "newest_first",
    default=None,
    help="Print the newest first; or start with the oldest that match.",
)
@source_options
@output_options
def logs(
    *,
    asking: Asking,
    style: Style,
    as_json: bool,
    limit: int,
    newest_first: bool | None,
    where: tuple[str, ...],
    **conditions: str | None,
) -> None:
    """Ask page by page, and print."""
    pairs = [(name, given) for name, given in conditions.items() if given is not None]
    pairs += [("where", pair) for pair in where]
    pairs.append(("order", "oldest" if newest_first is False else "newest"))
    try:
        log_query(pairs, now_unix_nano=time.time_ns())
    except BadParameter as bad:
        hint = f"--{bad.parameter.replace('_', '-')}"
        raise click.BadParameter(bad.reason, param_hint=hint) from bad

    pages: list[_Page] = []

    async def question(source: Source) -> None:
        pages.clear()
        left, cursor = limit, None
        while left and (cursor or not pages):
            paging = [("limit", str(min(left, PAGE_ROWS)))]
            if cursor:
                paging.append(("cursor", cursor))
            page = read(await source.ask("logs", pairs + paging))
            pages.append(page)
            left -= len(page.logs)
            cursor = page.next

    asyncio.run(asking.ask(question))
    found = [log for page in pages for log in page.logs]
    if newest_first is None:
        found.reverse()
    for raw in found:
        if as_json:
            write(bytes(raw).decode() + "\n")
        else:
            write(log_line(msgspec.json.decode(raw), style) + "\n")
    if not found:
        click.echo(f"No log record matches in {clip(pages[0].searched.store)}.", err=True)
    elif pages[-1].next:
        click.echo(f"There are more than these {len(found)}; raise --limit or narrow.", err=True)


def read(body: bytes) -> _Page:
    """The page in a body."""
    try:
        return msgspec.json.decode(body, type=_Page)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"this is not the answer of a collector: {error}") from error
