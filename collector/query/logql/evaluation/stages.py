"""
Stages -> functions: what a pipeline does to a line, decided once per query.

A step takes a line and says whether it goes on. Line filters that stand before any other stage are
kept apart: they need nothing but the message, so most lines of a search are refused before any
label is made.
"""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from collector.query.logql import patterns, regex, template, tree, units
from collector.query.logql.addresses import IpMatcher
from collector.query.logql.evaluation import extract
from collector.query.logql.evaluation.labels import stream_labels
from collector.query.logql.evaluation.line import DETAILS, ERROR, Labels, Line
from collector.query.logql.template_functions import TemplateError
from collector.stores.base import Document

Step = Callable[[Line], bool]
Test = Callable[[str], bool]

_COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_MOST_STREAMS: Final = 4096
PARSERS: Final = (tree.Json, tree.Logfmt, tree.Regexp, tree.Pattern)


def text_test(matcher: tree.Matcher) -> Test:
    """Whether the value of a label matches; an absent one is the empty text."""
    value = matcher.value
    if matcher.op == "=":
        return lambda text: text == value
    if matcher.op == "!=":
        return lambda text: text != value
    matches = regex.matching(value)
    return matches if matcher.op == "=~" else lambda text: not matches(text)


def selects(matchers: Sequence[tree.Matcher]) -> Callable[[dict[str, str]], bool]:
    """Whether a stream is selected; asked for each record, decided once for each shared dict."""
    tests = [(matcher.name, text_test(matcher)) for matcher in matchers]
    known: dict[int, tuple[dict[str, str], bool]] = {}

    def selected(stream: dict[str, str]) -> bool:
        found = known.get(id(stream))
        if found is not None and found[0] is stream:
            return found[1]
        if len(known) >= _MOST_STREAMS:
            known.clear()
        holds = all(test(stream.get(name, "")) for name, test in tests)
        known[id(stream)] = (stream, holds)  # kept, so that no other dict gets this id
        return holds

    return selected


def line_test(stage: tree.LineFilter) -> Test:
    """Whether a line filter lets a text pass."""
    tests: list[Test] = []
    for text, ip in zip(stage.texts, stage.ips, strict=True):
        if ip:
            tests.append(IpMatcher(text).finds)
        elif stage.op in ("|=", "!="):
            tests.append(lambda line, text=text: text in line)  # type: ignore[misc]
        elif stage.op in ("|~", "!~"):
            tests.append(regex.finding(text))
        else:
            tests.append(patterns.Tester(text))
    if stage.op.startswith("!"):
        return lambda line: not any(test(line) for test in tests)
    if len(tests) == 1:
        return tests[0]
    return lambda line: any(test(line) for test in tests)


def label_test(found: tree.LabelFilter) -> Step:
    """Whether a label filter lets a line pass."""
    match found:
        case tree.Matcher():
            name, test = found.name, text_test(found)
            return lambda line: test(line.get(name) or "")
        case tree.NumberFilter():
            return _number_test(found)
        case tree.IpFilter():
            return _ip_test(found)
        case tree.Both():
            first, second = label_test(found.left), label_test(found.right)
            return lambda line: first(line) and second(line)
        case tree.Either():
            first, second = label_test(found.left), label_test(found.right)
            return lambda line: first(line) or second(line)


def _number_test(found: tree.NumberFilter) -> Step:
    name, wanted, compare = found.name, found.value, _COMPARE[found.op]
    read: Callable[[str], float | None] = {
        "number": units.number,
        "duration": units.duration,
        "size": units.size,
    }[found.kind]

    def test(line: Line) -> bool:
        text = line.get(name)
        if text is None:
            return False
        if line.failed:
            return True  # only a filter on __error__ itself removes lines that failed
        value = read(text)
        if value is None:
            line.fail("LabelFilterErr", f"{name} is no {found.kind}: {text[:80]}")
            return True
        return compare(value, wanted)

    return test


def _ip_test(found: tree.IpFilter) -> Step:
    name, matcher = found.name, IpMatcher(found.value)

    def test(line: Line) -> bool:
        text = line.get(name)
        if text is None:
            return False
        if line.failed:
            return True
        inside = matcher.holds(text)
        if inside is None:
            line.fail("LabelFilterErr", f"{name} is no address: {text[:80]}")
            return True
        return inside == (found.op == "=")

    return test


