"""
`collector dead-letters`: documents that the store can never keep, and what to do about them.

These are the dead letters of a store, whichever it is; those of a queue, whole requests that an exporter
rejected, are `collector queue`. `ls` and `show` only read, and may run beside the collector. `retry`
and `drop` write: beside a collector on MongoDB they may, an SQLite file belongs to the collector
while it runs, and the store says so.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import click

from collector.cli.ask.source import open_store
from collector.cli.options import config_options
from collector.cli.render import clip, write
from collector.stores.base import DeadLetter, Store, dumps
from collector.stores.dead_letters import PAGE

T = TypeVar("T")
Run = Callable[..., Any]

_COLUMNS: Final = ("id", "received_at", "collection", "reason", "size", "document_id")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at documents that the store can never keep, write them again, or delete them."""


def store_options(command: Run) -> Run:
    """Add `--store`, `--config` and `--set`; the command receives `asking`."""

    @functools.wraps(command)
    def asked(
        *, store: str | None, config: tuple[str, ...], sets: tuple[str, ...], **others: Any
    ) -> Any:
        return command(asking=(store, config, sets), **others)

    option = click.option(
        "--store",
        envvar="COLLECTOR_STORE",
        metavar="URL",
        help="The store: sqlite:///path or mongodb://...; else that of the configuration.",
    )
    return option(config_options(asked))


Where = tuple[str | None, tuple[str, ...], tuple[str, ...]]


def _with(asking: Where, question: Callable[[Store], Awaitable[T]], *, read_only: bool) -> T:
    """Run a question on the store that is meant."""

    async def run() -> T:
        async with open_store(*asking, read_only=read_only) as store:
            return await question(store)

    return asyncio.run(run())


async def _letters(store: Store) -> AsyncIterator[DeadLetter]:
    after = ""
    while page := await store.dead_letters(limit=PAGE, after=after):
        after = page[-1].id
        for letter in page:
            yield letter


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "received_at": letter.received_at,
        "signal": letter.signal,
        "collection": letter.collection,
        "reason": letter.reason,
        "size": len(letter.data),
        "document_id": letter.document_id,
    }


@dead_letters.command("ls")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@store_options
def ls(*, asking: Where, as_json: bool) -> None:
    """List the dead letters: when, where, why, how large; the documents are left out."""

    async def question(store: Store) -> int:
        count = 0
        async for letter in _letters(store):
            count += 1
            row = _row(letter)
            row["received_at"] = letter.received_at.isoformat(timespec="seconds")
            line = dumps(row).decode() if as_json else "  ".join(str(row[key]) for key in _COLUMNS)
            write((line if as_json else clip(line)) + "\n")
        return count

    if not _with(asking, question, read_only=True):
        click.echo("There are no dead letters.", err=True)


@dead_letters.command("show")
@click.argument("letter_id")
@store_options
def show(*, asking: Where, letter_id: str) -> None:
    """Print the document of a dead letter, as JSON."""

    async def question(store: Store) -> DeadLetter | None:
        async for letter in _letters(store):
            if letter.id == letter_id:
                return letter
        return None

    found = _with(asking, question, read_only=True)
    if found is None:
        raise click.ClickException(f"there is no dead letter {clip(letter_id)}")
    write(found.data.decode(errors="replace") + "\n")


@dead_letters.command("retry")
@click.argument("letter_ids", nargs=-1)
@store_options
def retry(*, asking: Where, letter_ids: tuple[str, ...]) -> None:
    """Write the documents of all dead letters, or of those named, again; what the store takes is forgotten."""

    async def question(store: Store) -> tuple[int, int]:
        return await rewrite(store, letter_ids)

    taken, remain = _with(asking, question, read_only=False)
    click.echo(f"{taken} stored, {remain} rejected again")
    if remain:
        raise click.exceptions.Exit(1)


@dead_letters.command("drop")
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_options
def drop(*, asking: Where, letter_ids: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Delete dead letters, with the documents in them."""
    if bool(letter_ids) == everything:
        raise click.UsageError("name the dead letters to delete, or say --all")
    if not yes:
        what = "all dead letters" if everything else f"{len(letter_ids)} dead letters"
        click.confirm(f"Delete {what} for good?", abort=True)

    async def question(store: Store) -> int:
        wanted = set(letter_ids)
        ids = [letter.id async for letter in _letters(store) if everything or letter.id in wanted]
        return await store.forget(ids)

    click.echo(f"{_with(asking, question, read_only=False)} dead letters are deleted")


async def rewrite(store: Store, ids: Sequence[str] = ()) -> tuple[int, int]:
    """
    Write dead letters again.

    Args:
        store: open for writing.
        ids: only these; all of them when empty.

    Returns:
        How many were taken (and forgotten), and how many remain.
    """
    taken = remain = 0
    after = ""
    while page := await store.dead_letters(limit=PAGE, after=after):
        after = page[-1].id
        for each in page:
            if ids and each.id not in ids:
                continue
            try:
                document = each.document()
            except ValueError:
                remain += 1
                continue
            written = await store.write(each.signal, [document])
            if written.refused:
                remain += 1
            else:
                await store.forget([each.id])
                taken += 1
    return taken, remain
