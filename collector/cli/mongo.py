"""
`collector mongo`: prepare a database before the collector writes to it.

The collector makes collections and indexes by itself; `init` is for those who want to see it first,
to have the indexes before the load, or to run the collector as a user that may only insert.
"""

import asyncio
from typing import Any

import click

from collector.cli.ask.source import open_store
from collector.cli.options import config_options
from collector.cli.render import clip, write
from collector.stores.base import dumps
from collector.stores.mongodb.store import MongoDB


@click.group()
def mongo() -> None:
    """Prepare a MongoDB: collections, indexes, retention, the view, sharding."""


@mongo.command("init")
@click.option("--dry-run", is_flag=True, help="Only say what is missing or different.")
@click.option("--sharded", is_flag=True, help="Print the commands that shard the collections.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option(
    "--store",
    envvar="COLLECTOR_STORE",
    metavar="URL",
    help="mongodb://host/database; else the first mongodb of the configuration.",
)
@config_options
def init(
    *,
    dry_run: bool,
    sharded: bool,
    as_json: bool,
    store: str | None,
    config: tuple[str, ...],
    sets: tuple[str, ...],
) -> None:
    """
    Make what the configuration wants and the database lacks, and report the rest.

    Nothing is dropped. Exit code 0 when everything is as configured, 1 when something is missing (dry
    run) or stays different because it is not ours.
    """
    opened: Any = open_store(store, config, sets, read_only=True, kind=MongoDB)
    if sharded:
        click.echo(opened.sharding())
        return

    async def run() -> Any:
        async with opened as mongodb:
            before = await mongodb.init(dry_run=True)
            return before, before if dry_run else await mongodb.init()

    before, found = asyncio.run(run())
    made = [each.what for each in before if each not in found]
    if made:
        counts = {
            noun: sum(what.startswith(f"the {noun}") for what in made)
            for noun in ("collection", "index", "view")
        }
        counts["other change"] = len(made) - sum(counts.values())
        shown = [f"{number} x {noun}" for noun, number in counts.items() if number]
        click.echo(f"{opened.describe()}: made {', '.join(shown)}.", err=True)
    for difference in found:
        if as_json:
            write(f"{dumps(difference).decode()}\n")
        else:
            click.echo(clip(f"{difference.collection}: {difference.what}"))
    if found:
        raise click.exceptions.Exit(1)
    click.echo(f"{opened.describe()} is as configured.", err=True)
