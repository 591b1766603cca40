r"""
JSON that can be shown: no character in it steers a terminal or hides what stands there.

JSON itself asks for escapes below U+0020 only. DEL, the C1 controls (which terminals obey as they
obey ESC), line and paragraph separators, marks that turn the direction of text, and tags that nobody
sees, may stand in it raw. They can only stand inside of strings, where `\u009b` means the same, so
they are replaced in the finished text.
"""

import re
from typing import Final

_HIDDEN: Final = (
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
_TEXT: Final = re.compile(_HIDDEN)
_BYTES: Final = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
    rb"|\xef\xbb\xbf|\xf3\xa0[\x80\x81][\x80-\xbf]"
)
"""The same characters in UTF-8."""


def visible_text(text: str) -> str:
    r"""A text with `\\u....` in place of what would be hidden; JSON stays the JSON that it was."""
    return _TEXT.sub(lambda found: _escape(found[0]), text)


def visible_json(data: bytes) -> bytes:
    """The same for JSON as bytes."""
    return _BYTES.sub(lambda found: _escape(found[0].decode()).encode(), data)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
