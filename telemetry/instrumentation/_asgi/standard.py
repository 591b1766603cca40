"""
OpenTelemetry's own variables for HTTP servers, as contrib's instrumentations read them.

The distro leaves contrib's `fastapi` out where FastAPI traces itself, so its variables have to mean
here what they mean there. OTEL_PYTHON_<FRAMEWORK>_EXCLUDED_URLS, or else OTEL_PYTHON_EXCLUDED_URLS,
are regular expressions that are searched in the whole URL: a request that matches is silent, as with
TELEMETRY_HTTP_EXCLUDE. OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST and _RESPONSE name
headers (patterns, in any case) that go on the server span, and _SANITIZE_FIELDS those of them whose
values do not. A pattern that cannot be used is said and left out; the others count.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry import _diagnostics, _values

Pattern = re.Pattern[str]

EXCLUDED: Final = "EXCLUDED_URLS"
CAPTURE: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
REDACTED: Final = "[REDACTED]"
HEADERS: Final = 64
"""More headers of a request than are looked at."""


@dataclass(frozen=True)
class Standard:
    """What the standard variables say."""

    excluded: Pattern | None = None
    request: Pattern | None = None
    response: Pattern | None = None
    sanitize: Pattern | None = None

    def excludes(self, scope: Mapping[str, Any]) -> bool:
        """Whether the request is one that shall leave nothing."""
        return self.excluded is not None and self.excluded.search(_url(scope)) is not None

    def captured(
        self, requested: Iterable[Sequence[bytes]], answered: Iterable[Sequence[bytes]]
    ) -> dict[str, list[str]]:
        """The attributes of the server span for the headers that somebody wants to see."""
        found: dict[str, list[str]] = {}
        for kind, pattern, headers in (
            ("request", self.request, requested),
            ("response", self.response, answered),
        ):
            if pattern is None:
                continue
            for name, value in list(headers)[:HEADERS]:
                word = bytes(name).decode("latin-1").lower()
                if not pattern.fullmatch(word):
                    continue
                text = _values.bounded(bytes(value).decode("latin-1"))
                if self.sanitize is not None and self.sanitize.search(word):
                    text = REDACTED
                key = f"http.{kind}.header.{word.replace('-', '_')}"
                found.setdefault(key, []).append(text)
        return found


def read(framework: str, environ: Mapping[str, str] | None = None) -> Standard:
    """
    What the variables say for applications of a framework.

    Args:
        framework: as it stands in the variable: FASTAPI, FLASK, DJANGO.
        environ: the process's by default.
    """
    environ = os.environ if environ is None else environ
    own = f"OTEL_PYTHON_{framework}_{EXCLUDED}"
    return Standard(
        excluded=_pattern(own if own in environ else f"OTEL_PYTHON_{EXCLUDED}", environ, 0),
        request=_pattern(f"{CAPTURE}SERVER_REQUEST", environ),
        response=_pattern(f"{CAPTURE}SERVER_RESPONSE", environ),
        sanitize=_pattern(f"{CAPTURE}SANITIZE_FIELDS", environ),
    )


def _pattern(
    variable: str, environ: Mapping[str, str], flags: int = re.IGNORECASE
) -> Pattern | None:
    """All patterns of a variable as one; None for none."""
    usable = []
    for part in environ.get(variable, "").split(","):
        if not part.strip():
            continue
        try:
            re.compile(part.strip(), flags)
        except re.error as error:
            text = (
                f"{variable}: {part.strip()!r} is no regular expression ({error}); it is left out"
            )
            _diagnostics.say(variable, text, level="error", always=True)
        else:
            usable.append(f"(?:{part.strip()})")
    return re.compile("|".join(usable), flags) if usable else None


def _url(scope: Mapping[str, Any]) -> str:
    host = next(
        (bytes(value).decode("latin-1") for name, value in scope["headers"] if name == b"host"), ""
    )
    if not host:
        server = scope.get("server") or ("", None)
        host = f"{server[0]}:{server[1]}" if server[1] else str(server[0])
    scheme = "http" if scope.get("scheme") in ("http", "ws", None) else "https"
    return f"{scheme}://{host}{scope['path']}"
