"""
`collector migrate`: everything of one store into another, and a comparison at the end.

Progress is a bar on a terminal and a plain line each few seconds elsewhere, both on stderr; the
comparison is on stdout. The journal lies beside the SQLite file that takes part (else in the
working folder), and is deleted when everything has been compared and is equal.

The target is opened so that nothing in it is deleted meanwhile: collections that are new get the
retention of `--config`, or unlimited without one, until the collector starts on them.
"""

import asyncio
import contextlib
import datetime
import time
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from collector.cli.ask.source import named_store
from collector.cli.options import config_options, load_config
from collector.cli.render import clip, write
from collector.stores.base import dumps
from collector.stores.migration import Compared, Copied, Journal, Report, compare, copy, patiently
from collector.stores.retention import DAYS, UNLIMITED, table
from collector.stores.routing import OWN_NAME

HELP = """
Move everything from one store to another: spans, log records with their
collections, metric points, trails, dead letters, daily statistics.

\b
Examples:
  collector migrate --from sqlite:///data/telemetry.db --to mongodb://localhost/telemetry
  collector migrate --from mongodb://localhost/telemetry --to sqlite:///copy.db
  collector migrate --from ... --to ... --verify-only

Nothing is stored twice, however often it runs; a run that was interrupted goes on
where it stopped. In the end every document is compared. Exit code 1: the target
lacks something, or has it with another content; stdout says what. The source is
only read. An SQLite target must not be in use by a collector.
"""

LINE_S: Final = 5.0
"""A plain line of progress comes so often."""


class Row(msgspec.Struct):
    """One collection, as `--json` prints it."""

    collection: str
    equal: bool
    documents: int
    found: int
    expired: int
    different: int
    digest_from: str
    digest_to: str
    examples: list[str]
    refused: dict[str, int]


@click.command(help=HELP, short_help="Move everything from one store to another.")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="URL",
    help="sqlite:///path or mongodb://host/database",
)
@click.option("--to", "target", required=True, metavar="URL", help="The same for the target.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where it is noted how far the move is; beside the SQLite file unless given.",
)
@click.option("--verify-only", is_flag=True, help="Only compare; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per collection.")
@config_options
@click.pass_context
def migrate(
    ctx: click.Context,
    *,
    source: str,
    target: str,
    journal: Path | None,
    verify_only: bool,
    as_json: bool,
    config: tuple[str, ...],
    sets: tuple[str, ...],
) -> None:
    """Copy, compare, and say what is different."""
    if source == target:
        raise click.BadParameter("the target is the source", param_hint="--to")
    given = _settings(config, sets, target)
    path = journal or _beside(source, target)

    async def run() -> list[Row]:
        async with named_store(source, hint="--from") as reader:
            copied: dict[str, Copied] = {}
            noted = None
            if not verify_only:
                sizes = await patiently(reader.sizes)
                writer = named_store(
                    target, hint="--to", read_only=False, settings=_kept(given, sizes)
                )
                noted = Journal(path, reader.describe(), writer.describe())
                if noted.resumed:
                    click.echo(f"Going on where {path} says that the last run stopped.", err=True)
                async with writer:
                    noted.save()
                    with progress("copying") as report:
                        copied = await copy(reader, writer, noted, report)
            # Another instance: closing the first one has finished what it does by itself.
            async with named_store(target, hint="--to") as moved:
                with progress("comparing") as report:
                    now = datetime.datetime.now(datetime.UTC)
                    kept = table(given.get("retention", {}))
                    results = await compare(reader, moved, kept, report, now)
            if noted is not None:
                noted.forget()
            return [_row(result, copied.get(result.collection)) for result in results]

    rows = asyncio.run(run())
    for row in rows:
        write((dumps(row).decode() if as_json else line(row)) + "\n")
    if not rows:
        click.echo("The source holds nothing.", err=True)
    if not all(row.equal for row in rows):
        click.echo(
            "The target is not complete. Running the same command again looks at everything anew.",
            err=True,
        )
        ctx.exit(1)


def _kept(given: Mapping[str, Any], sizes: Iterable[str]) -> dict[str, Any]:
    """The target's settings: unless the configuration says more, nothing in it is deleted."""
    own = [name for name in sizes if OWN_NAME.fullmatch(name)]
    forever = dict.fromkeys((*DAYS, *own), UNLIMITED)
    return {"retention": forever, **given}


def _row(result: Compared, copied: Copied | None) -> Row:
    return Row(
        **{name: getattr(result, name) for name in result.__struct_fields__},
        equal=result.equal,
        refused=copied.refused if copied else {},
    )


def line(row: Row) -> str:
    """A collection in one line, its differences below."""
    said = f"{row.collection:<18} {row.documents:>12} documents  {row.found:>12} in the target"
    if row.expired:
        said += f"  {row.expired} gone by retention"
    said += f"  {row.digest_from}  " + ("equal" if row.equal else "DIFFERENT")
    if not row.equal:
        missing = row.documents - row.found - row.expired
        said += f"\n    {missing} missing, {row.different} with another content"
        for reason, count in row.refused.items():
            said += f"\n    {count} rejected by the target ({reason}): its dead letters"
        said += "".join(f"\n    {clip(each)}" for each in row.examples)
    return said


def _settings(config: tuple[str, ...], sets: tuple[str, ...], target: str) -> dict[str, Any]:
    """Routes and retention of the target's kind in the configuration, if one is named."""
    if not config:
        return {}
    kind = "sqlite" if target.startswith("sqlite") else "mongodb"
    for part in load_config(config, sets).exporters.values():
        if part.type == kind:
            settings: Any = part.config
            return {"retention": dict(settings.retention), "events": dict(settings.events)}
    raise click.ClickException(f"the configuration has no {kind} exporter; leave --config out")


def _beside(source: str, target: str) -> Path:
    """The journal of a move: its name is made of both ends, and shows none of them."""
    mark = blake2b(f"{source}\0{target}".encode(), digest_size=6).hexdigest()
    for url in (source, target):
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite":
            path = Path(rest[1:])
            return path.with_name(f"{path.name}.migrate-{mark}.json")
    return Path(f"migrate-{mark}.json")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Report]:
    """Something to report progress to."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, what) as report:
            yield report
        return
    shown = ("", 0.0)

    def plain(name: str, documents: int, total: int) -> None:
        nonlocal shown
        text, now = f"{what} {name}: {documents} of {total}", time.monotonic()
        if text != shown[0] and (documents >= total or now - shown[1] >= LINE_S):
            shown = (text, now)
            click.echo(text, err=True)

    yield plain


@contextlib.contextmanager
def _bar(console: Console, what: str) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, documents: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"{what} {name}", total=total)
            bar.update(tasks[name], completed=documents, total=total)

        yield report
