"""
Component and pipeline ids: `type` or `type/name`, cut at the first slash, both halves trimmed.

The rules and texts are the OpenTelemetry Collector's. A type with a colon is an import string
(`mycompany.sinks:Kafka`) and follows Python's rule for names instead.
"""

import re
import unicodedata
from typing import Final

from collector.config.problems import quote

_TYPE: Final = re.compile(r"[a-zA-Z][0-9a-zA-Z_]{0,62}")
_IMPORT: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_LONGEST_NAME: Final = 1024
_SIGNALS: Final = ("traces", "metrics", "logs", "profiles")


def component(text: str) -> tuple[str, str]:
    """
    The id in its one spelling, and its type.

    Raises:
        ValueError: with the OpenTelemetry Collector's text.
    """
    kind, name = _halves(text)
    if not (_TYPE.fullmatch(kind) or _IMPORT.fullmatch(kind)):
        raise ValueError(f"in {quote(text)} id: invalid character(s) in type {quote(kind)}")
    return (f"{kind}/{name}" if name else kind), kind


def pipeline(text: str) -> tuple[str, str]:
    """
    The pipeline's id in its one spelling, and its signal.

    Raises:
        ValueError: with the OpenTelemetry Collector's text.
    """
    signal, name = _halves(text)
    if signal not in _SIGNALS:
        raise ValueError(f"unknown pipeline signal: {quote(signal)}")
    return (f"{signal}/{name}" if name else signal), signal


def _halves(text: str) -> tuple[str, str]:
    kind, slash, name = text.partition("/")
    kind, name = kind.strip(), name.strip()
    if not kind:
        raise ValueError(
            f"in {quote(text)} id: the part before / should not be empty"
            if slash
            else "id must not be empty"
        )
    if slash and not name:
        raise ValueError(f"in {quote(text)} id: the part after / should not be empty")
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME or any(
        unicodedata.category(character)[0] in "ZCS" for character in name
    ):
        raise ValueError(f"in {quote(text)} id: invalid character(s) in name {quote(name)}")
    return kind, name
