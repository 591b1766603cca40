"""
What is wrong with a configuration: collected by stage, reported together.

Each problem is the OpenTelemetry Collector's text, because people search for it, and on a line of
its own the place and the fix. The stages carry the Collector's prefixes ("failed to get config:
cannot unmarshal the configuration: ..."), so that one report reads as its report would.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from collector.config.nodes import Mark
from collector.errors import ConfigError

_GET = "failed to get config: "
_DECODING = (
    f"{_GET}cannot unmarshal the configuration: decoding failed due to the following error(s):\n\n"
)
_LONGEST_LIST = 20


def quote(text: str) -> str:
    """A text in double quotes, as Go prints it."""
    return json.dumps(text, ensure_ascii=False)


def nearest(name: str, valid: Iterable[str], what: str = "valid keys") -> str:
    """The fix for a misspelt name: the nearest valid one, else all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {quote(close[0])}?"
    if not names:
        return "no key is valid here" if what == "valid keys" else f"{what}: none"
    shown = ", ".join(names[:_LONGEST_LIST])
    return f"{what}: {shown}" + (", ..." if len(names) > _LONGEST_LIST else "")


def located(text: str, mark: Mark | None, path: str, fix: str = "") -> str:
    """The text, and on its own line where it was written and how to mend it."""
    place = ", ".join(part for part in (str(mark) if mark else "", path) if part)
    detail = "; ".join(part for part in (place, fix) if part)
    return f"{text}\n  {detail}" if detail else text


class InvalidConfig(ConfigError):
    """
    The configuration cannot be used; says everything that is wrong with it.

    Args:
        usage: problems of the command line.
        resolving: sources that cannot be read, `${...}` that cannot be expanded.
        decoding: keys, ids, types and values that do not fit.
        validation: what does not hold although each value fits.
    """

    def __init__(
        self,
        *,
        usage: list[str],
        resolving: list[str],
        decoding: list[str],
        validation: list[str],
    ) -> None:
        super().__init__([*usage, *resolving, *decoding, *validation])
        self.usage = usage
        self.resolving = resolving
        self.decoding = decoding
        self.validation = validation

    def __str__(self) -> str:
        return self.report("invalid configuration: ")

    def report(self, validation_prefix: str = "") -> str:
        """Every problem under the prefix of its stage; `validate` prints the last ones bare."""
        parts = []
        if self.usage:
            parts.append("\n".join(self.usage))
        if self.resolving:
            parts.append(
                f"{_GET}cannot resolve the configuration: " + "\n".join(self.resolving),
            )
        if self.decoding:
            parts.append(_DECODING + "\n".join(self.decoding))
        if self.validation:
            parts.append(validation_prefix + "\n".join(self.validation))
        return "\n\n".join(parts)


@dataclass(slots=True)
class Problems:
    """The problems and warnings found so far."""

    usage: list[str] = field(default_factory=list)
    resolving: list[str] = field(default_factory=list)
    decoding: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def stop(self) -> None:
        """Raise InvalidConfig when there is any problem."""
        if self.usage or self.resolving or self.decoding or self.validation:
            raise InvalidConfig(
                usage=self.usage,
                resolving=self.resolving,
                decoding=self.decoding,
                validation=self.validation,
            )

    def warn(self, text: str) -> None:
        """Remember a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)
