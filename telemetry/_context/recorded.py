"""
Which exceptions have been recorded in full: one mark, on the exception itself.

An exception crosses several blocks, and each records that it failed; type, text and stack are
recorded once, by the innermost. The mark is an attribute of the exception, so it travels with it
through threads and tasks and is gone with it. Celery's requests carry the same mark.
"""

from typing import Final

_MARK: Final = "_otelier_recorded"


def already_recorded(thing: object) -> bool:
    """Whether it was recorded in full before; from now on it was."""
    before = getattr(thing, _MARK, False)
    try:
        setattr(thing, _MARK, True)
    except Exception:
        return False  # an exception without room for a mark is recorded each time
    return before is True


def is_recorded(thing: object) -> bool:
    """Whether it was recorded in full before."""
    return getattr(thing, _MARK, False) is True
