"""
The part of a query that a store can check: LogQL -> conditions of the store contract.

A store may find too much, never too little: the pipeline looks at each candidate again. So a
condition is taken over only where it is certain: filters on lines before anything changes the line,
filters on labels before anything can set them, and of the labels only those whose place in a
document is fixed (`service_name`, the trace id and the ids of the context).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from collector.model import Signal
from collector.query.logql import tree
from collector.query.logql.evaluation.labels import RESERVED
from collector.stores.base import Query

_LITERAL: Final = re.compile(r"[A-Za-z0-9_ :/@-]+")
_ALTERNATIVES: Final = re.compile(r"[0-9a-f]+(?:\|[0-9a-f]+)*")
_MOST_TRACES: Final = 500
_SETS_LABELS: Final = (
    tree.Json,
    tree.Logfmt,
    tree.Regexp,
    tree.Pattern,
    tree.Unpack,
    tree.LabelFormat,
    tree.Drop,
    tree.Keep,
)
_CHANGES_LINE: Final = (tree.LineFormat, tree.Unpack, tree.Decolorize)


@dataclass(slots=True)
class Conditions:
    """
    What a store is asked for besides the time.

    Args:
        service: the service equals this.
        trace_ids: the trace is one of these; empty for any.
        context: keys of the context and their values.
        text: the message contains this, in any case.
        nothing: no document can match.
    """

    service: str | None = None
    trace_ids: tuple[str, ...] = ()
    context: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    nothing: bool = False

    def query(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        newest_first: bool = False,
        limit: int = 1,
        after: tuple[int, str] | None = None,
    ) -> Query:
        """One page of candidates as a question to a store, or what it is to follow."""
        return Query(
            signal=Signal.LOGS,
            service=self.service,
            trace_ids=self.trace_ids,
            context=self.context,
            text=self.text,
            since_unix_nano=since,
            until_unix_nano=until,
            newest_first=newest_first,
            limit=limit,
            after=after,
        )


def conditions(query: tree.LogQuery) -> Conditions:
    """The conditions that every document which the query lets pass is sure to meet."""
    found = Conditions()
    for matcher in query.matchers:
        if matcher.name == "service_name":
            value = _exact(matcher)
            if value:
                found.nothing = found.nothing or found.service not in (None, value)
                found.service = value
    texts: list[str] = []
    line_changed = labels_set = False
    for stage in query.stages:
        if isinstance(stage, tree.LineFilter):
            if not line_changed and stage.op == "|=" and len(stage.texts) == 1 and not stage.ips[0]:
                texts.append(stage.texts[0])
        elif isinstance(stage, tree.Matcher | tree.Both) and not labels_set:
            _take(found, _all_of(stage))
        line_changed = line_changed or isinstance(stage, _CHANGES_LINE)
        labels_set = labels_set or isinstance(stage, _SETS_LABELS)
    found.text = max(texts, key=len, default="") or None
    return found


def _all_of(found: tree.LabelFilter) -> Iterator[tree.Matcher]:
    """The text filters that must all hold."""
    if isinstance(found, tree.Both):
        yield from _all_of(found.left)
        yield from _all_of(found.right)
    elif isinstance(found, tree.Matcher):
        yield found


def _take(found: Conditions, matchers: Iterable[tree.Matcher]) -> None:
    for matcher in matchers:
        if matcher.name == "trace_id":
            wanted = _traces(matcher)
            if wanted:
                both = [one for one in wanted if one in found.trace_ids]
                found.nothing = found.nothing or bool(found.trace_ids and not both)
                found.trace_ids = tuple(both if found.trace_ids else wanted)
        elif matcher.name in RESERVED - {"span_id"}:
            value = _exact(matcher)
            if value:
                other = found.context.get(matcher.name)
                found.nothing = found.nothing or other not in (None, value)
                found.context[matcher.name] = value


def _exact(matcher: tree.Matcher) -> str | None:
    """The one text that a matcher accepts, None when there may be others."""
    if matcher.op == "=" or (matcher.op == "=~" and _LITERAL.fullmatch(matcher.value)):
        return matcher.value
    return None


def _traces(matcher: tree.Matcher) -> list[str]:
    """The trace ids that a matcher accepts, none when there may be others."""
    value = _exact(matcher)
    if value:
        return [value]
    if matcher.op == "=~" and _ALTERNATIVES.fullmatch(matcher.value):
        found = list(dict.fromkeys(matcher.value.split("|")))
        return found if len(found) <= _MOST_TRACES else []
    return []
