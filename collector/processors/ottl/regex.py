r"""
Regular expressions from a configuration, run on data that is not trusted.

Python's engine backtracks: `(a+)+$` takes minutes on thirty characters, and nothing can interrupt it.
So a pattern is tried when it is compiled, on texts made from its own parts: every repeated piece,
repeated often, with an end that cannot match. A pattern that is slow on 512 characters is refused.

What is left is linear, or quadratic in the worst case (`\S+@\S+`). A quadratic pattern is fast on
honest text, so it is kept, but its time is watched: long texts are searched in overlapping slices,
and a `Budget` bounds the CPU time that one batch may cost beyond what honest text does. Behind that
bound the answer is `TooSlow`, and the caller does what is safe: redaction masks the whole value.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]  # the stdlib's own; no other way to the parts
from typing import Any, Final, TypeVar

LONGEST_PATTERN: Final = 1000
TRIAL: Final = (16, 18, 20, 22, 24, 26, 28, 32, 48, 64, 128, 256, 512)
"""Lengths that are tried, in small steps: what is exponential shows before it hurts."""
TRIAL_S: Final = 0.02
"""More than this on a text of the trial is too slow. Quadratic patterns need about 2 ms."""
LINEAR_AT: Final = 2048
LINEAR_S: Final = 0.001
"""At most this on a text of `LINEAR_AT` characters is linear; quadratic patterns need 5 ms."""
ATTACKS: Final = 60
SLICE: Final = 4096
STEP: Final = 2048
HONEST_S: Final = 2e-7
"""CPU time per character that honest text does not need."""
EXCESS_S: Final = 1.0
"""CPU time that texts of one batch may need beyond that."""
ALPHABETS: Final = ("a0A_-.@/: ", "0 -._aA", " \t-_aA0", "AZaz09=;,")
CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_NOT_DIGIT": lambda letter: not letter.isdigit(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda letter: not letter.isspace(),
    "CATEGORY_WORD": lambda letter: letter.isalnum() or letter == "_",
    "CATEGORY_NOT_WORD": lambda letter: not (letter.isalnum() or letter == "_"),
}

R = TypeVar("R")


class TooSlow(Exception):
    """The patterns of this batch have used up their time."""


@dataclass(slots=True)
class Budget:
    """The CPU time that the texts of one batch may still cost beyond what honest text does."""

    left_s: float = EXCESS_S

    def spend(self, search: Callable[[str, int, int], R], text: str, start: int, end: int) -> R:
        """
        Search in a part of a text, and take what that cost beyond an honest search.

        Raises:
            TooSlow: there is no time left.
        """
        if self.left_s <= 0:
            raise TooSlow
        began = time.perf_counter()
        found = search(text, start, end)
        allowed = HONEST_S * (end - start) + 2e-5
        if time.perf_counter() - began > allowed:
            # Slow, or only interrupted? CPU time tells, but asking for it each time costs more.
            began = time.thread_time()
            search(text, start, end)
            self.left_s -= max(0.0, time.thread_time() - began - allowed)
        return found


@dataclass(slots=True, frozen=True)
class Pattern:
    """
    A pattern that was tried.

    Args:
        regex: what Python made of it.
        linear: whether its time grows with the text and no faster.
    """

    regex: re.Pattern[str]
    linear: bool

    def found_in(self, text: str, budget: Budget) -> bool:
        """
        Whether the pattern occurs in the text.

        Raises:
            TooSlow: the time of the batch is used up.
        """
        if self.linear:
            return self.regex.search(text) is not None
        return any(
            budget.spend(self.regex.search, text, begin, end) is not None
            for begin, end in slices(text)
        )

    def match(self, text: str, budget: Budget) -> re.Match[str] | None:
        """The first match; of a pattern that is not linear only the first slice is looked at."""
        if self.linear:
            return self.regex.search(text)
        return budget.spend(self.regex.search, text, 0, min(len(text), SLICE))

    def replace(self, text: str, mask: Callable[[str], str], budget: Budget) -> str:
        """
        The text with every match masked.

        Raises:
            TooSlow: the time of the batch is used up; nothing of the text is known to be safe.
        """
        if self.linear:
            if self.regex.search(text) is None:
                return text
            return self.regex.sub(lambda found: mask(found[0]) if found[0] else "", text)
        if len(text) <= SLICE and not budget.spend(self._in_slice, text, 0, len(text)):
            return text
        pieces: list[str] = []
        end = 0
        for start, stop in self._spans(text, budget):
            pieces += (text[end:start], mask(text[start:stop]))
            end = stop
        return "".join((*pieces, text[end:])) if pieces else text

    def _spans(self, text: str, budget: Budget) -> Iterator[tuple[int, int]]:
        """Where matches begin and end, in order; those that overlap (in two slices) as one."""
        last: tuple[int, int] | None = None
        for start, stop in sorted(self._found(text, budget)):
            if last is not None and start < last[1]:
                last = (last[0], max(stop, last[1]))
                continue
            if last is not None:
                yield last
            last = (start, stop)
        if last is not None:
            yield last

    def _found(self, text: str, budget: Budget) -> Iterator[tuple[int, int]]:
        for begin, end in slices(text):
            for start, stop in budget.spend(self._in_slice, text, begin, end):
                if stop > start:
                    yield start, stop

    def _in_slice(self, text: str, begin: int, end: int) -> list[tuple[int, int]]:
        return [found.span() for found in self.regex.finditer(text, begin, end)]


def slices(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the parts that are searched; half of each is searched twice."""
    for begin in range(0, max(1, len(text)), STEP):
        yield begin, min(begin + SLICE, len(text))
        if begin + SLICE >= len(text):
            return


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Pattern:
    """
    A pattern that is safe to run.

    Raises:
        ValueError: it is none, it refers back, or it is too slow; the message says which.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"pattern is longer than {LONGEST_PATTERN} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            regex = re.compile(pattern)
            parts = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f'pattern "{pattern}" is no regular expression: {error}') from None
    if refers_back(parts):
        raise ValueError(
            f'pattern "{pattern}" refers back to a group, which cannot be searched fast'
        )
    try:
        return Pattern(regex, tried(regex, parts))
    except TooSlow:
        text = (
            f'pattern "{pattern}" is too slow on some texts; avoid repeats inside repeats such as '
            "(a+)+, and alternatives that match the same"
        )
        raise ValueError(text) from None


def tried(regex: re.Pattern[str], parts: Any) -> bool:
    """
    Run the pattern on texts that are hard for it; whether it is linear.

    Raises:
        TooSlow: it is worse than quadratic.
    """
    linear = True
    for prefix, unit in attacks(parts):
        for length in TRIAL:
            if spent(regex, prefix, unit, length) > TRIAL_S:
                raise TooSlow
        if linear:
            linear = spent(regex, prefix, unit, LINEAR_AT) <= LINEAR_S
    return linear


def spent(regex: re.Pattern[str], prefix: str, unit: str, length: int) -> float:
    """CPU seconds for all matches in a text of about this length; the better of two when slow."""
    text = prefix + unit * (length // len(unit)) + "\0"
    best = float("inf")
    for _ in range(2):
        start = time.thread_time()
        for _ in regex.finditer(text):
            pass
        best = min(best, time.thread_time() - start)
        if best <= LINEAR_S:
            break
    return best


def attacks(parts: Any) -> list[tuple[str, str]]:
    """Pairs of a text and a unit to repeat behind it."""
    found: dict[tuple[str, str], None] = {}
    letters: dict[str, None] = {}
    for alphabet in ALPHABETS:
        for branch in range(3):
            sample = Sample(alphabet, branch)
            whole = sample.text(parts)
            for prefix, unit in sample.repeats:
                found.setdefault((prefix[:64], unit[:64]))
                found.setdefault(("", (prefix + unit)[:64]))
            found.setdefault(("", whole[:64] or "a"))
            letters.update(dict.fromkeys(whole[:16]))
    singles = [("", letter) for letter in letters]
    pairs = [("", one + two) for one in list(letters)[:4] for two in list(letters)[:4]]
    return [pair for pair in [*found, *singles, *pairs] if pair[1]][:ATTACKS]


@dataclass(slots=True)
class Sample:
    """
    Makes a text that a parsed pattern matches, more or less.

    Args:
        alphabet: the letters to prefer, in this order.
        branch: which alternative to take.
        repeats: filled with what each repeat repeats and what stands before it.
    """

    alphabet: str
    branch: int
    repeats: list[tuple[str, str]] = field(default_factory=list)

    def text(self, parts: Any, before: str = "") -> str:
        """A text for a sequence of parts."""
        made = ""
        for operation, argument in parts:
            made += self.piece(str(operation), argument, before + made)
        return made

    def piece(self, operation: str, argument: Any, before: str) -> str:
        """A text for one part."""
        match operation:
            case "LITERAL":
                return chr(argument)
            case "NOT_LITERAL":
                return self.letter(lambda letter: ord(letter) != argument)
            case "ANY":
                return self.alphabet[0]
            case "IN":
                return self.letter(lambda letter: within(argument, letter))
            case "BRANCH":
                return self.text(argument[1][self.branch % len(argument[1])], before)
            case "SUBPATTERN":
                return self.text(argument[3], before)
            case "ATOMIC_GROUP":
                return self.text(argument, before)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, body = argument
                unit = self.text(body, before)
                if int(high) > 1:
                    self.repeats.append((before, unit))
                return unit * min(max(int(low), 1), 32)
        return ""  # anchors and looks around take no letter

    def letter(self, fits: Callable[[str], bool]) -> str:
        """The first letter that fits."""
        letters = self.alphabet + "".join(map(chr, range(33, 127))) + "\n\té\u4e00\U0001f600"
        return next((letter for letter in letters if fits(letter)), self.alphabet[0])


def within(parts: Any, letter: str) -> bool:
    """Whether a letter is in a parsed class."""
    negated = False
    inside = False
    for operation, argument in parts:
        match str(operation):
            case "NEGATE":
                negated = True
            case "LITERAL":
                inside |= ord(letter) == argument
            case "RANGE":
                inside |= argument[0] <= ord(letter) <= argument[1]
            case "CATEGORY":
                inside |= CATEGORIES.get(str(argument), str.isalpha)(letter)
    return inside is not negated


def refers_back(parts: Any) -> bool:
    """Whether a part is a reference to a group."""
    for operation, argument in parts:
        if str(operation).startswith("GROUPREF"):
            return True
        for inner in argument if isinstance(argument, tuple | list) else (argument,):
            bodies = inner if isinstance(inner, list) else [inner]
            if any(isinstance(body, _parser.SubPattern) and refers_back(body) for body in bodies):
                return True
    return False
