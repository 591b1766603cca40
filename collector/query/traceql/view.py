"""
What the evaluator sees of the data: spans of a trace, and how they hang together.

A `Span` wraps one document as stores keep it. The tree (parents, children, nested-set numbers) is
made when it is asked for, once per trace, without recursion: a chain of ten thousand spans is a
list. Spans from which no root can be reached have the numbers 0 and take no part in structure.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

Document = dict[str, Any]

_EMPTY: Final[Document] = {}


class Span:
    """
    One span.

    Args:
        document: as a store returned it.
        trace: what it is part of.
    """

    __slots__ = ("children", "document", "left", "parent", "parent_left", "right", "trace")

    def __init__(self, document: Document, trace: "Trace") -> None:
        self.document = document
        self.trace = trace
        self.parent: Span | None = None
        self.children: list[Span] = []
        self.left = self.right = self.parent_left = 0

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        found: str = self.document["span_id"]
        return found

    @property
    def start(self) -> int:
        """Nanoseconds since the epoch."""
        found: int = self.document["start_unix_nano"]
        return found

    @property
    def duration(self) -> int:
        """Nanoseconds, 0 when it ends before it starts."""
        found: int = self.document["end_unix_nano"] - self.document["start_unix_nano"]
        return max(0, found)

    @property
    def is_root(self) -> bool:
        """Whether it names no parent."""
        return "parent_span_id" not in self.document

    @property
    def rooted(self) -> bool:
        """Whether a root can be reached from it; `trace.tree` must have been asked for."""
        return self.left > 0


class Trace:
    """
    The spans that are known of one trace.

    Args:
        documents: span documents of one trace id, in any order; not changed.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        found = [Span(document, self) for document in documents]
        self.spans = in_order(found)
        """By resource in order of their first spans, then by start and id."""

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        found: str = self.spans[0].document["trace_id"]
        return found

    @cached_property
    def start(self) -> int:
        """The earliest start of a span."""
        return min(span.start for span in self.spans)

    @cached_property
    def duration(self) -> int:
        """Nanoseconds from the first start to the last end."""
        return max(span.start + span.duration for span in self.spans) - self.start

    @cached_property
    def root(self) -> Span | None:
        """The first span without a parent."""
        roots = [span for span in self.spans if span.is_root]
        return min(roots, key=_by_time, default=None)

    @cached_property
    def tree(self) -> "Trace":
        """The same trace, once parents, children and nested-set numbers of its spans are set."""
        by_id = {span.id: span for span in reversed(self.spans)}
        roots = []
        for span in self.spans:
            if span.is_root:
                roots.append(span)
            elif (parent := by_id.get(span.document["parent_span_id"])) and parent is not span:
                span.parent = parent
                parent.children.append(span)
        number = 0
        for root in sorted(roots, key=_by_time):
            root.parent_left = -1
            stack: list[tuple[Span, bool]] = [(root, False)]
            while stack:
                span, left = stack.pop()
                number += 1
                if left:
                    span.right = number
                    continue
                span.left = number
                if span.parent is not None:
                    span.parent_left = span.parent.left
                stack.append((span, True))
                span.children.sort(key=_by_time, reverse=True)
                stack += [(child, False) for child in span.children]
        return self


def _by_time(span: Span) -> tuple[int, str]:
    return span.start, span.id


def in_order(spans: list[Span]) -> list[Span]:
    """By resource in order of their first spans, then by start and id."""
    spans = sorted(spans, key=_by_time)
    groups: defaultdict[object, list[Span]] = defaultdict(list)
    for span in spans:
        groups[_resource(span)].append(span)
    return [span for group in groups.values() for span in group]


def _resource(span: Span) -> object:
    """What tells resources apart; documents of one request share the map itself."""
    document = span.document
    return document.get("service"), str(document.get("resource", _EMPTY).get("service.instance.id"))


def traces(documents: Iterable[Document]) -> list[Trace]:
    """Span documents of several traces as traces, in order of appearance."""
    groups: defaultdict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[document["trace_id"]].append(document)
    return [Trace(group) for group in groups.values()]
