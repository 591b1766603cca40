"""
Secrets that a text itself names: `password=x`, `"token": "x"`, `--api-key x`, `Cookie: a=b`.

The same decision about names as for attributes, applied to what stands before each `=` and `:`: in
URLs, JSON (also JSON within JSON, with its backslashes), reprs, headers, connection strings, lines of
code in a traceback and command lines. From a separator one looks back a bounded distance for the
name and forward for the end of the value, and goes on behind it, so the work grows with the text
and not faster.
"""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

BEFORE: Final = 96

_SEPARATOR = re.compile(r"[=:%](?:(?<=%)3[ADad]|(?<!%)[=:]{0,2}>?)")
_NAME = re.compile(r"[\s\"'\\\])}`]{0,12}([\w.%$-]{1,64})")  # on the reversed text
_OPENING = re.compile(r"[ \t]{0,8}(?:[bBuUrRfF]{1,2}(?=[\"']))?(\\{0,16}[\"'`])?")
_BRACKET = re.compile(r"[\[\](){}]")
_BARE = re.compile(r"[^\s,;&\"'`<>()\[\]{}|\\]*")
_LINE = re.compile(r"[^\r\n\"'\\]*")
_FLAG = re.compile(
    r"-(?<![\w-]-)-?([A-Za-z][\w-]{1,63})[ \t]{1,8}([^\s\-\"'][^\s]*|\"[^\"\n]*\"|'[^'\n]*')"
)
_QUOTED = re.compile(
    r"(?:password|passwd|passphrase|passcode|secret|api[ _-]?key|private[ _-]?key)[ \t]{1,4}"
    r"(?:(?:is|was|of|value|given)[ \t]{1,4}){0,2}([\"'`])([^\"'`\n]{1,512})\1"
)
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_WHOLE_LINE: Final = ("authorization", "cookie", "cookies")
HARMLESS: Final = frozenset(
    (
        *("none", "null", "nil", "undefined", "true", "false", "yes", "no", "empty", "missing"),
        *("required", "invalid", "str", "int", "bytes", "bool", "any", "optional", "self"),
    )
)

Decide = Callable[[str, bool], Any]
Replace = Callable[[Any, str], str]


def mask(text: str, endings: frozenset[str], decide: Decide, replace: Replace) -> str:
    """
    The text with the values of secret names replaced.

    Args:
        text: what is looked at.
        endings: the last two letters that the names of secrets have.
        decide: a name, and whether it is a parameter of a URL -> the rule, or None.
        replace: the rule and the value -> what stands in its place.
    """
    if "=" in text or ":" in text or "%3" in text:
        text = _pairs(text, endings, decide, replace)
    if " -" in text or text[:1] == "-":
        text = _FLAG.sub(lambda found: _flag(found, decide, replace), text)
    if "'" in text or '"' in text or "`" in text:
        text = _prose(text, decide, replace)
    return text


def _pairs(text: str, endings: frozenset[str], decide: Decide, replace: Replace) -> str:
    parts: list[str] = []
    done = 0
    for found in _SEPARATOR.finditer(text):
        at = found.start()
        if at < done:
            continue
        tail = text[at - 2 : at]
        if tail.isalpha() and tail.isascii() and tail.lower() not in endings:
            continue
        before = text[max(done, at - BEFORE) : at]
        name = _NAME.match(before[::-1])
        if name is None:
            continue
        key = name[1][::-1]
        first = at - name.end()
        rule = decide(unquote(key) if "%" in key else key, first > 0 and text[first - 1] in "?&")
        if rule is None:
            continue
        begin, end = _value(text, found.end(), whole_line=rule.word in _WHOLE_LINE)
        value = text[begin:end]
        if _harmless(value, key, rule):
            continue
        parts += (text[done:begin], replace(rule, value))
        done = end
    return "".join((*parts, text[done:])) if parts else text


def _harmless(value: str, key: str, rule: Any) -> bool:
    """Nothing, a word of the language, what is masked already, or a small number of tokens."""
    low = value.strip().lower()
    if not low or low in HARMLESS or low == key.lower() or not low.strip("*.x-"):
        return True
    if low.startswith("[redact"):
        return len(low) <= len("[redaction failed]")
    return not rule.numbers and (len(low) < 3 or (low.isdigit() and len(low) <= 4))


def _value(text: str, position: int, *, whole_line: bool) -> tuple[int, int]:
    """Where the value that follows a separator begins and ends."""
    opening: Any = _OPENING.match(text, position)
    begin = opening.end()
    quote = opening[1]
    if quote:
        return begin, _closing(text, begin, quote[-1], len(quote) - 1)
    if text[begin : begin + 1] in ("[", "(", "{"):
        if text.startswith("[REDACT", begin):
            return begin, text.find("]", begin) + 1 or len(text)
        return begin, _balanced(text, begin)
    found: Any = (_LINE if whole_line else _BARE).match(text, begin)
    return begin, found.end()


def _closing(text: str, begin: int, quote: str, escapes: int) -> int:
    """The end of a quoted value: a quote with no more backslashes before it than the opening had."""
    position = begin
    while (position := text.find(quote, position)) >= 0:
        slashes = 0
        while position - slashes > begin and text[position - slashes - 1] == "\\" and slashes < 64:
            slashes += 1
        if slashes <= escapes or (slashes % 2 == 0 and escapes == 0):
            return position - (slashes if escapes else 0)
        position += 1
    return len(text)


def _balanced(text: str, begin: int) -> int:
    """The end of a value in brackets; without an end, everything."""
    depth = 0
    for found in _BRACKET.finditer(text, begin):
        depth += 1 if found[0] in "[({" else -1
        if depth == 0:
            return found.end()
    return len(text)


def _flag(found: re.Match[str], decide: Decide, replace: Replace) -> str:
    rule = decide(found[1], False)
    if rule is None:
        return found[0]
    head = found[0][: found.start(2) - found.start()]
    return head + replace(rule, found[2].strip("\"'"))


def _prose(text: str, decide: Decide, replace: Replace) -> str:
    """`wrong password 'x'`: a quoted text behind a word that can mean nothing else."""
    low = lowered(text)
    if not ("pass" in low or "secret" in low or "key" in low):
        return text
    parts: list[str] = []
    done = 0
    for found in _QUOTED.finditer(low):
        begin, end = found.span(2)
        rule = decide("password", False)
        if rule is None or _harmless(text[begin:end], "", rule):
            continue
        parts += (text[done:begin], replace(rule, text[begin:end]))
        done = end
    return "".join((*parts, text[done:])) if parts else text


def lowered(text: str) -> str:
    """In lower case, with each character in its place."""
    low = text.lower()
    return low if len(low) == len(text) else text.translate(_LOWER)
