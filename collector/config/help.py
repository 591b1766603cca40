"""
What a configuration struct says about itself: keys, types, defaults and the string under each.

The strings are the documentation: `collector components` prints them and the docs test reads them.
Python drops a string under a field, so it is read from the source once per class.
"""

import ast
import functools
import inspect as python
import itertools
import textwrap
from typing import Any

import msgspec
from msgspec import inspect

from collector.config import durations
from collector.config.types import bare, extra, optional_struct, references
from collector.model import Duration, Secret


def field_help(struct_type: type[msgspec.Struct]) -> dict[str, str]:
    """Each field of a struct -> the string under it, on one line; "" when there is none."""
    found: dict[str, str] = {}
    for cls in reversed(struct_type.__mro__):
        if issubclass(cls, msgspec.Struct) and cls is not msgspec.Struct:
            found.update(_strings(cls))
    names = [field.name for field in msgspec.structs.fields(struct_type)]
    return {name: found.get(name, "") for name in names}


@functools.cache
def _strings(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(python.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found = {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for pair in itertools.pairwise(body):
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def describe(struct_type: type[msgspec.Struct]) -> dict[str, Any]:
    """Key -> {type, default or required, help, and keys for a section}."""
    info = inspect.type_info(struct_type)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{struct_type} is no msgspec.Struct")
    strings = field_help(struct_type)
    described = {}
    for field in info.fields:
        section = bare(field.type)
        optional = optional_struct(section)
        inner = optional or (section if isinstance(section, inspect.StructType) else None)
        entry: dict[str, Any] = {"type": "section" if inner else type_name(field.type)}
        if field.required:
            entry["required"] = True
        elif optional:
            if extra(field.type).get("null") == "defaults":
                entry["default"] = "off; the key alone switches it on"
            else:
                entry["default"] = "off" if _default(field) is None else "on"
        elif not inner:
            entry["default"] = shown(_default(field))
        entry["help"] = strings[field.name]
        item = (
            bare(section.item_type)
            if isinstance(section, inspect.ListType | inspect.VarTupleType)
            else None
        )
        inner = inner or (item if isinstance(item, inspect.StructType) else None)
        if inner:
            entry["keys"] = describe(inner.cls)
        described[field.encode_name] = entry
    return described


def _default(field: inspect.Field) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    # A default is public: it stands in the source.
    return str(field.default) if isinstance(field.default, Secret) else field.default


def shown(value: Any) -> Any:
    """A value as it would be written in YAML, secrets masked."""
    if isinstance(value, Secret):
        return repr(value) if value else ""
    if isinstance(value, Duration):
        return durations.text_of(value)
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: shown(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown(item) for item in value]
    if isinstance(value, str):
        return str(value.value if hasattr(value, "value") else value)
    return value


def type_name(info: inspect.Type) -> str:
    """The type in words: "duration", "list of string", "one of basic, normal"."""
    if section := references(info):
        return f"id of an {section.removesuffix('s')}"
    info = bare(info)
    match info:
        case inspect.CustomType(cls=kind):
            return {Duration: "duration", Secret: "secret"}.get(kind, kind.__name__.lower())
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return f"list of {type_name(item)}"
        case inspect.DictType(value_type=item):
            return f"map of {type_name(item)}"
        case inspect.UnionType(types=types):
            return " or ".join(type_name(t) for t in types if not isinstance(t, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.EnumType(cls=kind):
            return "one of " + ", ".join(str(member.value) for member in kind)
        case inspect.StructType():
            return "section"
    names = {
        inspect.BoolType: "bool",
        inspect.IntType: "int",
        inspect.FloatType: "float",
        inspect.StrType: "string",
        inspect.AnyType: "anything",
    }
    return names.get(type(info), type(info).__name__)
