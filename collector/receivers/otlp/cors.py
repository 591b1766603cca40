"""
CORS of OTLP/HTTP: which web pages may send telemetry from a browser.

Without this section a request that carries a foreign Origin is rejected, so that no page can fill
the store of a user who merely visits it. The keys and what they mean are the OpenTelemetry
Collector's: `*` in an origin stands for any text, credentials are allowed, and therefore a browser
does not accept the answer to a credentialed request when the origin is `*` alone.
"""

from typing import Final

import msgspec

SIMPLE: Final = frozenset({"accept", "accept-language", "content-language", "content-type"})
"""Headers that a page may always send."""
UNNAMED: Final = "x-requested-with"
"""Allowed, too, as long as no header is named."""
Headers = list[tuple[bytes, bytes]]


class Cors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cross-origin requests of browsers."""

    allowed_origins: tuple[str, ...] = ()
    """Origins of pages that may send, such as `https://*.example.com`; without any, none may."""
    allowed_headers: tuple[str, ...] = ()
    """Headers that these pages may send beside the usual ones; `*` for any."""
    exposed_headers: tuple[str, ...] = ()
    """Headers of the answer that these pages may read."""
    max_age: int = 0
    """Seconds for which a browser may remember the permission; 0 leaves that to the browser."""

    def check(self) -> list[str]:
        """What is wrong with these settings, one text each."""
        problems = [
            f'allowed_origins: "{origin}" has more than one *'
            for origin in self.allowed_origins
            if origin.count("*") > 1
        ]
        if not self.allowed_origins and (self.allowed_headers or self.exposed_headers):
            problems.append("allowed_headers and exposed_headers need allowed_origins")
        if self.max_age < 0:
            problems.append("max_age must not be negative")
        return problems

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin (in lower case) may send."""
        for known in self.allowed_origins:
            start, star, end = known.lower().partition("*")
            if not star and origin == start:
                return True
            if (
                star
                and len(origin) >= len(start) + len(end)
                and origin.startswith(start)
                and origin.endswith(end)
            ):
                return True
        return False

    def refuses(self, names: str) -> str:
        """The first of these header names that a page may not send; empty when it may send all."""
        known = SIMPLE | {name.lower() for name in self.allowed_headers}
        if not self.allowed_headers:
            known |= {UNNAMED}
        if "*" in known:
            return ""
        wanted = (name.strip().lower() for name in names.split(","))
        return next((name for name in wanted if name and name not in known), "")

    def permission(self, origin: bytes) -> Headers:
        """What the answer to a page of an allowed origin carries."""
        named = [
            (
                b"access-control-allow-origin",
                b"*" if "*" in self.allowed_origins else origin,
            ),
            (b"access-control-allow-credentials", b"true"),
            (b"vary", b"Origin"),
        ]
        if self.exposed_headers:
            shown = ", ".join(self.exposed_headers).encode("latin-1")
            named.append((b"access-control-expose-headers", shown))
        return named

    def preflight(self, names: bytes) -> Headers:
        """What the answer to the question of an allowed page carries beside that."""
        named = [(b"access-control-allow-methods", b"POST")]
        if names:
            named.append((b"access-control-allow-headers", names))
        if self.max_age:
            named.append((b"access-control-max-age", b"%d" % self.max_age))
        return named
