"""
Templates of `line_format` and `label_format`: the part of Go's text/template that log lines need.

A template is parsed once into small closures and run for each line: text, `{{ .label }}`, calls and
pipes (`{{ .a | trunc 5 }}`), parentheses, literals, `if / else if / else`, `with`, trim marks and
comments. What is left out (`range`, `define`, variables) is refused by name when the query is
parsed. Functions are in `template_functions`; one that fails on a value makes
`__error__="TemplateFormatErr"` for that line and nothing else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from collector.query.logql import template_functions
from collector.query.logql.template_functions import FUNCTIONS, TemplateError, shown, truthy

MAX_OUTPUT: Final = 256 * 1024
"""Characters that one template makes of one line."""
MAX_DEPTH: Final = 32

_ACTION: Final = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<field>\.[A-Za-z_][A-Za-z0-9_]*|\.)(?![A-Za-z0-9_])
    | (?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)
    | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]+)?))(?![A-Za-z0-9_.])
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>[|()]))""",
    re.VERBOSE,
)
_REFUSED: Final = ("range", "define", "template", "block", "break", "continue")


@dataclass(slots=True)
class Scope:
    """What a template sees of a line: its labels, its text, its time, and the dot."""

    labels: Mapping[str, str]
    line: str
    time: int
    dot: Any = None


Value = Callable[[Scope], Any]
Writer = Callable[[Scope, list[str]], None]


def compiled(text: str) -> Callable[[Scope], str]:
    """
    A template ready to run.

    Returns:
        a function that makes the text; it raises `TemplateError` when a function fails on a value.

    Raises:
        ValueError: the template is none, or uses what is not supported.
    """
    write = _Blocks(text).whole()

    def run(scope: Scope) -> str:
        out: list[str] = []
        write(scope, out)
        made = "".join(out)
        if len(made) > MAX_OUTPUT:
            raise TemplateError(f"the template makes more than {MAX_OUTPUT} characters")
        return made

    return run


