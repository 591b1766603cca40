r"""
Answers as text, part one: values, times, and one line for a log record. `waterfall` is part two.

The input is the decoded JSON of an answer, whatever source it came from; the output is a pure
function of it and of a `Style`, so that every source prints the same.

Everything that came from outside passes `visible` before it is printed: control characters, escape
sequences and the characters that reorder text are shown as `\x1b`, `\u202e`, and never obeyed by a
terminal. Our own colour is added after that.
"""

import functools
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from collector.documents.visible import visible_text
from collector.stores.base import Document, dumps

LEVEL_STYLES: Final[dict[str, dict[str, Any]]] = {
    "DEBUG": {"dim": True},
    "INFO": {},
    "WARNING": {"fg": "yellow"},
    "ERROR": {"fg": "red"},
    "CRITICAL": {"fg": "red", "bold": True},
}

MAX_TEXT: Final = 8192
"""Characters of one value or message that are printed; `--json` has all of them."""

PIPE_WIDTH: Final = 100


class Style:
    """
    How to draw.

    Args:
        width: cells of a line, at least 60.
        fold: fold long lines to the width; off for a pipe, where a record should stay one line.
        color: use colour.
        unicode: draw with box characters; plain ASCII otherwise.
        verbose: all attributes, where each record was made, and the stacks of exceptions.
        zone: of the times; None is the zone of this machine.
    """

    def __init__(
        self,
        *,
        width: int = PIPE_WIDTH,
        fold: bool = False,
        color: bool = False,
        unicode: bool = True,
        verbose: bool = False,
        zone: tzinfo | None = UTC,
    ) -> None:
        self.width = max(width, 60)
        self.fold = fold
        self.color = color
        self.verbose = verbose
        self.zone = zone
        self.branch, self.last, self.rail = (
            ("├─ ", "└─ ", "│  ") if unicode else ("+- ", "`- ", "|  ")
        )
        self.bar, self.error, self.deep = ("█", "✗", "…") if unicode else ("#", "x", ">")

    def time(self, unix_nano: int) -> str:
        """A time in the zone asked for."""
        return timestamp(unix_nano, self.zone)

    def zone_name(self, unix_nano: int) -> str:
        """What the zone is called at a time: UTC, CEST, +05:45."""
        return datetime.fromtimestamp(unix_nano // 10**9, UTC).astimezone(self.zone).tzname() or ""

    def paint(self, text: str, how: dict[str, Any]) -> str:
        """`text` in colour, when colour is wanted."""
        return click.style(text, **how) if self.color and how and text else text


def style_for(
    stream: Any, *, width: int | None, color: bool, verbose: bool, zone: tzinfo | None = UTC
) -> Style:
    """The style that suits an output stream: terminals get colour and folding, pipes do not."""
    terminal = bool(stream.isatty())
    try:
        "├█✗…".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        boxes = False
    else:
        boxes = True
    columns = shutil.get_terminal_size((80, 24)).columns if terminal else PIPE_WIDTH
    return Style(
        width=width or columns,
        fold=terminal or width is not None,
        color=color and terminal and not os.environ.get("NO_COLOR"),
        unicode=boxes,
        verbose=verbose,
        zone=zone,
    )


def _zone(name: str | None, *, local: bool) -> tzinfo | None:
    """The zone of `--tz` or `--local`; None is that of this machine."""
    if name is None:
        return None if local else UTC
    if local:
        raise click.UsageError("--local and --tz exclude each other")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise click.BadParameter(
            f'"{clip(name)}" is no zone that this machine knows; write a name such as Europe/Berlin',
            param_hint="--tz",
        ) from error


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that say how to print; it receives `as_json` and `style`."""

    @functools.wraps(command)
    def styled(
        *,
        no_color: bool,
        width: int | None,
        verbose: bool,
        local: bool,
        tz: str | None,
        **others: Any,
    ) -> Any:
        zone = _zone(tz, local=local)
        style = style_for(sys.stdout, width=width, color=not no_color, verbose=verbose, zone=zone)
        if zone is not UTC and not others.get("as_json"):
            name = tz or f"the zone of this machine ({style.zone_name(time.time_ns())})"
            click.echo(f"Times are those of {name}.", err=True)
        return command(style=style, **others)

    options = (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "-v", "--verbose", is_flag=True, help="All attributes, and stacks of exceptions."
        ),
        click.option(
            "--local", is_flag=True, help="Times in the zone of this machine; UTC unless given."
        ),
        click.option("--tz", metavar="ZONE", help="Times in this zone, such as Europe/Berlin."),
        click.option("--no-color", is_flag=True, help="No colour; NO_COLOR does the same."),
        click.option(
            "--width",
            type=click.IntRange(60, 1000),
            help=f"Cells of a line; the terminal's unless given, {PIPE_WIDTH} in a pipe.",
        ),
    )
    for option in reversed(options):
        styled = option(styled)
    return styled


def write(text: str) -> None:
    """
    Print text; a character that the output's encoding lacks is spelled out.

    So is one that steers a terminal or hides something, which in JSON is the same JSON. Only the
    escape codes of colours are our own: data has none left by then.
    """
    encoding = sys.stdout.encoding or "ascii"
    plain = visible_text(text).encode(encoding, "backslashreplace").decode(encoding)
    click.echo(plain, nl=False, color=True)


def visible(text: str) -> str:
    """`text` with everything that a terminal would obey spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _visible(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clip(text: str) -> str:
    """`text` made visible, and cut when it is enormous."""
    return visible(text) if len(text) <= MAX_TEXT else visible(text[:MAX_TEXT]) + "..."


def value(found: Any) -> str:
    """One attribute value: text stands as it is when nothing in it needs quotes, else JSON."""
    if isinstance(found, str):
        text = clip(found)
        if text and not any(character in " \"'=,[]{}" for character in text):
            return text
        escaped = text.replace('"', '\\"')
        return f'"{escaped}"'
    return clip(dumps(found).decode())


def pairs(found: Iterable[tuple[str, Any]], separator: str = " ") -> str:
    """`key=value key=value`."""
    return separator.join(f"{clip(key)}={value(item)}" for key, item in found)


def timestamp(unix_nano: int, zone: tzinfo | None = UTC) -> str:
    """`2025-10-03 10:30:15.123` in a zone; None is the zone of this machine."""
    seconds, nanos = divmod(unix_nano, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanos // 1_000_000:03d}"


def duration(milliseconds: float) -> str:
    """A duration in the unit that reads best."""
    size = abs(milliseconds)
    if size < 10:
        return f"{milliseconds:.2f} ms"
    if size < 1000:
        return f"{milliseconds:.1f} ms"
    if size < 60_000:
        return f"{milliseconds / 1000:.2f} s"
    minutes, seconds = divmod(round(size / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if milliseconds < 0 else ""
    return sign + (f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s")


def message(log: Document) -> str:
    """What a log record says."""
    return clip(log.get("message") or log.get("event") or "")


def exception(found: Document) -> str:
    """`ValueError: text`, from `exception` of a log record."""
    return ": ".join(clip(str(found[key])) for key in ("type", "message") if found.get(key))


def stack(text: str, indent: str) -> Iterator[str]:
    """The lines of a rendered traceback."""
    for line in text.splitlines():
        yield indent + clip(line.expandtabs(4))


def timed(log: Document) -> list[tuple[str, Any]]:
    """How long the block took that a log record ends, and how it ended."""
    trace = log.get("trace", {})
    return [(key, trace[key]) for key in ("execution_time_ms", "status") if key in trace]


def log_line(log: Document, style: Style) -> str:
    """`2025-10-03 10:30:15.123 - INFO - service - message [key=value, correlation_id=...]`."""
    fields = [*log.get("attributes", {}).items(), *timed(log), *log.get("context", {}).items()]
    if trace_id := log.get("trace", {}).get("trace_id"):
        fields.append(("trace_id", trace_id))
    parts = [
        style.time(log["time_unix_nano"]),
        style.paint(clip(log["level"]), LEVEL_STYLES.get(log["level"], {})),
        clip(log["service"]),
        message(log),
    ]
    line = " - ".join(parts) + (f" [{pairs(fields, ', ')}]" if fields else "")
    if "exception" not in log:
        return line
    line += f" {style.paint(exception(log['exception']), {'fg': 'red'})}"
    if style.verbose:
        line = "\n".join([line, *stack(log["exception"].get("stacktrace", ""), "    ")])
    return line
