"""
Tree -> LogQL text, such that parsing it gives the same tree.

`show` is what `/format_query` answers and what errors quote. Parentheses stand where the meaning
would change without them, and nowhere else: a chain of a hundred operators stays a flat text.
"""

from collector.query.logql import tree, units
from collector.query.logql.precedence import ALONE, PRECEDENCE


def show(query: tree.Query) -> str:
    """A query as text."""
    if isinstance(query, tree.LogQuery):
        return _log(query)
    return _metric(query)


def quoted(text: str) -> str:
    """A text as a string literal."""
    parts = []
    for character in text:
        if character in '"\\':
            parts.append("\\" + character)
        elif character == "\n":
            parts.append("\\n")
        elif character < " " or character == "\x7f":
            parts.append(f"\\x{ord(character):02x}")
        else:
            parts.append(character)
    return f'"{"".join(parts)}"'


def show_matcher(matcher: tree.Matcher) -> str:
    """`name="value"`."""
    return f"{matcher.name}{matcher.op}{quoted(matcher.value)}"


def show_selector(matchers: tuple[tree.Matcher, ...]) -> str:
    """`{a="b", c=~"d"}`."""
    return "{" + ", ".join(map(show_matcher, matchers)) + "}"


def _log(query: tree.LogQuery) -> str:
    return " ".join([show_selector(query.matchers), *map(_stage, query.stages)])


def _stage(stage: tree.Stage) -> str:
    match stage:
        case tree.LineFilter():
            texts = (
                f"ip({quoted(text)})" if ip else quoted(text)
                for text, ip in zip(stage.texts, stage.ips, strict=True)
            )
            return f"{stage.op} {' or '.join(texts)}"
        case tree.Json():
            return _fields("| json", stage.fields)
        case tree.Logfmt():
            strict = " --strict" if stage.strict else ""
            empty = " --keep-empty" if stage.keep_empty else ""
            return _fields(f"| logfmt{strict}{empty}", stage.fields)
        case tree.Regexp():
            return f"| regexp {quoted(stage.expression)}"
        case tree.Pattern():
            return f"| pattern {quoted(stage.expression)}"
        case tree.Unpack():
            return "| unpack"
        case tree.Decolorize():
            return "| decolorize"
        case tree.LineFormat():
            return f"| line_format {quoted(stage.template)}"
        case tree.LabelFormat():
            items = (
                f"{item.name}={item.value if item.rename else quoted(item.value)}"
                for item in stage.formats
            )
            return f"| label_format {', '.join(items)}"
        case tree.Drop():
            return f"| drop {_named(stage.items)}"
        case tree.Keep():
            return f"| keep {_named(stage.items)}"
        case _:
            return f"| {_filter_stage(stage)}"


def _fields(head: str, fields: tuple[tree.Extraction, ...]) -> str:
    shown = (f"{field.label}={quoted(field.expression)}" for field in fields)
    return f"{head} {', '.join(shown)}" if fields else head


def _named(items: tuple[str | tree.Matcher, ...]) -> str:
    return ", ".join(item if isinstance(item, str) else show_matcher(item) for item in items)


def _filter_stage(found: tree.LabelFilter) -> str:
    """A filter that no reader takes for a stage of the same name with a line filter behind it."""
    first = found
    while isinstance(first, tree.Both | tree.Either):
        first = first.left
    alone = first.op in ("!=", "!~") and first.name in ALONE
    return f"({_filter(found)})" if alone else _filter(found)


def _filter(found: tree.LabelFilter) -> str:
    match found:
        case tree.Matcher():
            return show_matcher(found)
        case tree.NumberFilter():
            return f"{found.name} {found.op} {_literal(found.value, found.kind)}"
        case tree.IpFilter():
            return f"{found.name} {found.op} ip({quoted(found.value)})"
        case tree.Both():
            left = _enclosed(found.left, tree.Either)
            return f"{left} and {_enclosed(found.right, tree.Either, tree.Both)}"
        case tree.Either():
            return f"{_filter(found.left)} or {_enclosed(found.right, tree.Either)}"


def _enclosed(found: tree.LabelFilter, *kinds: type) -> str:
    return f"({_filter(found)})" if isinstance(found, kinds) else _filter(found)


def _literal(value: float, kind: tree.NumberKind) -> str:
    if kind == "duration":
        return units.print_duration(int(value))
    return f"{value:.0f}B" if kind == "size" else _number(value)


def _number(value: float) -> str:
    text = repr(float(value))
    return text.removesuffix(".0")


def _window(window: tree.LogRange) -> str:
    parts = [_log(window.query)]
    if window.unwrap is not None:
        unwrap = window.unwrap
        label = f"{unwrap.convert}({unwrap.label})" if unwrap.convert else unwrap.label
        parts.append(f"| unwrap {label}")
        parts += (f"| {_filter(found)}" for found in unwrap.filters)
    parts.append(f"[{units.print_duration(window.window)}]")
    if window.offset:
        parts.append(f"offset {units.print_duration(window.offset)}")
    return " ".join(parts)


def _grouping(grouping: tree.Grouping | None) -> str:
    if grouping is None:
        return ""
    return f" {'without' if grouping.without else 'by'} ({', '.join(grouping.labels)})"


def _metric(found: tree.Metric) -> str:
    match found:
        case tree.Scalar():
            return _number(found.value)
        case tree.Vector():
            return f"vector({_number(found.value)})"
        case tree.RangeAggregation():
            parameter = "" if found.parameter is None else f"{_number(found.parameter)}, "
            return f"{found.op}({parameter}{_window(found.window)}){_grouping(found.grouping)}"
        case tree.VectorAggregation():
            parameter = "" if found.parameter is None else f"{found.parameter}, "
            grouping = f"{_grouping(found.grouping)} " if found.grouping is not None else ""
            return f"{found.op}{grouping}({parameter}{_metric(found.of)})"
        case tree.LabelReplace():
            texts = (found.target, found.replacement, found.source, found.expression)
            return f"label_replace({_metric(found.of)}, {', '.join(map(quoted, texts))})"
        case tree.Binary():
            parts = [_operand(found, found.left, left=True), found.op]
            if found.returns_bool:
                parts.append("bool")
            if found.matching is not None:
                parts.append(_matching(found.matching))
            parts.append(_operand(found, found.right, left=False))
            return " ".join(parts)


def _operand(parent: tree.Binary, child: tree.Metric, *, left: bool) -> str:
    """One side of an operation, in parentheses when it binds less strongly than it has to."""
    if not isinstance(child, tree.Binary):
        return _metric(child)
    outer, inner = PRECEDENCE[parent.op], PRECEDENCE[child.op]
    groups_here = left != (parent.op == "^")
    encloses = inner < outer or (inner == outer and not groups_here)
    return f"({_metric(child)})" if encloses else _metric(child)


def _matching(matching: tree.Matching) -> str:
    text = f"{'on' if matching.on else 'ignoring'} ({', '.join(matching.labels)})"
    if matching.group:
        text += f" group_{matching.group} ({', '.join(matching.include)})"
    return text
