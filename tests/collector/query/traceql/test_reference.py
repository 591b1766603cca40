"""
docs/reference/traceql.md is true: every construct there is what the parser says of it.

The page is written by this file: `python tests/collector/query/traceql/test_reference.py` after a
change of the language, with `PYTHONPATH=.`.
"""

from pathlib import Path

from collector.query.traceql.cursor import MAX_DEPTH, MAX_NESTING, MAX_NODES
from collector.query.traceql.errors import ParseError
from collector.query.traceql.metrics import accumulator, finished
from collector.query.traceql.parser import MAX_TEXT, parse
from collector.query.traceql.regex import MAX_PATTERN
from collector.query.traceql.series import instant
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.tree import INTRINSICS
from collector.query.traceql.view import Trace
from tests.collector.query.traceql.spans import span

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "traceql.md"

SECTIONS = {
    "Conditions on one span": [
        ("{ }", "every span"),
        ('{ span.http.route = "/orders" }', "an attribute of the span"),
        ('{ resource.service.name = "shop" }', "an attribute of the resource"),
        ('{ event.exception.type = "ValueError" }', "any event has it"),
        ('{ link.reason = "retry" }', "any link has it"),
        ('{ instrumentation.mode = "x" }', "an attribute of the instrumentation scope"),
        ('{ .order.id = "o-1" }', "the span's attribute, else the resource's, an event's, a link's, the scope's"),
        ('{ span."my attr" = "x" }', "a name with other characters"),
        ("{ span.retries > 3 && duration >= 1.5s }", "=, !=, <, <=, >, >= ; int and float compare as numbers"),
        ('{ name =~ "GET .*" }', "=~ and !~ : RE2, of the whole text"),
        ("{ span.x = nil }", "the attribute is absent; != nil: it is there"),
        ("{ span.flag }", "is true"),
        ("{ !(span.flag) }", "not"),
        ('{ span.a = "x" || span.b = "y" && span.c = "z" }', "&& and || on one level, left to right"),
        ("{ span.a + span.b * 2 > 10 ^ 2 }", "+, -, *, /, %, ^ of numbers and durations"),
        ("{ span.x > minInt && span.x < maxInt }", "the smallest and the largest int"),
        ('{ span.tags = "a" }', "an array: any element; with != and !~ no element"),
        ("{ parent.name = 1 }", "attributes of the parent span"),
    ],
    "Spansets": [
        ("{ } && { }", "the trace has both; all of these spans"),
        ("{ } || { }", "the spans of either"),
        *[(f"{{ }} {op} {{ }}", what) for op, what in (
            (">>", "those on the right that are descendants of one on the left"),
            (">", "children"), ("<<", "ancestors"), ("<", "parents"), ("~", "siblings"),
        )],
        *[(f"{{ }} !{op} {{ }}", f"those on the right for which {op} does not hold") for op in (">>", ">", "<<", "<", "~")],
        *[(f"{{ }} &{op} {{ }}", f"both sides of {op}") for op in (">>", ">", "<<", "<", "~")],
        ("({ } | count() > 1) && { }", "pipelines as operands"),
    ],
    "Pipelines": [
        ("{ } | { status = error }", "filter again"),
        ("{ } | count() > 2", "number of spans"),
        ("{ } | avg(duration) > 1s", "avg, min, max, sum of a number"),
        ("{ } | sum(span.a) + 1 > max(span.b)", "arithmetic of them"),
        ("{ } | by(resource.service.name)", "one spanset per value"),
        ("{ } | by(name) | coalesce()", "one spanset again"),
        ("{ } | select(span.a, name)", "what the answer shows"),
        ("({ } | count()) > ({ } | count())", "comparing pipelines"),
    ],
    "Metrics": [
        ("{ } | rate() by (resource.service.name)", "spans per second"),
        ("{ } | count_over_time()", "spans"),
        ("{ } | min_over_time(duration)", "also max_, avg_, sum_over_time"),
        ("{ } | quantile_over_time(duration, .5, .99)", "from power-of-two buckets"),
        ("{ } | histogram_over_time(duration)", "power-of-two buckets"),
        ("{ } | compare({ status = error }, 10)", "values of a selection against the rest"),
        ("{ } | rate() by (name) | topk(5)", "also bottomk, per interval"),
        ("{ } | rate() > 5", "filters on results"),
        ("({ } | rate()) / ({ } | rate())", "arithmetic between metrics"),
        ("{ } with (most_recent=true)", "hints are accepted; an answer is always the most recent"),
    ],
    "Mistakes": [
        ("{ name = ", "an unfinished query"),
        ('{ duration = "x" }', "types that never match"),
        ("{ kind > 3 }", "an order that is none"),
        ("{ .a =~ 5 }", "an expression that is no text"),
        ('{ .a =~ "(" }', "an expression that is none"),
        ("{ name }", "a condition that is neither true nor false"),
        ("{ } | explode()", "an unknown function"),
        ("{ foo = 1 }", "an unknown word"),
    ],
}  # fmt: skip