def _always(change: Callable[[Line], None]) -> Step:
    def step(line: Line) -> bool:
        change(line)
        return True

    return step


def _run(render: Callable[[template.Scope], str], line: Line) -> str | None:
    """What a template makes of a line; None, and the line is marked, when it fails."""
    try:
        return extract.valid(render(template.Scope(Labels(line), line.text, line.time)))
    except TemplateError as bad:
        line.fail("TemplateFormatErr", str(bad))
        return None


def _line_format(stage: tree.LineFormat) -> Step:
    render = template.compiled(stage.template)

    def change(line: Line) -> None:
        made = _run(render, line)
        if made is not None:
            line.text = made

    return _always(change)


def _label_format(stage: tree.LabelFormat) -> Step:
    items = [
        (item.name, item.value, None if item.rename else template.compiled(item.value))
        for item in stage.formats
    ]

    def change(line: Line) -> None:
        for name, source, render in items:
            if render is None:
                value = line.get(source)
                if value is not None:
                    line.delete(source)
                    line.set(name, value)
            else:
                made = _run(render, line)
                if made is not None:
                    line.set(name, made)

    return _always(change)


def _named(items: Iterable[str | tree.Matcher]) -> list[tuple[str, Test | None]]:
    return [
        (item, None) if isinstance(item, str) else (item.name, text_test(item)) for item in items
    ]


def _drop(stage: tree.Drop) -> Step:
    items = _named(stage.items)

    def change(line: Line) -> None:
        for name, test in items:
            if test is None or test(line.get(name) or ""):
                line.delete(name)

    return _always(change)


def _keep(stage: tree.Keep) -> Step:
    items = _named(stage.items)

    def change(line: Line) -> None:
        kept = {ERROR, DETAILS}
        for name, test in items:
            if test is None or test(line.get(name) or ""):
                kept.add(name)
                if name in line.aliases and name not in line.names():
                    line.metadata[name] = line.aliases[name]
        for name in line.names():
            if name not in kept:
                line.delete(name)

    return _always(change)


def _decolorize(line: Line) -> None:
    line.text = _COLOURS.sub("", line.text)


def step(stage: tree.Stage) -> Step:
    """What one stage does to a line."""
    match stage:
        case tree.LineFilter():
            test = line_test(stage)
            return lambda line: test(line.text)
        case tree.LineFormat():
            return _line_format(stage)
        case tree.LabelFormat():
            return _label_format(stage)
        case tree.Drop():
            return _drop(stage)
        case tree.Keep():
            return _keep(stage)
        case tree.Decolorize():
            return _always(_decolorize)
        case tree.Matcher() | tree.NumberFilter() | tree.IpFilter() | tree.Both() | tree.Either():
            return label_test(stage)
        case _:
            parse = extract.parser(stage)
            assert parse is not None  # noqa: S101 - the kinds above and the parsers are all there are
            return _always(parse)


@dataclass(slots=True, frozen=True)
class Pipeline:
    """
    A log query ready to run.

    Args:
        query: its tree.
        skip_parsers: leave out parsers whose labels nobody needs.
    """

    selected: Callable[[dict[str, str]], bool]
    first: tuple[Test, ...]
    steps: tuple[Step, ...]

    def __call__(self, document: Document) -> Line | None:
        """The line that is left of a document, None when it is filtered out."""
        stream = stream_labels(document)
        if not self.selected(stream):
            return None
        message = document.get("message", "")
        for test in self.first:
            if not test(message):
                return None
        line = Line(document, stream)
        for stage in self.steps:
            if not stage(line):
                return None
        return line


def pipeline(query: tree.LogQuery, *, skip_parsers: bool = False) -> Pipeline:
    """
    A log query as one function.

    Args:
        query: its tree.
        skip_parsers: leave out parsers, because nothing needs the labels that they find.
    """
    stages = list(query.stages)
    first: list[Test] = []
    for stage in stages:
        if not isinstance(stage, tree.LineFilter):
            break
        first.append(line_test(stage))
    rest = stages[len(first) :]
    steps = (step(one) for one in rest if not (skip_parsers and isinstance(one, PARSERS)))
    return Pipeline(selects(query.matchers), tuple(first), tuple(steps))
