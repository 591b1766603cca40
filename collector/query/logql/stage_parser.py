"""
The parser of `{selector} | stages`, by recursive descent.

Everything that a stage can get wrong (an expression that RE2 refuses, a template without its end)
is found here, where the place in the text is known: each stage is built once to see whether it can.
"""

from typing import Final, cast

from collector.query.logql import patterns, regex, template, tree, units
from collector.query.logql.addresses import IpMatcher
from collector.query.logql.cursor import Cursor
from collector.query.logql.json_paths import path
from collector.query.logql.lexer import Token
from collector.query.logql.precedence import ALONE

LINE_OPS: Final = ("|=", "!=", "|~", "!~", "|>", "!>")
COMPARE_OPS: Final = ("=", "!=", "=~", "!~", "==", ">", ">=", "<", "<=")
LITERALS: Final = ("number", "duration", "size")
NOTHING_SELECTED: Final = (
    "queries require at least one regexp or equality matcher that does not have an empty-compatible "
    'value; write for example {service_name=~".+"}'
)


class StageParser:
    """Log queries and their parts, from a cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def selector(self) -> tuple[tree.Matcher, ...]:
        """`{name="value", ...}`."""
        cursor = self.cursor
        brace = cursor.expect("{")
        found: list[tree.Matcher] = []
        while not cursor.sees("}"):
            if found:
                cursor.expect(",", what="`}` or `,`")
            cursor.part()
            name = cursor.expect("name", what="a label name" if found else "a label name or `}`")
            found.append(self._matcher(name, "="))
        cursor.take()
        if not any(_excludes_empty(matcher) for matcher in found):
            raise cursor.error(NOTHING_SELECTED, brace)
        return tuple(found)

    def stages(self) -> tuple[tuple[tree.Stage, ...], tree.Unwrap | None]:
        """What stands behind a selector, up to something else; `unwrap` ends it but for filters."""
        cursor = self.cursor
        found: list[tree.Stage] = []
        while cursor.sees("|", *LINE_OPS):
            cursor.part()
            if not cursor.sees("|"):
                found.append(self._line_filter())
                continue
            cursor.take()
            if cursor.sees_word("unwrap") and cursor.ahead().kind not in COMPARE_OPS:
                return tuple(found), self._unwrap()
            found.append(self._stage())
        return tuple(found), None

    def _stage(self) -> tree.Stage:
        cursor = self.cursor
        if not cursor.sees("name", "("):
            raise cursor.unexpected("a stage (json, logfmt, line_format, ...) or a label filter")
        if cursor.sees("name") and not self._compares():
            word = cursor.token.text
            reader = getattr(self, f"_read_{word}", None) if word in STAGES else None
            if reader is not None:
                cursor.take()
                return cast("tree.Stage", reader())
            if word == "unwrap":
                raise cursor.error("`unwrap` stands only inside a range aggregation")
            known = ", ".join(STAGES)
            raise cursor.error(
                f"`{word}` is no stage; stages are {known}; a filter is written name=value"
            )
        return self._filter()

    def _compares(self) -> bool:
        """Whether the next name is compared, so that it is a label, even if a stage is called so."""
        op = self.cursor.ahead().kind
        # `| json != "x"` is a stage and a line filter behind it.
        whole = op in ("!=", "!~") and self.cursor.sees_word(*ALONE)
        return op in COMPARE_OPS and not whole

    def _line_filter(self) -> tree.LineFilter:
        cursor = self.cursor
        op = cast("tree.LineOp", cursor.take().text)
        texts: list[str] = []
        ips: list[bool] = []
        while True:
            ip = cursor.sees_word("ip") and cursor.ahead().kind == "("
            if ip and op not in ("|=", "!="):
                raise cursor.error("ip() stands behind |= or != only")
            token = self._ip() if ip else cursor.expect("string", what="a string in double quotes")
            if op in ("|~", "!~"):
                cursor.checked(token, lambda token=token: regex.compiled(token.text))  # type: ignore[misc]
            elif op in ("|>", "!>"):
                cursor.checked(token, lambda token=token: patterns.Tester(token.text))  # type: ignore[misc]
            texts.append(token.text)
            ips.append(ip)
            if not cursor.sees_word("or"):
                return tree.LineFilter(op, tuple(texts), tuple(ips))
            cursor.part()
            cursor.take()

    def _ip(self) -> Token:
        """`ip("...")`; the token of its text."""
        cursor = self.cursor
        cursor.take()
        cursor.expect("(")
        token = cursor.expect("string", what="an address in double quotes")
        cursor.checked(token, lambda: IpMatcher(token.text))
        cursor.expect(")")
        return token

    def _read_json(self) -> tree.Json:
        return tree.Json(self._extractions(json=True))

    def _read_logfmt(self) -> tree.Logfmt:
        cursor = self.cursor
        flags: set[str] = set()
        while cursor.sees("flag"):
            flag = cursor.take()
            if flag.text not in ("--strict", "--keep-empty"):
                raise cursor.error("logfmt has the flags --strict and --keep-empty", flag)
            flags.add(flag.text)
        fields = self._extractions(json=False)
        return tree.Logfmt("--strict" in flags, "--keep-empty" in flags, fields)

    def _extractions(self, *, json: bool) -> tuple[tree.Extraction, ...]:
        cursor = self.cursor
        found: list[tree.Extraction] = []
        while cursor.sees("name") or found:
            cursor.part()
            name = cursor.expect("name", what="a label name")
            expression = name.text
            if cursor.accept("="):
                token = cursor.expect("string", what="a path in double quotes")
                expression = token.text
                if json:
                    cursor.checked(token, lambda token=token: path(token.text))  # type: ignore[misc]
                elif not expression or any(c in expression for c in ' ="'):
                    raise cursor.error("this can be no key of logfmt", token)
            found.append(tree.Extraction(name.text, expression))
            if not cursor.accept(","):
                break
        return tuple(found)

    def _read_regexp(self) -> tree.Regexp:
        token = self.cursor.expect("string", what="an expression in double quotes or backticks")
        names = self.cursor.checked(token, lambda: regex.compiled(token.text)).groupindex
        if not names:
            raise self.cursor.error(
                "the expression names no group: write (?P<name>...) for each label", token
            )
        return tree.Regexp(token.text)

    def _read_pattern(self) -> tree.Pattern:
        token = self.cursor.expect("string", what="a pattern in double quotes or backticks")
        self.cursor.checked(token, lambda: patterns.Extractor(token.text))
        return tree.Pattern(token.text)

    def _read_unpack(self) -> tree.Unpack:
        return tree.Unpack()

    def _read_decolorize(self) -> tree.Decolorize:
        return tree.Decolorize()

    def _read_line_format(self) -> tree.LineFormat:
        token = self.cursor.expect("string", what="a template in double quotes or backticks")
        self.cursor.checked(token, lambda: template.compiled(token.text))
        return tree.LineFormat(token.text)

    def _read_label_format(self) -> tree.LabelFormat:
        cursor = self.cursor
        found: list[tree.Format] = []
        while True:
            cursor.part()
            name = cursor.expect("name", what="a label name")
            if name.text.startswith("__error"):
                raise cursor.error(f"label_format cannot set {name.text}", name)
            if any(item.name == name.text for item in found):
                raise cursor.error(f"label_format sets {name.text} twice: use two stages", name)
            cursor.expect("=")
            if cursor.sees("name"):
                found.append(tree.Format(name.text, cursor.take().text, rename=True))
            else:
                token = cursor.expect("string", what="a label name or a template")
                cursor.checked(token, lambda token=token: template.compiled(token.text))  # type: ignore[misc]
                found.append(tree.Format(name.text, token.text, rename=False))
            if not cursor.accept(","):
                return tree.LabelFormat(tuple(found))

    def _read_drop(self) -> tree.Drop:
        return tree.Drop(self._named())

    def _read_keep(self) -> tree.Keep:
        return tree.Keep(self._named())

    def _named(self) -> tuple[str | tree.Matcher, ...]:
        cursor = self.cursor
        found: list[str | tree.Matcher] = []
        while True:
            cursor.part()
            name = cursor.expect("name", what="a label name")
            compares = cursor.sees("=", "!=", "=~", "!~") and cursor.ahead().kind == "string"
            # `| drop a != "x"` reads as a matcher, as Loki's grammar has it.
            found.append(self._matcher(name, "=") if compares else name.text)
            if not cursor.accept(","):
                return tuple(found)

    def _matcher(self, name: Token, default: str) -> tree.Matcher:
        """Operator and text behind a label name."""
        cursor = self.cursor
        if not cursor.sees("=", "!=", "=~", "!~"):
            raise cursor.unexpected(f"`{default}`, `!=`, `=~` or `!~`")
        op = cast("tree.MatchOp", cursor.take().text)
        value = cursor.expect("string", what="a string in double quotes")
        if op in ("=~", "!~"):
            cursor.checked(value, lambda: regex.compiled(value.text))
        return tree.Matcher(name.text, op, value.text)

    def _filter(self) -> tree.LabelFilter:
        """Filters joined by `or`, the weakest of the joints."""
        cursor = self.cursor
        with cursor.nested():
            found = self._filters()
            while cursor.sees_word("or"):
                cursor.part()
                cursor.take()
                found = tree.Either(found, self._filters())
            return found

    def _filters(self) -> tree.LabelFilter:
        """Filters joined by `and`, a comma or nothing."""
        cursor = self.cursor
        found = self._one_filter()
        while True:
            if cursor.sees_word("and") or cursor.sees(","):
                cursor.take()
            elif not (cursor.sees("(") or (cursor.sees("name") and not cursor.sees_word("or"))):
                return found
            cursor.part()
            found = tree.Both(found, self._one_filter())

    def _one_filter(self) -> tree.LabelFilter:
        cursor = self.cursor
        if cursor.accept("("):
            inner = self._filter()
            cursor.expect(")")
            return inner
        name = cursor.expect("name", what="a label name")
        if not cursor.sees(*COMPARE_OPS):
            raise cursor.unexpected("a comparison (=, !=, =~, !~, ==, >, >=, <, <=)")
        op, value = cursor.token, cursor.ahead()
        if value.kind == "string":
            if op.kind not in ("=", "!=", "=~", "!~"):
                raise cursor.error(
                    f"a text cannot stand behind `{op.text}`: write the number without quotes",
                    value,
                )
            return self._matcher(name, "=")
        cursor.take()
        if op.kind in ("=~", "!~"):
            raise cursor.unexpected("a string in double quotes")
        if cursor.sees_word("ip") and value.kind == "name":
            if op.kind not in ("=", "!="):
                raise cursor.error("ip() stands behind = or != only", op)
            return tree.IpFilter(name.text, "!=" if op.kind == "!=" else "=", self._ip().text)
        compare = cast("tree.CompareOp", "==" if op.kind == "=" else op.kind)
        number, kind = self.literal()
        return tree.NumberFilter(name.text, compare, number, kind)

    def literal(self) -> tuple[float, tree.NumberKind]:
        """A number, a duration or a size, with or without a sign."""
        cursor = self.cursor
        sign = cursor.take().kind if cursor.sees("+", "-") else "+"
        if not cursor.sees(*LITERALS):
            raise cursor.unexpected("a string, a number, a duration or a size")
        token = cursor.take()
        kind = cast("tree.NumberKind", token.kind)
        reader = {"number": units.number, "duration": units.duration, "size": units.size}[kind]
        value = reader(token.text)
        if value is None or value in (float("inf"), float("-inf")):
            raise cursor.error("this number is too large", token)
        return (-value if sign == "-" else value), kind

    def duration(self) -> int:
        """A duration of a range or an offset, as nanoseconds."""
        token = self.cursor.expect("duration", what="a duration such as 5m")
        value = units.duration(token.text)
        if value is None:
            raise self.cursor.error("this duration is too long", token)
        return value

    def _unwrap(self) -> tree.Unwrap:
        cursor = self.cursor
        cursor.take()
        label = cursor.expect("name", what="a label name")
        convert = ""
        if cursor.accept("("):
            if label.text not in ("duration", "duration_seconds", "bytes"):
                raise cursor.error(
                    "unwrap converts with duration(), duration_seconds() or bytes()", label
                )
            convert, label = label.text, cursor.expect("name", what="a label name")
            cursor.expect(")")
        filters: list[tree.LabelFilter] = []
        while cursor.accept("|"):
            cursor.part()
            if not cursor.sees("name", "("):
                raise cursor.unexpected("a label filter; nothing else stands behind unwrap")
            filters.append(self._filter())
        return tree.Unwrap(label.text, convert, tuple(filters))  # type: ignore[arg-type]


STAGES: Final = (
    "json",
    "logfmt",
    "regexp",
    "pattern",
    "unpack",
    "line_format",
    "label_format",
    "decolorize",
    "drop",
    "keep",
)


def _excludes_empty(matcher: tree.Matcher) -> bool:
    """Whether a matcher refuses the empty text, which is what an absent label counts as."""
    if matcher.op in ("=", "!="):
        return (matcher.value != "") == (matcher.op == "=")
    return regex.matching(matcher.value)("") == (matcher.op == "!~")
