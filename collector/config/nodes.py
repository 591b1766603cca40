"""
A configuration value that remembers where it was written.

Plain dicts forget their lines, so a configuration is a tree of `Node`s until it is decoded: that is
how every problem can say `otel-collector.yaml:31`. A value that came from a whole `${...}` also
keeps its text, because only the type of the field decides which of the two is meant (`0123` is 83
for a number and "0123" for a string).
"""

import re
from dataclasses import dataclass
from typing import Any, Final

MISSING: Final = "<nil>"
_NAMES: Final = re.compile(r"[`'\"]([a-z][a-z0-9_]*)[`'\"]|^([a-z][a-z0-9_]*)")


@dataclass(slots=True, frozen=True)
class Mark:
    """
    Where something was written.

    Args:
        source: a file name, or how the text was given ("env:NAME", "--set a.b").
        line: counted from 1; 0 when the source is one line.
    """

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(slots=True, frozen=True, eq=False)
class Node:
    """
    One value of the configuration.

    Args:
        value: None, bool, int, float, str, a list of nodes or a dict of nodes.
        mark: the line of the key that holds it, or its own in a list.
        text: what stood in the variable or file, when the whole value was one `${...}`.
        newline: the text ended with a line break that came from a file.
    """

    value: Any
    mark: Mark
    text: str | None = None
    newline: bool = False


def plain(node: Node) -> Any:
    """The value without its marks."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def moved(node: Node, mark: Mark) -> Node:
    """The same value, as if it had been written at `mark`."""
    value = node.value
    if isinstance(value, dict):
        value = {key: moved(child, mark) for key, child in value.items()}
    elif isinstance(value, list):
        value = [moved(child, mark) for child in value]
    return Node(value, mark, node.text, node.newline)


def merged(first: Node, second: Node) -> Node:
    """Maps join, everything else is replaced; a null replaces too, so it deletes a section."""
    if not isinstance(first.value, dict) or not isinstance(second.value, dict):
        return second
    value = dict(first.value)
    for key, child in second.value.items():
        value[key] = merged(value[key], child) if key in value else child
    return Node(value, second.mark)


def spot(text: str, node: Node, path: str) -> tuple[Mark, str]:
    """The line and path of the key that a text quotes or begins with, else those of the node."""
    for names in _NAMES.findall(text):
        name = names[0] or names[1]
        waiting = [(path, node)]
        while waiting:
            at, here = waiting.pop(0)
            if isinstance(here.value, dict):
                if name in here.value:
                    return here.value[name].mark, f"{at}.{name}"
                waiting.extend((f"{at}.{key}", child) for key, child in here.value.items())
    return node.mark, path


def go_type(value: Any) -> str:
    """The name that the OpenTelemetry Collector's messages give to the type of a value."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "bool"
    for kind, name in (
        (int, "int"),
        (float, "float64"),
        (str, "string"),
        (list, "[]interface {}"),
        (dict, "map[string]interface {}"),
    ):
        if isinstance(value, kind):
            return name
    return type(value).__name__


def go_kind(value: Any) -> str:
    """The short form of the type's name: "map" and "slice" for the containers."""
    return {"map[string]interface {}": "map", "[]interface {}": "slice"}.get(
        go_type(value), go_type(value)
    )
