"""
Questions that are answered in pages: `errors`, `slow`, `tasks`.

They share how conditions are checked before a question is sent, how pages are fetched until `--limit`
is reached, and how the cursor of the next page is shown. With `--json` each row is one line.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec

from collector.cli.ask.source import Asking, Source, source_options
from collector.cli.render import clip, output_options, write
from collector.query.parameters import BadParameter
from collector.query.searched import Searched

PAGE_ROWS: Final = 1000

Pairs = list[tuple[str, str]]
T = TypeVar("T")


class Page(msgspec.Struct):
    """A page whose rows keep their bytes, and what is said about it."""

    searched: Searched
    next: str | None = None
    cut: list[str] = []


def conditions(given: dict[str, Any]) -> Pairs:
    """Options as (name, value) pairs of the HTTP API; what was not given is left out."""
    pairs = []
    for name, value in given.items():
        if value is True:
            pairs.append((name, "true"))
        elif value not in (None, False):
            pairs.append((name, str(value)))
    return pairs


def checked(question: Callable[..., T], pairs: Pairs) -> T:
    """
    What the pairs ask for.

    Raises:
        click.BadParameter: with the option and the fix.
    """
    try:
        return question(pairs, now_unix_nano=time.time_ns())
    except BadParameter as bad:
        raise usage(bad) from bad


def usage(bad: BadParameter) -> click.BadParameter:
    """A wrong parameter as a wrong option."""
    return click.BadParameter(bad.reason, param_hint=f"--{bad.parameter.replace('_', '-')}")


def fetched(
    asking: Asking, what: str, key: str, pairs: Pairs, limit: int
) -> tuple[list[bytes], Page]:
    """
    The rows of as many pages as it takes, as JSON, and what the last page says.

    Args:
        asking: whom.
        what: the question.
        key: where the rows stand in a page.
        pairs: its conditions, and the cursor to begin with.
        limit: how many rows at most.
    """
    rows: list[bytes] = []
    said: list[Page] = []

    async def ask(source: Source) -> None:
        rows.clear()
        some = pairs
        while True:
            paging = [("limit", str(min(limit - len(rows), PAGE_ROWS)))]
            body = await source.ask(what, some + paging)
            try:
                page = msgspec.json.decode(body, type=Page)
                parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
                found = msgspec.json.decode(
                    parts.get(key, msgspec.Raw(b"[]")), type=list[msgspec.Raw]
                )
            except msgspec.DecodeError as error:
                text = f"this is not the answer of a collector: {error}"
                raise click.ClickException(text) from error
            rows.extend(bytes(each) for each in found)
            said[:] = [page]
            if page.next is None or len(rows) >= limit:
                return
            some = [pair for pair in pairs if pair[0] != "cursor"] + [("cursor", page.next)]

    asyncio.run(asking.ask(ask))
    return rows, said[0]


def show(
    rows: Sequence[bytes],
    said: Page,
    line: Callable[[Any], str],
    *,
    as_json: bool,
    nothing: str,
) -> None:
    """Print rows to stdout, and what is to be said about them to stderr."""
    for row in rows:
        write((row.decode() if as_json else line(msgspec.json.decode(row))) + "\n")
    if not rows:
        click.echo(f"{nothing} in {clip(said.searched.store)}.", err=True)
    for sentence in said.cut:
        click.echo(f"Not complete: {clip(sentence)}.", err=True)
    if said.next is not None:
        click.echo(f"There are more; go on with --cursor {clip(said.next)}", err=True)


def page_options(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a verb `--since`, `--until`, `--service`, `--limit`, `--cursor` and where to ask."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        found = source_options(output_options(command))
        for option in reversed(
            (
                click.option(
                    "--since",
                    metavar="TIME",
                    help="An age (15m, 1h, 7d) or a time (2026-11-22T10:00).",
                ),
                click.option("--until", metavar="TIME", help="As --since."),
                click.option("--service", metavar="NAME", help="The service equals this."),
                click.option(
                    "--limit", type=click.IntRange(1, 100_000), default=default, show_default=True
                ),
                click.option(
                    "--cursor", metavar="CURSOR", help="Go on where the page before ended."
                ),
            )
        ):
            found = option(found)
        return found

    return decorate
