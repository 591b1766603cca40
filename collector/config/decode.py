"""
Nodes -> a component's struct, strictly, with every problem found on the way.

The walk follows `msgspec.inspect`, not `msgspec.convert`, for three reasons: convert stops at the
first error, knows no lines, and cannot tell `grpc:` (on, with defaults) from `tls:` (off). What
null, `{}` and `enabled` mean is the table in docs/reference/collector/configuration.md, "Empty, null and enabled"; there is
no coercion beyond int <-> float, text split at commas for lists of text, and durations.

Messages name fields by the dotted path inside the component, as the OpenTelemetry Collector does;
the line below names the whole path.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from collector.config import durations
from collector.config.nodes import Node, go_kind, go_type, plain, spot
from collector.config.problems import Problems, located, nearest, quote
from collector.config.scalars import BAD as BAD
from collector.config.scalars import Path as Path
from collector.config.scalars import Reference as Reference
from collector.config.scalars import Scalars
from collector.config.types import (
    bare,
    extra,
    is_text,
    optional_struct,
    references,
    takes_none,
    zero,
)
from collector.model import Duration


@dataclass(slots=True)
class Decoder(Scalars):
    """Decodes one component or section; its arguments are those of `Scalars`."""

    def struct(self, kind: type[msgspec.Struct], node: Node, path: Path) -> Any:
        """An instance of `kind`, or BAD; null is all defaults."""
        info = inspect.type_info(kind)
        if not isinstance(info, inspect.StructType):
            raise TypeError(f"{kind} is no msgspec.Struct")
        return self._struct(info, node, path)

    # --- sections ---

    def _struct(self, info: inspect.StructType, node: Node, path: Path) -> Any:
        if node.value is None:
            node = Node({}, node.mark)
        if not isinstance(node.value, dict):
            text = f"'{path.inner}' expected a map or struct, got {quote(go_kind(node.value))}"
            return self._problem(text, node, path, "write its keys below it, indented")
        fields = {item.encode_name: item for item in info.fields}
        values: dict[str, Any] = {}
        meant: set[str] = set()
        for key, child in node.value.items():
            if key not in fields:
                meant.update(difflib.get_close_matches(key, fields, n=1))
                text = f"'{path.inner}' has invalid keys: {key}"
                values[key] = self._problem(text, child, path.key(key), nearest(key, fields))
        for key, item in fields.items():
            child = node.value.get(key)
            if child is None and item.required and key in meant:
                values[item.name] = BAD  # One typo is one message.
            elif child is None:
                values[item.name] = self._absent(item, node, path.key(key))
            else:
                values[item.name] = self._field(item, child, path.key(key))
        if any(value is BAD for value in values.values()):
            return BAD
        values = {name: value for name, value in values.items() if value is not msgspec.UNSET}
        try:
            return info.cls(**values)
        except (ValueError, TypeError) as error:
            # A struct's own __post_init__: the types fit, so this is validation.
            mark, whole = spot(str(error), node, path.whole)
            place = "::".join([self.place, *path.inner.split(".")]).strip(":")
            self.problems.validation.append(located(f"{place}: {error}", mark, whole))
            return BAD

    def _absent(self, item: inspect.Field, node: Node, path: Path) -> Any:
        if item.required:
            return self._problem(f"'{path.inner}' must be specified", node, path)
        section = references(item.type)
        if section and isinstance(item.default, str) and item.default:
            self.references.append(Reference(section, item.default, node.mark, path.whole))
        return msgspec.UNSET

    def _field(self, item: inspect.Field, node: Node, path: Path) -> Any:
        info = bare(item.type)
        section = optional_struct(info)
        if section:
            return self._optional(item, section, node, path)
        if node.value is not None:
            return self.value(item.type, node, path)
        if isinstance(info, inspect.StructType):
            return self._struct(info, node, path) if item.required else msgspec.UNSET
        if node.text is None:
            return self._absent(item, node, path)
        if takes_none(info):
            return None
        if is_text(info) or isinstance(info, inspect.LiteralType | inspect.EnumType):
            return self.value(item.type, node, path)
        nothing = zero(info)
        shown = durations.text_of(nothing) if isinstance(nothing, Duration) else nothing
        self._warn(f"is {shown!r}, the zero value, because its variable is empty", node, path)
        return nothing

    def _optional(
        self, item: inspect.Field, section: inspect.StructType, node: Node, path: Path
    ) -> Any:
        """The three kinds of optional section; see the table in docs/reference/collector/configuration.md."""
        if node.value is None:
            if node.text is not None:
                self._warn("is off because its variable is empty", node, path)
                return None
            if extra(item.type).get("null") == "defaults":
                return self._struct(section, node, path)
            return msgspec.UNSET if not item.required else None
        own = any(child.encode_name == "enabled" for child in section.fields)
        if own or not isinstance(node.value, dict) or "enabled" not in node.value:
            value = self._struct(section, node, path)
            return None if own and value is not BAD and not value.enabled else value
        flag = node.value["enabled"]
        rest = {key: child for key, child in node.value.items() if key != "enabled"}
        value = self._struct(section, Node(rest, node.mark), path)
        if not isinstance(flag.value, bool):
            return self._enabled(flag, path)
        return value if flag.value or value is BAD else None

    def _enabled(self, node: Node, path: Path) -> Any:
        text = (
            f"'{path.inner}' unexpected type {go_type(node.value)} for 'enabled': "
            f"got '{plain(node)}' value expected 'true' or 'false'"
        )
        return self._problem(text, node, path.key("enabled"))

    # --- values ---

    def value(self, info: inspect.Type, node: Node, path: Path) -> Any:
        """The value of any type; null here is the type's zero value."""
        notes, info = extra(info), bare(info)
        match info:
            case inspect.StructType():
                return self._struct(info, node, path)
            case inspect.UnionType():
                return self._union(info, node, path)
            case inspect.AnyType():
                return plain(node)
            case inspect.ListType() | inspect.VarTupleType():
                return self._list(info, node, path)
            case inspect.DictType():
                return self._dict(info, node, path)
        if node.value is None and node.text is None:
            return zero(info)
        match info:
            case inspect.BoolType():
                if isinstance(node.value, bool):
                    return node.value
                fix = "write true or false, without quotes"
                return self._mismatch("bool", node, path, fix)
            case inspect.IntType():
                return self._int(info, node, path)
            case inspect.FloatType():
                if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                    return self._mismatch("float64", node, path)
                return self._within(info, float(node.value), node, path)
            case inspect.CustomType(cls=kind) if kind is Duration:
                return self._duration(node, path)
            case inspect.LiteralType() | inspect.EnumType():
                return self._word(info, notes, node, path)
            case inspect.StrType() | inspect.CustomType():
                return self._text(info, notes, node, path)
        raise TypeError(f"{path.whole}: no configuration field can have the type {info}")

    def _list(self, info: inspect.ListType | inspect.VarTupleType, node: Node, path: Path) -> Any:
        make = tuple if isinstance(info, inspect.VarTupleType) else list
        value = node.value
        if value is None:
            return make()
        if isinstance(value, str) and is_text(bare(info.item_type)):
            value = [Node(part, node.mark) for part in value.split(",")] if value else []
        if not isinstance(value, list):
            text = f"'{path.inner}' source data must be an array or slice, got {go_kind(value)}"
            return self._problem(text, node, path, "write a list: [a, b]")
        items = [
            self.value(info.item_type, child, path.item(index)) for index, child in enumerate(value)
        ]
        return BAD if any(item is BAD for item in items) else make(items)

    def _dict(self, info: inspect.DictType, node: Node, path: Path) -> Any:
        value = node.value
        secret = isinstance(info.value_type, inspect.CustomType)
        if isinstance(value, list) and secret:
            value = self._map_list(value, node, path)
            if value is BAD:
                return BAD
        if value is None:
            return {}
        if not isinstance(value, dict):
            kind = "string" if is_text(bare(info.value_type)) else "interface {}"
            return self._mismatch(f"map[string]{kind}", node, path)
        pairs = {
            key: self.value(info.value_type, child, path.key(key)) for key, child in value.items()
        }
        return BAD if any(item is BAD for item in pairs.values()) else pairs

    def _map_list(self, items: list[Node], node: Node, path: Path) -> Any:
        """Headers may also be written as a list of {name, value}."""
        pairs: dict[str, Node] = {}
        repeated = []
        for index, item in enumerate(items):
            inside = item.value if isinstance(item.value, dict) else {}
            name = inside.get("name")
            if set(inside) != {"name", "value"} or name is None or not isinstance(name.value, str):
                text = f"'{path.item(index).inner}' expected a map with the keys name and value"
                return self._problem(text, item, path.item(index))
            if name.value in pairs:
                repeated.append(name.value)
            pairs[name.value] = inside["value"]
        if repeated:
            text = f"'{path.inner}' duplicate keys in map-style list: [{' '.join(repeated)}]"
            return self._problem(text, node, path)
        return pairs

    def _union(self, info: inspect.UnionType, node: Node, path: Path) -> Any:
        if node.value is None and (node.text is None or not is_text(info)) and takes_none(info):
            return None
        members = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
        if len(members) == 1:
            return self.value(members[0], node, path)
        for kind in members:
            attempt = Decoder(Problems(), references=self.references)
            value = attempt.value(kind, node, path)
            if value is not BAD:
                self.problems.warnings.extend(attempt.problems.warnings)
                return value
        return self.value(members[0], node, path)
