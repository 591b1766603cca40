"""
Headers as HTTP can carry them.

OTEL_EXPORTER_OTLP_HEADERS is percent-decoded, so it can hold anything: a secret that was stored with its
line end, text of any language, control characters. An HTTP client refuses each request with such a
header, and everything would be lost. Here a line end around a value is taken off, as OpenTelemetry
does, and a header that cannot be sent is left out and named, without its value.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from telemetry.errors import ConfigError

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


class PartlyUsable(ConfigError):
    """
    A value of several parts, some of which can be used.

    Args:
        value: those parts.
        problems: of the others.
    """

    def __init__(self, value: Any, problems: list[str]) -> None:
        super().__init__(problems)
        self.value = value


def checked(pairs: Mapping[str, str]) -> dict[str, str]:
    """Pairs that HTTP can carry: spaces and line ends around a value go, what else cannot be sent is said."""
    headers: dict[str, str] = {}
    problems = []
    for key, item in pairs.items():
        name, text = key.strip(), item.strip()
        if not _HEADER_NAME.fullmatch(name):
            problems.append(
                f"{name[:60]!r} is no name of a header; use letters, digits and dashes, or leave it out"
            )
        elif not _HEADER_VALUE.fullmatch(text):
            problems.append(
                f"the value of header {name!r} has characters that HTTP cannot carry (control"
                " characters, or text beyond Latin-1); encode it, for example as base64, or leave it out"
            )
        else:
            headers[name] = text
    if problems:
        raise PartlyUsable(headers or None, problems)
    return headers
