"""
Questions about the types of fields, as `msgspec.inspect` describes them.

Kept beside `decode` because the help and `print-config` ask the same ones.
"""

from typing import Any

from msgspec import inspect


def bare(info: inspect.Type) -> inspect.Type:
    """The type without its annotations."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info


def extra(info: inspect.Type) -> dict[str, Any]:
    """What `msgspec.Meta(extra=...)` says about the type."""
    found: dict[str, Any] = {}
    while isinstance(info, inspect.Metadata):
        found = {**(info.extra or {}), **found}
        info = info.type
    return found


def optional_struct(info: inspect.Type) -> inspect.StructType | None:
    """The section of `Section | None`."""
    if isinstance(info, inspect.UnionType) and takes_none(info):
        members = [bare(kind) for kind in info.types if not isinstance(kind, inspect.NoneType)]
        if len(members) == 1 and isinstance(members[0], inspect.StructType):
            return members[0]
    return None


def references(info: inspect.Type) -> str:
    """The section whose ids the field names; "" for a field that names none."""
    section = extra(info).get("references", "")
    inner = bare(info)
    if not section and isinstance(inner, inspect.UnionType):
        section = next((found for kind in inner.types if (found := references(kind))), "")
    return str(section)


def takes_none(info: inspect.Type) -> bool:
    """Whether the type is `... | None`."""
    return isinstance(info, inspect.UnionType) and any(
        isinstance(kind, inspect.NoneType) for kind in info.types
    )


def is_text(info: inspect.Type) -> bool:
    """Whether a value of the type is text."""
    match info:
        case inspect.StrType():
            return True
        case inspect.CustomType(cls=kind):
            return issubclass(kind, str)
        case inspect.LiteralType(values=values):
            return all(isinstance(word, str) for word in values)
        case inspect.EnumType(cls=kind):
            return issubclass(kind, str)
    return False


def zero(info: inspect.Type) -> Any:
    """Go's zero value of the type."""
    match info:
        case inspect.BoolType():
            return False
        case inspect.IntType():
            return 0
        case inspect.FloatType():
            return 0.0
        case inspect.CustomType(cls=kind):
            return kind()
        case inspect.ListType():
            return []
        case inspect.VarTupleType():
            return ()
        case inspect.DictType():
            return {}
        case inspect.StrType() | inspect.LiteralType() | inspect.EnumType():
            return ""
    return None
