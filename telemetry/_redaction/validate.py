r"""
Whether a `Redaction` can be used, and whether its patterns can explode.

Python's regular expressions try every way to match, so `(a+)+$` on 40 characters takes hours. A
pattern is refused at the start if the ways can multiply: a repeat within a repeat, a choice within a
repeat, a back-reference, more than one repeat that can give characters to what follows it, or a
beginning that is tried anew from within each run (`\d+-\d+-\d+`: put `\b` before it). What passes is
then tried on the texts that are worst for it. At run time texts are looked at 4 KiB at a time.
"""

import importlib
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from telemetry._redaction.policy import LEVELS, MODES, RULES, Redaction

LENGTH: Final = 1000
PATTERNS: Final = 64
MANY: Final = 64
"""A bounded repeat of more than this counts as an unbounded one."""
WAYS: Final = 4096
ENDLESS: Final = 1000
SIZES: Final = (16, 22, 28, 64, 256, 1024, 4096)
TRIAL_S: Final = 0.25

# Not public, but stable since Python 3.11; tests/telemetry/redaction/test_validate.py would notice.
_parser: Any = importlib.import_module("re._parser")
_ALPHABET: Final = [chr(code) for code in range(128)] + ["é", "世"]
_PLACES: Final = ("AT", "ASSERT", "ASSERT_NOT")
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_CATEGORIES: Final = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}


def problems(redaction: Redaction) -> list[str]:
    """What is wrong with it, each with the fix."""
    found: list[str] = []
    if redaction.level not in LEVELS:
        found.append(f"redaction level {redaction.level!r}: give one of {', '.join(LEVELS)}")
    known = {*RULES, *redaction.patterns}
    found += [
        f"redaction mode of {name!r}: there is no such rule; rules are {', '.join(sorted(known))}"
        for name in redaction.modes
        if name not in known
    ]
    given = redaction.keys
    modes = [*redaction.modes.items(), *(given.items() if isinstance(given, Mapping) else ())]
    found += [
        f"redaction mode {mode!r} of {name!r}: give one of {', '.join(MODES)}"
        for name, mode in modes
        if mode not in MODES
    ]
    if len(redaction.patterns) > PATTERNS:
        found.append(f"{len(redaction.patterns)} redaction patterns: give at most {PATTERNS}")
        return found
    for name, pattern in redaction.patterns.items():
        if name in RULES:
            found.append(f"redaction pattern {name!r}: the name of a built-in rule; give another")
        try:
            check(pattern)
        except ValueError as error:
            found.append(f"redaction pattern {name!r}: {error}")
    found += [
        f"redaction rule {rule!r}: give a function from text to text"
        for rule in redaction.rules
        if not callable(rule)
    ]
    return found


def check(pattern: str) -> None:
    """Raise ValueError, with the fix, for a pattern that is invalid or can explode."""
    if not isinstance(pattern, str) or len(pattern) > LENGTH:
        raise ValueError(f"give a regular expression of at most {LENGTH} characters")
    try:
        compiled = re.compile(pattern)
        tree = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    found = _Check(tree.state.flags)
    if found.empty(list(tree)):
        raise ValueError("it matches the empty text; make it ask for at least one character")
    found.sequence(list(tree), last=True)
    _try(compiled, found.seen)


