"""
Regular expressions of queries: RE2, fully anchored, bounded.

RE2 runs in time linear in the text whatever the expression is, so a user's expression may run over
millions of values. Its automaton is bounded too (`_MEMORY`); a value for which that does not
suffice does not match.
"""

from collections.abc import Callable
from typing import Final

import re2

MAX_PATTERN: Final = 4096
"""Characters of one expression."""
_MEMORY: Final = 1024 * 1024


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    return options


_OPTIONS: Final = _options()


def full_match(pattern: str) -> Callable[[str], bool]:
    """
    Whether the expression matches a whole text.

    Args:
        pattern: RE2 syntax; `.` does not match a newline unless `(?s)` is set.

    Raises:
        ValueError: it is too long, or none; the text says which.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a regular expression has at most {MAX_PATTERN} characters")
    try:
        matching = re2.compile(pattern, _OPTIONS).fullmatch
    except re2.error as bad:
        reason = bad.args[0] if bad.args else "unknown syntax"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"not a regular expression: {text}") from None
    return lambda text: matching(text) is not None
