"""
YAML as go-yaml v3 reads it, on PyYAML's parser, and the way back.

PyYAML speaks YAML 1.1: `no` is False, `12:30:45` is 45045, `1e3` is text, the last of two equal
keys wins. A configuration written for the OpenTelemetry Collector means something else, so only
PyYAML's parser is used; scalars are resolved here and nodes keep their lines. Input is hostile
until proven otherwise: size, depth and the number of values (aliases counted as often as they
are used) are capped. `::` inside a key is a path, at every level.
"""

import re
from typing import Any, Final

import yaml

from collector.config.nodes import Mark, Node, merged
from collector.config.problems import quote

LARGEST: Final = 1 << 20
_DEEPEST: Final = 100
_MOST_VALUES: Final = 200_000
_LONGEST_INT: Final = 70

_PLAIN: Final = "plain"
_TAG: Final = "tag:yaml.org,2002:"
_CONSTANTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float("inf") for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **{"-" + word: float("-inf") for word in (".inf", ".Inf", ".INF")},
}
_INT: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9]\d*))")
_FLOAT: Final = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")


class YamlError(ValueError):
    """The text is not the YAML that we take; says the line."""


def parse(text: str, source: str) -> Node:
    """
    The tree of one YAML document.

    Args:
        text: the document; an empty one is null.
        source: what the marks say: a file name, or how the text was given.

    Raises:
        YamlError: syntax, a duplicate key, an unknown tag, or a limit.
    """
    if len(text) > LARGEST:
        raise YamlError(f"yaml: larger than {LARGEST} bytes")
    try:
        root = _Loader(text.removeprefix("\ufeff")).get_single_node()
        return Node(None, Mark(source, 1)) if root is None else _Build(source).node(root, 0)[0]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise YamlError(f"yaml: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"yaml: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise YamlError(f"yaml: nested deeper than {_DEEPEST} levels") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's parser; plain scalars without a tag are marked and left to `scalar`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else f"{_TAG}str"
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call] # PyYAML has no types


class _Build:
    """One document's nodes; equal aliases share one node, their sizes add up all the same."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._done: dict[int, tuple[Node, int]] = {}
        self._open: set[int] = set()

    def node(self, raw: yaml.Node, depth: int) -> tuple[Node, int]:
        """The node, and how many values it holds."""
        found = self._done.get(id(raw))
        if found is not None:
            return found
        if id(raw) in self._open:
            raise YamlError(f"yaml: {self._line(raw)}anchor value contains itself")
        if depth > _DEEPEST:
            raise YamlError(f"yaml: {self._line(raw)}nested deeper than {_DEEPEST} levels")
        self._open.add(id(raw))
        mark = Mark(self._source, raw.start_mark.line + 1)
        size = 1
        value: Any
        if isinstance(raw, yaml.MappingNode):
            self._expect(raw, "map")
            value, size = self._mapping(raw, depth)
        elif isinstance(raw, yaml.SequenceNode):
            self._expect(raw, "seq")
            value = []
            for child in raw.value:
                item, inner = self.node(child, depth + 1)
                value.append(item)
                size += inner
        elif isinstance(raw, yaml.ScalarNode):
            value = self._scalar(raw)
        if size > _MOST_VALUES:
            raise YamlError(
                f"yaml: document contains excessive aliasing or more than {_MOST_VALUES} values"
            )
        self._open.discard(id(raw))
        self._done[id(raw)] = Node(value, mark), size
        return self._done[id(raw)]

    def _mapping(self, raw: yaml.MappingNode, depth: int) -> tuple[dict[str, Node], int]:
        own: dict[str, Node] = {}
        lines: dict[str, int] = {}
        inherited: dict[str, Node] = {}
        size = 1
        for key, child in raw.value:
            item, inner = self.node(child, depth + 1)
            size += inner
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(f"yaml: {self._line(key)}a key must be a scalar")
            line = key.start_mark.line + 1
            if key.tag == _PLAIN and key.value == "<<":
                for base in item.value if isinstance(item.value, list) else [item]:
                    if not isinstance(base.value, dict):
                        raise YamlError(
                            f"yaml: line {line}: map merge requires map or sequence of maps as the value"
                        )
                    inherited = {**base.value, **inherited}
                continue
            name = str(key.value)
            if name in lines:
                raise YamlError(
                    f"yaml: unmarshal errors: line {line}: mapping key {quote(name)} "
                    f"already defined at line {lines[name]}"
                )
            lines[name] = line
            # A value is found under its key, so it carries the key's line.
            item = Node(item.value, Mark(self._source, line), item.text, item.newline)
            first, *rest = name.split("::")
            if depth + len(rest) > _DEEPEST:
                raise YamlError(f"yaml: line {line}: nested deeper than {_DEEPEST} levels")
            for part in reversed(rest):
                item = Node({part: item}, item.mark)
            if first in own:
                if not (isinstance(own[first].value, dict) and isinstance(item.value, dict)):
                    raise YamlError(
                        f"yaml: unmarshal errors: line {line}: mapping key {quote(name)} "
                        f"already defined at line {own[first].mark.line}"
                    )
                item = merged(own[first], item)
            own[first] = item
        return {**inherited, **own}, size

    def _scalar(self, raw: yaml.ScalarNode) -> Any:
        if raw.tag == _PLAIN:
            return scalar(raw.value)
        if raw.tag == f"{_TAG}str":
            return raw.value
        value = scalar(raw.value)
        kinds = {"null": type(None), "bool": bool, "int": int, "float": float}
        for name, kind in kinds.items():
            if raw.tag == _TAG + name:
                if kind is float and type(value) is int:
                    return float(value)
                if type(value) is kind:
                    return value
                raise YamlError(
                    f"yaml: {self._line(raw)}cannot decode {quote(raw.value)} as a !!{name}"
                )
        raise YamlError(f"yaml: {self._line(raw)}unknown tag {raw.tag.replace(_TAG, '!!')}")

    def _expect(self, raw: yaml.Node, name: str) -> None:
        if raw.tag != _TAG + name:
            raise YamlError(f"yaml: {self._line(raw)}unknown tag {raw.tag.replace(_TAG, '!!')}")

    @staticmethod
    def _line(raw: yaml.Node) -> str:
        return f"line {raw.start_mark.line + 1}: "


def scalar(text: str) -> Any:
    """What go-yaml v3 makes of a plain scalar (its resolve.go); timestamps stay text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] == "." and _FLOAT.fullmatch(text):
        return float(text)
    if text[0] not in "+-0123456789":
        return text
    digits = text.replace("_", "")
    match = _INT.fullmatch(digits) if len(digits) <= _LONGEST_INT else None
    if match:
        base = {2: 16, 3: 2, 4: 8, 5: 10}[match.lastindex or 5]
        number = int(match[1] + match[match.lastindex or 5], base)
        if -(2**63) <= number < 2**64:
            return number
    return float(digits) if _FLOAT.fullmatch(digits) else text


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the text that `scalar` would not give back as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _represent_str(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(data), str) else "'"
    return dumper.represent_scalar(f"{_TAG}str", str(data), style=style)


_Dumper.add_representer(str, _represent_str)


def dump_yaml(value: Any) -> str:
    """Plain values as YAML that both dialects read alike; keys keep their order."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )
    return text
