"""
Answers as text, part two: a trace as a waterfall.

One block per trace: a header, then its spans as a tree. A span is one line with its service (when
it is not its parent's), name and kind (when it is not internal), its duration, and a bar on the
trace's time line. Under it stand its telling attributes, then its log records and span events in
order of time. Widths are counted in terminal cells, so that wide characters keep the columns.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click
from rich.cells import cell_len, chop_cells

from collector.cli.render import (
    LEVEL_STYLES,
    Style,
    clip,
    duration,
    exception,
    log_line,
    message,
    pairs,
    stack,
    timed,
    visible,
)
from collector.query.trace import Answer, Row, Trace
from collector.stores.base import Document
from telemetry.attributes import (
    CONTEXT,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)

KEY_ATTRIBUTES: Final = (
    "http.request.method",
    "http.method",
    "http.route",
    "url.path",
    "http.target",
    "http.response.status_code",
    "http.status_code",
    "db.system.name",
    "db.system",
    "db.operation.name",
    "db.collection.name",
    "messaging.system",
    "messaging.destination.name",
    "rpc.method",
    "celery.task_name",
    "celery.state",
    "gen_ai.request.model",
    "error.type",
)
"""The attributes of a span that are shown without being asked for."""

EXCEPTION: Final = {
    EXCEPTION_TYPE: "type",
    EXCEPTION_MESSAGE: "message",
    EXCEPTION_STACKTRACE: "stacktrace",
}
MAX_VALUES: Final = 3
MAX_DRAWN_DEPTH: Final = 8
DURATION_CELLS: Final = 9
OFFSET_CELLS: Final = 11
DIM: Final[dict[str, Any]] = {"dim": True}
RED: Final[dict[str, Any]] = {"fg": "red"}


def waterfall(answer: Answer, style: Style) -> str:
    """All traces of an answer, then what belongs to no trace, then what was cut off."""
    blocks = ["\n".join(_Block(trace, style).lines()) for trace in answer.traces]
    if answer.logs:
        title = style.paint("log records without a trace", {"bold": True})
        blocks.append("\n".join([title, *(log_line(log, style) for log in answer.logs)]))
    blocks.extend(
        style.paint(f"cut: {clip(sentence)}", {"fg": "yellow"}) for sentence in answer.cut
    )
    return "\n\n".join(blocks) + "\n"


class _Block:
    """One trace."""

    def __init__(self, trace: Trace, style: Style) -> None:
        self._trace = trace
        self._style = style
        self._bar_cells = max(16, min(40, style.width * 3 // 10))
        self._label_cells = style.width - self._bar_cells - DURATION_CELLS - 4
        # A value that the whole trace shares stands in the header and nowhere else.
        self._varying = [key for key, values in trace.context.items() if len(values) > 1]

    def lines(self) -> Iterator[str]:
        """The whole block."""
        trace = self._trace
        yield from self._header()
        yield ""
        last = _last_siblings(trace.rows)
        follows: list[bool] = []  # for each depth on the way down: comes a sibling later?
        services: list[str] = []
        for index, row in enumerate(trace.rows):
            del follows[row.depth :], services[row.depth :]
            inherited = bool(services) and services[-1] == row.span["service"]
            rails, elbow = self._rails(row.depth, follows, last=last[index])
            parent = index + 1 < len(trace.rows) and trace.rows[index + 1].depth > row.depth
            follows.append(not last[index])
            services.append(row.span["service"])
            below = (
                f"  {rails}{'' if row.depth == 0 else '   ' if last[index] else self._style.rail}"
            )
            yield from self._span(row, rails + elbow, below, inherited=inherited)
            yield from self._inside(row, below + (self._style.rail if parent else "   "))
        if trace.logs:
            if trace.rows:
                yield self._style.paint("  log records whose span is not stored", DIM)
            for log in trace.logs:
                yield from self._log(log, "  ", service=True)

    def _header(self) -> Iterator[str]:
        trace, style = self._trace, self._style
        yield style.paint(f"trace {visible(trace.trace_id)}", {"bold": True})
        facts = [
            (key.replace("_", " "), trace.context[key])
            for key in CONTEXT.values()
            if key in trace.context
        ]
        facts.append(("service" if len(trace.services) == 1 else "services", trace.services))
        for name, values in facts:
            shown = values if values is trace.services else values[:MAX_VALUES]
            text = ", ".join(clip(one) for one in shown)
            if len(values) > len(shown):
                text += f" and {len(values) - len(shown)} more"
            yield from self._folded(f"  {name:<16}", text)
        start = trace.start_unix_nano
        yield f"  {'start':<16}{style.time(start)} {style.zone_name(start)}"
        yield f"  {'duration':<16}{duration(trace.duration_ms)}"
        errors = style.paint(_count(trace.error_count, "error"), RED if trace.error_count else {})
        spans, logs = _count(trace.span_count, "span"), _count(trace.log_count, "log record")
        yield f"  {spans}, {errors}, {logs}"

    def _rails(self, depth: int, follows: Sequence[bool], *, last: bool) -> tuple[str, str]:
        """What stands left of a span: the rails of its ancestors, and its own elbow."""
        if depth == 0:
            return "", ""
        elbow = self._style.last if last else self._style.branch
        if depth > MAX_DRAWN_DEPTH:
            return f"{self._style.deep}{depth} ", elbow
        return "".join(self._style.rail if more else "   " for more in follows[1:]), elbow

    def _span(self, row: Row, tree: str, below: str, *, inherited: bool) -> Iterator[str]:
        style, span = self._style, row.span
        failed = span["status"] == "ERROR" or "error.type" in span.get("attributes", {})
        parts: list[tuple[str, dict[str, Any]]] = (
            [] if inherited else [(clip(span["service"]), {"fg": "cyan"})]
        )
        parts.append((clip(span["name"]) or '""', RED if failed else {"bold": True}))
        if span.get("kind", "INTERNAL") != "INTERNAL":
            parts.append((clip(span["kind"]), DIM))
        if row.orphan:
            parts.append(("(parent not stored)", DIM))
        left = f"{style.paint(style.error, RED) if failed else ' '} {tree}"
        room = self._label_cells - 2 - cell_len(tree)
        label = " ".join(text for text, _ in parts)
        if cell_len(label) <= room:
            left += " ".join(style.paint(text, how) for text, how in parts)
            left += " " * (room - cell_len(label))
        else:
            yield from self._folded(left, label, indent=below)
            left = below + " " * (self._label_cells - cell_len(below))
        took = f"{duration(span['duration_ms']):>{DURATION_CELLS}}"
        yield f"{left} {took} |{self._bar(span, RED if failed else {'fg': 'cyan'})}|"

    def _bar(self, span: Document, how: dict[str, Any]) -> str:
        cells, whole = self._bar_cells, self._trace.duration_ms
        took: float = span["duration_ms"]
        if whole <= 0:
            return self._style.paint(self._style.bar * cells, how)
        begin: float = (span["start_unix_nano"] - self._trace.start_unix_nano) / 1e6
        left = min(cells - 1, int(begin / whole * cells))
        length = max(1, min(cells - left, round(took / whole * cells)))
        bar = self._style.paint(self._style.bar * length, how)
        return " " * left + bar + " " * (cells - left - length)

    def _inside(self, row: Row, indent: str) -> Iterator[str]:
        """What a span says about itself, then what happened in it."""
        if details := self._details(row.span):
            yield from self._folded(indent, details, indent=indent, how=DIM)
        for link in row.span.get("links", ()):
            details = f"linked to trace {clip(link.get('trace_id', ''))}"
            yield from self._folded(indent, details, indent=indent, how=DIM)
        happened = [(log["time_unix_nano"], self._log(log, indent)) for log in row.logs]
        happened += [
            (event.get("time_unix_nano", 0), self._event(event, indent))
            for event in row.span.get("events", ())
        ]
        for _, lines in sorted(happened, key=lambda found: found[0]):
            yield from lines

    def _details(self, span: Document) -> str:
        found = span.get("attributes", {})
        keys = found if self._style.verbose else [key for key in KEY_ATTRIBUTES if key in found]
        details = [(key, found[key]) for key in keys]
        if "status_message" in span:
            details.append(("status_message", span["status_message"]))
        return pairs(details + self._own_context(span))

    def _own_context(self, document: Document) -> list[tuple[str, Any]]:
        context = document.get("context", {})
        return [(key, context[key]) for key in self._varying if key in context]

    def _log(self, log: Document, indent: str, *, service: bool = False) -> Iterator[str]:
        fields = [*log.get("attributes", {}).items(), *timed(log), *self._own_context(log)]
        if self._style.verbose:
            where = ("logger_name", "file_path", "line_number", "function_name")
            fields += [(key, log[key]) for key in where if key in log]
        text = "  ".join(filter(None, (message(log), pairs(fields))))
        level = self._style.paint(clip(log["level"]), LEVEL_STYLES.get(log["level"], {}))
        level += " " * (8 - len(log["level"]))
        if service:
            level += self._style.paint(clip(log["service"]), {"fg": "cyan"}) + " "
        head = f"{indent}{self._offset(log['time_unix_nano'])} {level}"
        yield from self._folded(head, text, indent=indent + " " * (OFFSET_CELLS + 1))
        if "exception" in log:
            yield from self._exception(log["exception"], indent + " " * (OFFSET_CELLS + 1))

    def _event(self, event: Document, indent: str) -> Iterator[str]:
        found = event.get("attributes", {})
        inner = indent + " " * (OFFSET_CELLS + 1)
        head = f"{indent}{self._offset(event.get('time_unix_nano', 0))} event   "
        raised = {key: str(found[name]) for name, key in EXCEPTION.items() if name in found}
        fields = [(key, item) for key, item in found.items() if key not in EXCEPTION]
        text = "  ".join(filter(None, (clip(event.get("name", "")), pairs(fields))))
        yield from self._folded(head, text, indent=inner)
        if raised:
            yield from self._exception(raised, inner)

    def _exception(self, found: Document, indent: str) -> Iterator[str]:
        if text := exception(found):
            yield from self._folded(indent, text, indent=indent, how=RED)
        if self._style.verbose:
            yield from stack(found.get("stacktrace", ""), indent)

    def _offset(self, unix_nano: int) -> str:
        text = duration((unix_nano - self._trace.start_unix_nano) / 1e6)
        return f"{text if text.startswith('-') else '+' + text:>{OFFSET_CELLS}}"

    def _folded(
        self, head: str, text: str, *, indent: str | None = None, how: dict[str, Any] | None = None
    ) -> Iterator[str]:
        """`head` and `text`; when lines are folded, what does not fit goes below, indented."""
        if not self._style.fold:
            yield (head + self._style.paint(text, how or {})).rstrip()
            return
        taken = cell_len(click.unstyle(head))
        below = " " * taken if indent is None else indent
        for line in _fold(text, self._style.width - taken, self._style.width - cell_len(below)):
            yield (head + self._style.paint(line, how or {})).rstrip()
            head = below


def _fold(text: str, first: int, rest: int) -> Iterator[str]:
    """Lines of at most so many cells, broken at blanks, or anywhere in a word that is too long."""
    room, line = max(first, 16), ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= room:
            line = longer
            continue
        if line:
            yield line
            room = max(rest, 16)
        *full, line = chop_cells(word, room) or [""]
        for piece in full:
            yield piece
            room = max(rest, 16)
    yield line


def _last_siblings(rows: Sequence[Row]) -> list[bool]:
    """For each row, whether no sibling follows."""
    last = [True] * len(rows)
    later: list[bool] = []  # read from below: for each depth, was a sibling seen?
    for index in reversed(range(len(rows))):
        depth = rows[index].depth
        last[index] = not (depth < len(later) and later[depth])
        del later[depth + 1 :]
        later += [False] * (depth + 1 - len(later))
        later[depth] = True
    return last


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
