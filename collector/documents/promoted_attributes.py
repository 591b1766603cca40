"""
Which attributes a document gives a place of their own.

A `Promoted` says: the attribute of this name goes to `section.key`. A canonical name (semantic
conventions, or ours) with the right type moves there; an application's own spelling is copied and
stays, so that the way back can distinguish the two: a value whose canonical name or spelling is
still among the attributes came from there, any other one was moved.
"""

from dataclasses import dataclass
from typing import Final

from telemetry import attributes as names


@dataclass(slots=True, frozen=True)
class Promoted:
    """
    One attribute with a place of its own.

    Args:
        section: the sub-document, None for the top.
        key: the field.
        kind: the type that the field always has.
        canonical: whether the attribute may move; a spelling is only copied.
        other: the canonical name of a spelling, the spelling of a canonical name, "" for none.
        text: an int is taken too, as its text (ids).
    """

    section: str | None
    key: str
    kind: type
    canonical: bool = True
    other: str = ""
    text: bool = False


def _context() -> dict[str, Promoted]:
    table = {}
    for name, key in names.CONTEXT.items():
        table[name] = Promoted("context", key, str, other=key, text=True)
        table[key] = Promoted("context", key, str, canonical=False, other=name, text=True)
    return table


SPAN: Final[dict[str, Promoted]] = _context()
LOG: Final[dict[str, Promoted]] = {
    **_context(),
    names.CODE_FUNCTION: Promoted(None, "function_name", str),
    names.CODE_FILE: Promoted(None, "file_path", str),
    names.CODE_LINE: Promoted(None, "line_number", int),
    names.EXCEPTION_TYPE: Promoted("exception", "type", str),
    names.EXCEPTION_MESSAGE: Promoted("exception", "message", str),
    names.EXCEPTION_STACKTRACE: Promoted("exception", "stacktrace", str),
    names.EXECUTION_TIME_MS: Promoted("trace", "execution_time_ms", float),
    names.EXECUTION_STATUS: Promoted("trace", "status", str),
}


def as_parts(table: dict[str, Promoted]) -> dict[str, tuple[str | None, str, int, bool, str, bool]]:
    """A table as the native core wants it; kinds are the first letters of their types."""
    return {
        name: (
            take.section,
            take.key,
            ord(take.kind.__name__[0]),
            take.canonical,
            take.other,
            take.text,
        )
        for name, take in table.items()
    }
