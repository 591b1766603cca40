"""
The `include` and `exclude` sections of the attributes processor: which items the actions reach.

Every property that is set must fit. Of a list, one entry must fit; of `attributes` and `resources`
all must. A property that an item does not have (the span name of a log record) does not fit. All
signals share one section, so `services` and `attributes` work for each of them.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec

from collector.model import Signal
from collector.processors.ottl.regex import Budget, compiled
from collector.processors.shared.attribute_map import (
    get,
    text_of,
    value_of,
)

SPAN_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attribute to look for."""

    key: str
    """Its name."""
    value: Any = None
    """Its value, or with `regexp` a pattern for its text; without it the name alone counts."""


class Library(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An instrumentation scope to look for."""

    name: str
    """Its name."""
    version: str | None = None
    """Its version; without it any."""


class SeverityNumber(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of severities."""

    min: int = 0
    """The lowest severity number that fits, 1 to 24."""
    match_undefined: bool = False
    """Whether records without a severity number fit."""


class Regexp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accepted for compatibility."""

    cacheenabled: bool = False
    """No effect."""
    cachemaxnumentries: int = 0
    """No effect."""


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which items are meant; all properties that are set must fit."""

    match_type: Literal["strict", "regexp"]
    """Whether texts are compared, or searched with regular expressions."""
    regexp: Regexp | None = None
    """Accepted for compatibility; no effect."""
    services: list[str] = []
    """`service.name` of the resource."""
    span_names: list[str] = []
    """Names of spans."""
    span_kinds: list[str] = []
    """Kinds of spans: SERVER or SPAN_KIND_SERVER."""
    log_bodies: list[str] = []
    """Bodies of log records, when they are text."""
    log_severity_texts: list[str] = []
    """Severity texts of log records."""
    log_severity_number: SeverityNumber | None = None
    """Severity numbers of log records."""
    metric_names: list[str] = []
    """Names of metrics."""
    attributes: list[Pair] = []
    """Attributes of the item; of metrics those of each data point. All must fit."""
    resources: list[Pair] = []
    """Attributes of the resource; all must fit."""
    libraries: list[Library] = []
    """Instrumentation scopes."""

    def check(self) -> list[str]:
        """What the types cannot say."""
        named = [
            name
            for name in self.__struct_fields__
            if name not in ("match_type", "regexp") and getattr(self, name)
        ]
        if not named and self.log_severity_number is None:
            return ["at least one property, such as services or attributes, must be set"]
        found = []
        if self.match_type == "regexp":
            for text in self._patterns():
                try:
                    compiled(text)
                except ValueError as error:
                    found.append(str(error))
        return found

    def _patterns(self) -> Iterator[str]:
        for name in TEXTS:
            yield from getattr(self, name)
        for library in self.libraries:
            yield from (text for text in (library.name, library.version) if text is not None)
        for pair in (*self.attributes, *self.resources):
            if isinstance(pair.value, str):
                yield pair.value


TEXTS: Final = (
    "services",
    "span_names",
    "span_kinds",
    "log_bodies",
    "log_severity_texts",
    "metric_names",
)

Fits = Callable[[Any, Any, Any, Any, Budget], bool]
"""Whether resource group, scope group, item and the owner of the attributes are meant."""
Test = Callable[[str, Budget], bool]


def matcher(match: Match, signal: Signal) -> Fits:
    """The section as one function for items of one signal."""
    tests = list(_tests(match, signal))

    def fits(group: Any, scope: Any, item: Any, owner: Any, budget: Budget) -> bool:
        return all(test(group, scope, item, owner, budget) for test in tests)

    return fits


def _tests(match: Match, signal: Signal) -> Iterator[Fits]:
    strict = match.match_type == "strict"
    if match.services:
        service = _any_of(match.services, strict)
        yield lambda group, _s, _i, _o, budget: service(_service(group), budget)
    for name, owner, texts, read in (
        ("span_names", Signal.TRACES, match.span_names, lambda item: item.name),
        ("span_kinds", Signal.TRACES, match.span_kinds, _kind),
        ("log_bodies", Signal.LOGS, match.log_bodies, lambda item: item.body.string_value),
        ("log_texts", Signal.LOGS, match.log_severity_texts, lambda item: item.severity_text),
        ("metric_names", Signal.METRICS, match.metric_names, lambda item: item.name),
    ):
        if texts and owner is not signal:
            yield lambda *_: False
        elif texts:
            wanted = [_full(text) for text in texts] if name == "span_kinds" and strict else texts
            yield _text_test(_any_of(wanted, strict), read)
    if match.log_severity_number is not None:
        if signal is Signal.LOGS:
            yield _severity(match.log_severity_number)
        else:
            yield lambda *_: False
    for pair in match.attributes:
        yield _owner_test(_pair(pair, strict))
    for pair in match.resources:
        yield _resource_test(_pair(pair, strict))
    if match.libraries:
        libraries = [
            (
                _any_of([library.name], strict),
                None if library.version is None else _any_of([library.version], strict),
            )
            for library in match.libraries
        ]
        yield lambda _g, scope, _i, _o, budget: any(
            name(scope.scope.name, budget)
            and (version is None or version(scope.scope.version, budget))
            for name, version in libraries
        )


def _any_of(texts: list[str], strict: bool) -> Test:
    if strict:
        wanted = frozenset(texts)
        return lambda text, _: text in wanted
    patterns = [compiled(text) for text in texts]
    return lambda text, budget: any(pattern.found_in(text, budget) for pattern in patterns)


def _text_test(test: Test, read: Callable[[Any], str]) -> Fits:
    return lambda _g, _s, item, _o, budget: test(read(item), budget)


def _owner_test(test: Callable[[Any, Budget], bool]) -> Fits:
    return lambda _g, _s, _i, owner, budget: test(owner.attributes, budget)


def _resource_test(test: Callable[[Any, Budget], bool]) -> Fits:
    return lambda group, _s, _i, _o, budget: test(group.resource.attributes, budget)


def _severity(wanted: SeverityNumber) -> Fits:
    def fits(_g: Any, _s: Any, item: Any, _o: Any, _b: Budget) -> bool:
        number: int = item.severity_number
        return number >= wanted.min if number else wanted.match_undefined

    return fits


def _pair(pair: Pair, strict: bool) -> Callable[[Any, Budget], bool]:
    key, wanted = pair.key, pair.value
    if wanted is None:
        return lambda attributes, _: get(attributes, key) is not None
    pattern = compiled(wanted) if isinstance(wanted, str) and not strict else None

    def fits(attributes: Any, budget: Budget) -> bool:
        found = get(attributes, key)
        if found is None:
            return False
        value = value_of(found)
        if pattern is not None:
            return pattern.found_in(text_of(value), budget)
        return type(value) is type(wanted) and value == wanted

    return fits


def _service(group: Any) -> str:
    found = get(group.resource.attributes, "service.name")
    return "" if found is None else text_of(value_of(found))


def _kind(span: Any) -> str:
    return f"SPAN_KIND_{SPAN_KINDS[span.kind]}" if 0 <= span.kind < len(SPAN_KINDS) else ""


def _full(kind: str) -> str:
    return "SPAN_KIND_" + kind.upper().removeprefix("SPAN_KIND_")
