"""
The rules of the redaction processor: what happens to one text, one value, one list of attributes.

They fail closed. A value on which a rule raises, or that a pattern needs too long for, is masked as
a whole; one that is nested too deeply is removed. Each is counted, and nothing of the value is
ever logged. Where the texts of a request are is the processor's part (processors/redaction.py).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from collector.processors.ottl.regex import Budget, TooSlow, compiled
from collector.processors.shared.attribute_map import (
    DEEPEST,
    text_of,
    value_of,
)

MASK: Final = "****"
REMEMBERED: Final = 10_000
"""What was decided about so many attribute keys is kept."""


@dataclass(slots=True, frozen=True)
class Fate:
    """
    What happens to attributes of one name.

    Args:
        ignored: they are not looked at.
        allowed: the allow-list has them.
        masked: their values are masked as a whole.
        shown: the name without what is blocked.
    """

    ignored: bool
    allowed: bool
    masked: bool
    shown: str


@dataclass(slots=True)
class Report:
    """
    What was done to one list of attributes, or to one item.

    Args:
        redacted: keys removed.
        masked: keys whose values were masked, and names of other texts.
        allowed: keys whose values fit `allowed_values`.
        ignored: keys that were not looked at.
    """

    redacted: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """
    One batch on its way through.

    Args:
        budget: the time of its texts.
        counts: values by what was done to them.
        changed: whether anything was.
    """

    budget: Budget = field(default_factory=Budget)
    counts: Counter[str] = field(default_factory=Counter)
    changed: bool = False


class RuleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the processor that are rules."""

    allow_all_keys: bool = False
    """Keep attributes of every name; else only `allowed_keys`."""
    allowed_keys: list[str] = []
    """Names of attributes that are kept. Empty means none, unless `allow_all_keys`."""
    ignored_keys: list[str] = []
    """Names of attributes that are kept as they are, without a look."""
    ignored_key_patterns: list[str] = []
    """The same, as patterns."""
    blocked_key_patterns: list[str] = []
    """Patterns of names whose values are masked as a whole."""
    blocked_values: list[str] = []
    """Patterns of texts; what fits is masked."""
    allowed_values: list[str] = []
    """Patterns of texts; a value that fits is not masked."""
    redact_all_types: bool = False
    """Also look at numbers and bools, as text."""


