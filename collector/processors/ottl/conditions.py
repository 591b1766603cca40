"""
The conditions of the filter processor: a subset of the OpenTelemetry Transformation Language.

    condition   := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation    := "not" negation | "(" condition ")" | operand [operator operand]
    operator    := == | != | < | <= | > | >=
    operand     := "text" | 1 | 1.5 | true | false | nil | ENUM | path | Function(operand, ...)
    path        := name ("." name)* ("[" ("text" | 1) "]")*

A condition becomes a closure over a `Place` (processors/ottl/paths.py says what paths there are). Everything that
can be wrong with its text is found here, at start, and says what there is instead. While it runs
nothing can raise but `TooSlow`: values of different types are unequal and in no order.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from collector.processors.ottl.paths import CONTEXTS, ENUMS, ORDER, Getter, Place, getter
from collector.processors.ottl.regex import compiled
from collector.processors.shared.attribute_map import (
    text_of,
)

LONGEST: Final = 4096
DEEPEST: Final = 32
OPERATORS: Final = ("==", "!=", "<=", ">=", "<", ">")
TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>==|!=|<=|>=|<|>|\(|\)|\[|\]|,|\.)""",
    re.VERBOSE | re.ASCII,
)
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


@dataclass(slots=True, frozen=True)
class Token:
    """A piece of a condition: what it is, how it reads, where it stands."""

    kind: str
    text: str
    at: int


@dataclass(slots=True, frozen=True)
class Condition:
    """
    A condition, ready to run.

    Args:
        text: as written.
        context: what it is about: resource, scope, span, spanevent, metric, datapoint or log.
        test: whether it holds for a place.
    """

    text: str
    context: str
    test: Callable[[Place], bool]


def parse(text: str, signal: str, context: str = "") -> Condition:
    """
    A condition from its text.

    Args:
        text: the condition.
        signal: traces, metrics or logs.
        context: what it is about; without it the lowest context that a path names.

    Raises:
        ValueError: it cannot be understood; the message says where and what there is instead.
    """
    if len(text) > LONGEST:
        raise ValueError(f"a condition has at most {LONGEST} characters")
    parser = Parser(text, signal, context)
    test = parser.condition(0)
    if parser.peek().kind != "end":
        raise parser.problem(f'unexpected "{parser.peek().text}"')
    named = context or max(parser.contexts, key=ORDER.index, default=CONTEXTS[signal][-1])
    return Condition(text, named, test)


def tokens(text: str) -> Iterator[Token]:
    """The pieces of a condition; ends with one of the kind "end"."""
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ValueError(f'cannot read "{text[at : at + 20]}" at character {at + 1}')
        kind = found.lastgroup or ""
        if kind != "space":
            yield Token(kind, found[0], at)
        at = found.end()
    yield Token("end", "", at)


class Parser:
    """
    Reads one condition.

    Args:
        text: the condition.
        signal: traces, metrics or logs.
        context: what paths without one are about; empty to find out.
    """

    def __init__(self, text: str, signal: str, context: str) -> None:
        self.signal = signal
        self.context = context
        self.contexts: set[str] = set()
        self._tokens = list(tokens(text))
        self._at = 0

    def peek(self) -> Token:
        """The token that comes next."""
        return self._tokens[self._at]

    def take(self, text: str = "") -> Token | None:
        """Take the next token; with a text, only when it reads so."""
        token = self._tokens[self._at]
        if token.kind == "end" or (text and token.text != text) or (text and token.kind == "text"):
            return None
        self._at += 1
        return token

    def need(self, text: str) -> None:
        """Take the token that must come now."""
        if self.take(text) is None:
            raise self.problem(f'expected "{text}"')

    def problem(self, text: str) -> ValueError:
        """An error at the place of the next token."""
        return ValueError(f"{text} at character {self.peek().at + 1}")

    def condition(self, depth: int) -> Callable[[Place], bool]:
        """Conjunctions joined by "or"."""
        tests = [self.conjunction(depth)]
        while self.take("or"):
            tests.append(self.conjunction(depth))
        return tests[0] if len(tests) == 1 else lambda place: any(test(place) for test in tests)

    def conjunction(self, depth: int) -> Callable[[Place], bool]:
        """Negations joined by "and"."""
        tests = [self.negation(depth)]
        while self.take("and"):
            tests.append(self.negation(depth))
        return tests[0] if len(tests) == 1 else lambda place: all(test(place) for test in tests)

    def negation(self, depth: int) -> Callable[[Place], bool]:
        """A comparison, something in parentheses, or the opposite of one."""
        if depth > DEEPEST:
            raise self.problem(f"nested deeper than {DEEPEST} levels")
        if self.take("not"):
            test = self.negation(depth + 1)
            return lambda place: not test(place)
        if self.take("("):
            inner = self.condition(depth + 1)
            self.need(")")
            return inner
        return self.comparison(depth)

    def comparison(self, depth: int) -> Callable[[Place], bool]:
        """Two operands and an operator, or one operand that is true or false."""
        left = self.operand(depth)
        operator = next((each for each in OPERATORS if self.take(each)), "")
        if not operator:
            return lambda place: left(place) is True
        right = self.operand(depth)
        compare = COMPARE[operator]
        return lambda place: compare(left(place), right(place))

    def operand(self, depth: int) -> Getter:
        """A literal, a path or a function."""
        token = self.take()
        if token is None:
            raise self.problem("the condition ends too early")
        if token.kind == "text":
            return constant(unescaped(token.text[1:-1]))
        if token.kind == "number":
            return constant(float(token.text) if "." in token.text else int(token.text))
        if token.kind == "word":
            return self.named(token, depth)
        self._at -= 1
        raise self.problem(f'unexpected "{self.peek().text}"')

    def named(self, token: Token, depth: int) -> Getter:
        """What a word stands for."""
        word = token.text
        if word in WORDS:
            return constant(WORDS[word])
        if word in ENUMS:
            return constant(ENUMS[word])
        if word in ("and", "or", "not"):
            self._at -= 1
            raise self.problem(f'unexpected "{word}"')
        if self.take("("):
            return self.function(word, depth)
        names = [word]
        while self.take("."):
            part = self.take()
            if part is None or part.kind != "word":
                raise self.problem('expected a name behind "."')
            names.append(part.text)
        keys: list[str | int] = []
        while self.take("["):
            keys.append(self.key())
            self.need("]")
        context, get = getter(names, keys, self.signal, self.context)
        if context:
            self.contexts.add(context)
        return get

    def key(self) -> str | int:
        """A text or a whole number between brackets."""
        token = self.take()
        if token is not None and token.kind == "text":
            return unescaped(token.text[1:-1])
        if token is not None and token.kind == "number" and token.text.isdigit():
            return int(token.text)
        raise self.problem('expected a key, as in attributes["key"]')

    def function(self, name: str, depth: int) -> Getter:
        """A function, its name and opening parenthesis taken."""
        if name not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise ValueError(f'undefined function "{name}"; there are: {known}')
        if depth > DEEPEST:
            raise self.problem(f"nested deeper than {DEEPEST} levels")
        arguments: list[Getter] = []
        literals: list[Any] = []
        while not self.take(")"):
            if arguments:
                self.need(",")
            token = self.peek()
            arguments.append(self.operand(depth + 1))
            literals.append(unescaped(token.text[1:-1]) if token.kind == "text" else None)
        amount, make = FUNCTIONS[name]
        if len(arguments) != amount:
            raise ValueError(f"{name} takes {amount} arguments, not {len(arguments)}")
        if name.startswith("HasAttr"):
            self.contexts.add("metric")
        return make(arguments, literals)


