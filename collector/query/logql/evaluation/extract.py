"""
The parsers of LogQL: a line in, labels out.

A parser never drops a line. What it cannot read marks the line with `__error__`; what it can read
becomes labels under cleaned names. Texts are made valid Unicode here, because JSON can escape half
a surrogate and no answer could carry it.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from collector.query.logql import json_paths, patterns, regex, tree
from collector.query.logql.evaluation.labels import cleaned
from collector.query.logql.evaluation.line import Line

Parser = Callable[[Line], None]

MAX_LABELS: Final = 1000
"""Labels that one parser takes from one line."""
_MAX_DEPTH: Final = 64
_ENTRY: Final = "_entry"


class _Number(str):
    """A number of a JSON text, as it was written."""

    __slots__ = ()


_DECODER: Final = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_Number, strict=False
)


def valid(text: str) -> str:
    """A text in which half surrogates are replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _decoded(line: Line) -> dict[str, Any] | None:
    """The JSON object that a line is; None, and the line is marked, when it is none."""
    text = line.text.lstrip(" \t\r\n")
    if not text.startswith("{"):
        line.fail("JSONParserErr", "the line is no JSON object")
        return None
    try:
        found, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as bad:
        line.fail("JSONParserErr", str(bad) or "nested too deeply")
        return None
    return found if isinstance(found, dict) else None


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return valid(str(value))  # a `_Number` is no text that an encoder takes
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return valid(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")))


def _plain(value: Any) -> Any:
    """A decoded value with its numbers as numbers again, to be written as JSON."""
    if isinstance(value, _Number):
        return json.loads(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _json_all(line: Line) -> None:
    """`| json`: every leaf, maps flattened with underscores, arrays left out."""
    found = _decoded(line)
    if found is None:
        return
    left = MAX_LABELS
    todo: list[tuple[str, dict[str, Any], int]] = [("", found, 0)]
    while todo:
        prefix, fields, depth = todo.pop()
        for key, value in fields.items():
            name = f"{prefix}_{key}" if prefix else key
            if isinstance(value, dict):
                if depth < _MAX_DEPTH:
                    todo.append((name, value, depth + 1))
            elif not isinstance(value, list) and left > 0 and key:
                left -= 1
                line.extract(cleaned(valid(name)), _scalar(value))


def _json_some(fields: tuple[tree.Extraction, ...]) -> Parser:
    paths = [(field.label, json_paths.path(field.expression)) for field in fields]

    def parse(line: Line) -> None:
        found = _decoded(line)
        if found is None:
            return
        for label, path in paths:
            value = json_paths.look(found, path)
            if value is not json_paths.MISSING:
                line.extract(label, _scalar(value))
            elif line.get(label) is None:
                line.set(label, "")

    return parse


_PAIR: Final = re.compile(
    r"""[\x00-\x20]*(?:
      (?P<key>[^\x00-\x20="]+)(?:=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"(?=[\x00-\x20]|$)|(?P<value>[^\x00-\x20="]*)(?=[\x00-\x20]|$))|(?=[\x00-\x20]|$))
    | (?P<bad>[^\x00-\x20]+))""",
    re.VERBOSE | re.DOTALL,
)


def pairs(line: str) -> list[tuple[str, str] | None]:
    """The keys and values of a logfmt line in order; None for each part that is no pair."""
    found: list[tuple[str, str] | None] = []
    for match in _PAIR.finditer(line):
        key, quoted = match["key"], match["quoted"]
        if key is None:
            found.append(None)
        elif quoted is None:
            found.append((key, match["value"] or ""))
        elif "\\" not in quoted:
            found.append((key, quoted))
        else:
            try:
                value = json.loads(f'"{quoted}"', strict=False)
            except ValueError:
                found.append(None)
            else:
                found.append((key, valid(value)))
    return found


def _logfmt(stage: tree.Logfmt) -> Parser:
    wanted: dict[str, list[str]] = {}
    for field in stage.fields:
        wanted.setdefault(field.expression, []).append(field.label)

    def parse(line: Line) -> None:
        left = MAX_LABELS
        for pair in pairs(line.text):
            if pair is None:
                if stage.strict:
                    line.fail("LogfmtParserErr", "the line is no logfmt")
                    break
                continue
            key, value = pair
            if not value and not stage.keep_empty:
                continue
            left -= 1
            if left < 0:
                break
            if not stage.fields:
                line.extract(cleaned(key), value)
            else:
                for label in wanted.get(key, ()):
                    line.extract(label, value)
        for field in stage.fields:
            if line.get(field.label) is None:
                line.set(field.label, "")

    return parse


def _regexp(stage: tree.Regexp) -> Parser:
    search = regex.compiled(stage.expression).search

    def parse(line: Line) -> None:
        match = search(line.text)
        if match is not None:
            for name, value in match.groupdict().items():
                line.extract(name, value or "")

    return parse


def _pattern(stage: tree.Pattern) -> Parser:
    extractor = patterns.Extractor(stage.expression)

    def parse(line: Line) -> None:
        for name, value in extractor(line.text).items():
            line.extract(name, value)

    return parse


def _unpack(line: Line) -> None:
    """`| unpack`: the texts of a JSON object are labels, its `_entry` is the line."""
    found = _decoded(line)
    if found is None:
        return
    entry: str | None = None
    for key, value in list(found.items())[:MAX_LABELS]:
        if isinstance(value, _Number) or not isinstance(value, str):
            continue
        if key == _ENTRY:
            entry = valid(value)
        else:
            line.extract(cleaned(valid(key)), valid(value))
    if entry is not None:
        line.text = entry


def parser(stage: tree.Stage) -> Parser | None:
    """What a parser stage does to a line; None when the stage is no parser."""
    match stage:
        case tree.Json():
            return _json_some(stage.fields) if stage.fields else _json_all
        case tree.Logfmt():
            return _logfmt(stage)
        case tree.Regexp():
            return _regexp(stage)
        case tree.Pattern():
            return _pattern(stage)
        case tree.Unpack():
            return _unpack
        case _:
            return None