class Rules:
    """
    What is removed and what is masked.

    Args:
        config: the rules.
        mask: what is written in place of a text.
    """

    def __init__(self, config: RuleSettings, mask: Callable[[str], str]) -> None:
        self.mask = mask
        self._allow_all = config.allow_all_keys
        self._all_types = config.redact_all_types
        self._allowed = frozenset(config.allowed_keys)
        self._ignored = frozenset(config.ignored_keys)
        self._ignored_patterns = [compiled(text) for text in config.ignored_key_patterns]
        self._blocked_keys = [compiled(text) for text in config.blocked_key_patterns]
        self._blocked = [compiled(text) for text in config.blocked_values]
        self._allowed_values = [compiled(text) for text in config.allowed_values]
        self._known: dict[str, Fate] = {}

    def fields(
        self, owner: Any, names: tuple[str, ...], report: Report, run: Run, prefix: str = ""
    ) -> None:
        """The plain texts of a message."""
        for name in names:
            text = getattr(owner, name)
            if text:
                clean = self._clean(text, run)
                if clean != text:
                    setattr(owner, name, clean)
                    report.masked.append(prefix + name)

    def pairs(
        self,
        pairs: Any,
        report: Report,
        run: Run,
        *,
        path: str = "",
        depth: int = 0,
        listed: bool = True,
    ) -> None:
        """
        Attributes, or the pairs of a map inside a value.

        Args:
            pairs: the repeated KeyValue.
            report: collects what was done.
            run: the batch.
            path: where they are, with a dot at its end.
            depth: how deep in a value.
            listed: whether only `allowed_keys` are kept. That list is about the names of
                attributes and the keys in log bodies, not about the keys inside attributes.
        """
        doomed = []
        for place, pair in enumerate(pairs):
            key = pair.key
            fate = self._fate(key, run)
            name = path + fate.shown
            if fate.ignored:
                report.ignored.append(name)
                continue
            if listed and not fate.allowed:
                report.redacted.append(name)
                doomed.append(place)
                continue
            if fate.shown != key:
                pair.key = fate.shown
                run.changed = True
            strict = listed and bool(path)  # a body
            if not self.guarded(
                pair.value, name, report, run, depth=depth, masked=fate.masked, listed=strict
            ):
                doomed.append(place)
        for place in reversed(doomed):
            del pairs[place]
        if doomed:
            run.counts["removed"] += len(doomed)
            run.changed = True

    def _fate(self, key: str, run: Run) -> Fate:
        """What happens to attributes of this name; a rule that fails masks the value."""
        found = self._known.get(key)
        if found is None:
            try:
                found = self._decide(key, run)
            except TooSlow:
                return UNKNOWN  # not remembered: the next batch has time again
            except Exception:
                found = UNKNOWN
            if len(self._known) < REMEMBERED:
                self._known[key] = found
        return found

    def _decide(self, key: str, run: Run) -> Fate:
        budget = run.budget
        shown = key
        for pattern in self._blocked:
            shown = pattern.replace(shown, self.mask, budget)
        return Fate(
            ignored=key in self._ignored
            or any(pattern.found_in(key, budget) for pattern in self._ignored_patterns),
            allowed=self._allow_all or key in self._allowed,
            masked=any(pattern.found_in(key, budget) for pattern in self._blocked_keys),
            shown=shown,
        )

    def guarded(
        self,
        value: Any,
        name: str,
        report: Report,
        run: Run,
        *,
        depth: int = 0,
        masked: bool = False,
        listed: bool,
    ) -> bool:
        """Apply the rules to one value; False when it could not be done and the value is gone."""
        try:
            if masked:
                self._whole(value, name, report, run)
            else:
                self._value(value, name, report, run, depth=depth, listed=listed)
        except Exception:
            # Fails closed: whatever is wrong with a rule or a value, the value does not pass.
            run.counts["failed"] += 1
            run.changed = True
            value.Clear()
            return False
        return True

    def _whole(self, value: Any, name: str, report: Report, run: Run) -> None:
        """Mask a value for its name, whatever its type."""
        text = text_of(value_of(value))
        if self._allows(text, run):
            report.allowed.append(name)
            return
        self._write(value, self.mask(text), name, report, run)
        run.counts["masked"] += 1

    def _value(
        self, value: Any, name: str, report: Report, run: Run, *, depth: int, listed: bool
    ) -> None:
        """Mask what is blocked in a value and in everything inside it."""
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        kind = value.WhichOneof("value")
        if kind == "kvlist_value":
            pairs = value.kvlist_value.values
            path = f"{name}."
            self.pairs(pairs, report, run, path=path, depth=depth + 1, listed=listed)
        elif kind == "array_value":
            for inner in value.array_value.values:
                self._value(inner, name, report, run, depth=depth + 1, listed=listed)
        elif kind == "string_value":
            text = value.string_value
            if self._allows(text, run):
                report.allowed.append(name)
                return
            clean = self._clean(text, run)
            if clean != text:
                self._write(value, clean, name, report, run)
        elif kind == "bytes_value" or (kind is not None and self._all_types):
            found = value_of(value)
            text = found.decode(errors="replace") if isinstance(found, bytes) else text_of(found)
            if not self._allows(text, run) and self._clean(text, run) != text:
                self._write(value, self.mask(text), name, report, run)

    def _write(self, value: Any, text: str, name: str, report: Report, run: Run) -> None:
        value.string_value = text
        run.changed = True
        if name not in report.masked:
            report.masked.append(name)

    def _allows(self, text: str, run: Run) -> bool:
        """Whether a text is allowed whatever it holds; it is not when that is not known."""
        if not self._allowed_values:
            return False
        try:
            return any(pattern.found_in(text, run.budget) for pattern in self._allowed_values)
        except TooSlow:
            return False

    def _clean(self, text: str, run: Run) -> str:
        """A text without what is blocked; wholly masked when that is not known."""
        clean = text
        try:
            for pattern in self._blocked:
                clean = pattern.replace(clean, self.mask, run.budget)
        except TooSlow:
            run.counts["too_slow"] += 1
            run.changed = True
            return self.mask(text)
        except Exception:
            run.counts["failed"] += 1
            run.changed = True
            return MASK
        if clean != text:
            run.counts["masked"] += 1
            run.changed = True
        return clean


UNKNOWN: Final = Fate(ignored=False, allowed=False, masked=True, shown=MASK)