def constant(value: Any) -> Getter:
    """A getter that ignores the place."""
    return lambda _: value


def unescaped(text: str) -> str:
    """The content of a quoted text."""
    return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[0]), text)


# --- comparing ---


def number(value: Any) -> bool:
    """Whether a value is a number; true and false are none here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(left: Any, right: Any) -> bool:
    """Equality as OTTL has it: of different types only numbers can be equal."""
    if type(left) is type(right) or (number(left) and number(right)):
        return bool(left == right)
    return False


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """An order of numbers, texts or bytes; false for everything else."""

    def run(left: Any, right: Any) -> bool:
        if number(left) and number(right):
            return compare(left, right)
        if type(left) is type(right) and isinstance(left, str | bytes):
            return compare(left, right)
        return False

    return run


COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    "<": ordered(lambda left, right: left < right),
    "<=": ordered(lambda left, right: left <= right),
    ">": ordered(lambda left, right: left > right),
    ">=": ordered(lambda left, right: left >= right),
}
WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "nil": None}

# --- functions ---

Make = Callable[[list[Getter], list[Any]], Getter]


def _is_match(arguments: list[Getter], literals: list[Any]) -> Getter:
    target = arguments[0]
    if literals[1] is None:
        raise ValueError('IsMatch takes its pattern as a text: IsMatch(name, "^GET")')
    pattern = compiled(literals[1])

    def run(place: Place) -> bool:
        value = target(place)
        return value is not None and pattern.found_in(text_of(value), place.budget)

    return run


def _of_text(test: Callable[[str, str], bool]) -> Make:
    def make(arguments: list[Getter], _: list[Any]) -> Getter:
        target, part = arguments

        def run(place: Place) -> bool:
            value, wanted = target(place), part(place)
            return isinstance(value, str) and isinstance(wanted, str) and test(value, wanted)

        return run

    return make


def _is_type(*kinds: type) -> Make:
    def make(arguments: list[Getter], _: list[Any]) -> Getter:
        target = arguments[0]
        return lambda place: type(target(place)) in kinds

    return make


def _len(arguments: list[Getter], _: list[Any]) -> Getter:
    target = arguments[0]

    def run(place: Place) -> int | None:
        value = target(place)
        return len(value) if isinstance(value, str | bytes | list | dict) else None

    return run


def _lower(arguments: list[Getter], _: list[Any]) -> Getter:
    target = arguments[0]

    def run(place: Place) -> str | None:
        value = target(place)
        return value.lower() if isinstance(value, str) else None

    return run


def _has_key(arguments: list[Getter], _: list[Any]) -> Getter:
    key = arguments[0]
    return lambda place: any(
        pair.key == key(place) for point in place.points() for pair in point.attributes
    )


def _has_pair(arguments: list[Getter], _: list[Any]) -> Getter:
    key, value = arguments
    return lambda place: any(
        pair.key == key(place) and pair.value.string_value == value(place)
        for point in place.points()
        for pair in point.attributes
    )


FUNCTIONS: Final[dict[str, tuple[int, Make]]] = {
    "IsMatch": (2, _is_match),
    "HasPrefix": (2, _of_text(str.startswith)),
    "HasSuffix": (2, _of_text(str.endswith)),
    "IsString": (1, _is_type(str)),
    "IsBool": (1, _is_type(bool)),
    "IsInt": (1, _is_type(int)),
    "IsDouble": (1, _is_type(float)),
    "IsMap": (1, _is_type(dict)),
    "IsList": (1, _is_type(list)),
    "Len": (1, _len),
    "ToLowerCase": (1, _lower),
    "HasAttrKeyOnDatapoint": (1, _has_key),
    "HasAttrOnDatapoint": (2, _has_pair),
}
