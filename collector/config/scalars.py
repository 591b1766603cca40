"""
Single values of a configuration: numbers, words, texts and durations, and how a problem is recorded.

What holds values together (sections, lists, maps, unions) is decode.py, which is built on this.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import inspect

from collector.config import durations, ids
from collector.config.nodes import Mark, Node, go_type, plain
from collector.config.problems import Problems, located, nearest, quote
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
class Scalars:
    """
    Decodes values that hold no others.

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
