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
import math
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import inspect

from collector.config import durations, ids
from collector.config.nodes import Mark, Node, go_kind, go_type, plain, spot
from collector.config.problems import Problems, located, nearest, quote
from collector.config.types import (
    bare,
    extra,
    is_text,
    optional_struct,
    references,
    takes_none,
    zero,
)
from collector.model import Duration, Secret


class _Bad:
    """Stands for a value that could not be decoded; its problem is recorded already."""


BAD: Final = _Bad()


@dataclass(slots=True, frozen=True)
class Path:
    """
    Where the walk is.

    Args:
        whole: the path from the top of the configuration, for people.
        inner: the path inside the component, for the Collector's texts.
    """

    whole: str
    inner: str = ""

    def key(self, name: str) -> "Path":
        """The path of a key below."""
        return Path(
            f"{self.whole}.{name}" if self.whole else name, f"{self.inner}.{name}".lstrip(".")
        )

    def item(self, index: int) -> "Path":
        """The path of a list's item."""
        return Path(f"{self.whole}[{index}]", f"{self.inner}[{index}]")


@dataclass(slots=True, frozen=True)
class Reference:
    """A field that names another component; checked when all are known."""

    section: str
    id: str
    mark: Mark
    path: str


@dataclass(slots=True)
class Decoder:
    """
    Decodes one component or section.

    Args:
        problems: where problems and warnings go.
        prefix: what each problem begins with.
        place: the `::` path that a section's own complaints begin with.
        references: the fields met that name another component.
    """

    problems: Problems
    prefix: str = ""
    place: str = ""
    references: list[Reference] = field(default_factory=list)

    def struct(self, kind: type[msgspec.Struct], node: Node, path: Path) -> Any:
        """An instance of `kind`, or BAD; null is all defaults."""
        info = inspect.type_info(kind)
        if not isinstance(info, inspect.StructType):
            raise TypeError(f"{kind} is no msgspec.Struct")
        return self._struct(info, node, path)

    def _problem(self, text: str, node: Node, path: Path, fix: str = "") -> Any:
        self.problems.decoding.append(located(f"{self.prefix}{text}", node.mark, path.whole, fix))
        return BAD

    def _mismatch(self, expected: str, node: Node, path: Path, fix: str = "") -> Any:
        text = f"'{path.inner}' expected type '{expected}', got unconvertible type '{go_type(node.value)}'"
        if expected == "string" and isinstance(node.value, bool | int | float):
            fix = fix or "put the value in quotes"
        return self._problem(text, node, path, fix)

    def _warn(self, text: str, node: Node, path: Path) -> None:
        self.problems.warn(f"{path.whole}: {text}\n  {node.mark}")

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

    def _int(self, info: inspect.IntType, node: Node, path: Path) -> Any:
        value = node.value
        if isinstance(value, float) and math.isfinite(value):
            if value != int(value):
                self._warn(f"{value} is cut to {int(value)}", node, path)
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return self._mismatch("int", node, path)
        return self._within(info, value, node, path)

    def _within(
        self, info: inspect.IntType | inspect.FloatType, value: float, node: Node, path: Path
    ) -> Any:
        for limit, holds, words in (
            (info.gt, info.gt is None or value > info.gt, "greater than"),
            (info.ge, info.ge is None or value >= info.ge, "greater than or equal to"),
            (info.lt, info.lt is None or value < info.lt, "less than"),
            (info.le, info.le is None or value <= info.le, "less than or equal to"),
        ):
            if not holds:
                return self._problem(
                    f"'{path.inner}' must be {words} {limit}, got {value}", node, path
                )
        return value

    def _duration(self, node: Node, path: Path) -> Any:
        value = node.value
        if isinstance(value, str):
            try:
                return durations.parse(value)
            except ValueError as error:
                fix = 'write a number and a unit, such as "5s", "1m30s" or "200ms"'
                return self._problem(f"'{path.inner}' {error}", node, path, fix)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            return self._mismatch("time.Duration", node, path)
        nanos = int(value)
        if nanos != value or 0 < abs(nanos) < 1_000_000:
            self._warn(
                f'{value} means {nanos} nanoseconds; for seconds write "{value}s"', node, path
            )
        return Duration(nanos / 1e9)

    def _word(
        self,
        info: inspect.LiteralType | inspect.EnumType,
        notes: dict[str, Any],
        node: Node,
        path: Path,
    ) -> Any:
        if isinstance(info, inspect.EnumType):
            valid: list[Any] = [member.value for member in info.cls]
        else:
            valid = list(info.values)
        text = all(isinstance(word, str) for word in valid)
        given = node.text if text and node.text is not None else node.value
        if text and not isinstance(given, str):
            return self._mismatch("string", node, path)
        if isinstance(given, str) and notes.get("case") == "any":
            given = next((word for word in valid if word.lower() == given.lower()), given)
        if isinstance(info, inspect.EnumType):
            try:
                return info.cls(given)
            except ValueError:
                pass
        elif any(given == word and type(given) is type(word) for word in valid):
            return given
        listed = " ".join(str(word) for word in valid)
        shown = quote(given) if isinstance(given, str) else str(plain(node))
        fix = nearest(str(given), [str(word) for word in valid], "valid values")
        return self._problem(
            f"'{path.inner}' unknown value {shown} (valid values: [{listed}])", node, path, fix
        )

    def _text(
        self,
        info: inspect.StrType | inspect.CustomType,
        notes: dict[str, Any],
        node: Node,
        path: Path,
    ) -> Any:
        text = node.text if node.text is not None else node.value
        if not isinstance(text, str):
            return self._mismatch("string", node, path)
        if isinstance(info, inspect.CustomType):
            if issubclass(info.cls, Secret) and node.newline and text.endswith("\n"):
                text = text.rstrip("\r\n")
                self._warn(
                    "the line break at the end of the file is no part of the secret", node, path
                )
            try:
                return info.cls(text)
            except ValueError as error:
                return self._problem(f"'{path.inner}' {error}", node, path)
        if info.min_length is not None and len(text) < info.min_length:
            words = (
                "must not be empty"
                if info.min_length == 1
                else f"must have at least {info.min_length} characters"
            )
            return self._problem(f"'{path.inner}' {words}", node, path)
        section = notes.get("references")
        if section and text:
            try:
                text, _ = ids.component(text)
            except ValueError as error:
                return self._problem(f"'{path.inner}' {error}", node, path)
            self.references.append(Reference(section, text, node.mark, path.whole))
        return text

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
