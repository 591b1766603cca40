"""
`collector query`: one LogQL query, asked of a collector, of a store or of files.

Files need no server: the query is evaluated here. Otherwise it goes to the Loki API of the running
collector, and to the same functions over the store when none runs. Lines are printed in order of
time; series one point a line, at one time or over it. `--json` prints what the API answers.
"""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from collector.cli.ask.log_files import LogFiles
from collector.cli.ask.source import Asking, Source, source_options
from collector.cli.render import LEVEL_STYLES, Style, clip, output_options, write
from collector.query.logql import QueryError, parse, tree
from collector.query.logql.evaluation import logs, metrics
from collector.query.logql.evaluation.budget import Budget
from collector.query.loki import answers, parameters
from collector.query.parameters import BadParameter, time_range

HELP = r"""
Ask for log lines, or for numbers made of them, in LogQL.

\b
Examples:
  collector query '{service_name="shop"} |= "card" | json | amount > 100'
  collector query 'sum by (detected_level) (count_over_time({service_name=~".+"}[5m]))' --step 5m
  collector query '{service_name=~".+"} | trace_id="..."' --since 7d
  collector query '{service_name="shop"} | logfmt | took > 1s' /var/log/otel/logs.jsonl

With FILES it reads what the file exporter wrote there (JSON or OTLP/JSON, plain,
.gz or .zst; a folder, or a file with those that were put aside of it), all of
their time unless --since says less. Without, it asks the collector at --endpoint; when none
runs there, it reads the store of --config (otel-collector.yaml).
Exit code 0 also when nothing matches; 2 for a query that is none.
"""

FILE_BUDGET: Final = 20_000_000
"""Records of files that one query reads."""
_LAST: Final = 2**63 - 1
_STYLES: Final = {
    "debug": LEVEL_STYLES["DEBUG"],
    "trace": LEVEL_STYLES["DEBUG"],
    "warn": LEVEL_STYLES["WARNING"],
    "error": LEVEL_STYLES["ERROR"],
    "critical": LEVEL_STYLES["CRITICAL"],
    "fatal": LEVEL_STYLES["CRITICAL"],
}
_SHOWN: Final = ("trace_id",)
"""Metadata that a line shows besides what the query parsed; `--verbose` shows all."""


@click.command(help=HELP, short_help="Ask in LogQL: a collector, a store or files.")
@click.argument("query")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--since", metavar="TIME", help="An age (15m, 1h, 7d) or a time; 1h unless given.")
@click.option("--until", metavar="TIME", help="As --since; now unless given.")
@click.option("--step", metavar="TIME", help="Numbers over the time, so far apart (30s, 5m).")
@click.option(
    "--limit", type=click.IntRange(1, parameters.MAX_LIMIT), default=100, show_default=True
)
@click.option(
    "--newest-first/--oldest-first",
    "newest_first",
    default=None,
    help="Print the newest first; or start with the oldest that match.",
)
@source_options
@output_options
def query(
    *,
    query: str,
    files: tuple[Path, ...],
    since: str | None,
    until: str | None,
    step: str | None,
    limit: int,
    newest_first: bool | None,
    asking: Asking,
    style: Style,
    as_json: bool,
) -> None:
    """Parse, ask, print."""
    now = time.time_ns()
    given = {name: text for name, text in (("since", since), ("until", until)) if text}
    try:
        found = parse(query)
        begin, end = time_range(given, now)
        width = parameters.duration("step", step) if step else 0
    except BadParameter as bad:
        raise click.BadParameter(bad.reason, param_hint=f"--{bad.parameter}") from bad
    except QueryError as bad:
        raise click.BadParameter(str(bad)) from bad
    forward = newest_first is False
    if files:
        body = _of_files(found, files, begin, end, step=width, limit=limit, forward=forward)
    else:
        end = now if end is None else end
        begin = end - parameters.LOOK_BACK if begin is None else begin
        pairs = [("query", query), ("limit", str(limit))]
        pairs.append(("direction", "forward" if forward else "backward"))
        if isinstance(found, tree.LogQuery) or step:
            path = "query_range"
            pairs += [("start", str(begin)), ("end", str(end))]
            pairs += [("step", step)] if step else []
        else:
            path = "query"
            pairs.append(("time", str(end)))
        body = _of_collector(asking, path, pairs)
    if as_json:
        write(body.decode() + "\n")
    else:
        _print(body, style, newest_first=bool(newest_first))