class _Check:
    """
    Walks a parsed pattern.

    Args:
        flags: of the pattern.
    """

    def __init__(self, flags: int) -> None:
        self.seen: list[frozenset[str]] = []
        self._flags = flags
        self._giving = 0
        self._ways = 1

    def sequence(self, nodes: list[Any], *, last: bool, inside: int = 0, led: bool = False) -> None:
        """
        Check nodes that follow each other.

        Args:
            nodes: (operation, argument) pairs.
            last: nothing follows them in the pattern.
            inside: how often they are repeated as a whole; 0 is once.
            led: something that is not empty, or a place, comes before them.
        """
        nodes = self._flat(nodes)
        for index, (operation, argument) in enumerate(nodes):
            rest = nodes[index + 1 :]
            before = nodes[:index]
            led = led or any(str(name) in _PLACES for name, _ in before) or not self.empty(before)
            word = str(operation)
            if word in ("GROUPREF", "GROUPREF_EXISTS"):
                raise ValueError("it refers back to a group; write it without back-references")
            if word in ("ASSERT", "ASSERT_NOT"):
                self.sequence(list(argument[1]), last=False, inside=inside, led=led)
            elif word == "ATOMIC_GROUP":
                self.sequence(list(argument), last=last and not rest, inside=inside, led=led)
            elif word == "BRANCH":
                if inside:
                    raise ValueError(
                        "a choice within a repeat; write [ab] or repeat each by itself"
                    )
                giving, most = self._giving, self._giving
                for branch in argument[1]:
                    self._giving = giving
                    self.sequence(list(branch), last=last and not rest, led=led)
                    most = max(most, self._giving)
                self._giving = most
            elif word in _REPEATS:
                self._repeat(argument, rest, last=last, inside=inside, led=led)
            else:
                self._note(self._characters(operation, argument))

    def _repeat(
        self, argument: Any, rest: list[Any], *, last: bool, inside: int, led: bool
    ) -> None:
        least, most, body = argument
        nodes = self._flat(list(body))
        choices = int(most) - int(least) + 1
        if choices > 1 and inside and (inside > 12 or choices**inside > WAYS):
            raise ValueError("a repeat within a repeat; write the inner or the outer one only")
        if int(most) > 1:
            times = max(inside, 1) * int(most) if choices == 1 else ENDLESS
            self.sequence(nodes, last=False, inside=min(times, ENDLESS), led=True)
        else:
            self.sequence(nodes, last=last and not rest, inside=inside, led=led)
        own = self._first(nodes)
        if choices <= MANY:
            if own & self._first(rest):
                self._ways *= choices
            if self._ways > WAYS:
                raise ValueError(
                    "too many ways to match; let repeats that follow not share characters"
                )
            return
        if not rest and last:
            return  # nothing can fail after it
        if not led:
            raise ValueError(
                "it begins with a long repeat, tried anew at each character of a run; put \\b or a"
                " fixed text before it, or bound it: {1,64}"
            )
        if own & self._first(rest) or not rest or self.empty(rest):
            self._giving += 1
            if self._giving > 1:
                raise ValueError(
                    "two long repeats that can share characters with what follows; bound them:"
                    " {1,64}, or name what they may not contain: [^,]"
                )

    def _flat(self, nodes: list[Any]) -> list[Any]:
        """Groups opened: what they hold stands in the sequence itself."""
        flat: list[Any] = []
        for operation, argument in nodes:
            if str(operation) == "SUBPATTERN":
                flat += self._flat(list(argument[3]))
            else:
                flat.append((operation, argument))
        return flat

    def empty(self, nodes: list[Any]) -> bool:
        """Whether these may match nothing."""
        for operation, argument in self._flat(nodes):
            word = str(operation)
            if word in _REPEATS:
                if argument[0] and not self.empty(list(argument[2])):
                    return False
            elif word == "BRANCH":
                if not any(self.empty(list(branch)) for branch in argument[1]):
                    return False
            elif word == "ATOMIC_GROUP":
                if not self.empty(list(argument)):
                    return False
            elif word not in _PLACES:
                return False
        return True

    def _first(self, nodes: list[Any]) -> frozenset[str]:
        """The characters that these can begin with; all of them, where only a place is asked for."""
        found: frozenset[str] = frozenset()
        for operation, argument in self._flat(nodes):
            word = str(operation)
            if word in _PLACES:
                return frozenset(_ALPHABET)
            if word == "BRANCH":
                for branch in argument[1]:
                    found |= self._first(list(branch))
            elif word in _REPEATS:
                found |= self._first(list(argument[2]))
            elif word == "ATOMIC_GROUP":
                found |= self._first(list(argument))
            else:
                found |= self._characters(operation, argument)
            if not self.empty([(operation, argument)]):
                break
        return found

    def _characters(self, operation: Any, argument: Any) -> frozenset[str]:
        """Those of the alphabet that one node matches."""
        word = str(operation)
        if word == "ANY":
            return frozenset(_ALPHABET)
        if word in ("LITERAL", "NOT_LITERAL"):
            found = {chr(argument)}
            if self._flags & re.IGNORECASE:
                found |= {chr(argument).lower(), chr(argument).upper()}
            return frozenset(_ALPHABET) - found if word == "NOT_LITERAL" else frozenset(found)
        if word != "IN":
            return frozenset()
        members: set[str] = set()
        negated = False
        for kind, value in argument:
            name = str(kind)
            if name == "NEGATE":
                negated = True
            elif name == "LITERAL":
                members.add(chr(value))
            elif name == "RANGE":
                members |= {c for c in _ALPHABET if value[0] <= ord(c) <= value[1]}
            elif name == "CATEGORY":
                category = str(value).removeprefix("CATEGORY_")
                matches = re.compile(_CATEGORIES[category.removeprefix("NOT_")]).match
                turned = category.startswith("NOT_")
                members |= {c for c in _ALPHABET if bool(matches(c)) != turned}
        if self._flags & re.IGNORECASE:
            members |= {c.lower() for c in members} | {c.upper() for c in members}
        return frozenset(_ALPHABET) - members if negated else frozenset(members)

    def _note(self, characters: frozenset[str]) -> None:
        if characters and characters not in self.seen and len(self.seen) < 12:
            self.seen.append(characters)


def _try(compiled: re.Pattern[str], seen: list[frozenset[str]]) -> None:
    """Time the pattern on long texts made of what it looks for."""
    units = [sorted(characters)[len(characters) // 2] for characters in seen]
    whole = "".join(units)
    for unit in dict.fromkeys([*units, whole, *(a + b for a in units[:4] for b in units[:4])]):
        for size in SIZES:
            text = (unit * (size // len(unit) + 1))[:size] + "\x00"
            begun = time.perf_counter()
            for _ in compiled.finditer(text):
                pass
            if time.perf_counter() - begun > TRIAL_S:
                raise ValueError(f"it takes too long on {size} characters; make it more exact")