class _Blocks:
    """Text and actions of a template, and the blocks that actions open."""

    def __init__(self, text: str) -> None:
        self._pieces: list[tuple[bool, str]] = []
        position, trim = 0, False
        for match in _ACTION.finditer(text):
            before = text[position : match.start()]
            before = before.lstrip() if trim else before
            self._pieces.append((False, before.rstrip() if match[1] else before))
            self._pieces.append((True, match[2].strip()))
            position, trim = match.end(), bool(match[3])
        rest = text[position:]
        if "{{" in rest:
            raise ValueError("the template has {{ without }}")
        self._pieces.append((False, rest.lstrip() if trim else rest))
        self._index = 0
        self._depth = 0

    def whole(self) -> Writer:
        write, ended = self._body()
        if ended:
            raise ValueError(f"the template has {{{{{ended}}}}} without an opening if or with")
        return write

    def _body(self) -> tuple[Writer, str]:
        """What stands up to the next `end` or `else`, and that action ("" at the end)."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"the template nests deeper than {MAX_DEPTH} levels")
        writers: list[Writer] = []
        ended = ""
        while self._index < len(self._pieces) and not ended:
            is_action, text = self._pieces[self._index]
            self._index += 1
            word = text.split(None, 1)[0] if text.split() else ""
            if not is_action:
                if text:
                    writers.append(_literal(text))
            elif text.startswith("/*"):
                continue
            elif word in ("end", "else"):
                ended = text
            elif word in ("if", "with"):
                writers.append(self._block(text[len(word) :], dot=word == "with"))
            elif word in _REFUSED:
                raise ValueError(f"templates do not support `{word}`")
            else:
                writers.append(_action(text))
        self._depth -= 1

        def write(scope: Scope, out: list[str]) -> None:
            for writer in writers:
                writer(scope, out)

        return write, ended

    def _block(self, condition: str, *, dot: bool) -> Writer:
        test = _Pipeline(condition).whole()
        then, ended = self._body()
        otherwise: Writer | None = None
        if ended.startswith("else"):
            rest = ended[4:].strip()
            word = rest.split(None, 1)[0] if rest else ""
            if word in ("if", "with"):
                otherwise = self._block(rest[len(word) :], dot=word == "with")
                ended = "end"
            elif rest:
                raise ValueError("the template has an else that is neither else nor else if")
            else:
                otherwise, ended = self._body()
        if ended != "end":
            raise ValueError("the template has an if or with without {{end}}")

        def write(scope: Scope, out: list[str]) -> None:
            value = test(scope)
            if truthy(value):
                then(Scope(scope.labels, scope.line, scope.time, value) if dot else scope, out)
            elif otherwise is not None:
                otherwise(scope, out)

        return write


def _literal(text: str) -> Writer:
    return lambda _, out: out.append(text)


def _action(text: str) -> Writer:
    value = _Pipeline(text).whole()
    return lambda scope, out: out.append(shown(value(scope)))


class _Pipeline:
    """The inside of an action: commands joined by `|`."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._index = 0
        self._depth = 0
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                what = text[position:].strip()[:20]
                hint = "; variables are not supported" if what.startswith("$") else ""
                raise ValueError(f"the template cannot be read at `{what}`{hint}")
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            position = match.end()

    def whole(self) -> Value:
        value = self._pipe()
        if self._index < len(self._tokens):
            raise ValueError("the template has a ) without (")
        return value

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._index] if self._index < len(self._tokens) else ("end", "")

    def _pipe(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"the template nests deeper than {MAX_DEPTH} levels")
        value = self._command(None)
        while self._peek() == ("mark", "|"):
            self._index += 1
            value = self._command(value)
        self._depth -= 1
        return value

    def _command(self, piped: Value | None) -> Value:
        """A function with its arguments, or one value; the piped value is the last argument."""
        kind, text = self._peek()
        if kind == "word" and text not in ("true", "false", "nil"):
            self._index += 1
            arguments: list[Value] = []
            while self._peek()[0] not in ("end", "mark") or self._peek()[1] == "(":
                arguments.append(self._operand())
            if piped is not None:
                arguments.append(piped)
            return _call(text, arguments)
        if piped is not None:
            raise ValueError("the template pipes into something that is no function")
        value = self._operand()
        if self._peek()[0] not in ("end", "mark") or self._peek()[1] == "(":
            raise ValueError("the template has an argument behind something that is no function")
        return value

    def _operand(self) -> Value:
        kind, text = self._peek()
        if kind == "end":
            raise ValueError("the template has an action without a value")
        self._index += 1
        if kind == "field":
            name = text[1:]
            return (lambda scope: scope.labels.get(name, "")) if name else _dot
        if kind == "string":
            literal = text[1:-1] if text[0] == "`" else template_functions.unescaped(text)
            return lambda _: literal
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda _: number
        if (kind, text) == ("mark", "("):
            inner = self._pipe()
            if self._peek() != ("mark", ")"):
                raise ValueError("the template has a ( without )")
            self._index += 1
            return inner
        if kind == "word":
            if text in ("true", "false", "nil"):
                constant = {"true": True, "false": False, "nil": None}[text]
                return lambda _: constant
            return _call(text, [])
        raise ValueError(f"the template has a `{text}` where a value belongs")


def _dot(scope: Scope) -> Any:
    return scope.labels if scope.dot is None else scope.dot


def _call(name: str, arguments: list[Value]) -> Value:
    if name == "__line__":
        return lambda scope: scope.line
    if name == "__timestamp__":
        return lambda scope: template_functions.Instant(scope.time)
    function = FUNCTIONS.get(name)
    if function is None:
        raise ValueError(f"templates have no function `{name}`")
    least, most, run = function
    if not least <= len(arguments) <= most:
        raise ValueError(f"the template's function `{name}` takes {least} arguments")

    def call(scope: Scope) -> Any:
        values = [argument(scope) for argument in arguments]
        try:
            return run(*values)
        except (
            ValueError,
            TypeError,
            ArithmeticError,
            LookupError,
            RecursionError,
        ) as bad:
            raise TemplateError(f"{name}: {bad}") from None

    return call
