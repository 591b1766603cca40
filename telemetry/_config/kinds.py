"""
What a value of a setting may be: one reader for arguments and variables alike.

A reader takes a text from the environment or an object from `configure()`, and raises ValueError or TypeError;
its words say what it takes, and stand in the message about a wrong value. `settings` has the table.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from telemetry._config import headers
from telemetry._redaction.policy import LEVELS as LEVELS_OF_REDACTION
from telemetry._redaction.policy import MODES as REDACTION_MODES
from telemetry._redaction.policy import Redaction
from telemetry.attributes import CONTEXT
from telemetry.errors import ConfigError

LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MOST: Final = 1000
_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Kind:
    """
    How a setting is read.

    Args:
        read: the given value (from a variable always text) -> the value; raises if it is no good.
        words: the fix: what a good value looks like.
    """

    read: Callable[[Any], Any]
    words: str


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value.strip()


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError
    return word in _TRUE


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    number = int(value)
    if number < 1:
        raise ValueError
    return number


def _seconds(value: Any) -> float:
    number = float(value)
    if not 0 <= number < 86_400 or isinstance(value, bool):
        raise ValueError
    return number


def _long_seconds(value: Any) -> float:
    number = float(value)
    if not 0 < number < 100 * 365 * 86_400 or isinstance(value, bool):
        raise ValueError
    return number


def _levels(value: Any) -> dict[str, str]:
    """`app.db=DEBUG,urllib3=WARNING`, or a mapping: logger -> level."""
    levels = {name: _text(level).upper() for name, level in _pairs(value).items()}
    if not set(levels.values()) <= set(LOG_LEVELS):
        raise ValueError
    return levels


def _url(value: Any) -> str:
    url = _text(value)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError
    return url


def _pairs(value: Any) -> dict[str, str]:
    """`a=1,b=2` with percent-encoding, as OTEL_EXPORTER_OTLP_HEADERS has it, or a mapping."""
    if isinstance(value, Mapping):
        return {str(key): str(item) for key, item in itertools.islice(value.items(), MOST)}
    result = {}
    for part in _text(value).split(","):
        key, equals, item = part.partition("=")
        if not part.strip():
            continue
        if not equals or not key.strip():
            raise ValueError
        result[unquote(key.strip())] = unquote(item.strip())
    return result


def _words(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else itertools.islice(value, MOST)
    return tuple(_text(part) for part in parts if _text(part))


def _redaction_level(value: Any) -> str | Redaction:
    if isinstance(value, Redaction):
        return checked(value)
    word = _text(value).lower()
    if word in LEVELS_OF_REDACTION:
        return word
    return "on" if _flag(word) else "off"


def _modes(value: Any) -> dict[str, str]:
    modes = {name: _text(mode).lower() for name, mode in _pairs(value).items()}
    if not set(modes.values()) <= set(REDACTION_MODES):
        raise ValueError
    return modes


def _redaction_keys(value: Any) -> dict[str, str]:
    """`customer_name=hash,iban`, a list of names, or a mapping from names to modes."""
    if isinstance(value, Mapping):
        return _modes(value)
    return _modes({name: mode or "mask" for name, _, mode in map(_halved, _words(value))})


def _halved(word: str) -> tuple[str, str, str]:
    name, equals, mode = word.partition("=")
    return name.strip(), equals, mode


def _redaction_patterns(value: Any) -> dict[str, str]:
    patterns = json.loads(value) if isinstance(value, str) else value
    if not isinstance(patterns, Mapping):
        raise TypeError
    patterns = dict(itertools.islice(patterns.items(), MOST))
    checked(Redaction(patterns=patterns))
    return patterns


def checked(redaction: Redaction) -> Redaction:
    from telemetry._redaction import validate  # noqa: PLC0415 - only for those who give rules

    if found := validate.problems(redaction):
        raise ConfigError(found)
    return redaction


def context_keys(value: Any) -> tuple[str, ...]:
    keys = _words(value)
    if not set(keys) <= set(CONTEXT.values()):
        raise ValueError
    return keys


def choice(*words: str) -> Kind:
    table = {word.lower(): word for word in words}

    def read(value: Any) -> str:
        return table[_text(value).lower()]

    return Kind(read, "one of " + ", ".join(words))


TEXT: Final = Kind(_text, "a text")
FLAG: Final = Kind(_flag, "true or false")
WHOLE: Final = Kind(_whole, "a whole number, 1 or more")
SECONDS: Final = Kind(_seconds, "a number of seconds, 0 or more")
LONG_SECONDS: Final = Kind(_long_seconds, "a number of seconds, more than 0")
LEVELS: Final = Kind(_levels, "logger=LEVEL pairs, separated by commas; " + ", ".join(LOG_LEVELS))
REDACTION: Final = Kind(_redaction_level, "on, off or strict")
KEYS: Final = Kind(
    _redaction_keys, "names or name=mode pairs; modes: " + ", ".join(REDACTION_MODES)
)
PATTERNS: Final = Kind(_redaction_patterns, "a JSON object: name -> regular expression")
MODES: Final = Kind(_modes, "rule=mode pairs; modes: " + ", ".join(REDACTION_MODES))
URL: Final = Kind(_url, "a URL such as http://localhost:4318")
PAIRS: Final = Kind(_pairs, "key=value pairs, separated by commas")
HEADERS: Final = Kind(lambda value: headers.checked(_pairs(value)), PAIRS.words)
WORDS: Final = Kind(_words, "names, separated by commas")
