"""The strings under fields, and the description made of them."""

import msgspec

from collector.config import describe, field_help
from collector.model import Duration, OnRequest, Secret


class Part(msgspec.Struct, frozen=True):
    size: int = 1
    """How
    large."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """A name."""


class Whole(Parent, frozen=True, kw_only=True):
    wait: Duration = Duration(90)
    """How long."""
    token: Secret = Secret("public")
    """A token."""
    part: OnRequest[Part] = None
    """A part."""
    other: Part | None = None
    bare: list[str] = []


def test_field_help():
    """Each field maps to the string under it, parents included, on one line."""
    assert field_help(Whole) == {
        "name": "A name.",
        "wait": "How long.",
        "token": "A token.",
        "part": "A part.",
        "other": "",
        "bare": "",
    }
    assert field_help(Part) == {"size": "How large."}


def test_describe():
    """The description holds type, default, help and the keys of sections; a default is no secret."""
    size = {"size": {"type": "int", "default": 1, "help": "How large."}}
    assert describe(Whole) == {
        "name": {"type": "string", "required": True, "help": "A name."},
        "wait": {"type": "duration", "default": "1m30s", "help": "How long."},
        "token": {"type": "secret", "default": "public", "help": "A token."},
        "part": {
            "type": "section",
            "default": "off; the key alone switches it on",
            "help": "A part.",
            "keys": size,
        },
        "other": {"type": "section", "default": "off", "help": "", "keys": size},
        "bare": {"type": "list of string", "default": [], "help": ""},
    }