def outcome(text):
    """What becomes of a query: its error, or an answer."""
    try:
        query = parse(text)
    except ParseError as bad:
        return f"400, col {bad.column}: {bad.reason}"
    trace = Trace([span(1)])
    found = pipeline(query.stages)(trace)
    if query.metrics is not None:
        counting = accumulator(query, instant(trace.start - 1, trace.start))
        for one in (one for each in found for one in each.spans):
            counting.add(one)
        finished(query, counting.series())
    return "supported"


def cell(text):
    return text.replace("|", "\\|")


def page():
    """The text of the page."""
    intrinsics = ", ".join(f"`{name}`" for name in INTRINSICS)
    parts = [
        "# TraceQL: what is answered",
        "",
        "The language of Grafana Tempo, as the query port answers it (`/api/search`,",
        "`/api/metrics/query_range`). This page is made and checked by the test run.",
    ]
    for title, rows in SECTIONS.items():
        parts += ["", f"## {title}", "", "| query | meaning | answer |", "|---|---|---|"]
        parts += [
            f"| `{cell(text)}` | {cell(what)} | {cell(outcome(text))} |" for text, what in rows
        ]
    parts += [
        "",
        "## Intrinsics",
        "",
        f"{intrinsics}.",
        "",
        "Statuses are `ok`, `error`, `unset`; kinds `unspecified`, `internal`, `server`, `client`,",
        "`producer`, `consumer`. Durations: `1h30m`, `1.5s`, `100us`, `2d`, `1w`, `1y`.",
        "",
        "## Where it differs from Tempo 3.0",
        "",
        "- An int literal finds doubles too and a float literal ints: `{ span.score > 0 }` means what it says.",
        "- `= nil` holds inside `&&` as it does alone.",
        "- Arrays, maps and bytes in answers are their JSON text; one key with several kinds of values",
        "  is text. Tempo's own answers crash the data source there.",
        "- Values of `status` and `kind` are words.",
        "- An attribute that a document keeps in `context` (`correlation.id`, `task.id`, ...) is found",
        "  under its canonical name, whatever spelling the application used.",
        "",
        "## Bounds",
        "",
        f"A query has at most {MAX_TEXT} characters, {MAX_NESTING} levels of parentheses, {MAX_DEPTH} operators in a",
        f"row and {MAX_NODES} parts; a regular expression has {MAX_PATTERN} characters. More is 400. An answer that would",
        "need more memory, series or steps than one question may have is 422. A search that could not",
        "look at everything answers with what it found and `completedJobs` below `totalJobs`; metrics",
        "over time say `PARTIAL`.",
        "",
    ]
    return "\n".join(parts)


def test_the_reference_is_what_the_parser_says():
    """Each construct with its outcome, word for word."""
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
