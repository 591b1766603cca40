"""
`collector tail`: new log records as they are stored.

It begins with the last records that are there, and then prints what comes, until Ctrl-C or
`--limit`. A collector that is restarted and a store that is away for a while are waited for: no
record is missed, none is printed twice. Where that cannot be said, stderr says so.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import click
import msgspec

from collector.cli.ask.logs import condition_options
from collector.cli.ask.paging import checked, usage
from collector.cli.ask.source import Asking, Source, source_options
from collector.cli.render import Style, clip, log_line, output_options, write
from collector.query.parameters import BadParameter
from collector.query.tail import DEFAULT_LINES, MAX_LINES, Line, Lines, question
from collector.stores.base import Document, dumps

HELP = """
Print new log records as they are stored, until Ctrl-C; the last --lines of
those that are there come first.

\b
Examples:
  collector tail
  collector tail --level error --service shop-api
  collector tail --where context.organization_id=org_123 --lines 0 --json
  collector tail --limit 1 --event order.failed   # wait for it

It asks the collector at --endpoint; when none runs there, it follows the store
of --config. Records come in the order in which they are stored; a queue that is
emptied after an outage shows old ones late. Times are UTC. Ctrl-C ends it with
exit code 130 and says with which --cursor it can go on.
"""


@click.command(help=HELP, short_help="Print new log records as they come.")
@condition_options
@click.option("--since", metavar="TIME", help="Only records of this time or later: 15m, 1h, 7d.")
@click.option(
    "--lines",
    type=click.IntRange(0, MAX_LINES),
    metavar="N",
    help=f"How many of the records that are there to begin with; {DEFAULT_LINES} unless given.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many records.")
@click.option("--cursor", metavar="CURSOR", help="Go on where an earlier tail ended.")
@source_options
@output_options
def tail(
    *,
    asking: Asking,
    style: Style,
    as_json: bool,
    limit: int | None,
    where: tuple[str, ...],
    **conditions: str | int | None,
) -> None:
    """Follow, and print."""
    pairs = [(name, str(given)) for name, given in conditions.items() if given is not None]
    pairs += [("where", pair) for pair in where]
    checked(question, pairs)
    position = ""

    async def follow(source: Source) -> None:
        nonlocal position
        left = limit
        lines: AsyncGenerator[Lines, None] = source.tail(pairs)
        async with contextlib.aclosing(lines):
            async for found in lines:
                for line in found.lines:
                    if line.log is None:
                        _said(line)
                        continue
                    _printed(line.log, style, as_json=as_json)
                    left = None if left is None else left - 1
                    if left == 0:
                        return
                position = found.position

    try:
        asyncio.run(asking.ask(follow))
    except BadParameter as bad:
        raise usage(bad) from bad
    except KeyboardInterrupt:
        if position:
            click.echo(f"\nGo on with --cursor {clip(position)}", err=True)
        raise click.exceptions.Exit(130) from None


def _printed(log: Document, style: Style, *, as_json: bool) -> None:
    body = dumps(log)
    write((body.decode() if as_json else log_line(msgspec.json.decode(body), style)) + "\n")


def _said(line: Line) -> None:
    if line.gap:
        click.echo(f"Gap: {clip(line.gap)}.", err=True)
    if line.trouble:
        click.echo(f"Waiting: {clip(line.trouble)}", err=True)