def _of_collector(asking: Asking, path: str, pairs: list[tuple[str, str]]) -> bytes:
    async def question(source: Source) -> bytes:
        return await source.loki(path, pairs)

    try:
        return asyncio.run(asking.ask(question))
    except QueryError as refused:
        raise click.ClickException(str(refused)) from refused


def _of_files(
    query: tree.Query,
    files: tuple[Path, ...],
    begin: int | None,
    end: int | None,
    *,
    step: int,
    limit: int,
    forward: bool,
) -> bytes:
    """The answer from files: over all of their time, or at its end, unless a time is given."""
    try:
        source = LogFiles(files)
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="FILES") from error
    budget = Budget(documents=FILE_BUDGET)
    began = time.monotonic()
    try:
        if isinstance(query, tree.LogQuery):
            found = logs.select(
                query, source, since=begin or 0, until=_LAST if end is None else end,
                limit=limit, newest_first=not forward, budget=budget,
            )  # fmt: skip
            body = answers.streams(
                found.lines, categorized=True, budget=budget,
                seconds=time.monotonic() - began, warnings=found.warnings,
            )  # fmt: skip
        else:
            first, last = source.times()
            start, stop = first if begin is None else begin, last if end is None else end
            body = _numbers(query, source, start, stop, step=step, budget=budget)
    except QueryError as refused:
        raise click.ClickException(str(refused)) from refused
    for name, reason in source.broken.items():
        click.echo(f"{clip(name)} could not be read to its end: {clip(reason)}", err=True)
    if source.skipped:
        click.echo(f"{source.skipped} lines are no log records and were skipped.", err=True)
    return body


def _numbers(
    query: tree.Metric, source: LogFiles, start: int, stop: int, *, step: int, budget: Budget
) -> bytes:
    if step:
        series = metrics.evaluate_range(
            query, source, start=start, end=stop, step=step, budget=budget
        )
        return answers.matrix(series, budget=budget, seconds=0.0)
    found = metrics.evaluate_at(query, source, time=stop, budget=budget)
    if isinstance(found, float):
        return answers.scalar(found, stop, budget=budget, seconds=0.0)
    return answers.vector(found, budget=budget, seconds=0.0)


def _print(body: bytes, style: Style, *, newest_first: bool) -> None:
    """An answer for people."""
    try:
        answer = msgspec.json.decode(body)
        data, kind = answer["data"], answer["data"]["resultType"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise click.ClickException("this is not the answer of a collector") from error
    if kind == "streams":
        entries = [
            (int(at), text, one["stream"], rest)
            for one in data["result"]
            for at, text, rest in one["values"]
        ]
        entries.sort(key=lambda entry: entry[0], reverse=newest_first)
        for at, text, stream, rest in entries:
            write(_line(at, text, stream, rest, style) + "\n")
        if not entries:
            click.echo("No line matches.", err=True)
    elif kind == "scalar":
        write(f"{data['result'][1]}\n")
    else:
        for one in data["result"]:
            labels = ", ".join(f"{name}={clip(text)}" for name, text in one["metric"].items())
            if kind == "vector":
                write(f"{one['value'][1]}  {{{labels}}}\n")
                continue
            write(f"{{{labels}}}\n")
            for at, value in one["values"]:
                write(f"  {style.time(int(at * 1000) * 1_000_000)}  {value}\n")
        if not data["result"]:
            click.echo("No series.", err=True)
    for warning in answer.get("warnings", ()):
        click.echo(clip(warning), err=True)


def _line(at: int, text: str, stream: dict[str, str], rest: dict[str, Any], style: Style) -> str:
    """`2026-11-30 12:00:00.001 - INFO - shop - the line [amount=5, trace_id=...]`."""
    metadata: dict[str, str] = rest.get("structuredMetadata", {})
    shown = dict(rest.get("parsed", {}))
    if style.verbose:
        shown = {**stream, **metadata, **shown}
    for name in _SHOWN:
        if name in metadata:
            shown[name] = metadata[name]
    word = shown.get("detected_level") or metadata.get("detected_level", "unknown")
    parts = [
        style.time(at),
        style.paint(clip(word.upper()), _STYLES.get(word, {})),
        clip(stream.get("service_name", "")),
        clip(text),
    ]
    fields = ", ".join(f"{name}={clip(value)}" for name, value in shown.items())
    return " - ".join(part for part in parts if part) + (f" [{fields}]" if fields else "")
