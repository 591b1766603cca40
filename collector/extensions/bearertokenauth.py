"""
bearertokenauth: the secret that a sender must show, `Authorization: Bearer <token>`.

A receiver asks it with the values of its header before it reads a body. Only hashes of the tokens
are kept for that, and every one of them is compared, each in constant time, so that how long a
rejection takes says nothing about how close a guess was. Two valid tokens at once let senders change
over one by one. A token file is read again when it has changed; a file that cannot be read, or is
empty, leaves the tokens as they were, so that a half-written file locks no client out.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from collector.errors import StartFailed
from collector.model import Host, Secret

SHORT: Final = 32
"""Tokens with fewer characters are warned about: they could be guessed."""
LOOK_S: Final = 1.0
"""A token file is looked at so often at most."""


class BearerTokenAuth:
    """Knows the tokens, and whether a request has one of them."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the tokens; one of `token`, `tokens` and `filename`."""

        token: Secret = Secret("")
        """The token; use `${env:NAME}`."""
        tokens: tuple[Secret, ...] = ()
        """Several, each of which is taken."""
        filename: str = ""
        """A file with one token per line, read again when it changes."""
        scheme: str = "Bearer"
        """The word in front of the token; empty when there is none."""
        header: str = "Authorization"
        """The header that carries it."""

        def check(self) -> list[str]:
            """What is wrong with these settings, one text each."""
            given = [name for name in ("token", "tokens", "filename") if getattr(self, name)]
            if not given:
                return ["no bearer token provided; set `token`, `tokens` or `filename`"]
            if len(given) > 1:
                return [f"either `{given[0]}` or `{given[1]}` must be specified, not both"]
            problems = []
            if any(not token.strip() for token in self.tokens):
                problems.append("`tokens` must not contain an empty token")
            if not self.header.strip():
                problems.append("`header` must not be empty")
            return problems

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.header = config.header.lower()
        """The name of the header, in lower case."""
        self._host = host
        self._scheme = config.scheme.encode().lower()
        self._hashes: tuple[bytes, ...] = ()
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = 0.0

    async def __aenter__(self) -> Self:
        """
        Take the tokens.

        Raises:
            StartFailed: the file cannot be read, or holds no token.
        """
        if not self.config.filename:
            self._take(filter(None, (self.config.token, *self.config.tokens)))
            return self
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise StartFailed(f"filename: no token in {self.config.filename}: {error}") from None
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Nothing to close; receivers that ask until the successor is in place still get an answer."""

    def authenticate(self, values: Sequence[bytes]) -> bool:
        """
        Whether a request may come in.

        Args:
            values: of its `header`, one for each time that it was sent.
        """
        self._look()
        if len(values) != 1:
            return False
        scheme, _, token = values[0].partition(b" ") if self._scheme else (b"", b"", values[0])
        given = hashlib.sha256(token).digest()
        right = False
        for known in self._hashes:
            right |= hmac.compare_digest(given, known)
        return right and scheme.lower() == self._scheme

    def _take(self, tokens: Iterable[str]) -> None:
        """Keep the hashes of tokens."""
        tokens = list(tokens)
        if any(len(token) < SHORT for token in tokens):
            self._host.log.warning(
                "A token has fewer than %d characters and could be guessed; "
                "make one with: openssl rand -base64 33",
                SHORT,
            )
        self._hashes = tuple(hashlib.sha256(token.encode()).digest() for token in tokens)

    def _look(self) -> None:
        """Read the file again when it has changed."""
        now = time.monotonic()
        if not self.config.filename or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        try:
            self._read()
        except (OSError, ValueError) as error:
            self._seen = None
            self._host.stats.add("otelier_bearertokenauth_unreadable", extension=self._host.id)
            self._host.log.debug("The token file cannot be used, the old tokens stay: %s", error)

    def _read(self) -> None:
        path = Path(self.config.filename)
        stat = path.stat()
        mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if mark == self._seen:
            return
        tokens = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if not tokens:
            raise ValueError("the file is empty")
        self._take(tokens)
        self._seen = mark
