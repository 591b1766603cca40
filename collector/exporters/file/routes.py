"""
Which files a record belongs to.

Conditions are asked about documents, because that is what people know: the service, the logger, the
level and the event as every store shows them. Wildcards are turned into regular expressions that
do not backtrack, once, at start.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from collector.documents.build import LOG, Document, text
from collector.exporters.file.config import LEVELS, Match, Route
from collector.model import Signal

Ask = Callable[[Document, Signal], bool]
_RANKS: Final = {word.upper(): rank for rank, word in enumerate(LEVELS)}
_WILD: Final = re.compile(r"[*?\[]")
_ABSENT: Final = object()


class Router:
    """
    Sorts documents.

    Args:
        routes: where to.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(any_of(each.match, empty=True), any_of(each.unless)) for each in routes]

    def of(self, document: Document, signal: Signal) -> list[int]:
        """The places of the routes that take a document."""
        return [
            index
            for index, (match, unless) in enumerate(self._routes)
            if match(document, signal) and not unless(document, signal)
        ]


def any_of(matches: Sequence[Match], *, empty: bool = False) -> Ask:
    """Whether one of some conditions fits; `empty` is the answer when there are none."""
    asks = [all_of(each) for each in matches]
    if not asks:
        return lambda _document, _signal: empty
    if len(asks) == 1:
        return asks[0]
    return lambda document, signal: any(ask(document, signal) for ask in asks)


def all_of(match: Match) -> Ask:
    """Whether everything that a condition says fits."""
    asks: list[Callable[[Document], bool]] = []
    if match.service:
        asks.append(_field("service", pattern(match.service)))
    if match.logger:
        own = pattern(match.logger)
        below = pattern([f"{name}.*" for name in match.logger])
        asks.append(_field("logger_name", lambda name: own(name) or below(name)))
    if match.level:
        least = LEVELS.index(match.level)
        asks.append(lambda document: _RANKS.get(document.get("level", ""), -1) >= least)
    if match.event:
        asks.append(_field("event", pattern(match.event)))
    asks.extend(_attribute(name, pattern(values)) for name, values in match.attributes.items())
    asks.extend(_resource(name, pattern(values)) for name, values in match.resource.items())
    signals = frozenset(match.signal)

    def ask(document: Document, signal: Signal) -> bool:
        return (not signals or signal.value in signals) and all(each(document) for each in asks)

    return ask


def pattern(values: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text is one of some values, which may have wildcards."""
    exact = frozenset(each for each in values if not _WILD.search(each))
    wild = [each for each in values if _WILD.search(each)]
    if "*" in wild:
        return lambda _: True
    if not wild:
        return exact.__contains__
    # fnmatch translates a `*` into an atomic group: it never goes back on what it took.
    fits = re.compile("|".join(fnmatch.translate(each) for each in wild)).match
    return lambda found: found in exact or fits(found) is not None


def _field(name: str, fits: Callable[[str], bool]) -> Callable[[Document], bool]:
    def ask(document: Document) -> bool:
        found = document.get(name)
        return isinstance(found, str) and fits(found)

    return ask


def _attribute(name: str, fits: Callable[[str], bool]) -> Callable[[Document], bool]:
    if _WILD.search(name):
        named = pattern([name])

        def ask(document: Document) -> bool:
            found = document.get("attributes")
            return found is not None and any(
                named(key) and _fits(value, fits) for key, value in found.items()
            )

        return ask

    take = LOG.get(name)

    def ask_one(document: Document) -> bool:
        found = document.get("attributes", {}).get(name, _ABSENT)
        if found is _ABSENT and take is not None:  # it has a place of its own in a document
            section = document if take.section is None else document.get(take.section, {})
            found = section.get(take.key, _ABSENT)
        return found is not _ABSENT and _fits(found, fits)

    return ask_one


def _resource(name: str, fits: Callable[[str], bool]) -> Callable[[Document], bool]:
    def ask(document: Document) -> bool:
        found = document.get("resource", {}).get(name, _ABSENT)
        return found is not _ABSENT and _fits(found, fits)

    return ask


def _fits(value: Any, fits: Callable[[str], bool]) -> bool:
    """Whether a value fits, or one of a list does."""
    if isinstance(value, str):
        return fits(value)
    if isinstance(value, list):
        return any(_fits(each, fits) for each in value)
    return fits(text(value))
