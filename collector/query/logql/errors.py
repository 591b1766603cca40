"""
What a LogQL query can fail with: one tree, each with the HTTP status that it stands for.

A caller that shows errors needs nothing but `str(error)` and `error.status`. Parsing raises
`ParseError` alone (and `LimitError` for a text that is too long to be looked at).
"""

from typing import ClassVar


class QueryError(ValueError):
    """The query cannot be answered; the text says why and what to do."""

    status: ClassVar[int] = 400


class ParseError(QueryError):
    """
    The text is no LogQL, or LogQL that we do not answer.

    Args:
        reason: what is wrong and what would be right.
        line: of the fault, from 1.
        column: of the fault in characters, from 1.
    """

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"parse error at line {line}, col {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column


class PipelineError(QueryError):
    """A series still carries `__error__`, or two series cannot be matched: the data's fault."""


class LimitError(QueryError):
    """The answer would need more than a query may use."""

    status: ClassVar[int] = 422
