"""
`collector queue`: what waits in a durable queue, and what to do about it.

`ls` and `peek` only read and may run beside the collector; what they show is a moment old. `replay`
and `drop` change the folder, which belongs to the collector while it runs: they say so when it does.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from collector.cli.options import config_options, load_config
from collector.cli.render import write
from collector.errors import Retryable
from collector.model import Host
from collector.otlp import encode_json, new_message
from collector.sending_queue.sender import DeadLetter, dead_letters_path, read_dead_letters
from collector.stats import Stats
from collector.wal.cursor import Cursor, file_name, limits, load_cursors
from collector.wal.files import Files
from collector.wal.format import SEGMENT_HEADER, Bad, Record, walk
from collector.wal.losses import Losses
from collector.wal.segments import Log
from collector.wal.storage import FileStorage

MISSING: Final = (
    "the configuration has no file_storage extension, so no queue is on disk; "
    "name a folder with --directory"
)

Run = Callable[..., Any]


@click.group()
def queue() -> None:
    """Look into durable queues: what waits, dead letters, cursors of removed exporters."""


def folder_options(command: Run) -> Run:
    """Add `--directory`, or `--config` and `--set`; the command receives `folder`."""

    @functools.wraps(command)
    def found(
        *, directory: str | None, config: tuple[str, ...], sets: tuple[str, ...], **others: Any
    ) -> Any:
        return command(folder=_folder(directory, config, sets), **others)

    option = click.option(
        "--directory",
        metavar="FOLDER",
        help="The folder of the queue; else that of the configuration's file_storage.",
    )
    return option(config_options(found))


def _folder(directory: str | None, config: tuple[str, ...], sets: tuple[str, ...]) -> Path:
    if directory is not None:
        found = [directory]
    else:
        loaded = load_config(config, sets)
        settings = [part.config for part in loaded.extensions.values()]
        found = [each.directory for each in settings if isinstance(each, FileStorage.Config)]
    if not found:
        raise click.ClickException(MISSING)
    if len(found) > 1:
        raise click.ClickException(f"there are several queues; name one: {', '.join(found)}")
    folder = Path(found[0])
    if not folder.is_dir():
        raise click.ClickException(f"there is no queue folder {folder}: nothing was stored there")
    return folder


as_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def _log(folder: Path) -> Log:
    log = Log(folder, Files(), time.time_ns, segment_bytes=1 << 30)
    log.look()
    return log


def _now() -> float:
    return time.time()


@queue.command("ls")
@folder_options
@as_json_option
def ls(*, folder: Path, as_json: bool) -> None:
    """Each exporter with a cursor: how much waits for it, since when, and its dead letters."""
    log = _log(folder)
    cursors, damaged = load_cursors(Files(), folder / "cursors")
    rows = []
    for name, cursor in sorted(cursors.items()):
        records = items = size = 0
        oldest: int | None = None
        for record in _waiting(log, cursor):
            records += 1
            items += record.items
            size += len(record.payload)
            received = record.request.received_at_unix_nano
            oldest = received if oldest is None else min(oldest, received)
        letters = sum(1 for _ in read_dead_letters(Files(), dead_letters_path(folder, name)))
        age = None if oldest is None else max(0.0, round(_now() - oldest / 1e9, 1))
        rows.append(
            {
                "exporter": name,
                "requests": records,
                "items": items,
                "bytes": size,
                "oldest_s": age,
                "dead_letters": letters,
            }
        )
    for row in rows:
        if as_json:
            write(f"{msgspec.json.encode(row).decode()}\n")
        else:
            waits = "nothing waits"
            if row["requests"]:
                waits = (
                    f"{row['requests']} requests wait ({row['items']} items, {row['bytes']} bytes, "
                    f"the oldest for {row['oldest_s']} s)"
                )
            click.echo(f"{row['exporter']}: {waits}; {row['dead_letters']} dead letters")
    if as_json:
        return
    aside = sorted(path.name for path in folder.glob("*.bad")) + damaged
    click.echo(f"{folder}: {len(log.segments)} files, {log.bytes} bytes")
    if aside:
        click.echo(f"damaged, kept aside: {', '.join(aside)}")
    losses = Losses(Files(), folder)
    losses.load()
    for text, _ in losses.found.values():
        click.echo(f"lost: {text}")


def _waiting(log: Log, cursor: Cursor) -> Iterator[Record]:
    """The records that an exporter has not delivered."""
    first = cursor.next
    for segment, limit in zip(log.segments, limits(log.segments), strict=True):
        if limit is not None and limit <= first:
            continue
        # A running collector may delete what it has delivered, and may be writing the last record.
        with contextlib.suppress(FileNotFoundError), log.reading(segment) as read:
            for _, found in walk(read, SEGMENT_HEADER, segment.end, segment.header.mark):
                if isinstance(found, Bad) or found.number < first:
                    continue
                if limit is not None and found.number >= limit:
                    break
                wanted = cursor.wants(found.route, found.number)
                if wanted and found.number not in cursor.done:
                    yield found


@queue.command("peek")
@click.argument("exporter")
@click.option("--limit", default=10, show_default=True, help="How many requests to show.")
@click.option("--dead-letters", is_flag=True, help="Show what the exporter rejected.")
@folder_options
def peek(*, folder: Path, exporter: str, limit: int, dead_letters: bool) -> None:
    """Print what waits for an exporter: one OTLP/JSON request per line, oldest first."""
    if dead_letters:
        letters = read_dead_letters(Files(), dead_letters_path(folder, exporter))
        for letter in itertools.islice(letters, limit):
            write(f"{_letter(letter)}\n")
        return
    cursors, _ = load_cursors(Files(), folder / "cursors")
    cursor = cursors.get(exporter)
    if cursor is None:
        raise click.ClickException(_unknown(exporter, sorted(cursors)))
    for record in itertools.islice(_waiting(_log(folder), cursor), limit):
        message = new_message(record.signal)
        message.ParseFromString(record.payload)
        write(f"{encode_json(message, record.signal).decode()}\n")


def _letter(letter: DeadLetter) -> str:
    batch = letter.batch()
    head = {
        "time": letter.time,
        "reason": letter.reason,
        "signal": letter.signal,
        "items": letter.items,
        "request": msgspec.Raw(encode_json(batch, letter.signal)),
    }
    return msgspec.json.encode(head).decode()


def _unknown(exporter: str, known: list[str]) -> str:
    return f'no exporter "{exporter}" has a cursor here; there are: {", ".join(known) or "none"}'


@queue.command("replay")
@click.argument("exporter")
@folder_options
def replay(*, folder: Path, exporter: str) -> None:
    """
    Put the dead letters of an exporter back into its queue.

    They are delivered, to this exporter only, when the collector runs again.
    """
    click.echo(f"{asyncio.run(_replay(folder, exporter))} dead letters are in the queue again")


async def _replay(folder: Path, exporter: str) -> int:
    path = dead_letters_path(folder, exporter)
    letters = deque(read_dead_letters(Files(), path))
    if not letters:
        raise click.ClickException(f'there are no dead letters of "{exporter}" in {folder}')
    cursors, _ = load_cursors(Files(), folder / "cursors")
    if exporter not in cursors:
        raise click.ClickException(_unknown(exporter, sorted(cursors)))
    settings = FileStorage.Config(directory=str(folder), create_directory=False)
    host = Host("queue", Stats(), logging.getLogger("collector.component.queue"))
    async with FileStorage(settings, host) as wal:
        for letter in letters:
            try:
                await wal.append(letter.batch(), f"@{exporter}", letter.items, again=True)
            except Retryable as full:
                raise click.ClickException(f"{full}; the dead letters stay as they are") from full
        path.rename(path.with_name(f"{path.stem}.replayed-{time.time_ns()}"))
        Files().sync_folder(path.parent)
    return len(letters)


@queue.command("acknowledge")
@folder_options
def acknowledge(*, folder: Path) -> None:
    """Say that you have seen what the queue has lost: the health of the collector is well again."""
    losses = Losses(Files(), folder)
    losses.load()
    for text in losses.acknowledge() if losses.found else ():
        click.echo(text)
    if not losses.acknowledged:
        click.echo("Nothing was lost.", err=True)


@queue.command("drop")
@click.argument("exporter")
@click.option("--dead-letters", is_flag=True, help="Delete its dead letters, keep its cursor.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@folder_options
def drop(*, folder: Path, exporter: str, dead_letters: bool, yes: bool) -> None:
    """Forget an exporter that was removed: what waits for it may then be deleted."""
    files = Files()
    cursors, _ = load_cursors(files, folder / "cursors")
    if dead_letters:
        path, what = dead_letters_path(folder, exporter), "its dead letters"
        if not path.exists():
            raise click.ClickException(f'there are no dead letters of "{exporter}" in {folder}')
    else:
        path, what = folder / "cursors" / f"{file_name(exporter)}.json", "what waits for it"
        if exporter not in cursors:
            raise click.ClickException(_unknown(exporter, sorted(cursors)))
    lock = files.lock(folder / "lock")
    try:
        if not yes:
            click.confirm(f'Give up {what} for "{exporter}"?', abort=True)
        if not dead_letters:
            losses = Losses(files, folder)
            losses.load()
            losses.know(name for name in cursors if name != exporter)
        files.unlink(path)
        files.sync_folder(path.parent)
    finally:
        files.close(lock)
    click.echo(f'"{exporter}" is forgotten' if not dead_letters else "the dead letters are deleted")
