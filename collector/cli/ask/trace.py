"""
`collector trace ID`: everything about one id, as a waterfall or as JSON.

What is found goes to stdout, and nothing else does. An unknown id is exit code 1, with what was
searched on stderr.
"""

import asyncio

import click
import msgspec

from collector.cli.ask.source import Asking, Source, source_options
from collector.cli.ask.waterfall import waterfall
from collector.cli.render import Style, clip, output_options, timestamp, write
from collector.query.searched import Range
from collector.query.trace import Answer, Row

HELP = """
Show everything about one id: its traces as waterfalls, with their log records.

ID is a trace id (hex in any case, a UUID, or a W3C traceparent), or a
correlation, request, task, order or batch run id.

\b
Examples:
  collector trace 0af7651916cd43dd8448eb211c80319c
  collector trace order-4711 --verbose
  collector trace order-4711 --errors --local
  collector trace order-4711 --json | jq '.traces[].trace_id'
  collector trace order-4711 --store sqlite:///data/otelier.db

It asks the collector at --endpoint; when none runs there, it reads the store of
--config (otel-collector.yaml). Times are UTC. Exit code 1: the id is unknown.
"""


@click.command(help=HELP, short_help="Show a trace and its logs, by any id.")
@click.argument("text", metavar="ID")
@click.option("--errors", is_flag=True, help="Only spans that failed, and those above them.")
@click.option("--depth", type=click.IntRange(1, 1000), help="Only so many levels; 1 is the roots.")
@source_options
@output_options
@click.pass_context
def trace(
    ctx: click.Context,
    text: str,
    asking: Asking,
    style: Style,
    *,
    as_json: bool,
    errors: bool,
    depth: int | None,
) -> None:
    """Ask, print, and exit with 1 when nothing is known."""
    if not text.strip():
        raise click.BadParameter("the id is empty", param_hint="ID")

    async def question(source: Source) -> bytes:
        return await source.trace(text)

    body = asyncio.run(asking.ask(question))
    answer = read(body)
    if as_json:
        write(body.decode() + "\n")
    elif answer.found:
        shown = narrowed(answer, errors=errors, depth=depth)
        write(waterfall(shown, style))
        hidden = sum(len(one.rows) for one in answer.traces)
        hidden -= sum(len(one.rows) for one in shown.traces)
        if hidden:
            click.echo(f"{hidden} span{'' if hidden == 1 else 's'} not shown.", err=True)
    if not answer.found:
        click.echo(not_found(answer), err=True)
        ctx.exit(1)


def read(body: bytes) -> Answer:
    """The answer in a body, its documents as plain JSON values."""
    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"this is not the answer of a collector: {error}") from error


def narrowed(answer: Answer, *, errors: bool, depth: int | None) -> Answer:
    """
    The same answer with fewer spans; the counts of its traces stay those of the whole.

    Args:
        answer: the whole.
        errors: keep spans that failed, and those above them.
        depth: keep so many levels; all when None.
    """
    traces = []
    for one in answer.traces:
        rows = [row for row in one.rows if depth is None or row.depth < depth]
        if errors:
            kept: list[Row] = []
            below = -1  # the least depth that a span above needs to lie on the way to a failure
            for row in reversed(rows):
                if row.span["status"] == "ERROR" or row.depth < below:
                    kept.append(row)
                    below = row.depth
            rows = kept[::-1]
        traces.append(msgspec.structs.replace(one, rows=rows))
    return msgspec.structs.replace(answer, traces=traces)


def not_found(answer: Answer) -> str:
    """What was searched in vain, and what to try next."""
    searched = answer.searched
    kinds = ", ".join(kind.replace("_", " ") for kind in searched.kinds)
    lines = [
        f"Not found: {clip(answer.id)}",
        f"  searched     {clip(searched.store)}",
        f"  as           {kinds}",
        f"  spans        {_range(searched.spans)}",
        f"  log records  {_range(searched.logs)}",
    ]
    if searched.spans is None and searched.logs is None:
        lines.append("The store is empty: does the application send to this collector?")
    else:
        lines.append(
            "Ids are compared whole. Something that just happened may arrive seconds later; "
            "`collector logs --text ...` searches messages."
        )
    return "\n".join(lines)


def _range(found: Range | None) -> str:
    if found is None:
        return "none stored"
    return f"from {timestamp(found.oldest_unix_nano)} to {timestamp(found.newest_unix_nano)} UTC"
