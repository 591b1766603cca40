"""
Applies a policy to texts, values and attributes, and counts what it changed.

It fails closed: a rule that raises, or that takes too long, costs the value and is counted; the
original is never sent. Each method gives the object that it was given if nothing has to change, so
that what needs no redaction is not copied.

Where it runs: in the export thread before encoding (`_export/record_redactor.py`), before a processor
of another library sees a record and before a reader gets metrics (`_sdk`), in the lines of console
and files (`_logs/format.py`), in baggage (`_context/propagation.py`), and in what we say ourselves.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._attribute_loops import values_to_redact
from telemetry._redaction import pseudonyms
from telemetry._redaction.policy import (
    CLEAN_TEXT,
    ID,
    MASK,
    QUERY,
    RULE,
    SKIP,
    Key,
    Policy,
    Redaction,
)

FAILED: Final = "[REDACTION FAILED]"
SHORTENED: Final = ("wallet", "email")
"""Rules whose end alone says nothing: within another place they do not count."""
TEXT: Final = 256 * 1024
"""What of one text is looked at and sent; the rest is cut off."""
PLAIN: Final = 13
"""Letters and digits, no more than this, need no redaction either."""
SHORTEST: Final = 6
"""A shorter text has none of the shapes that we know: it needs no redaction."""
SHORT: Final = 512
"""A longer text is first searched for parts of names that secrets have."""
WINDOW: Final = 4096
OVERLAP: Final = 1024
BUDGET_S: Final = 0.05
"""What own patterns may take for one text, looked at between windows."""
DEPTH: Final = 16
CLEAN: Final = 8192

_PLAIN_ID = re.compile(r"[0-9a-fA-F]*[a-fA-F-][0-9a-fA-F-]*\Z")
_ID_LENGTHS: Final = frozenset((8, 12, 16, 20, 24, 32, 36, 40, 64))
_FRAME = re.compile(r'^ *(?:\| )*File "[^"\n]*", line \d+, in .*$|^Traceback .*$', re.MULTILINE)


class _RuleError(Exception):
    """An own rule failed; the text names it and quotes nothing."""


class Redactor:
    """
    Applies a policy and counts what it changed, by rule.

    Args:
        policy: shared by all redactors of a process.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.counts: dict[str, int] = {}
        self._pid = os.getpid()
        self.off = policy.level == "off"

    # --- texts ---

    def text(self, text: str, *, is_id: bool = False) -> str:
        """The text as it may be seen; `text` itself if there is nothing in it."""
        length = len(text)
        if self.off or (length < SHORTEST and not self.policy.has_own):
            return text
        clean = self.policy.clean
        if text in clean or (length <= PLAIN and text.isalnum() and not self.policy.has_own):
            return text
        if length in _ID_LENGTHS and _PLAIN_ID.match(text) and not self.policy.has_own:
            return text
        try:
            seen = self._scan(text, is_id=is_id)
        except Exception as error:
            return self.failed(error)
        if seen == text:
            if not is_id and len(text) <= CLEAN_TEXT:
                if len(clean) >= CLEAN:
                    clean.clear()
                clean.add(text)
            return text
        return seen

    def message(self, text: str) -> str:
        """A text that other code has put together (an exception's, a status): not in `strict`."""
        if self.policy.level != "strict" or not text:
            return self.text(text)
        self._count("strict")
        return self._put("strict", self.policy.modes["strict"], text)

    def _scan(self, text: str, *, is_id: bool) -> str:
        policy = self.policy
        if len(text) > TEXT:
            text = f"{text[:TEXT]}... [cut from {len(text)} characters]"
        low = policy.lowered(text)
        found = [
            (begin, order, end, rule)
            for order, (rule, spans) in enumerate(policy.find(text, low, is_id=is_id))
            for begin, end in spans
        ]
        if found:
            text = self._replaced(text, found)
        if (
            "=" in text or ":" in text or "--" in text or "'" in text or '"' in text or "%3" in text
        ) and (len(text) < SHORT or "&" in text or any(map(low.__contains__, policy.needles))):
            text = policy.mask_pairs(text, policy.endings, policy.pair, self._pair)
        if policy.has_own:
            text = self._own(text)
        return text

    def _replaced(self, text: str, found: list[tuple[int, int, int, str]]) -> str:
        """The text with the places (begin, order, end, rule) replaced; of two, the one before wins."""
        parts: list[str] = []
        done = 0
        for begin, _, end, rule in sorted(found):
            if begin < done and (end <= done or rule in SHORTENED):
                continue
            start = max(begin, done)
            was = text[start:end]
            put = self._put(rule, self.policy.modes[rule], was)
            if put != was:
                self._count(rule)
            parts += (text[done:start], put)
            done = end
        return "".join((*parts, text[done:]))

    def _pair(self, rule: Key, value: str) -> str:
        self._count(rule.name)
        return self._put(rule.name, rule.mode, value)

    def _put(self, rule: str, mode: str, was: str) -> str:
        """What stands in the place of `was`."""
        if mode == "mask":
            return MASK
        if mode == "drop":
            return ""
        if mode == "hash":
            return pseudonyms.pseudonym(was.lower() if rule == "email" else was)
        if rule == "email":
            name, _, place = was.replace("%40", "@").partition("@")
            return f"{name[:1]}...@{place}"
        return pseudonyms.shorten(was)

    def _own(self, text: str) -> str:
        """Own patterns, a window at a time, and own functions; too slow or wrong: no text."""
        begun = time.monotonic()
        for name, pattern in self.policy.patterns:
            spans: list[tuple[int, int]] = []
            for start in range(0, max(len(text) - OVERLAP, 1), WINDOW - OVERLAP):
                if start and time.monotonic() - begun > BUDGET_S:
                    raise _RuleError(f"the pattern {name!r} is too slow")
                found = pattern.finditer(text, start, start + WINDOW)
                spans += (match.span() for match in found if match.end() > match.start())
            if spans:
                text = self._replaced(text, [(a, 0, b, name) for a, b in _merged(spans)])
        for rule in self.policy.rules:
            try:
                seen = rule(text)
            except Exception as error:
                raise _RuleError(f"{_named(rule)} raised {type(error).__name__}") from None
            if type(seen) is not str:
                raise _RuleError(f"{_named(rule)} gave no text")
            if seen != text:
                self._count(_named(rule))
            text = seen
        return text

    def failed(self, error: Exception) -> str:
        """What is sent in the place of a value that could not be judged; an error may quote it."""
        self._count("failed")
        why = str(error) if isinstance(error, _RuleError) else type(error).__name__
        _diagnostics.say("redaction", f"redaction failed, so a value is not sent: {why}")
        return FAILED

    def counted(self) -> dict[str, int]:
        """How many values each rule has changed in this process."""
        return dict(sorted(self.counts.copy().items())) if self._pid == os.getpid() else {}

    def _count(self, rule: str) -> None:
        if self._pid != os.getpid():  # what was counted is the parent's
            self.counts, self._pid = {}, os.getpid()
        self.counts[rule] = self.counts.get(rule, 0) + 1

    # --- values ---

    def attributes(self, given: Mapping[str, Any], depth: int = DEPTH) -> Mapping[str, Any]:
        """The attributes as they may be seen; the same object if nothing has to change."""
        if self.off or not given:
            return given
        copied = getattr(given, "copy", None)  # of the SDK's mappings: a dict, and far cheaper
        own: dict[str, Any] = dict(given) if copied is None else copied()
        policy = self.policy
        keys, clean = policy.keys, policy.clean
        names = values_to_redact(own, policy.settled, clean, not policy.has_own)
        if names is None:
            return given
        changed: dict[str, Any] | None = None
        renamed = False
        for name in names:
            value = own[name]
            key = keys.get(name) or self._decided(name)
            if key.shown is not None:
                renamed = True
            action = key.action
            if action == SKIP:
                continue
            kind = type(value)
            if action == RULE:
                seen = self._ruled(key, value, depth)
            elif kind is str:
                if value in clean:
                    continue
                seen = (
                    self._query(value) if action == QUERY else self.text(value, is_id=action == ID)
                )
            elif kind is int or kind is float or kind is bool or value is None:
                continue
            else:
                seen = self.value(value, depth, is_id=action == ID)
            if seen is not value:
                changed = dict(own) if changed is None else changed
                if seen is _DROPPED:
                    del changed[name]
                else:
                    changed[name] = seen
        if renamed:
            return self._renamed(own if changed is None else changed)
        return given if changed is None else changed

    def _query(self, query: str) -> str:
        """The query of a URL, without its question mark."""
        seen = self.text(f"?{query}")[1:]
        return query if seen == query else seen

    def _renamed(self, own: dict[str, Any]) -> dict[str, Any]:
        """With the names themselves redacted; where two become one, the later has a number."""
        result: dict[str, Any] = {}
        for name, value in own.items():
            shown = name if (seen := self._decided(name).shown) is None else seen
            free, number = shown, 2
            while free in result:
                free, number = f"{shown} {number}", number + 1
            result[free] = value
        return result

    def _decided(self, name: Any) -> Key:
        found = self.policy.keys.get(name)
        if found is None:
            found = self.policy.decide(name if type(name) is str else str(name), self.text)
        return found

    def value(self, value: Any, depth: int = DEPTH, *, is_id: bool = False) -> Any:
        """Any attribute value or body; the same object if nothing has to change."""
        kind = type(value)
        if kind is str:
            return self.text(value, is_id=is_id)
        if kind is int or kind is float or kind is bool or value is None or self.off:
            return value
        if isinstance(value, str):
            return self.text(str(value), is_id=is_id)
        if isinstance(value, (int, float)):
            return value
        if depth <= 0:
            self._count("failed")
            return FAILED
        if isinstance(value, bytes):
            whole = value.decode("utf-8", "surrogateescape")
            seen = self.text(whole, is_id=is_id)
            return value if seen is whole else seen.encode("utf-8", "surrogateescape")
        if isinstance(value, Mapping):
            return self._mapping(value, depth - 1)
        if isinstance(value, (list, tuple)):
            return self._list(value, depth - 1, is_id=is_id)
        self._count("failed")  # OTLP has no other kinds
        return FAILED

    def _mapping(self, value: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """A map; also one of the kind {"name": "password", "value": "x"}."""
        seen = self.attributes(value, depth)
        for label in ("name", "key") if "value" in value else ():
            named = value.get(label)
            if type(named) is str:
                rule = self.policy.secret(named)
                if rule is not None:
                    given = self._ruled(rule, value["value"], depth)
                    return {**seen, "value": None if given is _DROPPED else given}
        return seen

    def _list(self, value: Sequence[Any], depth: int, *, is_id: bool) -> Sequence[Any]:
        """A list; also a pair [name, value] of a header, and the words of a command line."""
        seen: list[Any] = []
        rule: Key | None = None
        pair = len(value) == 2
        for index, item in enumerate(value):
            if rule is not None:
                given = self._ruled(rule, item, depth)
                seen.append("" if given is _DROPPED else given)
                rule = None
                continue
            seen.append(self.value(item, depth, is_id=is_id))
            if type(item) in (str, bytes) and ((pair and index == 0) or item[:1] in ("-", b"-")):
                name = item if type(item) is str else item.decode("latin-1")
                rule = None if "=" in name else self.policy.secret(name.lstrip("-"))
        if all(new is old for new, old in zip(seen, value, strict=True)):
            return value
        return seen

    def _ruled(self, rule: Key, value: Any, depth: int) -> Any:
        """A value whose name decides about it."""
        kind = type(value)
        if value is None or kind is bool or (not rule.numbers and kind in (int, float)):
            return value
        if kind in (str, bytes) and value in ("", b"", MASK, FAILED):
            return value
        if not rule.numbers and depth > 0:  # only texts are secret; structure stays
            if isinstance(value, (list, tuple)):
                items = [self._ruled(rule, inner, depth - 1) for inner in value]
                same = all(new is old for new, old in zip(items, value, strict=True))
                return value if same else [None if new is _DROPPED else new for new in items]
            if isinstance(value, Mapping):
                inside = {
                    self._decided(name).shown or name: self._ruled(rule, inner, depth - 1)
                    for name, inner in value.items()
                }
                return {name: new for name, new in inside.items() if new is not _DROPPED}
        if rule.word == "frames" and kind is str:
            return "\n".join(found[0] for found in _FRAME.finditer(value))
        self._count(rule.name)
        if rule.mode == "drop":
            return _DROPPED
        try:
            return self._put(rule.name, rule.mode, value if kind is str else repr(value))
        except Exception as error:
            return self.failed(error)


_DROPPED: Final = object()


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places that touch or overlap, as one."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _named(rule: Callable[[str], str]) -> str:
    return str(getattr(rule, "__name__", type(rule).__name__))


# --- the policy of this process ---

_local: Redactor | None = None


def install(policy: Policy) -> Redactor:
    """Use this policy for lines in files and on the console, baggage and our own messages too."""
    global _local  # noqa: PLW0603 - one policy per process, as there is one set of providers
    _local = Redactor(policy)
    return _local


def local() -> Redactor:
    """The redactor of what is not sent but written or said here; the default one at first."""
    return install(Policy(Redaction())) if _local is None else _local
