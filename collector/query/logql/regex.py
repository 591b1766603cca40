"""
The regular expressions of users: RE2 syntax, linear time, bounded memory.

Lines come by the million and an expression from anybody who may ask, so backtracking is out of the
question. RE2 takes texts as UTF-8; what it finds is in characters again.
"""

from collections.abc import Callable
from typing import Any, Final

import re2

MAX_LENGTH: Final = 4096
"""Characters of one expression."""
_MAX_MEMORY: Final = 2 << 20
_LONGEST_REASON: Final = 200

_OPTIONS: Final = re2.Options()
_OPTIONS.max_mem = _MAX_MEMORY
_OPTIONS.log_errors = False


def compiled(expression: str) -> Any:
    """
    An expression ready to search with; `.` does not match a newline.

    Raises:
        ValueError: it is too long, too large once compiled, or not RE2; the text says which.
    """
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"a regular expression has at most {MAX_LENGTH} characters")
    try:
        return re2.compile(expression, _OPTIONS)
    except re2.error as bad:
        reason = bad.args[0] if bad.args else "unknown"
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise ValueError(f"RE2 does not take this: {str(reason)[:_LONGEST_REASON]}") from None


def matching(expression: str) -> Callable[[str], bool]:
    """Whether a whole text matches (selectors and label filters are anchored)."""
    full = compiled(expression).fullmatch
    return lambda text: full(text) is not None


def finding(expression: str) -> Callable[[str], bool]:
    """Whether an expression matches anywhere in a text (line filters)."""
    search = compiled(expression).search
    return lambda text: search(text) is not None
