"""
What can be wrong with a TraceQL query, each with the HTTP status that it becomes.

`ParseError` (400) names the line and the column, both from 1, counted in characters. A construct
that is known and deliberately missing is `Unsupported`, a parse error that calls it by its name.
`LimitExceeded` (422) is a query that is right and too large.
"""


class QueryError(ValueError):
    """Why a query gets no answer; the text says what is wrong."""


class ParseError(QueryError):
    """
    The text is no TraceQL, or TraceQL that means nothing.

    Args:
        text: the query.
        offset: index of the character that the reason is about.
        reason: what is wrong there.
    """

    def __init__(self, text: str, offset: int, reason: str) -> None:
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - (text.rfind("\n", 0, offset) + 1) + 1
        self.reason = reason
        super().__init__(
            f"invalid TraceQL query: parse error at line {self.line}, col {self.column}: {reason}"
        )


class Unsupported(ParseError):
    """
    TraceQL that this service does not answer.

    Args:
        text: the query.
        offset: index of the construct's first character.
        construct: its name, as a user would call it.
    """

    def __init__(self, text: str, offset: int, construct: str) -> None:
        super().__init__(text, offset, f"not supported: {construct}")


class LimitExceeded(QueryError):
    """A query whose answer would take more memory or more series than one query may."""
